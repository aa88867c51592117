//! What makes a proc that is stopped (`SIGSTOP`) go on when its host dies, so that it notices and ends, too: the kernel sends it
//! SIGCONT. A process that runs does not notice that signal, and nothing here ends one.
//!
//! It is a pipe of which the host alone has the writing end, into which nothing is ever written. A proc opens the reading end for
//! itself by the host's entry in `/proc`, and has the kernel send the signal when something happens there: when the host ends, in
//! whatever way, the writing end is closed. Where that cannot be set up, as without `/proc`, a proc that is stopped ends when
//! somebody lets it go on.
//!
//! Until a child has come so far, the host does the same for it, with a pipe that lasts as long as the start. What is stopped
//! before it has become the program (by `exec`) has copies of all that its host has open, so that nothing is closed when the
//! host ends: it, too, ends when somebody lets it go on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, getpgrp, getpid};
use serde::{Deserialize, Serialize};

use crate::startup::{self, Told};

/// The host's end. It lasts as long as the host does.
#[derive(Debug)]
pub(crate) struct Pulse {
    _writing: OwnedFd,
    place: PulsePlace,
}

/// Where a child finds the pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PulsePlace {
    host: u32,
    descriptor: RawFd,
    /// The numbers may be another's by the time they are used; this says so.
    device: u64,
    inode: u64,
}

impl Pulse {
    /// # Errors
    /// What the operating system says.
    pub(crate) fn new() -> io::Result<Self> {
        let (_, writing) = pipe_with(PipeFlags::CLOEXEC)?;
        let found = rustix::fs::fstat(&writing)?;
        let place = PulsePlace {
            host: std::process::id(),
            descriptor: writing.as_raw_fd(),
            device: found.st_dev,
            inode: found.st_ino,
        };
        Ok(Self {
            _writing: writing,
            place,
        })
    }

    pub(crate) fn place(&self) -> PulsePlace {
        self.place.clone()
    }
}

/// The host's care for one child that is being started. Dropped when the child cares for itself.
#[derive(Debug)]
pub(crate) struct StartPulse {
    /// Of the same pipe. Whichever of them the kernel closes first, it is the other that tells of it.
    ends: [OwnedFd; 2],
}

impl StartPulse {
    /// Has the kernel let a child go on when this process ends. The child must not be reaped yet.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn of(child: u32) -> io::Result<Self> {
        let child = i32::try_from(child).ok().and_then(Pid::from_raw);
        let child = child.ok_or(io::ErrorKind::InvalidInput)?;
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
        let pulse = Self {
            ends: [reading, writing],
        };
        for end in &pulse.ends {
            startup::signal_on_events(end.as_fd(), Told::Process(child), Signal::CONT)?;
        }
        Ok(pulse)
    }
}

impl Drop for StartPulse {
    fn drop(&mut self) {
        // Whoever stopped the child meanwhile did not mean it to go on now.
        for end in &self.ends {
            let silenced = rustix::fs::fcntl_getfl(end)
                .and_then(|flags| rustix::fs::fcntl_setfl(end, flags - OFlags::ASYNC));
            if let Err(error) = silenced {
                tracing::debug!(target: "hyperactor::bootstrap", %error, "a child that is stopped goes on at the end of its start");
            }
        }
    }
}

impl PulsePlace {
    /// An error where something else is found.
    fn is_at(&self, found: &Stat) -> io::Result<()> {
        let is_pipe = FileType::from_raw_mode(found.st_mode) == FileType::Fifo;
        match is_pipe && (found.st_dev, found.st_ino) == (self.device, self.inode) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// In a child that leads its group: has the kernel let the group go on when the host ends.
///
/// # Errors
/// What the operating system says; the host may be gone, and its numbers another's.
pub(crate) fn go_on_without(place: &PulsePlace) -> io::Result<()> {
    let own = getpid();
    if getpgrp() != own {
        return Err(io::Error::other("this process leads no group"));
    }
    let path = format!("/proc/{}/fd/{}", place.host, place.descriptor);
    // Looked at first: opening what is another's might do something there.
    place.is_at(&rustix::fs::stat(&path)?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let reading = rustix::fs::open(path, flags, Mode::empty())?;
    place.is_at(&rustix::fs::fstat(&reading)?)?;
    startup::signal_on_events(reading.as_fd(), Told::Group(own), Signal::CONT)?;
    // Open for as long as this process lives.
    std::mem::forget(reading);
    Ok(())
}
