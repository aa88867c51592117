//! The life of a session's connection as a table. What happens on an edge stands in the session; the edges
//! themselves are listed in `docs/spec/session.md`, and a test compares the two.

use std::fmt;

/// Where a session stands with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Without a connection; the messages wait.
    Detached,
    /// The dialer's hello is out, the answer is not in.
    Handshaking,
    /// Both hellos have passed.
    Connected,
    /// Over. Nothing comes after.
    Closed,
}

/// What moves a session from one [`Life`] to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The dialer makes a hello for a new connection.
    Dial,
    /// A hello of the peer was accepted.
    Accept,
    /// The connection is gone or was refused for now.
    Lose,
    /// All is done and the goodbye is out, or there is nobody to say it to.
    Finish,
    /// The peer said goodbye.
    Goodbye,
    /// The session failed: violation, timeout, refusal for good, given up.
    Fail,
}

/// Every edge there is.
pub const EDGES: &[(Life, Step, Life)] = &[
    (Life::Detached, Step::Dial, Life::Handshaking),
    (Life::Detached, Step::Accept, Life::Connected),
    (Life::Detached, Step::Finish, Life::Closed),
    (Life::Detached, Step::Fail, Life::Closed),
    (Life::Handshaking, Step::Dial, Life::Handshaking),
    (Life::Handshaking, Step::Accept, Life::Connected),
    (Life::Handshaking, Step::Lose, Life::Detached),
    (Life::Handshaking, Step::Finish, Life::Closed),
    (Life::Handshaking, Step::Fail, Life::Closed),
    (Life::Connected, Step::Dial, Life::Handshaking),
    (Life::Connected, Step::Accept, Life::Connected),
    (Life::Connected, Step::Lose, Life::Detached),
    (Life::Connected, Step::Finish, Life::Closed),
    (Life::Connected, Step::Goodbye, Life::Closed),
    (Life::Connected, Step::Fail, Life::Closed),
];

impl Life {
    /// Returns where `step` leads, `None` where it is not allowed.
    pub fn after(self, step: Step) -> Option<Self> {
        EDGES
            .iter()
            .find(|(from, by, _)| (*from, *by) == (self, step))
            .map(|(_, _, to)| *to)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detached => "detached",
            Self::Handshaking => "handshaking",
            Self::Connected => "connected",
            Self::Closed => "closed",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "dial",
            Self::Accept => "accept",
            Self::Lose => "lose",
            Self::Finish => "finish",
            Self::Goodbye => "goodbye",
            Self::Fail => "fail",
        })
    }
}
