//! A receiver is killed in the middle of a stream, at a message of the seed's choice: before it wrote that message down, or
//! after, and in either case before anybody was told. Every sender is told one true outcome, soon.

use std::time::Duration;

use hyperactor_host::{ProcExit, RoutePolicy};
use hyperactor_proc::ActorRef;
use hyperactor_testkit::{Class, Ledger, Rng, SuiteReport};

use crate::actors::{ReceiverParams, Sender, died_at};
use crate::lanes;
use crate::report::{self, BUSY, Context, Result};
use crate::world::{Batch, World};

/// How many receivers are killed.
const KILLS: u64 = 100;
/// How many messages each is sent.
const MESSAGES: u64 = 2_000;
/// How soon after the death the last outcome has to be there.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let world = World::new().await?;
    let kills = context.scaled(KILLS);
    let lanes = lanes::run(|number| {
        let lane = Lane {
            world: &world,
            context,
            number,
            rng: lanes::rng(context, number),
            found: Found::default(),
        };
        lane.run(lanes::rounds(number, kills))
    });
    let mut all = Found::default();
    for found in lanes.await? {
        report.add(found.report.counts());
        all.took.extend(found.took);
        for (sum, count) in all.counts.iter_mut().zip(found.counts) {
            *sum += count;
        }
    }
    let [delivered, returned, unknown, recovered] = all.counts;
    report.figure("receivers killed", kills);
    report.figure("messages delivered", delivered);
    report.figure("returned, and never there", returned);
    report.figure("unknown, and not there", unknown);
    report.figure("unknown, and there all the same", recovered);
    report.times("last outcome after the death", &all.took, TOLD_WITHIN, BUSY);
    report.check(
        "deaths met messages under way",
        (unknown + recovered) as u64 >= kills,
        format!("{unknown} and {recovered}"),
    );
    let end = tokio::time::timeout(Duration::from_secs(20), world.end()).await?;
    report.check("nothing is left", end.is_ok(), format!("{end:?}"));
    Ok(())
}

/// What one lane found.
#[derive(Default)]
struct Found {
    report: SuiteReport,
    /// How long it took from each death to the last outcome.
    took: Vec<Duration>,
    /// Messages by their class, in the order of [`CLASSES`].
    counts: [usize; 4],
}

const CLASSES: [Class; 4] = [
    Class::Delivered,
    Class::Returned,
    Class::Unknown,
    Class::Recovered,
];

/// One receiver after the other.
struct Lane<'a> {
    world: &'a World,
    context: &'a Context,
    number: u64,
    rng: Rng,
    found: Found,
}

impl Lane<'_> {
    async fn run(mut self, rounds: impl Iterator<Item = u64>) -> Result<Found> {
        let mut senders = Vec::new();
        for policy in [RoutePolicy::Auto, RoutePolicy::Relay] {
            let name = format!("sender-{policy}-{}", self.number);
            let proc = self.world.spawn(&name, policy).await?;
            senders.push(self.world.sender(&proc).await?);
        }
        for round in rounds {
            // Mostly by the direct route.
            let by = usize::from(self.rng.chance(1, 4));
            self.round(round, &senders[by]).await?;
        }
        Ok(self.found)
    }

    async fn round(&mut self, round: u64, sender: &ActorRef<Sender>) -> Result {
        let report = &mut self.found.report;
        let ledger = Ledger::new();
        let journal = self.context.folder.path().join(format!("receiver-{round}"));
        let die_at = (self.rng.below(MESSAGES * 3 / 4), self.rng.chance(1, 2));
        let name = format!("victim-{}", self.number);
        let proc = self.world.spawn(&name, RoutePolicy::Auto).await?;
        let params = ReceiverParams {
            journal: journal.display().to_string(),
            life: round,
            die_at: Some(die_at),
        };
        let port = self.world.receiver(&proc, params).await?;
        let batch = Batch {
            sender: 1,
            stream: 1,
            first: 0,
            count: MESSAGES,
        };
        let told = self.world.send(sender, &port, batch).await?;
        let died: f64 = std::fs::read_to_string(died_at(&journal))?.parse()?;
        // The clock has steps, so that the one can seem to be before the other.
        let took = Duration::from_secs_f64((told.last_at - died).max(0.0));
        self.found.took.push(took);
        let exit = proc.join().await;
        report.check(
            "the receiver died by SIGKILL",
            exit == ProcExit::Signalled(9),
            exit,
        );
        report::book(&ledger, 1, 1, 0, &told);
        let arrived = report::read(&ledger, &journal)? as u64;
        let expected = die_at.0 + u64::from(die_at.1);
        report.check(
            "it took what came before its death",
            arrived == expected,
            format!("round {round}: {arrived} of {expected}"),
        );
        report.judge("every outcome is true, and there is one each", &ledger);
        let verdict = ledger.verdict();
        for (sum, class) in self.found.counts.iter_mut().zip(CLASSES) {
            *sum += verdict.count(class);
        }
        std::fs::remove_file(&journal)?;
        std::fs::remove_file(died_at(&journal))?;
        Ok(())
    }
}
