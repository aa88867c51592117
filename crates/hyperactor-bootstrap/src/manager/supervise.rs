//! The host's side of one proc's process: a task that owns it, reads and writes its control stream, ends it by the ladder,
//! reaps it and writes its death certificate.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_host::{
    DeathCertificate, End, LogTail, OutputStream, ProcExit, ProcInfo, ResourceUse,
};
use hyperactor_refs::ChannelAddr;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ladder::{Ladder, Step};
use super::memory::Death;
use super::owned::OwnedChild;
use super::table::Shared;
use crate::control::{self, Frames, FromChild, ToChild};
use crate::limits;

/// How long the last words of a child that has already ended are read for. They are in the socket or never come.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(200);

/// How the start of a child came out.
#[derive(Debug)]
pub(super) enum Start {
    Ready(ChannelAddr),
    Failed { code: String, reason: String },
    Exited(ProcExit),
}

/// What the task works on.
pub(super) struct Supervisor {
    pub(super) info: ProcInfo,
    pub(super) child: OwnedChild,
    pub(super) control: Control,
    /// Whether it outlives its host.
    pub(super) stays: bool,
    /// How long it had lived before.
    pub(super) age: Duration,
    /// Frames for the child.
    pub(super) outbox: mpsc::Receiver<Vec<u8>>,
    pub(super) own_outbox: Outbox,
    pub(super) wish: watch::Receiver<Option<End>>,
    /// Told how the start came out; `None` for a proc that was started long ago.
    pub(super) start: Option<oneshot::Sender<Start>>,
    /// The child's last lines, where they are captured.
    pub(super) tail: Option<LogTail>,
    /// The tasks that read what the child writes.
    pub(super) readers: Vec<JoinHandle<()>>,
    pub(super) shared: Arc<Shared>,
}

/// The stream to a proc.
pub(super) enum Control {
    Open(UnixStream),
    /// The proc is one of an earlier life and comes back, or does not.
    Awaited {
        arrival: oneshot::Receiver<Arrival>,
        /// Told whether it came.
        back: oneshot::Sender<bool>,
    },
}

/// A proc of an earlier life that came back.
pub(super) struct Arrival {
    pub(super) stream: UnixStream,
    /// What it has said since.
    pub(super) frames: Frames,
    /// The tasks that read what it writes from now on.
    pub(super) readers: Vec<JoinHandle<()>>,
}

/// How the supervision of a process ended.
pub(super) enum Fate {
    /// The process is over.
    Ended(Box<DeathCertificate>),
    /// The process lives on, without this host.
    LetGo,
}

/// Where frames for a child are put. Bounded: a child that does not read is ended.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    frames: mpsc::Sender<Vec<u8>>,
    wish: watch::Sender<Option<End>>,
}

impl Outbox {
    pub(super) fn new(frames: mpsc::Sender<Vec<u8>>, wish: watch::Sender<Option<End>>) -> Self {
        Self { frames, wish }
    }

    /// Queues a frame without waiting.
    pub(super) fn send(&self, frame: &ToChild) {
        let bytes = match control::encode(frame) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(target: "hyperactor::bootstrap", %error, "control frame not sent");
                return;
            }
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.frames.try_send(bytes) {
            tracing::warn!(target: "hyperactor::bootstrap", "a child does not read its control stream and is ended");
            self.wish(End::Kill);
        }
        // Closed: the child has ended, and whoever cares has been told.
    }

    /// Notes that the child is to end. A kill is never taken back.
    pub(super) fn wish(&self, end: End) {
        self.wish.send_if_modified(|wish| {
            if *wish == Some(End::Kill) {
                return false;
            }
            *wish = Some(end);
            true
        });
    }
}

impl Supervisor {
    /// Runs until the process has ended and is reaped, or is let go.
    pub(super) async fn run(self) -> Fate {
        let Self {
            info,
            mut child,
            control,
            stays,
            age,
            outbox,
            own_outbox,
            mut wish,
            mut start,
            tail,
            mut readers,
            shared,
        } = self;
        let name = info.proc_id.name();
        let since = Instant::now();
        let mut counter = shared.memory.begin(child.pid());
        if stays {
            child.spare(wish.clone());
        }
        let mut let_go = shared.let_go.subscribe();
        let mut link = Link::new(outbox);
        let mut awaited = match control {
            Control::Open(stream) => {
                link.open(stream, Frames::default());
                None
            }
            Control::Awaited { arrival, back } => Some(Awaiting {
                arrival,
                back,
                until: since + limits::ADOPT_PATIENCE,
            }),
        };
        let mut ladder = Ladder::new();
        let (mut wanted, mut killed_here, mut announced) = (false, false, None);
        loop {
            let deadline = ladder.deadline();
            let step = tokio::select! {
                ended = child.ended() => match ended {
                    Ok(()) => break,
                    // The runtime shuts down; reaping waits for the child, and dropping it kills it.
                    Err(error) => {
                        tracing::debug!(target: "hyperactor::bootstrap", proc = name, %error, "a child cannot be watched any more");
                        let certificate = DeathCertificate::new(info.proc_id, info.incarnation, ProcExit::Lost);
                        return Fate::Ended(Box::new(certificate));
                    }
                },
                frame = link.reader.next(), if link.reader.is_open() => match frame {
                    Some(frame) => {
                        if matches!(frame, FromChild::Ready { .. }) {
                            // A launcher may have moved it since it was started.
                            counter = shared.memory.begin(child.pid()).or(counter);
                        }
                        on_frame(name, frame, &mut start, &mut announced);
                        None
                    }
                    None => {
                        ladder.on_silence(Instant::now());
                        None
                    }
                },
                changed = wish.changed() => {
                    wanted = true;
                    // Nobody is left who could want anything of this child.
                    let end = if changed.is_ok() { *wish.borrow_and_update() } else { Some(End::Kill) };
                    end.and_then(|end| ladder.on_wish(end, Instant::now()))
                }
                came = come_back(&mut awaited) => {
                    if let Some((arrival, back)) = came {
                        link.open(arrival.stream, arrival.frames);
                        readers.extend(arrival.readers);
                        shared.introduce(name);
                        if back.send(true).is_err() {
                            tracing::trace!(target: "hyperactor::bootstrap", proc = name, "nobody waited for the proc to be back");
                        }
                    } else {
                        tracing::warn!(target: "hyperactor::bootstrap", event = "proc.not_back", proc = name, "a proc of an earlier life lives and does not come back");
                        ladder.on_silence(Instant::now());
                    }
                    None
                }
                () = told(&mut let_go), if stays => return Fate::LetGo,
                () = sleep_until(deadline) => ladder.on_deadline(Instant::now()),
            };
            if let Some(step) = step {
                killed_here |= step == Step::Kill;
                take_step(name, step, &own_outbox, &child);
            }
        }
        let reaped = child.reap().and_then(Result::ok);
        let lived = age + since.elapsed();
        link.close_writer();
        listen_to_the_last(name, &mut link.reader, &mut start, &mut announced, readers).await;
        let exit = match (reaped, announced) {
            (Some(reaped), _) => exit_of(reaped.status),
            // Not killed, as far as is known: what it said last has to do.
            (None, Some(status)) if !killed_here => ProcExit::Announced(status),
            (None, _) => ProcExit::Lost,
        };
        if let Some(start) = start.take() {
            // Not heard when the call to spawn was dropped.
            drop(start.send(Start::Exited(exit)));
        }
        tracing::debug!(target: "hyperactor::bootstrap", event = "proc.exited", proc = name, %exit, "a child ended");

        let mut certificate = DeathCertificate::new(info.proc_id, info.incarnation, exit);
        let logs = tail.as_ref().map(LogTail::look);
        certificate.last_words = logs.map_or_else(Vec::new, |logs| {
            logs.of(OutputStream::Stderr).map(str::to_owned).collect()
        });
        certificate.out_of_memory = shared.memory.verdict(
            counter.as_ref(),
            Death {
                exit,
                killed_here,
                last_words: tail.is_some().then_some(&*certificate.last_words),
            },
        );
        certificate.handling = shared.dir.hands(certificate.proc_id.name());
        certificate.wanted = wanted;
        certificate.lived = lived;
        certificate.usage = reaped.map(|reaped| {
            let usage = reaped.rusage;
            ResourceUse::new(usage.utime, usage.stime, usage.maxrss)
        });
        Fate::Ended(Box::new(certificate.bounded()))
    }
}

/// Reads what a child said and wrote just before it ended: it is still in the socket and in the pipes, unless a process that
/// the child started holds them open.
async fn listen_to_the_last(
    name: &str,
    reader: &mut Reader,
    start: &mut Option<oneshot::Sender<Start>>,
    announced: &mut Option<i32>,
    outputs: Vec<JoinHandle<()>>,
) {
    let last_words = async {
        while reader.is_open() {
            if let Some(frame) = reader.next().await {
                on_frame(name, frame, start, announced);
            }
        }
    };
    if tokio::time::timeout(LAST_WORDS_TIMEOUT, last_words)
        .await
        .is_err()
    {
        tracing::debug!(target: "hyperactor::bootstrap", proc = name, "somebody else holds the control stream of an ended child");
    }
    let deadline = Instant::now() + limits::OUTPUT_END_TIMEOUT;
    for mut output in outputs {
        if tokio::time::timeout_at(deadline, &mut output)
            .await
            .is_err()
        {
            tracing::debug!(target: "hyperactor::bootstrap", proc = name, "somebody else holds the output of an ended child");
            output.abort();
        }
    }
}

fn take_step(name: &str, step: Step, outbox: &Outbox, child: &OwnedChild) {
    tracing::debug!(target: "hyperactor::bootstrap", event = "proc.end", proc = name, ?step, "a child is asked to end");
    let sent = match step {
        Step::Drain(deadline) => {
            outbox.send(&ToChild::Drain { deadline });
            return;
        }
        Step::Stop => {
            outbox.send(&ToChild::Stop);
            return;
        }
        Step::Terminate => child.signal(Signal::TERM),
        Step::Kill => child.signal(Signal::KILL),
    };
    // Fails only for a child that has just ended, which the next round of the loop sees.
    if let Err(error) = sent {
        tracing::debug!(target: "hyperactor::bootstrap", proc = name, ?step, %error, "signal not sent");
    }
}

fn on_frame(
    name: &str,
    frame: FromChild,
    start: &mut Option<oneshot::Sender<Start>>,
    announced: &mut Option<i32>,
) {
    let outcome = match frame {
        FromChild::Ready { addr } => Start::Ready(addr),
        FromChild::Failed { code, reason } => Start::Failed { code, reason },
        FromChild::Ending { flushed, status } => {
            *announced = Some(status);
            tracing::debug!(target: "hyperactor::bootstrap", event = "proc.ending", proc = name, flushed, "a child ends in order");
            return;
        }
        // Said before it was back.
        FromChild::Claim { .. } | FromChild::Back => return,
    };
    if let Some(start) = start.take() {
        // Not heard when the call to spawn was dropped.
        drop(start.send(outcome));
    }
}

fn exit_of(status: ExitStatus) -> ProcExit {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProcExit::Exited(code),
        (None, Some(signal)) => ProcExit::Signalled(signal),
        (None, None) => ProcExit::Lost,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a supervisor waits for as long as a proc of an earlier life is not back.
struct Awaiting {
    arrival: oneshot::Receiver<Arrival>,
    back: oneshot::Sender<bool>,
    until: Instant,
}

/// Waits until the proc is back; `None`: for too long. Either is told once. Cancel safe.
async fn come_back(awaited: &mut Option<Awaiting>) -> Option<(Arrival, oneshot::Sender<bool>)> {
    let Some(awaiting) = awaited else {
        return std::future::pending().await;
    };
    let came = tokio::time::timeout_at(awaiting.until, &mut awaiting.arrival).await;
    let back = awaited.take()?.back;
    Some((came.ok()?.ok()?, back))
}

/// Waits until it is told. Cancel safe.
async fn told(let_go: &mut watch::Receiver<bool>) {
    // The sender lives as long as the supervisor.
    drop(let_go.wait_for(|let_go| *let_go).await);
}

/// The control stream of one process, once there is one. Frames for the process wait until then.
struct Link {
    reader: Reader,
    outbox: Option<mpsc::Receiver<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
}

impl Link {
    fn new(outbox: mpsc::Receiver<Vec<u8>>) -> Self {
        Self {
            reader: Reader::default(),
            outbox: Some(outbox),
            writer: None,
        }
    }

    fn open(&mut self, stream: UnixStream, frames: Frames) {
        let (read, write) = stream.into_split();
        self.reader = Reader {
            stream: Some(read),
            frames,
        };
        let outbox = self.outbox.take();
        self.writer = outbox.map(|outbox| tokio::spawn(write_frames(outbox, write)));
    }

    fn close_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abort();
        }
    }
}

/// For the process, the end of this task is that of its host.
impl Drop for Link {
    fn drop(&mut self) {
        self.close_writer();
    }
}

async fn write_frames(mut outbox: mpsc::Receiver<Vec<u8>>, mut stream: OwnedWriteHalf) {
    while let Some(frame) = outbox.recv().await {
        if stream.write_all(&frame).await.is_err() {
            // The child is ending; that is seen elsewhere.
            return;
        }
    }
    // Every sender is gone, and with it this half of the stream: for the child that means that its host is gone.
}

/// Reads frames. Cancel safe: a read takes nothing that it does not keep in `frames`.
#[derive(Default)]
struct Reader {
    /// `None` when there is none yet, or it has ended.
    stream: Option<OwnedReadHalf>,
    frames: Frames,
}

impl Reader {
    fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// The next frame; `None` when the stream has ended or was violated, and is not open from then on.
    async fn next(&mut self) -> Option<FromChild> {
        loop {
            match self.frames.next() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(target: "hyperactor::bootstrap", %error, "a child's control stream is broken");
                    self.stream = None;
                    return None;
                }
            }
            let mut bytes = [0u8; 4096];
            match self.stream.as_mut()?.read(&mut bytes).await {
                Ok(count) if count > 0 => self.frames.push(&bytes[..count]),
                Ok(_) | Err(_) => {
                    self.stream = None;
                    return None;
                }
            }
        }
    }
}
