//! The border to whatever makes procs real: [`ProcManager`] makes one, [`ProcHandle`] watches and ends it. The manager for
//! procs in this process is in `local`; the one for operating-system processes is in another crate.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_mailbox::{BoxFuture, DeathCertificate, ProcExit};
use hyperactor_refs::{BindSpec, ChannelAddr};
use tokio::sync::watch;

use crate::logs::ProcLogs;
use crate::spec::{End, ProcInfo, ProcSpec};

/// Makes procs real.
///
/// A host owns one manager and drops it last; dropping a manager ends all of its procs by force.
pub trait ProcManager: Send + Sync + 'static {
    /// Where the host is to listen for the procs of this manager.
    fn backend(&self) -> BindSpec;

    /// Makes a proc and returns when it can be reached: its socket is served and its agent runs.
    ///
    /// Calls may overlap; a slow one delays no other.
    ///
    /// # Errors
    /// [`ProcSpawnError`]; nothing of the proc is left then.
    ///
    /// # Cancel safety
    /// Dropping the future ends the proc that was being made.
    ///
    /// # Bounds
    /// Ends within a deadline of the manager's own.
    fn spawn(&self, spec: ProcSpec) -> BoxFuture<'_, Result<Box<dyn ProcHandle>, ProcSpawnError>>;

    /// Notes that the host begins to end: its procs are asked to end next, and no others are made. A manager uses this to
    /// have its procs tidy up for a host that may not live long enough to do it. Does nothing by default.
    fn closing(&self) {}

    /// The procs that an earlier life of this host made and did not end: those that live on and those that have ended since.
    /// Called once, when both addresses of the host are served, and before it makes any proc. None by default.
    ///
    /// # Errors
    /// [`ProcSpawnError`] when such a proc lives and cannot belong to a host at these addresses. The host does not start then,
    /// and the proc lives on.
    fn survivors(
        &self,
        frontend: &ChannelAddr,
        backend: &ChannelAddr,
    ) -> Result<Vec<Survivor>, ProcSpawnError> {
        let _unused = (frontend, backend);
        Ok(Vec::new())
    }

    /// Notes that the host goes without having been stopped: it was dropped, perhaps by a panic. Procs that are to outlive
    /// their host are left alone from here on, when their handles are dropped as well. Does nothing by default.
    fn abandoned(&self) {}

    /// Removes what belongs to no single proc. Called once, after the last proc has ended. Returns what could not
    /// be removed, in words.
    fn shutdown(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// One proc that a manager made. Dropping the handle ends the proc by force.
pub trait ProcHandle: Send + Sync + 'static {
    /// What is known about the proc.
    fn info(&self) -> &ProcInfo;

    /// Ends the proc and returns when it has ended. Calls may overlap: the most forceful one counts.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing back: the proc ends all the same.
    ///
    /// # Bounds
    /// A drain ends within its deadline and a margin of the manager's own.
    fn end(&self, how: End) -> BoxFuture<'_, ProcExit>;

    /// Tells when the proc has ended, and how. The value is `None` until then.
    fn exited(&self) -> watch::Receiver<Option<ProcExit>>;

    /// How the proc ended and why, as far as the manager knows more than [`exited`](Self::exited) tells. Asked for after
    /// the end. Nothing by default.
    fn certificate(&self) -> Option<Arc<DeathCertificate>> {
        None
    }

    /// The last lines that the proc's process wrote, also after its end. None by default.
    fn logs(&self) -> ProcLogs {
        ProcLogs::default()
    }
}

/// A proc that outlived the host that made it.
pub struct Survivor {
    /// What was decided about it when it was made.
    pub spec: ProcSpec,
    /// Watches and ends it from now on. A proc that ended while it had no host has ended in this handle already.
    pub handle: Box<dyn ProcHandle>,
    /// Resolves when the proc listens to its new host: `false` when it ended before.
    pub back: BoxFuture<'static, bool>,
}

impl std::fmt::Debug for Survivor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survivor")
            .field("info", self.handle.info())
            .finish_non_exhaustive()
    }
}

/// Why a manager could not make a proc.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcSpawnError {
    /// The process could not be started at all.
    #[error("cannot start {program}: {source}")]
    Start {
        /// What was to be started.
        program: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The process ended before it reported ready.
    #[error("the process of proc `{name}` {exit} before it was ready; {hint}")]
    ExitedBeforeReady {
        /// The proc's name.
        name: String,
        /// How the process ended.
        exit: ProcExit,
        /// What to look at next.
        hint: String,
    },
    /// The process ran, and never reported ready.
    #[error(
        "the process of proc `{name}` did not report ready within {} ms and was ended; does its main call \
         hyperactor::boot first?", waited.as_millis()
    )]
    NeverReady {
        /// The proc's name.
        name: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The proc said itself why it cannot start.
    #[error("proc `{name}` cannot start: {reason}")]
    Refused {
        /// The proc's name.
        name: String,
        /// A stable code of the reason.
        code: String,
        /// The reason in words.
        reason: String,
    },
    /// The proc's address could not be served.
    #[error("cannot serve proc `{name}`: {reason}")]
    Serve {
        /// The proc's name.
        name: String,
        /// What the channel said.
        reason: String,
    },
    /// The manager is shutting down.
    #[error("the host is stopping: proc `{name}` was not started")]
    Stopping {
        /// The proc's name.
        name: String,
    },
}

impl ProcSpawnError {
    /// A short name for programs to compare, stable between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::ExitedBeforeReady { .. } => "exited-before-ready",
            Self::NeverReady { .. } => "never-ready",
            Self::Refused { .. } => "refused",
            Self::Serve { .. } => "serve",
            Self::Stopping { .. } => "stopping",
        }
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            // Too many processes or descriptors for the moment.
            Self::Start { source, .. } => source.kind() == std::io::ErrorKind::WouldBlock,
            Self::NeverReady { .. } => true,
            _ => false,
        }
    }
}
