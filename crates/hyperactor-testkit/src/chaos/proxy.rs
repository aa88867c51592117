//! Carrying out a script: accepts, dials the target, passes bytes and breaks things where it says so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::endpoint::{Endpoint, Listener, Reader, Stream, Writer};
use super::script::{Act, Direction, Plan, Script, Step};
use crate::limits::{PROXY_BUFFER_BYTES, PROXY_CONNECTIONS};

/// How long the accept loop rests when the kernel refuses it a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A proxy in front of a target. Dial [`endpoint`](Self::endpoint) instead of the target.
///
/// Dropping it ends the listening and every connection.
///
/// ```
/// use hyperactor_testkit::{Act, ChaosProxy, Direction, Plan, Script};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let target = TcpListener::bind("127.0.0.1:0").await?;
/// let plan = Plan::pass().step(Direction::Up, 3, Act::HalfClose);
/// let target_text = format!("tcp:{}", target.local_addr()?);
/// let proxy = ChaosProxy::start(&target_text, Script::pass().then(plan)).await?;
///
/// let address = proxy.endpoint().to_string();
/// let mut dialled = TcpStream::connect(address.trim_start_matches("tcp:")).await?;
/// dialled.write_all(b"abcdef").await?;
/// let (mut accepted, _) = target.accept().await?;
/// let mut received = String::new();
/// accepted.read_to_string(&mut received).await?;
/// assert_eq!(received, "abc");
/// assert_eq!(proxy.report().half_closes, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ChaosProxy {
    endpoint: Endpoint,
    counters: Arc<Counters>,
    /// Sending cuts every connection of the moment.
    cut: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    accepting: Option<JoinHandle<()>>,
}

/// What a proxy has done so far. A test of faults checks that the faults took place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections accepted.
    pub connections: u64,
    /// Of these, how many the target could not be dialled for.
    pub unreachable: u64,
    /// Bytes passed from the dialling ends to the target.
    pub bytes_up: u64,
    /// Bytes passed back.
    pub bytes_down: u64,
    /// Connections cut, by the script or by [`ChaosProxy::cut_all`].
    pub cuts: u64,
    /// Directions ended in order by the script.
    pub half_closes: u64,
    /// Stalls begun.
    pub stalls: u64,
    /// Freezes begun.
    pub freezes: u64,
    /// Delays begun.
    pub delays: u64,
}

/// What the connections add to.
#[derive(Debug, Default)]
struct Counters(Mutex<Report>);

impl Counters {
    fn add(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.0.lock());
    }

    fn report(&self) -> Report {
        *self.0.lock()
    }
}

/// How one direction, or a whole connection, ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// In order.
    Closed,
    /// By the script.
    Cut,
    /// By one of the two ends.
    Broken,
}

impl ChaosProxy {
    /// Starts a proxy in front of a target, which is given as its text form: a channel address will do.
    /// The script is printed, so that a failing test shows it.
    ///
    /// The proxy listens at a new endpoint of the same kind as the target's. The target is dialled once
    /// for each connection that is accepted.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when the target is no [`Endpoint`], and what the
    /// system says when the proxy cannot listen.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn start(target: impl ToString, script: Script) -> io::Result<Self> {
        let target: Endpoint = target
            .to_string()
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (listener, endpoint) = Listener::like(&target).await?;
        eprintln!("chaos proxy {endpoint} → {target}: {script}");
        let counters = Arc::new(Counters::default());
        let (cut, cuts) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let accepting = Accepting {
            listener,
            target,
            script,
            counters: Arc::clone(&counters),
            cuts,
        };
        let accepting = Some(tokio::spawn(accepting.run(stopped)));
        Ok(Self {
            endpoint,
            counters,
            cut,
            stop,
            accepting,
        })
    }

    /// Where to dial instead of the target.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Cuts every connection that there is now. New ones are accepted.
    pub fn cut_all(&self) {
        self.cut.send_modify(|round| *round += 1);
    }

    /// What has been done so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.counters.report()
    }

    /// Stops listening, ends every connection and returns what was done.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the proxy, which ends the same things without waiting for them.
    pub async fn stop(mut self) -> Report {
        self.stop.send_replace(true);
        if let Some(accepting) = self.accepting.as_mut() {
            if let Err(error) = accepting.await {
                eprintln!("chaos proxy {}: {error}", self.endpoint);
            }
            self.accepting = None;
        }
        self.counters.report()
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            // The task owns the listener and all connections.
            accepting.abort();
        }
    }
}

/// What the accept loop owns.
struct Accepting {
    listener: Listener,
    target: Endpoint,
    script: Script,
    counters: Arc<Counters>,
    cuts: watch::Receiver<u64>,
}

impl Accepting {
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let mut accepted = 0;
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                Some(_) = connections.join_next() => {}
                stream = self.listener.accept(), if connections.len() < PROXY_CONNECTIONS => {
                    let Ok(stream) = stream else {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    self.counters.add(|report| report.connections += 1);
                    let plan = self.script.plan(accepted);
                    accepted += 1;
                    let (target, counters) = (self.target.clone(), Arc::clone(&self.counters));
                    connections.spawn(connection(stream, target, plan, counters, self.cuts.clone()));
                }
            }
        }
        connections.shutdown().await;
    }
}

/// Carries one connection from its acceptance to its end.
async fn connection(
    mut dialler: Stream,
    target: Endpoint,
    plan: Plan,
    counters: Arc<Counters>,
    mut cuts: watch::Receiver<u64>,
) {
    // A connection made before a cut is told of it, one made after it is not.
    cuts.mark_unchanged();
    let Ok(mut target) = Stream::dial(&target).await else {
        counters.add(|report| report.unreachable += 1);
        dialler.sever();
        return;
    };
    let end = {
        let (from_dialler, to_dialler) = dialler.split();
        let (from_target, to_target) = target.split();
        let up = Pump {
            direction: Direction::Up,
            counters: &counters,
        };
        let down = Pump {
            direction: Direction::Down,
            counters: &counters,
        };
        let both = async {
            let up = up.run(from_dialler, to_target, plan.steps(Direction::Up));
            let down = down.run(from_target, to_dialler, plan.steps(Direction::Down));
            tokio::pin!(up, down);
            // The first that does not end in order ends both.
            tokio::select! {
                end = &mut up => if end == End::Closed { down.await } else { end },
                end = &mut down => if end == End::Closed { up.await } else { end },
            }
        };
        tokio::select! {
            end = both => end,
            Ok(()) = cuts.changed() => End::Cut,
        }
    };
    if end == End::Cut {
        counters.add(|report| report.cuts += 1);
    }
    if end != End::Closed {
        dialler.sever();
        target.sever();
    }
}

/// One direction of one connection.
struct Pump<'a> {
    direction: Direction,
    counters: &'a Counters,
}

impl Pump<'_> {
    async fn run(self, mut from: Reader<'_>, mut to: Writer<'_>, steps: &[Step]) -> End {
        let mut steps = steps.iter().copied().peekable();
        let mut buffer = vec![0; PROXY_BUFFER_BYTES];
        let mut passed = 0_u64;
        let mut delay = Duration::ZERO;
        loop {
            while let Some(step) = steps.next_if(|step| step.at <= passed) {
                match step.act {
                    Act::Cut => return End::Cut,
                    Act::HalfClose => {
                        self.counters.add(|report| report.half_closes += 1);
                        if to.shutdown().await.is_err() {
                            return End::Broken;
                        }
                        return discard(&mut from, &mut buffer).await;
                    }
                    Act::Stall(time) => {
                        self.counters.add(|report| report.stalls += 1);
                        tokio::time::sleep(time).await;
                    }
                    Act::Freeze => {
                        self.counters.add(|report| report.freezes += 1);
                        std::future::pending::<()>().await;
                    }
                    Act::Delay(time) => {
                        self.counters.add(|report| report.delays += 1);
                        delay = time;
                    }
                }
            }
            // Never reads beyond the next step: what was not passed stays with its sender.
            let room = steps.peek().map_or(u64::MAX, |step| step.at - passed);
            let room = usize::try_from(room)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let count = match from.read(&mut buffer[..room]).await {
                Ok(0) => {
                    return if to.shutdown().await.is_ok() {
                        End::Closed
                    } else {
                        End::Broken
                    };
                }
                Ok(count) => count,
                Err(_) => return End::Broken,
            };
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                return End::Broken;
            }
            passed += count as u64;
            self.counters.add(|report| match self.direction {
                Direction::Up => report.bytes_up += count as u64,
                Direction::Down => report.bytes_down += count as u64,
            });
        }
    }
}

/// Reads and throws away until the sender ends.
async fn discard(from: &mut Reader<'_>, buffer: &mut [u8]) -> End {
    loop {
        match from.read(buffer).await {
            Ok(0) => return End::Closed,
            Ok(_) => {}
            Err(_) => return End::Broken,
        }
    }
}
