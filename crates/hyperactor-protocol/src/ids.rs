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

/// The number of a message in the order in which it was taken by [`Session::push`](crate::Session::push), from 0 without
/// gaps: what events speak of. The number on the wire is a [`Seq`], given when the message enters the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostId(pub u64);

impl fmt::Display for PostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A small number that stands for a name on a session: where a message goes, or whom it is from. 0 stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(u32);

impl Label {
    /// No name.
    pub const NONE: Self = Self(0);

    /// The label of this number. Only those that [`Session::add_label`](crate::Session::add_label) gave, or
    /// [`Accept::Named`](crate::Accept::Named) told, mean something to a session.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number on the wire.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Returns whether it stands for no name.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns the number as an index, for tables by label; at most
    /// [`LABELS_MAX`](crate::limits::LABELS_MAX) for one that a session knows.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Label {
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
