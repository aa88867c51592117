//! What makes a proc that is stopped (`SIGSTOP`) go on when its host dies, so that it notices and ends, too: the kernel sends it
//! SIGCONT. A process that runs does not notice that signal, and nothing here ends one.
//!
//! It is a pipe of which the host alone has the writing end, into which nothing is ever written. A proc opens the reading end for
//! itself by the host's entry in `/proc`, and has the kernel send the signal when something happens there: when the host ends, in
//! whatever way, the writing end is closed. Where that cannot be set up, as without `/proc`, a proc that is stopped ends when
//! somebody lets it go on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, getpgrp, getpid};
use serde::{Deserialize, Serialize};

use crate::startup;

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
    startup::signal_group_on_events(reading.as_fd(), own, Signal::CONT)?;
    let flags = rustix::fs::fcntl_getfl(&reading)?;
    rustix::fs::fcntl_setfl(&reading, flags | OFlags::ASYNC)?;
    // Open for as long as this process lives.
    std::mem::forget(reading);
    Ok(())
}
