//! The simulator of sessions: many seeds, or one again with its log.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::shell;

/// The member that has the simulator's program.
pub(crate) const PACKAGE: &str = "hyperactor-sim";

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many of a hundred seeds are run twice, to see that nothing but the seed decides.
    #[arg(long, default_value_t = 5, value_name = "PERCENT")]
    twice: u64,
    /// Instead of seeds: numbers at the edges of their ranges, lawful ones and lies.
    #[arg(long, group = "world")]
    edge: bool,
    /// Instead of seeds: every order of a few events, a break and a restart among them.
    #[arg(long, group = "world")]
    exhaustive: bool,
    /// Instead of seeds: one message is lost, a hundred thousand follow.
    #[arg(long, group = "world")]
    hole: bool,
    /// Runs the seeds in the debug build too, and compares the logs: no more than some hundred.
    #[arg(long, conflicts_with = "world")]
    builds: bool,
}

/// The seeds that every change runs in both builds: the debug build is slow.
const BOTH_BUILDS: u64 = 100;

impl Arguments {
    /// What every change has to pass.
    pub(crate) const CI: [Self; 5] = [
        Self::SEEDS,
        Self {
            edge: true,
            ..Self::SEEDS
        },
        Self {
            exhaustive: true,
            ..Self::SEEDS
        },
        Self {
            hole: true,
            ..Self::SEEDS
        },
        Self {
            seeds: BOTH_BUILDS,
            builds: true,
            ..Self::SEEDS
        },
    ];

    const SEEDS: Self = Self {
        seeds: 10_000,
        from: 0,
        twice: 5,
        edge: false,
        exhaustive: false,
        hole: false,
        builds: false,
    };
}

#[derive(Args)]
pub(crate) struct ReplayArguments {
    /// The seed, as a failing run prints it.
    seed: u64,
    /// Looks for the few faults and messages that matter, instead of printing the log.
    #[arg(long)]
    shrink: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.builds {
        return compare_builds(arguments);
    }
    let mut command = program();
    let worlds = [
        ("edge", arguments.edge),
        ("exhaustive", arguments.exhaustive),
        ("hole", arguments.hole),
    ];
    if let Some((world, _)) = worlds.iter().find(|(_, chosen)| *chosen) {
        return shell::run(command.arg(world));
    }
    shell::run(command.args(seeds(arguments)))
}

fn seeds(arguments: &Arguments) -> Vec<String> {
    let mut words = vec!["run".to_owned()];
    for (name, number) in [
        ("--seeds", arguments.seeds),
        ("--from", arguments.from),
        ("--twice", arguments.twice),
    ] {
        words.extend([name.to_owned(), number.to_string()]);
    }
    words
}

/// What the optimiser does, and what is only checked in debug builds, must not change what happens.
fn compare_builds(arguments: &Arguments) -> Result<()> {
    let mut hashes = Vec::new();
    for mut command in [program(), debug_program()] {
        let text = shell::capture(command.args(seeds(arguments)))?;
        let hash = text.lines().find_map(log_hash).map(str::to_owned);
        hashes.push(hash.context("the simulator printed no hash of its logs")?);
    }
    println!(
        "{} seeds, log hashes {}",
        arguments.seeds,
        hashes.join(" and ")
    );
    ensure!(
        hashes[0] == hashes[1],
        "release and debug build take different courses"
    );
    println!("1 passed, 0 failed");
    Ok(())
}

/// Reads the end of `… log hash 0123456789abcdef`.
fn log_hash(line: &str) -> Option<&str> {
    line.split_once("log hash ").map(|(_, hash)| hash)
}

pub(crate) fn replay(arguments: &ReplayArguments) -> Result<()> {
    let mut command = program();
    command.args(["replay", &arguments.seed.to_string()]);
    if arguments.shrink {
        command.arg("--shrink");
    }
    shell::run(&mut command)
}

fn debug_program() -> Command {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--package", PACKAGE, "--"]);
    command
}

fn program() -> Command {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--release", "--package", PACKAGE, "--"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_the_logs_is_read_and_other_lines_are_not() {
        assert_eq!(log_hash("9 events, log hash 00ff"), Some("00ff"));
        assert_eq!(log_hash("9 passed, 0 failed"), None);
    }
}
