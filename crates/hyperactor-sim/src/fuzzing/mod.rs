//! What the fuzz targets of the protocol call: each takes bytes, panics where something is wrong with the code under test,
//! and returns what it saw, told apart coarsely, so that a runner without coverage can tell inputs apart.
//!
//! The runner is that of `hyperactor-refs`; the programs are examples of this crate.

mod frames;
mod session;

pub use self::frames::{fuzz_control, fuzz_frames, fuzz_hello, wire_seeds};
pub use self::session::{fuzz_session, session_seeds};

/// Takes numbers off the front of an input; 0 when there is nothing left.
struct Bytewise<'a>(&'a [u8]);

impl Bytewise<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end.max(1)
    }

    /// A number that is often small, and often at an edge of its range.
    fn number(&mut self) -> u64 {
        let first = self.byte();
        match first {
            0..=199 => (first % 16).into(),
            200..=215 => u64::from(u32::MAX) - 8 + u64::from(first % 16),
            216..=231 => (1 << 62) - 8 + u64::from(first % 16),
            232..=247 => u64::MAX - u64::from(first % 16),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }
}

/// Puts small facts together into one number: each below 256 stands by itself.
fn seen(facts: &[u64]) -> u64 {
    facts
        .iter()
        .fold(1, |all, fact| all << 8 | (*fact).min(255))
}

/// How large a number is: its length in bits.
fn size(number: u64) -> u64 {
    u64::from(u64::BITS - number.leading_zeros())
}
