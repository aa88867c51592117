//! Every bound of the program, with its unit and the reason for its size.
//! Holds numbers only.

use std::time::Duration;

/// Procs that the demo starts when nothing is said.
pub(crate) const PROCS_DEFAULT: u32 = 4;

/// Most procs of one demo: each pair of them talks, so connections grow with the square.
pub(crate) const PROCS_MAX: u32 = 64;

/// Occurrences of words that a reader gathers for one owner before it sends them. Small enough that a
/// repository's text makes thousands of messages, large enough that a message is worth its header.
pub(crate) const BATCH_WORDS: usize = 256;

/// Bytes of one word; a longer run of letters and digits counts as several words. Bounds the size of a
/// message whatever the text is: no batch is larger than `BATCH_WORDS` times this.
pub(crate) const WORD_BYTES_MAX: usize = 256;

/// Bytes of text that one part of a file holds, before its end is moved to the next gap between words.
pub(crate) const PART_BYTES: u64 = 512 * 1024;

/// Bytes that are searched for a gap between words behind the end of a part. A file without one there
/// is no text for a word counter.
pub(crate) const GAP_BYTES_MAX: u64 = 1024 * 1024;

/// Parts that one message hands to a reader.
pub(crate) const PARTS_PER_MESSAGE: usize = 64;

/// Distinct words in one message with results from an owner to the host.
pub(crate) const RESULTS_PER_MESSAGE: usize = 2048;

/// Bytes at the start of a file that are searched for a zero byte, which text never has.
pub(crate) const BINARY_PROBE_BYTES: usize = 8 * 1024;

/// Files that one run counts; more are refused before anything starts.
pub(crate) const FILES_MAX: usize = 1_000_000;

/// The commonest words shown at the end.
pub(crate) const TOP_WORDS: usize = 10;

/// Time without any sign of progress after which a run ends as failed. A child that dies is known far
/// earlier, by its exit.
pub(crate) const STALL: Duration = Duration::from_secs(60);

/// Time that the children get to drain and stop at the orderly end.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Time that a failure waits for the exit of a process that may explain it: a message that comes back is often known first.
pub(crate) const EXIT_GRACE: Duration = Duration::from_millis(500);

/// Time that the host itself gets to stop when its children were killed.
pub(crate) const KILL_DEADLINE: Duration = Duration::from_secs(2);

/// Pause between two refreshes of the progress line on a terminal.
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Pause between two progress lines when standard error is not a terminal.
pub(crate) const PROGRESS_LINE_EVERY: Duration = Duration::from_secs(1);

/// Rounds of `bench routes`; each runs every route once, and the median of the rounds counts.
pub(crate) const BENCH_ROUNDS: usize = 5;

/// Messages of one throughput measurement when nothing is said.
pub(crate) const BENCH_MESSAGES_DEFAULT: u64 = 50_000;

/// Most messages of one throughput measurement.
pub(crate) const BENCH_MESSAGES_MAX: u64 = 100_000_000;

/// Payload bytes of one benchmark message when nothing is said.
pub(crate) const BENCH_SIZE_DEFAULT: u64 = 64;

/// Most payload bytes of one benchmark message: below the largest frame a connection carries.
pub(crate) const BENCH_SIZE_MAX: u64 = 8 * 1024 * 1024;

/// Most payload bytes of one throughput measurement, so that a slip of a zero does not run for hours.
pub(crate) const BENCH_TOTAL_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// Round trips timed in one latency measurement.
pub(crate) const BENCH_ROUND_TRIPS: u32 = 2_000;

/// Round trips before the first one timed, in which connections are made and caches fill.
pub(crate) const BENCH_WARM_UP: u32 = 200;

/// How long a host or proc may take to answer a command.
pub(crate) const TOOL_DEADLINE: Duration = Duration::from_secs(3);

/// How long a host may take to start a proc at the request of a command; more than its own patience.
pub(crate) const SPAWN_DEADLINE: Duration = Duration::from_secs(20);

/// How long a proc may take to end beyond the deadline that it was given.
pub(crate) const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The longest deadline of the command line.
pub(crate) const DEADLINE_MAX: Duration = Duration::from_secs(3_600);

/// Pause between two looks at a host that is ending.
pub(crate) const GONE_POLL: Duration = Duration::from_millis(20);

/// Steps that a trace follows; the default time to live of a message.
pub(crate) const TRACE_STEPS_MAX: u8 = 64;

/// Descriptors below which `doctor` says something: 64 procs that all talk to each other.
pub(crate) const DESCRIPTORS_ENOUGH: u64 = 1024;

/// Processes below which `doctor` says something.
pub(crate) const PROCESSES_ENOUGH: u64 = 256;

/// How long a command takes leave of the host it talked to, at most twice. Who leaves without a goodbye keeps a place there for
/// a while.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);
