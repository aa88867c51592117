//! A sender is killed between two posts of the seed's choice: the receiver has a beginning of what it posted, without a gap,
//! each message whole, and keeps no descriptor for it.

use std::time::Duration;

use hyperactor_host::RoutePolicy;
use hyperactor_mailbox::PortRef;
use hyperactor_proc::ActorRef;
use hyperactor_testkit::{Class, Ledger, Rng, SuiteReport};

use crate::actors::{CountDescriptors, Item, Posts, ReceiverParams, Send, Sender, Told, UNKNOWN};
use crate::lanes::{self, LANES};
use crate::report::{self, Context, Result};
use crate::world::{LONG, World};

/// How many senders are killed.
const KILLS: u64 = 100;
/// How many messages a sender would post if it lived.
const MESSAGES: u64 = 2_000;
/// How soon the receiver is to have no descriptor for the last of the dead.
const FREED_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let world = World::new().await?;
    let kills = context.scaled(KILLS);
    let proc = world.spawn("receiver", RoutePolicy::Auto).await?;
    let journal = context.folder.path().join("receiver");
    let params = ReceiverParams {
        journal: journal.display().to_string(),
        life: 1,
        die_at: None,
    };
    let port = world.receiver(&proc, params).await?;
    let counter = world.sender(&proc).await?;
    let before = counter.ask(&world.client, CountDescriptors).await?;
    let lanes = lanes::run(|number| {
        let rng = lanes::rng(context, number);
        lane(
            &world,
            context,
            number,
            lanes::rounds(number, kills),
            rng,
            &port,
        )
    });
    let mut ends: Vec<(u32, u64)> = lanes.await?.into_iter().flatten().collect();
    ends.sort_unstable();

    let freed = async {
        loop {
            let now = counter.ask(&world.client, CountDescriptors).await?;
            if now <= before {
                return Result::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let freed = tokio::time::timeout(FREED_WITHIN, freed).await;
    report.check(
        "the receiver has no descriptor for the dead",
        freed.is_ok(),
        format!("{before} before, and more after {FREED_WITHIN:?}"),
    );
    let end = world.end().await;
    report.check("nothing is left", end.is_ok(), format!("{end:?}"));

    let ledger = Ledger::new();
    for (sender, posted) in &ends {
        // Nobody is left who was told anything.
        let told = Told {
            outcomes: vec![UNKNOWN; usize::try_from(*posted)?],
            ..Told::default()
        };
        report::book(&ledger, *sender, 1, 0, &told);
    }
    report::read(&ledger, &journal)?;
    report.judge("what arrived was posted, once, whole and in order", &ledger);
    let arrivals = report::arrivals(&journal)?;
    let mut cut = 0u64;
    for (sender, posted) in &ends {
        let numbers = arrivals
            .iter()
            .filter(|(_, key)| key.sender == *sender)
            .map(|(_, key)| key.number);
        let arrived = numbers.clone().count() as u64;
        let is_prefix = numbers.eq(0..arrived);
        report.check(
            "what arrived is a beginning without a gap",
            is_prefix && arrived <= *posted,
            format!("sender {sender}: {arrived} of {posted}"),
        );
        cut += u64::from(arrived < *posted);
    }
    let verdict = ledger.verdict();
    report.figure("senders killed", ends.len());
    report.figure("messages posted before the deaths", ledger.posted());
    report.figure("messages that arrived", verdict.count(Class::Recovered));
    report.figure("senders whose last messages never left", cut);
    report.check(
        "deaths met messages under way",
        cut > 0 && verdict.count(Class::Recovered) > 0,
        format!("{cut} of {}", ends.len()),
    );
    Ok(())
}

/// Has one sender after the other kill itself. Returns who posted how many.
async fn lane(
    world: &World,
    context: &Context,
    number: u64,
    rounds: impl Iterator<Item = u64>,
    mut rng: Rng,
    port: &PortRef<Item>,
) -> Result<Vec<(u32, u64)>> {
    let policy = if number == LANES - 1 {
        RoutePolicy::Relay
    } else {
        RoutePolicy::Auto
    };
    let mut ends = Vec::new();
    for round in rounds {
        let proc = world.spawn(&format!("sender-{number}"), policy).await?;
        let sender: ActorRef<Sender> = world.sender(&proc).await?;
        let dies_after = 1 + rng.below(MESSAGES - 1);
        let note = context.folder.path().join(format!("sender-{number}"));
        let posts = Posts {
            to: port.clone(),
            sender: round as u32,
            stream: 1,
            first: 0,
            count: MESSAGES,
            one_by_one: rng.chance(1, 10),
            die_after: Some((dies_after, note.display().to_string())),
        };
        let send = |reply| Send { posts, reply };
        tokio::select! {
            told = sender.ask_within(&world.client, LONG, send) => {
                if let Ok(told) = told {
                    return Err(format!("a sender that should be dead was told {told:?}").into());
                }
                proc.join().await;
            }
            _ = proc.join() => {}
        }
        ends.push((round as u32, dies_after));
    }
    Ok(ends)
}
