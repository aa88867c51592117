//! What a session tells: [`Event`] is for whoever drives it and must be taken; [`Notice`] is for whoever watches.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Cause, ConnectionEpoch, Failure, Goodbye, HelloError, Label, PostId, Seq, SessionId, Violation,
};

/// Something that the driver of a session must act on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// These messages are delivered.
    Resolved {
        /// The first of them.
        first: PostId,
        /// How many, one after the other in the order of posting.
        count: u64,
    },
    /// This message is not delivered, or nobody can know.
    Failed {
        /// Which one.
        post: PostId,
        /// Which of the two, and why.
        failure: Failure,
        /// Its body; `None` when the log that held it was damaged.
        body: Option<Bytes>,
    },
    /// There is room again after [`PushError::Full`](crate::PushError::Full), or after
    /// [`add_label`](crate::Session::add_label) gave none.
    Room {
        /// The label whose messages were refused; [`Label::NONE`] when the session as a whole was full.
        label: Label,
    },
    /// The peer closed the session. Every message has its outcome; the session is over.
    PeerGoodbye(Goodbye),
    /// This side closed the session and everything is done. The session is over.
    Drained,
    /// The session failed. Every message has its outcome; the session is over.
    Closed(Cause),
}

/// Something that happened in a session, for logs, metrics, and tests. Ids and sizes, never contents.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A connection is up.
    Connected {
        /// Its number.
        epoch: ConnectionEpoch,
        /// Whether the peer still had the session's state.
        resumed: bool,
        /// Messages that will be sent again.
        resend: u64,
    },
    /// The connection is gone.
    Disconnected {
        /// Its number.
        epoch: ConnectionEpoch,
    },
    /// A hello was not accepted.
    HelloFailed {
        /// Why.
        error: HelloError,
    },
    /// Something came from a connection that a newer one replaced; it was ignored.
    Fenced {
        /// The older connection's number.
        epoch: ConnectionEpoch,
    },
    /// A message came a second time; it was dropped.
    Duplicate {
        /// Its number.
        seq: Seq,
    },
    /// The application settled a message that has an outcome, or never came in this life of the peer.
    StraySettle {
        /// Its number.
        seq: Seq,
    },
    /// The peer broke the protocol.
    Violated {
        /// How.
        violation: Violation,
    },
    /// The peer is another life, or forgot: sent messages end as unknown.
    PeerRestarted {
        /// How many.
        unknown: u64,
    },
    /// The connection is dead: nothing moved on it.
    Silent {
        /// For how long.
        silence: Duration,
    },
    /// The session is over.
    Ended {
        /// Why; `None` when it ended in order.
        cause: Option<Cause>,
    },
}

/// Takes the notices of sessions. Called with whatever lock the session's driver holds: be quick, and call nothing
/// back.
pub trait EventSink: Send + Sync + 'static {
    /// Takes one notice.
    fn notice(&self, session: SessionId, notice: &Notice);
}
