//! What a run left behind on this machine: child processes, and sockets and folders of its own.
//!
//! Looks at the system itself and not at the runtime's books, so that it can contradict them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// What was there before the run, and where the run puts its sockets.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    children_before: BTreeSet<Child>,
    folders: Vec<PathBuf>,
    abstract_names: Vec<String>,
}

/// A child process; the start time tells it from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Child {
    pid: u32,
    started: u64,
}

impl Leftovers {
    /// Notes the children that this process has before it starts any.
    pub(crate) fn before() -> Self {
        Self {
            children_before: children_of(std::process::id()),
            ..Self::default()
        }
    }

    /// A folder of sockets that has to be gone at the end.
    pub(crate) fn watch_folder(&mut self, folder: impl Into<PathBuf>) {
        self.folders.push(folder.into());
    }

    /// An abstract socket that has to be closed at the end; `name` without its leading `@`.
    pub(crate) fn watch_abstract(&mut self, name: &str) {
        self.abstract_names.push(name.to_owned());
    }

    /// Everything that is still there, in words.
    pub(crate) fn find(&self) -> Vec<String> {
        let children = children_of(std::process::id());
        let processes = children
            .difference(&self.children_before)
            .map(|child| format!("process {}", child.pid));
        let files = self.folders.iter().flat_map(|folder| files_in(folder));
        let sockets = self.open_abstract_sockets();
        processes.chain(files).chain(sockets).collect()
    }

    fn open_abstract_sockets(&self) -> Vec<String> {
        let listed = match self.abstract_names.is_empty() {
            true => String::new(),
            false => fs::read_to_string("/proc/net/unix").unwrap_or_default(),
        };
        let open: BTreeSet<&str> = listed
            .lines()
            .filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix('@'))
            .collect();
        self.abstract_names
            .iter()
            .filter(|name| open.contains(name.as_str()))
            .map(|name| format!("socket @{name}"))
            .collect()
    }
}

fn files_in(folder: &Path) -> Vec<String> {
    WalkDir::new(folder)
        .into_iter()
        .filter_map(Result::ok)
        .map(|entry| {
            let what = if entry.file_type().is_dir() {
                "folder"
            } else {
                "socket"
            };
            format!("{what} {}", entry.path().display())
        })
        .collect()
}

/// Also those that have ended and were not waited for: a zombie is left behind too.
fn children_of(parent: u32) -> BTreeSet<Child> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    processes
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (of, started) = parent_and_start(&stat)?;
            (of == parent).then_some(Child { pid, started })
        })
        .collect()
}

/// Fields 4 and 22 of a line of `/proc/PID/stat` (proc_pid_stat(5)). The name in field 2 may hold anything, so the
/// fields are counted from its closing bracket.
fn parent_and_start(stat: &str) -> Option<(u32, u64)> {
    let behind = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = behind.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, started))
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_left_behind_until_it_was_waited_for() {
        let before = Leftovers::before();
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let expected = format!("process {}", child.id());
        assert!(before.find().contains(&expected));
        assert!(!Leftovers::before().find().contains(&expected));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!before.find().contains(&expected));
    }

    #[test]
    fn sockets_and_their_folder_are_left_behind_until_removed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("a.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let mut leftovers = Leftovers::default();
        leftovers.watch_folder(folder.path());
        let found = files_in(folder.path());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].starts_with("socket "), "{found:?}");
        let path = folder.path().to_path_buf();
        folder.close().unwrap();
        assert!(files_in(&path).is_empty());
    }

    #[test]
    fn an_abstract_socket_is_left_behind_while_it_listens() {
        let name = format!("hyperactor-leftovers-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&addr).unwrap();
        let mut leftovers = Leftovers::default();
        leftovers.watch_abstract(&name);
        assert_eq!(
            leftovers.open_abstract_sockets(),
            [format!("socket @{name}")]
        );
        drop(listener);
        assert!(leftovers.open_abstract_sockets().is_empty());
    }

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let stat = "12 (a) b) S 34 1 1 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 5678 0 0";
        assert_eq!(parent_and_start(stat), Some((34, 5678)));
        assert_eq!(parent_and_start("12 (cut off"), None);
        assert_eq!(parent_and_start(""), None);
    }
}
