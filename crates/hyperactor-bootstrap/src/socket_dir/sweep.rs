//! Removing what dead processes left: abandoned directories, stale sockets. Whether an owner lives is asked of
//! its lock, whether a socket lives is asked of the kernel; nothing is judged by its age.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::check::open_checked;
use super::{DIR_PREFIX, DIR_RANDOM_LETTERS, Kind, SocketDirError, name};
use crate::limits;

/// How often, and how far apart, the lock of an abandoned directory is tried: siblings that end at the same
/// moment hold it for the time of a few system calls each.
pub(super) const LEAVE_ATTEMPTS: u32 = 100;
pub(super) const LEAVE_PAUSE: Duration = Duration::from_millis(5);

/// Removes the directories under `base` that are this user's and whose owner is dead. What cannot be removed is
/// logged and left: it must not keep a new host from starting.
pub(super) fn sweep(base: &Path, base_fd: &OwnedFd) {
    let names = match entries(base_fd, base) {
        Ok(names) => names,
        // A directory that may be searched and written but not listed cannot be swept.
        Err(error) => {
            tracing::debug!(target: "hyperactor::bootstrap", %error, "cannot look for abandoned socket directories");
            return;
        }
    };
    let ours = names.iter().filter(|name| is_dir_name(name));
    for name in ours.take(limits::SWEEP_DIRS_MAX) {
        let path = base.join(name);
        match sweep_one(base_fd, name, &path) {
            Ok(true) => {
                tracing::info!(target: "hyperactor::bootstrap", path = %path.display(), "removed the socket directory of a dead host");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(target: "hyperactor::bootstrap", code = error.code(), %error, "abandoned socket directory not removed");
            }
        }
    }
}

/// Whether a name in the base directory is one that [`SocketDir::create_in`](super::SocketDir::create_in) gives.
fn is_dir_name(name: &str) -> bool {
    name.strip_prefix(DIR_PREFIX)
        .is_some_and(|rest| rest.len() == DIR_RANDOM_LETTERS && name::is_base32(rest.as_bytes()))
}

fn sweep_one(base: &OwnedFd, name: &str, path: &Path) -> Result<bool, SocketDirError> {
    // Another user's directory fails the check here and is left alone.
    let dir = open_checked(base, name, path)?;
    // A directory that somebody chose has another lock: it has none of this name, is not empty, and stays.
    match lock_if_abandoned(&dir, path, Kind::Private)? {
        Owner::Alive => Ok(false),
        Owner::Dead(lock) => {
            remove_all(path, &dir, Kind::Private)?;
            drop(lock);
            Ok(true)
        }
        // Made a moment ago, or its owner died between two system calls. An empty directory may be removed
        // either way: its maker notices and makes another.
        Owner::NoLock => match rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::NOENT) => Ok(false),
            Err(errno) => Err(SocketDirError::io("remove", path)(errno)),
        },
    }
}

enum Owner {
    Alive,
    /// The lock is ours now, and with it the right to remove.
    Dead(OwnedFd),
    NoLock,
}

fn lock_if_abandoned(dir: &OwnedFd, path: &Path, kind: Kind) -> Result<Owner, SocketDirError> {
    let name = kind.lock_name();
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(lock) => lock,
        Err(Errno::NOENT) => return Ok(Owner::NoLock),
        Err(errno) => return Err(SocketDirError::io("open", path.join(name))(errno)),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Owner::Dead(lock)),
        Err(Errno::WOULDBLOCK) => Ok(Owner::Alive),
        Err(errno) => Err(SocketDirError::io("lock", path.join(name))(errno)),
    }
}

/// Called by a child that outlives its host, after it has removed its own socket: removes stale sockets and, when
/// nobody lives here any more, the directory. The last child to leave finds it empty.
pub(super) fn remove_if_abandoned(
    path: &Path,
    dir: &OwnedFd,
    kind: Kind,
) -> Result<(), SocketDirError> {
    for _ in 0..LEAVE_ATTEMPTS {
        match lock_if_abandoned(dir, path, kind)? {
            Owner::NoLock => return remove_dir(path, kind),
            Owner::Dead(lock) => {
                let left = remove_stale(path, dir, kind)?;
                if left == 0 {
                    remove_all(path, dir, kind)?;
                }
                drop(lock);
                return Ok(());
            }
            Owner::Alive => std::thread::sleep(LEAVE_PAUSE),
        }
    }
    Ok(())
}

/// Removes the sockets that refuse a connection. Returns how many answer: what else lies there keeps nobody.
fn remove_stale(path: &Path, dir: &OwnedFd, kind: Kind) -> Result<usize, SocketDirError> {
    let mut left = 0;
    for name in entries(dir, path)? {
        if name == kind.lock_name() || !kind.is_ours(&name) {
            continue;
        }
        match look_at(dir, &name, &path.join(&name)) {
            Ok(Socket::Stale) => unlink(dir, &name, path)?,
            Ok(Socket::Alive) => left += 1,
            Ok(Socket::None) => {}
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(SocketDirError::io("inspect", path.join(name))(errno)),
        }
    }
    Ok(left)
}

/// Removes everything in the directory that is ours, the lock's name last, and the directory.
pub(super) fn remove_all(path: &Path, dir: &OwnedFd, kind: Kind) -> Result<(), SocketDirError> {
    for name in entries(dir, path)? {
        if name != kind.lock_name() && kind.is_ours(&name) {
            unlink(dir, &name, path)?;
        }
    }
    unlink(dir, kind.lock_name(), path)?;
    remove_dir(path, kind)
}

fn remove_dir(path: &Path, kind: Kind) -> Result<(), SocketDirError> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // What is left is its user's, or of a host that was just made there; so is the directory.
        Err(Errno::NOTEMPTY | Errno::EXIST) if kind == Kind::Kept => Ok(()),
        Err(errno) => Err(SocketDirError::io("remove", path)(errno)),
    }
}

fn unlink(dir: &OwnedFd, name: &str, path: &Path) -> Result<(), SocketDirError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(SocketDirError::io("remove", path.join(name))(errno)),
    }
}

/// Lists a directory's entries but `.` and `..`. Names that are not UTF-8 are none of ours and are skipped.
pub(super) fn entries(dir: impl AsFd, path: &Path) -> Result<Vec<String>, SocketDirError> {
    let mut names = Vec::new();
    let listing = match Dir::read_from(dir) {
        Ok(listing) => listing,
        // The directory was removed while it was open.
        Err(Errno::NOENT) => return Ok(names),
        Err(errno) => return Err(SocketDirError::io("list", path)(errno)),
    };
    for entry in listing.take(limits::SWEEP_ENTRIES_MAX) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(SocketDirError::io("list", path)(errno)),
        };
        let name = entry.file_name().to_str().unwrap_or_default();
        if !matches!(name, "" | "." | "..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// What a name in the directory stands for.
enum Socket {
    /// Somebody listens.
    Alive,
    /// Nobody listens any more.
    Stale,
    /// It is no socket.
    None,
}

/// Looks whether somebody listens on `name`. A connection is tried without waiting; a listener whose queue is full counts as
/// living.
fn look_at(dir: &OwnedFd, name: &str, path: &Path) -> Result<Socket, Errno> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Ok(Socket::None);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(Socket::Alive),
        Err(Errno::CONNREFUSED) => Ok(Socket::Stale),
        Err(errno) => Err(errno),
    }
}
