//! The suites that break, overload and deceive the channels over real sockets: `chaos`, `limits` and `sec`. Each is run
//! by an example program of the channel crate in a process of its own; this file knows their names and adds up their
//! counts. What they do and how much of it stands in that program.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::counts::Counts;
use crate::shell;
use crate::workspace::Workspace;

const PACKAGE: &str = "hyperactor-channel";
const PROGRAM: &str = "suites";

/// The longest that one suite may take at its full figures before it counts as hung.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// What a suite is about: the command that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Chaos,
    Limits,
    Sec,
}

/// One suite.
struct Suite {
    group: Group,
    name: &'static str,
    /// What a person learns from its passing.
    shows: &'static str,
}

const SUITES: &[Suite] = &[
    Suite {
        group: Group::Chaos,
        name: "resets",
        shows: "2,000 cuts at exact bytes over 200,000 messages on each transport change nothing",
    },
    Suite {
        group: Group::Chaos,
        name: "halfopen",
        shows: "a new connection takes over from a silent one at once; late bytes have no effect",
    },
    Suite {
        group: Group::Chaos,
        name: "stall",
        shows: "a connection that stalls inside a frame leaves no message without an outcome",
    },
    Suite {
        group: Group::Chaos,
        name: "slow",
        shows: "a receiver that sleeps: what fits is acknowledged, what comes back never arrives",
    },
    Suite {
        group: Group::Chaos,
        name: "restarts",
        shows: "a receiver restarted 200 times on its address is usable at the first handshake",
    },
    Suite {
        group: Group::Chaos,
        name: "herd",
        shows: "200 senders whose host restarts come back without a storm of dials",
    },
    Suite {
        group: Group::Limits,
        name: "memory",
        shows: "a writer that tries 1 GiB against a reader that never reads stays within the window",
    },
    Suite {
        group: Group::Limits,
        name: "fds",
        shows: "500 dials against 64 descriptors: sessions live on, and all recover",
    },
    Suite {
        group: Group::Sec,
        name: "garbage",
        shows: "10,000 connections of random bytes: only their own connection dies",
    },
    Suite {
        group: Group::Sec,
        name: "oversize",
        shows: "lengths that cannot be end the session; lengths that can cost no memory",
    },
    Suite {
        group: Group::Sec,
        name: "versions",
        shows: "foreign versions are refused with the range spoken here, newer fields skipped",
    },
    Suite {
        group: Group::Sec,
        name: "liar",
        shows: "each lie ends the session with its code and disturbs no other",
    },
    Suite {
        group: Group::Sec,
        name: "slowloris",
        shows: "1,000 peers that never finish their hello lock nobody out",
    },
    Suite {
        group: Group::Sec,
        name: "bombs",
        shows: "bodies that claim huge contents cost neither memory nor time",
    },
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// The suite's name, or `all`.
    suite: String,
    /// Percent of the full figures.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    scale: u64,
    /// The seed of every choice, such as 42 or 0x2a; each suite prints the one to repeat it with.
    #[arg(long)]
    seed: Option<String>,
}

/// Runs the suites of one group in their order, each in a process of its own, and adds up their counts.
pub(crate) fn run(group: Group, arguments: &Arguments) -> Result<()> {
    let chosen: Vec<_> = SUITES
        .iter()
        .filter(|suite| suite.group == group)
        .filter(|suite| arguments.suite == "all" || arguments.suite == suite.name)
        .collect();
    if chosen.is_empty() {
        bail!(
            "no such suite is called `{}`\n{}",
            arguments.suite,
            help(group)
        );
    }
    let workspace = Workspace::load()?;
    if !workspace.has_target(PACKAGE, "example", PROGRAM) {
        bail!("package `{PACKAGE}` has no example `{PROGRAM}`");
    }
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package", PACKAGE]);
    shell::run(build.args(["--example", PROGRAM]))?;

    let folder = workspace.target_directory.join("suites");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let program = workspace
        .target_directory
        .join("release/examples")
        .join(PROGRAM);
    let mut counts = Counts::default();
    let mut table = String::new();
    for suite in chosen {
        let started = Instant::now();
        let log = folder.join(format!("{}.log", suite.name));
        let found = run_one(&program, suite, arguments, &log).unwrap_or_else(|error| {
            println!("FAILED  {}: {error:#}", suite.name);
            Counts::one(false)
        });
        if found.failed > 0 {
            println!("what it did is told in {}", log.display());
        }
        let seconds = started.elapsed().as_secs_f64();
        table += &format!("{:<10} {seconds:>8.1}  {found}\n", suite.name);
        counts += found;
    }
    println!("\n{:<10} {:>8}  result\n{table}", "suite", "seconds");
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed > 0 || counts.passed == 0 {
        bail!("not everything passed");
    }
    Ok(())
}

/// Runs one suite and reads its last line. What it says of each step (every script of a proxy) goes to its log.
fn run_one(program: &Path, suite: &Suite, arguments: &Arguments, log: &Path) -> Result<Counts> {
    let mut command = Command::new(program);
    command.args([suite.name, "--scale", &arguments.scale.to_string()]);
    command.arg("--log").arg(log);
    if let Some(seed) = &arguments.seed {
        command.args(["--seed", seed]);
    }
    let limit = LIMIT.mul_f64((arguments.scale as f64 / 100.0).max(1.0));
    let mut counts = None;
    let status = shell::watch(&mut command, limit, |line| {
        counts = closing(line).or(counts);
    })?;
    let counts = counts.context("it ended without a closing line")?;
    Ok(counts.with_exit(status.success()))
}

/// Reads `N passed, N failed`.
fn closing(line: &str) -> Option<Counts> {
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some(Counts {
        passed: passed.parse().ok()?,
        failed: failed.parse().ok()?,
        skipped: 0,
    })
}

/// The suites of one group, for its help.
pub(crate) fn help(group: Group) -> String {
    SUITES.iter().filter(|suite| suite.group == group).fold(
        "Suites:\n  all         every one of these".to_owned(),
        |text, suite| format!("{text}\n  {:<11} {}", suite.name, suite.shows),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_read_and_others_are_not() {
        let counts = closing("37 passed, 2 failed").unwrap();
        assert_eq!((counts.passed, counts.failed), (37, 2));
        for other in ["", "37 passed", "x passed, 2 failed", "ok  2 failed"] {
            assert_eq!(closing(other), None, "{other}");
        }
    }

    #[test]
    fn every_suite_has_a_name_of_its_own_and_a_line_of_help() {
        for (index, suite) in SUITES.iter().enumerate() {
            assert!(SUITES[..index].iter().all(|other| other.name != suite.name));
            assert!(help(suite.group).contains(suite.shows));
        }
    }
}
