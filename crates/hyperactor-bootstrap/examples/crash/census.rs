//! What there is at one moment: processes by the mark in their environment, and everything else that a dead process can leave:
//! descriptors of this process, sockets, folders, shared memory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use hyperactor_testkit::{children_of, is_alive};

/// The variable that marks a process and all that it starts.
pub(crate) const MARK: &str = "CRASH_MARK";

/// The living processes with this mark, whoever their parent is by now.
pub(crate) fn marked(mark: &str) -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_marked(*pid, mark))
        .collect()
}

/// Whether a process lives and has this mark.
pub(crate) fn is_marked(pid: u32, mark: &str) -> bool {
    let wanted = format!("{MARK}={mark}");
    // Of the processes of other users, and of those that have ended, nothing can be read.
    let has_it = std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == wanted.as_bytes())
    });
    has_it && is_alive(pid)
}

/// The command line of a process, for a report.
pub(crate) fn named(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let words: Vec<_> = words.take(4).collect();
    format!("{pid} `{}`", words.join(" ").trim())
}

/// The parent of a process that lives.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

/// What a report says of a process that should have ended: which it is, and what it does instead.
pub(crate) fn described(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))
        .unwrap_or("gone");
    format!("{}, {}", named(pid), state.trim())
}

/// Reaps the processes that came to this one when their parents died, but those that others wait for.
pub(crate) fn reap_orphans(but: &BTreeSet<u32>) {
    for pid in children_of(std::process::id()) {
        if but.contains(&pid) {
            continue;
        }
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            match waitpid(Some(pid), WaitOptions::NOHANG) {
                // It was reaped, or it lives, or another lane was faster.
                Ok(_) | Err(Errno::CHILD) => {}
                Err(error) => eprintln!("process {pid} is not reaped: {error}"),
            }
        }
    }
}

/// What a dead process may leave behind that is no process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Things(BTreeSet<String>);

impl Things {
    /// Everything of this machine that may be ours: the descriptors of this process, shared memory of both kinds, and what
    /// lies in or is bound below `base`.
    pub(crate) fn look(base: &Path) -> Self {
        let mut things = BTreeSet::new();
        for entry in listing("/proc/self/fd") {
            // The descriptor that read the folder is closed by now.
            if let Ok(what) = std::fs::read_link(Path::new("/proc/self/fd").join(&entry)) {
                things.insert(format!("descriptor {entry} → {}", what.display()));
            }
        }
        things.extend(
            listing("/dev/shm")
                .into_iter()
                .map(|name| format!("/dev/shm/{name}")),
        );
        for kind in ["shm", "sem", "msg"] {
            let table =
                std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
            // The key and the number tell one from another; the rest changes with its use.
            things.extend(table.lines().skip(1).map(|line| {
                let fields: Vec<_> = line.split_whitespace().take(2).collect();
                format!("sysv {kind} {}", fields.join(" "))
            }));
        }
        things.extend(bound(&base.display().to_string()));
        walk(base, &mut things);
        Self(things)
    }

    pub(crate) fn beyond<'a>(&'a self, before: &Self) -> Vec<&'a str> {
        let new = self.0.iter().filter(|thing| !before.0.contains(*thing));
        new.map(String::as_str).collect()
    }
}

/// The Unix sockets, as the kernel lists them, whose name holds this.
pub(crate) fn bound(name: &str) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7));
    names
        .filter(|bound| bound.contains(name))
        .map(|bound| format!("socket {bound}"))
        .collect()
}

pub(crate) fn listing(folder: impl AsRef<Path>) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

fn walk(folder: &Path, things: &mut BTreeSet<String>) {
    for name in listing(folder) {
        let path: PathBuf = folder.join(name);
        things.insert(path.display().to_string());
        walk(&path, things);
    }
}
