//! The automation of this workspace, called as `cargo xtask …`.
//!
//! One file a command; what several need (running a program, the workspace's own description, counting
//! tests) stands in files of its own. Rules about the workspace are data: the table of layers in
//! `layers.rs`, the table of integration suites in `it.rs`, the steps of the whole check in `ci.rs`.

mod bench;
#[cfg(test)]
mod book;
mod ci;
mod counts;
mod crash;
mod doctor;
mod examples;
mod external;
mod flame;
mod fuzz;
mod it;
mod layers;
mod lint;
mod mutants;
mod pace;
mod shell;
mod sim;
mod spec;
mod suites;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, checks, tests and measures this workspace.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask doctor          what this machine has, and what mends the rest\n  \
                  cargo xtask test            every test, and a last line of counts\n  \
                  cargo xtask it routes       one integration suite\n  \
                  cargo xtask ci              all that a change has to pass"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Prints what this machine has and lacks, and the command that mends it.
    Doctor(doctor::Arguments),
    /// Formats all sources.
    Fmt {
        /// Changes nothing; fails if a file is not formatted.
        #[arg(long)]
        check: bool,
    },
    /// Runs clippy on all targets, the format check and the documentation build, all without warnings.
    Lint,
    /// Checks the edges between crates, the lock file, and the tidiness of the repository's text.
    Layers,
    /// Names the clauses of the specification that no code or no test cites, and citations of none.
    Spec,
    /// Runs all tests: unit, integration and documentation.
    Test(test::Arguments),
    /// Runs integration suites: real processes, real sockets.
    It(it::Arguments),
    /// Runs the examples of the facade; each has to end in order by itself.
    Examples(examples::Arguments),
    /// Runs the benchmarks of one layer, or of all.
    Bench(bench::Arguments),
    /// Builds the documentation; a warning fails.
    Docs {
        /// Opens the result in a browser.
        #[arg(long)]
        open: bool,
    },
    /// Throws mutated input at the parsers and decoders of one layer.
    Fuzz(fuzz::Arguments),
    /// Breaks connections between real channels, and counts what became of every message.
    #[command(after_help = suites::help(suites::Group::Chaos))]
    Chaos(suites::Arguments),
    /// Exhausts what channels live on: memory, descriptors, address space.
    #[command(after_help = suites::help(suites::Group::Limits))]
    Limits(suites::Arguments),
    /// Deceives channels: garbage, lies, lengths that cannot be, peers that never finish.
    #[command(after_help = suites::help(suites::Group::Sec))]
    Sec(suites::Arguments),
    /// Kills processes of running hosts, and counts what became of every message and of everything they had.
    #[command(after_help = crash::help())]
    Crash(crash::Arguments),
    /// Runs sessions in the simulator: faults from seeds, a ledger as the judge.
    Sim(sim::Arguments),
    /// Runs one seed of the simulator again, with its log; or shrinks it.
    Replay(sim::ReplayArguments),
    /// Builds layers with planted bugs; the suite that guards each has to find its own.
    Mutants(mutants::Arguments),
    /// Runs all that a change has to pass, with a table of times and counts at the end.
    Ci,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Doctor(arguments) => doctor::run(&arguments),
        Task::Fmt { check } => lint::fmt(check),
        Task::Lint => lint::all(),
        Task::Layers => layers::run(),
        Task::Spec => spec::run(),
        Task::Test(arguments) => test::run(&arguments),
        Task::It(arguments) => it::run(&arguments),
        Task::Examples(arguments) => examples::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Docs { open } => lint::docs(open),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Chaos(arguments) => suites::run(suites::Group::Chaos, &arguments),
        Task::Limits(arguments) => suites::run(suites::Group::Limits, &arguments),
        Task::Sec(arguments) => suites::run(suites::Group::Sec, &arguments),
        Task::Crash(arguments) => crash::run(&arguments),
        Task::Sim(arguments) => sim::run(&arguments),
        Task::Replay(arguments) => sim::replay(&arguments),
        Task::Mutants(arguments) => mutants::run(&arguments),
        Task::Ci => ci::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
