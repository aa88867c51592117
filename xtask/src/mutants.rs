//! Planted bugs: each is built into a layer on purpose, and the suite that guards the layer has to find it. What a
//! suite does not find on purpose, it would not find by accident either.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::Workspace;
use crate::{shell, sim};

/// One planted bug.
struct Plant {
    /// The value of `cfg(planted)` that turns it on.
    name: &'static str,
    what: &'static str,
    suite: Suite,
}

/// Who has to find it.
enum Suite {
    /// The simulator, within the seeds of the command.
    Sim,
    /// The mutated input for this member's parsers, within [`EXECS`] inputs.
    Fuzz(&'static str),
    /// A test of this member's own.
    Test(&'static str, &'static str),
}

/// The inputs within which a bug in a parser must be found.
const EXECS: &str = "1000000";

/// The seed of those inputs: each run of the command is the same.
const FUZZ_SEED: &str = "1";

const PLANTS: &[Plant] = &[
    Plant {
        name: "P1",
        what: "dropped with its session counts as delivered",
        suite: Suite::Sim,
    },
    Plant {
        name: "P2",
        what: "acknowledged before it is handed over",
        suite: Suite::Sim,
    },
    Plant {
        name: "P3",
        what: "acknowledgements pass gaps",
        suite: Suite::Sim,
    },
    Plant {
        name: "P4",
        what: "a new life is taken for the old one",
        suite: Suite::Sim,
    },
    Plant {
        name: "P5",
        what: "older connections are not fenced",
        suite: Suite::Sim,
    },
    Plant {
        name: "P6",
        what: "sessions never expire",
        suite: Suite::Sim,
    },
    Plant {
        name: "P7",
        what: "acknowledgements of unsent messages believed",
        suite: Suite::Sim,
    },
    Plant {
        name: "P9",
        what: "a refusal leaves a hole that never closes",
        suite: Suite::Sim,
    },
    Plant {
        name: "P12",
        what: "one that is too large fails its neighbours",
        suite: Suite::Sim,
    },
    Plant {
        name: "P13",
        what: "the outgoing log has no limit",
        suite: Suite::Sim,
    },
    Plant {
        name: "P14",
        what: "accepts that fail are tried without a pause",
        suite: Suite::Test("hyperactor-channel", "accepts_that_fail_are_tried_again"),
    },
    Plant {
        name: "P16",
        what: "parsing an address looks something up",
        suite: Suite::Fuzz("hyperactor-refs"),
    },
    Plant {
        name: "P17",
        what: "a stuck destination has no share and takes all",
        suite: Suite::Sim,
    },
    Plant {
        name: "P18",
        what: "the rest of a torn message goes on alone",
        suite: Suite::Sim,
    },
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only this one, such as `P3`; all of them if left out.
    name: Option<String>,
    /// The seeds within which the simulator must find each.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
}

impl Arguments {
    /// What every change has to pass.
    pub(crate) const CI: Self = Self {
        name: None,
        seeds: 1_000,
    };
}

/// How one planted bug showed.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// What leads there again: a seed, a target, a test.
    by: String,
    flaw: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let only = arguments.name.as_deref();
    let chosen: Vec<&Plant> = PLANTS
        .iter()
        .filter(|plant| only.is_none_or(|name| name.eq_ignore_ascii_case(plant.name)))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = PLANTS.iter().map(|plant| plant.name).collect();
        bail!("no such planted bug; there are: {}", names.join(", "));
    }
    let mut rows = Vec::new();
    for plant in chosen {
        let (found, took) = hunt(plant, arguments.seeds)?;
        rows.push((plant, found, took));
    }
    println!(
        "{:<5} {:<46} {:>10}  {:>7}  flaw",
        "bug", "what", "found by", "ms"
    );
    for (plant, found, took) in &rows {
        let (by, flaw) = match found {
            Some(found) => (found.by.as_str(), found.flaw.as_str()),
            None => ("-", "NOT FOUND"),
        };
        let (name, what, took) = (plant.name, plant.what, took.as_millis());
        println!("{name:<5} {what:<46} {by:>10}  {took:>7}  {flaw}");
    }
    let slowest = rows.iter().max_by_key(|(.., took)| *took);
    if let Some((plant, _, took)) = slowest {
        println!("slowest: {} in {} ms", plant.name, took.as_millis());
    }
    let passed = rows.iter().filter(|(_, found, _)| found.is_some()).count();
    let failed = rows.len() - passed;
    println!("{passed} passed, {failed} failed");
    if failed != 0 {
        bail!(
            "{failed} planted bugs were not found within {} seeds or {EXECS} inputs",
            arguments.seeds
        );
    }
    Ok(())
}

/// Builds the suite with the bug in, in a folder of its own, and runs it until it finds something. The time is that
/// of the run alone.
fn hunt(plant: &Plant, seeds: u64) -> Result<(Option<Found>, Duration)> {
    let target = Workspace::load()?
        .target_directory
        .join("planted")
        .join(plant.name);
    eprint!("{} ", plant.name);
    shell::run(&mut plant.suite.build(plant.name, &target))?;
    let started = Instant::now();
    let output = plant
        .suite
        .command(plant.name, &target, seeds)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the suite with a planted bug")?;
    let took = started.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(|line| plant.suite.read_failure(line));
    if found.is_some() == output.status.success() {
        bail!("the report of the suite and its exit code differ:\n{text}");
    }
    Ok((found, took))
}

impl Suite {
    fn build(&self, plant: &str, target: &Path) -> Command {
        match self {
            Self::Sim => {
                let mut build = cargo_build(plant, target);
                build.args(["--release", "--package", sim::PACKAGE]);
                build
            }
            Self::Fuzz(package) => {
                let mut build = cargo_build(plant, target);
                build.args(["--release", "--package", package]);
                build.args(["--example", "fuzz", "--features", "fuzzing"]);
                build
            }
            Self::Test(package, _) => {
                let mut build = cargo(plant, target, "test");
                build.args(["--no-run", "--lib", "--package", package]);
                build
            }
        }
    }

    fn command(&self, plant: &str, target: &Path, seeds: u64) -> Command {
        match self {
            Self::Sim => {
                let mut command = Command::new(target.join("release").join(sim::PACKAGE));
                command.args(["run", "--seeds", &seeds.to_string(), "--until-failure"]);
                command
            }
            Self::Fuzz(_) => {
                let mut command = Command::new(target.join("release/examples/fuzz"));
                command.args(["--execs", EXECS, "--seed", FUZZ_SEED]);
                // What is found on purpose is no finding to keep.
                command.arg("--findings").arg(target.join("findings"));
                command
            }
            Self::Test(package, test) => {
                let mut command = cargo(plant, target, "test");
                command.args(["--lib", "--package", package, test]);
                // One thread, and its report: a line for each failure, whatever the settings of the terminal.
                command.args(["--", "--test-threads", "1", "--color", "never"]);
                command
            }
        }
    }

    /// Reads the line that says what was found: `seed 7: lost: message 3 …`, `fuzz: finding in parts: …`.
    fn read_failure(&self, line: &str) -> Option<Found> {
        let (by, flaw) = match self {
            Self::Sim => {
                let (seed, rest) = line.strip_prefix("seed ")?.split_once(": ")?;
                let seed: u64 = seed.parse().ok()?;
                (format!("seed {seed}"), rest.split_once(": ")?.0)
            }
            Self::Fuzz(_) => {
                let (target, flaw) = line.strip_prefix("fuzz: finding in ")?.split_once(": ")?;
                (target.to_owned(), flaw)
            }
            Self::Test(package, _) => {
                let failed = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
                let name = failed.rsplit("::").next()?;
                let short = package.strip_prefix("hyperactor-").unwrap_or(package);
                (format!("{short} test"), name)
            }
        };
        // Of a long message the beginning tells.
        let flaw = flaw.chars().take(60).collect();
        Some(Found { by, flaw })
    }
}

fn cargo_build(plant: &str, target: &Path) -> Command {
    let mut command = cargo(plant, target, "build");
    command.arg("--quiet");
    command
}

/// Cargo with the bug in whatever it builds.
fn cargo(plant: &str, target: &Path, task: &str) -> Command {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(&format!(" --cfg planted=\"{plant}\""));
    let mut command = shell::cargo();
    command
        .args([task, "--target-dir"])
        .arg(target)
        .env("RUSTFLAGS", flags)
        // A dozen builds from nothing: how fast they are matters more than how fast their code is.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(by: &str, flaw: &str) -> Option<Found> {
        let (by, flaw) = (by.to_owned(), flaw.to_owned());
        Some(Found { by, flaw })
    }

    #[test]
    fn a_finding_of_each_suite_is_read_and_other_lines_are_not() {
        let (sim, fuzz, test) = (Suite::Sim, Suite::Fuzz("a"), Suite::Test("a", "b"));
        let line = "seed 7: false outcome: message 3 was told: twice";
        assert_eq!(sim.read_failure(line), found("seed 7", "false outcome"));
        let line = "fuzz: finding in parts: it broke";
        assert_eq!(fuzz.read_failure(line), found("parts", "it broke"));
        let line = "test net::tests::it_pauses ... FAILED";
        assert_eq!(test.read_failure(line), found("a test", "it_pauses"));
        for suite in [sim, fuzz, test] {
            for other in ["seeds 0 to 9", "9 passed, 0 failed", "fuzz: 9 inputs"] {
                assert_eq!(suite.read_failure(other), None, "{other}");
            }
        }
    }

    #[test]
    fn every_planted_bug_has_a_name_of_its_own() {
        for (at, plant) in PLANTS.iter().enumerate() {
            assert!(PLANTS[..at].iter().all(|other| other.name != plant.name));
        }
    }
}
