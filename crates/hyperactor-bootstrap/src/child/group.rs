//! The process group of a proc: everything that its actors start and that does not leave it. It ends with the proc, by the
//! hand of the kernel; the host, and a proc that outlives its host, see to it besides.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, getpgrp, getpid, kill_process_group, setpgid};

use crate::startup::{self, Told};

/// The lowest number for the descriptors of the leash: scripts of a shell name those below by hand.
const LEASH_FD_MIN: i32 = 10;

/// Ties the group of this process to its life, before it starts any other process: when this one ends, in whatever way, the
/// kernel sends SIGKILL to all that are in the group.
///
/// It is a pipe of which only this process has the writing end. The reading end says what the kernel is to do when the
/// writing end is closed, and is left open to whatever is started: as long as any process has it, there is a leash.
/// Of the two, the reading end has the lower number: the kernel, which lets go of them in the opposite order, comes to
/// the writing end while this process still has the other one. So processes that close all that they inherit are tied, too.
///
/// # Errors
/// What the operating system says. There is no leash then, and all is left to the host.
pub(super) fn tie_to_this_process() -> io::Result<()> {
    let own = getpid();
    if getpgrp() != own {
        // Whoever launched it left it in a group of others, such as that of its host.
        setpgid(None, None)?;
    }
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
    let reading = rustix::io::fcntl_dupfd_cloexec(reading, LEASH_FD_MIN)?;
    let writing = rustix::io::fcntl_dupfd_cloexec(writing, reading.as_raw_fd() + 1)?;
    startup::signal_on_events(reading.as_fd(), Told::Group(own), Signal::KILL)?;
    rustix::io::fcntl_setfd(&reading, FdFlags::empty())?;
    // Open until the kernel closes them: nothing in this process may do that earlier.
    std::mem::forget((reading, writing));
    Ok(())
}

/// Ends this process, whose host is gone, with all that is left of its group. Does not return unless this process leads no
/// group.
pub(super) fn end_with_all() {
    // It leads its group, whose number is its own for as long as it lives.
    if getpgrp() != getpid() {
        return;
    }
    if let Err(error) = kill_process_group(getpid(), Signal::KILL) {
        tracing::warn!(target: "hyperactor::bootstrap", %error, "what this proc started is left behind");
    }
}
