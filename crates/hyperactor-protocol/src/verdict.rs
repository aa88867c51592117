//! What became of a message: [`Verdict`] is what the receiving side says, [`Failure`] what the sending side
//! concludes. The meaning of an application's refusal codes is not known here.

use bytes::Bytes;
use thiserror::Error;

use crate::{HelloCode, Violation};

/// What the receiving side says of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is where it should be.
    Delivered,
    /// It is not there and never will be.
    NotDelivered(Refusal),
    /// It went further and nobody knows whether it arrived.
    Unknown(Refusal),
}

/// Why a message was not delivered, in the words of the receiving application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The application's code, below [`Refusal::RESERVED_FROM`].
    pub code: u16,
    /// More, for the application to read. Longer than [`DETAIL_MAX`](crate::limits::DETAIL_MAX) bytes it is left
    /// out: the code travels alone.
    pub detail: Bytes,
}

impl Refusal {
    /// Codes from here on are the protocol's own.
    pub const RESERVED_FROM: u16 = 0xFF00;
    /// The session was closing when the message came.
    pub const CLOSING: u16 = 0xFF01;

    /// A refusal of this code, without detail.
    pub const fn new(code: u16) -> Self {
        Self {
            code,
            detail: Bytes::new(),
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Bytes>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// How a message that was not delivered ended, in the words of the sending side.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// It was not delivered and never will be.
    #[error("not delivered: {0}")]
    NotDelivered(Cause),
    /// It was sent, and what became of it cannot be learned.
    #[error("outcome unknown: {0}")]
    Unknown(Cause),
}

impl Failure {
    /// Returns why.
    pub const fn cause(&self) -> &Cause {
        match self {
            Self::NotDelivered(cause) | Self::Unknown(cause) => cause,
        }
    }

    /// Returns whether it is certain that the message did not arrive.
    pub const fn is_certain(&self) -> bool {
        matches!(self, Self::NotDelivered(_))
    }
}

/// Why messages of a session failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Cause {
    /// The receiving application said so.
    #[error("refused by the receiver with code {}", .0.code)]
    Refused(Refusal),
    /// The peer closed the session in order.
    #[error("the peer closed the session (code {code})")]
    PeerClosed {
        /// The peer's code; see [`Goodbye`](crate::Goodbye).
        code: u16,
    },
    /// The peer is a new incarnation, or forgot its state: what the old one received cannot be learned.
    #[error("the peer restarted")]
    PeerRestarted,
    /// The same incarnation of the peer no longer knows the session, because it expired there.
    #[error("the session expired at the peer")]
    SessionLost,
    /// Nothing moved for the delivery timeout.
    #[error("no progress within the delivery timeout")]
    TimedOut,
    /// The peer takes no frames as large as this message.
    #[error("{size} bytes are more than the {max} that the peer accepts")]
    TooLarge {
        /// The message's size, bytes.
        size: u64,
        /// The largest that would have passed, bytes.
        max: u64,
    },
    /// The peer refused the connection for good.
    #[error("the peer refused the session: {0}")]
    HelloRefused(HelloCode),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(Violation),
    /// This side gave the session up.
    #[error("the session was given up on this side")]
    Abandoned,
    /// An encoder of this side destroyed the log it was to append to.
    #[error("an encoder damaged the outgoing log")]
    Damaged,
}

impl Cause {
    /// Returns a stable word for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::PeerClosed { .. } => "peer_closed",
            Self::PeerRestarted => "peer_restarted",
            Self::SessionLost => "session_lost",
            Self::TimedOut => "timed_out",
            Self::TooLarge { .. } => "too_large",
            Self::HelloRefused(_) => "hello_refused",
            Self::Violation(_) => "violation",
            Self::Abandoned => "abandoned",
            Self::Damaged => "damaged",
        }
    }
}
