//! The program as people run it: real processes, real sockets, every route, and every way to end.
//!
//! Each test gives its run a folder of its own for sockets, so that what is left in it is the run's.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers too: a test's panic is its report"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hyperactor_testkit::{LeakGuard, TempSocketDir, isolated};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// The time in which nothing may be left of a run whose host died.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Far more than any step here takes; a test that hangs fails by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run's surroundings: its socket folder and its input.
struct Place {
    sockets: TempSocketDir,
    input: tempfile::TempDir,
}

impl Place {
    /// With `files` files of about `kib` KiB text each.
    fn new(files: usize, kib: usize) -> Self {
        let input = tempfile::tempdir().unwrap();
        for file in 0..files {
            let mut text = String::new();
            let mut number = file;
            while text.len() < kib * 1024 {
                // A spread of common and rare words, the same in every run.
                number = (number * 1_103 + 12_345) % 65_521;
                text.push_str(&format!("common w{} rare{number}\n", number % 300));
            }
            fs::write(input.path().join(format!("{file}.txt")), text).unwrap();
        }
        Self {
            sockets: TempSocketDir::new().unwrap(),
            input,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyperactor"));
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.sockets.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["demo", "--input"]);
        command.arg(self.input.path()).args(arguments);
        command
    }

    /// Runs the demo to its end and returns its object.
    fn demo_json(&self, arguments: &[&str]) -> Value {
        let output = self.demo(arguments).arg("--json").output().unwrap();
        assert_success(&output);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            text.lines().count(),
            1,
            "one object and nothing else: {text}"
        );
        serde_json::from_str(&text).unwrap()
    }

    fn sockets_left(&self) -> Vec<PathBuf> {
        fn below(folder: &Path, found: &mut Vec<PathBuf>) {
            // A folder may go while it is read.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                found.push(entry.path());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        below(self.sockets.path(), &mut found);
        found
    }
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A demo that has begun to count.
struct Running {
    host: Child,
    children: Vec<u32>,
    stderr: mpsc::Receiver<String>,
}

impl Running {
    /// Starts a demo whose input is large enough to be counted for a while, and waits for its progress.
    fn start(place: &Place) -> Self {
        let mut command = place.demo(&["--procs", "3"]);
        // A group of its own, as a terminal gives to what it starts.
        let mut host = command
            .process_group(0)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stderr = host.stderr.take().unwrap();
        let (lines, seen) = mpsc::channel();
        // Reads on to the end, so that the program never waits for its reader.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut text = String::new();
        while !text.contains("counting: ") {
            match seen.recv_timeout(PATIENCE) {
                Ok(line) => text.push_str(&format!("{line}\n")),
                Err(error) => panic!("no progress ({error}) after:\n{text}"),
            }
        }
        let children = children_of(host.id());
        assert_eq!(children.len(), 3, "{children:?}");
        Self {
            host,
            children,
            stderr: seen,
        }
    }

    /// What else it said until its end.
    fn last_words(&self) -> String {
        self.stderr.iter().map(|line| line + "\n").collect()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.host)
    }

    fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.host.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the host did not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only matters when a test failed: nothing of it may run on. A host that was waited for is not there to kill.
        if self.host.kill().is_ok() && self.host.wait().is_err() {
            eprintln!("the host was gone already");
        }
    }
}

/// Ends a demo that counts in some way, and fails unless everything of it is gone in time: its processes, also those that
/// lost their parent, and its sockets. The test runs in a process of its own, of which all that is looked at.
fn assert_gone_after(test: &str, end: impl FnOnce(&mut Running)) {
    isolated(test, || {
        let place = Place::new(40, 1024);
        let guard = LeakGuard::new()
            .watching(place.sockets.path())
            .adopting_orphans()
            .within(GONE_WITHIN);
        let mut running = Running::start(&place);
        end(&mut running);
        drop(running);
        guard.assert_settled_blocking();
    });
}

fn children_of(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if parent_of(pid) == Some(parent) {
            found.push(pid);
        }
    }
    found
}

fn parent_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the state and the parent stand behind it.
    text.rsplit(')')
        .next()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn number(object: &Value, pointer: &str) -> u64 {
    object
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no number at {pointer} in {object}"))
}

#[test]
fn the_demo_verifies_and_most_messages_between_children_go_directly() {
    let place = Place::new(8, 512);
    let object = place.demo_json(&[]);
    assert_eq!(object["procs"], 4);
    assert_eq!(object["files"], 8);
    assert_eq!(object["verified"], true);
    assert_eq!(object["undeliverable"], 0);
    assert_eq!(object["left_behind"], 0);
    let direct = number(&object, "/messages/direct");
    let relay = number(&object, "/messages/relay");
    assert!(direct > 100, "{object}");
    assert!(direct * 10 > (direct + relay) * 9, "{object}");
    assert!(number(&object, "/messages/in_process") > 0, "{object}");
    assert!(
        object["messages_per_second"].as_f64().unwrap() > 0.0,
        "{object}"
    );
    assert_eq!(place.sockets_left(), Vec::<PathBuf>::new());
}

#[test]
fn every_route_gives_the_same_result_and_a_forced_one_is_kept() {
    let place = Place::new(4, 256);
    let auto = place.demo_json(&["--procs", "3"]);
    let relay = place.demo_json(&["--procs", "3", "--route", "relay"]);
    let direct = place.demo_json(&["--procs", "3", "--route", "direct"]);
    for object in [&auto, &relay, &direct] {
        assert_eq!(object["verified"], true, "{object}");
        assert_eq!(object["undeliverable"], 0, "{object}");
        assert_eq!(object["left_behind"], 0, "{object}");
        assert_eq!(object["words"], auto["words"]);
        assert_eq!(object["distinct"], auto["distinct"]);
    }
    assert_eq!(number(&relay, "/messages/direct"), 0, "{relay}");
    assert!(number(&relay, "/messages/relay") > 0, "{relay}");
    assert_eq!(number(&direct, "/messages/relay"), 0, "{direct}");
    assert!(number(&direct, "/messages/direct") > 0, "{direct}");
}

#[test]
fn a_single_process_has_no_messages_to_others() {
    let place = Place::new(1, 64);
    let object = place.demo_json(&["--procs", "1"]);
    assert_eq!(object["verified"], true);
    assert_eq!(number(&object, "/messages/direct"), 0);
    assert_eq!(number(&object, "/messages/relay"), 0);
    assert!(number(&object, "/messages/in_process") > 0);
}

#[test]
fn the_text_for_people_has_the_words_the_routes_and_no_colours_in_a_pipe() {
    let place = Place::new(2, 64);
    let output = place.demo(&["--procs", "2"]).output().unwrap();
    assert_success(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in ["common\n", "direct", "relay", "from 1", "verified: equal"] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    assert!(!text.contains('\x1b') && !output.stderr.contains(&0x1b));
}

#[test]
fn the_built_in_text_is_counted_outside_of_a_repository() {
    let place = Place::new(0, 0);
    let output = place
        .command(&["demo", "--procs", "2", "--json"])
        .current_dir(place.input.path())
        .output()
        .unwrap();
    assert_success(&output);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["verified"], true);
    assert!(number(&object, "/words") > 1_000, "{object}");
}

#[test]
fn a_missing_input_is_named_before_anything_starts() {
    let place = Place::new(0, 0);
    let output = place
        .command(&["demo", "--input", "no/such/folder"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("input no/such/folder: no such file or folder"),
        "{text}"
    );
    assert!(!text.contains("starting"), "{text}");
    assert_eq!(place.sockets_left(), Vec::<PathBuf>::new());
}

#[test]
fn an_input_without_a_single_gap_is_no_text() {
    let place = Place::new(0, 0);
    fs::write(place.input.path().join("run"), vec![b'a'; 2 << 20]).unwrap();
    let output = place.demo(&[]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("no text found there (skipped: 1 not text)"),
        "{text}"
    );
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let place = Place::new(0, 0);
    for arguments in [
        &["demo", "--procs", "0"][..],
        &["bench", "routes", "--messages", "0"],
        &[
            "bench",
            "routes",
            "--messages",
            "100000000",
            "--size",
            "8388608",
        ],
    ] {
        let output = place.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_host_that_is_killed_takes_its_processes_and_sockets_along() {
    assert_gone_after(
        "a_host_that_is_killed_takes_its_processes_and_sockets_along",
        |running| {
            kill_process(running.pid(), Signal::KILL).unwrap();
            assert_eq!(running.wait().signal(), Some(9));
        },
    );
}

#[test]
fn an_interrupt_ends_everything() {
    assert_gone_after("an_interrupt_ends_everything", |running| {
        kill_process(running.pid(), Signal::INT).unwrap();
        assert_eq!(running.wait().code(), Some(130));
        let text = running.last_words();
        assert!(text.contains("ended by Ctrl-C"), "{text}");
    });
}

#[test]
fn an_interrupt_of_the_whole_group_ends_everything() {
    assert_gone_after(
        "an_interrupt_of_the_whole_group_ends_everything",
        |running| {
            kill_process_group(running.pid(), Signal::INT).unwrap();
            assert_eq!(running.wait().code(), Some(130));
        },
    );
}

#[test]
fn a_request_to_terminate_ends_everything() {
    assert_gone_after("a_request_to_terminate_ends_everything", |running| {
        kill_process(running.pid(), Signal::TERM).unwrap();
        assert_eq!(running.wait().code(), Some(143));
    });
}

#[test]
fn a_process_that_is_killed_fails_the_demo_by_name_and_leaves_nothing() {
    assert_gone_after(
        "a_process_that_is_killed_fails_the_demo_by_name_and_leaves_nothing",
        |running| {
            let victim = running.children[1];
            kill_process(Pid::from_raw(victim.cast_signed()).unwrap(), Signal::KILL).unwrap();
            assert_eq!(running.wait().code(), Some(1));
            let text = running.last_words();
            let expected = format!("(process {victim}) was ended by signal 9");
            assert!(text.contains(&expected), "{expected:?} is not in\n{text}");
        },
    );
}

#[test]
fn the_benchmark_measures_every_route() {
    let place = Place::new(0, 0);
    let output = place
        .command(&[
            "bench",
            "routes",
            "--messages",
            "500",
            "--size",
            "32",
            "--json",
        ])
        .output()
        .unwrap();
    assert_success(&output);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    for route in ["in_process", "direct", "relay"] {
        for figure in ["messages_per_second", "p50_us", "p99_us"] {
            let value = object[route][figure].as_f64().unwrap();
            assert!(value > 0.0, "{route} {figure} in {object}");
        }
    }
    assert!(
        object["direct_to_relay"]["p50"].as_f64().unwrap() > 0.0,
        "{object}"
    );
    assert_eq!(object["left_behind"], 0);
    assert_eq!(place.sockets_left(), Vec::<PathBuf>::new());
}
