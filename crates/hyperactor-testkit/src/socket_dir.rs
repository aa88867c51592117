//! A private folder for a test's sockets, with a path so short that every socket name fits.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::hash;
use crate::limits::{SOCKET_DIR_BYTES, SOCKET_PATH_BYTES};

/// How often another name is tried when one is taken.
const ATTEMPTS: u32 = 16;

/// A folder of mode 0700 in the temporary folder, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct TempSocketDir {
    path: PathBuf,
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
        let name_room = 1 + "ha-0123456789abcdef".len();
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() + name_room > SOCKET_DIR_BYTES {
            base = PathBuf::from("/tmp");
        }
        let mut attempt = 0;
        loop {
            let path = base.join(format!("ha-{:016x}", hash::random()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
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
