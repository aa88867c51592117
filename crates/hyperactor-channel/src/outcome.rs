//! What becomes of a message: [`Outcome`], [`Failure`] and the [`Reason`] of a failure, plus what `flush` and `ready`
//! can say. Errors of binding an address are in `serve_error`.

use std::fmt;
use std::time::Duration;

use hyperactor_protocol::Refusal;
use hyperactor_refs::ChannelAddr;

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an outcome says whether the message arrived"]
pub enum Outcome {
    /// The receiver placed it where it belongs.
    Delivered,
    /// It was not delivered and never will be.
    NotDelivered(Reason),
    /// It was sent, and whether it arrived cannot be known.
    Unknown(Reason),
}

impl Outcome {
    /// Whether the message was placed.
    pub fn is_delivered(&self) -> bool {
        matches!(self, Self::Delivered)
    }

    /// The failure, when it is one.
    pub fn failure(self) -> Option<Failure> {
        match self {
            Self::Delivered => None,
            Self::NotDelivered(reason) => Some(Failure::NotDelivered(reason)),
            Self::Unknown(reason) => Some(Failure::Unknown(reason)),
        }
    }
}

/// An outcome other than `Delivered`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The message was not delivered and never will be: sending it again cannot double it.
    #[error("not delivered: {0}")]
    NotDelivered(Reason),
    /// The message was sent, and whether it arrived cannot be known: sending it again may double it.
    #[error("unknown whether delivered: {0}")]
    Unknown(Reason),
}

impl Failure {
    /// The reason.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::NotDelivered(reason) | Self::Unknown(reason) => reason,
        }
    }

    /// The reason, by value.
    pub fn into_reason(self) -> Reason {
        match self {
            Self::NotDelivered(reason) | Self::Unknown(reason) => reason,
        }
    }

    /// Whether it is certain that the message never arrived.
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::NotDelivered(_))
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotDelivered(reason) => Self::NotDelivered(reason),
            Failure::Unknown(reason) => Self::Unknown(reason),
        }
    }
}

/// Why a message was not delivered, or why that is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The channel holds as many messages or bytes without an outcome as it may. Wait for room, or drop load.
    Full,
    /// This end of the channel was closed before the message was posted.
    Closed,
    /// The message is larger than this channel carries. Split it, or raise the limit on both sides.
    TooLarge {
        /// Its encoded size in bytes. When encoding stopped at the limit, the size reached by then.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The message could not be encoded; the text says why.
    Encode(String),
    /// The receiver could not decode the message; the text says why.
    Decode(String),
    /// Nobody answers at the address.
    Connect {
        /// The address that was dialled.
        addr: ChannelAddr,
        /// What the system said.
        error: String,
        /// The system's error number, when there is one.
        errno: Option<i32>,
    },
    /// The peer answered the handshake with a refusal.
    Refused {
        /// The address that was dialled.
        addr: ChannelAddr,
        /// The peer's code, as the wire specification numbers them.
        code: u16,
        /// What the code means.
        text: String,
    },
    /// The peer went away in order and never received the message.
    PeerClosed,
    /// Another incarnation answers at the address now.
    PeerRestarted,
    /// The same incarnation answers, and does not know the session any more: it expired there, or its server restarted.
    SessionLost,
    /// Nothing moved for this long.
    Silent(Duration),
    /// The peer broke the protocol; the text says how. The session ended.
    Violation(String),
    /// The message was given up without an outcome: its handle was dropped, its task ended, or its runtime shut down.
    Dropped,
    /// The channel was dialled outside a tokio runtime, and nothing can carry the message.
    NoRuntime,
    /// The receiving application refused the message; code and detail are its own.
    Remote(Refusal),
}

impl Reason {
    /// A stable code of the kind of reason, for logs, metrics and tests.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Closed => "closed",
            Self::TooLarge { .. } => "too_large",
            Self::Encode(_) => "encode",
            Self::Decode(_) => "decode",
            Self::Connect { .. } => "connect",
            Self::Refused { .. } => "refused",
            Self::PeerClosed => "peer_closed",
            Self::PeerRestarted => "peer_restarted",
            Self::SessionLost => "session_lost",
            Self::Silent(_) => "silent",
            Self::Violation(_) => "violation",
            Self::Dropped => "dropped",
            Self::NoRuntime => "no_runtime",
            Self::Remote(_) => "remote",
        }
    }

    /// Whether the same message, posted again later (perhaps over a new channel), may be delivered.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full
            | Self::Closed
            | Self::Connect { .. }
            | Self::PeerClosed
            | Self::PeerRestarted
            | Self::SessionLost
            | Self::Silent(_)
            | Self::Dropped => true,
            Self::TooLarge { .. }
            | Self::Encode(_)
            | Self::Decode(_)
            | Self::Refused { .. }
            | Self::Violation(_)
            | Self::NoRuntime
            | Self::Remote(_) => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the channel is full; wait for room"),
            Self::Closed => f.write_str("the channel is closed"),
            Self::TooLarge { size, max } => {
                write!(
                    f,
                    "the message has {size} bytes, the channel carries at most {max}"
                )
            }
            Self::Encode(text) => write!(f, "the message does not encode: {text}"),
            Self::Decode(text) => write!(f, "the receiver cannot decode the message: {text}"),
            Self::Connect { addr, error, .. } => write!(f, "nobody answers at {addr}: {error}"),
            Self::Refused { addr, code, text } => {
                write!(f, "{addr} refused the connection: {text} (code {code})")
            }
            Self::PeerClosed => f.write_str("the peer closed the channel before it received it"),
            Self::PeerRestarted => f.write_str("another incarnation answers at the address now"),
            Self::SessionLost => f.write_str("the peer does not know the session any more"),
            Self::Silent(time) => write!(f, "nothing moved for {time:?}"),
            Self::Violation(text) => write!(f, "the peer broke the protocol: {text}"),
            Self::Dropped => f.write_str("it was given up without an outcome"),
            Self::NoRuntime => {
                f.write_str("the channel was dialled outside a tokio runtime; dial inside one")
            }
            Self::Remote(refusal) => {
                write!(f, "the receiver refused it with code {}", refusal.code)
            }
        }
    }
}

/// Why `flush` cannot say that all earlier posts were settled in the ordinary way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The channel ended for good while messages were under way. Each of them has its outcome, not all `Delivered`.
    #[error("the channel ended while messages were under way: {0}")]
    Closed(Reason),
}

impl FlushError {
    /// A stable code of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
        }
    }
}
