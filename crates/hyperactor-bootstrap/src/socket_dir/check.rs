//! Whether a directory is private enough to hold sockets. Nothing is changed here.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::SocketDirError;

const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const GROUP_OR_OTHER_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Opens the place that the directory will lie in. Others may write there only if it is sticky (as `/tmp` is):
/// otherwise they could rename what is ours and put their own in its place.
pub(super) fn check_base(base: &Path) -> Result<OwnedFd, SocketDirError> {
    if !base.is_absolute() {
        return Err(SocketDirError::Relative {
            path: base.to_path_buf(),
        });
    }
    let fd = rustix::fs::open(base, OPEN_DIR, Mode::empty()).map_err(|errno| match errno {
        Errno::NOTDIR => SocketDirError::NotADirectory {
            path: base.to_path_buf(),
        },
        errno => SocketDirError::io("open", base)(errno),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(SocketDirError::io("inspect", base))?;
    let ours = rustix::process::geteuid().as_raw();
    if stat.st_uid != ours && stat.st_uid != 0 {
        return Err(SocketDirError::NotOurs {
            path: base.to_path_buf(),
            owner: stat.st_uid,
            expected: ours,
        });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & GROUP_OR_OTHER_WRITE != 0 && mode & STICKY == 0 {
        return Err(SocketDirError::Exposed {
            path: base.to_path_buf(),
            mode,
            harm: "rename what lies in it",
            expected: "closed to writing by others, or sticky as /tmp is",
        });
    }
    Ok(fd)
}

/// Opens a socket directory itself: no link, ours, closed to everybody else.
pub(super) fn open_checked(
    at: impl AsFd,
    name: impl Arg,
    path: &Path,
) -> Result<OwnedFd, SocketDirError> {
    let fd = rustix::fs::openat(at, name, OPEN_DIR | OFlags::NOFOLLOW, Mode::empty()).map_err(
        |errno| match errno {
            // A link gives one or the other, depending on where it leads.
            Errno::LOOP | Errno::NOTDIR => SocketDirError::NotADirectory {
                path: path.to_path_buf(),
            },
            errno => SocketDirError::io("open", path)(errno),
        },
    )?;
    let stat = rustix::fs::fstat(&fd).map_err(SocketDirError::io("inspect", path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(SocketDirError::NotADirectory {
            path: path.to_path_buf(),
        });
    }
    let ours = rustix::process::geteuid().as_raw();
    if stat.st_uid != ours {
        return Err(SocketDirError::NotOurs {
            path: path.to_path_buf(),
            owner: stat.st_uid,
            expected: ours,
        });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SocketDirError::Exposed {
            path: path.to_path_buf(),
            mode,
            harm: "reach the sockets in it",
            expected: "0700",
        });
    }
    Ok(fd)
}
