//! Every number that bounds something in this crate: memory, time, counts. Defaults of options stand here too.
//! The limits of the session itself (windows, log sizes, acknowledgement delays) are `hyperactor_protocol::limits`.

use std::time::Duration;

/// The largest encoded message, in bytes, unless the options say otherwise.
pub const MESSAGE_BYTES_MAX: usize = hyperactor_protocol::limits::MESSAGE_MAX_DEFAULT as usize;

/// How long a handshake may take in total, on both sides, from the first byte to the last.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How many accepted connections of one server may be between accept and the end of their handshake.
/// One more drops the oldest of them, so that slow peers cannot lock good ones out.
pub const UNAUTHENTICATED_MAX: usize = 128;

/// How many sessions one server holds, connected or waiting to be resumed. A hello beyond it is refused.
pub const SESSIONS_MAX: usize = 1_024;

/// How many connections wait for one session to take them up; a hello beyond it is refused, because only the newest
/// connection of a session counts.
pub const SESSION_HANDOVERS_MAX: usize = 8;

/// First pause of an exponential backoff: before a redial, and after an accept that failed.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(10);

/// Longest pause of an exponential backoff.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How often a server that cannot accept says so in the log.
pub const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(1);

/// How long a connection for which there is no descriptor may take to say hello, so that it can be told.
pub const REFUSAL_DEADLINE: Duration = Duration::from_millis(100);

/// How long a local socket may be absent or refuse before a dialer gives up ([`DialOptions::connect_give_up_local`]).
///
/// [`DialOptions::connect_give_up_local`]: crate::DialOptions::connect_give_up_local
pub const CONNECT_GIVE_UP_LOCAL: Duration = Duration::from_secs(1);

/// The same after a connection that had been established was lost: whoever served there has most likely died, and a
/// socket that refuses says so. Long enough for a server that rebinds its address at once.
pub const REDIAL_GIVE_UP_LOCAL: Duration = Duration::from_millis(200);

/// How long what was sent over TCP may stay unanswered by the other machine's kernel before the connection is given up. By
/// itself TCP asks again after pauses that double, so that a link which was cut for twenty seconds is found healed twenty
/// later; a new connection asks each second at first. Pings see to it that something is under way.
pub const TCP_UNANSWERED_MAX: Duration = Duration::from_secs(5);

/// How long one attempt to connect may take.
pub const CONNECT_ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);

/// How long a server that stops waits for messages it has placed but that have no verdict yet.
pub const STOP_GRACE: Duration = Duration::from_secs(1);

/// The most bytes of the outgoing log that one write offers to the kernel.
pub const WRITE_BATCH_BYTES: usize = 256 * 1024;

/// The most pieces of the outgoing log that one write gathers.
pub const WRITE_PARTS_MAX: usize = 16;

/// The most bytes of memory that a process keeps for large messages to come, while it has connections.
pub const KEPT_MEMORY_BYTES: usize = 128 * 1024 * 1024;

/// The least memory that it keeps for them, in bytes: smaller is had for little.
pub const KEPT_MEMORY_FLOOR: usize = 32 * 1024;

/// The most buffers that it keeps for them.
pub const KEPT_MEMORY_BUFFERS: usize = 256;

/// How long such memory lies unused before it is let go of.
pub const KEPT_MEMORY_IDLE: Duration = Duration::from_secs(2);

/// The size asked for the kernel's buffer of a Unix socket, bytes. It is taken up as it fills; where it is small, sender and
/// receiver of a large message wait for one another more often.
pub const SOCKET_SEND_BYTES: usize = 512 * 1024;

/// How many frames are taken in under one lock of the session.
pub const FRAMES_BATCH_MAX: usize = 1_024;

/// How long the end of a connection waits for the peer to close too, after the goodbye.
pub const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

/// How many reads or writes of one connection happen before other tasks of the runtime get their turn.
pub const IO_TURNS_MAX: usize = 16;

/// How many bytes of one connection are moved before others get their turn while another connection of the process carries
/// little: other tasks of the thread, and other threads that wait for the processor. As many are little, in a window.
pub const COURTESY_BYTES: usize = 256 * 1024;

/// For how long the bytes of a connection are counted, to tell whether it carries little. For twice as long after it did, others
/// let it go first.
pub const COURTESY_WINDOW: Duration = Duration::from_millis(8);

/// A processor that comes back so long after it was offered was kept by a program that computes: another that moves bytes gives
/// it back sooner.
pub const COURTESY_LATE: Duration = Duration::from_millis(1);

/// After it came back late, no connection of the process offers it for so many times as long: waiting for it is at most this part
/// of the time, as long as [`COURTESY_PAUSE_MAX`] is not less.
pub const COURTESY_PAUSE: u32 = 32;

/// The longest such time.
pub const COURTESY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The longest text kept of an error that a peer or the system reported.
pub const DETAIL_BYTES_MAX: usize = 512;

/// Entries in the kernel's queue of connections that were not accepted yet.
pub const LISTEN_BACKLOG: u32 = 1_024;

/// The longest path of a Unix socket, without the terminating zero (`sun_path` has 108 bytes on Linux).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// How many messages one in-process delivery turn hands over before it yields to the runtime.
pub const LOCAL_TURN_MESSAGES: usize = 256;

/// How often a server that binds a path tries to be the only one in its directory that does, before it goes on regardless.
pub const TURN_TRIES: u32 = 10;

/// The pause between two such tries; nobody holds the turn for longer than a few system calls.
pub const TURN_PAUSE: Duration = Duration::from_millis(1);

/// How many messages of an in-process channel are handed over under one look at its state.
pub const LOCAL_BATCH_MESSAGES: usize = 64;

/// How many messages of one destination an in-process channel hands over before the next destination has its turn.
pub const LOCAL_LANE_TURN_MESSAGES: usize = 16;

/// How many destinations an in-process channel knows at a time. Beyond, those without messages are forgotten, and a post to
/// another one finds the channel full while there are none.
pub const LOCAL_DESTINATIONS_MAX: usize = 16_384;

/// Sleeps of the threads that serve a connection before the first one that looks for input first: who exchanges a few
/// messages never does.
pub const SPIN_WARM_UP: u32 = 64;

/// Where looking does not pay, one sleep in so many finds out whether it would pay again.
pub const SPIN_PROBE_EVERY: u32 = 64;

/// The same after it did not pay time and again.
pub const SPIN_PROBE_EVERY_MAX: u32 = 1_024;

/// How many wake-ups the full time for looking is worth; half of it must be more than one. A peer that sleeps has to be woken and
/// do its work before it can answer, and two that each give up before that never meet.
pub const SPIN_BUDGET_WAKES: u32 = 4;

/// The least full time for looking, where a wake-up costs next to nothing.
pub const SPIN_BUDGET_MIN: Duration = Duration::from_micros(20);

/// The longest time for looking: what else a thread could have done waits no longer for it, unless the processor that it offers
/// between two looks is kept by somebody else ([`SPIN_YIELD_PAUSE`]).
pub const SPIN_BUDGET_MAX: Duration = Duration::from_micros(200);

/// The full time for looking where it cannot be found out what a wake-up costs.
pub const SPIN_BUDGET_DEFAULT: Duration = Duration::from_micros(100);

/// A look that comes so long after the one before says that the processor was taken away in between.
pub const SPIN_LATE: Duration = Duration::from_micros(10);

/// The same where the processor was offered to others in between: whoever looks for input, too, or handles a message, gives it back
/// sooner; whoever computes keeps it for a slice of the scheduler, which is several times longer.
pub const SPIN_YIELD_LATE: Duration = Duration::from_micros(500);

/// After it came back late, no thread of the process offers its processor for so many times as long: waiting for it is at most this
/// part of the time, as long as [`SPIN_YIELD_PAUSE_MAX`] is not less.
pub const SPIN_YIELD_PAUSE: u32 = 32;

/// The longest such time: a process that was stopped was not kept from its processor by somebody who computes.
pub const SPIN_YIELD_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How many wake-ups are timed to find out what one costs.
pub const WAKE_PROBES: u32 = 24;

/// The pause before each of them: long enough for a processor to go to rest.
pub const WAKE_PROBE_PAUSE: Duration = Duration::from_millis(1);
