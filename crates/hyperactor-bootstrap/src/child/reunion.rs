//! How a proc without a host looks for the next: at a socket in the directory that both know, with pauses, until its time is
//! over. What it does meanwhile and afterwards is not decided here.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyperactor_refs::Incarnation;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};

use super::link::tell;
use crate::control::{Frames, FromChild, ToChild};
use crate::limits;

/// What a proc needs to come back to a host.
pub(super) struct Reunion {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) incarnation: Incarnation,
    /// How long it lives without one.
    pub(super) grace: Duration,
}

/// A host that took the proc back.
pub(super) struct Welcome {
    pub(super) stream: UnixStream,
    /// What it said after that, and what of a frame has come so far.
    pub(super) frames: Frames,
    /// Where the process is to write from now on: standard output, then standard error.
    pub(super) output: Option<(OwnedFd, OwnedFd)>,
}

/// Why a proc is not taken back.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    /// The host has no place for it.
    #[error("the host does not take this proc back: {0}")]
    Refused(String),
    #[error("no host came")]
    NoHost,
}

impl Reunion {
    /// Looks for a host until one takes the proc back, refuses it, or the time is over. `meanwhile` is called between two looks.
    pub(super) fn look(&self, mut meanwhile: impl FnMut()) -> Result<Welcome, NotTaken> {
        // Beyond what can be counted means: for ever.
        let deadline = Instant::now().checked_add(self.grace);
        let mut pause = limits::ADOPT_BACKOFF_MIN;
        loop {
            match self.claim() {
                Ok(Ok(welcome)) => return Ok(welcome),
                Ok(Err(reason)) => return Err(NotTaken::Refused(reason)),
                Err(error) => {
                    tracing::trace!(target: "hyperactor::bootstrap", proc = self.name, %error, "no host takes this proc back yet");
                }
            }
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Err(NotTaken::NoHost);
            }
            meanwhile();
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(limits::ADOPT_BACKOFF_MAX);
        }
    }

    /// Asks the host that listens, if one does. `Ok(Err)`: it refused. An error may be another time's success.
    fn claim(&self) -> io::Result<Result<Welcome, String>> {
        let stream = connect(&self.path)?;
        stream.set_read_timeout(Some(limits::ADOPT_TIMEOUT))?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let claim = FromChild::Claim {
            name: self.name.clone(),
            incarnation: self.incarnation,
        };
        if !tell(&stream, &claim) {
            return Err(gone());
        }
        let mut answer = Answer::default();
        let frame = answer.next(&stream)?;
        match frame {
            ToChild::Welcome => {}
            ToChild::Refused { reason } => return Ok(Err(reason)),
            other => {
                return Err(io::Error::other(format!(
                    "a host answered a claim with {other:?}"
                )));
            }
        }
        // Only now is the proc the host's: one that gave up waiting closes the stream, and the claim is made again.
        if !tell(&stream, &FromChild::Back) {
            return Err(gone());
        }
        let mut descriptors = answer.descriptors.into_iter();
        let output = descriptors.next().zip(descriptors.next());
        Ok(Ok(Welcome {
            stream,
            frames: answer.frames,
            output,
        }))
    }
}

/// Connects without waiting for a host that does not accept.
fn connect(path: &std::path::Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket)?.uid;
    if peer != rustix::process::geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The bytes and descriptors of a host's answer.
#[derive(Default)]
struct Answer {
    frames: Frames,
    descriptors: Vec<OwnedFd>,
}

impl Answer {
    fn next(&mut self, stream: &UnixStream) -> io::Result<ToChild> {
        let deadline = Instant::now() + limits::ADOPT_TIMEOUT;
        loop {
            match self.frames.next() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.receive(stream)?;
        }
    }

    fn receive(&mut self, stream: &UnixStream) -> io::Result<()> {
        let mut bytes = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match rustix::net::recvmsg(stream, &mut into, &mut control, flags) {
            Ok(received) => received,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                self.descriptors.extend(rights);
            }
        }
        if received.bytes == 0 || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.frames.push(&bytes[..received.bytes]);
        Ok(())
    }
}
