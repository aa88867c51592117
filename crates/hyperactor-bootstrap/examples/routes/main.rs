//! Changes of route by the hundred, under a hundred thousand messages: the socket at which a sibling is reached straight appears,
//! vanishes, refuses, is closed as idle, and leads to another life, while both stream to each other.
//!
//! `routes [routes] [--scale PERCENT] [--seed SEED] [--log FILE]`; `cargo xtask chaos routes` builds this program and runs it. It
//! prints its figures, and a last line `N passed, N failed, N skipped`. What two procs of one process meet is in `near`, where every step of
//! the way is under the eyes of an oracle; what a process that is killed does to the ways to it, in `far`.

#![allow(
    clippy::unwrap_used,
    reason = "a suite may unwrap: its panic is counted and reported as a failure"
)]

mod context;
mod far;
mod found;
mod gate;
mod near;
mod oracle;
mod place;
mod traffic;

use std::process::ExitCode;

use context::{Context, Result};
use found::Found;
use hyperactor_bootstrap::Bootstrap;
use hyperactor_testkit::{Scale, Seed, SuiteReport, run_suite};

/// The full figures: changes of route, of which each direction has its share, and messages.
const SWITCHES: u64 = 500;
const SWITCHES_EACH_WAY: u64 = 120;
const MESSAGES: u64 = 100_000;
/// What else has to have taken place. Of less than a fifth of the full figures it is left to chance which of these are in it.
const KINDS_FROM_SCALE: u64 = 20;
const LIVES: u64 = 50;
const IDLE: u64 = 8;
const REFUSED: u64 = 50;
const SUDDEN: u64 = 50;
const ACCEPTED: u64 = 20;
const HELD: u64 = 2_000;
/// Of the messages, how many in a hundred have to arrive: most of them meet no end of a life.
const DELIVERED: u64 = 75;

fn main() -> ExitCode {
    Bootstrap::new().registry(far::registry()).run_if_child();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Ok(context) => carry_out(context),
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("usage: routes [--scale PERCENT] [--seed SEED] [--log FILE]");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(context: Context) -> ExitCode {
    let Context { seed, scale } = context;
    run_suite("routes", seed, scale, SuiteReport::default(), |report| {
        run(context, report)
    })
}

fn run(context: Context, report: &mut SuiteReport) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let found =
        runtime.block_on(async { tokio::try_join!(near::run(&context), far::run(&context)) });
    // Where a part failed, the rest may wait for what never comes.
    runtime.shutdown_background();
    let (mut found, far) = found?;
    found.add(&far);
    report.add(found.report.counts());
    judge(&context, &found, report);
    Ok(())
}

fn judge(context: &Context, found: &Found, report: &mut SuiteReport) {
    let seen = &found.seen;
    let least = |figure| context.scaled(figure);
    let kind = |figure| {
        let is_judged = context.scale.percent() >= KINDS_FROM_SCALE;
        if is_judged { least(figure) } else { 0 }
    };
    report.at_least(
        "changes of route with traffic under way",
        seen.to_straight + seen.to_relay,
        least(SWITCHES),
    );
    let each = least(SWITCHES_EACH_WAY);
    report.at_least("from the relay to the straight way", seen.to_straight, each);
    report.at_least("from the straight way to the relay", seen.to_relay, each);
    report.figure("changes without other messages under way", seen.quiet);
    report.at_least("messages", found.messages, least(MESSAGES));
    report.figure("seen on the straight way", seen.straight);
    report.figure("seen on the relay", seen.relayed);
    report.figure("delivered", found.delivered);
    report.figure("unknown", found.unknown);
    report.at_least("new lives under an old name", found.lives, kind(LIVES));
    report.at_least("links closed as idle", found.idle, kind(IDLE));
    report.at_least("sockets that refuse", found.refused, kind(REFUSED));
    report.at_least("sudden ends", found.sudden, kind(SUDDEN));
    report.at_least(
        "changes to a connection that the other proc dialled",
        found.accepted,
        kind(ACCEPTED),
    );
    report.at_least("messages held behind a fence", found.held, least(HELD));
    report.figure("slowest change", format!("{:.1?}", found.slowest));
    report.check(
        "no message is on one way while another is on the other",
        seen.violations == 0,
        seen.violations,
    );
    report.check(
        "most messages arrive",
        found.delivered * 100 >= found.messages * DELIVERED,
        format!("{} of {}", found.delivered, found.messages),
    );
}

fn parse(arguments: &[String]) -> Result<Context> {
    let (mut scale, mut seed) = (Scale::FULL, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--scale" => scale = value()?.parse()?,
            "--seed" => seed = Some(value()?.parse()?),
            "--log" => rustix::stdio::dup2_stderr(std::fs::File::create(value()?)?)?,
            // Its name, as every suite is called.
            "routes" => {}
            _ => return Err(format!("`{argument}` is one argument too many").into()),
        }
    }
    Ok(Context {
        seed: seed.unwrap_or_else(Seed::from_env),
        scale,
    })
}
