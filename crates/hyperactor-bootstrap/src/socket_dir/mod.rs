//! The directory in which the procs of one host put their sockets: private, checked, swept and removed.
//!
//! Who listens on a socket and how it is reached is not decided here.

mod check;
mod error;
mod kept;
mod name;
mod record;
mod sweep;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hyperactor_mailbox::Handling;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::limits;
use check::{check_base, open_checked};
pub use error::SocketDirError;
pub use name::{SOCKET_NAME_BYTES, socket_name};
pub(crate) use record::{FoundRecord, Holder};

/// What every socket directory's name begins with; 16 random letters follow.
const DIR_PREFIX: &str = "hyperactor-";
/// How many random letters (of five bits) follow the prefix.
const DIR_RANDOM_LETTERS: usize = 16;
/// The file whose lock says that the directory's owner lives.
const LOCK_NAME: &str = "owner.lock";
/// The file whose lock says that a directory's owner lives, where the directory was chosen by its user.
const KEPT_LOCK_NAME: &str = "host.lock";
/// The socket by which children reach their host.
const BACKEND_NAME: &str = "backend.sock";
/// The socket at which procs that outlived their host find the next.
const ADOPT_NAME: &str = "adopt.sock";

/// Whose the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Made under a random name, for one host: everything in it is ours.
    Private,
    /// Chosen by a user, for one host after the other.
    Kept,
}

impl Kind {
    fn lock_name(self) -> &'static str {
        match self {
            Self::Private => LOCK_NAME,
            Self::Kept => KEPT_LOCK_NAME,
        }
    }

    /// Whether a file in the directory may be removed with it.
    fn is_ours(self, file: &str) -> bool {
        self == Self::Private
            || [KEPT_LOCK_NAME, BACKEND_NAME, ADOPT_NAME].contains(&file)
            || name::is_of_a_proc(file)
    }
}

/// A private directory for the sockets of one host and its procs.
///
/// # What it looks like
///
/// `$XDG_RUNTIME_DIR/hyperactor-XXXXXXXXXXXXXXXX/` (or the temporary directory, when that variable is not set or its
/// directory is no good), mode 0700, holding
///
/// * `owner.lock`, locked with `flock` by the process that made the directory for as long as it lives,
/// * `backend.sock`, where children reach their host,
/// * one [`socket_name`] for each proc, and for procs whose actors are busy for long a file of the same name that ends in
///   `.hand`: the messages that they have in hand, for the death certificate.
///
/// # What is checked
///
/// The directory must be a directory and no link, be owned by the user who runs the program, and be closed to
/// everybody else; what it lies in must not let others rename it. The longest path that will be needed is
/// checked against the kernel's limit of 107 bytes before anything is made.
///
/// # How it ends
///
/// The owner removes it with everything in it when the value is dropped (or by [`remove`](Self::remove)). Should
/// the owner be killed, its children remove it as they go; should those be killed as well, the next
/// [`create`](Self::create) by the same user finds a lock that nobody holds and sweeps the directory. Age plays no
/// part in that: a long-lived host is never swept away, a dead one at once.
#[derive(Debug)]
pub struct SocketDir {
    path: PathBuf,
    dir: OwnedFd,
    kind: Kind,
    /// Held locked by the owner; `None` in a process that only uses the directory.
    lock: Mutex<Option<OwnedFd>>,
    /// The record of the proc that this process is, held locked as long as it lives.
    record: Mutex<Option<OwnedFd>>,
}

impl SocketDir {
    /// Makes a new directory in the user's runtime directory, or else in the temporary directory.
    ///
    /// Directories whose owners have died are removed on the way (at most [`limits::SWEEP_DIRS_MAX`]).
    ///
    /// # Errors
    ///
    /// [`SocketDirError`], naming the path, the limit or the permission that is in the way. A bad runtime
    /// directory is not an error as long as the temporary directory will do: it is logged and passed over, as the XDG
    /// specification asks for.
    pub fn create() -> Result<Self, SocketDirError> {
        if let Some(base) = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
            match Self::create_in(&base) {
                Ok(dir) => return Ok(dir),
                Err(error) => tracing::warn!(
                    target: "hyperactor::bootstrap", code = error.code(), %error,
                    "XDG_RUNTIME_DIR cannot hold the sockets; the temporary directory is used"
                ),
            }
        }
        Self::create_in(std::env::temp_dir())
    }

    /// Makes a new directory inside `base`.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), without the second try in another place.
    pub fn create_in(base: impl AsRef<Path>) -> Result<Self, SocketDirError> {
        let base = base.as_ref();
        check_lengths(base)?;
        let base_fd = check_base(base)?;
        sweep::sweep(base, &base_fd);
        for _ in 0..limits::CREATE_ATTEMPTS_MAX {
            let name = random_name()?;
            let path = base.join(&name);
            match rustix::fs::mkdirat(&base_fd, &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(SocketDirError::io("make the directory", path)(errno)),
            }
            if let Some(made) = Self::claim(&base_fd, &name, path)? {
                return Ok(made);
            }
        }
        Err(SocketDirError::Contended {
            base: base.to_path_buf(),
            attempts: limits::CREATE_ATTEMPTS_MAX,
        })
    }

    /// Locks a directory just made. `None` when a sweeper took it for abandoned before it was locked.
    fn claim(base: &OwnedFd, name: &str, path: PathBuf) -> Result<Option<Self>, SocketDirError> {
        let dir = match open_checked(base, name, &path) {
            Ok(dir) => dir,
            Err(SocketDirError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = match rustix::fs::openat(&dir, LOCK_NAME, flags, Mode::RUSR | Mode::WUSR) {
            Ok(lock) => lock,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(SocketDirError::io("make", path.join(LOCK_NAME))(errno)),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            // A sweeper holds it, and will remove the directory.
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(SocketDirError::io("lock", path.join(LOCK_NAME))(errno)),
        }
        // Between the creation of the file and its lock a sweeper may have removed it: then it has no name left.
        let links = rustix::fs::fstat(&lock)
            .map_err(SocketDirError::io("inspect", path.join(LOCK_NAME)))?
            .st_nlink;
        Ok((links > 0).then_some(Self {
            path,
            dir,
            kind: Kind::Private,
            lock: Mutex::new(Some(lock)),
            record: Mutex::default(),
        }))
    }

    /// Opens the directory of another process, such as the host of this child, with the same checks. Dropping the
    /// value leaves the directory where it is.
    ///
    /// # Errors
    ///
    /// [`SocketDirError`] as for [`create`](Self::create).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SocketDirError> {
        Self::open_as(path.into(), Kind::Private)
    }

    fn open_as(path: PathBuf, kind: Kind) -> Result<Self, SocketDirError> {
        if !path.is_absolute() {
            return Err(SocketDirError::Relative { path });
        }
        let dir = open_checked(rustix::fs::CWD, &path, &path)?;
        Ok(Self {
            path,
            dir,
            kind,
            lock: Mutex::default(),
            record: Mutex::default(),
        })
    }

    /// Returns the directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where the proc called `name` has its socket: see [`socket_name`].
    #[must_use]
    pub fn socket_path(&self, name: &str) -> PathBuf {
        self.path.join(socket_name(name))
    }

    /// Returns where the proc called `name` writes down what its actors have in hand.
    pub(crate) fn hands_path(&self, name: &str) -> PathBuf {
        self.path.join(name::file_name(name, ".hand"))
    }

    /// Reads what the proc called `name` had in hand when it wrote that down last; nothing when it never did.
    pub(crate) fn hands(&self, name: &str) -> Vec<Handling> {
        use std::io::Read;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(file) = rustix::fs::openat(
            &self.dir,
            name::file_name(name, ".hand"),
            flags,
            Mode::empty(),
        ) else {
            return Vec::new();
        };
        let mut record = Vec::new();
        let mut file = std::fs::File::from(file).take(limits::HANDS_BYTES_MAX as u64);
        if let Err(error) = file.read_to_end(&mut record) {
            tracing::debug!(target: "hyperactor::bootstrap", proc = name, %error, "what an ended proc had in hand cannot be read");
        }
        // What does not decode was never written whole.
        postcard::take_from_bytes(&record).map_or_else(|_| Vec::new(), |(hands, _)| hands)
    }

    /// Returns where the host listens for its children.
    #[must_use]
    pub fn backend_path(&self) -> PathBuf {
        self.path.join(BACKEND_NAME)
    }

    /// Lists the names of the sockets in the directory, in no particular order.
    ///
    /// # Errors
    ///
    /// [`SocketDirError::Io`] when the directory cannot be read; a directory that is gone holds no sockets.
    pub fn sockets(&self) -> Result<Vec<String>, SocketDirError> {
        Ok(sweep::entries(&self.dir, &self.path)?
            .into_iter()
            .filter(|name| name.ends_with(".sock"))
            .collect())
    }

    /// Removes the socket of the proc called `name`, if it is still there, and what it wrote down beside it. Returns whether
    /// there was a socket.
    ///
    /// # Errors
    ///
    /// [`SocketDirError::Io`] when the kernel refuses.
    pub fn remove_socket(&self, name: &str) -> Result<bool, SocketDirError> {
        if !self.is_of_this_life(name) {
            return Ok(false);
        }
        let hands = self.remove_file(&name::file_name(name, ".hand"));
        let removed = self.remove_file(&socket_name(name))?;
        // Last: once it is gone, another life of the name may begin, with files of its own.
        self.remove_records(name)?;
        hands?;
        Ok(removed)
    }

    /// Lists the sockets of procs.
    pub(crate) fn proc_sockets(&self) -> Result<Vec<String>, SocketDirError> {
        let mut sockets = self.sockets()?;
        sockets.retain(|file| name::is_of_a_proc(file));
        Ok(sockets)
    }

    fn remove_file(&self, file: &str) -> Result<bool, SocketDirError> {
        match rustix::fs::unlinkat(&self.dir, file, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(SocketDirError::io("remove", self.path.join(file))(errno)),
        }
    }

    /// Removes the directory with everything in it, as dropping the value does, and says what went wrong. A second
    /// call does nothing.
    ///
    /// # Errors
    ///
    /// [`SocketDirError::Io`] when something could not be removed. In a process that did not make the directory
    /// this does nothing.
    pub fn remove(&self) -> Result<(), SocketDirError> {
        let Some(lock) = self.lock.lock().take() else {
            return Ok(());
        };
        sweep::remove_all(&self.path, &self.dir, self.kind)?;
        // Only now: as long as it is locked nobody else sweeps here.
        drop(lock);
        Ok(())
    }

    /// Takes this process's socket out of a directory whose owner died, and removes the directory when nobody
    /// else is in it. Blocks for at most half a second.
    pub(crate) fn leave(&self, name: &str) -> Result<(), SocketDirError> {
        let removed = self.remove_socket(name);
        sweep::remove_if_abandoned(&self.path, &self.dir, self.kind)?;
        removed.map(drop)
    }

    /// Takes this process's socket out of the directory of a host that is ending everything, and removes the directory
    /// when no other proc has a socket in it. The host, which may live or not by then, finds nothing left to do.
    pub(crate) fn leave_last(&self, name: &str) -> Result<(), SocketDirError> {
        let removed = self.remove_socket(name);
        if self.proc_sockets()?.is_empty() {
            sweep::remove_all(&self.path, &self.dir, self.kind)?;
        }
        removed.map(drop)
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        if self.kind == Kind::Kept && self.has_survivors() {
            // Somebody lives on in it, or nobody has been told yet who does not.
            return;
        }
        if let Err(error) = self.remove() {
            tracing::warn!(target: "hyperactor::bootstrap", code = error.code(), %error, "socket directory stays behind");
        }
    }
}

/// Refuses a place in which the longest path that will be needed does not fit.
fn check_lengths(base: &Path) -> Result<(), SocketDirError> {
    let longest = base
        .join(format!("{DIR_PREFIX}{}", "x".repeat(DIR_RANDOM_LETTERS)))
        .join("x".repeat(SOCKET_NAME_BYTES));
    let length = longest.as_os_str().len();
    if length > limits::SOCKET_PATH_BYTES_MAX {
        let limit = limits::SOCKET_PATH_BYTES_MAX;
        return Err(SocketDirError::PathTooLong {
            path: longest,
            length,
            limit,
        });
    }
    Ok(())
}

fn random_name() -> Result<String, SocketDirError> {
    let mut bits = [0u8; 16];
    getrandom::fill(&mut bits).map_err(|error| SocketDirError::Io {
        what: "draw a random name for a directory in",
        path: std::env::temp_dir(),
        source: std::io::Error::other(error.to_string()),
    })?;
    let letters = name::base32(u128::from_ne_bytes(bits));
    Ok(format!("{DIR_PREFIX}{}", &letters[..DIR_RANDOM_LETTERS]))
}

#[cfg(test)]
mod tests;
