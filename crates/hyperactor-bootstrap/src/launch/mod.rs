//! The border to whatever starts a process: [`Launcher`], and the plain way, [`ForkExec`]. A launcher only starts; what the
//! process inherits is prepared before, and watching, bounding and ending it is the manager's.

mod systemd;

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hyperactor_host::ProcLimits;

pub use systemd::SystemdScope;

/// Starts the process of a proc.
///
/// The process that it returns must be a direct child of this one, must become the program that was ordered (by `exec`, not
/// by starting it as a child of its own), and must keep descriptor 0: the proc's lifeline. Nobody else may wait for it.
///
/// ```
/// use std::process::Child;
///
/// use hyperactor_bootstrap::{LaunchOrder, Launcher};
///
/// /// Starts every proc with a lower priority.
/// struct Nice;
///
/// impl Launcher for Nice {
///     fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
///         let program = order.program();
///         let mut command = order.into_command("nice");
///         command.args(["-n", "5"]).arg(program);
///         command.spawn()
///     }
/// }
/// ```
pub trait Launcher: Send + Sync + 'static {
    /// Starts the process. Called on a runtime's thread: it may take as long as a `fork` and an `exec`.
    ///
    /// # Errors
    /// What the operating system says.
    fn launch(&self, order: LaunchOrder) -> std::io::Result<Child>;

    /// Whether [`ProcLimits::memory`] is seen to here. If not, the manager bounds the process's address space.
    fn bounds_memory(&self) -> bool {
        false
    }
}

/// Everything about a process that is decided before it starts.
#[derive(Debug)]
pub struct LaunchOrder {
    pub(crate) name: String,
    pub(crate) program: Program,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) limits: ProcLimits,
    pub(crate) control: OwnedFd,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl LaunchOrder {
    /// The name of the proc.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program that is to run, by a path that any process of this user can open while this process lives.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        match &self.program {
            Program::Own => format!("/proc/{}/exe", std::process::id()).into(),
            Program::At(path) => path.clone(),
        }
    }

    /// What the process may use.
    #[must_use]
    pub fn limits(&self) -> &ProcLimits {
        &self.limits
    }

    /// Turns the order into the command that runs `program`, with the environment, the descriptors and the process group
    /// that the proc needs. Arguments are for the launcher to add: the proc takes none.
    #[must_use]
    pub fn into_command(self, program: impl AsRef<OsStr>) -> Command {
        let output = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::inherit, Stdio::from);
        let mut command = Command::new(program);
        command
            .envs(self.environment)
            .stdin(Stdio::from(self.control))
            .stdout(output(self.stdout))
            .stderr(output(self.stderr))
            // A Ctrl-C at the terminal is the host's to handle.
            .process_group(0);
        command
    }
}

/// What the process of a proc runs.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// What this process runs. Not by the path that it was started by: that may have been replaced by a newer build
    /// since, and children of another build would be strangers.
    Own,
    /// Another.
    At(PathBuf),
}

impl Program {
    /// Its path for a process that is a copy of this one. It leads there even when this process has died meanwhile: then
    /// the child still comes to its first statement, finds that its host is gone, and tidies up.
    fn path_after_fork(&self) -> &Path {
        match self {
            Self::Own => Path::new("/proc/self/exe"),
            Self::At(path) => path,
        }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path_after_fork().display().fmt(f)
    }
}

/// Starts processes plainly, by `fork` and `exec`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForkExec;

impl Launcher for ForkExec {
    fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
        let title = format!("hyperactor proc {}", order.name.escape_debug());
        let program = order.program.clone();
        let mut command = order.into_command(program.path_after_fork());
        // What `ps` shows.
        command.arg0(title);
        command.spawn()
    }
}
