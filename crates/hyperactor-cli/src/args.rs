//! The command line: what can be said, its bounds and its help. Carries nothing out.

use std::path::PathBuf;
use std::time::Duration;

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
  hyperactor host serve &                  a host that the following talk to
  hyperactor host spawn worker             a process more on it
  hyperactor tree                          what runs there
  hyperactor route worker other            which way messages go, and why
  hyperactor stop                          the end of it

Exit status:
  0    done, and what was checked is right
  1    something failed, was lost or was left behind; standard error says what
  2    the command line or an input is wrong
  3    nobody answers: no such host, or it is stuck
  4    the host refuses: no such proc, a name that is taken
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
    /// Serves hosts and starts procs on them
    #[command(subcommand)]
    Host(HostCommand),
    #[command(flatten)]
    Tool(ToolCommand),
    /// Measures this machine
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Serves a host in the foreground, until a signal or `hyperactor stop`
    ///
    /// The procs that are started on it run the actors that this program knows: those of the demo and the
    /// benchmark. Programs of your own serve hosts with actors of their own; every command here talks to
    /// those as well.
    Serve(ServeArgs),
    /// Starts a proc on a running host
    Spawn(SpawnArgs),
}

/// Commands that talk to a running host.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// Lists the procs of a host
    Ps(Target),
    /// Shows a host, its procs and their actors
    Tree(Target),
    /// Ends a proc in order, or the host with all of them
    Stop(StopArgs),
    /// Ends a proc at once
    Kill(KillArgs),
    /// Shows the last lines that a proc's process wrote
    Logs(LogsArgs),
    /// Measures the way to an actor's mailbox and back; the actor itself is not bothered
    Ping(PingArgs),
    /// Says which way the messages of one proc to another go, and every reason against a faster one
    Route(RouteArgs),
    /// Follows the way of a message, step by step
    Trace(TraceArgs),
    /// Looks at what this machine has and lacks
    Doctor(Target),
}

impl ToolCommand {
    /// The host it talks to.
    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Ps(target) | Self::Tree(target) | Self::Doctor(target) => target,
            Self::Stop(args) => &args.target,
            Self::Kill(args) => &args.target,
            Self::Logs(args) => &args.target,
            Self::Ping(args) => &args.target,
            Self::Route(args) => &args.target,
            Self::Trace(args) => &args.target,
        }
    }
}

/// Which host, and how to print.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// The host's address [default: unix:@hyperactor-UID, the one that `host serve` takes]
    #[arg(long, value_name = "ADDR", env = "HYPERACTOR_HOST")]
    pub(crate) host: Option<String>,

    /// The host to connect to, when the one that is asked stands behind it or is known there by another
    /// name [default: the one that is asked]
    #[arg(long, value_name = "ADDR", env = "HYPERACTOR_VIA")]
    pub(crate) via: Option<String>,

    /// Prints the result as one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `host serve` can be told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  hyperactor host serve
  hyperactor host serve unix:/run/user/1000/work.sock
  hyperactor host serve tcp:127.0.0.1:7000
  hyperactor host serve unix: --also tcp:127.0.0.1:7000
  hyperactor host serve --keep /run/user/1000/work
  hyperactor host serve unix:@inner --behind tcp:127.0.0.1:7000

What is sent to a host behind another goes through the other's address:
  hyperactor ps --host unix:@inner --via tcp:127.0.0.1:7000")]
pub(crate) struct ServeArgs {
    /// Where the host is reached [default: unix:@hyperactor-UID]
    #[arg(value_name = "ADDR", env = "HYPERACTOR_HOST")]
    pub(crate) addr: Option<String>,

    /// One more address at which the same procs are reached; may be given several times
    #[arg(long, value_name = "ADDR")]
    pub(crate) also: Vec<String>,

    /// An address that leads here although the host cannot know, such as a name of this machine; may be
    /// given several times
    #[arg(long, value_name = "ADDR")]
    pub(crate) alias: Vec<String>,

    /// The address in the ids of the host's procs, in place of ADDR
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<String>,

    /// The host to stand behind: whoever reaches that one reaches the procs of this one through it
    #[arg(long, value_name = "ADDR")]
    pub(crate) behind: Option<String>,

    /// The directory by which procs that were spawned with --stay find the next host when this one has
    /// died: one that is served with the same directory and addresses takes them back
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,

    /// Seconds that such procs live without a host
    #[arg(long, value_name = "SECONDS", requires = "keep", default_value = "60", value_parser = seconds)]
    pub(crate) grace: Seconds,

    /// Allows a TCP address beyond this machine, without encryption: whoever reaches it can run what the
    /// host can run
    #[arg(long)]
    pub(crate) danger_plaintext: bool,

    /// Prints results as JSON objects, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `host spawn` can be told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  hyperactor host spawn worker
  hyperactor host spawn worker --memory 1073741824 --cpus 0,1 --restart on-failure")]
pub(crate) struct SpawnArgs {
    /// The proc's name on its host
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// The way that its messages to other procs of the host take
    #[arg(long, value_enum, default_value_t = Route::Auto)]
    pub(crate) route: Route,

    /// Bytes of memory that its process may have
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: Option<u64>,

    /// Descriptors that its process may have
    #[arg(long, value_name = "N")]
    pub(crate) descriptors: Option<u64>,

    /// The processors it may run on
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,

    /// Whether it is started again when it ends
    #[arg(long, value_enum, default_value_t = Restart::Never)]
    pub(crate) restart: Restart,

    /// Lets it live on when its host dies; for hosts that are served with --keep
    #[arg(long)]
    pub(crate) stay: bool,

    #[command(flatten)]
    pub(crate) target: Target,
}

/// When a proc is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// Not at all
    Never,
    /// When it ended otherwise than in order
    OnFailure,
    /// Whenever nobody asked for its end
    Always,
}

/// What `stop` can be told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  hyperactor stop worker --deadline 30
  hyperactor stop")]
pub(crate) struct StopArgs {
    /// The proc; without one, the host and all of its procs
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Seconds that actors have to empty their mailboxes
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) deadline: Seconds,

    #[command(flatten)]
    pub(crate) target: Target,
}

/// What `kill` can be told.
#[derive(Clone, Debug, Args)]
pub(crate) struct KillArgs {
    /// The proc
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) target: Target,
}

/// What `logs` can be told.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArgs {
    /// The proc
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) target: Target,
}

/// What `ping` can be told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  hyperactor ping worker                   the agent of a proc
  hyperactor ping worker,sink[0]           an actor of it
  hyperactor ping unix:@other,worker,sink[0] --count 100")]
pub(crate) struct PingArgs {
    /// A proc, an actor or a port; what has no address is of the host
    #[arg(value_name = "REF")]
    pub(crate) reference: String,

    /// Probes, one after the other
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,

    #[command(flatten)]
    pub(crate) target: Target,
}

/// What `trace` can be told.
#[derive(Clone, Debug, Args)]
pub(crate) struct TraceArgs {
    /// A proc, an actor or a port; what has no address is of the host
    #[arg(value_name = "REF")]
    pub(crate) reference: String,

    #[command(flatten)]
    pub(crate) target: Target,
}

/// What `route` can be told.
#[derive(Clone, Debug, Args)]
pub(crate) struct RouteArgs {
    /// The proc that sends
    #[arg(value_name = "FROM")]
    pub(crate) from: String,

    /// The proc that is sent to
    #[arg(value_name = "TO")]
    pub(crate) to: String,

    #[command(flatten)]
    pub(crate) target: Target,
}

/// A time of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(Duration);

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        seconds.0
    }
}

fn seconds(text: &str) -> Result<Seconds, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "it is no number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(time) if time <= limits::DEADLINE_MAX => Ok(Seconds(time)),
        _ => Err(format!(
            "give 0 to {} seconds",
            limits::DEADLINE_MAX.as_secs()
        )),
    }
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
