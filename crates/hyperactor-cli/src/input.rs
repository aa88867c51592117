//! From the paths of the command line to the list of documents to count.
//!
//! Decides what is left out and why; reads no more of a file than is needed to see that it is text.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use walkdir::{DirEntry, WalkDir};

use crate::failure::Failure;
use crate::{embedded, limits};

/// One text to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// A file, as it was when it was found.
    File {
        path: PathBuf,
        bytes: u64,
        modified: Option<SystemTime>,
    },
    /// A text of [`embedded`].
    Embedded(usize),
}

/// What a run counts.
#[derive(Debug)]
pub(crate) struct Input {
    /// Where the documents come from, for people.
    pub(crate) origin: String,
    pub(crate) documents: Vec<Document>,
    pub(crate) skipped: Skipped,
}

/// How many things in the given folders were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Hidden files and folders, and folders named `target`; a folder counts once.
    pub(crate) hidden: u64,
    /// Links, sockets, devices: neither files nor folders.
    pub(crate) special: u64,
    /// Files with a zero byte, or without a gap between words for too long.
    pub(crate) binary: u64,
    /// Files and folders that may not be read.
    pub(crate) unreadable: u64,
}

impl Input {
    /// Finds the documents below `paths`; without any, those of the repository around the current folder,
    /// or the embedded ones.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] names the path that is missing, unreadable, not text, or holds no text.
    pub(crate) fn find(paths: &[PathBuf]) -> Result<Self, Failure> {
        if !paths.is_empty() {
            let origin = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", ");
            return Self::walk(paths, origin);
        }
        let here = std::env::current_dir().unwrap_or_default();
        match repository_around(&here) {
            Some(root) => Self::walk(&[root], "the text of this repository".to_owned()),
            None => Ok(Self::built_in()),
        }
    }

    fn built_in() -> Self {
        Self {
            origin: "the text built into this program".to_owned(),
            documents: (0..embedded::DOCUMENTS.len())
                .map(Document::Embedded)
                .collect(),
            skipped: Skipped::default(),
        }
    }

    fn walk(paths: &[PathBuf], origin: String) -> Result<Self, Failure> {
        let mut walk = Walk::default();
        for path in paths {
            walk.root(path)?;
        }
        let input = Self {
            origin,
            documents: walk.documents,
            skipped: walk.skipped,
        };
        input.require_text()?;
        Ok(input)
    }

    /// Refuses an input without any document.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] tells where was looked and what was skipped.
    pub(crate) fn require_text(&self) -> Result<(), Failure> {
        if !self.documents.is_empty() {
            return Ok(());
        }
        Err(Failure::Input(format!(
            "input {}: no text found there (skipped: {}); give a file or a folder with text",
            self.origin, self.skipped
        )))
    }

    /// The first document that is no longer as it was found, if any: a count of it proves nothing.
    pub(crate) fn changed(&self) -> Option<&Path> {
        self.documents
            .iter()
            .find_map(|document| document.changed())
    }
}

impl Document {
    fn changed(&self) -> Option<&Path> {
        let Self::File {
            path,
            bytes,
            modified,
        } = self
        else {
            return None;
        };
        let is_same = fs::metadata(path)
            .is_ok_and(|now| now.len() == *bytes && now.modified().ok() == *modified);
        (!is_same).then_some(path)
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.hidden, "hidden"),
            (self.special, "special"),
            (self.binary, "not text"),
            (self.unreadable, "unreadable"),
        ];
        let mut is_first = true;
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            let separator = if is_first { "" } else { ", " };
            write!(f, "{separator}{count} {what}")?;
            is_first = false;
        }
        if is_first {
            f.write_str("nothing")
        } else {
            Ok(())
        }
    }
}

/// The folder at or above `start` that holds the source of this program, if `start` lies in a checkout.
fn repository_around(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .find(|folder| folder.join("crates/hyperactor-cli/Cargo.toml").is_file())
        .map(Path::to_path_buf)
}

#[derive(Default)]
struct Walk {
    documents: Vec<Document>,
    skipped: Skipped,
    /// A file that is given twice, or by two names, is counted once.
    known: BTreeSet<PathBuf>,
}

impl Walk {
    fn root(&mut self, root: &Path) -> Result<(), Failure> {
        let metadata = fs::metadata(root).map_err(|error| unusable(root, &error))?;
        let root = &fs::canonicalize(root).map_err(|error| unusable(root, &error))?;
        if metadata.is_file() {
            return self.named_file(root, &metadata);
        }
        if !metadata.is_dir() {
            return Err(Failure::input(root, "neither a file nor a folder"));
        }
        // A root that cannot be listed is an error of the command line, unlike a folder somewhere below.
        fs::read_dir(root).map_err(|error| unusable(root, &error))?;
        let mut entries = WalkDir::new(root).sort_by_file_name().into_iter();
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else {
                self.skipped.unreadable += 1;
                continue;
            };
            if entry.depth() > 0 && is_left_out(&entry) {
                self.skipped.hidden += 1;
                if entry.file_type().is_dir() {
                    entries.skip_current_dir();
                }
                continue;
            }
            self.entry(&entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry) -> Result<(), Failure> {
        if entry.file_type().is_dir() {
            return Ok(());
        }
        if !entry.file_type().is_file() {
            self.skipped.special += 1;
            return Ok(());
        }
        let looked_at = entry
            .metadata()
            .map_err(io::Error::from)
            .and_then(|metadata| Ok((is_text(entry.path())?, metadata)));
        match looked_at {
            Ok((true, metadata)) => return self.add(entry.path(), &metadata),
            Ok((false, _)) => self.skipped.binary += 1,
            Err(_) => self.skipped.unreadable += 1,
        }
        Ok(())
    }

    fn named_file(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Failure> {
        match is_text(path) {
            Ok(true) => self.add(path, metadata),
            Ok(false) => Err(Failure::input(path, "not a text: it holds a zero byte")),
            Err(error) => Err(unusable(path, &error)),
        }
    }

    fn add(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Failure> {
        if self.documents.len() == limits::FILES_MAX {
            return Err(Failure::input(
                path,
                format_args!(
                    "more than {} files; give fewer or smaller folders",
                    limits::FILES_MAX
                ),
            ));
        }
        if self.known.insert(path.to_path_buf()) {
            self.documents.push(Document::File {
                path: path.to_path_buf(),
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
            });
        }
        Ok(())
    }
}

fn is_left_out(entry: &DirEntry) -> bool {
    let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
    is_hidden || (entry.file_type().is_dir() && entry.file_name() == "target")
}

fn is_text(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?
        .take(limits::BINARY_PROBE_BYTES as u64)
        .read_to_end(&mut start)?;
    Ok(!start.contains(&0))
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::input(
            path,
            "no such file or folder; give one that exists, or leave --input out",
        ),
        io::ErrorKind::PermissionDenied => {
            Failure::input(path, "may not be read by this user; check its permissions")
        }
        _ => Failure::input(path, error),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn names(input: &Input) -> Vec<String> {
        input
            .documents
            .iter()
            .map(|document| match document {
                Document::File { path, .. } => {
                    path.file_name().unwrap().to_string_lossy().into_owned()
                }
                Document::Embedded(index) => embedded::DOCUMENTS[*index].0.to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_folder_is_walked_without_hidden_things_targets_links_and_binaries() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        for name in ["src", "target/debug", ".git", "src/target"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in [
            "b.txt",
            "src/a.rs",
            "target/debug/x.txt",
            ".git/config",
            ".env",
            "src/target/y.txt",
        ] {
            fs::write(at(name), "text").unwrap();
        }
        fs::write(at("image.png"), b"\x89PNG\0\0").unwrap();
        symlink(at("b.txt"), at("link")).unwrap();
        let input = Input::find(&[folder.path().to_path_buf()]).unwrap();
        assert_eq!(names(&input), ["b.txt", "a.rs"]);
        let expected = Skipped {
            hidden: 4,
            special: 1,
            binary: 1,
            unreadable: 0,
        };
        assert_eq!(input.skipped, expected);
        assert_eq!(expected.to_string(), "4 hidden, 1 special, 1 not text");
    }

    #[test]
    fn a_hidden_or_target_folder_that_is_named_is_walked() {
        let folder = folder();
        let target = folder.path().join("target");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("a.txt"), "text").unwrap();
        assert_eq!(names(&Input::find(&[target]).unwrap()), ["a.txt"]);
    }

    #[test]
    fn a_file_given_twice_is_counted_once() {
        let folder = folder();
        let file = folder.path().join("a.txt");
        fs::write(&file, "text").unwrap();
        let input = Input::find(&[file.clone(), folder.path().to_path_buf(), file]).unwrap();
        assert_eq!(names(&input), ["a.txt"]);
    }

    #[test]
    fn a_missing_path_is_named_and_ends_with_status_two() {
        let folder = folder();
        let missing = folder.path().join("nothing here");
        let failure = Input::find(std::slice::from_ref(&missing)).unwrap_err();
        assert!(matches!(failure, Failure::Input(_)));
        let text = failure.text();
        assert!(text.contains(missing.to_str().unwrap()), "{text}");
        assert!(text.contains("no such file or folder"), "{text}");
    }

    #[test]
    fn a_folder_without_text_and_a_binary_file_are_errors() {
        let folder = folder();
        let empty = Input::find(&[folder.path().to_path_buf()]).unwrap_err();
        assert!(empty.text().contains("no text found"), "{}", empty.text());
        let binary = folder.path().join("core");
        fs::write(&binary, [0_u8; 16]).unwrap();
        let failure = Input::find(std::slice::from_ref(&binary)).unwrap_err();
        assert!(failure.text().contains("zero byte"), "{}", failure.text());
        let device = Input::find(&[PathBuf::from("/dev/null")]).unwrap_err();
        assert!(device.text().contains("neither"), "{}", device.text());
    }

    #[test]
    fn names_that_are_not_utf8_are_found() {
        let folder = folder();
        let name = folder.path().join(OsStr::from_bytes(b"b\xffd.txt"));
        fs::write(&name, "text").unwrap();
        let input = Input::find(&[folder.path().to_path_buf()]).unwrap();
        assert!(
            matches!(&input.documents[..], [Document::File { path, .. }] if path.ends_with(name.file_name().unwrap()))
        );
    }

    #[test]
    fn a_file_that_changes_during_the_run_is_noticed() {
        let folder = folder();
        let file = folder.path().join("a.txt");
        fs::write(&file, "text").unwrap();
        let input = Input::find(std::slice::from_ref(&file)).unwrap();
        assert_eq!(input.changed(), None);
        fs::write(&file, "more text").unwrap();
        assert!(input.changed().is_some());
        fs::remove_file(&file).unwrap();
        assert!(input.changed().is_some());
    }

    #[test]
    fn the_repository_is_found_from_any_folder_inside_and_from_none_outside() {
        let inside = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert!(repository_around(&inside).is_some());
        assert_eq!(repository_around(folder().path()), None);
        assert!(Input::built_in().documents.len() > 5);
    }
}
