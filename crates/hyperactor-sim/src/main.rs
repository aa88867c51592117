//! The simulator's program: many seeds, or one again. `cargo xtask sim` and `cargo xtask replay` call it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use hyperactor_sim::{
    Batch, FOLLOWERS, HOLES, SMALL_WORLDS, Scenario, edge, explore_all, judge, pass, shrink,
};

const USAGE: &str = "usage: hyperactor-sim run --seeds N [--from S] [--twice PERCENT] [--until-failure]\n       \
                     hyperactor-sim replay SEED [--shrink]\n       \
                     hyperactor-sim edge | exhaustive | hole";

/// Failing seeds that are printed one by one.
const FAILURES_SHOWN: usize = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match parse(&arguments) {
        Some(Command::Run(plan)) => many(&plan),
        Some(Command::Replay { seed, shrinks }) => replay(seed, shrinks),
        Some(Command::Edge) => edges(),
        Some(Command::Exhaustive) => exhaustive(),
        Some(Command::Hole) => holes(),
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
    Edge,
    Exhaustive,
    Hole,
}

fn parse(arguments: &[String]) -> Option<Command> {
    let (command, rest) = arguments.split_first()?;
    if rest.is_empty() {
        match command.as_str() {
            "edge" => return Some(Command::Edge),
            "exhaustive" => return Some(Command::Exhaustive),
            "hole" => return Some(Command::Hole),
            _ => {}
        }
    }
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

/// Numbers at the edges of their ranges.
fn edges() -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let all = edge();
    for flaw in all.flaws.iter().take(FAILURES_SHOWN) {
        writeln!(out, "{}: {}", flaw.kind, flaw.detail)?;
    }
    writeln!(
        out,
        "{:>6} things said, {} of them lawful",
        all.cases, all.lawful
    )?;
    for (code, count) in &all.violations {
        writeln!(out, "{count:>6} violations with code {code}")?;
    }
    for (code, count) in &all.refusals {
        writeln!(out, "{count:>6} hellos refused with {code}")?;
    }
    let failed = (all.flaws.len() as u64).min(all.cases);
    writeln!(out, "{} passed, {failed} failed", all.cases - failed)?;
    Ok(failed == 0)
}

/// Every order of small worlds.
fn exhaustive() -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let started = Instant::now();
    let all = explore_all(&SMALL_WORLDS);
    let (mut orders, mut failed) = (0, 0);
    for one in &all {
        writeln!(
            out,
            "{}: {} orders of up to {} events ({} more were the same), {} fenced, {} resumed, {} unknown",
            one.world, one.orders, one.longest, one.same, one.fenced, one.resumed, one.unknown
        )?;
        orders += one.orders;
        if let Some((flaw, script)) = &one.flaw {
            failed += 1;
            writeln!(out, "{}: {}\n  after: {script}", flaw.kind, flaw.detail)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    writeln!(out, "{orders} orders in {seconds:.1} s")?;
    writeln!(out, "{} passed, {failed} failed", all.len() - failed)?;
    Ok(failed == 0)
}

/// One message is lost, many follow.
fn holes() -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let mut failed = 0;
    for hole in HOLES {
        let passed = pass(hole, FOLLOWERS);
        writeln!(out, "{passed}")?;
        failed += usize::from(!passed.flaws.is_empty());
        for flaw in passed.flaws.iter().take(FAILURES_SHOWN) {
            writeln!(out, "{}: {}", flaw.kind, flaw.detail)?;
        }
    }
    writeln!(out, "{} passed, {failed} failed", HOLES.len() - failed)?;
    Ok(failed == 0)
}
