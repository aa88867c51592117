//! Procs as operating-system processes: [`ProcessManager`] starts the current executable again for each proc and tells
//! the children of each other. How one child is watched and ended is in `supervise` and `ladder`; what happens inside
//! the child is in `child`.

mod bounds;
mod ladder;
mod memory;
mod output;
mod owned;
mod reception;
mod supervise;
mod survivors;
mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use hyperactor_host::{
    DeathCertificate, End, LogTail, OnHostLoss, OutputPolicy, OutputStream, ProcExit, ProcHandle,
    ProcInfo, ProcLogs, ProcManager, ProcSpawnError, ProcSpec, Survivor,
};
use hyperactor_mailbox::BoxFuture;
use hyperactor_refs::{BindSpec, ChannelAddr};
use tokio::sync::{mpsc, oneshot, watch};

use crate::control::ToChild;
use crate::error::ManagerError;
use crate::instructions::Instructions;
use crate::launch::{ForkExec, LaunchOrder, Launcher, Program};
use crate::pulse::{Pulse, StartPulse};
use crate::socket_dir::SocketDir;
use crate::{limits, startup};
use output::Capture;
use owned::OwnedChild;
use supervise::{Control, Fate, Outbox, Start, Supervisor};
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
///
/// # How children live on
///
/// A manager made by [`surviving`](Self::surviving) has procs that live on when their host dies, is dropped, or panics, if
/// they were made with [`OnHostLoss::Stay`]. Only [`Host::stop`](hyperactor_host::Host::stop) ends those. What they do without
/// a host, and how the next one takes them back, is described there.
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
        require_boot()?;
        let dir = SocketDir::create()?;
        Ok(Self::of(Program::Own, dir, limits::HOST_GRACE))
    }

    /// Makes a manager whose procs can outlive their host, in a directory that one host after the other uses.
    ///
    /// `dir` is absolute and is made if it is not there; its mode is 0700, and its path leaves room for the sockets in it. One
    /// living host has it. It goes with the last proc of a host that stopped, or that died and was not followed by another, if
    /// nothing else lies in it.
    ///
    /// # Without a host
    ///
    /// A proc made with [`OnHostLoss::Stay`] goes on when its host is gone, once that knew it was ready and unless it was asked
    /// to end. Messages between procs go straight as before. Those that only a host could move come back as not delivered, or
    /// as unknown if they were under way. What the procs print is lost. After `grace` ([`limits::HOST_GRACE`] is a good
    /// choice) without a host they end in order.
    ///
    /// # The next host
    ///
    /// Made with the same directory, the same frontend and the same backend, it has the procs in its tables from its first
    /// moment, under their names and in the same lives. They come back within [`limits::ADOPT_BACKOFF_MAX`] and are told of each
    /// other anew; what they print is read from then on. Restart policies hold, also for procs that died while there was no
    /// host; how often they were restarted before is forgotten. Of a process that this host did not start, the exit status
    /// cannot be read: its certificate says [`ProcExit::Lost`], or [`ProcExit::Announced`] where it ended in order. One that
    /// lives and does not come back within [`limits::ADOPT_PATIENCE`] is ended.
    ///
    /// A service manager that ends all processes of a service together ends these as well: give them scopes of their own
    /// ([`SystemdScope`](crate::SystemdScope)), or have it end the host's process only.
    ///
    /// # Errors
    /// As [`new`](Self::new). [`SocketDirError::InUse`](crate::SocketDirError::InUse) when a living host has the directory.
    ///
    /// # Bounds
    /// Blocks for at most half a second, when the directory is held by somebody who is about to go.
    pub fn surviving(dir: impl Into<PathBuf>, grace: Duration) -> Result<Self, ManagerError> {
        require_boot()?;
        Ok(Self::of(Program::Own, SocketDir::keep(dir)?, grace))
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
        let program = Program::At(program.into());
        Ok(Self::of(program, SocketDir::create()?, limits::HOST_GRACE))
    }

    fn of(program: Program, dir: SocketDir, grace: Duration) -> Self {
        Self {
            shared: Arc::new(Shared::new(dir, grace)),
            program,
            launcher: Arc::new(ForkExec),
            environment: Vec::new(),
            ready_timeout: limits::READY_TIMEOUT,
        }
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
        self.shared.wait_for_former(&name).await?;
        // Never closed; written so that nothing can panic.
        let _starting = self.shared.starting.acquire().await.ok();
        let Started {
            mut process,
            outcome: start,
            pulse: _pulse,
        } = self.start(&name, &spec)?;
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
    fn start(&self, name: &str, spec: &ProcSpec) -> Result<Started, ProcSpawnError> {
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
        let dir = &self.shared.dir;
        let mut instructions = Instructions::new(spec.clone(), dir.path().to_path_buf());
        instructions.pulse = self.shared.pulse.as_ref().map(Pulse::place);
        let stays = spec.config.on_host_loss == OnHostLoss::Stay;
        if dir.is_kept() {
            instructions = instructions.kept(stays.then_some(self.shared.grace));
        } else if stays {
            let reason = "it is to outlive its host, and this host's directory goes with the host: the host needs \
                          ProcessManager::surviving";
            return Err(refused("not-kept", reason.to_owned()));
        }
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
        } = output::capture(&self.shared.printer, name, spec.config.output, &tail)
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
        let pulse = StartPulse::of(child.pid())
            .inspect_err(|error| tracing::debug!(target: "hyperactor::bootstrap", event = "host.pulse", proc = name, %error, "a child that is stopped at its start will not notice the end of its host before it goes on"))
            .ok();
        let with_memory = !self.launcher.bounds_memory();
        if let Err(error) = bounds::apply(child.pid(), &spec.config.limits, with_memory) {
            // Dropped, the child is killed.
            self.shared.forget(name);
            return Err(refused("limits", error.to_string()));
        }
        let (start, started) = oneshot::channel();
        let info = ProcInfo {
            proc_id: Arc::clone(&spec.proc_id),
            incarnation: spec.incarnation,
            addr: spec.backend.clone(),
            pid: Some(child.pid()),
        };
        let supervisor = Supervisor {
            info,
            child,
            control: Control::Open(control),
            stays,
            age: Duration::ZERO,
            outbox,
            own_outbox,
            wish: wishes,
            start: Some(start),
            tail: (spec.config.output != OutputPolicy::Inherited).then(|| tail.clone()),
            readers,
            shared: Arc::clone(&self.shared),
        };
        Ok(Started {
            process: ChildProcess::supervised(supervisor, tail),
            outcome: started,
            pulse,
        })
    }
}

/// Children run this program again, and must not go on as this one does.
fn require_boot() -> Result<(), ManagerError> {
    let in_child = startup::is_unbooted_child();
    if in_child || !startup::has_booted() {
        return Err(ManagerError::BootstrapMissing { in_child });
    }
    Ok(())
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

    fn survivors(
        &self,
        frontend: &ChannelAddr,
        backend: &ChannelAddr,
    ) -> Result<Vec<Survivor>, ProcSpawnError> {
        survivors::take_over(&self.shared, frontend, backend)
    }

    fn abandoned(&self) {
        self.shared.abandon();
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
            self.shared.close_reception();
            let mut left = self.shared.dir.proc_sockets().unwrap_or_default();
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
        self.shared.close_reception();
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

/// A process that was just started.
struct Started {
    process: ChildProcess,
    outcome: oneshot::Receiver<Start>,
    /// Kept until the outcome is known.
    pulse: Option<StartPulse>,
}

/// One child process.
struct ChildProcess {
    info: ProcInfo,
    outbox: Outbox,
    exited: watch::Receiver<Option<ProcExit>>,
    /// Set before the end is published.
    certificate: Arc<OnceLock<Arc<DeathCertificate>>>,
    tail: LogTail,
    /// Not kept by a handle: the directory goes with the last of those who work in it.
    shared: Weak<Shared>,
}

impl ChildProcess {
    /// Starts the task that owns a process, and returns the handle of it.
    fn supervised(supervisor: Supervisor, tail: LogTail) -> Self {
        let (exited, exit) = watch::channel(None);
        let certificate = Arc::new(OnceLock::new());
        let shared = Arc::clone(&supervisor.shared);
        let process = Self {
            info: supervisor.info.clone(),
            outbox: supervisor.own_outbox.clone(),
            exited: exit,
            certificate: Arc::clone(&certificate),
            tail,
            shared: Arc::downgrade(&shared),
        };
        shared.living.send_modify(|living| *living += 1);
        tokio::spawn(async move {
            let name = supervisor.info.proc_id.name().to_owned();
            match supervisor.run().await {
                Fate::Ended(ended) => {
                    let ended = Arc::new(*ended);
                    shared.leave(&name, &ended);
                    let exit = ended.exit;
                    certificate.get_or_init(|| ended);
                    exited.send_replace(Some(exit));
                }
                // Its end is another's to tell: whoever waits for it here sees that nobody does.
                Fate::LetGo => shared.forget(&name),
            }
            shared.living.send_modify(|living| *living -= 1);
        });
        process
    }
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
        let shared = self.shared.upgrade();
        if shared.is_some_and(|shared| shared.is_let_go(self.info.proc_id.name())) {
            return;
        }
        self.outbox.wish(End::Kill);
    }
}
