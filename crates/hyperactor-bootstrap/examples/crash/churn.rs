//! Procs come and go by the thousand, and the host is as it was: no zombie, no descriptor, no memory, no socket.

use std::time::Duration;

use hyperactor_host::{End, RoutePolicy};
use hyperactor_testkit::{Rng, SuiteReport, children_of};

use crate::lanes;
use crate::report::{Context, Result};
use crate::world::World;

/// How many procs come and go.
const PROCS: u64 = 1_000;
/// How many do before the figures are first read: what is made once is made then.
const WARM_UP: u64 = 100;
/// How much more memory the host may have in the end.
const MEMORY_MAX: u64 = 1 << 20;

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let world = World::new().await?;
    churn(&world, context, WARM_UP).await?;
    let before = Figures::read(&world)?;
    let procs = context.scaled(PROCS);
    churn(&world, context, procs).await?;
    let after = Figures::read(&world)?;
    report.figure("procs", procs);
    report.figure("before", format!("{before:?}"));
    report.figure("after", format!("{after:?}"));
    report.check("no child is left", after.children == 0, after.children);
    report.check(
        "no descriptor is left",
        after.descriptors <= before.descriptors,
        format!("{} of {}", after.descriptors, before.descriptors),
    );
    let grown = after.memory.saturating_sub(before.memory);
    report.check(
        "no memory is left",
        grown <= MEMORY_MAX,
        format!("{} KiB more", grown / 1024),
    );
    report.check(
        "the socket directory is as it was",
        after.entries == before.entries,
        format!("{:?}", after.entries),
    );
    let end = world.end().await;
    report.check("nothing is left", end.is_ok(), format!("{end:?}"));
    Ok(())
}

async fn churn(world: &World, context: &Context, procs: u64) -> Result {
    lanes::run(|number| {
        let rng = lanes::rng(context, number);
        lane(world, number, lanes::rounds(number, procs), rng)
    })
    .await?;
    Ok(())
}

async fn lane(
    world: &World,
    number: u64,
    rounds: impl Iterator<Item = u64>,
    mut rng: Rng,
) -> Result<()> {
    for round in rounds {
        // The same names again and again, and new ones.
        let name = if rng.chance(1, 2) {
            format!("same-{number}")
        } else {
            format!("new-{round}")
        };
        let proc = world.spawn(&name, RoutePolicy::Auto).await?;
        let deadline = Duration::from_secs(5);
        let how = if rng.chance(1, 2) {
            End::Kill
        } else {
            End::Drain { deadline }
        };
        proc.end(how).await;
    }
    Ok(())
}

#[derive(Debug)]
struct Figures {
    /// Children of this process, zombies included.
    children: usize,
    descriptors: usize,
    /// Resident memory, in bytes.
    memory: u64,
    entries: Vec<String>,
}

impl Figures {
    fn read(world: &World) -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .ok_or("no VmRSS")?;
        let mut entries: Vec<_> = std::fs::read_dir(&world.dir)?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        entries.sort();
        Ok(Self {
            children: children_of(std::process::id()).len(),
            descriptors: std::fs::read_dir("/proc/self/fd")?.count(),
            memory: resident.parse::<u64>()? * 1024,
            entries,
        })
    }
}
