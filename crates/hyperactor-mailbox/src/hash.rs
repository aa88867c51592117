//! The hasher of this crate's tables. Their keys bring a good hash of their own (an actor id) or are numbers that
//! only this process gives out or that name a message type, so nothing here has to withstand chosen collisions.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`KeyHasher`]s.
pub(crate) type KeyHash = BuildHasherDefault<KeyHasher>;

/// Takes the one `u64` that a key writes, and spreads it over all bits with one multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyHasher(u64);

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for KeyHasher {
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(MULTIPLIER).rotate_left(32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
