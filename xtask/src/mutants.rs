//! Planted bugs: each is built into the protocol on purpose, and the simulator has to find it. What it does not
//! find, it would not find by accident either.

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
}

const PLANTS: &[Plant] = &[
    Plant {
        name: "P1",
        what: "dropped with its session counts as delivered",
    },
    Plant {
        name: "P2",
        what: "acknowledged before it is handed over",
    },
    Plant {
        name: "P3",
        what: "acknowledgements pass gaps",
    },
    Plant {
        name: "P4",
        what: "a new life is taken for the old one",
    },
    Plant {
        name: "P5",
        what: "older connections are not fenced",
    },
    Plant {
        name: "P6",
        what: "sessions never expire",
    },
    Plant {
        name: "P7",
        what: "acknowledgements of unsent messages believed",
    },
    Plant {
        name: "P9",
        what: "a refusal leaves a hole that never closes",
    },
    Plant {
        name: "P12",
        what: "one that is too large fails its neighbours",
    },
    Plant {
        name: "P13",
        what: "the outgoing log has no limit",
    },
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only this one, such as `P3`; all of them if left out.
    name: Option<String>,
    /// The seeds within which each must be found.
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
struct Found {
    seed: u64,
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
        "{:<5} {:<46} {:>6}  {:>7}  flaw",
        "bug", "what", "seed", "ms"
    );
    for (plant, found, took) in &rows {
        let (seed, flaw) = match found {
            Some(found) => (found.seed.to_string(), found.flaw.as_str()),
            None => ("-".to_owned(), "NOT FOUND"),
        };
        let (name, what, took) = (plant.name, plant.what, took.as_millis());
        println!("{name:<5} {what:<46} {seed:>6}  {took:>7}  {flaw}");
    }
    let passed = rows.iter().filter(|(_, found, _)| found.is_some()).count();
    let failed = rows.len() - passed;
    println!("{passed} passed, {failed} failed");
    if failed != 0 {
        bail!(
            "{failed} planted bugs were not found within {} seeds",
            arguments.seeds
        );
    }
    Ok(())
}

/// Builds the simulator with the bug in, in a folder of its own, and runs it until it finds something.
fn hunt(plant: &Plant, seeds: u64) -> Result<(Option<Found>, Duration)> {
    let target = Workspace::load()?
        .target_directory
        .join("planted")
        .join(plant.name);
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(&format!(" --cfg planted=\"{}\"", plant.name));
    let mut build = shell::cargo();
    build
        .args(["build", "--quiet", "--release", "--package", sim::PACKAGE])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", flags)
        // Ten builds from nothing: how fast they are matters more than how fast their code is.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    eprint!("{} ", plant.name);
    shell::run(&mut build)?;
    let started = Instant::now();
    let output = Command::new(target.join("release").join(sim::PACKAGE))
        .args(["run", "--seeds", &seeds.to_string(), "--until-failure"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the simulator with a planted bug")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(read_failure);
    if found.is_some() == output.status.success() {
        bail!("the simulator's report and its exit code differ:\n{text}");
    }
    Ok((found, started.elapsed()))
}

/// Reads `seed 7: lost: message 3 …`.
fn read_failure(line: &str) -> Option<Found> {
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(": ")?;
    let (flaw, _) = rest.split_once(": ")?;
    Some(Found {
        seed: seed.parse().ok()?,
        flaw: flaw.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_seed_is_read_and_other_lines_are_not() {
        let found = read_failure("seed 7: false outcome: message 3 was told: twice").unwrap();
        assert_eq!((found.seed, found.flaw.as_str()), (7, "false outcome"));
        assert!(read_failure("seeds 0 to 9").is_none());
        assert!(read_failure("9 passed, 0 failed").is_none());
    }
}
