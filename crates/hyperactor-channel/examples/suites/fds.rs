//! A process with 64 descriptors and 500 dials to it: sessions that are there go on, the accept loop rests instead of
//! spinning, and all who wait get in once there is room. The server is a process of its own, so that only it is short.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use hyperactor_channel::{DialOptions, Outcome, ServeOptions, dial_tx, serve_queue};
use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{Key, Stamped};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::net::{Kind, connect};
use crate::support::process::{child, cpu_time};
use crate::support::traffic::codec;
use crate::support::{Context, Report, runtime};

const DESCRIPTORS: u64 = 64;
const DIALS: usize = 500;
/// How long the server is kept short.
const SHORT: Duration = Duration::from_secs(3);
const RECOVERED: Duration = Duration::from_secs(1);
/// Of one core, in thousandths of the time that the server is short.
const CPU_THOUSANDTHS: u64 = 50;

pub(crate) fn run(context: &Context, report: &mut Report) {
    for kind in Kind::ALL {
        report.figure("transport", kind.name());
        runtime().block_on(one(kind, context, report));
    }
}

/// The server: lowers its own limit, says its address, takes messages until its input ends.
pub(crate) fn serve(arguments: &[String]) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(DESCRIPTORS),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    runtime().block_on(async {
        let kind = Kind::of(arguments[0].parse().unwrap());
        let place = crate::support::net::Place::new(kind);
        let options = ServeOptions::default();
        let mut rx = serve_queue::<Stamped>(place.bind.clone(), options, codec())
            .await
            .unwrap();
        println!("{}", rx.addr());
        let mut end = String::new();
        let ended = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut end));
        tokio::pin!(ended);
        loop {
            tokio::select! {
                _ = rx.recv() => {}
                _ = &mut ended => return,
            }
        }
    });
}

fn message() -> Stamped {
    let key = Key {
        sender: 0,
        stream: 0,
        number: 0,
    };
    Stamped::new(key, Vec::new())
}

async fn one(kind: Kind, context: &Context, report: &mut Report) {
    let number = Kind::ALL
        .iter()
        .position(|other| *other == kind)
        .unwrap()
        .to_string();
    let mut server = child("fds", &[&number])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let addr: ChannelAddr = line.trim().parse().unwrap();

    let old = dial_tx::<Stamped>(addr.clone(), DialOptions::default(), codec());
    assert_eq!(old.send(message()).await, Outcome::Delivered);
    // Connections that say nothing fill the table until their deadline; new ones keep coming, so that it stays full.
    let dials = context.count(DIALS);
    let mut hoard = Vec::new();
    let mut refused = 0_u64;
    for _ in 0..dials {
        match connect(&addr).await {
            Ok(stream) => hoard.push(stream),
            Err(_) => refused += 1,
        }
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.id()))
        .unwrap()
        .count() as u64;
    let (cpu, started) = (cpu_time(server.id()), Instant::now());
    let (mut sent, mut longest) = (0_u64, Duration::ZERO);
    while started.elapsed() < SHORT {
        let before = Instant::now();
        let outcome = old.send(message()).await;
        longest = longest.max(before.elapsed());
        sent += u64::from(outcome == Outcome::Delivered);
        if outcome != Outcome::Delivered {
            report.check("the old session goes on", false, format!("{outcome:?}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let used = cpu_time(server.id()).saturating_sub(cpu);
    let thousandths =
        u64::try_from(used.as_millis() * 1000 / started.elapsed().as_millis()).unwrap();
    drop(hoard);
    let freed = Instant::now();
    let fresh = dial_tx::<Stamped>(addr, DialOptions::default(), codec());
    let outcome = fresh.send(message()).await;
    let recovered = freed.elapsed();

    report.figure("dials that the kernel itself refused", refused);
    report.at_least(
        "descriptors open at the server while it was short",
        open,
        if context.scale >= 100 {
            DESCRIPTORS - 2
        } else {
            1
        },
    );
    report.at_least("messages of the old session meanwhile", sent, 50);
    report.within("the longest of them", longest, Duration::from_millis(500));
    report.at_most(
        "thousandths of a core that the server used",
        thousandths,
        CPU_THOUSANDTHS,
    );
    report.check(
        "a new channel gets in once there is room",
        outcome == Outcome::Delivered,
        format!("{outcome:?}"),
    );
    report.within("time until it did", recovered, RECOVERED);
    server.stdin.take().unwrap().write_all(b"end\n").unwrap();
    let status = server.wait().unwrap();
    report.check("the server ended in order", status.success(), status);
}
