//! Procs as operating-system processes: [`ProcessManager`] starts the current executable again for each proc and tells
//! the children of each other. How one child is watched and ended is in `supervise` and `ladder`; what happens inside
//! the child is in `child`.

mod bounds;
mod ladder;
mod memory;
mod output;
mod owned;
mod supervise;
mod table;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyperactor_host::{
    DeathCertificate, End, LogTail, OutputPolicy, OutputStream, ProcExit, ProcHandle, ProcInfo,
    ProcLogs, ProcManager, ProcSpawnError, ProcSpec,
};
use hyperactor_mailbox::BoxFuture;
use hyperactor_refs::{BindSpec, ChannelAddr};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::control::ToChild;
use crate::error::ManagerError;
use crate::instructions::Instructions;
use crate::launch::{ForkExec, LaunchOrder, Launcher, Program};
use crate::socket_dir::SocketDir;
use crate::{limits, startup};
use owned::OwnedChild;
use supervise::{Outbox, Start, Supervisor};
use table::Shared;

/// Makes procs that are processes of their own: for each one the current executable is started again.
///
/// The program must make the bootstrap call ([`boot`](crate::boot) or `#[hyperactor::main]`) at the top of its `main`:
/// in a child that call runs the proc and never returns.
///
/// # What a child inherits
///
/// The environment; no descriptor but its standard ones. Standard input is empty. Standard output and standard error lead to
/// the host, which keeps the last lines and passes them on with the proc's name in front, unless
/// [`OutputPolicy`] says otherwise. It leads a process group of its own, so that a Ctrl-C at the terminal is the host's to
/// handle, and so that whatever it starts ends with it: the group gets SIGKILL when the proc has ended, in whatever way. What
/// is to outlive its proc has to leave the group, by `setsid`. Before it runs anything of its own it waits for its host to have set its limits.
///
/// # How children end
///
/// Asked to end, a child drains for as long as it was given, is then told to stop, gets SIGTERM 2 s later
/// ([`limits::STOP_TIMEOUT`]) and SIGKILL 1 s after that. Dropping the manager kills its children. Should the host's
/// process die in any way, each child sees its control stream end and ends within [`limits::ORPHAN_GRACE`], taking its
/// socket and, the last one, the socket directory with it. Children are always reaped, and every signal goes through a pidfd
/// (Linux 5.3 or later). Of each end there is a [`DeathCertificate`].
pub struct ProcessManager {
    shared: Arc<Shared>,
    program: Program,
    launcher: Arc<dyn Launcher>,
    environment: Vec<(OsString, OsString)>,
    ready_timeout: Duration,
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
        Self::of(Program::Own)
    }

    /// Makes a manager that starts another program, which has to make the bootstrap call as well and to be built with
    /// the same versions of this crate and of the messages.
    ///
    /// # Errors
    /// [`ManagerError::SocketDir`] when the socket directory cannot be made; [`ManagerError::BootstrapMissing`] in a child
    /// that did not make the bootstrap call.
    pub fn with_program(program: impl Into<PathBuf>) -> Result<Self, ManagerError> {
        Self::of(Program::At(program.into()))
    }

    fn of(program: Program) -> Result<Self, ManagerError> {
        if startup::is_unbooted_child() {
            return Err(ManagerError::BootstrapMissing { in_child: true });
        }
        let shared = Shared::new(SocketDir::create()?);
        Ok(Self {
            shared: Arc::new(shared),
            program,
            launcher: Arc::new(ForkExec),
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

    /// Chooses how processes are started. The default is [`ForkExec`].
    #[must_use]
    pub fn with_launcher(mut self, launcher: impl Launcher) -> Self {
        self.launcher = Arc::new(launcher);
        self
    }

    /// Returns the directory with the sockets of this manager's procs.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.shared.dir.path()
    }

    async fn spawn_process(&self, spec: ProcSpec) -> Result<Box<dyn ProcHandle>, ProcSpawnError> {
        let name = spec.proc_id.name().to_owned();
        // Never closed; written so that nothing can panic.
        let _starting = self.shared.starting.acquire().await.ok();
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
                let logs = process.tail.look();
                let hint = match logs.of(OutputStream::Stderr).next_back() {
                    Some(line) => format!("{}; its last words: {line}", hint_of(exit)),
                    None => hint_of(exit).to_owned(),
                };
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
            program: self.program.to_string(),
            source,
        };
        let refused = |code: &str, reason: String| ProcSpawnError::Refused {
            name: name.to_owned(),
            code: code.to_owned(),
            reason,
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let control = tokio::net::UnixStream::from_std(ours).map_err(failed)?;
        let instructions = Instructions::new(spec.clone(), self.shared.dir.path().to_path_buf());
        let text = instructions
            .to_text()
            .map_err(|reason| refused("instructions", reason))?;
        let mut environment = self.environment.clone();
        environment.push((startup::VARIABLE.into(), text.into()));
        let tail = LogTail::new();
        let Capture {
            stdout,
            stderr,
            readers,
        } = self
            .capture(name, spec.config.output, &tail)
            .map_err(failed)?;
        let order = LaunchOrder {
            name: name.to_owned(),
            program: self.program.clone(),
            environment,
            limits: spec.config.limits.clone(),
            control: theirs.into(),
            stdout,
            stderr,
        };

        let (frames, outbox) = mpsc::channel(limits::CONTROL_QUEUE_MAX);
        let wish = watch::Sender::new(None);
        let wishes = wish.subscribe();
        let own_outbox = Outbox::new(frames, wish);
        // The first frame, and not written before the limits are set.
        own_outbox.send(&ToChild::Go);
        self.shared.enter(name, spec, &own_outbox)?;
        // The order holds the child's end of the stream: as long as it is open here, the end of the child would not be
        // seen. A launcher drops it.
        let launched = self.launcher.launch(order).and_then(OwnedChild::new);
        let child = match launched {
            Ok(child) => child,
            Err(error) => {
                self.shared.forget(name);
                return Err(failed(error));
            }
        };
        let with_memory = !self.launcher.bounds_memory();
        if let Err(error) = bounds::apply(child.pid(), &spec.config.limits, with_memory) {
            // Dropped, the child is killed.
            self.shared.forget(name);
            return Err(refused("limits", error.to_string()));
        }
        let (start, started) = oneshot::channel();
        let (exited, exit) = watch::channel(None);
        let certificate = Arc::new(OnceLock::new());
        let info = ProcInfo {
            proc_id: Arc::clone(&spec.proc_id),
            incarnation: spec.incarnation,
            addr: spec.backend.clone(),
            pid: Some(child.pid()),
        };
        let supervisor = Supervisor {
            info: info.clone(),
            child,
            control,
            outbox,
            own_outbox: own_outbox.clone(),
            wish: wishes,
            start,
            tail: (spec.config.output != OutputPolicy::Inherited).then(|| tail.clone()),
            readers,
            shared: Arc::clone(&self.shared),
        };
        let shared = Arc::clone(&self.shared);
        let process = ChildProcess {
            info,
            outbox: own_outbox,
            exited: exit,
            certificate: Arc::clone(&certificate),
            tail,
        };
        shared.living.send_modify(|living| *living += 1);
        tokio::spawn(async move {
            let name = supervisor.info.proc_id.name().to_owned();
            let ended = Arc::new(supervisor.run().await);
            shared.leave(&name, &ended);
            let exit = ended.exit;
            certificate.get_or_init(|| ended);
            exited.send_replace(Some(exit));
            shared.living.send_modify(|living| *living -= 1);
        });
        Ok((process, started))
    }

    /// Makes the pipes by which a child's output comes here, and the tasks that read them.
    fn capture(
        &self,
        name: &str,
        policy: OutputPolicy,
        tail: &LogTail,
    ) -> std::io::Result<Capture> {
        let onward = match policy {
            OutputPolicy::Inherited => return Ok(Capture::default()),
            OutputPolicy::Kept => None,
            _ => self.shared.printer.onward(name),
        };
        let mut capture = Capture::default();
        for (stream, end) in [
            (OutputStream::Stdout, &mut capture.stdout),
            (OutputStream::Stderr, &mut capture.stderr),
        ] {
            let (ours, theirs) = std::io::pipe()?;
            *end = Some(theirs.into());
            let reader = output::read(ours.into(), stream, tail.clone(), onward.clone())?;
            capture.readers.push(reader);
        }
        Ok(capture)
    }
}

/// The child's ends of the pipes for its output, and the tasks that read the others.
#[derive(Default)]
struct Capture {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    readers: Vec<JoinHandle<()>>,
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
            self.shared
                .printer
                .flush(limits::OUTPUT_FLUSH_TIMEOUT)
                .await;
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
            .field("program", &format_args!("{}", self.program))
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
    /// Set before the end is published.
    certificate: Arc<OnceLock<Arc<DeathCertificate>>>,
    tail: LogTail,
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

    fn certificate(&self) -> Option<Arc<DeathCertificate>> {
        self.certificate.get().cloned()
    }

    fn logs(&self) -> ProcLogs {
        self.tail.look()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.outbox.wish(End::Kill);
    }
}
