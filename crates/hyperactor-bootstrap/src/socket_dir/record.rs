//! The records of procs in a directory that hosts share: a file each, beside the proc's socket, which the proc writes before
//! it serves that and holds locked for as long as it lives. Whether it lives, and which process it is, is asked of the kernel's
//! lock; whether it outlives its host, of the file's ending. What a record says is in `crate::record`.
//!
//! The lock is one of `fcntl`: the kernel tells whose it is, no process inherits it, and asking takes nothing. It goes when the
//! process that holds it closes any descriptor of the file, so a proc opens its record once.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, Pid, PidfdFlags};

use super::{SocketDir, SocketDirError, name, sweep};
use crate::limits;

/// The record of a proc that outlives its host.
const STAYS: &str = ".proc";
/// The record of a proc that ends when its host is gone.
const GOES: &str = ".bye";
/// A record that is being written.
const UNFINISHED: &str = ".new";

/// The record of a proc that outlives its host, as another host finds it.
#[derive(Debug)]
pub(crate) struct FoundRecord {
    /// The file's name.
    pub(crate) file: String,
    /// What it says.
    pub(crate) text: String,
    pub(crate) holder: Holder,
}

/// Who holds a record.
#[derive(Debug)]
pub(crate) enum Holder {
    /// The proc has ended.
    Nobody,
    /// The proc is this process.
    Process { pid: u32, pidfd: OwnedFd },
    /// The proc lives where its process cannot be reached from here: in another namespace of process numbers.
    OutOfSight,
}

/// For a proc.
impl SocketDir {
    /// Writes the record of the proc called `name`, which this process is, and holds it from here on. It is complete and locked
    /// from the moment it can be found; it says that the proc ends when its host is gone.
    pub(crate) fn enter_record(&self, proc: &str, text: &str) -> Result<(), SocketDirError> {
        let unfinished = name::file_name(proc, UNFINISHED);
        let io = |what| SocketDirError::io(what, self.path.join(&unfinished));
        let flags =
            OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, &unfinished, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io("make"))?;
        let mut file = std::fs::File::from(file);
        file.write_all(text.as_bytes())
            .map_err(|source| SocketDirError::Io {
                what: "write",
                path: self.path.join(&unfinished),
                source,
            })?;
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(io("lock"))?;
        let record = name::file_name(proc, GOES);
        rustix::fs::renameat(&self.dir, &unfinished, &self.dir, &record).map_err(io("rename"))?;
        *self.record.lock() = Some(file.into());
        Ok(())
    }

    /// Says whether the proc called `name`, which this process is, outlives its host from here on.
    pub(crate) fn outlives_host(&self, proc: &str, outlives: bool) -> Result<(), SocketDirError> {
        let (from, to) = if outlives {
            (GOES, STAYS)
        } else {
            (STAYS, GOES)
        };
        let (from, to) = (name::file_name(proc, from), name::file_name(proc, to));
        match rustix::fs::renameat(&self.dir, &from, &self.dir, &to) {
            // It says so already, or there is none.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(SocketDirError::io("rename", self.path.join(from))(errno)),
        }
    }
}

impl SocketDir {
    /// Whether what the proc called `name` has here is this process's to remove. In a directory that hosts share it may be of
    /// another life of the name.
    pub(super) fn is_of_this_life(&self, proc: &str) -> bool {
        if !self.is_kept() || self.lock.lock().is_some() {
            return true;
        }
        let record = self.record.lock();
        let Some(ours) = record
            .as_ref()
            .and_then(|ours| rustix::fs::fstat(ours).ok())
        else {
            return false;
        };
        [STAYS, GOES].into_iter().any(|ending| {
            let file = name::file_name(proc, ending);
            rustix::fs::statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|there| there.st_ino == ours.st_ino)
        })
    }

    pub(super) fn remove_records(&self, proc: &str) -> Result<(), SocketDirError> {
        for ending in [STAYS, GOES] {
            self.remove_file(&name::file_name(proc, ending))?;
        }
        Ok(())
    }

    /// Whether there are records of procs that outlive their host: they live, or nobody has been told yet that they do not.
    pub(super) fn has_survivors(&self) -> bool {
        sweep::entries(&self.dir, &self.path)
            .is_ok_and(|files| files.iter().any(|file| is_record(file, STAYS)))
    }
}

/// For a host.
impl SocketDir {
    /// Reads the records of procs that outlive their host. What others left that have ended is removed.
    pub(crate) fn survivors(&self) -> Result<Vec<FoundRecord>, SocketDirError> {
        let mut found = Vec::new();
        for file in sweep::entries(&self.dir, &self.path)? {
            let io = |errno| SocketDirError::io("read", self.path.join(&file))(errno);
            if is_record(&file, UNFINISHED) {
                self.remove_file(&file)?;
            } else if is_record(&file, STAYS) {
                if let Some((text, holder)) = self.read_record(&file).map_err(io)? {
                    found.push(FoundRecord { file, text, holder });
                }
            } else if is_record(&file, GOES)
                && let Some((_, Holder::Nobody)) = self.read_record(&file).map_err(io)?
            {
                self.remove_left_of(&file)?;
            }
        }
        Ok(found)
    }

    /// Who holds the record of the proc called `name`, if there is one.
    pub(crate) fn holder_of(&self, proc: &str) -> Result<Holder, SocketDirError> {
        for ending in [STAYS, GOES] {
            let file = name::file_name(proc, ending);
            let io = SocketDirError::io("read", self.path.join(&file));
            if let Some((_, holder)) = self.read_record(&file).map_err(io)? {
                return Ok(holder);
            }
        }
        Ok(Holder::Nobody)
    }

    /// Removes a record and what else its proc left, by the name of the record's file. For a proc that has ended.
    pub(crate) fn remove_left_of(&self, record: &str) -> Result<(), SocketDirError> {
        let letters = record.split('.').next().unwrap_or(record);
        for ending in [".hand", ".sock", GOES, STAYS] {
            self.remove_file(&format!("{letters}{ending}"))?;
        }
        Ok(())
    }

    /// `None`: its proc ended in order just now.
    fn read_record(&self, file: &str) -> Result<Option<(String, Holder)>, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.dir, file, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let mut bytes = Vec::new();
        (&file)
            .take(limits::RECORD_BYTES_MAX as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Some((text, holder(&file)?)))
    }
}

fn is_record(file: &str, ending: &str) -> bool {
    name::is_of_a_proc(file) && file.ends_with(ending)
}

/// Finds out who holds a record.
fn holder(file: &std::fs::File) -> Result<Holder, Errno> {
    let ask = || rustix::process::fcntl_getlk(file, &Flock::from(FlockType::WriteLock));
    let Some(lock) = ask()? else {
        return Ok(Holder::Nobody);
    };
    let Some(pid) = lock.pid else {
        return Ok(Holder::OutOfSight);
    };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(Holder::Nobody),
        Err(errno) => return Err(errno),
    };
    // The lock was that process's before the descriptor was made. If it still is, the number meant the same process all along.
    match ask()?.and_then(|lock| lock.pid) {
        Some(still) if still == pid => Ok(Holder::Process {
            pid: number_of(pid),
            pidfd,
        }),
        _ => Ok(Holder::Nobody),
    }
}

fn number_of(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
