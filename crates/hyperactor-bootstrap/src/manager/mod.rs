//! Procs as operating-system processes: [`ProcessManager`] starts the current executable again for each proc and tells
//! the children of each other. How one child is watched and ended is in `supervise` and `ladder`; what happens inside
//! the child is in `child`.

mod ladder;
mod supervise;

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_host::{End, ProcExit, ProcHandle, ProcInfo, ProcManager, ProcSpawnError, ProcSpec};
use hyperactor_mailbox::BoxFuture;
use hyperactor_refs::{BindSpec, ChannelAddr};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::control::{Sibling, ToChild};
use crate::error::ManagerError;
use crate::instructions::Instructions;
use crate::socket_dir::SocketDir;
use crate::{limits, startup};
use supervise::{Outbox, Start, Supervisor};

/// Makes procs that are processes of their own: for each one the current executable is started again.
///
/// The program must make the bootstrap call ([`boot`](crate::boot) or `#[hyperactor::main]`) at the top of its `main`:
/// in a child that call runs the proc and never returns.
///
/// # What a child inherits
///
/// The environment, standard output and standard error; no other descriptor. It is in a process group of its own, so
/// that a Ctrl-C at the terminal is the host's to handle.
///
/// # How children end
///
/// Asked to end, a child drains for as long as it was given, is then told to stop, gets SIGTERM 2 s later
/// ([`limits::STOP_TIMEOUT`]) and SIGKILL 1 s after that. Dropping the manager kills its children. Should the host's
/// process die in any way, each child sees its control stream end and ends within [`limits::ORPHAN_GRACE`], taking its
/// socket and, the last one, the socket directory with it. Children are always reaped.
pub struct ProcessManager {
    shared: Arc<Shared>,
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
    ready_timeout: Duration,
}

struct Shared {
    dir: SocketDir,
    table: Mutex<Table>,
    /// How many children are not reaped yet.
    living: watch::Sender<usize>,
}

#[derive(Default)]
struct Table {
    stopping: bool,
    procs: HashMap<String, Entry>,
}

struct Entry {
    sibling: Sibling,
    ready: bool,
    outbox: Outbox,
}

impl ProcessManager {
    /// Makes a manager with a socket directory of its own.
    ///
    /// # Errors
    /// [`ManagerError::BootstrapMissing`] when this program has not made the bootstrap call: its children would run
    /// `main` once more, and start children of their own. [`ManagerError::SocketDir`] when the directory cannot be made.
    pub fn new() -> Result<Self, ManagerError> {
        if startup::is_unbooted_child() {
            return Err(ManagerError::BootstrapMissing { in_child: true });
        }
        if !startup::has_booted() {
            return Err(ManagerError::BootstrapMissing { in_child: false });
        }
        // Not the path that the program was started by: that may have been replaced by a newer build since, and
        // children of another build would be strangers.
        Self::with_program("/proc/self/exe")
    }

    /// Makes a manager that starts another program, which has to make the bootstrap call as well and to be built with
    /// the same versions of this crate and of the messages.
    ///
    /// # Errors
    /// [`ManagerError::SocketDir`] when the socket directory cannot be made; [`ManagerError::BootstrapMissing`] in a child
    /// that did not make the bootstrap call.
    pub fn with_program(program: impl Into<PathBuf>) -> Result<Self, ManagerError> {
        if startup::is_unbooted_child() {
            return Err(ManagerError::BootstrapMissing { in_child: true });
        }
        let shared = Shared {
            dir: SocketDir::create()?,
            table: Mutex::default(),
            living: watch::Sender::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
            program: program.into(),
            environment: Vec::new(),
            ready_timeout: limits::READY_TIMEOUT,
        })
    }

    /// Changes how long a child may take until it is ready. The default is [`limits::READY_TIMEOUT`].
    #[must_use]
    pub fn with_ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// Sets a variable in the environment of the children, beside those they inherit.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Returns the directory with the sockets of this manager's procs.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.shared.dir.path()
    }

    async fn spawn_process(&self, spec: ProcSpec) -> Result<Box<dyn ProcHandle>, ProcSpawnError> {
        let name = spec.proc_id.name().to_owned();
        let (mut process, start) = self.start(&name, &spec)?;
        let outcome = tokio::time::timeout(self.ready_timeout, start).await;
        let error = match outcome {
            Ok(Ok(Start::Ready(addr))) => {
                process.info.addr = addr;
                self.shared.introduce(&name);
                return Ok(Box::new(process));
            }
            Ok(Ok(Start::Failed { code, reason })) => ProcSpawnError::Refused {
                name: name.clone(),
                code,
                reason,
            },
            Ok(Ok(Start::Exited(exit))) => {
                let hint = hint_of(exit).to_owned();
                ProcSpawnError::ExitedBeforeReady {
                    name: name.clone(),
                    exit,
                    hint,
                }
            }
            // The runtime is shutting down and took the supervising task with it.
            Ok(Err(_)) => ProcSpawnError::Stopping { name: name.clone() },
            Err(_) => ProcSpawnError::NeverReady {
                name: name.clone(),
                waited: self.ready_timeout,
            },
        };
        // Nothing of it is left when the error is returned, and its name is free again.
        process.end(End::Kill).await;
        Err(error)
    }

    /// Starts the process and the task that owns it.
    fn start(
        &self,
        name: &str,
        spec: &ProcSpec,
    ) -> Result<(ChildProcess, oneshot::Receiver<Start>), ProcSpawnError> {
        let failed = |source: std::io::Error| ProcSpawnError::Start {
            program: self.program.display().to_string(),
            source,
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let control = tokio::net::UnixStream::from_std(ours).map_err(failed)?;
        let instructions = Instructions::new(spec.clone(), self.shared.dir.path().to_path_buf());
        let text = instructions
            .to_text()
            .map_err(|reason| ProcSpawnError::Refused {
                name: name.to_owned(),
                code: "instructions".to_owned(),
                reason,
            })?;
        let mut command = std::process::Command::new(&self.program);
        command
            .arg0(format!("hyperactor proc {}", name.escape_debug()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(startup::VARIABLE, text)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .process_group(0);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);

        let (frames, outbox) = mpsc::channel(limits::CONTROL_QUEUE_MAX);
        let wish = watch::Sender::new(None);
        let wishes = wish.subscribe();
        let own_outbox = Outbox::new(frames, wish);
        self.shared.enter(name, spec, &own_outbox)?;
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                self.shared.table.lock().procs.remove(name);
                return Err(failed(error));
            }
        };
        // The command holds the child's end of the stream: as long as it is open here, the end of the child would
        // not be seen.
        drop(command);
        let (start, started) = oneshot::channel();
        let (exited, exit) = watch::channel(None);
        let info = ProcInfo {
            proc_id: Arc::clone(&spec.proc_id),
            incarnation: spec.incarnation,
            addr: spec.backend.clone(),
            pid: child.id(),
        };
        let supervisor = Supervisor {
            name: name.to_owned(),
            child,
            control,
            outbox,
            own_outbox: own_outbox.clone(),
            wish: wishes,
            start,
        };
        let shared = Arc::clone(&self.shared);
        shared.living.send_modify(|living| *living += 1);
        tokio::spawn(async move {
            let name = supervisor.name.clone();
            let ended = supervisor.run().await;
            shared.leave(&name);
            exited.send_replace(Some(ended));
            shared.living.send_modify(|living| *living -= 1);
        });
        Ok((
            ChildProcess {
                info,
                outbox: own_outbox,
                exited: exit,
            },
            started,
        ))
    }
}

/// What to look at when a child ended before it was ready.
fn hint_of(exit: ProcExit) -> &'static str {
    match exit {
        ProcExit::Exited(0) => {
            "it ended as if it had nothing to do: does its main call hyperactor::boot first?"
        }
        ProcExit::Exited(101) => "it panicked: the panic's text is on its standard error",
        ProcExit::Signalled(9) => "it was killed from outside, perhaps for lack of memory",
        _ => "look at what it wrote to its standard error",
    }
}

impl Shared {
    /// Takes a name for a process that is about to start.
    fn enter(&self, name: &str, spec: &ProcSpec, outbox: &Outbox) -> Result<(), ProcSpawnError> {
        let mut table = self.table.lock();
        if table.stopping {
            return Err(ProcSpawnError::Stopping {
                name: name.to_owned(),
            });
        }
        if table.procs.contains_key(name) {
            return Err(ProcSpawnError::Refused {
                name: name.to_owned(),
                code: "name-in-use".to_owned(),
                reason: "a proc of this name is running".to_owned(),
            });
        }
        let sibling = Sibling {
            name: name.to_owned(),
            incarnation: spec.incarnation,
        };
        let entry = Entry {
            sibling,
            ready: false,
            outbox: outbox.clone(),
        };
        table.procs.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Tells a proc that has just become ready of the others, and the others of it.
    fn introduce(&self, name: &str) {
        let mut table = self.table.lock();
        let Some(newcomer) = table.procs.get_mut(name) else {
            return;
        };
        newcomer.ready = true;
        let outbox = newcomer.outbox.clone();
        let announcement = ToChild::Up(vec![newcomer.sibling.clone()]);
        let others: Vec<&Entry> = table
            .procs
            .values()
            .filter(|entry| entry.ready && entry.sibling.name != name)
            .collect();
        for other in &others {
            other.outbox.send(&announcement);
        }
        for batch in others.chunks(limits::ANNOUNCE_BATCH_MAX) {
            let siblings = batch.iter().map(|entry| entry.sibling.clone()).collect();
            outbox.send(&ToChild::Up(siblings));
        }
    }

    /// Forgets a process that is reaped: its socket goes, its siblings are told, its name is free.
    fn leave(&self, name: &str) {
        if let Err(error) = self.dir.remove_socket(name) {
            tracing::warn!(target: "hyperactor::bootstrap", proc = name, %error, "the socket of an ended proc stays behind");
        }
        let mut table = self.table.lock();
        let Some(gone) = table.procs.remove(name) else {
            return;
        };
        if gone.ready {
            let announcement = ToChild::Gone(gone.sibling);
            for other in table.procs.values().filter(|entry| entry.ready) {
                other.outbox.send(&announcement);
            }
        }
    }

    fn kill_all(&self) {
        let mut table = self.table.lock();
        table.stopping = true;
        for entry in table.procs.values() {
            entry.outbox.wish(End::Kill);
        }
    }
}

impl ProcManager for ProcessManager {
    fn backend(&self) -> BindSpec {
        match ChannelAddr::unix_path(self.shared.dir.backend_path()) {
            Ok(addr) => BindSpec::from(addr),
            // Not reached: the directory checked the length of longer paths, and a path holds no NUL. Any
            // address of the system's choice would do as well.
            Err(_) => BindSpec::Any(hyperactor_refs::ChannelTransport::Unix),
        }
    }

    fn spawn(&self, spec: ProcSpec) -> BoxFuture<'_, Result<Box<dyn ProcHandle>, ProcSpawnError>> {
        Box::pin(self.spawn_process(spec))
    }

    /// From here on the last child to end removes the socket directory, so that a host that is killed in the middle of its
    /// end leaves nothing either: as long as a child lives, there is somebody to tidy up.
    fn closing(&self) {
        let mut table = self.shared.table.lock();
        table.stopping = true;
        for entry in table.procs.values() {
            entry.outbox.send(&ToChild::Closing);
        }
    }

    fn shutdown(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(async move {
            self.shared.kill_all();
            let mut living = self.shared.living.subscribe();
            // The sender lives in `shared`, so the wait ends with the condition.
            drop(living.wait_for(|living| *living == 0).await);
            let mut left = self.shared.dir.sockets().unwrap_or_default();
            left.retain(|name| self.shared.dir.backend_path().file_name() != Some(name.as_ref()));
            match self.shared.dir.remove() {
                Ok(()) => {
                    for name in left.drain(..) {
                        tracing::warn!(target: "hyperactor::bootstrap", socket = name, "a socket without a proc was removed at the end");
                    }
                }
                Err(error) => left.push(error.to_string()),
            }
            left
        })
    }
}

impl Drop for ProcessManager {
    fn drop(&mut self) {
        self.shared.kill_all();
    }
}

impl std::fmt::Debug for ProcessManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessManager")
            .field("program", &self.program)
            .field("socket_dir", &self.shared.dir.path())
            .field("procs", &self.shared.table.lock().procs.len())
            .finish_non_exhaustive()
    }
}

/// One child process.
struct ChildProcess {
    info: ProcInfo,
    outbox: Outbox,
    exited: watch::Receiver<Option<ProcExit>>,
}

impl ProcHandle for ChildProcess {
    fn info(&self) -> &ProcInfo {
        &self.info
    }

    fn end(&self, how: End) -> BoxFuture<'_, ProcExit> {
        self.outbox.wish(how);
        let mut exited = self.exited.clone();
        Box::pin(async move {
            match exited.wait_for(Option::is_some).await {
                Ok(exit) => exit.unwrap_or(ProcExit::Lost),
                // The runtime took the supervising task with it; its child was killed on the way.
                Err(_) => ProcExit::Lost,
            }
        })
    }

    fn exited(&self) -> watch::Receiver<Option<ProcExit>> {
        self.exited.clone()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.outbox.wish(End::Kill);
    }
}
