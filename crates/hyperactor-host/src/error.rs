//! What can go wrong between a caller and a host.

use hyperactor_channel::ServeError;
use hyperactor_refs::{ChannelAddr, NameError};
use hyperactor_router::BookFull;

use crate::limits;
use crate::manager::ProcSpawnError;

/// Why a host did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The address at which the world would reach the host cannot be served.
    #[error("the host's frontend: {0}")]
    Frontend(#[source] ServeError),
    /// More frontends were asked for than a host may have.
    #[error("the host was to have {asked} frontends, and {max} is the limit")]
    TooManyFrontends {
        /// How many were asked for.
        asked: usize,
        /// The limit.
        max: usize,
    },
    /// The address at which the host's own procs would reach it cannot be served.
    #[error("the host's backend: {0}")]
    Backend(#[source] ServeError),
    /// The host cannot stand behind another.
    #[error("the host cannot stand behind the one at {addr}: {reason}")]
    Behind {
        /// Where the other was looked for.
        addr: ChannelAddr,
        /// A short name of the reason: `unreachable`, `itself`, `circle`, `address-taken`, or another of the other host's.
        code: String,
        /// The reason in words.
        reason: String,
    },
    /// The name cannot be that of a proc.
    #[error("no proc can have this name: {0}")]
    Name(#[from] NameError),
    /// The name is that of the host's own proc, or could be a guest's.
    #[error("`{name}` is kept for the host's own proc or for a guest: choose another name")]
    Reserved {
        /// The name.
        name: String,
    },
    /// A proc of this name runs, or is being started, for the first time or again.
    #[error(
        "a proc called `{name}` is running on this host or about to be started: end it or give it up first, or choose \
         another name"
    )]
    NameInUse {
        /// The name.
        name: String,
    },
    /// The host has as many procs as it may have.
    #[error("the host has {max} procs, which is its limit: end some first")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The host was told to stop.
    #[error("the host is stopping and starts no more procs")]
    Stopping,
    /// The manager could not make the proc.
    #[error(transparent)]
    Spawn(#[from] ProcSpawnError),
    /// The router has no place for another address.
    #[error(transparent)]
    Router(#[from] BookFull),
    /// The host's own actor could not be started.
    #[error("cannot start the host's agent: {reason}")]
    Agent {
        /// What its proc said.
        reason: String,
    },
    /// The system's source of randomness failed.
    #[error("cannot draw a random number for a proc's incarnation: {reason}")]
    Random {
        /// What the system said.
        reason: String,
    },
}

impl HostError {
    /// A short name for programs to compare, stable between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Frontend(_) => "frontend",
            Self::TooManyFrontends { .. } => "too-many-frontends",
            Self::Backend(_) => "backend",
            Self::Behind { .. } => "behind",
            Self::Name(_) => "name",
            Self::Reserved { .. } => "reserved",
            Self::NameInUse { .. } => "name-in-use",
            Self::TooMany { .. } => "too-many",
            Self::Stopping => "stopping",
            Self::Spawn(error) => error.code(),
            Self::Router(_) => "router-full",
            Self::Agent { .. } => "agent",
            Self::Random { .. } => "random",
        }
    }

    /// Whether the same call may succeed a little later without anybody mending something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NameInUse { .. } | Self::TooMany { .. } | Self::Router(_) => true,
            Self::Spawn(error) => error.is_retryable(),
            _ => false,
        }
    }

    pub(crate) fn too_many() -> Self {
        Self::TooMany {
            max: limits::PROCS_MAX,
        }
    }
}
