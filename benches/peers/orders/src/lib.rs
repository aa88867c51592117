//! What the programs of other libraries have in common: orders by lines of text, an answer of JSON to each, a server at the
//! other end of a socket, and what is measured alike in all of them. How a library is used is in its own file.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
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
    /// Of messages that were sent since `began`, all of which must have arrived.
    pub fn arrived(sent: u64, got: u64, began: Instant) -> Result<Self> {
        let elapsed = began.elapsed();
        ensure!(sent == got, "{sent} were sent and {got} arrived");
        Ok(Self::throughput(sent, elapsed))
    }

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

/// Asks so often, one after the other, and finds how long each answer took. The question is written as an expression with the
/// number it is asked under: a closure's future could not be sent to the task that it runs in.
#[macro_export]
macro_rules! round_trips {
    ($count:expr, |$number:pat_param| $ask:expr) => {{
        let mut times = Vec::with_capacity(usize::try_from($count)?);
        let began = std::time::Instant::now();
        for number in 0..$count {
            let started = std::time::Instant::now();
            let $number = number;
            let answer = $ask;
            times.push($crate::nanos_since(started));
            drop(answer);
        }
        anyhow::Ok($crate::Found::round_trips(times, began.elapsed()))
    }};
}

/// The fields of the small message of the comparison. Each library has its own way to say that a type is a message.
pub struct Fields {
    pub id: u64,
    pub at: u64,
    pub name: String,
    pub body: Vec<u8>,
}

impl Fields {
    pub fn of(id: u64) -> Self {
        Self {
            id,
            at: id.wrapping_mul(0x9e37_79b9),
            name: "sixteen letters!".to_owned(),
            body: vec![0xa5; 32],
        }
    }
}

/// The time that two processes get to find each other.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks for something again and again, as often as that, until it is there.
pub async fn appears<T>(
    what: &str,
    every: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let patience = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if patience.elapsed() > PATIENCE {
            bail!("{what} did not appear");
        }
        tokio::time::sleep(every).await;
    }
}

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

/// The whole program of a peer that needs another process: called with the name of its arm it obeys, with the other's role and a
/// path it is that other process.
pub fn obey_or_serve<P: Peer>(
    arm: &str,
    role: &str,
    serve: impl AsyncFnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [word] if word == arm => obey_on(threads()?, P::start),
        [word, path] if word == role => serve_on(threads()?, serve(Path::new(path))),
        _ => bail!("no peer {words:?}"),
    }
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
        let exists = async || Ok(server.path.exists().then_some(()));
        appears(role, Duration::from_millis(5), exists).await?;
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
