//! A guard that fails a test which leaves something behind: open files, threads, tasks of the runtime,
//! child processes (zombies too), files in chosen folders.
//!
//! It looks at the whole process. Where other tests run in the same one, put the test into its own with
//! [`isolated`](crate::isolated). What it looks at is read in `snapshot.rs`.

mod snapshot;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::{LEAK_DEADLINE, POLL_INTERVAL};
use snapshot::Snapshot;

/// Remembers what the process has when it is made, and fails when there is more at the end.
///
/// What a test started may need a moment to go: the guard waits for that, at most for its deadline.
/// Dropping the guard checks too, with the thread blocked meanwhile; in an async test call
/// [`assert_settled`](Self::assert_settled), so that the runtime's tasks can end.
///
/// ```
/// use hyperactor_testkit::LeakGuard;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let guard = LeakGuard::new();
/// let task = tokio::spawn(async { 42 });
/// assert_eq!(task.await.unwrap(), 42);
/// guard.assert_settled().await;
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a guard that is dropped at once guards nothing"]
pub struct LeakGuard {
    before: Snapshot,
    folders: Vec<PathBuf>,
    deadline: Duration,
    adopts: bool,
    done: bool,
}

/// What was left behind, each thing named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    things: Vec<String>,
}

impl LeakGuard {
    /// Remembers what is there now.
    ///
    /// # Panics
    ///
    /// When `/proc` cannot be read: the guard would see nothing.
    pub fn new() -> Self {
        Self {
            before: Snapshot::take(&[]),
            folders: Vec::new(),
            deadline: LEAK_DEADLINE,
            adopts: false,
            done: false,
        }
    }

    /// Watches a folder too, with all that is below it. It need not be there.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn watching(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folders.push(folder.into());
        self.before = Snapshot::take(&self.folders);
        self
    }

    /// Makes this process the parent of every descendant whose own parent dies, so that what a killed child
    /// leaves running is seen: without it, the system's first process would take the orphan over.
    ///
    /// Adopted processes that have ended are reaped and not reported; so are the test's own zombies, since
    /// nobody can tell the two apart. The process stays their adoptive parent until its end: put such a
    /// test into a process of its own with [`isolated`](crate::isolated).
    ///
    /// # Panics
    ///
    /// When the system refuses.
    pub fn adopting_orphans(mut self) -> Self {
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            panic!("cannot adopt orphans: {error}");
        }
        self.adopts = true;
        self
    }

    /// How long to wait for things to go by themselves; [`LEAK_DEADLINE`] if not said.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What is there now and was not before.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[must_use]
    pub fn leaks(&self) -> Leaks {
        let now = Snapshot::take(&self.folders);
        if self.adopts && now.reap_zombies_beyond(&self.before) {
            return Snapshot::take(&self.folders).beyond(&self.before);
        }
        now.beyond(&self.before)
    }

    /// Waits until nothing is left behind.
    ///
    /// # Panics
    ///
    /// When something still is at the deadline; the message names it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the guard, which checks once more.
    pub async fn assert_settled(mut self) {
        let end = self.end();
        while !self.has_settled(end) {
            // Not tokio's clock: where a test pauses it, the things to wait for still take real time.
            tokio::task::yield_now().await;
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until nothing is left behind, in a thread without a runtime.
    ///
    /// # Panics
    ///
    /// As [`assert_settled`](Self::assert_settled).
    pub fn assert_settled_blocking(mut self) {
        self.settle();
    }

    fn settle(&mut self) {
        let end = self.end();
        while !self.has_settled(end) {
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn end(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Whether nothing is left behind; panics when something is and the time is up.
    fn has_settled(&mut self, end: Instant) -> bool {
        let leaks = self.leaks();
        if !leaks.is_empty() && Instant::now() < end {
            return false;
        }
        self.done = true;
        leaks.assert_none(self.deadline);
        true
    }
}

impl Default for LeakGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for LeakGuard {
    fn drop(&mut self) {
        // A test that fails already must not abort the program with a second panic.
        if !self.done && !thread::panicking() {
            self.settle();
        }
    }
}

impl Leaks {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    /// What was left behind, in words.
    #[must_use]
    pub fn things(&self) -> &[String] {
        &self.things
    }

    fn assert_none(&self, deadline: Duration) {
        assert!(self.is_empty(), "left behind after {deadline:?}:\n{self}");
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.things
            .iter()
            .try_for_each(|thing| writeln!(to, "  {thing}"))
    }
}

/// Names what `after` has and `before` has not. A number that now stands for something else is new.
fn beyond<K: Ord, V: PartialEq>(
    after: &BTreeMap<K, V>,
    before: &BTreeMap<K, V>,
    name: impl Fn(&K, &V) -> String,
) -> Vec<String> {
    after
        .iter()
        .filter(|(key, value)| before.get(key) != Some(value))
        .map(|(key, value)| name(key, value))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;
    use crate::{TempSocketDir, isolated};

    /// Runs a test by itself: other tests open files meanwhile.
    macro_rules! alone {
        ($name:ident, $body:expr) => {
            isolated(concat!("leak::tests::", stringify!($name)), $body)
        };
    }

    /// Waits no longer than needed to see that something stays.
    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn nothing_left_behind_passes() {
        alone!(nothing_left_behind_passes, || {
            let guard = LeakGuard::new();
            drop(File::open("/dev/null").unwrap());
            thread::spawn(|| ()).join().unwrap();
            assert!(Command::new("true").status().unwrap().success());
            guard.assert_settled_blocking();
        });
    }

    #[test]
    fn an_open_file_is_named() {
        alone!(an_open_file_is_named, || {
            let guard = LeakGuard::new();
            let file = File::open("/dev/null").unwrap();
            let leaks = guard.leaks();
            assert_eq!(leaks.things().len(), 1, "{leaks}");
            assert!(leaks.to_string().contains("/dev/null"), "{leaks}");
            drop(file);
        });
    }

    #[test]
    fn a_socket_is_named_by_its_path() {
        alone!(a_socket_is_named_by_its_path, || {
            let folder = TempSocketDir::new().unwrap();
            let guard = LeakGuard::new().watching(folder.path());
            let listener = std::os::unix::net::UnixListener::bind(folder.socket("s")).unwrap();
            let text = guard.leaks().to_string();
            let path = folder.socket("s").display().to_string();
            assert!(text.contains(&format!("unix {path}")), "{text}");
            assert!(text.contains(&format!("file {path}")), "{text}");
            drop(listener);
            std::fs::remove_file(folder.socket("s")).unwrap();
        });
    }

    #[test]
    fn children_and_zombies_are_named() {
        alone!(children_and_zombies_are_named, || {
            let guard = LeakGuard::new();
            let mut child = Command::new("sleep").arg("600").spawn().unwrap();
            let named = format!("child process {} `sleep`", child.id());
            crate::eventually_blocking(Duration::from_secs(5), || {
                guard.leaks().to_string().contains(&named)
            });
            child.kill().unwrap();
            crate::eventually_blocking(Duration::from_secs(5), || {
                guard.leaks().to_string().contains("zombie")
            });
            child.wait().unwrap();
        });
    }

    #[test]
    fn an_orphan_is_adopted_and_named() {
        alone!(an_orphan_is_adopted_and_named, || {
            let guard = LeakGuard::new().adopting_orphans();
            let script = "sleep 600 >/dev/null 2>&1 & echo $!";
            let output = Command::new("sh").args(["-c", script]).output().unwrap();
            let pid = String::from_utf8(output.stdout).unwrap().trim().to_owned();
            // Between the fork and its exec it still goes by the shell's name.
            let named = format!("child process {pid} `sleep`");
            crate::eventually_blocking(Duration::from_secs(5), || {
                guard.leaks().to_string().contains(&named)
            });
            assert!(Command::new("kill").arg(&pid).status().unwrap().success());
            guard.assert_settled_blocking();
        });
    }

    #[test]
    fn a_thread_is_named() {
        alone!(a_thread_is_named, || {
            let guard = LeakGuard::new();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let thread = thread::Builder::new()
                .name("straggler".to_owned())
                .spawn(move || ended.recv().is_err())
                .unwrap();
            // A thread names itself after it began.
            crate::eventually_blocking(Duration::from_secs(5), || {
                guard.leaks().to_string().contains("straggler")
            });
            drop(end);
            assert!(thread.join().unwrap());
        });
    }

    #[test]
    fn a_task_is_counted() {
        alone!(a_task_is_counted, || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let guard = LeakGuard::new();
                let task = tokio::spawn(std::future::pending::<()>());
                assert_eq!(guard.leaks().things(), ["1 task of the runtime"]);
                task.abort();
                guard.assert_settled().await;
            });
        });
    }

    #[test]
    fn what_goes_by_itself_is_waited_for() {
        alone!(what_goes_by_itself_is_waited_for, || {
            let guard = LeakGuard::new().within(Duration::from_secs(10));
            let file = File::open("/dev/null").unwrap();
            let thread = thread::spawn(move || {
                thread::sleep(SHORT);
                drop(file);
            });
            drop(guard);
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_dropped_guard_fails_the_test() {
        alone!(a_dropped_guard_fails_the_test, || {
            let folder = TempSocketDir::new().unwrap();
            let outcome = std::panic::catch_unwind(|| {
                let _guard = LeakGuard::new().watching(folder.path()).within(SHORT);
                File::create(folder.path().join("residue")).unwrap();
            });
            let text = outcome.unwrap_err().downcast::<String>().unwrap();
            assert!(text.contains("residue"), "{text}");
        });
    }
}
