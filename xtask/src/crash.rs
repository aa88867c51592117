//! The suites in which processes die: `crash`. Each is run by an example program of the bootstrap crate in a process of its
//! own; this file knows their names and adds up their counts. What they do and how much of it stands in that program.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::counts::Counts;
use crate::shell;
use crate::workspace::Workspace;

const PACKAGE: &str = "hyperactor-bootstrap";
const PROGRAM: &str = "crash";

/// The longest that one suite may take at its full figures before it counts as hung.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// The suites, and what a person learns from the passing of each.
const SUITES: &[(&str, &str)] = &[
    (
        "receiver",
        "100 receivers killed at a chosen message: one true outcome for each message, within 1 s",
    ),
    (
        "host",
        "100 hosts killed at any moment: their children and sockets are gone within 2 s",
    ),
    (
        "restart",
        "200 lives under four names: each is reached at once, and no message comes to another life",
    ),
    (
        "churn",
        "1,000 procs come and go: no child, descriptor, memory or socket is left",
    ),
    (
        "sender",
        "100 senders killed between two posts: what arrived is a beginning without a gap",
    ),
    (
        "pause",
        "30 processes stopped for 12 s, receivers and senders: outcomes are true, ways open again",
    ),
    (
        "driver",
        "what pumps a connection fails 50 times, 1,000 messages under way: one true outcome for each",
    ),
    (
        "race",
        "200 hosts killed while a child is at each step of its start: nothing is left",
    ),
    (
        "thread",
        "20 children whose starting thread ends: they live and answer",
    ),
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

/// Runs suites in their order, each in a process of its own, and adds up their counts.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen: Vec<_> = SUITES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| arguments.suite == "all" || arguments.suite == *name)
        .collect();
    if chosen.is_empty() {
        bail!("no such suite is called `{}`\n{}", arguments.suite, help());
    }
    let workspace = Workspace::load()?;
    if !workspace.has_target(PACKAGE, "example", PROGRAM) {
        bail!("package `{PACKAGE}` has no example `{PROGRAM}`");
    }
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package", PACKAGE]);
    shell::run(build.args(["--example", PROGRAM]))?;
    let program = workspace
        .target_directory
        .join("release/examples")
        .join(PROGRAM);
    let mut counts = Counts::default();
    let mut table = String::new();
    for name in chosen {
        let started = Instant::now();
        let found = run_one(&program, name, arguments).unwrap_or_else(|error| {
            println!("FAILED  {name}: {error:#}");
            Counts::one(false)
        });
        let seconds = started.elapsed().as_secs_f64();
        table += &format!("{name:<10} {seconds:>8.1}  {found}\n");
        counts += found;
    }
    println!("\n{:<10} {:>8}  result\n{table}", "suite", "seconds");
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    );
    if counts.failed > 0 || counts.passed == 0 {
        bail!("not everything passed");
    }
    Ok(())
}

/// Runs one suite and reads its last line.
fn run_one(program: &Path, name: &str, arguments: &Arguments) -> Result<Counts> {
    let mut command = Command::new(program);
    command.args([name, "--scale", &arguments.scale.to_string()]);
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

/// Reads `N passed, N failed, N skipped`.
fn closing(line: &str) -> Option<Counts> {
    let (passed, rest) = line.split_once(" passed, ")?;
    let (failed, rest) = rest.split_once(" failed, ")?;
    Some(Counts {
        passed: passed.parse().ok()?,
        failed: failed.parse().ok()?,
        skipped: rest.strip_suffix(" skipped")?.parse().ok()?,
    })
}

/// The suites, for the help.
pub(crate) fn help() -> String {
    SUITES.iter().fold(
        "Suites:\n  all         every one of these".to_owned(),
        |text, (name, shows)| format!("{text}\n  {name:<11} {shows}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_read_and_others_are_not() {
        let counts = closing("37 passed, 2 failed, 1 skipped").unwrap();
        assert_eq!((counts.passed, counts.failed, counts.skipped), (37, 2, 1));
        for other in [
            "",
            "37 passed",
            "x passed, 2 failed, 0 skipped",
            "1 passed, 2 failed",
        ] {
            assert_eq!(closing(other), None, "{other}");
        }
    }

    #[test]
    fn every_suite_has_a_name_of_its_own_and_a_line_of_help() {
        for (index, (name, shows)) in SUITES.iter().enumerate() {
            assert!(SUITES[..index].iter().all(|(other, _)| other != name));
            assert!(help().contains(shows));
        }
    }
}
