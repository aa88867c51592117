//! A thread of its own that reads what the host says, and notices when the host is gone: the control stream ends then,
//! however the host died. It ends the process then, or looks for the next host. It does not depend on the runtime, which user
//! code may keep busy.

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
use super::link::HostLink;
use super::output::{self, Output};
use super::reunion::{NotTaken, Reunion, Welcome};

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
    /// The same stream, for those who write.
    pub(super) host: HostLink,
    /// How the proc comes back to another host, if it outlives its own.
    pub(super) reunion: Option<Reunion>,
    /// Set when the proc is ready: before that it does not outlive its host.
    pub(super) is_ready: Arc<AtomicBool>,
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
        // Whatever happens in there (a subscriber of the log is the user's code), this thread goes on to end the process:
        // nobody else would.
        let obeyed = catch_unwind(AssertUnwindSafe(|| self.obey_hosts()));
        if self.is_captured {
            output::silence();
        }
        if obeyed.is_err() {
            tracing::error!(target: "hyperactor::bootstrap", proc = self.name, "what reads the host's orders panicked");
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

    /// Obeys one host after the other. Returns when there is none, and is not to be.
    fn obey_hosts(&mut self) {
        let mut hands = Hands::new(self.dir.hands_path(&self.name));
        let holds_output = self.reunion.is_some() && self.is_captured;
        let mut output = holds_output.then(Output::of_start);
        let mut frames = Frames::default();
        loop {
            let end = self.obey_until_the_end(&mut hands, frames);
            if end == StreamEnd::Broken || !self.outlives_host() {
                return;
            }
            let Some(welcome) = self.find_host(&mut hands, output.as_mut()) else {
                return;
            };
            if let (Some(output), Some((stdout, stderr))) = (&mut output, &welcome.output) {
                output.adopt(stdout, stderr);
            }
            self.control = welcome.stream;
            frames = welcome.frames;
            tracing::info!(target: "hyperactor::bootstrap", event = "host.back", proc = self.name, "another host took this proc back");
        }
    }

    /// Whether the proc lives on: it is meant to, its host knew that it was ready, and nobody asked it to end.
    fn outlives_host(&self) -> bool {
        self.reunion.is_some()
            && self.is_ready.load(Ordering::Acquire)
            && !self.closing.load(Ordering::Acquire)
            && *self.orders.borrow() == Order::Live
    }

    fn find_host(&self, hands: &mut Hands, mut output: Option<&mut Output>) -> Option<Welcome> {
        let reunion = self.reunion.as_ref()?;
        self.host.replace(None);
        if let Some(output) = &mut output {
            output.orphan();
        }
        tracing::warn!(target: "hyperactor::bootstrap", event = "host.lost", proc = self.name, grace = ?reunion.grace, "the host is gone: this proc looks for another");
        let mut looked = Instant::now();
        let found = reunion.look(|| {
            if looked.elapsed() >= limits::HANDS_PERIOD {
                hands.look(&self.proc);
                looked = Instant::now();
            }
            if let Some(output) = &mut output {
                output.drain();
            }
        });
        let found = found.and_then(|welcome| {
            // Those who write and those who read use the same socket by two descriptors.
            let writer = welcome.stream.try_clone().map_err(|_| NotTaken::NoHost)?;
            self.host.replace(Some(writer));
            Ok(welcome)
        });
        match found {
            Ok(welcome) => Some(welcome),
            Err(why) => {
                tracing::warn!(target: "hyperactor::bootstrap", event = "host.none", proc = self.name, %why, "this proc is not taken back");
                None
            }
        }
    }

    /// Returns when the stream has ended, or holds what no host says.
    fn obey_until_the_end(&mut self, hands: &mut Hands, mut frames: Frames) -> StreamEnd {
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
            loop {
                match frames.next() {
                    Ok(Some(frame)) => self.obey(frame),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(target: "hyperactor::bootstrap", %error, "the host's control stream is broken");
                        return StreamEnd::Broken;
                    }
                }
            }
            match self.control.read(&mut bytes) {
                Ok(0) => {
                    #[cfg(planted = "P15")]
                    wait_for_another_parent(parent);
                    return StreamEnd::HostGone;
                }
                Ok(count) => frames.push(&bytes[..count]),
                Err(error) if is_passing(&error) => {}
                Err(_) => return StreamEnd::HostGone,
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
            // Said before this thread was started, or before the host was obeyed.
            ToChild::Go | ToChild::Welcome | ToChild::Refused { .. } => {}
            ToChild::Closing => {
                self.ends_with_host();
                self.closing.store(true, Ordering::Release);
            }
            ToChild::Drain { deadline } => {
                self.ends_with_host();
                self.orders.send_replace(Order::Drain(deadline));
            }
            ToChild::Stop => {
                self.ends_with_host();
                self.orders.send_replace(Order::Stop);
            }
        }
    }

    /// The proc was asked to end: another host is not to look for it.
    fn ends_with_host(&self) {
        if self.reunion.is_none() {
            return;
        }
        if let Err(error) = self.dir.outlives_host(&self.name, false) {
            tracing::warn!(target: "hyperactor::bootstrap", proc = self.name, %error, "the record of an ending proc says that it stays");
        }
    }
}

/// How a control stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    HostGone,
    /// It held what no host says.
    Broken,
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
