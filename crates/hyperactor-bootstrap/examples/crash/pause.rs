//! Processes are stopped for longer than a connection may be silent, and go on: receivers and senders, all at once, procs with
//! the timeouts that everybody has, and others with short ones (`impatient`). Every outcome is true, and the way is open again soon.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyperactor_host::{HostedProc, RoutePolicy};
use hyperactor_mailbox::PortRef;
use hyperactor_proc::ActorRef;
use hyperactor_testkit::{Ledger, SuiteReport};
use rustix::process::Signal;

use crate::actors::{DELIVERED, Item, ReceiverParams, Sender};
use crate::report::{self, Context, Result};
use crate::world::{Batch, World, signal};

/// How many processes are stopped, half of them receivers, half senders.
const PAUSES: u64 = 30;
/// Longer than the 10 s for which a connection may be silent.
const PAUSE: Duration = Duration::from_secs(12);
/// How many messages meet each pause.
const MESSAGES: u64 = 500;
/// How many have to arrive once it is over, and how soon.
const AFTERWARDS: u64 = 20;
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// One sender and one receiver, of whom one is stopped.
struct Pair {
    number: u64,
    sender: ActorRef<Sender>,
    port: PortRef<Item>,
    journal: PathBuf,
    stopped: HostedProc,
}

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let mut impatient = SuiteReport::default();
    // At the same time, since most of both is waiting.
    let (procs, others) = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let outcome = crate::impatient::run(context, &mut impatient);
            outcome.map_err(|error| error.to_string())
        });
        let runtime = tokio::runtime::Handle::current();
        let procs = tokio::task::block_in_place(|| runtime.block_on(run_procs(context, report)));
        (procs, others.join().unwrap())
    });
    report.add(impatient.counts());
    procs?;
    Ok(others?)
}

/// The pauses of procs.
async fn run_procs(context: &Context, report: &mut SuiteReport) -> Result {
    let world = World::new().await?;
    let mut pairs = Vec::new();
    for number in 0..context.scaled(PAUSES).max(2) {
        pairs.push(pair(&world, context, number).await?);
    }
    let batch = |number: u64, first, count| Batch {
        sender: 1,
        stream: number as u32,
        first,
        count,
    };
    // The connections are there before the pauses.
    let ledgers: Vec<_> = pairs.iter().map(|_| Ledger::new()).collect();
    for (pair, ledger) in pairs.iter().zip(&ledgers) {
        let told = world
            .send(&pair.sender, &pair.port, batch(pair.number, 0, AFTERWARDS))
            .await?;
        report::book(ledger, 1, pair.number as u32, 0, &told);
    }
    for pair in &pairs {
        signal(pair.stopped.info().pid.ok_or("no process")?, Signal::STOP)?;
    }
    let during = pairs.iter().map(|pair| {
        world.send(
            &pair.sender,
            &pair.port,
            batch(pair.number, AFTERWARDS, MESSAGES),
        )
    });
    let go_on = async {
        tokio::time::sleep(PAUSE).await;
        for pair in &pairs {
            signal(pair.stopped.info().pid.ok_or("no process")?, Signal::CONT)?;
        }
        Result::Ok(Instant::now())
    };
    let (during, continued) = tokio::join!(futures_util::future::join_all(during), go_on);
    let continued = continued?;
    let resolved = continued.elapsed();
    let mut delivered = 0;
    for ((pair, ledger), told) in pairs.iter().zip(&ledgers).zip(during) {
        let told = told?;
        delivered += told
            .outcomes
            .iter()
            .filter(|one| **one == DELIVERED)
            .count();
        report::book(ledger, 1, pair.number as u32, AFTERWARDS, &told);
    }
    let first = AFTERWARDS + MESSAGES;
    let after = pairs.iter().map(|pair| {
        world.send(
            &pair.sender,
            &pair.port,
            batch(pair.number, first, AFTERWARDS),
        )
    });
    let start = Instant::now();
    let after = futures_util::future::join_all(after).await;
    let took = start.elapsed();
    for ((pair, ledger), told) in pairs.iter().zip(&ledgers).zip(after) {
        let told = told?;
        let all = told.outcomes.iter().all(|outcome| *outcome == DELIVERED);
        report.check(
            "the way is open again after the pause",
            all,
            format!("pair {}: {:?}", pair.number, told.first_failure),
        );
        report::book(ledger, 1, pair.number as u32, first, &told);
        report::read(ledger, &pair.journal)?;
        report.judge("every outcome is true", ledger);
        let lives = pair.stopped.exited().borrow().is_none();
        report.check("a pause ends nobody", lives, pair.stopped.name());
    }
    report.check(
        "everything moves soon after the pause",
        resolved + took <= OPEN_WITHIN,
        format!("{resolved:.1?} for what waited, then {took:.1?}"),
    );
    report.figure("processes stopped", pairs.len());
    report.figure("for", format!("{PAUSE:?}"));
    report.figure(
        "messages posted meanwhile and delivered",
        format!("{delivered} of {}", pairs.len() as u64 * MESSAGES),
    );
    report.figure("last outcome after the pause", format!("{resolved:.1?}"));
    let end = world.end().await;
    report.check("nothing is left", end.is_ok(), format!("{end:?}"));
    Ok(())
}

async fn pair(world: &World, context: &Context, number: u64) -> Result<Pair> {
    let policy = if number % 4 < 2 {
        RoutePolicy::Auto
    } else {
        RoutePolicy::Relay
    };
    let (from, to) = (format!("from-{number}"), format!("to-{number}"));
    let (from, to) = tokio::join!(
        world.spawn(&from, policy),
        world.spawn(&to, RoutePolicy::Auto)
    );
    let (from, to) = (from?, to?);
    let journal = context.folder.path().join(format!("pair-{number}"));
    let params = ReceiverParams {
        journal: journal.display().to_string(),
        life: 1,
        die_at: None,
    };
    let port = world.receiver(&to, params).await?;
    let sender = world.sender(&from).await?;
    let stopped = if number.is_multiple_of(2) { to } else { from };
    Ok(Pair {
        number,
        sender,
        port,
        journal,
        stopped,
    })
}
