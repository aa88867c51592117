//! A directory that its user chose, and that one host after the other uses: so that procs which outlive their host are found
//! again by the next. Which of them live, and who they are, is in `record`.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::check::{check_base, open_checked};
use super::sweep::{LEAVE_ATTEMPTS, LEAVE_PAUSE};
use super::{ADOPT_NAME, KEPT_LOCK_NAME, Kind, SOCKET_NAME_BYTES, SocketDir, SocketDirError};
use crate::limits;

impl SocketDir {
    /// Takes the directory at `path` for a host, making it if it is not there. Only one living host has it.
    ///
    /// Blocks for at most half a second, while a proc that leaves looks whether it was the last.
    pub(crate) fn keep(path: impl Into<PathBuf>) -> Result<Self, SocketDirError> {
        let path = path.into();
        let (base, name) = check_place(&path)?;
        for _ in 0..limits::CREATE_ATTEMPTS_MAX {
            match rustix::fs::mkdirat(&base, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(SocketDirError::io("make the directory", &path)(errno)),
            }
            if let Some((dir, lock)) = claim(&base, name, &path)? {
                return Ok(Self {
                    path,
                    dir,
                    kind: Kind::Kept,
                    lock: Mutex::new(Some(lock)),
                    record: Mutex::default(),
                });
            }
        }
        Err(SocketDirError::Contended {
            base: path,
            attempts: limits::CREATE_ATTEMPTS_MAX,
        })
    }

    /// As [`open`](Self::open), for a proc of a host that has the directory by [`keep`](Self::keep).
    pub(crate) fn open_kept(path: impl Into<PathBuf>) -> Result<Self, SocketDirError> {
        Self::open_as(path.into(), Kind::Kept)
    }

    /// Whether the directory was chosen by its user.
    pub(crate) fn is_kept(&self) -> bool {
        self.kind == Kind::Kept
    }

    /// Where procs that outlived their host find the next.
    pub(crate) fn adopt_path(&self) -> PathBuf {
        self.path.join(ADOPT_NAME)
    }

    /// Lets another host have the directory, and leaves everything in it.
    pub(crate) fn release(&self) {
        drop(self.lock.lock().take());
    }
}

/// Looks at the place before anything is made there. Returns the directory that it lies in.
fn check_place(path: &Path) -> Result<(OwnedFd, &OsStr), SocketDirError> {
    let path_buf = || path.to_path_buf();
    if !path.is_absolute() {
        return Err(SocketDirError::Relative { path: path_buf() });
    }
    let longest = path.join("x".repeat(SOCKET_NAME_BYTES));
    let length = longest.as_os_str().len();
    if length > limits::SOCKET_PATH_BYTES_MAX {
        let limit = limits::SOCKET_PATH_BYTES_MAX;
        return Err(SocketDirError::PathTooLong {
            path: longest,
            length,
            limit,
        });
    }
    // No parent: the root, or a path that ends by going up.
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((check_base(parent)?, name)),
        _ => Err(SocketDirError::NotADirectory { path: path_buf() }),
    }
}

/// Locks the directory. `None` when whoever left last removed it meanwhile.
fn claim(
    base: &OwnedFd,
    name: &OsStr,
    path: &Path,
) -> Result<Option<(OwnedFd, OwnedFd)>, SocketDirError> {
    let dir = match open_checked(base, name, path) {
        Ok(dir) => dir,
        Err(SocketDirError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let file = path.join(KEPT_LOCK_NAME);
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match rustix::fs::openat(&dir, KEPT_LOCK_NAME, flags, Mode::RUSR | Mode::WUSR) {
        Ok(lock) => lock,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(SocketDirError::io("make", file)(errno)),
    };
    for attempt in 0.. {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            // A proc that leaves holds it for a moment, and so does a child of a dead host between fork and exec.
            Err(Errno::WOULDBLOCK) if attempt < LEAVE_ATTEMPTS => std::thread::sleep(LEAVE_PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let path = path.to_path_buf();
                return Err(SocketDirError::InUse { path });
            }
            Err(errno) => return Err(SocketDirError::io("lock", file)(errno)),
        }
    }
    // Whoever had it before may have removed it, with the directory: then it has no name left.
    let links = rustix::fs::fstat(&lock)
        .map_err(SocketDirError::io("inspect", file))?
        .st_nlink;
    Ok((links > 0).then_some((dir, lock)))
}
