//! `hyperactor doctor`: what this machine has and lacks for the program, and what will be used.

use std::fmt;
use std::fs;
use std::path::Path;

use hyperactor::bootstrap::limits::SOCKET_PATH_BYTES_MAX;
use hyperactor::bootstrap::{SOCKET_NAME_BYTES, SocketDir};
use hyperactor::host::DescribeHost;
use serde::Serialize;

use super::Shows;
use super::tool::with_tool;
use crate::args::Target;
use crate::failure::Failure;
use crate::limits;

/// One thing that was looked at.
#[derive(Serialize)]
struct Check {
    what: &'static str,
    state: State,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    Note,
    Bad,
}

#[derive(Serialize)]
struct Findings {
    checks: Vec<Check>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, check) in self.checks.iter().enumerate() {
            let state = match check.state {
                State::Good => "ok",
                State::Note => "note",
                State::Bad => "BAD",
            };
            let line = if index == 0 { "" } else { "\n" };
            write!(f, "{line}{state:>4}  {:20}  {}", check.what, check.found)?;
            if let Some(advice) = &check.advice {
                write!(f, "\n{:28}{advice}", "")?;
            }
        }
        Ok(())
    }
}

pub(super) async fn run(target: &Target) -> Result<Shows, Failure> {
    let mut checks = vec![
        kernel(),
        processors(),
        descriptors(),
        processes(),
        sockets(),
        pidfds(),
    ];
    checks.push(host(target).await);
    let bad = checks
        .iter()
        .filter(|check| check.state == State::Bad)
        .count();
    let failure = (bad > 0).then(|| Failure::Result(format!("{bad} things are bad")));
    Ok(Shows::new(&Findings { checks }, target.json)?.with_failure(failure))
}

fn good(what: &'static str, found: impl Into<String>) -> Check {
    Check {
        what,
        state: State::Good,
        found: found.into(),
        advice: None,
    }
}

fn kernel() -> Check {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => good("kernel", format!("Linux {}", release.trim())),
        Err(error) => Check {
            what: "kernel",
            state: State::Bad,
            found: format!("/proc cannot be read: {error}"),
            advice: Some("mount /proc: children are watched through it".to_owned()),
        },
    }
}

fn processors() -> Check {
    match std::thread::available_parallelism() {
        Ok(count) => good("processors", count.to_string()),
        Err(error) => Check {
            what: "processors",
            state: State::Note,
            found: error.to_string(),
            advice: None,
        },
    }
}

/// The soft limit of a resource in `/proc/self/limits`.
fn soft_limit(name: &str) -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let value = line.split_whitespace().next()?;
    if value == "unlimited" {
        Some(u64::MAX)
    } else {
        value.parse().ok()
    }
}

fn bounded(what: &'static str, name: &str, enough: u64, advice: &str) -> Check {
    match soft_limit(name) {
        Some(u64::MAX) => good(what, "unlimited"),
        Some(limit) if limit >= enough => good(what, limit.to_string()),
        Some(limit) => Check {
            what,
            state: State::Note,
            found: limit.to_string(),
            advice: Some(advice.to_owned()),
        },
        None => Check {
            what,
            state: State::Note,
            found: "unknown".to_owned(),
            advice: None,
        },
    }
}

fn descriptors() -> Check {
    bounded(
        "descriptors",
        "Max open files",
        limits::DESCRIPTORS_ENOUGH,
        "each pair of procs that talk takes one on both sides: `ulimit -n 4096` for many procs",
    )
}

fn processes() -> Check {
    bounded(
        "processes",
        "Max processes",
        limits::PROCESSES_ENOUGH,
        "each proc is a process: raise `ulimit -u`",
    )
}

/// Makes a socket directory as a host would, and removes it.
fn sockets() -> Check {
    match SocketDir::create() {
        Ok(dir) => {
            let path = dir.path().to_path_buf();
            let bytes = path.as_os_str().len() + 1 + SOCKET_NAME_BYTES;
            let left = drop_dir(dir, &path);
            let found = format!(
                "{} ({bytes} of {SOCKET_PATH_BYTES_MAX} bytes for a path)",
                parent(&path)
            );
            match left {
                true => Check {
                    what: "socket directory",
                    state: State::Bad,
                    found: format!("{} cannot be removed again", path.display()),
                    advice: Some("remove it, and look at the permissions of its parent".to_owned()),
                },
                false => good("socket directory", found),
            }
        }
        Err(error) => Check {
            what: "socket directory",
            state: State::Bad,
            found: error.to_string(),
            advice: Some("set XDG_RUNTIME_DIR or TMPDIR to a short path of your own".to_owned()),
        },
    }
}

fn drop_dir(dir: SocketDir, path: &Path) -> bool {
    drop(dir);
    path.exists()
}

fn parent(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

/// Children are owned through process descriptors, which Linux has since 5.3.
fn pidfds() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 4) {
        good("process descriptors", "there")
    } else {
        Check {
            what: "process descriptors",
            state: State::Bad,
            found: format!("Linux {} has not all of them", release.trim()),
            advice: Some("Linux 5.4 or newer is needed".to_owned()),
        }
    }
}

/// No host is no fault of the machine.
async fn host(target: &Target) -> Check {
    let described = with_tool(target, async |tool| {
        tool.ask_host(limits::TOOL_DEADLINE, |reply| DescribeHost { reply })
            .await
    });
    match described.await {
        Ok(host) => good(
            "host",
            format!(
                "{} answers (process {}, {} procs)",
                host.addr,
                host.pid,
                host.procs.len()
            ),
        ),
        Err(failure) => Check {
            what: "host",
            state: State::Note,
            found: failure.text(),
            advice: Some("`hyperactor host serve` starts one".to_owned()),
        },
    }
}
