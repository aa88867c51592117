//! Network namespaces: entering new ones, joining them, and finding out whether this machine lets us. It knows nothing of hosts.
//!
//! A namespace is held by a process that does nothing else, and reached through that process's number.

use std::fmt;
use std::io;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use crate::lab::PATIENCE;
use crate::{ARGUMENT, ROLE};

/// What this machine lacks, and what to do about it.
pub(crate) struct Absence(String);

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; `cargo xtask doctor` says what mends it", self.0)
    }
}

/// Why there can be no namespaces here; `None` where there can.
pub(crate) fn absence() -> Option<Absence> {
    for program in ["ip", "unshare", "nsenter"] {
        if let Err(error) = Command::new(program).arg("--version").output() {
            // An old `ip` knows only another spelling, but it is there.
            return Some(Absence(format!("`{program}` cannot be run: {error}")));
        }
    }
    let tried = observer("probe").and_then(|probe| probe.collect());
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let words: Vec<&str> = text.split_whitespace().collect();
            Some(Absence(format!(
                "namespaces cannot be made and joined: {}",
                words.join(" ")
            )))
        }
        Err(error) => Some(Absence(format!("namespaces cannot be made: {error}"))),
    }
}

/// Why a link cannot be made to lose and delay packets; `None` where it can.
pub(crate) fn weather_absence() -> Option<Absence> {
    let mut command = unshared("tc");
    command.args(["qdisc", "add", "dev", "lo", "root", "netem", "loss", "1%"]);
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            Some(Absence(format!("netem cannot be used: {}", text.trim())))
        }
        Err(error) => Some(Absence(format!("`tc` cannot be run: {error}"))),
    }
}

/// The command that runs a program in a network namespace of its own, as root of a user namespace of its own where nothing
/// less will do.
fn unshared(program: &str) -> Command {
    let mut plain = Command::new("unshare");
    plain.args(["--net", "true"]).stdin(Stdio::null());
    let is_privileged = plain.output().is_ok_and(|output| output.status.success());
    let mut command = Command::new("unshare");
    if !is_privileged {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--", program]);
    command
}

/// A process that ends when its owner does, or when it is dropped.
#[derive(Debug)]
pub(crate) struct Owned {
    process: Child,
}

impl Owned {
    /// Starts a role of this binary by `command`, which runs what its arguments say. Its standard input is open for as long as this
    /// process lives and keeps the value.
    fn start(mut command: Command, role: &str, argument: &str) -> io::Result<Self> {
        command
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            .stdin(Stdio::piped());
        Ok(Self {
            process: command.spawn()?,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.process.stdout.take()
    }

    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.process.kill()?;
        self.process.wait()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn end(mut self) -> io::Result<ExitStatus> {
        // Not `wait` right away, which closes the standard input, by which it is told to end.
        let stdin = self.process.stdin.take();
        let status = self.process.wait();
        drop(stdin);
        status
    }

    fn collect(mut self) -> io::Result<Output> {
        let stdin = self.process.stdin.take();
        let mut stderr = String::new();
        if let Some(mut pipe) = self.process.stderr.take() {
            io::Read::read_to_string(&mut pipe, &mut stderr)?;
        }
        let status = self.process.wait()?;
        drop(stdin);
        Ok(Output {
            status,
            stdout: Vec::new(),
            stderr: stderr.into_bytes(),
        })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Ended already, in most cases.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Ends this process when its owner is gone, however that went.
pub(crate) fn end_with_the_parent() {
    std::thread::spawn(|| {
        // Nothing is ever written there.
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        std::process::exit(1);
    });
}

fn this_program() -> io::Result<String> {
    let program = std::env::current_exe()?;
    program
        .into_os_string()
        .into_string()
        .map_err(|_| io::Error::other("the path of the test program is no text"))
}

/// Starts an observer: a process in a namespace of its own that plays a scenario.
pub(crate) fn observer(scenario: &str) -> io::Result<Owned> {
    let mut command = unshared(&this_program()?);
    if scenario == "probe" {
        command.stderr(Stdio::piped());
    }
    Owned::start(command, "observe", scenario)
}

/// A namespace, held by a process. Only for a process that is root where its own namespace was made.
#[derive(Debug)]
pub(crate) struct Namespace {
    holder: Owned,
}

impl Namespace {
    pub(crate) fn new() -> io::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", &this_program()?]);
        let holder = Owned::start(command, "hold", "")?;
        let namespace = Self { holder };
        // It has one of its own when it has left ours.
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        let theirs = namespace.path();
        hyperactor_testkit::eventually_blocking(PATIENCE, || {
            std::fs::read_link(&theirs).is_ok_and(|theirs| theirs != ours)
        });
        Ok(namespace)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    pub(crate) fn pid(&self) -> String {
        self.holder.pid().to_string()
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net={}", self.path()), "--", program]);
        command
    }

    /// Runs `ip` there.
    pub(crate) fn ip(&self, arguments: &str) {
        let mut command = self.enter("ip");
        run(command.args(arguments.split_whitespace()));
    }

    /// Runs `tc` there.
    pub(crate) fn tc(&self, arguments: &str) {
        let mut command = self.enter("tc");
        run(command.args(arguments.split_whitespace()));
    }

    /// Starts a role there, with its own directory for sockets.
    pub(crate) fn start(
        &self,
        role: &str,
        argument: &str,
        sockets: &std::path::Path,
    ) -> io::Result<Owned> {
        let mut command = self.enter(&this_program()?);
        command
            .env("XDG_RUNTIME_DIR", sockets)
            .stdout(Stdio::piped());
        Owned::start(command, role, argument)
    }
}

/// Runs `ip` in the namespace of this process.
pub(crate) fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split_whitespace()));
}

/// Runs a program that must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}", text.trim());
}
