//! A process that is owned until it is over: a child, which is reaped, or one that an earlier life of the host started. Every
//! signal goes through its pidfd and every wait through the value that started it, so that no number is ever used that may
//! mean another process by then. A group has no descriptor; its number is its leader's, and so it is used until the leader,
//! a child, is reaped and never after.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;

use hyperactor_host::End;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use wait4::{ResUse, Wait4};

/// One process. Dropped before it was over, it is killed, unless it is spared; a child is reaped in the background.
#[derive(Debug)]
pub(super) struct OwnedChild {
    /// `None` when it is reaped, or no child of this process.
    child: Option<Child>,
    pidfd: AsyncFd<OwnedFd>,
    pid: u32,
    /// Whether there is nothing left to end.
    is_over: bool,
    /// What is wished of it, if it is to outlive this value unless that is its death.
    spared: Option<watch::Receiver<Option<End>>>,
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
                is_over: false,
                spared: None,
            }),
            Err(error) => {
                // Not reaped yet, so the number is its own.
                child.kill()?;
                end_group(pid);
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Takes ownership of a process that is no child of this one. How it ends cannot be read. Must be called on a runtime.
    pub(super) fn of_another(pid: u32, pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            child: None,
            pidfd: watched(pidfd)?,
            pid,
            is_over: false,
            spared: None,
        })
    }

    /// Lets the process live when this value is dropped, unless its death is wished for then.
    pub(super) fn spare(&mut self, wish: watch::Receiver<Option<End>>) {
        self.spared = Some(wish);
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

    /// Reaps the process, which must have ended, when all that is left of its group has been told to end too. `None` when that
    /// was done before, or is another's to do.
    pub(super) fn reap(&mut self) -> Option<io::Result<ResUse>> {
        self.is_over = true;
        let child = self.child.take()?;
        end_group(self.pid);
        Some(child.wait4())
    }
}

/// Sends SIGKILL to the group that a child leads, which must not have been reaped: as long as it is not, no other process and
/// no other group can have its number. None can escape by starting another meanwhile: the kernel sees to that.
fn end_group(pid: u32) {
    let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    match rustix::process::kill_process_group(group, Signal::KILL) {
        // It was ended before it came to lead a group.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => {
            tracing::warn!(target: "hyperactor::bootstrap", pid, %error, "what an ended child started is left behind");
        }
    }
}

fn open_pidfd(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process number out of range"))?;
    watched(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Has the runtime watch over the end of a process.
pub(super) fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "deprecated for types that may hand out another descriptor each time, which an `OwnedFd` does not; the \
                  successor is unsafe for all types"
    )]
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let is_spared = self
            .spared
            .as_ref()
            .is_some_and(|wish| *wish.borrow() != Some(End::Kill));
        if !is_spared && let Err(error) = self.signal(Signal::KILL) {
            tracing::debug!(target: "hyperactor::bootstrap", pid = self.pid, %error, "SIGKILL not sent");
        }
        let Some(child) = self.child.take() else {
            return;
        };
        if !is_spared {
            end_group(self.pid);
        }
        // A process may still take a moment to end, or long, and nobody here can wait for it.
        let reaper = std::thread::Builder::new().name("hyperactor-reap".to_owned());
        if let Err(error) = reaper.spawn(move || drop(child.wait4())) {
            tracing::warn!(target: "hyperactor::bootstrap", pid = self.pid, %error, "a child is not reaped before this process ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::Duration;

    use hyperactor_testkit::{eventually, eventually_some, is_alive};

    use super::*;

    /// A child in a group of its own, which knows nothing of us, and a process that it started.
    async fn child_with_another() -> (OwnedChild, u32) {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & exec sleep 600"]);
        let child = OwnedChild::new(command.process_group(0).spawn().unwrap()).unwrap();
        let within = Duration::from_secs(10);
        let other = eventually_some(within, || {
            hyperactor_testkit::children_of(child.pid()).pop()
        });
        let other = other.await;
        (child, other)
    }

    #[tokio::test]
    async fn what_a_child_started_is_ended_before_the_child_is_reaped() {
        let (mut child, other) = child_with_another().await;
        child.signal(Signal::KILL).unwrap();
        child.ended().await.unwrap();
        assert!(is_alive(other));
        assert!(child.reap().unwrap().is_ok());
        eventually(Duration::from_secs(10), || !is_alive(other)).await;
    }

    #[tokio::test]
    async fn what_a_dropped_child_started_is_ended() {
        let (child, other) = child_with_another().await;
        let pid = child.pid();
        drop(child);
        eventually(Duration::from_secs(10), || {
            !is_alive(other) && !is_alive(pid)
        })
        .await;
    }
}
