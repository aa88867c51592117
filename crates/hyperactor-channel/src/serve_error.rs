//! Why an address cannot be served: [`ServeError`], naming the address or path and the limit that was met.

use std::io;
use std::path::PathBuf;

use hyperactor_refs::ChannelAddr;

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The path does not fit into a socket address of the kernel.
    #[error("the socket path {path} has {bytes} bytes, the kernel takes at most {max}; use a shorter directory", path = path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Someone serves this address already.
    #[error("{addr} is in use by a live server; choose another address or stop that server")]
    AddrInUse {
        /// The address.
        addr: ChannelAddr,
    },
    /// The directory of the socket path is not there.
    #[error("the directory {dir} of the socket {path} does not exist; create it first", dir = dir.display(), path = path.display())]
    DirectoryMissing {
        /// The directory.
        dir: PathBuf,
        /// The socket path.
        path: PathBuf,
    },
    /// The directory of the socket path belongs to someone else and is not a shared one with the sticky bit.
    #[error("the directory {dir} of the socket {path} belongs to uid {owner} and not to {uid}; use a directory of your own", dir = dir.display(), path = path.display())]
    DirectoryNotOurs {
        /// The directory.
        dir: PathBuf,
        /// The socket path.
        path: PathBuf,
        /// Who owns the directory.
        owner: u32,
        /// Who this process runs as.
        uid: u32,
    },
    /// Something stands at the socket path that may not be replaced: not a socket, or not ours.
    #[error("{path} is already there and cannot be replaced: {what}", path = path.display())]
    PathOccupied {
        /// The path.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
    /// Plain TCP beyond the loopback interface was not asked for by name.
    #[error(
        "{addr} is reachable beyond this machine and plain TCP protects nothing; bind loopback, or set danger_plaintext_beyond_loopback"
    )]
    PlaintextBeyondLoopback {
        /// The address asked for.
        addr: String,
    },
    /// This build does not speak the transport.
    #[error("{addr}: the transport {transport} is not supported yet by this build")]
    Unsupported {
        /// The address asked for.
        addr: String,
        /// The transport.
        transport: &'static str,
    },
    /// The address names a host instead of an address of this machine.
    #[error("{addr} is a name; bind an IP address of this machine")]
    NotAnAddress {
        /// The address asked for.
        addr: String,
    },
    /// The call was made outside a tokio runtime.
    #[error("serving {addr} needs a tokio runtime; call it inside one")]
    NoRuntime {
        /// The address asked for.
        addr: String,
    },
    /// The system refused to bind.
    #[error("cannot bind {addr}: {error}")]
    Bind {
        /// The address asked for.
        addr: String,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl ServeError {
    /// A stable code of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PathTooLong { .. } => "path_too_long",
            Self::AddrInUse { .. } => "addr_in_use",
            Self::DirectoryMissing { .. } => "directory_missing",
            Self::DirectoryNotOurs { .. } => "directory_not_ours",
            Self::PathOccupied { .. } => "path_occupied",
            Self::PlaintextBeyondLoopback { .. } => "plaintext_beyond_loopback",
            Self::Unsupported { .. } => "unsupported",
            Self::NotAnAddress { .. } => "not_an_address",
            Self::NoRuntime { .. } => "no_runtime",
            Self::Bind { .. } => "bind",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::AddrInUse { .. } | Self::DirectoryMissing { .. } | Self::Bind { .. }
        )
    }
}
