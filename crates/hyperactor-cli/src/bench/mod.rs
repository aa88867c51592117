//! `hyperactor bench routes`: throughput and round trips in one process, directly between two, and through the host.
//! The actors and the figures are in modules of their own; here is the order of the measurements.

mod actors;
mod report;

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hyperactor::host::{HostedProc, RoutePolicy};
use hyperactor::prelude::*;

pub(crate) use actors::{Driver, Sink};

use crate::args::RoutesArgs;
use crate::bench::actors::{PingPong, Push, TellRoutes};
use crate::bench::report::{Figures, Ratios, RoutesReport, Sample, messages_per_second};
use crate::failure::Failure;
use crate::limits;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::site::{self, Site};

/// Bound of one measurement: the largest that the command line allows, on a slow machine.
const MEASUREMENT_DEADLINE: Duration = Duration::from_secs(3600);

/// Measures all routes. Everything that was started has ended when it returns.
///
/// # Errors
///
/// A measurement that failed, messages that did not take the route they should, or a signal.
pub(crate) async fn run(args: &RoutesArgs, signals: &mut Signals) -> Result<RoutesReport, Failure> {
    let mut progress = Progress::new();
    let ended = site::with_host(signals, async |site| {
        measure(site, args, &mut progress).await
    })
    .await;
    let left_behind = ended.left_behind;
    let mut report = ended
        .outcome
        .map_err(|failure| failure.with_left_behind(&left_behind))?;
    report.left_behind = left_behind.len() as u64;
    Ok(report)
}

/// A driver and a sink, and the route between them.
struct Pair {
    name: &'static str,
    driver: ActorRef<Driver>,
    sink: ActorRef<Sink>,
    samples: Vec<Sample>,
}

async fn measure(
    site: &Site,
    args: &RoutesArgs,
    progress: &mut Progress,
) -> anyhow::Result<RoutesReport> {
    progress.phase("starting two processes for each route");
    let plan = [
        ("direct-a", RoutePolicy::Direct),
        ("direct-b", RoutePolicy::Direct),
        ("relay-a", RoutePolicy::Relay),
        ("relay-b", RoutePolicy::Relay),
    ];
    let procs = site
        .spawn(plan.map(|(name, policy)| (name.to_owned(), policy)))
        .await?;
    let job = async {
        let mut pairs = pairs(&site.client, &procs).await?;
        rounds(&site.client, args, &mut pairs, progress).await?;
        check_routes(&site.client, &pairs).await?;
        progress.done();
        Ok(conclude(args, &pairs))
    };
    site::watched(&procs, job).await
}

async fn pairs(client: &Client, procs: &[HostedProc]) -> anyhow::Result<[Pair; 3]> {
    let [direct_a, direct_b, relay_a, relay_b] = procs else {
        bail!("{} processes started instead of four", procs.len());
    };
    Ok([
        pair("in-process", client, direct_a, "local", direct_a).await?,
        pair("direct", client, direct_a, "far", direct_b).await?,
        pair("relay", client, relay_a, "far", relay_b).await?,
    ])
}

async fn pair(
    name: &'static str,
    client: &Client,
    from: &HostedProc,
    suffix: &str,
    to: &HostedProc,
) -> anyhow::Result<Pair> {
    Ok(Pair {
        name,
        driver: from
            .spawn::<Driver>(client, &format!("driver-{suffix}"), ())
            .await?,
        sink: to
            .spawn::<Sink>(client, &format!("sink-{suffix}"), ())
            .await?,
        samples: Vec::with_capacity(limits::BENCH_ROUNDS),
    })
}

/// Every round measures every route once, each time in another order, so that what the machine does meanwhile hits all of
/// them alike.
async fn rounds(
    client: &Client,
    args: &RoutesArgs,
    pairs: &mut [Pair; 3],
    progress: &mut Progress,
) -> anyhow::Result<()> {
    for pair in pairs.iter() {
        progress.phase(&format!("warming up: {}", pair.name));
        pair.round_trips(client, args.size, limits::BENCH_WARM_UP)
            .await?;
        pair.throughput(client, args.messages.div_ceil(10), args.size)
            .await?;
    }
    for round in 0..limits::BENCH_ROUNDS {
        for turn in 0..pairs.len() {
            let pair = &mut pairs[(round + turn) % 3];
            progress.phase(&format!(
                "round {} of {}: {}",
                round + 1,
                limits::BENCH_ROUNDS,
                pair.name
            ));
            let sample = pair.sample(client, args).await?;
            pair.samples.push(sample);
        }
    }
    Ok(())
}

impl Pair {
    async fn sample(&self, client: &Client, args: &RoutesArgs) -> anyhow::Result<Sample> {
        let messages_per_second = self.throughput(client, args.messages, args.size).await?;
        let (p50, p99) = self
            .round_trips(client, args.size, limits::BENCH_ROUND_TRIPS)
            .await?;
        Ok(Sample {
            messages_per_second,
            p50,
            p99,
        })
    }

    async fn throughput(&self, client: &Client, messages: u64, size: u64) -> anyhow::Result<f64> {
        let sink = self.sink.clone();
        let nanos = self
            .driver
            .ask_within(client, MEASUREMENT_DEADLINE, |reply| Push {
                sink,
                messages,
                size,
                reply,
            })
            .await
            .with_context(|| format!("no throughput of the route {}", self.name))?
            .map_err(|error| anyhow!("throughput of the route {}: {error}", self.name))?;
        Ok(messages_per_second(messages, Duration::from_nanos(nanos)))
    }

    async fn round_trips(
        &self,
        client: &Client,
        size: u64,
        round_trips: u32,
    ) -> anyhow::Result<(Duration, Duration)> {
        let sink = self.sink.clone();
        let times = self
            .driver
            .ask_within(client, MEASUREMENT_DEADLINE, |reply| PingPong {
                sink,
                round_trips,
                size,
                reply,
            })
            .await
            .with_context(|| format!("no round trips of the route {}", self.name))?
            .map_err(|error| anyhow!("round trips of the route {}: {error}", self.name))?;
        Ok((
            Duration::from_nanos(times.p50),
            Duration::from_nanos(times.p99),
        ))
    }
}

/// Figures of a route mean something only if the messages took it.
async fn check_routes(client: &Client, pairs: &[Pair; 3]) -> anyhow::Result<()> {
    let [_, direct, relay] = pairs;
    for (pair, is_direct) in [(direct, true), (relay, false)] {
        let tally = pair
            .driver
            .ask(client, |reply| TellRoutes { reply })
            .await
            .context("a driver does not tell its routes")?;
        let went_direct: u64 = tally.siblings.iter().map(|sibling| sibling.direct).sum();
        let went_relay: u64 = tally.siblings.iter().map(|sibling| sibling.relay).sum();
        let (right, wrong) = if is_direct {
            (went_direct, went_relay)
        } else {
            (went_relay, went_direct)
        };
        if right == 0 || wrong > 0 {
            bail!(
                "the route {} was not kept: {went_direct} messages went directly and {went_relay} through the host",
                pair.name
            );
        }
    }
    Ok(())
}

fn conclude(args: &RoutesArgs, pairs: &[Pair; 3]) -> RoutesReport {
    let [in_process, direct, relay] = pairs;
    let figures = |pair: &Pair, size| Figures::medians(&pair.samples, size);
    RoutesReport {
        messages: args.messages,
        size: args.size,
        rounds: limits::BENCH_ROUNDS as u64,
        round_trips: u64::from(limits::BENCH_ROUND_TRIPS),
        in_process: figures(in_process, None),
        direct: figures(direct, Some(args.size)),
        relay: figures(relay, Some(args.size)),
        in_process_to_direct: Ratios::of(&in_process.samples, &direct.samples),
        direct_to_relay: Ratios::of(&direct.samples, &relay.samples),
        left_behind: 0,
    }
}
