//! The program `hyperactor`: hosts on the command line, a demonstration of many processes, and measurements.
//!
//! This file holds the order of things at start and end; each command has a module of its own.

mod args;
mod bench;
mod demo;
mod embedded;
mod failure;
mod host;
mod input;
mod leftovers;
mod limits;
mod parts;
mod progress;
mod report;
mod routes;
mod signals;
mod site;
mod style;
mod words;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use hyperactor::proc::Registry;
use tracing_subscriber::EnvFilter;

use crate::args::{Bench, Cli, Command, DemoArgs, RoutesArgs};
use crate::failure::Failure;
use crate::signals::Signals;
use crate::style::{Look, Style};

fn main() -> ExitCode {
    // In a child process this does not return: the child becomes a proc with these actors.
    hyperactor::boot(
        Registry::new()
            .with::<demo::Reader>()
            .with::<demo::Owner>()
            .with::<bench::Driver>()
            .with::<bench::Sink>(),
    );
    let cli = Cli::parse();
    log_to_stderr();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let label = Style::of(&io::stderr()).paint(Look::Bad, "error");
            complain(&format_args!("{label}: {}", failure.text()));
            failure.exit_code()
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(hyperactor::channel::spin::before_park)
        .build()
        .context("cannot start the runtime; are threads or descriptors exhausted?")?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::catch().context("cannot catch signals")?;
        match command {
            Command::Demo(args) => run_demo(args, &mut signals).await,
            Command::Host(command) => show(host::run_host(command, &mut signals).await?),
            Command::Tool(command) => show(host::run_tool(command, &mut signals).await?),
            Command::Bench {
                what: Bench::Routes(args),
            } => run_routes(args, &mut signals).await,
        }
    });
    // A thread that still reads a slow disk after a signal is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Prints what a command found, also where it is not what was hoped for.
fn show(shows: host::Shows) -> Result<(), Failure> {
    print(&shows.text)?;
    shows.failure.map_or(Ok(()), Err)
}

async fn run_demo(args: &DemoArgs, signals: &mut Signals) -> Result<(), Failure> {
    let report = demo::run(args, signals).await?;
    if args.json {
        print(
            &report
                .summary
                .to_json()
                .context("cannot write the result")?,
        )?;
    } else {
        print(&report.to_text(Style::of(&io::stdout())))?;
    }
    if report.summary.is_success() {
        return Ok(());
    }
    Err(Failure::Result(report.problems.join("; ")))
}

async fn run_routes(args: &RoutesArgs, signals: &mut Signals) -> Result<(), Failure> {
    args.check().map_err(Failure::Input)?;
    let report = bench::run(args, signals).await?;
    if args.json {
        print(&serde_json::to_string(&report).context("cannot write the result")?)?;
    } else {
        print(&report.to_text(Style::of(&io::stdout())))?;
    }
    match report.left_behind {
        0 => Ok(()),
        count => Err(Failure::Result(format!("{count} things were left behind"))),
    }
}

/// Writes the result. A reader that has gone away, as `head` does, is no error.
fn print(text: &impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let text = text.to_string();
    let written = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Job(
            anyhow::Error::new(error).context("cannot write to standard output"),
        )),
        _ => Ok(()),
    }
}

/// Writes to standard error. When that is closed too, the exit status alone must tell.
fn complain(text: &impl Display) {
    if writeln!(io::stderr(), "{text}").is_err() {
        tracing::trace!("standard error is closed");
    }
}

/// The runtime's own log, for those who ask with `HYPERACTOR_LOG`; warnings otherwise.
fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("HYPERACTOR_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(Style::of(&io::stderr()).is_coloured())
        .init();
}
