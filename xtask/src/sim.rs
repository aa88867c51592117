//! The simulator of sessions: many seeds, or one again with its log.

use std::process::Command;

use anyhow::Result;
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
}

impl Arguments {
    /// What every change has to pass.
    pub(crate) const CI: [Self; 4] = [
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
    ];

    const SEEDS: Self = Self {
        seeds: 10_000,
        from: 0,
        twice: 5,
        edge: false,
        exhaustive: false,
        hole: false,
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
    let mut command = program();
    let worlds = [
        ("edge", arguments.edge),
        ("exhaustive", arguments.exhaustive),
        ("hole", arguments.hole),
    ];
    if let Some((world, _)) = worlds.iter().find(|(_, chosen)| *chosen) {
        return shell::run(command.arg(world));
    }
    command.args(["run", "--seeds", &arguments.seeds.to_string()]);
    command.args(["--from", &arguments.from.to_string()]);
    command.args(["--twice", &arguments.twice.to_string()]);
    shell::run(&mut command)
}

pub(crate) fn replay(arguments: &ReplayArguments) -> Result<()> {
    let mut command = program();
    command.args(["replay", &arguments.seed.to_string()]);
    if arguments.shrink {
        command.arg("--shrink");
    }
    shell::run(&mut command)
}

fn program() -> Command {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--release", "--package", PACKAGE, "--"]);
    command
}
