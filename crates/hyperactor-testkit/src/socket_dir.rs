//! A private folder for a test's sockets, with a path so short that every socket name fits.
//!
//! A folder is locked for as long as its process lives, so that the next test can tell what a killed one left behind and
//! remove it, whatever its age.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::hash;
use crate::limits::{SOCKET_DIR_BYTES, SOCKET_PATH_BYTES};

/// How often another name is tried when one is taken.
const ATTEMPTS: u32 = 16;

/// How many folders of dead processes one new folder sweeps away at most.
const SWEEP_MAX: usize = 256;

/// What every folder's name begins with; 16 hexadecimal digits follow.
const PREFIX: &str = "ha-";
const DIGITS: usize = 16;

/// A folder of mode 0700 in the temporary folder, removed with all that is in it when dropped.
///
/// What a process that was killed left there is removed when the next folder is made.
#[derive(Debug)]
pub struct TempSocketDir {
    path: PathBuf,
    /// Locked while this process lives: nobody else sweeps the folder.
    _lock: File,
}

impl TempSocketDir {
    /// Makes a new folder.
    ///
    /// It stands in the system's temporary folder, or in `/tmp` when that is too long a path.
    ///
    /// # Errors
    ///
    /// What the system says when the folder cannot be made, with the path.
    pub fn new() -> io::Result<Self> {
        let name_room = 1 + PREFIX.len() + DIGITS;
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() + name_room > SOCKET_DIR_BYTES {
            base = PathBuf::from("/tmp");
        }
        sweep(&base);
        let mut attempt = 0;
        loop {
            let path = base.join(format!("{PREFIX}{:016x}", hash::random()));
            let made = DirBuilder::new().mode(0o700).create(&path);
            match made.and_then(|()| claim(&path)) {
                Ok(Some(lock)) => return Ok(Self { path, _lock: lock }),
                Ok(None) if attempt < ATTEMPTS => attempt += 1,
                Ok(None) => {
                    return Err(io::Error::other(format!(
                        "{ATTEMPTS} folders under {} were taken for abandoned and swept",
                        base.display()
                    )));
                }
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("cannot make {}: {error}", path.display()),
                    ));
                }
            }
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a socket in it.
    ///
    /// # Panics
    ///
    /// When the path would be too long for the kernel, or leaves the folder.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        assert!(
            !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..",
            "`{name}` is no name of a socket in a folder"
        );
        let path = self.path.join(name);
        let length = path.as_os_str().as_bytes().len();
        assert!(
            length <= SOCKET_PATH_BYTES,
            "{} has {length} bytes, a socket's path at most {SOCKET_PATH_BYTES}",
            path.display()
        );
        path
    }

    /// The address of a socket in it as text: `unix:` and the path.
    ///
    /// # Panics
    ///
    /// As [`socket`](Self::socket).
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        format!("unix:{}", self.socket(name).display())
    }
}

/// Locks a folder just made. `None` when a sweeper was faster, and removes it or has done so.
fn claim(path: &Path) -> io::Result<Option<File>> {
    let Some(lock) = try_lock(path)? else {
        return Ok(None);
    };
    // The sweeper may have had the lock before us: then the name leads nowhere, or elsewhere, by now.
    let here = match path.symlink_metadata() {
        Ok(here) => here,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let own = lock.metadata()?;
    Ok(((own.dev(), own.ino()) == (here.dev(), here.ino())).then_some(lock))
}

/// Opens and locks a folder; `None` when somebody else has the lock, or the folder is gone.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let folder = match File::open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the folders of this kind whose processes are dead. What cannot be removed is left to the next sweep: it must
/// keep no test from running.
fn sweep(base: &Path) {
    let (Ok(entries), Ok(own)) = (base.read_dir(), Path::new("/proc/self").metadata()) else {
        return;
    };
    let folders = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        digits.is_some_and(|digits| {
            digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        })
    });
    for folder in folders.take(SWEEP_MAX) {
        let is_ours = folder
            .metadata()
            .is_ok_and(|folder| folder.is_dir() && folder.uid() == own.uid());
        if is_ours
            && let Ok(Some(_lock)) = try_lock(&folder.path())
            && let Err(error) = std::fs::remove_dir_all(folder.path())
        {
            eprintln!("cannot sweep {}: {error}", folder.path().display());
        }
    }
}

impl Drop for TempSocketDir {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            // The test may have removed it itself: some tests are about that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => eprintln!("cannot remove {}: {error}", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_folder_is_private_short_and_gone_afterwards() {
        let folder = TempSocketDir::new().unwrap();
        let path = folder.path().to_owned();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(path.as_os_str().len() <= SOCKET_DIR_BYTES);
        let listener = UnixListener::bind(folder.socket(&"s".repeat(60))).unwrap();
        drop(folder);
        assert!(!path.exists());
        drop(listener);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_a_living_one_has_is_not() {
        let living = TempSocketDir::new().unwrap();
        let dead = living
            .path()
            .with_file_name(format!("{PREFIX}{:016x}", hash::random()));
        DirBuilder::new().mode(0o700).create(&dead).unwrap();
        drop(UnixListener::bind(dead.join("s")).unwrap());
        let stranger = dead.with_file_name(format!("{PREFIX}stranger-{:x}", hash::random()));
        std::fs::create_dir(&stranger).unwrap();
        let next = TempSocketDir::new().unwrap();
        assert!(!dead.exists(), "{} is still there", dead.display());
        assert!(living.path().exists() && next.path().exists());
        assert!(stranger.exists(), "no folder of this kind, and removed");
        std::fs::remove_dir(&stranger).unwrap();
    }

    #[test]
    fn two_folders_differ() {
        let (one, other) = (TempSocketDir::new().unwrap(), TempSocketDir::new().unwrap());
        assert_ne!(one.path(), other.path());
        assert!(one.address("a").starts_with("unix:/"));
    }

    #[test]
    #[should_panic(expected = "at most 107")]
    fn a_name_that_is_too_long_is_refused() {
        let _ = TempSocketDir::new().unwrap().socket(&"s".repeat(100));
    }

    #[test]
    #[should_panic(expected = "is no name")]
    fn a_name_that_leaves_the_folder_is_refused() {
        let _ = TempSocketDir::new().unwrap().socket("../out");
    }

    #[test]
    fn a_folder_removed_by_the_test_is_no_fault() {
        let folder = TempSocketDir::new().unwrap();
        std::fs::remove_dir(folder.path()).unwrap();
    }
}
