//! The comparison: what the runtime does, set against what the machine and its other users can do, in one interleaved run.
//!
//! A **row** is a promise of the table of targets. It has **arms**, things that can be measured, and **lines**, each of which
//! sets one number of one arm against that of another. All arms of a row are measured once a round, in turns and in
//! alternating order, so that whatever else the machine does hits them alike; what counts is the median of the
//! rounds' own ratios. `docs/performance.md` says how to read it.
//!
//! Here is the order of a run; how a row is run is in `run.rs`, what the rows measure in `rows/`.

mod actors;
mod args;
mod counted;
mod helper;
mod machine;
mod peers;
mod raw;
mod report;
mod row;
mod rows;
mod run;
mod stats;
mod stream;
mod svg;
mod sweep;
mod world;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;

pub use counted::{count_allocations, count_large};
pub use machine::Machine;
pub use report::{LineReport, Report, RowReport};
pub use stats::{PAIRS_MIN, Quartiles, SPREAD_MAX, Target, Verdict, percentile};

use args::Arguments;
use hyperactor::prelude::RoutePolicy;
use row::Row;
use rows::{Entry, Setting, TABLE};
use run::Effort;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    // In a child of a host this does not return.
    hyperactor::boot(actors::registry());
    match begin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [raw::FAR_END, address] => raw::far_end(address),
        [helper::HELPER, role] => helper::run(role),
        [stream::DIRECT, messages] => stream::run(messages, None, RoutePolicy::Direct),
        [stream::DIRECT, messages, bytes] => {
            stream::run(messages, Some(bytes), RoutePolicy::Direct)
        }
        [stream::RELAY, messages] => stream::run(messages, None, RoutePolicy::Relay),
        [stream::RELAY, messages, bytes] => stream::run(messages, Some(bytes), RoutePolicy::Relay),
        _ => compare(&Arguments::parse()),
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let chosen = rows::choose(&arguments.rows)?;
    let effort = arguments.effort();
    let setting = Setting::new(arguments)?;
    let mut report = Report {
        pairs: effort.pairs,
        sample_ms: u64::try_from(effort.sample.as_millis())?,
        is_optimised: !cfg!(debug_assertions),
        rows: Vec::with_capacity(TABLE.len()),
    };
    let mut failed = Vec::new();
    for entry in chosen {
        eprint!("{:<12} {} …", entry.id, entry.title);
        let started = Instant::now();
        let measured =
            set_up(entry, &setting).and_then(|row| run::run(entry.id, entry.title, row, effort));
        match measured {
            Ok(row) => {
                eprintln!(" {:.1} s", started.elapsed().as_secs_f64());
                report.rows.push(row);
            }
            Err(error) => {
                eprintln!(" FAILED: {error:#}");
                failed.push(entry.id);
            }
        }
    }
    publish(arguments, &report)?;
    if let Some(folder) = &arguments.svg {
        plots(folder, effort)?;
    }
    println!("{}", report.closing_line());
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

fn set_up(entry: &Entry, setting: &Setting) -> Result<Row> {
    let mut row = (entry.set_up)(setting)?;
    if let Some(program) = &setting.peers {
        peers::add(entry.id, &mut row, program)?;
    }
    Ok(row)
}

fn publish(arguments: &Arguments, report: &Report) -> Result<()> {
    let text = report.to_markdown();
    println!("{text}");
    if let Some(path) = &arguments.markdown {
        write(path, &text)?;
    }
    if let Some(path) = &arguments.json {
        write(path, &(serde_json::to_string_pretty(report)? + "\n"))?;
    }
    Ok(())
}

fn plots(folder: &Path, effort: Effort) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
    let found = sweep::run(effort)?;
    write(&folder.join("throughput.svg"), &found.throughput().to_svg())?;
    write(&folder.join("latency.svg"), &found.latency().to_svg())?;
    write(
        &folder.join("sizes.json"),
        &(serde_json::to_string_pretty(&found)? + "\n"),
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
