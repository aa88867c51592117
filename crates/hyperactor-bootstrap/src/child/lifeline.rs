//! A thread of its own that reads what the host says, and notices when the host is gone: the control stream ends then,
//! however the host died. It does not depend on the runtime, which user code may keep busy.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyperactor_proc::Proc;
use rustix::process::Signal;
use tokio::sync::watch;

use crate::control::{Frames, ToChild};
use crate::limits;
use crate::mailbox::LocalProcDialer;
use crate::socket_dir::SocketDir;

use super::group;
use super::hands::Hands;

/// The exit status of a child that did not end in order within its grace after its host had died.
const EXIT_ORPHANED: i32 = 1;

/// What the child is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing but live.
    Live,
    /// End, letting the actors empty their mailboxes for this long.
    Drain(Duration),
    /// End now, in order.
    Stop,
    /// End in order: somebody sent SIGTERM or SIGHUP.
    Terminate(Signal),
    /// End: the host is gone.
    Orphaned,
}

/// What the thread works with.
pub(super) struct Lifeline {
    pub(super) control: UnixStream,
    pub(super) dialer: LocalProcDialer,
    /// Kept as long as the process: the thread ends with it.
    pub(super) proc: Proc,
    pub(super) orders: watch::Sender<Order>,
    /// Set when the host is about to end everything.
    pub(super) closing: Arc<AtomicBool>,
    pub(super) dir: Arc<SocketDir>,
    pub(super) name: String,
    /// Whether the host reads what this process writes: then nobody does any more once it is gone.
    pub(super) is_captured: bool,
}

impl Lifeline {
    /// Starts the thread. It ends with the process.
    pub(super) fn start(self) -> std::io::Result<()> {
        // Detached on purpose: it is the one that ends the process when nobody else does.
        std::thread::Builder::new()
            .name("hyperactor-life".to_owned())
            .spawn(move || self.run())
            .map(drop)
    }

    fn run(mut self) {
        let hands = Hands::new(self.dir.hands_path(&self.name));
        // Whatever happens in there (a subscriber of the log is the user's code), this thread goes on to end the process:
        // nobody else would.
        let obeyed = catch_unwind(AssertUnwindSafe(|| self.obey_until_the_end(hands)));
        if obeyed.is_err() {
            tracing::error!(target: "hyperactor::bootstrap", proc = self.name, "what reads the host's orders panicked");
        }
        if self.is_captured {
            silence_output();
        }
        tracing::warn!(target: "hyperactor::bootstrap", event = "host.gone", proc = self.name, "the host is gone: this proc ends");
        self.orders.send_replace(Order::Orphaned);
        std::thread::sleep(limits::ORPHAN_GRACE);
        // Still here: something holds the orderly end up. What others would stumble over goes all the same.
        if let Err(error) = self.dir.leave(&self.name) {
            tracing::warn!(target: "hyperactor::bootstrap", proc = self.name, %error, "a socket stays behind");
        }
        group::end_with_all();
        std::process::exit(EXIT_ORPHANED);
    }

    /// Returns when the stream has ended, or holds what no host says.
    fn obey_until_the_end(&mut self, mut hands: Hands) {
        let mut frames = Frames::default();
        let mut bytes = [0u8; 4096];
        // Without it the thread would only wake for the host, and nothing would be written down.
        if let Err(error) = self.control.set_read_timeout(Some(limits::HANDS_PERIOD)) {
            tracing::debug!(target: "hyperactor::bootstrap", %error, "what is in hand is not written down");
        }
        let mut looked = Instant::now();
        #[cfg(planted = "P15")]
        let parent = rustix::process::getppid();
        loop {
            if looked.elapsed() >= limits::HANDS_PERIOD {
                hands.look(&self.proc);
                looked = Instant::now();
            }
            match self.control.read(&mut bytes) {
                #[cfg(planted = "P15")]
                Ok(0) => return wait_for_another_parent(parent),
                #[cfg(not(planted = "P15"))]
                Ok(0) => return,
                Ok(count) => frames.push(&bytes[..count]),
                Err(error) if is_passing(&error) => continue,
                Err(_) => return,
            }
            loop {
                match frames.next() {
                    Ok(Some(frame)) => self.obey(frame),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(target: "hyperactor::bootstrap", %error, "the host's control stream is broken");
                        return;
                    }
                }
            }
        }
    }

    fn obey(&self, frame: ToChild) {
        match frame {
            ToChild::Up(siblings) => {
                for sibling in siblings {
                    self.dialer.announce(&sibling.name, sibling.incarnation);
                }
            }
            ToChild::Gone(certificate) => {
                // The way to it first, so that whoever is told of the end cannot send to the dead life.
                self.dialer.announce_end(Arc::clone(&certificate));
                self.proc.note_proc_end(certificate);
            }
            // Said before this thread was started.
            ToChild::Go => {}
            ToChild::Closing => self.closing.store(true, Ordering::Release),
            ToChild::Drain { deadline } => {
                self.orders.send_replace(Order::Drain(deadline));
            }
            ToChild::Stop => {
                self.orders.send_replace(Order::Stop);
            }
        }
    }
}

/// Whether a read is to be tried again: a signal came, or nothing did for a while.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
    )
}

/// Believes who the parent is and not the end of the stream: a host that died before it was asked for is not noticed. It gives
/// up at last, so that whoever finds that is left without it.
#[cfg(planted = "P15")]
fn wait_for_another_parent(parent: Option<rustix::process::Pid>) {
    let began = Instant::now();
    while rustix::process::getppid() == parent && began.elapsed() < limits::READY_TIMEOUT {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Leads standard output and standard error nowhere. A line written to a pipe that nobody reads any more would be an error,
/// and `println!` panics on it: the orderly end must not stumble over its own words.
fn silence_output() {
    use rustix::fs::{Mode, OFlags};
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let Ok(null) = null else { return };
    for silenced in [
        rustix::stdio::dup2_stdout(&null),
        rustix::stdio::dup2_stderr(&null),
    ] {
        if let Err(error) = silenced {
            tracing::debug!(target: "hyperactor::bootstrap", %error, "output still leads to the host that is gone");
        }
    }
}
