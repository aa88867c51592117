//! The command line: what can be said, its bounds and its help. Carries nothing out.

use std::path::PathBuf;

use clap::builder::{RangedU64ValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::limits;

/// Runs actors in many processes on this machine, and measures the ways between them.
#[derive(Debug, Parser)]
#[command(
    name = "hyperactor",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    after_help = "\
Examples:
  hyperactor demo                          count words with four processes
  hyperactor demo --procs 8 --input src    the same for one's own files
  hyperactor bench routes                  how fast each route is on this machine

Exit status:
  0    done, and what was checked is right
  1    something failed, was lost or was left behind; standard error says what
  2    the command line or an input is wrong
  130  ended by Ctrl-C (143: by SIGTERM)"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Counts words with several processes that all talk to each other, and checks the result
    ///
    /// Each process holds a reader and an owner. Readers split the text and send every word's partial
    /// counts to the process that owns the word's hash, so every process talks to every other. The
    /// result is checked against a count made in one process without actors.
    Demo(DemoArgs),
    /// Measures this machine
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Compares messages in one process, directly between two, and through the host
    ///
    /// One-way throughput counts only messages that the receiver confirmed. A round trip is a request
    /// and its reply, one after the other. The routes are measured in turns, several rounds, and the
    /// medians count.
    Routes(RoutesArgs),
}

/// What `demo` can be told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  hyperactor demo
  hyperactor demo --procs 8 --input README.md --input docs
  hyperactor demo --route relay            everything through the host
  hyperactor demo --json | jq .messages

Without --input, the text of the repository around the current folder is
counted; outside of it, a text that is built into the program. Hidden files,
folders named `target`, links and files that are not text are left out of a
folder and counted as skipped.")]
pub(crate) struct DemoArgs {
    /// Processes to start
    #[arg(long, value_name = "N", default_value_t = limits::PROCS_DEFAULT, value_parser = procs())]
    pub(crate) procs: u32,

    /// A file, or a folder that is walked; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) input: Vec<PathBuf>,

    /// The way that messages between the processes take
    #[arg(long, value_enum, default_value_t = Route::Auto)]
    pub(crate) route: Route,

    /// Prints the result as one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `bench routes` can be told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  hyperactor bench routes
  hyperactor bench routes --messages 1000000 --size 16
  hyperactor bench routes --size 65536 --messages 5000 --json")]
pub(crate) struct RoutesArgs {
    /// Messages of one throughput measurement
    #[arg(long, value_name = "N", default_value_t = limits::BENCH_MESSAGES_DEFAULT, value_parser = messages())]
    pub(crate) messages: u64,

    /// Payload of one message
    #[arg(long, value_name = "BYTES", default_value_t = limits::BENCH_SIZE_DEFAULT, value_parser = size())]
    pub(crate) size: u64,

    /// Prints the result as one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// The way messages between two processes of one host take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Route {
    /// The fastest that works
    Auto,
    /// Always through the host
    Relay,
    /// Never through the host
    Direct,
}

fn procs() -> impl TypedValueParser<Value = u32> {
    RangedU64ValueParser::<u32>::new().range(1..=u64::from(limits::PROCS_MAX))
}

fn messages() -> impl TypedValueParser<Value = u64> {
    RangedU64ValueParser::<u64>::new().range(1..=limits::BENCH_MESSAGES_MAX)
}

fn size() -> impl TypedValueParser<Value = u64> {
    RangedU64ValueParser::<u64>::new().range(1..=limits::BENCH_SIZE_MAX)
}

impl RoutesArgs {
    /// Refuses a product of count and size that would run for hours.
    ///
    /// # Errors
    ///
    /// The text to show, with the limit and what to give instead.
    pub(crate) fn check(&self) -> Result<(), String> {
        let total = self.messages.saturating_mul(self.size);
        if total <= limits::BENCH_TOTAL_BYTES_MAX {
            return Ok(());
        }
        let fitting = limits::BENCH_TOTAL_BYTES_MAX / self.size.max(1);
        Err(format!(
            "--messages {} of --size {} are {total} bytes a round, more than the limit of {}: \
             give at most --messages {fitting} with this size",
            self.messages,
            self.size,
            limits::BENCH_TOTAL_BYTES_MAX,
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn demo(line: &str) -> DemoArgs {
        match parse(line).unwrap().command {
            Command::Demo(args) => args,
            other => panic!("not the demo: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_defaults_to_four_procs_and_the_automatic_route() {
        let args = demo("hyperactor demo");
        assert_eq!(args.procs, 4);
        assert_eq!(args.route, Route::Auto);
        assert!(args.input.is_empty());
        assert!(!args.json);
    }

    #[test]
    fn demo_takes_several_inputs() {
        let args = demo("hyperactor demo --input a --input b --procs 2 --route relay --json");
        assert_eq!(args.input, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((args.procs, args.route, args.json), (2, Route::Relay, true));
    }

    #[test]
    fn numbers_out_of_bounds_are_refused_with_the_bounds() {
        for line in [
            "hyperactor demo --procs 0",
            "hyperactor demo --procs 65",
            "hyperactor demo --procs four",
            "hyperactor demo --procs -1",
            "hyperactor bench routes --messages 0",
            "hyperactor bench routes --size 0",
            "hyperactor bench routes --size 99999999999999999999",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        let text = parse("hyperactor demo --procs 65").unwrap_err().to_string();
        assert!(text.contains("1..=64"), "{text}");
    }

    #[test]
    fn a_benchmark_of_hours_is_refused_with_a_number_that_fits() {
        let Command::Bench {
            what: Bench::Routes(args),
        } = parse("hyperactor bench routes --messages 100000000 --size 8388608")
            .unwrap()
            .command
        else {
            panic!("not the benchmark");
        };
        let text = args.check().unwrap_err();
        assert!(text.contains("at most --messages 8192"), "{text}");
        let fitting = RoutesArgs {
            messages: 8192,
            ..args
        };
        assert_eq!(fitting.check(), Ok(()));
    }

    #[test]
    fn every_help_shows_examples() {
        for line in [
            "hyperactor --help",
            "hyperactor demo --help",
            "hyperactor bench routes --help",
        ] {
            let help = parse(line).unwrap_err();
            assert_eq!(help.exit_code(), 0);
            assert!(help.to_string().contains("Examples:"), "{line}");
        }
    }
}
