//! Planted bugs: each is built into a layer on purpose, and the suite that guards the layer has to find it. What a
//! suite does not find on purpose, it would not find by accident either.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
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
    /// The simulator, within this many times the seeds of the command.
    Sim(u64),
    /// The mutated input for this member's parsers, within [`EXECS`] inputs.
    Fuzz(&'static str),
    /// A test of this member's own, by its name.
    Test(&'static str, Place, &'static str),
    /// An example of this member that is a suite over real sockets or processes, with these arguments.
    Example(&'static str, &'static str, &'static [&'static str]),
}

/// Where a test stands.
#[derive(Clone, Copy)]
enum Place {
    Lib,
    /// In this file of the folder `tests`.
    File(&'static str),
}

/// The inputs within which a bug in a parser must be found.
const EXECS: &str = "1000000";

/// The seed of those inputs: each run of the command is the same.
const FUZZ_SEED: &str = "1";

const BOOTSTRAP: &str = "hyperactor-bootstrap";

const PLANTS: &[Plant] = &[
    Plant {
        name: "P1",
        what: "dropped with its session counts as delivered",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P2",
        what: "acknowledged before it is handed over",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P3",
        what: "acknowledgements pass gaps",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P4",
        what: "a new life is taken for the old one",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P5",
        what: "older connections are not fenced",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P6",
        what: "sessions never expire",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P7",
        what: "acknowledgements of unsent messages believed",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P8",
        what: "a route changes without a fence",
        suite: Suite::Example(
            BOOTSTRAP,
            "routes",
            &["routes", "--scale", "5", "--seed", "1"],
        ),
    },
    Plant {
        name: "P9",
        what: "a refusal leaves a hole that never closes",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P10",
        what: "a flush waits for the backend only",
        suite: Suite::Test(
            BOOTSTRAP,
            Place::File("dialer"),
            "a_flush_waits_for_what_went_straight",
        ),
    },
    Plant {
        name: "P11",
        what: "a link that failed is kept",
        suite: Suite::Test(
            BOOTSTRAP,
            Place::Lib,
            "what_never_left_goes_by_the_host_in_the_order_posted",
        ),
    },
    Plant {
        name: "P12",
        what: "one that is too large fails its neighbours",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P13",
        what: "the outgoing log has no limit",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P14",
        what: "accepts that fail are tried without a pause",
        suite: Suite::Test(
            "hyperactor-channel",
            Place::Lib,
            "accepts_that_fail_are_tried_again",
        ),
    },
    Plant {
        name: "P15",
        what: "a host that died first is not noticed",
        // Two deaths at least at each step of a start.
        suite: Suite::Example(BOOTSTRAP, "crash", &["race", "--scale", "8", "--seed", "1"]),
    },
    Plant {
        name: "P16",
        what: "parsing an address looks something up",
        suite: Suite::Fuzz("hyperactor-refs"),
    },
    Plant {
        name: "P17",
        what: "a stuck destination has no share and takes all",
        suite: Suite::Sim(1),
    },
    Plant {
        name: "P18",
        what: "the rest of a torn message goes on alone",
        // A peer's state has to be new in the middle of a message's parts: about one seed of eight hundred has that.
        suite: Suite::Sim(5),
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

/// Builds the suite with the bug in, apart from all else that is built, and runs it until it finds something. The time is
/// that of the run alone.
fn hunt(plant: &Plant, seeds: u64) -> Result<(Option<Found>, Duration)> {
    let build = Build::new(plant.name)?;
    eprint!("{} ", plant.name);
    shell::run(&mut plant.suite.build(&build))?;
    let started = Instant::now();
    let output = plant
        .suite
        .command(&build, seeds)
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

/// Builds with one bug.
struct Build {
    target: PathBuf,
    wrapper: PathBuf,
}

impl Build {
    /// What is built for all bugs is in one folder, so that what comes from elsewhere is built once. This workspace's own is
    /// kept apart by the name of the wrapper that passes the bug's name to the compiler.
    fn new(plant: &str) -> Result<Self> {
        let target = Workspace::load()?.target_directory.join("planted");
        let wrapper = target.join(format!("{plant}.sh"));
        let text = format!("#!/bin/sh\nexec \"$@\" --cfg 'planted=\"{plant}\"'\n");
        if std::fs::read_to_string(&wrapper).is_ok_and(|present| present == text) {
            return Ok(Self { target, wrapper });
        }
        let written = std::fs::create_dir_all(&target)
            .and_then(|()| std::fs::write(&wrapper, text))
            .and_then(|()| std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)));
        written.with_context(|| format!("cannot write {}", wrapper.display()))?;
        Ok(Self { target, wrapper })
    }

    /// Cargo with the bug in whatever it builds of this workspace.
    fn cargo(&self, task: &str) -> Command {
        let mut command = shell::cargo();
        command
            .args([task, "--target-dir"])
            .arg(&self.target)
            .env("RUSTC_WORKSPACE_WRAPPER", &self.wrapper)
            // A dozen builds: how fast they are matters more than how fast their code is.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        command
    }

    /// The tests of a place, as cargo is told.
    fn test(&self, package: &str, place: Place) -> Command {
        let mut command = self.cargo("test");
        command.args(["--package", package]);
        match place {
            Place::Lib => command.arg("--lib"),
            Place::File(name) => command.args(["--test", name]),
        };
        command
    }
}

impl Suite {
    fn build(&self, build: &Build) -> Command {
        match self {
            Self::Sim(_) => {
                let mut command = build.cargo("build");
                command.args(["--quiet", "--release", "--package", sim::PACKAGE]);
                command
            }
            Self::Fuzz(package) => {
                let mut command = build.cargo("build");
                command.args(["--quiet", "--release", "--package", package]);
                command.args(["--example", "fuzz", "--features", "fuzzing"]);
                command
            }
            Self::Test(package, place, _) => {
                let mut command = build.test(package, *place);
                command.arg("--no-run");
                command
            }
            Self::Example(package, example, _) => {
                let mut command = build.cargo("build");
                command.args(["--quiet", "--package", package, "--example", example]);
                command
            }
        }
    }

    fn command(&self, build: &Build, seeds: u64) -> Command {
        let target = &build.target;
        match self {
            Self::Sim(times) => {
                let seeds = seeds * times;
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
            Self::Test(package, place, test) => {
                let mut command = build.test(package, *place);
                command.arg(test);
                // One thread, and its report: a line for each failure, whatever the settings of the terminal.
                command.args(["--", "--test-threads", "1", "--color", "never"]);
                command
            }
            Self::Example(_, example, arguments) => {
                let mut command = Command::new(target.join("debug/examples").join(example));
                command.args(*arguments);
                command
            }
        }
    }

    /// Reads the line that says what was found: `seed 7: lost: message 3 …`, `fuzz: finding in parts: it …`, `test … FAILED`,
    /// `FAILED  what ought to hold: …`.
    fn read_failure(&self, line: &str) -> Option<Found> {
        let (by, flaw) = match self {
            Self::Sim(_) => {
                let (seed, rest) = line.strip_prefix("seed ")?.split_once(": ")?;
                let seed: u64 = seed.parse().ok()?;
                (format!("seed {seed}"), rest.split_once(": ")?.0)
            }
            Self::Fuzz(_) => {
                let (target, flaw) = line.strip_prefix("fuzz: finding in ")?.split_once(": ")?;
                (target.to_owned(), flaw)
            }
            Self::Test(package, ..) => {
                let failed = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
                let name = failed.rsplit("::").next()?;
                let short = package.strip_prefix("hyperactor-").unwrap_or(package);
                (format!("{short} test"), name)
            }
            Self::Example(_, example, _) => {
                let failed = line.trim_start().strip_prefix("FAILED  ")?;
                ((*example).to_owned(), failed.split(": ").next()?)
            }
        };
        // Of a long message the beginning tells.
        let flaw = flaw.chars().take(60).collect();
        Some(Found { by, flaw })
    }
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
        let (sim, fuzz) = (Suite::Sim(1), Suite::Fuzz("a"));
        let test = Suite::Test("hyperactor-a", Place::Lib, "b");
        let example = Suite::Example("a", "crash", &[]);
        let line = "seed 7: false outcome: message 3 was told: twice";
        assert_eq!(sim.read_failure(line), found("seed 7", "false outcome"));
        let line = "fuzz: finding in parts: it broke";
        assert_eq!(fuzz.read_failure(line), found("parts", "it broke"));
        let line = "test net::tests::it_pauses ... FAILED";
        assert_eq!(test.read_failure(line), found("a test", "it_pauses"));
        let line = "  FAILED  nothing is left: round 3: processes [7]";
        assert_eq!(
            example.read_failure(line),
            found("crash", "nothing is left")
        );
        for suite in [sim, fuzz, test, example] {
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
