//! What the programs of other libraries have in common: orders by lines of text, an answer of JSON to each, and a server at the
//! other end of a socket.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// What one measurement found, in nanoseconds. The other side of the pipe reads these names.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    elapsed: u64,
    count: u64,
    p50: u64,
    p99: u64,
    mean: u64,
}

impl Found {
    pub fn throughput(count: u64, elapsed: Duration) -> Self {
        Self {
            elapsed: nanos(elapsed),
            count,
            ..Self::default()
        }
    }

    pub fn round_trips(mut times: Vec<u64>, elapsed: Duration) -> Self {
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

pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub fn nanos_since(started: Instant) -> u64 {
    nanos(started.elapsed())
}

/// Messages after which a sender to an unbounded queue lets others run: as often as the senders that it is compared with.
pub const TURN: u64 = 4096;

/// A peer that does what the lines of its input ask for.
#[allow(
    async_fn_in_trait,
    reason = "nobody needs to know whether its futures are `Send`"
)]
pub trait Peer: Sized {
    /// Makes what is measured ready.
    async fn start() -> Result<Self>
    where
        Self: Sized;

    /// Sends so many messages, and is done when the last one was handled.
    async fn push(&mut self, count: u64) -> Result<Found>;

    /// Does so many requests, one after the other.
    async fn ask(&mut self, count: u64) -> Result<Found>;
}

/// Has a peer do on a runtime what the lines of standard input ask for.
pub fn obey_on<P: Peer>(
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
pub fn obey(mut order: impl FnMut(&str, u64) -> Result<Found>) -> Result<()> {
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

/// A runtime of a thread a processor.
pub fn threads() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// A runtime of one thread.
pub fn one_thread() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Serves as long as whoever started this process holds the other end of its input: also one that was killed lets go of it.
pub fn serve_on(
    runtime: tokio::runtime::Runtime,
    serve: impl Future<Output = Result<()>>,
) -> Result<()> {
    let (let_go, alone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
        // Nobody waits for it when serving has failed first.
        let _ = let_go.send(ended);
    });
    runtime.block_on(async {
        tokio::select! {
            served = serve => served,
            ended = alone => Ok(ended?.map(drop)?),
        }
    })
}

/// The process at the other end of a socket; it ends when this is dropped.
pub struct Server {
    child: Child,
    pub path: PathBuf,
}

impl Server {
    /// Starts this program as a server at a socket of its own, and waits until the socket is there.
    pub async fn start(role: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("peers-{}-{role}.sock", std::process::id()));
        let child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(&path)
            .stdin(Stdio::piped())
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
