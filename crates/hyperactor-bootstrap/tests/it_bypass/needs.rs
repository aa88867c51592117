//! What a few tests need of the machine. Where it is missing they are left out, and counted as left out.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;

/// The role of a process of another user.
pub(crate) const STRANGER: &str = "stranger";

/// The role of a host whose disk is full.
pub(crate) const CROWDED: &str = "crowded";

/// The user that owns nothing, as the kernel has it.
pub(crate) const NOBODY: &str = "65534";

/// A test that starts a process of another user.
pub(crate) fn another_user(trial: Trial) -> Trial {
    let arguments = ["--reuid", NOBODY, "--clear-groups", "true"];
    unless(
        || succeeds("setpriv", &arguments),
        "root and setpriv",
        trial,
    )
}

/// A test that traces a process.
pub(crate) fn strace(trial: Trial) -> Trial {
    let arguments = ["--seccomp-bpf", "-f", "-e", "trace=%file", "true"];
    unless(|| succeeds("strace", &arguments), "strace", trial)
}

/// The command line that gives a program file systems of its own, if this machine can.
pub(crate) fn own_mounts() -> Option<&'static [&'static str]> {
    const AS_ROOT: &[&str] = &["--mount", "--propagation", "private"];
    const AS_USER: &[&str] = &["--user", "--map-root-user", "--mount"];
    let can = |arguments: &&&[&str]| {
        let mount = ["mount", "-t", "tmpfs", "tmpfs", "/mnt"];
        succeeds("unshare", &[arguments, &mount[..]].concat())
    };
    [AS_ROOT, AS_USER].iter().find(can).copied()
}

/// A test that mounts a file system.
pub(crate) fn mounts(trial: Trial) -> Trial {
    unless(|| own_mounts().is_some(), "unshare and mount", trial)
}

fn unless(has: impl FnOnce() -> bool, what: &str, trial: Trial) -> Trial {
    // Each test is a process of its own, and the machine is asked by the one that it is about.
    if !is_meant(trial.name()) || has() {
        return trial;
    }
    eprintln!("SKIPPED: {}: this machine lacks {what}", trial.name());
    trial.with_ignored_flag(true)
}

/// Whether this run of the program lists the test, or runs it.
fn is_meant(name: &str) -> bool {
    let mut arguments = std::env::args().skip(1);
    if arguments.any(|argument| argument == "--list") {
        return true;
    }
    let mut filters = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
