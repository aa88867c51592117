//! Suites in which processes die, and whoever is left must be told the truth, tidy up and go on.
//!
//! `crash NAME [--scale PERCENT] [--seed SEED]` runs one of them; `cargo xtask crash NAME` builds this program and runs it.
//! Each prints its figures and a last line `N passed, N failed, N skipped`. Evidence is written before anybody is told, and
//! by the kernel's hand: what a process had taken when it was killed can be read after its death.

#![allow(
    clippy::unwrap_used,
    reason = "a suite may unwrap: its panic is counted and reported as a failure"
)]

mod actors;
mod breeder;
mod census;
mod churn;
mod clock;
mod deeds;
mod driver;
mod host;
mod impatient;
mod lanes;
mod pause;
mod race;
mod random;
mod receiver;
mod report;
mod restart;
mod sender;
mod thread;
mod world;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use hyperactor_bootstrap::Bootstrap;
use hyperactor_testkit::{Scale, Seed, SuiteReport, TempSocketDir, run_suite};
use report::{Context, Result};

type Work<'a> = Pin<Box<dyn Future<Output = Result> + 'a>>;

/// A suite's name and its work.
type Suite = (
    &'static str,
    for<'a> fn(&'a Context, &'a mut SuiteReport) -> Work<'a>,
);

const SUITES: &[Suite] = &[
    ("receiver", |context, report| {
        Box::pin(receiver::run(context, report))
    }),
    ("host", |context, report| {
        Box::pin(host::run(context, report))
    }),
    ("restart", |context, report| {
        Box::pin(restart::run(context, report))
    }),
    ("churn", |context, report| {
        Box::pin(churn::run(context, report))
    }),
    ("sender", |context, report| {
        Box::pin(sender::run(context, report))
    }),
    ("pause", |context, report| {
        Box::pin(pause::run(context, report))
    }),
    ("driver", |context, report| {
        Box::pin(driver::run(context, report))
    }),
    ("race", |context, report| {
        Box::pin(race::run(context, report))
    }),
    ("thread", |context, report| {
        Box::pin(thread::run(context, report))
    }),
    ("random", |context, report| {
        Box::pin(random::run(context, report))
    }),
];

fn main() -> ExitCode {
    race::pass("boot");
    Bootstrap::new()
        .registry(actors::registry())
        .on_child_start(|| race::pass("start"))
        .run_if_child();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [flag, role, rest @ ..] if flag == world::ROLE => {
            play(role, rest).map(|()| ExitCode::SUCCESS)
        }
        _ => parse(&arguments).map(|(suite, seed, scale)| run(suite, seed, scale)),
    };
    outcome.unwrap_or_else(|error| {
        let names: Vec<_> = SUITES.iter().map(|(name, _)| *name).collect();
        eprintln!("error: {error}");
        eprintln!("usage: crash NAME [--scale PERCENT] [--seed SEED]");
        eprintln!("names: {}", names.join(", "));
        ExitCode::FAILURE
    })
}

/// What this program does as a process that a suite starts, to be killed mostly.
fn play(role: &str, rest: &[String]) -> Result {
    let runtime = tokio::runtime::Runtime::new()?;
    match role {
        "host" => runtime.block_on(host::play(rest)),
        "race" => runtime.block_on(race::play(rest)),
        "random" => runtime.block_on(random::play(rest)),
        "taker" => runtime.block_on(impatient::take(rest)),
        "teller" => runtime.block_on(impatient::tell(rest)),
        "inner" => runtime.block_on(random::play_inner()),
        other => Err(format!("no such role: {other}").into()),
    }
}

fn run((name, work): Suite, seed: Seed, scale: Scale) -> ExitCode {
    run_suite(name, seed, scale, SuiteReport::default(), |report| {
        let context = Context {
            seed,
            scale,
            folder: TempSocketDir::new()?,
        };
        tokio::runtime::Runtime::new()?.block_on(work(&context, report))
    })
}

fn parse(arguments: &[String]) -> Result<(Suite, Seed, Scale)> {
    let mut name = None;
    let (mut scale, mut seed) = (Scale::FULL, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--scale" => scale = value()?.parse()?,
            "--seed" => seed = Some(value()?.parse()?),
            _ if name.is_none() => name = Some(argument),
            _ => return Err(format!("`{argument}` is one argument too many").into()),
        }
    }
    let name = name.ok_or("which suite?")?;
    let suite = SUITES
        .iter()
        .find(|(known, _)| known == name)
        .ok_or(format!("no suite is called `{name}`"))?;
    Ok((*suite, seed.unwrap_or_else(Seed::from_env), scale))
}
