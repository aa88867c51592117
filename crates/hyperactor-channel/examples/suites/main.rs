//! Suites that break, overload and deceive real channels over real sockets, and count what became of every message.
//!
//! `suites NAME [--scale PERCENT] [--seed SEED] [--transport KIND] [--log FILE]` runs one of them; `cargo xtask chaos|limits|sec`
//! builds this program and runs the suites one after the other. Each prints its figures, how often each fault really took
//! place, and a last line `N passed, N failed, N skipped`. What several suites need stands in `support`.

#![allow(
    clippy::unwrap_used,
    reason = "a suite may unwrap: its panic is counted and reported as a failure"
)]

mod bombs;
mod expiry;
mod fds;
mod frames;
mod garbage;
mod halfopen;
mod herd;
mod large;
mod liar;
mod liar_labels;
mod liar_servers;
mod memory;
mod oversize;
mod resets;
mod restarts;
mod slow;
mod slowloris;
mod stall;
mod stuck;
mod support;
mod versions;

use std::process::ExitCode;

use hyperactor_testkit::{Scale, ScaleError, Seed, SuiteReport, run_suite};
use support::net::Kind;
use support::{Context, apart};

/// How a suite goes about the transports.
#[derive(Clone, Copy)]
enum Work {
    /// One process has them all.
    Together(fn(&Context, &mut SuiteReport)),
    /// Each has a process of its own, all at once: what waits does so once, and what one transport costs in memory and
    /// descriptors is not mixed up with the others.
    Apart(fn(Kind, &Context, &mut SuiteReport)),
}
use Work::{Apart, Together};

/// A suite's name and its work.
type Suite = (&'static str, Work);

const SUITES: &[Suite] = &[
    ("resets", Together(resets::run)),
    ("halfopen", Together(halfopen::run)),
    ("stall", Together(stall::run)),
    ("slow", Together(slow::run)),
    ("stuck", Apart(stuck::run)),
    ("restarts", Apart(restarts::run)),
    ("expiry", Apart(expiry::run)),
    ("herd", Apart(herd::run)),
    ("garbage", Apart(garbage::run)),
    ("oversize", Apart(oversize::run)),
    ("versions", Apart(versions::run)),
    ("liar", Apart(liar::run)),
    ("slowloris", Apart(slowloris::run)),
    ("memory", Apart(memory::run)),
    ("fds", Apart(fds::run)),
    ("frames", Apart(frames::run)),
    ("large", Together(large::run)),
    ("bombs", Together(bombs::run)),
];

/// What this program does as a process that a suite starts.
type Child = (&'static str, fn(&[String]));

const CHILDREN: &[Child] = &[
    ("fds", fds::serve),
    ("frames", frames::serve),
    ("herd", herd::host),
    ("large", large::serve),
    ("memory", memory::serve),
];

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
            eprintln!(
                "usage: suites NAME [--scale PERCENT] [--seed SEED] [--transport KIND] [--log FILE]"
            );
            eprintln!("names: {}", names.join(", "));
            ExitCode::FAILURE
        }
    }
}

fn run((name, work): Suite, context: &Context) -> ExitCode {
    let on = context.kind.map_or("all transports", Kind::name);
    let title = format!("{name}, {on}");
    let report = SuiteReport::telling_all();
    run_suite(&title, context.seed, context.scale, report, |report| {
        match (work, context.kind) {
            (Apart(_), None) => apart::run(name, context, report),
            (Apart(work), Some(kind)) => {
                prepare();
                work(kind, context, report);
            }
            (Together(work), _) => {
                prepare();
                work(context, report);
            }
        }
        Ok(())
    })
}

fn prepare() {
    support::process::raise_descriptors();
    support::victim::count_panics();
}

fn parse(arguments: &[String]) -> Result<(Suite, Context), String> {
    let mut name = None;
    let (mut scale, mut seed, mut log, mut kind) = (Scale::FULL, None, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--scale" => {
                scale = value()?
                    .parse()
                    .map_err(|error: ScaleError| error.to_string())?;
            }
            "--transport" => {
                let text = value()?;
                kind = Some(Kind::parse(text).ok_or(format!("no transport is called `{text}`"))?);
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
    Ok((*suite, Context { seed, scale, kind }))
}
