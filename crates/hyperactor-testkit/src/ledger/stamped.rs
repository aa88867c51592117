//! A message that can be accounted for: who sent it, in which stream, as which number, and a checksum.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash;

/// Names one message of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Who sends.
    pub sender: u32,
    /// Which of the sender's streams: within one, order is promised.
    pub stream: u32,
    /// Its place in the stream, from 0.
    pub number: u64,
}

/// A message with its key and a checksum over key and body.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    key: Key,
    checksum: u64,
    body: Vec<u8>,
}

impl Stamped {
    /// Stamps a body. Most tests let a [`Ledger`](crate::Ledger) do it.
    #[must_use]
    pub fn new(key: Key, body: Vec<u8>) -> Self {
        Self {
            key,
            checksum: checksum(key, &body),
            body,
        }
    }

    /// Which message this is.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// What it carries.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The checksum that it was stamped with.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Whether key, body and checksum still agree.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        checksum(self.key, &self.body) == self.checksum
    }
}

fn checksum(key: Key, body: &[u8]) -> u64 {
    hash::fnv(&[
        &key.sender.to_le_bytes(),
        &key.stream.to_le_bytes(),
        &key.number.to_le_bytes(),
        body,
    ])
}

impl fmt::Display for Key {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}#{}", self.sender, self.stream, self.number)
    }
}

impl fmt::Debug for Stamped {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Stamped({}, {} bytes)", self.key, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key {
        sender: 1,
        stream: 2,
        number: 3,
    };

    #[test]
    fn a_change_of_key_or_body_is_seen() {
        let message = Stamped::new(KEY, b"body".to_vec());
        assert!(message.is_intact());
        let mut other = message.clone();
        other.body[0] ^= 1;
        assert!(!other.is_intact());
        let mut other = message.clone();
        other.key.number += 1;
        assert!(!other.is_intact());
    }

    #[test]
    fn debug_shows_sizes_and_never_the_body() {
        assert_eq!(
            format!("{:?}", Stamped::new(KEY, b"body".to_vec())),
            "Stamped(1/2#3, 4 bytes)"
        );
    }
}
