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

/// Messages that an actor handles before it lets other tasks of its thread run.
///
/// The same number as tokio's own budget of a task, which a handler that awaits tokio's types spends besides.
pub const MESSAGES_PER_TURN: u32 = 128;

/// Reports of undeliverable messages that wait for one actor or client.
///
/// A report beyond this number is logged and counted instead of kept.
pub const REPORTS_MAX: usize = 1024;

/// How long `ask` waits for its reply.
pub const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of the words in which an actor's end is told to those who wait for a reply of it; the rest is cut off.
pub const CAUSE_BYTES_MAX: usize = 512;

/// How long an actor's `cleanup` may take before the actor is aborted.
pub const CLEANUP_DEADLINE: Duration = Duration::from_secs(5);

/// How long the children of an ending actor may take before they are aborted.
pub const CHILDREN_DEADLINE: Duration = Duration::from_secs(5);

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
