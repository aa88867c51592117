//! What fuzz targets call, and what they hold to be true of every parser. The body of each target stands beside its
//! parser; here is what the bodies have in common.
//!
//! `engine` feeds them with what `mutate` makes of a corpus, on any toolchain; `program` is the command line around both, for
//! the targets of other crates too. Each body takes bytes, panics where something is wrong with this crate, and says what it saw, so that a runner without
//! coverage can tell inputs apart.

mod engine;
mod mutate;
mod program;

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

pub use engine::{Finding, Stream};
pub use program::{Family, run_program};

pub use crate::addr::{
    fuzz_bind_spec, fuzz_channel_addr, fuzz_host, fuzz_locality, fuzz_parts, fuzz_transport,
};
pub use crate::id::{
    fuzz_actor_id, fuzz_incarnation, fuzz_names, fuzz_port_id, fuzz_proc_id, fuzz_reference,
};
pub use crate::prefix_map::fuzz_prefix_map;
#[cfg(feature = "serde")]
pub use crate::wire::fuzz_compact;

use crate::id::hash_of;
use crate::limits::{MAX_ERROR_EXCERPT_BYTES, MAX_SUGGESTION_BYTES};
use crate::text::error::{ParseError, ParseErrorKind};
use crate::text::pieces::PIECES;

/// What a target saw in an input, told apart coarsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen(pub u64);

/// The input was none for this target.
pub(crate) const NOTHING: Seen = Seen(0);

/// A target by name.
pub type Target = (&'static str, fn(&[u8]) -> Seen);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("channel_addr", fuzz_channel_addr),
    ("bind_spec", fuzz_bind_spec),
    ("host", fuzz_host),
    ("transport", fuzz_transport),
    ("proc_id", fuzz_proc_id),
    ("actor_id", fuzz_actor_id),
    ("port_id", fuzz_port_id),
    ("reference", fuzz_reference),
    ("incarnation", fuzz_incarnation),
    ("locality", fuzz_locality),
    ("parts", fuzz_parts),
    ("names", fuzz_names),
    ("prefix_map", fuzz_prefix_map),
    #[cfg(feature = "serde")]
    ("compact", fuzz_compact),
];

/// Pieces that mean something in the text of an address or an id.
pub fn address_pieces() -> Vec<&'static [u8]> {
    PIECES.iter().map(|piece| piece.as_bytes()).collect()
}

/// A value of this crate that has a text.
pub(crate) trait Text: FromStr<Err = ParseError> + Display + Debug + Ord + Hash {}
impl<T: FromStr<Err = ParseError> + Display + Debug + Ord + Hash> Text for T {}

/// Parses a text and checks what is true of every value and of every error.
pub(crate) fn check_text<T: Text>(data: &[u8]) -> Seen {
    let Ok(text) = std::str::from_utf8(data) else {
        return NOTHING;
    };
    match text.parse::<T>() {
        Ok(value) => {
            check_value(&value);
            Seen(1 << 32 | shape(data))
        }
        Err(error) => check_error::<T>(text, &error),
    }
}

/// A value prints a text that parses back to it; the text is ASCII without spaces; equal values are so in every way.
pub(crate) fn check_value<T: Text>(value: &T) {
    let printed = value.to_string();
    assert!(
        printed.bytes().all(|b| b.is_ascii_graphic()),
        "{printed:?} is not plain"
    );
    let again: T = match printed.parse() {
        Ok(again) => again,
        Err(error) => panic!("{value:?} prints what does not parse: {error}"),
    };
    assert_eq!(&again, value, "{printed} parses to another value");
    assert_eq!(again.to_string(), printed, "{value:?} has two texts");
    assert_eq!(hash_of(&again), hash_of(value), "{printed} has two hashes");
    assert!(
        again.cmp(value).is_eq(),
        "{printed} has two places in the order"
    );
}

fn check_error<T: Text>(text: &str, error: &ParseError) -> Seen {
    let range = error.range();
    assert!(
        text.get(range.clone()).is_some(),
        "the place {range:?} is none of {text:?}"
    );
    let message = error.to_string();
    // An escape is ten bytes long at most (`\u{10ffff}`), and a wide character has two carets.
    let most = 12 * MAX_ERROR_EXCERPT_BYTES + 4 * MAX_SUGGESTION_BYTES + 1024;
    assert!(
        message.len() <= most,
        "the message has {} bytes",
        message.len()
    );
    assert!(
        message.lines().count() <= 4
            && !message.bytes().any(|b| b.is_ascii_control() && b != b'\n'),
        "the input shows through in {message:?}"
    );
    if let Some(suggestion) = error.suggestion() {
        match suggestion.parse::<T>() {
            Ok(value) => assert_eq!(
                value.to_string(),
                suggestion,
                "the suggestion is not canonical"
            ),
            Err(error) => panic!("the suggestion {suggestion:?} does not parse: {error}"),
        }
    }
    let kind = ParseErrorKind::ALL
        .iter()
        .position(|kind| *kind == error.kind());
    assert!(
        kind.is_some(),
        "{:?} is not in the list of kinds",
        error.kind()
    );
    let place = u64::from(64 - (range.start as u64).leading_zeros());
    let seen =
        (kind.unwrap_or(0) as u64) << 16 | place << 8 | u64::from(error.suggestion().is_some());
    Seen(2 << 32 | seen)
}

/// Which characters with a meaning are in an input, and about how long it is.
pub(crate) fn shape(data: &[u8]) -> u64 {
    let mut seen = u64::from(64 - (data.len() as u64).leading_zeros());
    for byte in data {
        seen |= match byte {
            b'%' => 1 << 8,
            b'[' => 1 << 9,
            b',' => 1 << 10,
            b'@' => 1 << 11,
            b'/' => 1 << 12,
            b'.' => 1 << 13,
            b'-' => 1 << 14,
            128.. => 1 << 15,
            b'A'..=b'Z' => 1 << 16,
            b'0' => 1 << 17,
            _ => 0,
        };
    }
    seen
}

/// Takes numbers and strings off the front of an input, for targets that build values from parts.
pub(crate) struct Parts<'a>(pub(crate) &'a [u8]);

impl<'a> Parts<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// A number that is often small: one byte, or eight where the first is odd.
    pub(crate) fn number(&mut self) -> u64 {
        let first = self.byte();
        if first & 1 == 0 {
            return u64::from(first >> 1);
        }
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// As many bytes as the first one says, or what there is.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// The same as a text, where wrong bytes are replaced.
    pub(crate) fn string(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}
