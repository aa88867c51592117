//! Reading the machine: compiler, kernel, limits, folders. No judgement here.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, getuid, pidfd_open};

use crate::workspace;

/// What `cargo xtask doctor` looks at.
#[derive(Debug)]
pub(super) struct Machine {
    /// The compiler's version, if there is one.
    pub(super) rust: Option<String>,
    /// The version that `rust-toolchain.toml` names.
    pub(super) rust_wanted: String,
    pub(super) nextest: Option<String>,
    pub(super) kernel: String,
    pub(super) pidfd: bool,
    /// The soft limit; nothing means without end.
    pub(super) files: Option<u64>,
    /// The soft limit; nothing means without end.
    pub(super) processes: Option<u64>,
    pub(super) runtime_dir: Option<String>,
    /// Whether the runtime folder is there, ours, and closed to others.
    pub(super) runtime_dir_usable: bool,
    pub(super) temp_dir: String,
    pub(super) shm: bool,
    pub(super) user_namespaces: bool,
    /// Of the programs that make network namespaces and join them.
    pub(super) network_tools_missing: Vec<&'static str>,
    /// Whether this user, or root of a user namespace of its own, may make network namespaces.
    pub(super) network_namespaces: bool,
    /// Whether a link in such a namespace can be made to lose packets.
    pub(super) netem: bool,
    /// Whether `strace` is there, and may trace.
    pub(super) strace: bool,
    /// Whether programs can be started as a user without rights.
    pub(super) other_users: bool,
    pub(super) cores: usize,
}

/// The programs that make and join network namespaces.
const NETWORK_TOOLS: [&str; 4] = ["ip", "tc", "unshare", "nsenter"];

impl Machine {
    pub(super) fn read() -> Result<Self> {
        let path = workspace::root().join("rust-toolchain.toml");
        let pinned =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let runtime_dir = std::env::var("XDG_RUNTIME_DIR")
            .ok()
            .filter(|path| !path.is_empty());
        Ok(Self {
            rust: version_of("rustc", &["--version"]),
            rust_wanted: channel(&pinned)
                .with_context(|| format!("{} names no channel", path.display()))?
                .to_owned(),
            nextest: version_of("cargo", &["nextest", "--version"]),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
                |_| std::env::consts::OS.to_owned(),
                |text| text.trim().to_owned(),
            ),
            pidfd: pidfd_open(getpid(), PidfdFlags::empty()).is_ok(),
            files: getrlimit(Resource::Nofile).current,
            processes: getrlimit(Resource::Nproc).current,
            runtime_dir_usable: runtime_dir.as_deref().is_some_and(is_private),
            runtime_dir,
            temp_dir: std::env::temp_dir().to_string_lossy().into_owned(),
            shm: is_writable("/dev/shm"),
            user_namespaces: succeeds("unshare", &["--user", "true"]),
            network_tools_missing: NETWORK_TOOLS
                .into_iter()
                .filter(|program| !is_there(program))
                .collect(),
            network_namespaces: unshared(&["ip", "link", "add", "name", "x", "type", "bridge"]),
            netem: unshared(&[
                "tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "1%",
            ]),
            strace: succeeds(
                "strace",
                &["--seccomp-bpf", "-f", "-e", "trace=%file", "true"],
            ),
            other_users: succeeds("setpriv", &["--reuid", "65534", "--clear-groups", "true"]),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }
}

/// The value of `channel = "…"` in a toolchain file.
fn channel(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("channel")?;
    after.split('"').nth(1)
}

/// The second word that a program prints first: `rustc 1.95.0 (…)`, `cargo-nextest 0.9.1 (…)`.
fn version_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(workspace::root())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .nth(1)
        .map(str::to_owned)
}

fn succeeds(program: &str, arguments: &[impl AsRef<OsStr>]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether a program succeeds in a network namespace of its own, as the suite `multihost` makes it: as this user, or as root of
/// a user namespace.
fn unshared(command: &[&str]) -> bool {
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    ways.iter()
        .any(|way| succeeds("unshare", &[way, &["--"][..], command].concat()))
}

fn is_there(program: &str) -> bool {
    // What it says to that, and whether it likes it, is of no interest.
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn is_private(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        found.is_dir() && found.uid() == getuid().as_raw() && found.mode() & 0o077 == 0
    })
}

fn is_writable(path: &str) -> bool {
    rustix::fs::access(Path::new(path), rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_channel_is_read() {
        assert_eq!(
            channel("[toolchain]\nchannel = \"1.95.0\"\n"),
            Some("1.95.0")
        );
        assert_eq!(channel("[toolchain]\n"), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(machine.rust.is_some() && machine.cores > 0, "{machine:?}");
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version_of("hyperactor-no-such-program", &[]), None);
    }
}
