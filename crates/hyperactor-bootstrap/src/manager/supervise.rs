//! The host's side of one child process: a task that owns the child, reads and writes its control stream, ends it by
//! the ladder, reaps it and writes its death certificate.

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
    pub(super) control: UnixStream,
    /// Frames for the child.
    pub(super) outbox: mpsc::Receiver<Vec<u8>>,
    pub(super) own_outbox: Outbox,
    pub(super) wish: watch::Receiver<Option<End>>,
    pub(super) start: oneshot::Sender<Start>,
    /// The child's last lines, where they are captured.
    pub(super) tail: Option<LogTail>,
    /// The tasks that read what the child writes.
    pub(super) readers: Vec<JoinHandle<()>>,
    pub(super) shared: Arc<Shared>,
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
    /// Runs until the child has ended and is reaped.
    pub(super) async fn run(self) -> DeathCertificate {
        let Self {
            info,
            mut child,
            control,
            outbox,
            own_outbox,
            mut wish,
            start,
            tail,
            readers,
            shared,
        } = self;
        let name = info.proc_id.name();
        let since = Instant::now();
        let mut counter = shared.memory.begin(child.pid());
        let (read, write) = control.into_split();
        let writer = tokio::spawn(write_frames(outbox, write));
        let mut reader = Reader {
            stream: read,
            frames: Frames::default(),
            open: true,
        };
        let mut start = Some(start);
        let mut ladder = Ladder::new();
        let (mut wanted, mut killed_here) = (false, false);
        loop {
            let deadline = ladder.deadline();
            let step = tokio::select! {
                ended = child.ended() => match ended {
                    Ok(()) => break,
                    // The runtime shuts down; reaping waits for the child, and dropping it kills it.
                    Err(error) => {
                        tracing::debug!(target: "hyperactor::bootstrap", proc = name, %error, "a child cannot be watched any more");
                        return DeathCertificate::new(info.proc_id, info.incarnation, ProcExit::Lost);
                    }
                },
                frame = reader.next(), if reader.open => match frame {
                    Some(frame) => {
                        if matches!(frame, FromChild::Ready { .. }) {
                            // A launcher may have moved it since it was started.
                            counter = shared.memory.begin(child.pid()).or(counter);
                        }
                        on_frame(name, frame, &mut start);
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
                () = sleep_until(deadline) => ladder.on_deadline(Instant::now()),
            };
            if let Some(step) = step {
                killed_here |= step == Step::Kill;
                take_step(name, step, &own_outbox, &child);
            }
        }
        let reaped = child.reap().and_then(Result::ok);
        let lived = since.elapsed();
        let exit = reaped.map_or(ProcExit::Lost, |reaped| exit_of(reaped.status));
        writer.abort();
        listen_to_the_last(name, &mut reader, &mut start, readers).await;
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
        certificate.bounded()
    }
}

/// Reads what a child said and wrote just before it ended: it is still in the socket and in the pipes, unless a process that
/// the child started holds them open.
async fn listen_to_the_last(
    name: &str,
    reader: &mut Reader,
    start: &mut Option<oneshot::Sender<Start>>,
    outputs: Vec<JoinHandle<()>>,
) {
    let last_words = async {
        while reader.open {
            if let Some(frame) = reader.next().await {
                on_frame(name, frame, start);
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

fn on_frame(name: &str, frame: FromChild, start: &mut Option<oneshot::Sender<Start>>) {
    let outcome = match frame {
        FromChild::Ready { addr } => Start::Ready(addr),
        FromChild::Failed { code, reason } => Start::Failed { code, reason },
        FromChild::Ending { flushed } => {
            tracing::debug!(target: "hyperactor::bootstrap", event = "proc.ending", proc = name, flushed, "a child ends in order");
            return;
        }
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
struct Reader {
    stream: OwnedReadHalf,
    frames: Frames,
    open: bool,
}

impl Reader {
    /// The next frame; `None` when the stream has ended or was violated, and `open` is false from then on.
    async fn next(&mut self) -> Option<FromChild> {
        loop {
            match self.frames.next() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(target: "hyperactor::bootstrap", %error, "a child's control stream is broken");
                    self.open = false;
                    return None;
                }
            }
            let mut bytes = [0u8; 4096];
            match self.stream.read(&mut bytes).await {
                Ok(count) if count > 0 => self.frames.push(&bytes[..count]),
                Ok(_) | Err(_) => {
                    self.open = false;
                    return None;
                }
            }
        }
    }
}
