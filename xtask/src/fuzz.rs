//! Mutated input for parsers and decoders, on the stable toolchain. The targets live beside the code
//! that they attack, as an example program of its crate.

use anyhow::{Result, bail};
use clap::Args;

use crate::shell;
use crate::workspace::Workspace;

/// One target: an example program of a member that takes `--execs N`.
struct Target {
    name: &'static str,
    package: &'static str,
    example: &'static str,
}

const TARGETS: &[Target] = &[Target {
    name: "refs",
    package: "hyperactor-refs",
    example: "fuzz",
}];

#[derive(Args)]
pub(crate) struct Arguments {
    /// What to attack: `refs` (the text forms of addresses and ids).
    target: String,
    /// How many inputs to try.
    #[arg(long, default_value_t = 1_000_000)]
    execs: u64,
    /// The seed of the first input; a failure prints the one to repeat it with.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Some(target) = TARGETS
        .iter()
        .find(|target| target.name == arguments.target)
    else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        bail!(
            "no fuzz target is called `{}`; there are: {}",
            arguments.target,
            names.join(", ")
        );
    };
    let workspace = Workspace::load()?;
    let Some(example) = workspace.target(target.package, "example", target.example) else {
        bail!(
            "package `{}` has no example `{}`",
            target.package,
            target.example
        );
    };
    let mut command = shell::cargo();
    command.args(["run", "--release", "--package", target.package]);
    command.args(["--example", target.example]);
    if !example.required_features.is_empty() {
        command.args(["--features", &example.required_features.join(",")]);
    }
    command.args(["--", "--execs", &arguments.execs.to_string()]);
    if let Some(seed) = arguments.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    shell::run(&mut command)
}
