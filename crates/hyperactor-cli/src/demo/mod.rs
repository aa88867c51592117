//! `hyperactor demo`: counts words with several processes that all talk to each other, and checks the result.
//! The actors, their messages and the job are in modules of their own; here is the order of things.

mod collect;
mod job;
mod messages;
mod owner;
mod reader;

use anyhow::Context as _;
use hyperactor::host::HostedProc;
use hyperactor::prelude::*;

pub(crate) use owner::Owner;
pub(crate) use reader::Reader;

use crate::args::DemoArgs;
use crate::demo::job::{Cast, Done};
use crate::demo::messages::{Event, OwnerParams, ReaderParams};
use crate::failure::Failure;
use crate::input::Input;
use crate::parts::{self, Plan};
use crate::progress::{self, Progress};
use crate::report::{self, Messages, Pair, Report, Summary};
use crate::routes::Tally;
use crate::signals::Signals;
use crate::site::{self, Site};
use crate::words::Counts;
use crate::{limits, words};

/// Runs the demo to its report. Everything it started has ended when it returns.
///
/// # Errors
///
/// An input that cannot be used, a job that failed, or a signal. A result that is not right is no error here: the
/// report says so.
pub(crate) async fn run(args: &DemoArgs, signals: &mut Signals) -> Result<Report, Failure> {
    let mut progress = Progress::new();
    progress.phase("looking for text");
    let (paths, procs) = (args.input.clone(), args.procs as usize);
    let (input, plan) = signals
        .unless(blocking(move || {
            let mut input = Input::find(&paths)?;
            let plan = Plan::new(&mut input, procs)?;
            // What looked like text may have turned out to be none.
            input.require_text()?;
            Ok((input, plan))
        }))
        .await?;

    let ended = site::with_host(signals, async |site| {
        count(site, args, plan, &mut progress).await
    })
    .await;
    let left_behind = ended.left_behind;
    let done = ended
        .outcome
        .map_err(|failure| failure.with_left_behind(&left_behind))?;

    progress.phase("checking against a count in one process");
    let (input, alone) = signals
        .unless(blocking(move || {
            let alone = parts::count_alone(&input)?;
            Ok((input, alone))
        }))
        .await?;
    progress.done();
    Ok(conclude(&input, &alone, &done, left_behind))
}

/// The part that needs processes.
async fn count(
    site: &Site,
    args: &DemoArgs,
    plan: Plan,
    progress: &mut Progress,
) -> anyhow::Result<Done> {
    progress.phase(&format!("starting {} processes", args.procs));
    let policy = site::policy(args.route);
    let procs = site
        .spawn((0..args.procs).map(|index| (proc_name(index), policy)))
        .await?;
    let job = async {
        let (host, mut events) = site.client.mailbox().open_port::<Event>();
        let cast = cast(&site.client, &procs, &host.bind()).await?;
        job::run(&site.client, &cast, plan, &mut events, progress).await
    };
    site::watched(&procs, job).await
}

async fn cast(
    client: &Client,
    procs: &[HostedProc],
    host: &PortRef<Event>,
) -> anyhow::Result<Cast> {
    let readers_count = u32::try_from(procs.len())?;
    let mut readers = Vec::with_capacity(procs.len());
    let mut owners = Vec::with_capacity(procs.len());
    for (index, proc) in (0..readers_count).zip(procs) {
        let params = OwnerParams {
            index,
            readers: readers_count,
            host: host.clone(),
        };
        let owner = proc.spawn::<Owner>(client, "owner", params).await;
        owners.push(owner.with_context(|| format!("cannot start owner {index}"))?);
        let params = ReaderParams {
            index,
            host: host.clone(),
        };
        let reader = proc.spawn::<Reader>(client, "reader", params).await;
        readers.push(reader.with_context(|| format!("cannot start reader {index}"))?);
    }
    Ok(Cast { readers, owners })
}

fn conclude(input: &Input, alone: &Counts, done: &Done, left_behind: Vec<String>) -> Report {
    let collector = &done.collector;
    let mut problems = collector.imbalances();
    if let Some(difference) = collector.difference(alone) {
        problems.push(difference);
        if let Some(path) = input.changed() {
            problems.push(format!(
                "{} changed while it was counted; run again when nothing writes to it",
                path.display()
            ));
        }
    }
    let verified = problems.is_empty();
    let undeliverable = done.undeliverable
        + done
            .tallies
            .iter()
            .map(|tally| tally.undeliverable)
            .sum::<u64>();
    if undeliverable > 0 {
        problems.push(format!("{undeliverable} messages came back"));
    }
    let left_count = left_behind.len() as u64;
    problems.extend(
        left_behind
            .into_iter()
            .map(|what| format!("left behind: {what}")),
    );

    let pairs = pairs(&done.tallies);
    let in_process: Vec<u64> = done.tallies.iter().map(|tally| tally.in_process).collect();
    let messages = Messages::sum(&in_process, &pairs);
    Report {
        summary: Summary {
            procs: u32::try_from(done.tallies.len()).unwrap_or(u32::MAX),
            files: input.documents.len() as u64,
            words: collector.words,
            distinct: collector.counts.len() as u64,
            verified,
            messages,
            undeliverable,
            seconds: report::rounded(done.time.as_secs_f64(), 3),
            messages_per_second: report::rounded(progress::rate(messages.total(), done.time), 0),
            left_behind: left_count,
        },
        origin: input.origin.clone(),
        skipped: input.skipped,
        top: words::commonest(&collector.counts, limits::TOP_WORDS),
        pairs,
        in_process,
        problems,
    }
}

/// The routes between the demo's own procs, as a table from each to each.
fn pairs(tallies: &[Tally]) -> Vec<Vec<Pair>> {
    let to = |tally: &Tally, index: usize| {
        let name = proc_name(u32::try_from(index).unwrap_or(u32::MAX));
        let found = tally.siblings.iter().find(|sibling| sibling.name == name);
        found.map_or_else(Pair::default, |sibling| Pair {
            direct: sibling.direct,
            relay: sibling.relay,
        })
    };
    tallies
        .iter()
        .map(|tally| (0..tallies.len()).map(|index| to(tally, index)).collect())
        .collect()
}

fn proc_name(index: u32) -> String {
    format!("p{index}")
}

/// Runs what blocks on the disk away from the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .context("reading the input broke off")?
}
