//! A host with its children for the time of one job: started, watched, and ended whatever came of the job.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use hyperactor::host::End;
use hyperactor::prelude::*;
use tokio::task::JoinSet;

use crate::args::Route;
use crate::failure::Failure;
use crate::leftovers::Leftovers;
use crate::limits;
use crate::signals::Signals;

/// A running host, and a client in its service proc.
pub(crate) struct Site {
    host: Host,
    pub(crate) client: Client,
}

/// What is known when everything was ended.
pub(crate) struct Ended<T> {
    pub(crate) outcome: Result<T, Failure>,
    /// Processes and sockets that are still there, in words.
    pub(crate) left_behind: Vec<String>,
}

/// Starts a host, does `work` with it, and ends all of it: in order after success, by force after a failure or a signal.
pub(crate) async fn with_host<T>(
    signals: &mut Signals,
    work: impl AsyncFnOnce(&Site) -> anyhow::Result<T>,
) -> Ended<T> {
    let mut leftovers = Leftovers::before();
    let started = tokio::select! {
        started = Site::start(&mut leftovers) => started.map_err(Failure::from),
        signal = signals.next() => Err(Failure::Interrupted(signal)),
    };
    let outcome = match started {
        Ok(site) => {
            let outcome = tokio::select! {
                outcome = work(&site) => outcome.map_err(Failure::from),
                signal = signals.next() => Err(Failure::Interrupted(signal)),
            };
            let is_orderly = outcome.is_ok();
            // A second signal is from somebody who does not want to wait: what is dropped is killed.
            tokio::select! {
                () = site.end(is_orderly) => outcome,
                signal = signals.next() => Err(Failure::Interrupted(signal)),
            }
        }
        Err(failure) => Err(failure),
    };
    Ended {
        outcome,
        left_behind: leftovers.find(),
    }
}

impl Site {
    async fn start(leftovers: &mut Leftovers) -> anyhow::Result<Self> {
        let manager = ProcessManager::new()?;
        leftovers.watch_folder(manager.socket_dir());
        let host = Host::new(manager, ChannelTransport::Unix)
            .await
            .context("cannot start the host")?;
        for addr in [host.addr(), host.backend_addr()] {
            if let ChannelAddr::Unix(unix) = addr {
                if let Some(name) = unix.as_abstract() {
                    leftovers.watch_abstract(&String::from_utf8_lossy(name));
                } else if let Some(path) = unix.as_path() {
                    leftovers.watch_folder(path);
                }
            }
        }
        let client = host.service_proc().client("cli")?;
        Ok(Self { host, client })
    }

    /// Starts a process for each name, all at once.
    ///
    /// # Errors
    ///
    /// The first that did not start; the others end with the host.
    pub(crate) async fn spawn(
        &self,
        procs: impl IntoIterator<Item = (String, RoutePolicy)>,
    ) -> anyhow::Result<Vec<HostedProc>> {
        // Dropping the set, as a signal or the first failure does, ends what is still starting.
        let mut starting = JoinSet::new();
        for (index, (name, route)) in procs.into_iter().enumerate() {
            let host = self.host.clone();
            starting.spawn(async move {
                let config = ProcConfig::new().with_route(route);
                (index, host.spawn(&name, config).await)
            });
        }
        let mut started = BTreeMap::new();
        while let Some(task) = starting.join_next().await {
            let (index, proc) = task.context("starting a process broke off")?;
            started.insert(index, proc.context("cannot start a process")?);
        }
        Ok(started.into_values().collect())
    }

    async fn end(self, is_orderly: bool) {
        let mut deadline = limits::STOP_DEADLINE;
        if !is_orderly {
            // Their work is of no use any more, so nobody asks them to finish it.
            let mut ends = JoinSet::new();
            for proc in self.host.procs() {
                ends.spawn(async move { proc.end(End::Kill).await });
            }
            ends.join_all().await;
            deadline = limits::KILL_DEADLINE;
        }
        let report = self.host.stop(deadline).await;
        tracing::debug!(?report, "the host has stopped");
    }
}

/// Does `job` with the actors of `procs`, unless one of them ends before it is done.
///
/// # Errors
///
/// Those of the job; where a process ended, that is named as the reason.
pub(crate) async fn watched<T>(
    procs: &[HostedProc],
    job: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let error = tokio::select! {
        outcome = job => match outcome {
            Ok(done) => return Ok(done),
            Err(error) => error,
        },
        exit = first_exit(procs) => return Err(anyhow!(exit)),
    };
    match tokio::time::timeout(limits::EXIT_GRACE, first_exit(procs)).await {
        Ok(exit) => Err(error.context(exit)),
        Err(_) => Err(error),
    }
}

/// Waits until one of `procs` ends, and says which and how.
///
/// # Cancel safety
///
/// A dropped future loses nothing: an exit stays known.
async fn first_exit(procs: &[HostedProc]) -> String {
    let mut exits = JoinSet::new();
    for proc in procs {
        let proc = proc.clone();
        exits.spawn(async move { (proc.join().await, proc) });
    }
    match exits.join_next().await {
        Some(Ok((exit, proc))) => {
            let pid = proc
                .info()
                .pid
                .map_or_else(String::new, |pid| format!(" (process {pid})"));
            format!("proc {}{pid} {exit} before the job was done", proc.name())
        }
        Some(Err(error)) => format!("the watch over the processes broke off: {error}"),
        None => std::future::pending().await,
    }
}

/// The runtime's word for the route of the command line.
pub(crate) fn policy(route: Route) -> RoutePolicy {
    match route {
        Route::Auto => RoutePolicy::Auto,
        Route::Relay => RoutePolicy::Relay,
        Route::Direct => RoutePolicy::Direct,
    }
}
