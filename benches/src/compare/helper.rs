//! Processes that are no children of a host: one serves a channel, one is a host of its own behind TCP, one has many idle
//! actors. Each is this program again; it prints a line when it is ready and ends when its standard input does.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use hyperactor::channel::spin::before_park;
use hyperactor::channel::{ChannelRx, Raw, ServeOptions, serve_queue};
use hyperactor::host::LocalProcManager;
use hyperactor::prelude::*;
use hyperactor::proc::ActorStatus;

use crate::compare::actors::{Meet, Sink, Talker, registry};
use crate::compare::machine;

/// The argument that makes this program a helper.
pub(crate) const HELPER: &str = "--helper";

/// To how many others a talker talks.
pub(crate) const PEERS: usize = 100;

/// What a helper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Serves a channel of bytes over a Unix socket, takes what comes, and prints its address.
    Channel,
    /// Is a host behind TCP with a sink in a proc of its own process, and prints the sink's id.
    TcpHost,
    /// Spawns so many idle actors, and prints the bytes that each takes.
    Actors(u64),
    /// Spawns so many actors, each of which has talked to [`PEERS`] others, and prints the bytes that each takes at rest.
    Talkers(u64),
}

impl Role {
    fn word(self) -> String {
        match self {
            Self::Channel => "channel".to_owned(),
            Self::TcpHost => "tcp-host".to_owned(),
            Self::Actors(count) => format!("actors:{count}"),
            Self::Talkers(count) => format!("talkers:{count}"),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "channel" => Ok(Self::Channel),
            None if text == "tcp-host" => Ok(Self::TcpHost),
            Some(("actors", count)) => Ok(Self::Actors(count.parse()?)),
            Some(("talkers", count)) => Ok(Self::Talkers(count.parse()?)),
            _ => bail!("`{text}` is no role of a helper"),
        }
    }
}

/// A running helper, which ends when this is dropped.
pub(crate) struct Helper {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it printed.
    pub(crate) said: String,
}

impl Helper {
    pub(crate) fn start(role: Role) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args([HELPER, &role.word()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a helper")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a helper without an output")?;
        let mut helper = Self {
            child,
            stdin,
            said: String::new(),
        };
        BufReader::new(stdout).read_line(&mut helper.said)?;
        helper.said = helper.said.trim().to_owned();
        ensure!(
            !helper.said.is_empty(),
            "the helper {role:?} ended before it was ready"
        );
        Ok(helper)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("compare: a helper did not end: {error}");
        }
    }
}

/// Is a helper until standard input ends.
pub(crate) fn run(role: &str) -> Result<()> {
    let role = Role::parse(role)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(before_park)
        .build()?;
    runtime.block_on(async {
        match role {
            Role::Channel => channel().await,
            Role::TcpHost => tcp_host().await,
            Role::Actors(count) => actors(count).await,
            Role::Talkers(count) => talkers(count).await,
        }
    })?;
    runtime.shutdown_background();
    Ok(())
}

/// Prints a line, and waits until whoever started this is done with it.
async fn ready(line: impl std::fmt::Display) -> Result<()> {
    {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

async fn channel() -> Result<()> {
    let serving = serve_queue(ChannelTransport::Unix, ServeOptions::default(), Raw);
    let mut rx: ChannelRx<Bytes> = serving.await?;
    let addr = rx.addr().clone();
    let take = async {
        while let Some(message) = rx.recv().await {
            std::hint::black_box(&message);
        }
    };
    tokio::select! {
        () = take => bail!("the channel ended by itself"),
        ended = ready(addr) => ended,
    }
}

async fn tcp_host() -> Result<()> {
    let host = Host::new(LocalProcManager::new(registry()), ChannelTransport::Tcp).await?;
    let handle = host.service_proc().spawn("sink", Sink::default())?;
    ready(handle.bind()).await?;
    host.stop(Duration::from_secs(5)).await;
    Ok(())
}

async fn actors(count: u64) -> Result<()> {
    let proc = Proc::isolated("crowd");
    let pid = std::process::id();
    let spawn = |from: u64, to: u64| -> Result<Vec<ActorHandle<Sink>>> {
        let mut handles = Vec::with_capacity(usize::try_from(to - from)?);
        for number in from..to {
            handles.push(proc.spawn(&format!("idle-{number}"), Sink::default())?);
        }
        Ok(handles)
    };
    // Tables and arenas have their first size before anything is counted.
    let warm = spawn(0, count / 100)?;
    settle(warm.last()).await?;
    let before = machine::memory(pid, "VmRSS")?;
    let crowd = spawn(count / 100, count / 100 + count)?;
    settle(crowd.last()).await?;
    let after = machine::memory(pid, "VmRSS")?;
    // The handles are the caller's own; they are a pointer each.
    let handles = crowd.len() * size_of::<ActorHandle<Sink>>();
    let each = (after.saturating_sub(before) as f64 - handles as f64) / count as f64;
    ready(each).await
}

async fn talkers(count: u64) -> Result<()> {
    let proc = Proc::isolated("crowd");
    let main = proc.client("main")?;
    let heard = Arc::new(AtomicU64::new(0));
    let before = machine::memory(std::process::id(), "VmRSS")?;
    let mut crowd = Vec::with_capacity(usize::try_from(count)?);
    for number in 0..count {
        crowd.push(proc.spawn(&format!("talker-{number}"), Talker::new(&heard))?);
    }
    let known: Vec<_> = crowd.iter().map(ActorHandle::bind).collect();
    for (at, talker) in crowd.iter().enumerate() {
        // The next ones, in a circle.
        let others = known.iter().cycle().skip(at + 1).take(PEERS);
        let meeting = Meet(others.cloned().collect());
        talker
            .post(&main, meeting)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    let all = count * PEERS as u64;
    let is_over = async {
        while heard.load(Ordering::Relaxed) < all {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_over)
        .await
        .context("not everybody was heard")?;
    settle(crowd.last()).await?;
    let after = machine::memory(std::process::id(), "VmRSS")?;
    let own = crowd.len() * (size_of::<ActorHandle<Talker>>() + size_of::<ActorRef<Talker>>());
    let each = (after.saturating_sub(before) as f64 - own as f64) / count as f64;
    ready(each).await
}

/// Until all actors, the last one included, are at rest.
async fn settle<A: Actor>(last: Option<&ActorHandle<A>>) -> Result<()> {
    if let Some(last) = last {
        let mut status = last.status();
        let started = status.wait_for(|status| !matches!(status, ActorStatus::Starting));
        started.await.context("an idle actor has ended")?;
    }
    // The queue of the runtime's workers is empty a moment later.
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}
