//! 200 senders whose host dies and comes back: they dial it with growing, scattered pauses, and all of them get through
//! soon after it is there again. The host is a process of its own, so that its processor time can be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyperactor_channel::{DialOptions, ServeOptions, dial_tx, serve_queue};
use hyperactor_refs::{BindSpec, ChannelAddr};
use hyperactor_testkit::{ChaosProxy, Key, Script, Stamped, SuiteReport};

use crate::support::net::{Kind, Place};
use crate::support::process::cpu_time;
use crate::support::served::Served;
use crate::support::traffic::codec;
use crate::support::{Context, holds_within, quantile, runtime};

const SENDERS: usize = 200;
const ROUNDS: u64 = 5;
/// How long the host is away, and the time after its end from which dials are counted.
const AWAY: Duration = Duration::from_secs(3);
const SETTLING: Duration = Duration::from_secs(1);
/// Dials of one sender in a second, while the host is away.
const DIALS: u64 = 3;
const RECOVERED: Duration = Duration::from_secs(5);
const CPU: Duration = Duration::from_secs(3);

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(rounds(kind, context, report));
}

/// The host: serves the address that it is told, or one of this kind, until it is killed.
pub(crate) fn host(arguments: &[String]) {
    runtime().block_on(async {
        let place = Kind::parse(&arguments[0]).map(Place::new);
        let bind = match &place {
            Some(place) => place.bind.clone(),
            None => BindSpec::from(arguments[0].parse::<ChannelAddr>().unwrap()),
        };
        let options = ServeOptions::default();
        let mut rx = serve_queue::<Stamped>(bind, options, codec())
            .await
            .unwrap();
        println!("{}", rx.addr());
        while rx.recv().await.is_some() {}
    });
}

async fn rounds(kind: Kind, context: &Context, report: &mut SuiteReport) {
    // A path has to outlive the hosts that serve it; the other addresses are chosen by the first of them.
    let place = (kind == Kind::Path).then(|| Place::new(kind));
    let path = place
        .as_ref()
        .map(|place| place.bind.addr().unwrap().to_string());
    let mut host = Served::with("herd", &[path.as_deref().unwrap_or(kind.word())]);
    let addr = host.addr.to_string();
    // Stands before the host and accepts for it: a sender whose connection is closed at once is the harder case.
    let proxy = ChaosProxy::start(&addr, Script::pass()).await.unwrap();
    let dialled: ChannelAddr = proxy.endpoint().to_string().parse().unwrap();
    let senders = context.count(SENDERS).min(SENDERS);
    let round = Arc::new(AtomicU64::new(0));
    let reached: Arc<Vec<AtomicU64>> = Arc::new((0..senders).map(|_| AtomicU64::new(0)).collect());
    for number in 0..senders {
        let (addr, round, reached) = (dialled.clone(), Arc::clone(&round), Arc::clone(&reached));
        tokio::spawn(async move {
            let key = Key {
                sender: 0,
                stream: 0,
                number: 0,
            };
            let mut tx = dial_tx::<Stamped>(addr.clone(), DialOptions::default(), codec());
            loop {
                let now = round.load(Ordering::Relaxed);
                if tx
                    .send(Stamped::new(key, vec![1; 100]))
                    .await
                    .is_delivered()
                {
                    reached[number].fetch_max(now + 1, Ordering::Relaxed);
                }
                if matches!(
                    &*tx.status().borrow(),
                    hyperactor_channel::Status::Closed(_)
                ) {
                    tx = dial_tx(addr.clone(), DialOptions::default(), codec());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    let everybody = |target: u64| {
        let reached = Arc::clone(&reached);
        move || {
            reached
                .iter()
                .all(|one| one.load(Ordering::Relaxed) > target)
        }
    };
    assert!(
        holds_within(RECOVERED, everybody(0)).await,
        "not everybody came at first"
    );
    let (mut times, mut dials, mut worst) = (Vec::new(), 0, Duration::ZERO);
    for number in 1..=context.scaled(ROUNDS) {
        host.kill();
        tokio::time::sleep(SETTLING).await;
        let before = proxy.report().connections;
        tokio::time::sleep(AWAY - SETTLING).await;
        dials += proxy.report().connections - before;
        // Only what is posted from here on counts as through.
        round.store(number, Ordering::Relaxed);
        let started = Instant::now();
        host = Served::with("herd", &[&addr]);
        let all = holds_within(RECOVERED * 2, everybody(number)).await;
        times.push(if all {
            started.elapsed()
        } else {
            RECOVERED * 2
        });
        worst = worst.max(cpu_time(host.pid()));
    }
    let rounds = context.scaled(ROUNDS);
    let seconds = rounds * (AWAY - SETTLING).as_secs();
    report.at_least("rounds", rounds, context.scaled(ROUNDS));
    report.at_least(
        "dials while the host was away",
        dials,
        senders as u64 * rounds / 2,
    );
    report.at_most(
        "dials while the host was away",
        dials,
        DIALS * seconds * senders as u64,
    );
    report.figure(
        "median recovery of all",
        format!("{:.1?}", quantile(&mut times, 500)),
    );
    report.within(
        "longest recovery of all",
        quantile(&mut times, 1000),
        RECOVERED,
    );
    report.within("processor time of a host, from start to all", worst, CPU);
    host.kill();
    proxy.stop().await;
}
