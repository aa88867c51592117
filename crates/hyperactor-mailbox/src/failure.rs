//! Why a message did not arrive, as values: [`NotDelivered`], [`Unknown`], and the [`Outcome`] of a post.
//!
//! They cross the wire as the detail of a refusal, so variants and fields are only ever appended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_refs::{ActorId, ChannelAddr, PortId, ProcId};
use serde::{Deserialize, Serialize};

/// The message is in no mailbox, and never will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum NotDelivered {
    /// The host has no proc of this name.
    #[error("no proc `{proc_id}` at host {host}; {}", KnownNames(known))]
    UnknownProc {
        /// The proc that was addressed.
        proc_id: Arc<ProcId>,
        /// The address at which the answering host is reached.
        host: ChannelAddr,
        /// Names the host does have, at most [`crate::limits::KNOWN_NAMES`] of them.
        known: Vec<String>,
    },
    /// The proc has no such actor, and does not remember one.
    #[error("no actor `{actor_id}` in its proc; check its name, and that it was spawned")]
    UnknownActor {
        /// The actor that was addressed.
        actor_id: ActorId,
    },
    /// The actor has no such port: it does not take this message, or the receiver of the port was dropped.
    #[error(
        "no port `{port_id}`: the actor does not take this message, or the port's receiver was dropped"
    )]
    UnknownPort {
        /// The port that was addressed.
        port_id: PortId,
    },
    /// The actor existed and has ended.
    #[error("actor `{actor_id}` has stopped")]
    ActorStopped {
        /// The actor that was addressed.
        actor_id: ActorId,
    },
    /// The proc existed and has ended.
    #[error("proc `{proc_id}` has ended")]
    ProcGone {
        /// The proc that was addressed.
        proc_id: Arc<ProcId>,
    },
    /// A queue on the way has no room; wait for it with `feed` or `send`, or try later.
    #[error(
        "the queue towards `{port_id}` is full ({capacity} messages); wait for room, or send less"
    )]
    QueueFull {
        /// The port that was addressed.
        port_id: PortId,
        /// How many messages the queue holds.
        capacity: u64,
    },
    /// The message is larger than the way to its destination allows.
    #[error("the message has {size} bytes, the limit is {max}")]
    TooLarge {
        /// The size of the message in bytes.
        size: u64,
        /// The most that is allowed in bytes.
        max: u64,
    },
    /// The port takes another type, or another version of it: then both texts are its name with the hash of a shape.
    #[error(
        "port `{port_id}` takes `{expected}`, and the message is `{found}`{}",
        SameName(expected, found)
    )]
    TypeMismatch {
        /// The port that was addressed.
        port_id: PortId,
        /// The name of the type the port takes.
        expected: String,
        /// The name, or the wire hash, of the type that came.
        found: String,
    },
    /// The bytes do not decode as the type they claim to be.
    #[error(
        "the message does not decode: {error}; do both programs have the same version of its type?"
    )]
    Decode {
        /// What the decoder said.
        error: String,
    },
    /// The message could not be encoded.
    #[error("the message does not encode: {error}")]
    Encode {
        /// What the encoder said.
        error: String,
    },
    /// The message took more hops than it may: two routers send it to one another.
    #[error("the time to live ended on the way to `{port_id}`: a loop of routers?")]
    TtlExpired {
        /// The port that was addressed.
        port_id: PortId,
    },
    /// Nobody here knows a way to the destination.
    #[error("no route to `{port_id}`: {detail}")]
    NoRoute {
        /// The port that was addressed.
        port_id: PortId,
        /// What is missing.
        detail: String,
    },
    /// The address could not be connected to, and the message never left.
    #[error("cannot connect to {addr}: {error}")]
    Connect {
        /// The address that was dialled.
        addr: ChannelAddr,
        /// What the operating system or the peer said.
        error: String,
    },
    /// The peer went away in order before it took the message.
    #[error("{addr} closed before it took the message")]
    PeerClosed {
        /// The address of the peer.
        addr: ChannelAddr,
    },
    /// The time for delivery ended, and the message never left.
    #[error("not sent to {addr} within {} ms", after.as_millis())]
    TimedOut {
        /// The address of the peer.
        addr: ChannelAddr,
        /// How long it was tried.
        after: Duration,
    },
    /// A reason this version has no variant for.
    #[error("{detail} (reason `{code}`)")]
    Other {
        /// A stable code.
        code: String,
        /// The reason in words.
        detail: String,
    },
    /// The actor would have to answer while it waits, through others, for this very answer.
    #[error(
        "these actors would wait for each other for ever: {}; answer before asking, or ask from a task",
        Circle(chain)
    )]
    Deadlock {
        /// Who waits for whom: each for the next, the last one for the first.
        chain: Vec<ActorId>,
    },
    /// The queue was full, and its actor prefers newer messages, or older ones, to this one.
    #[error("the queue of `{actor_id}` was full ({capacity} messages) and {dropped} was dropped")]
    Shed {
        /// Whose queue.
        actor_id: ActorId,
        /// How many messages it holds.
        capacity: u64,
        /// Which one its actor prefers to drop.
        dropped: Dropped,
    },
}

/// Which message of a full queue is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// The one that waited longest.
    Oldest,
    /// The one that has just come.
    Newest,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oldest => "its oldest message",
            Self::Newest => "the newest message",
        })
    }
}

/// Prints who waits for whom.
struct Circle<'a>(&'a [ActorId]);

impl fmt::Display for Circle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for actor_id in self.0 {
            write!(f, "`{actor_id}` -> ")?;
        }
        match self.0.first() {
            Some(first) => write!(f, "`{first}`"),
            None => f.write_str("a circle"),
        }
    }
}

impl NotDelivered {
    /// A short name that stays the same across releases.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownProc { .. } => "unknown-proc",
            Self::UnknownActor { .. } => "unknown-actor",
            Self::UnknownPort { .. } => "unknown-port",
            Self::ActorStopped { .. } => "actor-stopped",
            Self::ProcGone { .. } => "proc-gone",
            Self::QueueFull { .. } => "queue-full",
            Self::TooLarge { .. } => "too-large",
            Self::TypeMismatch { .. } => "type-mismatch",
            Self::Decode { .. } => "decode",
            Self::Encode { .. } => "encode",
            Self::TtlExpired { .. } => "ttl-expired",
            Self::NoRoute { .. } => "no-route",
            Self::Connect { .. } => "connect",
            Self::PeerClosed { .. } => "peer-closed",
            Self::TimedOut { .. } => "timed-out",
            Self::Other { .. } => "other",
            Self::Deadlock { .. } => "deadlock",
            Self::Shed { .. } => "shed",
        }
    }

    /// The number that stands for the reason on the wire.
    #[must_use]
    pub fn number(&self) -> u16 {
        match self {
            Self::UnknownProc { .. } => 1,
            Self::UnknownActor { .. } => 2,
            Self::UnknownPort { .. } => 3,
            Self::ActorStopped { .. } => 4,
            Self::ProcGone { .. } => 5,
            Self::QueueFull { .. } => 6,
            Self::TooLarge { .. } => 7,
            Self::TypeMismatch { .. } => 8,
            Self::Decode { .. } => 9,
            Self::Encode { .. } => 10,
            Self::TtlExpired { .. } => 11,
            Self::NoRoute { .. } => 12,
            Self::Connect { .. } => 13,
            Self::PeerClosed { .. } => 14,
            Self::TimedOut { .. } => 15,
            Self::Other { .. } => 16,
            Self::Deadlock { .. } => 17,
            Self::Shed { .. } => 18,
        }
    }

    /// Whether the same message may well be delivered when it is sent again a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::QueueFull { .. }
                | Self::Connect { .. }
                | Self::PeerClosed { .. }
                | Self::TimedOut { .. }
        )
    }
}

/// Prints what a host knows, for somebody who mistyped a name.
struct KnownNames<'a>(&'a [String]);

impl fmt::Display for KnownNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("it has none"),
            names => write!(f, "it has: {}", names.join(", ")),
        }
    }
}

/// Says what to do when two texts differ in the shape alone.
struct SameName<'a>(&'a str, &'a str);

impl fmt::Display for SameName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |text: &str| {
            text.split_once(" (schema ")
                .map(|(name, _)| name.to_owned())
        };
        match name(self.0) {
            Some(same) if name(self.1).as_ref() == Some(&same) => {
                f.write_str("; the two programs were built from different versions of that type")
            }
            _ => Ok(()),
        }
    }
}

/// The message was sent, and whether it was placed will not be known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// The process that had received it ended.
    #[error("{addr} died before it told what became of the message")]
    PeerDied {
        /// The address of the peer.
        addr: ChannelAddr,
    },
    /// Another incarnation answers at the address now.
    #[error("{addr} restarted before it told what became of the message")]
    PeerRestarted {
        /// The address of the peer.
        addr: ChannelAddr,
    },
    /// The connection was lost for good.
    #[error("the connection to {addr} was lost before the message was acknowledged: {error}")]
    ConnectionLost {
        /// The address of the peer.
        addr: ChannelAddr,
        /// What was seen of it.
        error: String,
    },
    /// The time for delivery ended without an acknowledgement.
    #[error("{addr} did not acknowledge the message within {} ms", after.as_millis())]
    TimedOut {
        /// The address of the peer.
        addr: ChannelAddr,
        /// How long it was waited for.
        after: Duration,
    },
    /// Whoever had the message dropped it without telling.
    #[error("dropped on the way without a verdict")]
    Dropped,
    /// A reason this version has no variant for.
    #[error("{detail} (reason `{code}`)")]
    Other {
        /// A stable code.
        code: String,
        /// The reason in words.
        detail: String,
    },
}

impl Unknown {
    /// A short name that stays the same across releases.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PeerDied { .. } => "peer-died",
            Self::PeerRestarted { .. } => "peer-restarted",
            Self::ConnectionLost { .. } => "connection-lost",
            Self::TimedOut { .. } => "unacknowledged",
            Self::Dropped => "dropped",
            Self::Other { .. } => "other-unknown",
        }
    }

    /// The number that stands for the reason on the wire.
    #[must_use]
    pub fn number(&self) -> u16 {
        match self {
            Self::PeerDied { .. } => 129,
            Self::PeerRestarted { .. } => 130,
            Self::ConnectionLost { .. } => 131,
            Self::TimedOut { .. } => 132,
            Self::Dropped => 133,
            Self::Other { .. } => 134,
        }
    }
}

/// Why a message has no `Delivered` as its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// It was not delivered, and will not be.
    #[error("not delivered: {0}")]
    NotDelivered(#[source] NotDelivered),
    /// It was sent, and what became of it is not known.
    #[error("outcome unknown: {0}")]
    Unknown(#[source] Unknown),
}

impl Failure {
    /// The reason's [`NotDelivered::code`] or [`Unknown::code`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotDelivered(reason) => reason.code(),
            Self::Unknown(reason) => reason.code(),
        }
    }

    /// The reason's [`NotDelivered::number`] or [`Unknown::number`].
    #[must_use]
    pub fn number(&self) -> u16 {
        match self {
            Self::NotDelivered(reason) => reason.number(),
            Self::Unknown(reason) => reason.number(),
        }
    }

    /// Whether sending again is safe and promising: never for an unknown outcome, which may have been a delivery.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotDelivered(reason) => reason.is_retryable(),
            Self::Unknown(_) => false,
        }
    }
}

impl From<NotDelivered> for Failure {
    fn from(reason: NotDelivered) -> Self {
        Self::NotDelivered(reason)
    }
}

impl From<Unknown> for Failure {
    fn from(reason: Unknown) -> Self {
        Self::Unknown(reason)
    }
}

/// What became of a message. A value, not an error: look at all three.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an outcome that is not looked at hides a message that did not arrive"]
pub enum Outcome {
    /// It was placed in the destination mailbox.
    Delivered,
    /// It was not, and never will be.
    NotDelivered(Box<NotDelivered>),
    /// It was sent; whether it was placed is not known.
    Unknown(Box<Unknown>),
}

impl Outcome {
    /// Whether the message was placed in the destination mailbox.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        matches!(self, Self::Delivered)
    }

    /// Turns everything but a delivery into an error.
    ///
    /// # Errors
    /// The [`Failure`] of an outcome that is no delivery.
    pub fn into_result(self) -> Result<(), Failure> {
        match self {
            Self::Delivered => Ok(()),
            Self::NotDelivered(reason) => Err(Failure::NotDelivered(*reason)),
            Self::Unknown(reason) => Err(Failure::Unknown(*reason)),
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotDelivered(reason) => Self::NotDelivered(Box::new(reason)),
            Failure::Unknown(reason) => Self::Unknown(Box::new(reason)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered => f.write_str("delivered"),
            Self::NotDelivered(reason) => write!(f, "not delivered: {reason}"),
            Self::Unknown(reason) => write!(f, "outcome unknown: {reason}"),
        }
    }
}
