//! A child process that is owned until it is reaped. Every signal goes through its pidfd and every wait through the value
//! that started it, so that no number is ever used that may mean another process by then.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wait4::{ResUse, Wait4};

/// One child. Dropped before it was reaped, it is killed, and reaped in the background.
#[derive(Debug)]
pub(super) struct OwnedChild {
    /// `None` when it is reaped.
    child: Option<Child>,
    pidfd: AsyncFd<OwnedFd>,
    pid: u32,
}

impl OwnedChild {
    /// Takes ownership of a child that was just started. Must be called on a runtime.
    ///
    /// # Errors
    /// The kernel has no pidfds (it is older than 5.3), or no descriptors are left. The child is killed and reaped then.
    pub(super) fn new(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        match open_pidfd(pid) {
            Ok(pidfd) => Ok(Self {
                child: Some(child),
                pidfd,
                pid,
            }),
            Err(error) => {
                // Not reaped yet, so the number is its own.
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the child has ended; it is not reaped by that. Cancel safe.
    pub(super) async fn ended(&self) -> io::Result<()> {
        // Readable once and for all: the readiness is left as it is.
        self.pidfd.readable().await.map(drop)
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        rustix::process::pidfd_send_signal(self.pidfd.get_ref().as_fd(), signal)?;
        Ok(())
    }

    /// Reaps the child, which must have ended. `None` when that was done before.
    pub(super) fn reap(&mut self) -> Option<io::Result<ResUse>> {
        self.child.take().map(Wait4::wait4)
    }
}

fn open_pidfd(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process number out of range"))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    #[expect(
        deprecated,
        reason = "deprecated for types that may hand out another descriptor each time, which an `OwnedFd` does not; the \
                  successor is unsafe for all types"
    )]
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else {
            return;
        };
        if let Err(error) = self.signal(Signal::KILL) {
            tracing::debug!(target: "hyperactor::bootstrap", pid = self.pid, %error, "SIGKILL not sent");
        }
        // A killed process may still take a moment to end, and nobody here can wait for it.
        let reaper = std::thread::Builder::new().name("hyperactor-reap".to_owned());
        if let Err(error) = reaper.spawn(move || drop(child.wait4())) {
            tracing::warn!(target: "hyperactor::bootstrap", pid = self.pid, %error, "a killed child is not reaped before this process ends");
        }
    }
}
