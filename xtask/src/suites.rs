//! The suites that break, overload and deceive what runs over real sockets: `chaos`, `limits` and `sec`. Each is run by an
//! example program of the crate that it is about, in a process of its own; this file knows their names and what they cost,
//! chooses how much of each is run, and adds up their counts. What they do stands in those programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::counts::Counts;
use crate::pace::{Cost, Pace, cost, duration};
use crate::shell;
use crate::workspace::Workspace;

/// An example that runs suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Program {
    package: &'static str,
    name: &'static str,
}

/// Breaks channels.
const CHANNELS: Program = Program {
    package: "hyperactor-channel",
    name: "suites",
};

/// Breaks the routes between procs.
const ROUTES: Program = Program {
    package: "hyperactor-bootstrap",
    name: "routes",
};

/// The longest that one run of a suite may take before it counts as hung.
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
    program: Program,
    /// What a person learns from its passing.
    shows: &'static str,
    cost: Cost,
    /// Percent of the full figures for a quick look.
    smoke: u64,
    /// How often the full figures are run in a soak.
    soak: u64,
}

const SUITES: &[Suite] = &[
    Suite {
        group: Group::Chaos,
        name: "resets",
        program: CHANNELS,
        shows: "2,000 cuts at exact bytes over 200,000 messages on each transport change nothing",
        cost: cost(0.0, 7.0),
        smoke: 5,
        soak: 50,
    },
    Suite {
        group: Group::Chaos,
        name: "halfopen",
        program: CHANNELS,
        shows: "a new connection takes over from a silent one at once; late bytes have no effect",
        cost: cost(2.0, 4.0),
        smoke: 10,
        soak: 50,
    },
    Suite {
        group: Group::Chaos,
        name: "stall",
        program: CHANNELS,
        shows: "a connection that stalls inside a frame leaves no message without an outcome",
        cost: cost(5.3, 0.5),
        smoke: 100,
        soak: 40,
    },
    Suite {
        group: Group::Chaos,
        name: "slow",
        program: CHANNELS,
        shows: "a receiver that sleeps: what fits is acknowledged, what comes back never arrives",
        cost: cost(5.5, 0.0),
        smoke: 50,
        soak: 25,
    },
    Suite {
        group: Group::Chaos,
        name: "stuck",
        program: CHANNELS,
        shows: "destinations that take nothing stop their own senders; the others notice nothing",
        cost: cost(0.7, 3.0),
        smoke: 20,
        soak: 50,
    },
    Suite {
        group: Group::Chaos,
        name: "restarts",
        program: CHANNELS,
        shows: "a receiver restarted 200 times on its address is usable at the first handshake",
        cost: cost(0.0, 5.5),
        smoke: 10,
        soak: 100,
    },
    Suite {
        group: Group::Chaos,
        name: "expiry",
        program: CHANNELS,
        shows: "a dialer whose session the server gave up learns what became of each message",
        cost: cost(2.0, 0.0),
        smoke: 100,
        soak: 100,
    },
    Suite {
        group: Group::Chaos,
        name: "herd",
        program: CHANNELS,
        shows: "200 senders whose host restarts come back without a storm of dials",
        cost: cost(0.5, 20.5),
        smoke: 20,
        soak: 40,
    },
    Suite {
        group: Group::Chaos,
        name: "routes",
        program: ROUTES,
        shows: "500 changes of route under 100,000 messages, both ways and across lives, keep the order",
        cost: cost(0.5, 4.5),
        smoke: 5,
        soak: 50,
    },
    Suite {
        group: Group::Limits,
        name: "memory",
        program: CHANNELS,
        shows: "a writer that tries 1 GiB against a reader that never reads: both stay in bounds",
        cost: cost(3.0, 0.0),
        smoke: 100,
        soak: 20,
    },
    Suite {
        group: Group::Limits,
        name: "fds",
        program: CHANNELS,
        shows: "500 dials against 64 descriptors: sessions live on, and all recover",
        cost: cost(3.7, 0.0),
        smoke: 100,
        soak: 20,
    },
    Suite {
        group: Group::Limits,
        name: "frames",
        program: CHANNELS,
        shows: "512 MiB of address space: memory follows what arrived, not what was announced",
        cost: cost(0.1, 0.6),
        smoke: 100,
        soak: 100,
    },
    Suite {
        group: Group::Limits,
        name: "large",
        program: CHANNELS,
        shows: "a message of 1 GiB delays no small one and is held once by each end",
        cost: cost(0.5, 15.0),
        smoke: 10,
        soak: 20,
    },
    Suite {
        group: Group::Sec,
        name: "garbage",
        program: CHANNELS,
        shows: "10,000 connections of random bytes on each transport: only their own dies",
        cost: cost(0.0, 4.5),
        smoke: 5,
        soak: 100,
    },
    Suite {
        group: Group::Sec,
        name: "oversize",
        program: CHANNELS,
        shows: "lengths that cannot be end the session; lengths that can cost no memory",
        cost: cost(0.0, 0.3),
        smoke: 100,
        soak: 100,
    },
    Suite {
        group: Group::Sec,
        name: "versions",
        program: CHANNELS,
        shows: "foreign versions are refused with the range spoken here, newer fields skipped",
        cost: cost(0.1, 31.0),
        smoke: 10,
        soak: 5,
    },
    Suite {
        group: Group::Sec,
        name: "liar",
        program: CHANNELS,
        shows: "each lie ends the session with its code and disturbs no other",
        cost: cost(2.1, 0.0),
        smoke: 100,
        soak: 50,
    },
    Suite {
        group: Group::Sec,
        name: "slowloris",
        program: CHANNELS,
        shows: "1,000 peers that never finish their hello lock nobody out",
        cost: cost(5.3, 0.0),
        smoke: 100,
        soak: 20,
    },
    Suite {
        group: Group::Sec,
        name: "bombs",
        program: CHANNELS,
        shows: "bodies that claim huge contents cost neither memory nor time",
        cost: cost(0.0, 0.3),
        smoke: 100,
        soak: 100,
    },
];

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// A quick look at each: the whole group within 25 s.
    Smoke,
    /// What every change has to pass: the full figures once.
    Ci,
    /// The full figures again and again, with new seeds: hours.
    Soak,
}

#[derive(Args)]
pub(crate) struct Arguments {
    /// The suite's name, or `all`.
    suite: String,
    /// How much of it.
    #[arg(long, value_enum, default_value_t = Tier::Ci)]
    tier: Tier,
    /// Percent of the full figures, instead of the tier's.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=100))]
    scale: Option<u64>,
    /// How often each suite is run, instead of the tier's.
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u64).range(1..))]
    repeat: Option<u64>,
    /// How long all of it may take, such as 90s or 5m. On a slow machine the figures are scaled down to it; less than a
    /// quarter of them fails.
    #[arg(long, value_parser = duration)]
    budget: Option<Duration>,
    /// The seed of every choice, such as 42 or 0x2a; each suite prints the one to repeat it with.
    #[arg(long, conflicts_with = "repeat")]
    seed: Option<String>,
}

impl Arguments {
    /// What every change has to pass, within this time.
    pub(crate) fn ci(budget: Duration) -> Self {
        Self {
            suite: "all".to_owned(),
            tier: Tier::Ci,
            scale: None,
            repeat: None,
            budget: Some(budget),
            seed: None,
        }
    }

    fn scale_of(&self, suite: &Suite) -> u64 {
        self.scale.unwrap_or(match self.tier {
            Tier::Smoke => suite.smoke,
            Tier::Ci | Tier::Soak => 100,
        })
    }

    fn times_of(&self, suite: &Suite) -> u64 {
        self.repeat.unwrap_or(match self.tier {
            Tier::Soak => suite.soak,
            Tier::Smoke | Tier::Ci => 1,
        })
    }
}

/// Runs the suites of one group and fails unless everything passed.
pub(crate) fn run(group: Group, arguments: &Arguments) -> Result<()> {
    let counts = run_group(group, arguments)?;
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed > 0 || counts.passed == 0 {
        bail!("not everything passed");
    }
    Ok(())
}

/// Runs the suites of one group in their order, each in a process of its own, and adds up their counts.
///
/// # Errors
///
/// When they cannot be run, and when the budget is too small for them.
pub(crate) fn run_group(group: Group, arguments: &Arguments) -> Result<Counts> {
    let chosen: Vec<_> = SUITES
        .iter()
        .filter(|suite| suite.group == group)
        .filter(|suite| arguments.suite == "all" || arguments.suite == suite.name)
        .map(|suite| (suite, arguments.times_of(suite)))
        .collect();
    if chosen.is_empty() {
        bail!(
            "no such suite is called `{}`\n{}",
            arguments.suite,
            help(group)
        );
    }
    let workspace = Workspace::load()?;
    for program in [CHANNELS, ROUTES] {
        if chosen.iter().any(|(suite, _)| suite.program == program) {
            program.build(&workspace)?;
        }
    }
    let folder = workspace.target_directory.join("suites");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let mut counts = Counts::default();
    let mut table = String::new();
    let mut pace = Pace::new(arguments.budget);
    for (index, (suite, times)) in chosen.iter().enumerate() {
        let log = folder.join(format!("{}.log", suite.name));
        let (mut of_suite, started, mut scale) = (Counts::default(), Instant::now(), 100);
        for time in 0..*times {
            let mut rest: Vec<_> = chosen[index..]
                .iter()
                .map(|(suite, times)| (suite.cost, *times))
                .collect();
            rest[0].1 -= time;
            let allowed = pace.allows(&rest);
            // At least 1: no row is ever left out.
            scale = ((arguments.scale_of(suite) as f64 * allowed / 100.0) as u64).max(1);
            let began = Instant::now();
            let program = suite.program.path(&workspace);
            let found = run_one(&program, suite, scale, arguments, &log).unwrap_or_else(|error| {
                println!("FAILED  {}: {error:#}", suite.name);
                Counts::one(false)
            });
            pace.ran(suite.cost, scale, began.elapsed());
            if found.failed > 0 {
                let kept = folder.join(format!("{}-failed.log", suite.name));
                std::fs::copy(&log, &kept)
                    .with_context(|| format!("cannot keep {}", kept.display()))?;
                println!("what it did is told in {}", kept.display());
            }
            of_suite += found;
        }
        let seconds = started.elapsed().as_secs_f64();
        let runs = if *times == 1 {
            format!("{scale} %")
        } else {
            format!("{times} × {scale} %")
        };
        table += &format!("{:<10} {runs:>11} {seconds:>8.1}  {of_suite}\n", suite.name);
        counts += of_suite;
    }
    let total = format!("{:<10} {:>11} {:>8}", "suite", "scale", "seconds");
    println!("\n{total}  result\n{table}");
    pace.judge()?;
    Ok(counts)
}

impl Program {
    fn build(self, workspace: &Workspace) -> Result<()> {
        let Self { package, name } = self;
        if !workspace.has_target(package, "example", name) {
            bail!("package `{package}` has no example `{name}`");
        }
        let mut build = shell::cargo();
        build.args(["build", "--release", "--package", package]);
        shell::run(build.args(["--example", name]))
    }

    fn path(self, workspace: &Workspace) -> PathBuf {
        let examples = workspace.target_directory.join("release/examples");
        examples.join(self.name)
    }
}

/// Runs one suite and reads its last line. What it says of each step (every script of a proxy) goes to its log.
fn run_one(
    program: &Path,
    suite: &Suite,
    scale: u64,
    arguments: &Arguments,
    log: &Path,
) -> Result<Counts> {
    let mut command = Command::new(program);
    command.args([suite.name, "--scale", &scale.to_string()]);
    command.arg("--log").arg(log);
    if let Some(seed) = &arguments.seed {
        command.args(["--seed", seed]);
    }
    let mut counts = None;
    let status = shell::watch(&mut command, LIMIT, |line| {
        counts = Counts::of_suite(line).or(counts);
    })?;
    let counts = counts.context("it ended without a closing line")?;
    Ok(counts.with_exit(status.success()))
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
    fn a_quick_look_at_each_group_takes_no_more_than_twenty_five_seconds() {
        for group in [Group::Chaos, Group::Limits, Group::Sec] {
            let of_group = SUITES.iter().filter(|suite| suite.group == group);
            let seconds: f64 = of_group
                .map(|suite| suite.cost.waits + suite.cost.works * suite.smoke as f64 / 100.0)
                .sum();
            assert!(seconds <= 25.0, "{group:?}: {seconds}");
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
