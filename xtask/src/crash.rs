//! The suites in which processes die: `crash`. Each is run by an example program of the bootstrap crate in a process of its
//! own; this file knows their names and what they cost, and adds up their counts. What they do stands in that program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::counts::Counts;
use crate::pace::{Cost, Pace, cost, duration};
use crate::shell;
use crate::workspace::Workspace;

const PACKAGE: &str = "hyperactor-bootstrap";
const PROGRAM: &str = "crash";

/// The longest that one suite may take at its full figures before it counts as hung.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// One suite.
struct Suite {
    name: &'static str,
    /// What a person learns from its passing.
    shows: &'static str,
    cost: Cost,
    /// Whether it spends its time waiting, so that it is run beside the others.
    waits: bool,
}

const fn suite(name: &'static str, cost: Cost, shows: &'static str) -> Suite {
    Suite {
        name,
        shows,
        cost,
        waits: false,
    }
}

const SUITES: &[Suite] = &[
    suite(
        "receiver",
        cost(0.0, 3.5),
        "100 receivers killed at a chosen message: one true outcome for each message, within 1 s",
    ),
    suite(
        "sender",
        cost(0.0, 2.0),
        "100 senders killed between two posts: what arrived is a beginning without a gap",
    ),
    suite(
        "host",
        cost(0.0, 11.0),
        "100 hosts killed at any moment: their children and sockets are gone within 2 s",
    ),
    suite(
        "race",
        cost(0.0, 9.0),
        "200 hosts killed while a child is at each step of its start: nothing is left",
    ),
    suite(
        "random",
        cost(0.0, 40.0),
        "200 rounds of kills at random, hosts, procs and their programs: everything is as before",
    ),
    suite(
        "thread",
        cost(1.0, 0.5),
        "20 children whose starting thread ends: they live and answer",
    ),
    suite(
        "restart",
        cost(0.0, 3.5),
        "200 lives under four names: each is reached at once, and no message comes to another life",
    ),
    suite(
        "churn",
        cost(0.0, 4.0),
        "1,000 procs come and go: no child, descriptor, memory or socket is left",
    ),
    suite(
        "driver",
        cost(0.0, 9.0),
        "what pumps a connection fails 50 times, 1,000 messages under way: one true outcome for each",
    ),
    Suite {
        name: "pause",
        shows: "30 processes stopped for 12 s, receivers and senders: outcomes are true, ways open again",
        cost: cost(13.0, 1.5),
        waits: true,
    },
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// The suite's name, or `all`.
    suite: String,
    /// Percent of the full figures.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    scale: u64,
    /// How often each suite is run, with new seeds.
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
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
            scale: 100,
            repeat: 1,
            budget: Some(budget),
            seed: None,
        }
    }
}

/// Runs suites, and fails unless everything passed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let counts = run_suites(arguments)?;
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    );
    if counts.failed > 0 || counts.passed == 0 {
        bail!("not everything passed");
    }
    Ok(())
}

/// Runs suites in their order, each in a process of its own, and adds up their counts. Those that mostly wait are run beside
/// the others.
///
/// # Errors
///
/// When they cannot be run, and when the budget is too small for them.
pub(crate) fn run_suites(arguments: &Arguments) -> Result<Counts> {
    let chosen: Vec<_> = SUITES
        .iter()
        .filter(|suite| arguments.suite == "all" || arguments.suite == suite.name)
        .collect();
    if chosen.is_empty() {
        bail!("no such suite is called `{}`\n{}", arguments.suite, help());
    }
    let program = build()?;
    let mut table = Table::default();
    let mut pace = Pace::new(arguments.budget);
    for _ in 0..arguments.repeat {
        run_all(&program, &chosen, arguments, &mut pace, &mut table);
    }
    let Table { rows, counts } = table;
    println!(
        "\n{:<10} {:>7} {:>8}  result\n{rows}",
        "suite", "scale", "seconds"
    );
    pace.judge()?;
    Ok(counts)
}

/// Runs each of the suites once.
fn run_all(
    program: &Path,
    chosen: &[&Suite],
    arguments: &Arguments,
    pace: &mut Pace,
    table: &mut Table,
) {
    // A lone one has nobody to run beside.
    let (beside, others): (Vec<&Suite>, Vec<&Suite>) = chosen
        .iter()
        .partition(|suite| suite.waits && chosen.len() > 1);
    let works = |suites: &[&Suite]| -> Vec<_> {
        let suites = suites.iter();
        suites.map(|suite| (suite.cost, 1)).collect()
    };
    let scale_of = |allowed: f64| ((arguments.scale as f64 * allowed / 100.0) as u64).max(1);
    std::thread::scope(|scope| {
        let all = works(&others);
        let scale = scale_of(pace.allows(&all));
        let beside: Vec<_> = beside
            .into_iter()
            .map(|suite| {
                let run = move || {
                    let mut said = String::new();
                    let done = run_one(program, suite, scale, arguments, Some(&mut said));
                    (done, said)
                };
                (suite, scope.spawn(run))
            })
            .collect();
        for (index, suite) in others.iter().enumerate() {
            let scale = scale_of(pace.allows(&works(&others[index..])));
            let done = run_one(program, suite, scale, arguments, None);
            pace.ran(suite.cost, scale, done.took);
            table.add(suite, &done);
        }
        for (suite, thread) in beside {
            match thread.join() {
                Ok((done, said)) => {
                    print!("{said}");
                    table.add(suite, &done);
                }
                Err(_) => table.counts += Counts::one(false),
            }
        }
    });
}

/// What was run so far.
#[derive(Default)]
struct Table {
    rows: String,
    counts: Counts,
}

impl Table {
    fn add(&mut self, suite: &Suite, done: &Done) {
        let Done {
            counts,
            scale,
            took,
        } = done;
        let seconds = took.as_secs_f64();
        self.rows += &format!("{:<10} {scale:>5} % {seconds:>8.1}  {counts}\n", suite.name);
        self.counts += *counts;
    }
}

/// What came of one run.
struct Done {
    counts: Counts,
    scale: u64,
    took: Duration,
}

/// Builds the program; gives its path.
fn build() -> Result<PathBuf> {
    let workspace = Workspace::load()?;
    if !workspace.has_target(PACKAGE, "example", PROGRAM) {
        bail!("package `{PACKAGE}` has no example `{PROGRAM}`");
    }
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package", PACKAGE]);
    shell::run(build.args(["--example", PROGRAM]))?;
    let folder = workspace.target_directory.join("release/examples");
    Ok(folder.join(PROGRAM))
}

/// Runs one suite. What it says is passed through, or kept.
fn run_one(
    program: &Path,
    suite: &Suite,
    scale: u64,
    arguments: &Arguments,
    said: Option<&mut String>,
) -> Done {
    let started = Instant::now();
    let counts = watch_one(program, suite, scale, arguments, said).unwrap_or_else(|error| {
        println!("FAILED  {}: {error:#}", suite.name);
        Counts::one(false)
    });
    Done {
        counts,
        scale,
        took: started.elapsed(),
    }
}

/// Runs one suite and reads its last line.
fn watch_one(
    program: &Path,
    suite: &Suite,
    scale: u64,
    arguments: &Arguments,
    said: Option<&mut String>,
) -> Result<Counts> {
    let mut command = Command::new(program);
    command.args([suite.name, "--scale", &scale.to_string()]);
    if let Some(seed) = &arguments.seed {
        command.args(["--seed", seed]);
    }
    let limit = LIMIT.mul_f64((scale as f64 / 100.0).max(1.0));
    let mut counts = None;
    let status = match said {
        None => shell::watch(&mut command, limit, |line| {
            counts = Counts::of_suite(line).or(counts);
        }),
        Some(said) => shell::watch_quietly(&mut command, limit, |line| {
            counts = Counts::of_suite(line).or(counts);
            *said += line;
            said.push('\n');
        }),
    }?;
    let counts = counts.context("it ended without a closing line")?;
    Ok(counts.with_exit(status.success()))
}

/// The suites, for the help.
pub(crate) fn help() -> String {
    SUITES.iter().fold(
        "Suites:\n  all         every one of these".to_owned(),
        |text, suite| format!("{text}\n  {:<11} {}", suite.name, suite.shows),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_a_name_of_its_own_and_a_line_of_help() {
        for (index, suite) in SUITES.iter().enumerate() {
            assert!(SUITES[..index].iter().all(|other| other.name != suite.name));
            assert!(help().contains(suite.shows));
        }
    }
}
