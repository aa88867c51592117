//! What can be wrong with a socket directory.

use std::path::PathBuf;

/// Why a socket directory cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketDirError {
    /// The paths of the sockets would be longer than the kernel takes.
    #[error(
        "a socket path under {} would be {length} bytes long and the kernel takes at most {limit}: \
         set XDG_RUNTIME_DIR or TMPDIR to a shorter directory", path.display()
    )]
    PathTooLong {
        /// The longest path that would be needed.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// What the kernel takes, in bytes.
        limit: usize,
    },
    /// The directory belongs to another user.
    #[error("{} belongs to user {owner}, not to user {expected} who runs this program: refusing to use it", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who should.
        expected: u32,
    },
    /// Others may read, write or search the directory.
    #[error("{} has mode {mode:04o}, so that others can {harm}: it must be {expected}", path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What others could do with it.
        harm: &'static str,
        /// What would be accepted, in words.
        expected: &'static str,
    },
    /// The path is a symbolic link or not a directory.
    #[error("{} is not a plain directory (symbolic links are not followed here)", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The path is not absolute, so that it would mean another place in another process.
    #[error("{} is not an absolute path: a socket directory is shared between processes", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// Another host, which lives, has the directory.
    #[error("{} is in use by another host that is running: end that one first, or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// No free name was found, or other processes removed each attempt.
    #[error("no socket directory could be made under {} in {attempts} attempts", base.display())]
    Contended {
        /// Where it was tried.
        base: PathBuf,
        /// How often.
        attempts: usize,
    },
    /// A file system call failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl SocketDirError {
    /// A short name for programs to compare, stable between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PathTooLong { .. } => "path_too_long",
            Self::NotOurs { .. } => "not_ours",
            Self::Exposed { .. } => "exposed",
            Self::NotADirectory { .. } => "not_a_directory",
            Self::Relative { .. } => "relative_path",
            Self::InUse { .. } => "in_use",
            Self::Contended { .. } => "contended",
            Self::Io { .. } => "io",
        }
    }

    /// Whether the same call may succeed later without anybody mending something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Contended { .. })
    }

    pub(super) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Io {
            what,
            path,
            source: errno.into(),
        }
    }
}
