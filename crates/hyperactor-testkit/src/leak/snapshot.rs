//! What the process has at one moment, read from `/proc`.
//!
//! Only names and numbers are read, never contents.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, WaitOptions, waitpid};

use super::{Leaks, beyond};

/// What a runtime names the threads of its pool. Whoever takes a snapshot within a runtime does not own
/// them: the runtime starts and ends them as it sees fit.
const POOL_THREAD: &str = "tokio-rt-worker";

/// How deep a watched folder is read: deeper means a loop of mounts.
const MAX_DEPTH: usize = 32;

#[derive(Debug)]
pub(super) struct Snapshot {
    /// Descriptor → what it stands for, such as `socket:[123]` or a path.
    files: BTreeMap<u32, String>,
    /// Thread → its name.
    threads: BTreeMap<u32, String>,
    /// Child → its name.
    children: BTreeMap<u32, String>,
    /// Children that are dead and not reaped.
    zombies: BTreeMap<u32, String>,
    /// Path below a watched folder → nothing more.
    paths: BTreeMap<PathBuf, ()>,
    /// Living tasks of the runtime that the caller is in.
    tasks: Option<usize>,
}

impl Snapshot {
    pub(super) fn take(folders: &[PathBuf]) -> Self {
        let runtime = tokio::runtime::Handle::try_current().ok();
        let (children, zombies) = children();
        let mut paths = BTreeMap::new();
        for folder in folders {
            walk(folder, MAX_DEPTH, &mut paths);
        }
        Self {
            files: open_files(),
            threads: threads(runtime.is_some()),
            children,
            zombies,
            paths,
            tasks: runtime.map(|runtime| runtime.metrics().num_alive_tasks()),
        }
    }

    /// Reaps the dead children that the earlier snapshot did not have. Whether there were any.
    pub(super) fn reap_zombies_beyond(&self, before: &Self) -> bool {
        let new = self
            .zombies
            .keys()
            .filter(|pid| !before.zombies.contains_key(pid));
        let mut reaped = false;
        for pid in new.filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // Somebody else may have reaped it since: then it is gone just the same.
            reaped |= waitpid(Some(pid), WaitOptions::NOHANG).is_ok_and(|found| found.is_some());
        }
        reaped
    }

    /// What this snapshot has and the earlier one has not.
    pub(super) fn beyond(&self, before: &Self) -> Leaks {
        let mut things = beyond(&self.files, &before.files, |number, what| {
            format!("open file {number} → {}", named(what))
        });
        things.extend(beyond(&self.threads, &before.threads, |thread, name| {
            format!("thread {thread} `{name}`")
        }));
        things.extend(beyond(&self.children, &before.children, |pid, name| {
            format!("child process {pid} `{name}`")
        }));
        things.extend(beyond(&self.zombies, &before.zombies, |pid, name| {
            format!("zombie process {pid} `{name}`")
        }));
        things.extend(beyond(&self.paths, &before.paths, |path, ()| {
            format!("file {}", path.display())
        }));
        if let (Some(after), Some(before)) = (self.tasks, before.tasks)
            && after > before
        {
            let count = after - before;
            let plural = if count == 1 { "" } else { "s" };
            things.push(format!("{count} task{plural} of the runtime"));
        }
        Leaks { things }
    }
}

/// The entries of a folder of `/proc` that are numbers.
fn numbers(folder: &str) -> Vec<u32> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => panic!("a leak guard needs {folder}: {error}"),
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn open_files() -> BTreeMap<u32, String> {
    numbers("/proc/self/fd")
        .into_iter()
        // The descriptor that read the folder is closed by now: its link cannot be read.
        .filter_map(|number| {
            let what = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            Some((number, what.to_string_lossy().into_owned()))
        })
        .collect()
}

fn threads(in_runtime: bool) -> BTreeMap<u32, String> {
    numbers("/proc/self/task")
        .into_iter()
        .filter_map(|thread| {
            let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok()?;
            Some((thread, name.trim_end().to_owned()))
        })
        .filter(|(_, name)| !in_runtime || name != POOL_THREAD)
        .collect()
}

/// The living and the dead children of this process.
fn children() -> (BTreeMap<u32, String>, BTreeMap<u32, String>) {
    let own = std::process::id();
    let (mut living, mut dead) = (BTreeMap::new(), BTreeMap::new());
    for pid in numbers("/proc") {
        // A process may end while we look.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some((name, state, parent)) = parse_stat(&stat)
            && parent == own
        {
            let table = if state == 'Z' { &mut dead } else { &mut living };
            table.insert(pid, name.to_owned());
        }
    }
    (living, dead)
}

/// Name, state and parent of `12 (a name) S 1 …`. The name may hold spaces and brackets.
fn parse_stat(stat: &str) -> Option<(&str, char, u32)> {
    let (head, tail) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some((name, state, parent))
}

/// A Unix socket with its address, where the kernel's table has one; anything else as it is.
fn named(what: &str) -> String {
    let inode = what
        .strip_prefix("socket:[")
        .and_then(|rest| rest.strip_suffix(']'));
    inode
        .and_then(|inode| {
            let table = fs::read_to_string("/proc/self/net/unix").ok()?;
            unix_name(&table, inode).map(|name| format!("{what} unix {name}"))
        })
        .unwrap_or_else(|| what.to_owned())
}

/// The eighth column of the line whose seventh is this inode.
fn unix_name<'a>(table: &'a str, inode: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        (columns.nth(6)? == inode).then(|| columns.next()).flatten()
    })
}

fn walk(folder: &Path, depth: usize, paths: &mut BTreeMap<PathBuf, ()>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A folder that is not there has nothing in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => panic!("a leak guard watches {}: {error}", folder.display()),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, depth - 1, paths);
        }
        paths.insert(path, ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_line_with_an_odd_name_is_read() {
        assert_eq!(parse_stat("7 (sh) S 1 7 7"), Some(("sh", 'S', 1)));
        assert_eq!(parse_stat("7 (a) Z (b) Z 42 7"), Some(("a) Z (b", 'Z', 42)));
        assert_eq!(parse_stat("7 sh S"), None);
    }

    #[test]
    fn a_socket_is_found_in_the_kernels_table() {
        let table = "Num RefCount Protocol Flags Type St Inode Path\n\
                     0: 2 0 10000 1 01 123 /run/s\n\
                     0: 2 0 10000 1 01 124\n";
        assert_eq!(unix_name(table, "123"), Some("/run/s"));
        assert_eq!(unix_name(table, "124"), None);
        assert_eq!(unix_name(table, "12"), None);
    }
}
