//! A proc is ended and started again under its name, over and over, with messages under way: the new life is reached at
//! once, no message of an earlier life comes to it, and nobody remembers a failure.

use std::time::{Duration, Instant};

use hyperactor_host::{End, RoutePolicy};
use hyperactor_testkit::{Class, Ledger, Rng, SuiteReport};

use crate::actors::{DELIVERED, ReceiverParams};
use crate::lanes::{self, LANES};
use crate::report::{self, BUSY, Context, Result};
use crate::world::{Batch, World};

/// How many lives there are.
const LIVES: u64 = 200;
/// How many messages each life gets while nothing disturbs it, and all of which have to arrive.
const CALM: u64 = 20;
/// How many are under way when it is ended.
const UNDER_WAY: u64 = 300;
/// How soon the calm messages have to be there: a handshake, and no pause after a failure.
const REACHED_WITHIN: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let world = World::new().await?;
    let lives = context.scaled(LIVES);
    let lanes = lanes::run(|number| {
        let rng = lanes::rng(context, number);
        lane(&world, context, number, lanes::rounds(number, lives), rng)
    });
    let (mut took, mut unknown, mut returned) = (Vec::new(), 0, 0);
    for found in lanes.await? {
        report.add(found.report.counts());
        took.extend(found.took);
        unknown += found.unknown;
        returned += found.returned;
    }
    report.figure("lives", lives);
    report.times("a new life is reached", &took, REACHED_WITHIN, BUSY);
    report.figure("messages that met an end: unknown", unknown);
    report.figure("and returned", returned);
    report.check(
        "ends met messages under way",
        unknown + returned > 0,
        "none",
    );
    let end = world.end().await;
    report.check("nothing is left", end.is_ok(), format!("{end:?}"));
    Ok(())
}

#[derive(Default)]
struct Found {
    report: SuiteReport,
    took: Vec<Duration>,
    unknown: usize,
    returned: usize,
}

/// One name, and the lives under it.
async fn lane(
    world: &World,
    context: &Context,
    number: u64,
    lives: impl Iterator<Item = u64>,
    mut rng: Rng,
) -> Result<Found> {
    let mut found = Found::default();
    let policy = if number == LANES - 1 {
        RoutePolicy::Relay
    } else {
        RoutePolicy::Auto
    };
    let sender = world.spawn(&format!("sender-{number}"), policy).await?;
    let sender = world.sender(&sender).await?;
    let name = format!("again-{number}");
    // One for each life: a process that is killed in the middle of a line leaves a part of it, which must be the last.
    let journal = |life: u64| context.folder.path().join(format!("{name}-{life}"));
    let ledger = Ledger::new();
    let mut next = 0;
    // Which life is to take the messages from which number on.
    let mut begins = Vec::new();
    for life in lives {
        let proc = world.spawn(&name, RoutePolicy::Auto).await?;
        let params = ReceiverParams {
            journal: journal(life).display().to_string(),
            life,
            die_at: None,
        };
        let port = world.receiver(&proc, params).await?;
        begins.push((next, life));
        let batch = |first, count| Batch {
            sender: 1,
            stream: number as u32,
            first,
            count,
        };
        let start = Instant::now();
        let told = world.send(&sender, &port, batch(next, CALM)).await?;
        let took = start.elapsed();
        found.took.push(took);
        let all = told.outcomes.iter().all(|outcome| *outcome == DELIVERED);
        found.report.check(
            "a new life is reached by the first message on",
            all,
            format!("life {life}: {took:.0?}, {:?}", told.first_failure),
        );
        report::book(&ledger, 1, number as u32, next, &told);
        next += CALM;

        let pause = Duration::from_micros(rng.below(3_000));
        let how = if rng.chance(1, 2) {
            End::Kill
        } else {
            End::Drain {
                deadline: Duration::from_millis(rng.below(50)),
            }
        };
        let disturbed = world.send(&sender, &port, batch(next, UNDER_WAY));
        let end = async {
            tokio::time::sleep(pause).await;
            proc.end(how).await
        };
        let (told, _) = tokio::join!(disturbed, end);
        report::book(&ledger, 1, number as u32, next, &told?);
        next += UNDER_WAY;
    }
    let mut arrivals = Vec::new();
    for (_, life) in &begins {
        report::read(&ledger, &journal(*life))?;
        arrivals.extend(report::arrivals(&journal(*life))?);
    }
    let verdict = ledger.verdict();
    found
        .report
        .judge("every outcome is true, in every life", &ledger);
    found.unknown = verdict.count(Class::Unknown) + verdict.count(Class::Recovered);
    found.returned = verdict.count(Class::Returned);
    let strays: Vec<_> = arrivals
        .into_iter()
        .filter(|(life, key)| {
            let begun = begins.iter().rev().find(|(first, _)| *first <= key.number);
            begun.is_none_or(|(_, meant)| meant != life)
        })
        .collect();
    found.report.check(
        "no message comes to another life than it was posted to",
        strays.is_empty(),
        format!("{strays:?}"),
    );
    Ok(found)
}
