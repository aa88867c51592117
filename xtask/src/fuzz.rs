//! Mutated input for parsers and decoders: on the stable toolchain by default, and guided by coverage on
//! nightly when asked. The bodies live beside the code that they attack; an example program of its crate
//! runs them on stable, the package in `fuzz/` under libFuzzer.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell;
use crate::workspace::{Workspace, root};

/// What makes rustc count the edges that an input takes, as libFuzzer reads them.
const COVERAGE_FLAGS: &str = "-Cpasses=sancov-module -Ccodegen-units=1 \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// One target: an example program of a member that takes `--execs N`.
struct Target {
    name: &'static str,
    package: &'static str,
    example: &'static str,
    /// The inputs that a change is worth on a machine with time.
    full: u64,
}

const TARGETS: &[Target] = &[
    Target {
        name: "refs",
        package: "hyperactor-refs",
        example: "fuzz",
        full: 20_000_000,
    },
    Target {
        name: "frames",
        package: "hyperactor-sim",
        example: "fuzz_frames",
        full: 20_000_000,
    },
    Target {
        name: "session",
        package: "hyperactor-sim",
        example: "fuzz_session",
        full: 300_000,
    },
];

impl Target {
    /// Whether a target of `fuzz/` is one of these, by the beginning of its name; those of `refs` have none.
    fn owns(&self, name: &str) -> bool {
        let begins = |name: &str| match name.split_once('_') {
            Some(("wire", _)) => "frames",
            Some(("session", _)) => "session",
            _ => "refs",
        };
        begins(name) == self.name
    }
}

#[derive(Args)]
pub(crate) struct Arguments {
    /// What to attack: `refs` (the text forms of addresses and ids), `frames` (all that reads the wire), or `session`
    /// (operations on two ends of a session).
    target: String,
    /// How many inputs to try: by default, the percentage of the target's full figure.
    #[arg(long)]
    execs: Option<u64>,
    /// Percent of the full figure: 20 million inputs, 300,000 sequences of operations.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    scale: u64,
    /// The seed of the first input; a failure prints the one to repeat it with.
    #[arg(long)]
    seed: Option<u64>,
    /// Let coverage guide the inputs: needs a nightly toolchain, and minutes to build.
    #[arg(long)]
    coverage: bool,
}

impl Arguments {
    /// What every change has to pass: a part of each figure, from a seed of its own.
    pub(crate) fn for_ci() -> impl Iterator<Item = Self> {
        TARGETS.iter().map(|target| Self {
            target: target.name.to_owned(),
            execs: None,
            scale: 5,
            seed: None,
            coverage: false,
        })
    }

    fn execs(&self, target: &Target) -> u64 {
        self.execs.unwrap_or(target.full * self.scale / 100)
    }
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
    if arguments.coverage {
        return run_with_coverage(target, arguments);
    }
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
    let execs = arguments.execs(target);
    let full = target.full;
    println!(
        "fuzz {}: {execs} of {full} inputs, {} %",
        target.name,
        execs * 100 / full
    );
    command.args(["--", "--execs", &execs.to_string()]);
    if let Some(seed) = arguments.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    shell::run(&mut command)
}

/// Shares the inputs out evenly among the targets of `fuzz/`. New inputs go to a folder of their own, so
/// that the committed corpus only grows when somebody chooses to.
fn run_with_coverage(target: &Target, arguments: &Arguments) -> Result<()> {
    let nightly = nightly(["rustc", "-vV"]).stderr(Stdio::null()).output();
    let Some(version) = nightly.ok().filter(|output| output.status.success()) else {
        bail!("no nightly toolchain is here: `rustup toolchain install nightly` brings one");
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say for which system it builds")?;
    let folder = root().join("fuzz");
    // With a target named, the flags are for the target alone and not for build scripts.
    let mut build = nightly_cargo("build", host);
    shell::run(&mut build)?;

    let mut names = target_names(&folder.join("fuzz_targets"))?;
    names.retain(|name| target.owns(name));
    let runs = arguments.execs(target).div_ceil(names.len().max(1) as u64);
    let artifacts = folder.join("artifacts").join(target.name);
    std::fs::create_dir_all(&artifacts)?;
    for name in &names {
        let found = folder.join("target/found").join(name);
        std::fs::create_dir_all(&found)?;
        let mut command = nightly_cargo("run", host);
        command.args(["--bin", name, "--"]);
        command.arg(format!("-runs={runs}"));
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.args(arguments.seed.map(|seed| format!("-seed={}", seed as u32)));
        command
            .arg(found)
            .arg(folder.join("corpus").join(target.name));
        shell::run(&mut command)?;
    }
    println!("{} passed, 0 failed", names.len());
    Ok(())
}

fn nightly<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).args(arguments);
    command
}

fn nightly_cargo(task: &str, host: &str) -> Command {
    let folder = root().join("fuzz");
    let mut command = nightly(["cargo", task, "--release", "--target", host]);
    command.arg("--target-dir").arg(folder.join("target"));
    command
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"));
    // The cargo that runs this program named itself and its compiler to what it starts.
    command
        .env_remove("RUSTC")
        .env_remove("RUSTDOC")
        .env_remove("CARGO");
    command.env("RUSTFLAGS", COVERAGE_FLAGS);
    command
}

/// The names of the files in `fuzz/fuzz_targets`, in their order.
fn target_names(folder: &Path) -> Result<Vec<String>> {
    let files =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_the_coverage_package_belongs_to_one_here() {
        let names = target_names(&root().join("fuzz/fuzz_targets")).unwrap();
        for target in TARGETS {
            assert!(
                names.iter().any(|name| target.owns(name)),
                "{}",
                target.name
            );
        }
        for name in &names {
            let owners = TARGETS.iter().filter(|target| target.owns(name));
            assert_eq!(owners.count(), 1, "{name}");
        }
    }
}
