//! Whether a child ended for lack of memory. The kernel counts such ends in each group of processes (cgroup); a SIGKILL that
//! nobody here sent, with a count that has risen, was one of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hyperactor_host::{OutOfMemory, ProcExit};
use parking_lot::Mutex;

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// How Rust's standard library begins its line about an allocation that failed.
const ALLOCATION_FAILED: &str = "memory allocation of ";

/// Where the file system of the groups is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The counts of the groups in which children live. Each end is accounted to one child, so that the death of one does not
/// explain that of another.
#[derive(Debug, Default)]
pub(super) struct MemoryWatch {
    accounted: Mutex<HashMap<PathBuf, u64>>,
}

/// The file with the count of a child's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counter(PathBuf);

/// What is known of a child's end without the kernel's count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Death<'a> {
    pub(super) exit: ProcExit,
    /// Whether SIGKILL was sent from here.
    pub(super) killed_here: bool,
    /// The last lines of its standard error; `None` where that is not captured.
    pub(super) last_words: Option<&'a [String]>,
}

impl MemoryWatch {
    /// Begins to count for a child, or goes on: called again when the child may have been put into another group.
    pub(super) fn begin(&self, pid: u32) -> Option<Counter> {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let (path, count) = candidates(&groups)
            .into_iter()
            .find_map(|path| read_count(&path).map(|count| (path, count)))?;
        self.accounted.lock().entry(path.clone()).or_insert(count);
        Some(Counter(path))
    }

    /// Says whether a child ended for lack of memory.
    pub(super) fn verdict(&self, counter: Option<&Counter>, death: Death<'_>) -> OutOfMemory {
        match death.exit {
            ProcExit::Signalled(SIGKILL) if death.killed_here => OutOfMemory::No,
            ProcExit::Signalled(SIGKILL) => {
                let count = counter.and_then(|Counter(path)| Some((path, read_count(path)?)));
                let Some((path, count)) = count else {
                    return OutOfMemory::Unknown;
                };
                let mut accounted = self.accounted.lock();
                let accounted = accounted.entry(path.clone()).or_insert(count);
                if count > *accounted {
                    *accounted += 1;
                    OutOfMemory::Yes
                } else {
                    OutOfMemory::No
                }
            }
            ProcExit::Signalled(SIGABRT) => match death.last_words {
                // A backtrace may follow.
                Some(lines) if lines.iter().any(|line| line.starts_with(ALLOCATION_FAILED)) => {
                    OutOfMemory::Yes
                }
                Some(_) => OutOfMemory::No,
                None => OutOfMemory::Unknown,
            },
            ProcExit::Lost => OutOfMemory::Unknown,
            _ => OutOfMemory::No,
        }
    }
}

/// The files in which the count may stand, by what `/proc/PID/cgroup` says.
fn candidates(groups: &str) -> Vec<PathBuf> {
    groups
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, group) = rest.split_once(':')?;
            let group = Path::new(group).strip_prefix("/").ok()?;
            // A path that leads up is relative to a namespace that is not ours.
            let is_below = group
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            match controllers {
                _ if !is_below => None,
                "" => Some(Path::new(CGROUPS).join(group).join("memory.events")),
                // The first version of the interface has a tree for each controller.
                "memory" => Some(
                    Path::new(CGROUPS)
                        .join("memory")
                        .join(group)
                        .join("memory.oom_control"),
                ),
                _ => None,
            }
        })
        .collect()
}

fn read_count(path: &Path) -> Option<u64> {
    count_in(&std::fs::read_to_string(path).ok()?)
}

/// Both versions of the interface have the count on a line of its own.
fn count_in(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn killed<'a>() -> Death<'a> {
        Death {
            exit: ProcExit::Signalled(SIGKILL),
            killed_here: false,
            last_words: Some(&[]),
        }
    }

    #[test]
    fn groups_of_both_versions_are_found() {
        assert_eq!(
            candidates("0::/user.slice/a.scope\n"),
            [Path::new("/sys/fs/cgroup/user.slice/a.scope/memory.events")]
        );
        assert_eq!(
            candidates("4:memory:/a/b\n3:cpuset:/\n0::/\n"),
            [
                Path::new("/sys/fs/cgroup/memory/a/b/memory.oom_control"),
                Path::new("/sys/fs/cgroup/memory.events")
            ]
        );
        for odd in ["", "0", "0:", "0::relative", "0::/../up", "x\n\n"] {
            assert_eq!(candidates(odd), Vec::<PathBuf>::new(), "{odd}");
        }
    }

    #[test]
    fn counts_are_read_and_their_absence_too() {
        let events = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 17\noom_group_kill 0\n";
        assert_eq!(count_in(events), Some(17));
        assert_eq!(
            count_in("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            Some(2)
        );
        for other in ["", "oom_kill", "oom_kill many", "low 0\n"] {
            assert_eq!(count_in(other), None, "{other}");
        }
    }

    #[test]
    fn each_count_explains_one_death() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.events");
        let say = |count: u64| std::fs::write(&path, format!("oom_kill {count}\n")).unwrap();
        let watch = MemoryWatch::default();
        say(3);
        watch.accounted.lock().insert(path.clone(), 3);
        let counter = Counter(path.clone());
        assert_eq!(watch.verdict(Some(&counter), killed()), OutOfMemory::No);
        say(4);
        let by_us = Death {
            killed_here: true,
            ..killed()
        };
        assert_eq!(watch.verdict(Some(&counter), by_us), OutOfMemory::No);
        assert_eq!(watch.verdict(Some(&counter), killed()), OutOfMemory::Yes);
        assert_eq!(watch.verdict(Some(&counter), killed()), OutOfMemory::No);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            watch.verdict(Some(&counter), killed()),
            OutOfMemory::Unknown
        );
        assert_eq!(watch.verdict(None, killed()), OutOfMemory::Unknown);
    }

    #[test]
    fn an_abort_is_judged_by_the_last_words() {
        let watch = MemoryWatch::default();
        let abort = |line: Option<&str>| {
            let words = line.map(|line| vec![line.to_owned(), "stack backtrace:".to_owned()]);
            let exit = ProcExit::Signalled(SIGABRT);
            let death = Death {
                exit,
                killed_here: false,
                last_words: words.as_deref(),
            };
            watch.verdict(None, death)
        };
        assert_eq!(
            abort(Some("memory allocation of 99 bytes failed")),
            OutOfMemory::Yes
        );
        assert_eq!(abort(Some("assertion failed")), OutOfMemory::No);
        assert_eq!(abort(None), OutOfMemory::Unknown);
    }
}
