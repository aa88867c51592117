//! The small numbers a session is described with, each its own type so that two cannot be mixed up.
//! Deliberately without randomness: whoever makes a session brings its id.

use std::fmt;

/// The place of a message in its session: the first is 0, and no number is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);

impl Seq {
    /// Returns the plain number.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Seq {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

/// Names a session across its connections: 128 bits that the dialer drew at random.
///
/// Whoever knows it can ask to resume the session, so it is not printed: `Debug` and `Display` show the first
/// 32 bits, enough to tell sessions apart in a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // S-01: the rest of it is what lets a stranger in. The shift leaves 32 bits, so the narrowing loses nothing.
        write!(f, "{:08x}…", (self.0 >> 96) as u32)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Counts the connections of a session, from 1. A higher one fences every lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionEpoch(pub u64);

impl fmt::Display for ConnectionEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_are_printed_only_in_part() {
        let id = SessionId(0xdead_beef_0123_4567_89ab_cdef_0011_2233);
        assert_eq!(id.to_string(), "deadbeef…");
        assert_eq!(format!("{id:?}"), "SessionId(deadbeef…)");
    }
}
