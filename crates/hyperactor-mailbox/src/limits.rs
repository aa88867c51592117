//! Every limit of this crate, by name. What is full is refused or waited for; nothing here grows.

use std::time::Duration;

/// Hops an envelope may take before it is returned as expired.
pub const TTL_DEFAULT: u8 = 64;

/// Messages that local senders may have waiting in one queue, unless the queue was made with another capacity.
///
/// Messages from other processes do not count against it: they are bounded by the credit their channel gave.
pub const QUEUE_CAPACITY_DEFAULT: usize = 4_096;

/// Messages of class `Control` that local senders may have waiting in one queue, beside its capacity.
pub const CONTROL_CAPACITY: usize = 256;

/// Messages that a port's receiver takes out of its queue at once.
pub const RECV_BATCH: usize = 64;

/// The first index given to a port that is opened at run time; below are reserved.
pub const FIRST_EPHEMERAL_PORT: u64 = 1_024;

/// The index of the port at which every mailbox takes notices of other mailboxes.
pub const NOTICE_PORT: u64 = FIRST_EPHEMERAL_PORT - 1;

/// References to once-ports in one decoded message whose drop is told; further ones are not watched.
pub const REPLIES_PER_MESSAGE: usize = 64;

/// Requests from other processes that one mailbox remembers at once, so that their senders can withdraw them.
pub const REQUESTS_PER_MAILBOX: usize = 65_536;

/// Bytes of a message that was delivered to another process and not handled, up to which it is given back whole.
pub const RETURNED_BYTES: usize = 64 * 1_024;

/// Actors that a chain of waiting actors names; of a longer one the first ones are left out.
pub const WAIT_CHAIN_ACTORS: usize = 16;

/// Ports one mailbox may have bound at once.
pub const PORTS_PER_MAILBOX: usize = 65_536;

/// Header entries in one envelope.
pub const HEADERS_PER_ENVELOPE: usize = 16;

/// Bytes in the value of one header.
pub const HEADER_VALUE_BYTES: usize = 1_024;

/// Bytes of one encoded actor id in an envelope.
pub const ID_BYTES: usize = 4_096;

/// Hops that the route of an undeliverable keeps; further ones are dropped.
pub const ROUTE_HOPS: usize = 72;

/// Departed actors that a muxer remembers, so as to answer that they stopped rather than that they never were.
pub const DEPARTED_ACTORS: usize = 4_096;

/// Actors bound to one muxer at once.
pub const ACTORS_PER_MUXER: usize = 1 << 22;

/// Actor ids that each decoding thread remembers, so that an id met before is not built again.
pub const DECODED_IDS_PER_THREAD: usize = 256;

/// Ports that a muxer remembers to have found, so that a stream of messages does not look for each.
pub const RECENT_PORTS: usize = 16;

/// Bytes of an encoded actor id above which a decoding thread does not remember it.
pub const DECODED_ID_BYTES: usize = 256;

/// Names of procs listed in an answer about an unknown one.
pub const KNOWN_NAMES: usize = 16;

/// Bytes of a dead process's last words that its certificate keeps.
pub const LAST_WORDS_BYTES: usize = 4 * 1024;

/// Messages in hand that a certificate names.
pub const HANDLING_MAX: usize = 16;

/// Bytes of an actor's or a type's name in a certificate.
pub const HANDLING_NAME_BYTES: usize = 128;

/// The most bytes for which room is made because a length says so, where a field of bytes is decoded one by one.
pub const BYTES_RESERVED: usize = 4 * 1024;

/// The smallest [`Part`](crate::Part) of a message that is shared instead of being copied, in bytes.
pub const PART_SHARED_BYTES: usize = 16 * 1024;

/// Looks at a [`BriefMutex`](crate::BriefMutex) that somebody has, each after twice as long as the one before, before others of the
/// processor get their turn: some 2⁷ pauses of the processor's own, as long as the lock is held a few times.
pub const LOCK_SPINS: u32 = 7;

/// Looks after which the next one waits for [`LOCK_PAUSE`].
pub const LOCK_YIELDS: u32 = 64;

/// How long is waited between two looks at a lock whose holder does not come to run.
pub const LOCK_PAUSE: Duration = Duration::from_micros(50);
