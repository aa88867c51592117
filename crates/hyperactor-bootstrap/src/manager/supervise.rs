//! The host's side of one child process: a task that owns the child, reads and writes its control stream, ends it by
//! the ladder and reaps it. No signal is ever sent by number: the child is owned until it is reaped, and SIGTERM goes
//! through its pidfd.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use hyperactor_host::{End, ProcExit};
use hyperactor_refs::ChannelAddr;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::ladder::{Ladder, Step};
use crate::control::{self, Frames, FromChild, ToChild};

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
    pub(super) name: String,
    pub(super) child: Child,
    pub(super) control: UnixStream,
    /// Frames for the child.
    pub(super) outbox: mpsc::Receiver<Vec<u8>>,
    pub(super) own_outbox: Outbox,
    pub(super) wish: watch::Receiver<Option<End>>,
    pub(super) start: oneshot::Sender<Start>,
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
    pub(super) async fn run(self) -> ProcExit {
        let Self {
            name,
            mut child,
            control,
            outbox,
            own_outbox,
            mut wish,
            start,
        } = self;
        let pidfd = open_pidfd(&child);
        let (read, write) = control.into_split();
        let writer = tokio::spawn(write_frames(outbox, write));
        let mut reader = Reader {
            stream: read,
            frames: Frames::default(),
            open: true,
        };
        let mut start = Some(start);
        let mut ladder = Ladder::new();
        let status = loop {
            let deadline = ladder.deadline();
            let step = tokio::select! {
                status = child.wait() => break status,
                frame = reader.next(), if reader.open => match frame {
                    Some(frame) => {
                        on_frame(&name, frame, &mut start);
                        None
                    }
                    None => {
                        ladder.on_silence(Instant::now());
                        None
                    }
                },
                changed = wish.changed() => {
                    // Nobody is left who could want anything of this child.
                    let end = if changed.is_ok() { *wish.borrow_and_update() } else { Some(End::Kill) };
                    end.and_then(|end| ladder.on_wish(end, Instant::now()))
                }
                () = sleep_until(deadline) => ladder.on_deadline(Instant::now()),
            };
            if let Some(step) = step {
                take_step(&name, step, &own_outbox, &mut child, pidfd.as_ref());
            }
        };
        let exit = status.map_or(ProcExit::Lost, exit_of);
        writer.abort();
        // What it said just before it ended is still in the socket.
        let last_words = async {
            while reader.open {
                if let Some(frame) = reader.next().await {
                    on_frame(&name, frame, &mut start);
                }
            }
        };
        if tokio::time::timeout(LAST_WORDS_TIMEOUT, last_words)
            .await
            .is_err()
        {
            tracing::debug!(target: "hyperactor::bootstrap", proc = name, "somebody else holds the control stream of an ended child");
        }
        if let Some(start) = start.take() {
            // Not heard when the call to spawn was dropped.
            drop(start.send(Start::Exited(exit)));
        }
        tracing::debug!(target: "hyperactor::bootstrap", event = "proc.exited", proc = name, %exit, "a child ended");
        exit
    }
}

fn take_step(name: &str, step: Step, outbox: &Outbox, child: &mut Child, pidfd: Option<&OwnedFd>) {
    tracing::debug!(target: "hyperactor::bootstrap", event = "proc.end", proc = name, ?step, "a child is asked to end");
    match step {
        Step::Drain(deadline) => outbox.send(&ToChild::Drain { deadline }),
        Step::Stop => outbox.send(&ToChild::Stop),
        Step::Terminate => {
            let sent = pidfd.map(|fd| rustix::process::pidfd_send_signal(fd.as_fd(), Signal::TERM));
            if !matches!(sent, Some(Ok(()))) {
                // No pidfd on this kernel: the next rung is as safe, through the owned child.
                tracing::debug!(target: "hyperactor::bootstrap", proc = name, ?sent, "SIGTERM not sent");
            }
        }
        Step::Kill => {
            // Fails only for a child that has just ended, which the next round of the loop sees.
            if let Err(error) = child.start_kill() {
                tracing::debug!(target: "hyperactor::bootstrap", proc = name, %error, "SIGKILL not sent");
            }
        }
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

/// A pidfd of a child that is not reaped yet, so that its number cannot have been given to another process.
fn open_pidfd(child: &Child) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(child.id()?).ok()?)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
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
