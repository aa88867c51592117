//! Every limit of this crate: how many, how large, how long. Each is a default that is used as it stands; none
//! is read from the environment.

use std::time::Duration;

/// Longest path that the kernel takes for a Unix socket: `sun_path` holds 108 bytes, one of them the final NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How many abandoned socket directories one [`SocketDir::create`](crate::SocketDir::create) removes at most, so
/// that a start never takes long; the rest waits for the next start.
pub const SWEEP_DIRS_MAX: usize = 256;

/// How many entries of an abandoned directory are looked at before it is left for the next sweep.
pub const SWEEP_ENTRIES_MAX: usize = 65_536;

/// How often creating the directory is tried again when a name is taken or a sweeper was faster.
pub const CREATE_ATTEMPTS_MAX: usize = 16;

/// Size of the instructions in the environment, in bytes: the kernel's own limit for one string is 128 KiB.
pub const INSTRUCTIONS_BYTES_MAX: usize = 64 * 1024;

/// Size of one frame on the control stream between a host and its child, in bytes.
pub const CONTROL_FRAME_BYTES_MAX: usize = 64 * 1024;

/// How many siblings one control frame announces at most.
pub const ANNOUNCE_BATCH_MAX: usize = 64;

/// How many control frames may wait for one child that does not read; a child further behind is ended.
pub const CONTROL_QUEUE_MAX: usize = 16 * 1024;

/// How long a write of one control frame by the child may take before the child gives up on it.
pub const CONTROL_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a child may take from its start until it reports ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a child may take to end in order once its host is gone.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(1);

/// How long a proc that is to outlive its host lives without one, unless its manager was told otherwise.
pub const HOST_GRACE: Duration = Duration::from_secs(60);

/// First pause of a proc without a host before it looks for one again.
pub const ADOPT_BACKOFF_MIN: Duration = Duration::from_millis(10);

/// Longest pause of a proc without a host before it looks for one again.
pub const ADOPT_BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How long a proc and its new host may take to agree that it is back.
pub const ADOPT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many procs of an earlier life may be coming back to one host at the same time; the others wait for their turn.
pub const ADOPTING_MAX: usize = 64;

/// How long a host waits for a proc of an earlier life that lives and does not come back: then it is ended, like one that
/// closed its control stream.
pub const ADOPT_PATIENCE: Duration = Duration::from_secs(30);

/// Size of the record of a proc that is to outlive its host, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// How long a child that was asked to stop (its drain deadline having passed) may take before SIGTERM.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a child may take after SIGTERM before SIGKILL.
pub const TERMINATE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a child drains when it gets SIGTERM from somewhere else than its host's ladder, or SIGHUP.
pub const SIGTERM_DRAIN: Duration = Duration::from_millis(500);

/// How long the outcomes of a child's last messages are waited for when it ends in order.
pub const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How many siblings a `LocalProcDialer` keeps a route for; messages to further ones go by the host.
pub const SIBLINGS_MAX: usize = 4_096;

/// How many messages to one sibling wait behind a fence, at most; a post beyond gets `QueueFull` and a
/// capacity to wait on.
pub const HELD_MESSAGES_MAX: usize = 8_192;

/// First pause before a direct connection to a sibling is tried again.
pub const PROBE_BACKOFF_MIN: Duration = Duration::from_millis(10);

/// Longest pause before a direct connection to a sibling is tried again.
pub const PROBE_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long nothing may go over a direct link before it is closed; at most twice as long. The next message opens another.
pub const LINK_IDLE: Duration = Duration::from_secs(60);

/// The least of it that can be chosen: looking at every link costs something, too.
pub const LINK_IDLE_MIN: Duration = Duration::from_millis(1);

/// How long messages to a sibling are held, at most, to change from one good link to another; after a pause, twice as long each
/// time and at most [`LINK_IDLE`], it is tried again.
pub const YIELD_FENCE_MAX: Duration = Duration::from_millis(100);

/// How many connections are kept whose dialers the host has not announced yet; beyond, the oldest is forgotten, and only
/// received over.
pub const STRANGERS_MAX: usize = 1_024;

/// How long a link that a sibling dialled, and whose connection was lost, waits for the sibling to connect again. One that
/// has died is not waited for.
pub const LINK_RESUME_MAX: Duration = Duration::from_secs(30);

/// How long one attempt to reach a sibling's socket may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many children of one manager may be on their way from their start to ready at the same time; a spawn beyond
/// waits for its turn.
pub const STARTING_MAX: usize = 64;

/// Longest line of a child's output, in bytes; a longer one is kept and passed on in pieces.
pub const OUTPUT_LINE_BYTES: usize = 4 * 1024;

/// How much of a child's output is read at once, in bytes.
pub const OUTPUT_READ_BYTES: usize = 8 * 1024;

/// How many lines of all children wait to be written to the host's own output; beyond that the children wait.
pub const OUTPUT_QUEUE_LINES: usize = 1_024;

/// How long the last lines of an ended child are read for. They are in the pipe, unless a process that the child started
/// still holds it.
pub const OUTPUT_END_TIMEOUT: Duration = Duration::from_millis(200);

/// How long the end of a host waits for its own output to take the children's last lines.
pub const OUTPUT_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How often a child looks which messages its actors have in hand, for its death certificate.
pub const HANDS_PERIOD: Duration = Duration::from_millis(500);

/// How long an actor has to have been busy for the message that it has in hand to be written down.
pub const HANDS_BUSY: Duration = Duration::from_millis(100);

/// Most that is read of what a child wrote down, in bytes.
pub const HANDS_BYTES_MAX: usize = 64 * 1024;
