//! What can go wrong when a process is started as a child or starts children.

use crate::socket_dir::SocketDirError;

/// Why a process that was started as a child cannot be one. The child reports it to its host, which hands it to
/// the caller of `spawn`; a child without a host prints it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The bootstrap call came after threads had been started.
    #[error(
        "the bootstrap call came when the process had {threads} threads: put #[hyperactor::main] on `main`, or \
         call hyperactor::boot as its first statement, before a runtime or a thread is started"
    )]
    TooLate {
        /// How many threads there were.
        threads: usize,
    },
    /// The instructions cannot be read.
    #[error("the instructions in HYPERACTOR_BOOTSTRAP cannot be used: {reason}")]
    Instructions {
        /// What is wrong with them.
        reason: String,
    },
    /// Descriptor 0 is not the stream that a host gives to its child.
    #[error(
        "HYPERACTOR_BOOTSTRAP is set but descriptor 0 is not a control stream: the variable is meant for \
         processes that a host starts and must not be set by hand"
    )]
    NoControlStream,
    /// The socket directory cannot be used.
    #[error(transparent)]
    SocketDir(#[from] SocketDirError),
    /// The proc's socket cannot be served.
    #[error("cannot serve the proc's socket: {reason}")]
    Serve {
        /// What the channel said.
        reason: String,
    },
    /// The proc cannot be made.
    #[error("cannot start the proc: {reason}")]
    Proc {
        /// What was in the way.
        reason: String,
    },
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl BootError {
    /// A short name for programs to compare, stable between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLate { .. } => "too_late",
            Self::Instructions { .. } => "instructions",
            Self::NoControlStream => "no_control_stream",
            Self::SocketDir(error) => error.code(),
            Self::Serve { .. } => "serve",
            Self::Proc { .. } => "proc",
            Self::Io { .. } => "io",
        }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }
}

/// Why a [`ProcessManager`](crate::ProcessManager) cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// The program did not make the bootstrap call, so that its children would run its `main` again, and start
    /// children of their own.
    #[error(
        "this {} did not make the bootstrap call, and a child would run `main` once more instead of its proc: put \
         #[hyperactor::main] on `main`, or call hyperactor::boot as its first statement",
        if *in_child { "child process" } else { "program" }
    )]
    BootstrapMissing {
        /// Whether this process is itself a child of a host.
        in_child: bool,
    },
    /// The socket directory cannot be made.
    #[error(transparent)]
    SocketDir(#[from] SocketDirError),
}

impl ManagerError {
    /// A short name for programs to compare, stable between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BootstrapMissing { .. } => "bootstrap_missing",
            Self::SocketDir(error) => error.code(),
        }
    }
}
