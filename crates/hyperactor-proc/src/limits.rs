//! Every bound and every default deadline of this crate, by name. Nothing here is read from the environment.

use std::time::Duration;

/// Messages that senders of the same proc may have waiting in one actor's queue.
///
/// A post to a full queue fails at once with `NotDelivered::QueueFull`; a `feed` or `send` waits. What comes
/// from other processes is bounded by the credit that their sessions were given, not by this number.
pub const QUEUE_MESSAGES_MAX: usize = 4096;

/// Messages that an actor takes out of its queue at a time.
///
/// Large enough that a busy actor touches the queue's lock rarely, small enough that a bounded queue stays
/// close to its bound: up to this many messages are in the actor's hands beside those in the queue.
pub const BATCH_MESSAGES_MAX: usize = 64;

/// Messages of one type that lie side by side in an actor's queue. An actor takes whole runs out of its queue, so it may
/// have as many messages in its hands as this and [`BATCH_MESSAGES_MAX`] together.
pub const RUN_MESSAGES_MAX: usize = 64;

/// Empty runs that a busy actor keeps for use.
pub const SPARE_RUNS_MAX: usize = 8;

/// Empty runs that an actor at rest keeps for use.
pub const SPARE_RUNS_AT_REST: usize = 2;

/// Bytes of messages for which such a run of an actor at rest may have room.
pub const RUN_KEPT_BYTES: usize = 512;

/// Bytes of the largest type whose messages lie in the queue as they are; larger ones get a box of their own, so that they
/// are not copied on their way.
pub const INLINE_BYTES_MAX: usize = 128;

/// Messages that an actor handles before it lets other tasks of its thread run.
///
/// The same number as tokio's own budget of a task, which a handler that awaits tokio's types spends besides.
pub const MESSAGES_PER_TURN: u32 = 128;

/// Time between two looks at the threads that run actors: a turn that is seen twice took long, and another thread looks for input
/// from there on.
pub const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// Looks at which no actor had a turn, after which they end until one has.
pub const QUIET_LOOKS: u32 = 10;

/// How long the thread that looks is kept when there is nothing to look at.
pub const WATCHDOG_LINGER: Duration = Duration::from_secs(1);

/// From which time on a turn of an actor that has taken long keeps it slow, if it computed for so long, or slept: as long as a turn
/// takes at least that is found to take long.
pub const SLOW_TURN: Duration = LOOK_PERIOD;

/// Quick turns after which an actor that has taken long counts as quick again.
pub const SLOW_TURNS_REMEMBERED: u8 = 8;

/// Reports of undeliverable messages that wait for one actor or client.
///
/// A report beyond this number is logged and counted instead of kept.
pub const REPORTS_MAX: usize = 1024;

/// How long `ask` waits for its reply.
pub const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of the words in which an actor's end is told to those who wait for a reply of it; the rest is cut off.
pub const CAUSE_BYTES_MAX: usize = 512;

/// Time between two beats to a proc that is watched.
pub const BEAT_PERIOD: Duration = Duration::from_millis(250);

/// Beats in a row of which it is not known whether they arrived, after which a proc counts as lost.
pub const BEATS_IN_DOUBT_MAX: u32 = 3;

/// How long a proc that nobody watches any more still gets beats, so that many short watches cost no more than one.
pub const WATCH_LINGER: Duration = Duration::from_secs(1);

/// How long the loss of a proc is held back for its host to say how it ended, or that it has.
pub const CERTIFICATE_GRACE: Duration = Duration::from_millis(250);

/// Death certificates of other procs that a proc keeps.
pub const CERTIFICATES_KEPT_MAX: usize = 64;

/// Ends of its actors that a proc keeps, for watches that come too late.
pub const ENDS_KEPT_MAX: usize = 256;

/// Watches that one proc may have of the actors of another.
pub const WATCHES_PER_PROC_MAX: usize = 65_536;

/// Messages between the systems of procs that wait for their outcome.
pub const LETTERS_MAX: usize = 262_144;

/// How often such a message is sent before it is given up: at [`BEAT_PERIOD`], as long as half a minute.
pub const LETTER_TRIES_MAX: u32 = 120;

/// Earlier ends in the chain of an event.
pub const CHAIN_EVENTS_MAX: usize = 16;

/// Errors in the chain of one failure that an event keeps.
pub const ERROR_CHAIN_MAX: usize = 16;

/// Length of one text of an event in bytes.
pub const EVENT_TEXT_BYTES_MAX: usize = 4 * 1024;

/// Length of a printed stack in bytes.
pub const BACKTRACE_BYTES_MAX: usize = 16 * 1024;

/// Names that a proc's actors may have beside their ids.
pub const NAMES_MAX: usize = 65_536;

/// Names that other procs may wait for in one proc at the same time.
pub const NAME_WAITS_MAX: usize = 4096;

/// How long a proc waits for a name at the request of another.
pub const NAME_WAIT_MAX: Duration = Duration::from_secs(600);

/// How often a wait for a name looks whether its proc still has an owner.
pub const NAME_LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Members of all groups that have their home in one proc.
pub const GROUP_MEMBERS_MAX: usize = 65_536;

/// Questions of one collection that wait for their replies at a time.
pub const ASKS_IN_FLIGHT_MAX: usize = 1024;

/// Items of a stream that are under way or wait to be received.
pub const STREAM_WINDOW: u32 = 64;

/// Items that a receiver may let a sender have under way, whatever it grants.
pub const STREAM_WINDOW_MAX: u32 = 4096;

/// How long the next item of a stream is waited for, and how long a place for it.
pub const STREAM_DEADLINE: Duration = Duration::from_secs(30);

/// Timers and piped futures of one actor.
pub const TASKS_PER_ACTOR_MAX: usize = 1024;

/// How long an actor's `cleanup` may take before the actor is aborted.
pub const CLEANUP_DEADLINE: Duration = Duration::from_secs(5);

/// How long the children of an ending actor may take before they are aborted.
pub const CHILDREN_DEADLINE: Duration = Duration::from_secs(5);

/// How long the `init` of a supervisor's child may take.
pub const CHILD_START_DEADLINE: Duration = Duration::from_secs(10);

/// How long an aborted actor may take to let go of its thread before it is reported as stuck.
///
/// An actor can only be aborted where it awaits; one that blocks its thread cannot be ended from outside.
pub const ABORT_GRACE: Duration = Duration::from_secs(1);

/// The part of a proc's stop deadline that its actors have for handling what is already in their queues, as
/// a divisor: with 2, the first half drains and the second half stops.
pub const DRAIN_SHARE_OF_DEADLINE: u32 = 2;

/// Characters of a foreign type's name that are compared with the known names, and repeated in the answer.
pub const TYPE_NAME_CHARS_MAX: usize = 255;

/// Length of the encoded parameters of a remote spawn in bytes.
pub const SPAWN_PARAMS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Names that an answer to an unknown actor type lists.
pub const NEAR_NAMES_MAX: usize = 5;

/// Actors that one answer of the agent lists; the total is always given.
pub const LISTED_ACTORS_MAX: usize = 4096;
