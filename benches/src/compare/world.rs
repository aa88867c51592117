//! A host with child processes for the time of a row, and what rows ask of the actors in them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use hyperactor::channel::Spin;
use hyperactor::channel::spin::before_park;
use hyperactor::host::{HostedProc, OutputPolicy};
use hyperactor::prelude::*;
use tokio::runtime::Runtime;

use crate::compare::actors::{
    Driver, Load, Push, RoundTrips, Routes, Sink, StartStream, StopStream,
};
use crate::compare::row::Figures;

/// The longest that one measurement may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// The time that children get to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A host and its children, which end when it is dropped.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    host: Host,
    client: Client,
}

impl World {
    /// Starts a host whose children are this program, or another one.
    pub(crate) fn new(program: Option<&Path>) -> Result<Self> {
        Self::reached_by(ChannelTransport::Unix, program)
    }

    /// As [`new`](Self::new), with a frontend of another kind.
    pub(crate) fn reached_by(frontend: ChannelTransport, program: Option<&Path>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            // As in any program with `#[hyperactor::main]`.
            .on_thread_park(before_park)
            .build()
            .context("a runtime for the host")?;
        let manager = match program {
            Some(path) => ProcessManager::with_program(path)?,
            None => ProcessManager::new()?,
        };
        let (host, client) = runtime.block_on(async {
            let host = Host::new(manager, frontend).await?;
            let client = host.service_proc().client("compare")?;
            anyhow::Ok((host, client))
        })?;
        let inner = Inner {
            runtime,
            host,
            client,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Starts a process.
    pub(crate) fn child(&self, name: &str, route: RoutePolicy) -> Result<HostedProc> {
        self.child_that(name, ProcConfig::new().with_route(route))
    }

    fn child_that(&self, name: &str, config: ProcConfig) -> Result<HostedProc> {
        let config = config.with_output(OutputPolicy::Inherited);
        let started = self.0.runtime.block_on(self.0.host.spawn(name, config));
        started.with_context(|| format!("cannot start the process {name}"))
    }

    pub(crate) fn spawn<A: RemoteSpawn<Params = ()>>(
        &self,
        proc: &HostedProc,
        name: &str,
    ) -> Result<ActorRef<A>> {
        let spawned = proc.spawn::<A>(&self.0.client, name, ());
        Ok(self.0.runtime.block_on(spawned)?)
    }

    /// Two processes and the actors in them, whose messages take `route`.
    pub(crate) fn pair(&self, name: &str, route: RoutePolicy) -> Result<Pair> {
        let from = self.child(&format!("{name}-a"), route)?;
        let to = self.child(&format!("{name}-b"), route)?;
        self.pair_of(&from, &to)
    }

    /// As [`pair`](Self::pair), directly and without looking for messages before sleeping.
    pub(crate) fn pair_without_spin(&self, name: &str) -> Result<Pair> {
        let config = ProcConfig::new()
            .with_route(RoutePolicy::Direct)
            .with_spin(Spin::Never);
        let from = self.child_that(&format!("{name}-a"), config.clone())?;
        let to = self.child_that(&format!("{name}-b"), config)?;
        self.pair_of(&from, &to)
    }

    /// A driver in one process and a sink in another, or in the same one.
    pub(crate) fn pair_of(&self, from: &HostedProc, to: &HostedProc) -> Result<Pair> {
        let (driver_name, sink_name) = (
            format!("driver-{}", to.name()),
            format!("sink-{}", from.name()),
        );
        Ok(Pair {
            world: self.clone(),
            driver: self.spawn::<Driver>(from, &driver_name)?,
            sink: self.spawn::<Sink>(to, &sink_name)?,
            from: from.clone(),
            to: to.clone(),
        })
    }

    /// A driver in the host's own process.
    pub(crate) fn host_driver(&self, name: &str) -> Result<ActorRef<Driver>> {
        let entered = self.0.runtime.enter();
        let handle = self.0.host.service_proc().spawn(name, Driver::default())?;
        drop(entered);
        Ok(handle.bind())
    }

    pub(crate) fn push(
        &self,
        driver: &ActorRef<Driver>,
        sink: &ActorRef<Sink>,
        load: Load,
        count: u64,
    ) -> Result<Figures> {
        let sink = sink.clone();
        let ask = driver.ask_within(&self.0.client, DEADLINE, |reply| Push {
            sink,
            load,
            count,
            reply,
        });
        let elapsed = self
            .0
            .runtime
            .block_on(ask)?
            .map_err(|error| anyhow!(error))?;
        Ok(Figures::throughput(count, Duration::from_nanos(elapsed)))
    }

    pub(crate) fn round_trips(
        &self,
        driver: &ActorRef<Driver>,
        sink: &ActorRef<Sink>,
        size: u64,
        pause: Duration,
        count: u64,
    ) -> Result<Figures> {
        let sink = sink.clone();
        let pause_us = u64::try_from(pause.as_micros())?;
        let ask = driver.ask_within(&self.0.client, DEADLINE, |reply| RoundTrips {
            sink,
            size,
            count,
            pause_us,
            reply,
        });
        let timed = self
            .0
            .runtime
            .block_on(ask)?
            .map_err(|error| anyhow!(error))?;
        Ok(Figures {
            elapsed: Duration::from_nanos(timed.elapsed),
            count,
            trips: timed.trips(),
            value: 0.0,
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let report = self.runtime.block_on(self.host.stop(STOP_DEADLINE));
        if !report.is_clean() {
            eprintln!("compare: not everything ended in order: {report:?}");
        }
    }
}

/// A driver and a sink, each in its process.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) driver: ActorRef<Driver>,
    pub(crate) sink: ActorRef<Sink>,
    pub(crate) from: HostedProc,
    pub(crate) to: HostedProc,
}

impl Pair {
    pub(crate) fn push(&self, load: Load, count: u64) -> Result<Figures> {
        self.world.push(&self.driver, &self.sink, load, count)
    }

    pub(crate) fn round_trips(&self, size: u64, pause: Duration, count: u64) -> Result<Figures> {
        self.world
            .round_trips(&self.driver, &self.sink, size, pause, count)
    }

    /// Sends bytes while `work` is done, and says how many messages arrived meanwhile.
    pub(crate) fn streaming<T>(
        &self,
        size: u64,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, u64)> {
        let Inner {
            runtime, client, ..
        } = &*self.world.0;
        let sink = self.sink.clone();
        let start = self
            .driver
            .ask(client, |reply| StartStream { sink, size, reply });
        runtime.block_on(start)?;
        let done = work();
        let stop = self
            .driver
            .ask_within(client, DEADLINE, |reply| StopStream { reply });
        let arrived = runtime.block_on(stop)?.map_err(|error| anyhow!(error))?;
        Ok((done?, arrived))
    }

    /// Fails unless all messages of the driver's process went the way they should: figures of another way mean nothing.
    pub(crate) fn check_route(&self, expected: RoutePolicy) -> Result<()> {
        let Inner {
            runtime, client, ..
        } = &*self.world.0;
        let (direct, relay) =
            runtime.block_on(self.driver.ask(client, |reply| Routes { reply }))?;
        let is_kept = match expected {
            RoutePolicy::Direct => direct > 0 && relay == 0,
            RoutePolicy::Relay => relay > 0 && direct == 0,
            _ => direct + relay > 0,
        };
        if !is_kept {
            bail!(
                "the route {expected} was not kept: {direct} messages went directly and {relay} through the host"
            );
        }
        Ok(())
    }

    pub(crate) fn pids(&self) -> Result<(u32, u32)> {
        let pid = |proc: &HostedProc| proc.info().pid.context("a proc without a process");
        Ok((pid(&self.from)?, pid(&self.to)?))
    }
}
