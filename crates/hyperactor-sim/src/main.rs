//! The simulator's program: many seeds, or one again. `cargo xtask sim` and `cargo xtask replay` call it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use hyperactor_sim::{Batch, Scenario, judge, shrink};

const USAGE: &str = "usage: hyperactor-sim run --seeds N [--from S] [--twice PERCENT] [--until-failure]\n       \
                     hyperactor-sim replay SEED [--shrink]";

/// Failing seeds that are printed one by one.
const FAILURES_SHOWN: usize = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match parse(&arguments) {
        Some(Command::Run(plan)) => many(&plan),
        Some(Command::Replay { seed, shrinks }) => replay(seed, shrinks),
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot write the report: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Plan {
    seeds: u64,
    from: u64,
    twice_percent: u64,
    until_failure: bool,
}

enum Command {
    Run(Plan),
    Replay { seed: u64, shrinks: bool },
}

fn parse(arguments: &[String]) -> Option<Command> {
    let (command, rest) = arguments.split_first()?;
    let mut rest = rest.iter().map(String::as_str);
    if command == "replay" {
        let seed = rest.next()?.parse().ok()?;
        let shrinks = match rest.next() {
            None => false,
            Some("--shrink") => true,
            Some(_) => return None,
        };
        return Some(Command::Replay { seed, shrinks });
    }
    if command != "run" {
        return None;
    }
    let mut plan = Plan {
        seeds: 0,
        from: 0,
        twice_percent: 0,
        until_failure: false,
    };
    while let Some(name) = rest.next() {
        match name {
            "--seeds" => plan.seeds = rest.next()?.parse().ok()?,
            "--from" => plan.from = rest.next()?.parse().ok()?,
            "--twice" => plan.twice_percent = rest.next()?.parse().ok()?,
            "--until-failure" => plan.until_failure = true,
            _ => return None,
        }
    }
    Some(Command::Run(plan))
}

fn many(plan: &Plan) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let last = plan.from.saturating_add(plan.seeds);
    writeln!(out, "seeds {} to {}", plan.from, last.saturating_sub(1))?;
    let started = Instant::now();
    let mut batch = Batch::default();
    for seed in plan.from..last {
        // Spread evenly, and the same ones whenever the same seeds are run.
        let twice = seed * plan.twice_percent % 100 < plan.twice_percent;
        batch.add(seed, twice);
        if let Some((failed, flaw)) = batch.failed.last().filter(|(failed, _)| *failed == seed) {
            if batch.failed.len() <= FAILURES_SHOWN {
                writeln!(out, "seed {failed}: {}: {}", flaw.kind, flaw.detail)?;
            }
            if plan.until_failure {
                break;
            }
        }
    }
    let unseen = batch.unseen();
    if !plan.until_failure {
        for (text, seen, least) in batch.seen.rows() {
            writeln!(
                out,
                "{text:<48} {seen:>10}   at least {least} in 10000 seeds"
            )?;
        }
        let (slowest, seed) = batch.slowest;
        writeln!(
            out,
            "{} events, {} s virtual in {:.1} s, {} seeds twice, healed within {} ms (seed {seed}), log hash {:016x}",
            batch.events,
            batch.virtual_time / 1_000_000_000,
            started.elapsed().as_secs_f64(),
            batch.twice,
            slowest / 1_000_000,
            batch.hash
        )?;
        for (text, seen, least) in &unseen {
            writeln!(out, "vacuous: {text}: {seen} seen, {least} needed")?;
        }
    }
    if let Some((seed, _)) = batch.failed.first() {
        writeln!(
            out,
            "again, with the log: cargo xtask replay {seed} [--shrink]"
        )?;
    }
    writeln!(
        out,
        "{} passed, {} failed",
        batch.passed,
        batch.failed.len()
    )?;
    Ok(batch.failed.is_empty() && (plan.until_failure || unseen.is_empty()))
}

fn replay(seed: u64, shrinks: bool) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let scenario = Scenario::draw(seed);
    let outcome = judge(&scenario, !shrinks);
    let passed = outcome.flaws.is_empty();
    match outcome.flaws.first() {
        Some(flaw) if shrinks => write!(out, "{}", shrink(&scenario, flaw).report())?,
        _ => {
            writeln!(out, "seed {seed}")?;
            writeln!(out, "world: {}", scenario.world)?;
            for fault in &scenario.faults {
                writeln!(out, "{fault}")?;
            }
            write!(out, "{}", outcome.text.unwrap_or_default())?;
            for flaw in &outcome.flaws {
                writeln!(out, "{}: {}", flaw.kind, flaw.detail)?;
            }
            writeln!(out, "log hash {:016x}", outcome.hash)?;
        }
    }
    let failed = u32::from(!passed);
    writeln!(out, "{} passed, {failed} failed", 1 - failed)?;
    Ok(passed)
}
