//! Where this process writes when its host is gone, and when there is another: nowhere, and to that.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

/// How much of what nobody reads is taken out of a pipe at once, in bytes.
const DRAIN_BYTES: usize = 64 * 1024;
/// And how often, before others have their turn.
const DRAIN_READS_MAX: usize = 16;

/// Leads standard output and standard error nowhere. A line written to a pipe that nobody reads any more would be an error,
/// and `println!` panics on it: the orderly end must not stumble over its own words.
pub(super) fn silence() {
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    if let Ok(null) = null {
        lead_to(&null, &null);
    }
}

fn lead_to(stdout: &OwnedFd, stderr: &OwnedFd) {
    for led in [
        rustix::stdio::dup2_stdout(stdout),
        rustix::stdio::dup2_stderr(stderr),
    ] {
        if let Err(error) = led {
            tracing::debug!(target: "hyperactor::bootstrap", %error, "output still leads to the host that is gone");
        }
    }
}

/// The output of a process that outlives whoever reads it.
///
/// It holds the reading ends of its own pipes beside its host. So the pipes live when the host is gone, and what is written to
/// them in the moment before that is noticed is no error; nor is what programs write that this process started.
#[derive(Default)]
pub(super) struct Output {
    /// The pipes that a host read, or does. Those of earlier hosts stay as long as a program may still write to them.
    pipes: Vec<std::fs::File>,
}

impl Output {
    /// The output as the process was started with it.
    pub(super) fn of_start() -> Self {
        let mut output = Self::default();
        output.hold(rustix::stdio::stdout());
        output.hold(rustix::stdio::stderr());
        output
    }

    /// Opens the other end of a pipe.
    fn hold(&mut self, pipe: impl AsFd) {
        use std::os::fd::AsRawFd;
        let pipe = pipe.as_fd();
        let is_pipe = rustix::fs::fstat(pipe)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if !is_pipe {
            return;
        }
        let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(end) => self.pipes.push(end.into()),
            Err(error) => {
                tracing::warn!(target: "hyperactor::bootstrap", %error, "a line written when the host has just gone will be an error");
            }
        }
    }

    /// The host is gone: from here on nothing that is written goes anywhere.
    pub(super) fn orphan(&mut self) {
        silence();
        self.drain();
    }

    /// Throws away what was written since, by whoever was waiting for room or was started with these pipes. Called every now
    /// and then while there is no host. A pipe that nobody can write to any more is let go.
    pub(super) fn drain(&mut self) {
        let mut bytes = vec![0u8; DRAIN_BYTES];
        self.pipes.retain_mut(|pipe| {
            // Until it is empty, with a bound: whoever writes all the time must not keep this thread.
            for _ in 0..DRAIN_READS_MAX {
                match pipe.read(&mut bytes) {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            true
        });
    }

    /// There is another host, which reads these pipes.
    pub(super) fn adopt(&mut self, stdout: &OwnedFd, stderr: &OwnedFd) {
        self.hold(stdout);
        self.hold(stderr);
        lead_to(stdout, stderr);
    }
}
