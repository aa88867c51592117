//! A process with 64 descriptors and 500 dials to it: sessions that are there go on, the accept loop rests instead of
//! spinning and says so once a second at most, and all who wait get in once there is room. The server is a process of its
//! own, so that only it is short.

use std::time::{Duration, Instant};

use hyperactor_channel::{DialOptions, Outcome, ServeOptions, dial_tx, serve_queue};
use hyperactor_testkit::{Key, Stamped, SuiteReport};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::log::Lines;
use crate::support::net::{Kind, Place, connect};
use crate::support::process::cpu_time;
use crate::support::served::{Served, questions};
use crate::support::traffic::codec;
use crate::support::{BUSY, Context, runtime};

const DESCRIPTORS: u64 = 64;
const DIALS: usize = 500;
/// How long the server is kept short.
const SHORT: Duration = Duration::from_secs(3);
const RECOVERED: Duration = Duration::from_secs(1);
/// Of one core, in thousandths of the time that the server is short.
const CPU_THOUSANDTHS: u64 = 50;
/// One outcome of the session that was there before.
const OUTCOME: Duration = Duration::from_millis(100);

/// The server: lowers its own limit, says its address, takes messages, and tells how much it has written into its log.
pub(crate) fn serve(arguments: &[String]) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(DESCRIPTORS),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let lines = Lines::count();
    runtime().block_on(async {
        let place = Place::new(Kind::parse(&arguments[0]).unwrap());
        let options = ServeOptions::default();
        let mut rx = serve_queue::<Stamped>(place.bind.clone(), options, codec())
            .await
            .unwrap();
        println!("{}", rx.addr());
        let mut asked = questions();
        loop {
            tokio::select! {
                _ = rx.recv() => {}
                question = asked.recv() => match question {
                    Some(_) => {
                        let (all, within_a_second) = lines.counts();
                        println!("{all} {within_a_second}");
                    }
                    None => return,
                },
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

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(one(kind, context, report));
}

async fn one(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let mut server = Served::start("fds", kind);
    let addr = server.addr.clone();
    let old = dial_tx::<Stamped>(addr.clone(), DialOptions::default(), codec());
    assert_eq!(old.send(message()).await, Outcome::Delivered);
    // Connections that say nothing fill the table until their deadline; new ones keep coming, so that it stays full.
    let dials = context.count(DIALS);
    let began = Instant::now();
    let mut hoard = Vec::new();
    let mut refused = 0_u64;
    for _ in 0..dials {
        match connect(&addr).await {
            Ok(stream) => hoard.push(stream),
            Err(_) => refused += 1,
        }
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .count() as u64;
    let (cpu, started) = (cpu_time(server.pid()), Instant::now());
    let (mut outcomes, mut failed) = (Vec::new(), 0);
    while started.elapsed() < SHORT {
        let before = Instant::now();
        let outcome = old.send(message()).await;
        outcomes.push(before.elapsed());
        failed += u64::from(outcome != Outcome::Delivered);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let used = cpu_time(server.pid()).saturating_sub(cpu);
    let thousandths =
        u64::try_from(used.as_millis() * 1000 / started.elapsed().as_millis()).unwrap();
    let counts = server.ask("how many lines?");
    let seconds = began.elapsed().as_secs();
    drop(hoard);
    let freed = Instant::now();
    let fresh = dial_tx::<Stamped>(addr, DialOptions::default(), codec());
    let outcome = fresh.send(message()).await;
    let recovered = freed.elapsed();

    report.figure("dials that the kernel itself refused", refused);
    report.at_least(
        "descriptors open at the server while it was short",
        open,
        if context.scale.percent() >= 100 {
            DESCRIPTORS - 2
        } else {
            1
        },
    );
    report.at_least(
        "messages of the old session meanwhile",
        outcomes.len() as u64,
        50,
    );
    report.at_most("of these without delivery", failed, 0);
    report.times("their outcomes", &outcomes, OUTCOME, BUSY);
    report.at_most(
        "thousandths of a core that the server used",
        thousandths,
        CPU_THOUSANDTHS,
    );
    let (all, within_a_second) = counts.split_once(' ').unwrap();
    report.at_least(
        "lines in the server's log",
        all.parse().unwrap(),
        u64::from(context.scale.percent() >= 100),
    );
    report.at_most(
        "lines in the server's log",
        all.parse().unwrap(),
        seconds + 2,
    );
    report.at_most(
        "lines in any one second",
        within_a_second.parse().unwrap(),
        1,
    );
    report.check(
        "a new channel gets in once there is room",
        outcome == Outcome::Delivered,
        format!("{outcome:?}"),
    );
    report.within("time until it did", recovered, RECOVERED);
    report.check("the server ended in order", server.end(), "it did not");
}
