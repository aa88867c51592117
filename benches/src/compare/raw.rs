//! Plain streams between two processes, blocking, without anything of ours: what the machine itself does. The other end is
//! this program again, started with the address as its argument.
//!
//! Each order is 25 bytes: what to do, how many, how large, and a buffer's size; the answer to a batch is one byte.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::compare::row::{Figures, nanos_since, timed};

/// The argument that makes this program the other end of a stream.
pub(crate) const FAR_END: &str = "--far-end-of-stream";

/// How much the far end reads at once when messages are small.
const READ_BYTES: usize = 64 * 1024;

/// Small messages that are gathered into one write, in bytes.
const BATCH_BYTES: usize = 64 * 1024;

const ORDER_BYTES: usize = 25;
const SEND_BACK: u8 = 1;
const TAKE: u8 = 2;
const TAKE_FRESH: u8 = 3;

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unix,
    Tcp,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// One write for each.
    Each,
    /// Small ones gathered into writes of 64 KiB.
    Gathered,
}

/// How messages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Into one buffer, again and again.
    Reused,
    /// Each into a new buffer of its own.
    Fresh,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A stream to a process at the other end; the process ends when this is dropped.
pub(crate) struct Raw {
    stream: Box<dyn Stream>,
    child: Child,
}

impl Raw {
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        let (stream, child): (Box<dyn Stream>, Child) = match kind {
            Kind::Unix => {
                let name = format!("hyperactor-compare-{}-{}", std::process::id(), number());
                let addr = SocketAddr::from_abstract_name(&name)?;
                let listener = UnixListener::bind_addr(&addr).context("a plain Unix socket")?;
                let child = start(&format!("unix:{name}"))?;
                (Box::new(listener.accept()?.0), child)
            }
            Kind::Tcp => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).context("a plain TCP socket")?;
                let child = start(&format!("tcp:{}", listener.local_addr()?))?;
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                (Box::new(stream), child)
            }
        };
        Ok(Self { stream, child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Times round trips of `size` bytes, each after a pause.
    pub(crate) fn round_trips(
        &mut self,
        size: usize,
        pause: Duration,
        count: u64,
    ) -> Result<Figures> {
        self.order(SEND_BACK, count, size, size)?;
        let mut buffer = vec![0xa5; size];
        let mut times = Vec::with_capacity(usize::try_from(count)?);
        let began = Instant::now();
        for _ in 0..count {
            if !pause.is_zero() {
                thread::sleep(pause);
            }
            let started = Instant::now();
            self.stream.write_all(&buffer)?;
            self.stream.read_exact(&mut buffer)?;
            times.push(nanos_since(started));
        }
        Ok(Figures::round_trips(times, began.elapsed()))
    }

    /// Sends messages until the other end has read the last.
    pub(crate) fn push(
        &mut self,
        size: usize,
        writes: Writes,
        reads: Reads,
        count: u64,
    ) -> Result<Figures> {
        let (kind, buffer) = match reads {
            Reads::Reused => (TAKE, size.max(READ_BYTES)),
            Reads::Fresh => (TAKE_FRESH, size),
        };
        let total = count * size as u64;
        // What is read at once is whole messages where it is one at a time, else whatever came.
        match reads {
            Reads::Reused => self.order(kind, 1, usize::try_from(total)?, buffer)?,
            Reads::Fresh => self.order(kind, count, size, buffer)?,
        }
        let at_once = match writes {
            Writes::Each => size,
            Writes::Gathered => size.max(BATCH_BYTES / size * size),
        };
        let bytes = vec![0xa5; at_once];
        let (sent, elapsed) = timed(|| -> Result<()> {
            let mut left = total;
            while left > 0 {
                let now = left.min(at_once as u64);
                self.stream.write_all(&bytes[..usize::try_from(now)?])?;
                left -= now;
            }
            let mut done = [0];
            self.stream.read_exact(&mut done)?;
            Ok(())
        });
        sent?;
        Ok(Figures::throughput(count, elapsed))
    }

    fn order(&mut self, what: u8, count: u64, size: usize, buffer: usize) -> Result<()> {
        let mut order = [0; ORDER_BYTES];
        order[0] = what;
        order[1..9].copy_from_slice(&count.to_le_bytes());
        order[9..17].copy_from_slice(&(size as u64).to_le_bytes());
        order[17..].copy_from_slice(&(buffer as u64).to_le_bytes());
        self.stream.write_all(&order)?;
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The far end ends when the stream does; a stuck one is ended.
        self.stream = Box::new(io::Cursor::new(Vec::new()));
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("compare: the far end of a stream did not end: {error}");
        }
    }
}

/// Starts this program as the far end.
fn start(address: &str) -> Result<Child> {
    Command::new(env::current_exe()?)
        .args([FAR_END, address])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start the far end of a stream")
}

/// A number that no other socket of this process has.
fn number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The far end: obeys until the stream ends.
pub(crate) fn far_end(address: &str) -> Result<()> {
    match address.split_once(':') {
        Some(("unix", name)) => {
            let addr = SocketAddr::from_abstract_name(name)?;
            obey(&mut UnixStream::connect_addr(&addr)?)
        }
        Some(("tcp", addr)) => {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            obey(&mut stream)
        }
        _ => bail!("`{address}` is no address of a stream"),
    }
}

fn obey(stream: &mut (impl Read + Write)) -> Result<()> {
    let mut order = [0; ORDER_BYTES];
    loop {
        match stream.read_exact(&mut order) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let number = |from: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&order[from..from + 8]);
            u64::from_le_bytes(bytes)
        };
        let (count, size) = (number(1), number(9));
        let buffer = usize::try_from(number(17))?;
        match order[0] {
            SEND_BACK => {
                let mut buffer = vec![0; buffer];
                for _ in 0..count {
                    stream.read_exact(&mut buffer)?;
                    stream.write_all(&buffer)?;
                }
            }
            TAKE => {
                let mut buffer = vec![0; buffer];
                let mut left = size;
                while left > 0 {
                    let most = buffer.len().min(usize::try_from(left)?);
                    left -= stream.read(&mut buffer[..most])? as u64;
                }
                stream.write_all(&[1])?;
            }
            TAKE_FRESH => {
                for _ in 0..count {
                    let mut fresh = vec![0; buffer];
                    stream.read_exact(&mut fresh)?;
                    std::hint::black_box(&fresh);
                }
                stream.write_all(&[1])?;
            }
            other => bail!("{other} is no order"),
        }
    }
}
