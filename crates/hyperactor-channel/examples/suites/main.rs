//! Suites that break, overload and deceive real channels over real sockets, and count what became of every message.
//!
//! `suites NAME [--scale PERCENT] [--seed SEED] [--log FILE]` runs one of them in this process; `cargo xtask chaos|limits|sec` builds
//! this program and runs the suites one after the other. Each prints its figures, how often each fault really took place,
//! and a last line `N passed, N failed`. What several suites need stands in `support`.

#![allow(
    clippy::unwrap_used,
    reason = "a suite may unwrap: its panic is counted and reported as a failure"
)]

mod bombs;
mod fds;
mod garbage;
mod halfopen;
mod herd;
mod liar;
mod liar_servers;
mod memory;
mod oversize;
mod resets;
mod restarts;
mod slow;
mod slowloris;
mod stall;
mod support;
mod versions;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use hyperactor_testkit::Seed;
use support::{Context, Report};

/// A suite's name and its work.
type Suite = (&'static str, fn(&Context, &mut Report));

const SUITES: &[Suite] = &[
    ("resets", resets::run),
    ("halfopen", halfopen::run),
    ("stall", stall::run),
    ("slow", slow::run),
    ("restarts", restarts::run),
    ("herd", herd::run),
    ("garbage", garbage::run),
    ("oversize", oversize::run),
    ("versions", versions::run),
    ("liar", liar::run),
    ("slowloris", slowloris::run),
    ("memory", memory::run),
    ("fds", fds::run),
    ("bombs", bombs::run),
];

/// What this program does as a process that a suite starts.
type Child = (&'static str, fn(&[String]));

const CHILDREN: &[Child] = &[("fds", fds::serve), ("herd", herd::host)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, rest @ ..] = &arguments[..]
        && flag == "--child"
        && let Some((_, work)) = CHILDREN.iter().find(|(child, _)| child == name)
    {
        work(rest);
        return ExitCode::SUCCESS;
    }
    match parse(&arguments) {
        Ok((suite, context)) => run(suite, &context),
        Err(error) => {
            let names: Vec<_> = SUITES.iter().map(|(name, _)| *name).collect();
            eprintln!("error: {error}");
            eprintln!("usage: suites NAME [--scale PERCENT] [--seed SEED] [--log FILE]");
            eprintln!("names: {}", names.join(", "));
            ExitCode::FAILURE
        }
    }
}

fn run((name, work): Suite, context: &Context) -> ExitCode {
    let mut report = Report::default();
    println!(
        "== {name}: seed {}, scale {} %",
        context.seed, context.scale
    );
    support::process::raise_descriptors();
    support::victim::count_panics();
    let started = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| work(context, &mut report)));
    report.check("the suite ran to its end", ended.is_ok(), "it panicked");
    report.figure("seconds", format!("{:.1}", started.elapsed().as_secs_f64()));
    let passed = report.failed == 0;
    if !passed {
        println!(
            "to repeat: --seed {} --scale {}",
            context.seed, context.scale
        );
    }
    println!("{} passed, {} failed", report.passed, report.failed);
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(arguments: &[String]) -> Result<(Suite, Context), String> {
    let mut name = None;
    let (mut scale, mut seed, mut log) = (100, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--scale" => {
                let text = value()?;
                scale = text
                    .parse()
                    .ok()
                    .filter(|scale| (1..=100_000).contains(scale))
                    .ok_or(format!("`{text}` is no percentage from 1 to 100000"))?;
            }
            "--log" => log = Some(value()?.clone()),
            "--seed" => seed = Some(value()?.parse().map_err(|error| format!("{error}"))?),
            _ if name.is_none() => name = Some(argument),
            _ => return Err(format!("`{argument}` is one argument too many")),
        }
    }
    if let Some(log) = log {
        // What the proxies and the panics say, megabytes at times, goes there instead of to standard error.
        let error = |error: std::io::Error| format!("cannot write {log}: {error}");
        let file = std::fs::File::create(&log).map_err(error)?;
        rustix::stdio::dup2_stderr(file).map_err(|errno| error(errno.into()))?;
    }
    let name = name.ok_or("which suite?")?;
    let suite = SUITES
        .iter()
        .find(|(known, _)| known == name)
        .ok_or(format!("no suite is called `{name}`"))?;
    let seed = seed.unwrap_or_else(Seed::from_env);
    Ok((*suite, Context { seed, scale }))
}
