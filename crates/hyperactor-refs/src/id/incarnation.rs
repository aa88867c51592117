//! One life of a proc. It is a value only: who starts a proc chooses it.

use std::fmt;
use std::str::FromStr;

use crate::text::error::{ParseError, ParseErrorKind, run};
use crate::text::piece::{Fault, Piece};

/// One life of a proc: a proc that is started again has the same id and another incarnation.
///
/// Its text is sixteen hexadecimal digits, as in `00000000000000ff`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u64);

impl Incarnation {
    /// The incarnation with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Incarnation {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

impl FromStr for Incarnation {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        run("an incarnation", text, parse_incarnation)
    }
}

pub(crate) fn parse_incarnation(whole: Piece<'_>) -> Result<Incarnation, Fault> {
    let fault =
        |piece: Piece<'_>| piece.fault(ParseErrorKind::BadNumber, "1 to 16 hexadecimal digits");
    let text = whole.text();
    if let Some(at) = text.bytes().position(|b| !b.is_ascii_hexdigit()) {
        return Err(fault(whole.char_at(at)));
    }
    if !(1..=16).contains(&text.len()) {
        return Err(fault(whole));
    }
    u64::from_str_radix(text, 16)
        .map(Incarnation)
        .map_err(|_| fault(whole))
}

/// The body of the fuzz target for [`Incarnation`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_incarnation(data: &[u8]) -> crate::fuzzing::Seen {
    crate::fuzzing::check_text::<Incarnation>(data)
}
