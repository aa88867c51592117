//! `cargo xtask doctor`: a table of what this machine has and lacks, and the command that mends it.
//!
//! This file judges and prints; what it judges is read in `doctor/probe.rs`. Nothing is changed.

mod probe;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use probe::Machine;

/// The most bytes of a Unix socket's path: the kernel's 108 with the closing NUL.
const SOCKET_PATH_MAX: usize = 107;

/// What the longest path below the runtime folder takes: the name of a host's folder, which is
/// `hyperactor-` and 16 letters, a slash, and a socket's name of 31 bytes.
const SOCKET_NAME_ROOM: usize = 27 + 1 + 31;

/// Below this many open files a host of many procs meets the limit.
const FILES_WANTED: u64 = 1024;

/// Below this many processes of one user a host of many procs meets the limit.
const PROCESSES_WANTED: u64 = 512;

/// The first kernel with `pidfd_open`.
const KERNEL_WANTED: (u32, u32) = (5, 3);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// How much a row matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// All is there.
    Ok,
    /// Something optional is missing; everything works without it.
    Note,
    /// Something that the project needs is missing.
    Bad,
}

/// One line of the table.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    what: &'static str,
    state: State,
    found: String,
    /// What to do about it; nothing when there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    rows: Vec<Row>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let rows = rows(&Machine::read()?);
    let bad = rows.iter().filter(|row| row.state == State::Bad).count();
    if arguments.json {
        println!("{}", serde_json::to_string(&Report { ok: bad == 0, rows })?);
    } else {
        print!("{}", table(&rows));
    }
    if bad > 0 {
        bail!("this machine lacks {bad} of what the project needs");
    }
    Ok(())
}

impl Row {
    fn new(what: &'static str, state: State, found: impl Into<String>, mend: &str) -> Self {
        let mend = (state != State::Ok).then(|| mend.to_owned());
        Self {
            what,
            state,
            found: found.into(),
            mend,
        }
    }

    /// A row of something that holds or not: `otherwise` is its state if not, and the words say which.
    fn either(
        what: &'static str,
        holds: bool,
        otherwise: State,
        [yes, no]: [&str; 2],
        mend: &str,
    ) -> Self {
        let found = if holds { yes } else { no };
        Self::new(what, judge(holds, otherwise), found, mend)
    }
}

/// `good` gives [`State::Ok`], anything else `otherwise`.
fn judge(good: bool, otherwise: State) -> State {
    if good { State::Ok } else { otherwise }
}

/// Judges what was read. Pure, so that each row can be tested.
fn rows(machine: &Machine) -> Vec<Row> {
    vec![
        rustc(machine),
        nextest(machine),
        kernel(machine),
        Row::either(
            "pidfd",
            machine.pidfd,
            State::Bad,
            ["works", "refused"],
            "run on Linux 5.3 or newer, and let the container's seccomp profile allow pidfd_open",
        ),
        limit("open files", machine.files, FILES_WANTED, "ulimit -n 20000"),
        limit(
            "processes",
            machine.processes,
            PROCESSES_WANTED,
            "ulimit -u 4096",
        ),
        runtime_dir(machine),
        socket_room(machine),
        Row::either(
            "/dev/shm",
            machine.shm,
            State::Note,
            ["writable", "not writable"],
            "mount -t tmpfs tmpfs /dev/shm (nothing uses it yet)",
        ),
        Row::either(
            "user namespaces",
            machine.user_namespaces,
            State::Note,
            ["allowed", "not allowed"],
            "sysctl -w user.max_user_namespaces=10000 (only `it multihost` wants them, and root does without)",
        ),
        iproute2(machine),
        Row::either(
            "network namespaces",
            machine.network_namespaces,
            State::Note,
            ["allowed", "not allowed"],
            "run as root, or mend the row of user namespaces (until then `it multihost` is skipped)",
        ),
        Row::either(
            "netem",
            machine.netem,
            State::Note,
            ["works", "not in this kernel, or not allowed"],
            "modprobe sch_netem (until then `it multihost` skips its lossy links)",
        ),
        Row::either(
            "strace",
            machine.strace,
            State::Note,
            ["works", "not installed, or not allowed"],
            "apt-get install strace (until then `it bypass` skips the test that counts system calls)",
        ),
        Row::either(
            "other users",
            machine.other_users,
            State::Note,
            ["can be played", "cannot be played"],
            "run as root, with setpriv (until then `it bypass` skips two tests)",
        ),
        Row::new(
            "cores",
            judge(machine.cores >= 2, State::Note),
            machine.cores.to_string(),
            "with one core the tests are slow and the benchmarks say little",
        ),
    ]
}

fn rustc(machine: &Machine) -> Row {
    let mend = format!("rustup toolchain install {}", machine.rust_wanted);
    match &machine.rust {
        Some(found) => Row::new(
            "rustc",
            judge(*found == machine.rust_wanted, State::Bad),
            format!("{found}, rust-toolchain.toml says {}", machine.rust_wanted),
            &mend,
        ),
        None => Row::new("rustc", State::Bad, "not found", &mend),
    }
}

fn nextest(machine: &Machine) -> Row {
    Row::new(
        "cargo-nextest",
        judge(machine.nextest.is_some(), State::Note),
        machine
            .nextest
            .as_deref()
            .unwrap_or("not installed, libtest will do"),
        "cargo install --locked cargo-nextest",
    )
}

/// What makes and joins the machines of `it multihost`.
fn iproute2(machine: &Machine) -> Row {
    let missing = machine.network_tools_missing.join(", ");
    Row::new(
        "network tools",
        judge(missing.is_empty(), State::Note),
        if missing.is_empty() {
            "ip, tc, unshare, nsenter".to_owned()
        } else {
            format!("not found: {missing}")
        },
        "apt-get install iproute2 util-linux (until then `it multihost` is skipped)",
    )
}

fn kernel(machine: &Machine) -> Row {
    let mut numbers = machine
        .kernel
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Row::new(
        "kernel",
        judge(version >= KERNEL_WANTED, State::Bad),
        machine.kernel.as_str(),
        "run on Linux 5.3 or newer: children are owned through pidfds",
    )
}

/// A limit on this user; `None` means without end.
fn limit(what: &'static str, found: Option<u64>, wanted: u64, mend: &str) -> Row {
    match found {
        Some(found) => Row::new(
            what,
            judge(found >= wanted, State::Note),
            found.to_string(),
            mend,
        ),
        None => Row::new(what, State::Ok, "unlimited", mend),
    }
}

fn runtime_dir(machine: &Machine) -> Row {
    match &machine.runtime_dir {
        Some(folder) => Row::new(
            "XDG_RUNTIME_DIR",
            judge(machine.runtime_dir_usable, State::Note),
            folder.as_str(),
            "install -d -m 0700 \"$XDG_RUNTIME_DIR\" (until then sockets go to the temporary folder)",
        ),
        None => Row::new(
            "XDG_RUNTIME_DIR",
            State::Note,
            format!("not set, sockets go to {}", machine.temp_dir),
            "export XDG_RUNTIME_DIR=/run/user/$(id -u)",
        ),
    }
}

fn socket_room(machine: &Machine) -> Row {
    let base = match &machine.runtime_dir {
        Some(folder) if machine.runtime_dir_usable => folder,
        _ => &machine.temp_dir,
    };
    let left = SOCKET_PATH_MAX.saturating_sub(base.len() + 1);
    Row::new(
        "socket path",
        judge(left >= SOCKET_NAME_ROOM, State::Bad),
        format!("{left} of {SOCKET_PATH_MAX} bytes left below {base}"),
        "export XDG_RUNTIME_DIR to a shorter path, or TMPDIR=/tmp",
    )
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |text, row| {
        let state = match row.state {
            State::Ok => "ok",
            State::Note => "note",
            State::Bad => "BAD",
        };
        let mut line = format!("{:width$}  {state:4}  {}\n", row.what, row.found);
        if let Some(mend) = &row.mend {
            line += &format!("{:width$}        → {mend}\n", "");
        }
        text + &line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            rust: Some("1.95.0".to_owned()),
            rust_wanted: "1.95.0".to_owned(),
            nextest: Some("0.9.1".to_owned()),
            kernel: "6.1.0-x".to_owned(),
            pidfd: true,
            files: Some(20_000),
            processes: None,
            runtime_dir: Some("/run/user/1000".to_owned()),
            runtime_dir_usable: true,
            temp_dir: "/tmp".to_owned(),
            shm: true,
            user_namespaces: true,
            network_tools_missing: Vec::new(),
            network_namespaces: true,
            netem: true,
            strace: true,
            other_users: true,
            cores: 2,
        }
    }

    /// The only row that is not fine after one change to a good machine.
    #[track_caller]
    fn flaw(change: impl FnOnce(&mut Machine)) -> Row {
        let mut changed = machine();
        change(&mut changed);
        let mut flaws: Vec<Row> = rows(&changed)
            .into_iter()
            .filter(|row| row.state != State::Ok)
            .collect();
        assert_eq!(flaws.len(), 1, "{flaws:?}");
        flaws.remove(0)
    }

    #[test]
    fn a_good_machine_has_nothing_to_mend() {
        let rows = rows(&machine());
        assert!(
            rows.iter()
                .all(|row| row.state == State::Ok && row.mend.is_none()),
            "{rows:?}"
        );
    }

    #[test]
    fn another_compiler_is_answered_with_the_command_that_installs_the_right_one() {
        let row = flaw(|machine| machine.rust = Some("1.80.0".to_owned()));
        assert_eq!((row.what, row.state), ("rustc", State::Bad));
        assert_eq!(row.mend.as_deref(), Some("rustup toolchain install 1.95.0"));
        assert_eq!(flaw(|machine| machine.rust = None).state, State::Bad);
    }

    #[test]
    fn what_is_optional_is_only_a_note() {
        assert_eq!(flaw(|machine| machine.nextest = None).state, State::Note);
        assert_eq!(flaw(|machine| machine.files = Some(64)).state, State::Note);
        assert_eq!(flaw(|machine| machine.shm = false).state, State::Note);
        assert_eq!(
            flaw(|machine| machine.user_namespaces = false).state,
            State::Note
        );
        assert_eq!(
            flaw(|machine| machine.network_namespaces = false).state,
            State::Note
        );
        assert_eq!(flaw(|machine| machine.netem = false).state, State::Note);
        assert_eq!(flaw(|machine| machine.cores = 1).state, State::Note);
    }

    #[test]
    fn missing_network_tools_are_named_with_the_package_that_has_them() {
        let row = flaw(|machine| machine.network_tools_missing = vec!["ip", "tc"]);
        assert_eq!((row.what, row.state), ("network tools", State::Note));
        assert!(row.found.ends_with("ip, tc"), "{row:?}");
        assert!(row.mend.unwrap().contains("iproute2"));
    }

    #[test]
    fn an_old_kernel_is_bad() {
        assert_eq!(
            flaw(|machine| machine.kernel = "4.19.0".to_owned()).what,
            "kernel"
        );
        assert_eq!(
            flaw(|machine| machine.kernel = "5.2".to_owned()).what,
            "kernel"
        );
        assert_eq!(flaw(|machine| machine.pidfd = false).what, "pidfd");
    }

    #[test]
    fn a_runtime_folder_that_leaves_no_room_for_a_socket_is_bad() {
        let row = flaw(|machine| machine.runtime_dir = Some("/".repeat(60)));
        assert_eq!((row.what, row.state), ("socket path", State::Bad));
        assert!(row.found.starts_with("46 of 107"), "{row:?}");
    }

    #[test]
    fn without_a_runtime_folder_the_temporary_one_is_named() {
        let row = flaw(|machine| machine.runtime_dir = None);
        assert!(row.found.contains("/tmp"), "{row:?}");
        assert_eq!(
            flaw(|machine| machine.runtime_dir_usable = false).what,
            "XDG_RUNTIME_DIR"
        );
    }

    #[test]
    fn the_table_shows_the_remedy_below_its_row() {
        let text = table(&[flaw(|machine| machine.nextest = None)]);
        assert!(
            text.contains("note  not installed") && text.contains("→ cargo install"),
            "{text}"
        );
    }

    #[test]
    fn the_json_leaves_out_what_needs_no_remedy() {
        let report = Report {
            ok: true,
            rows: vec![Row::new("cores", State::Ok, "2", "buy")],
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"ok":true,"rows":[{"what":"cores","state":"ok","found":"2"}]}"#
        );
    }
}
