//! Other libraries doing what the comparison measures, each used as its own documentation says.
//!
//! `peers ARM` reads numbers from standard input, a line each, does so many messages or round trips for each, and answers each with a
//! line of JSON. It ends with its input. `peers serve-… PATH` is the other process of arms that need one.
//! Nothing of the runtime that they are compared with is used here.

mod grpc;
mod local;
mod zero;

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// What one measurement found, in nanoseconds. The other side of the pipe reads these names.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Found {
    elapsed: u64,
    count: u64,
    p50: u64,
    p99: u64,
    mean: u64,
}

impl Found {
    pub(crate) fn throughput(count: u64, elapsed: Duration) -> Self {
        Self {
            elapsed: nanos(elapsed),
            count,
            ..Self::default()
        }
    }

    pub(crate) fn round_trips(mut times: Vec<u64>, elapsed: Duration) -> Self {
        times.sort_unstable();
        // By nearest rank.
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Self {
            elapsed: nanos(elapsed),
            count: times.len() as u64,
            p50: at(50),
            p99: at(99),
            mean: times.iter().sum::<u64>() / times.len() as u64,
        }
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn nanos_since(started: Instant) -> u64 {
    nanos(started.elapsed())
}

/// Messages after which a sender to an unbounded queue lets others run: as often as the senders that it is compared with.
pub(crate) const TURN: u64 = 4096;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve-tonic", path] => threads()?.block_on(grpc::serve(Path::new(path))),
        ["serve-zeromq", path] => threads()?.block_on(zero::serve(path)),
        ["actix"] => local::actix(),
        ["ractor"] => obey_on(threads()?, local::Ractor::start),
        ["ractor, one thread"] => obey_on(one_thread()?, local::Ractor::start),
        ["kameo"] => obey_on(threads()?, local::Kameo::start),
        ["kameo, one thread"] => obey_on(one_thread()?, local::Kameo::start),
        ["xtra"] => obey_on(threads()?, local::Xtra::start),
        ["xtra, one thread"] => obey_on(one_thread()?, local::Xtra::start),
        ["tonic"] => obey_on(threads()?, grpc::Tonic::start),
        ["zeromq"] => obey_on(threads()?, zero::Zero::start),
        _ => bail!("no peer {words:?}"),
    }
}

/// A peer that does what the lines of its input ask for.
pub(crate) trait Peer: Sized {
    async fn start() -> Result<Self>
    where
        Self: Sized;

    /// Sends so many messages, and is done when the last one was handled.
    async fn push(&mut self, count: u64) -> Result<Found>;

    /// Does so many requests, one after the other.
    async fn ask(&mut self, count: u64) -> Result<Found>;
}

fn obey_on<P: Peer>(
    runtime: tokio::runtime::Runtime,
    start: impl AsyncFnOnce() -> Result<P>,
) -> Result<()> {
    let mut peer = runtime.block_on(start())?;
    obey(|order, count| {
        runtime.block_on(async {
            match order {
                "push" => peer.push(count).await,
                "ask" => peer.ask(count).await,
                other => bail!("`{other}` is no order"),
            }
        })
    })
}

/// Lines such as `push 1000`, each with its answer.
pub(crate) fn obey(mut order: impl FnMut(&str, u64) -> Result<Found>) -> Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (what, count) = line.split_once(' ').context("an order and a number")?;
        let found = order(what, count.parse()?)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&found)?)?;
        out.flush()?;
    }
    Ok(())
}

fn threads() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

fn one_thread() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// The process at the other end of a socket; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) path: PathBuf,
}

impl Server {
    /// Starts this program as a server at a socket of its own, and waits until the socket is there.
    pub(crate) async fn start(role: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("peers-{}-{role}.sock", std::process::id()));
        let child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(&path)
            .spawn()?;
        let server = Self { child, path };
        let patience = Instant::now();
        while !server.path.exists() {
            if patience.elapsed() > Duration::from_secs(10) {
                bail!("{role} did not begin to listen");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("peers: a server did not end: {error}");
        }
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("peers: a socket is left over: {error}");
        }
    }
}
