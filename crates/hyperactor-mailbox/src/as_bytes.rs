//! Bytes of a message that are no `Bytes`, encoded as a whole: for `#[serde(with = "hyperactor::as_bytes")]` on a field of the type
//! `Vec<u8>`, `Box<[u8]>` or the like.
//!
//! serde takes a `Vec<u8>` for what its type says, a sequence of numbers, and has each of them encoded and decoded by a call of
//! its own. With this the field is copied at once, as a [`Bytes`](crate::Bytes) is. What is on the wire is the same; the shape's hash
//! is not, since it has the attribute in it.
//!
//! ```
//! # mod hyperactor { pub use hyperactor_mailbox::as_bytes; }
//! use serde::{Deserialize, Serialize};
//!
//! // Beside `Message`, which is derived from the same fields.
//! #[derive(Serialize, Deserialize)]
//! struct Picture {
//!     width: u32,
//!     #[serde(with = "hyperactor::as_bytes")]
//!     pixels: Vec<u8>,
//! }
//! ```

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

use crate::limits::BYTES_RESERVED;

/// Encodes bytes as a whole.
///
/// # Errors
///
/// What the serializer says.
pub fn serialize<T, S>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: AsRef<[u8]> + ?Sized,
    S: Serializer,
{
    serializer.serialize_bytes(bytes.as_ref())
}

/// Decodes bytes as a whole; from an encoding that knows no bytes, such as JSON, from a sequence of numbers.
///
/// # Errors
///
/// What the deserializer says.
///
/// # Bounds
///
/// Memory grows as bytes arrive, never past [`BYTES_RESERVED`] by a length that is only claimed.
pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: From<Vec<u8>>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_byte_buf(Whole(PhantomData))
}

struct Whole<T>(PhantomData<T>);

impl<'de, T: From<Vec<u8>>> Visitor<'de> for Whole<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        Ok(T::from(bytes.to_vec()))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<T, E> {
        Ok(T::from(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<T, A::Error> {
        let claimed = sequence.size_hint().unwrap_or(0);
        let mut bytes = Vec::with_capacity(claimed.min(BYTES_RESERVED));
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        Ok(T::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Plain {
        before: u32,
        bytes: Vec<u8>,
        after: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Whole {
        before: u32,
        #[serde(with = "super")]
        bytes: Vec<u8>,
        after: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Boxed {
        before: u32,
        #[serde(with = "super")]
        bytes: Box<[u8]>,
        after: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Shared {
        before: u32,
        bytes: Bytes,
        after: u32,
    }

    #[test]
    fn bytes_as_a_whole_are_on_the_wire_as_one_by_one_they_are() {
        for length in [0, 1, 127, 128, 70_000] {
            let bytes: Vec<u8> = (0..length).map(|number| number as u8).collect();
            let (before, after) = (7, 9);
            let plain = Plain {
                before,
                bytes: bytes.clone(),
                after,
            };
            let encoded = postcard::to_stdvec(&plain).unwrap();
            let whole = Whole {
                before,
                bytes: bytes.clone(),
                after,
            };
            let boxed = Boxed {
                before,
                bytes: bytes.clone().into(),
                after,
            };
            let shared = Shared {
                before,
                bytes: bytes.into(),
                after,
            };
            assert_eq!(postcard::to_stdvec(&whole).unwrap(), encoded);
            assert_eq!(postcard::to_stdvec(&boxed).unwrap(), encoded);
            assert_eq!(postcard::to_stdvec(&shared).unwrap(), encoded);
            assert_eq!(postcard::from_bytes::<Whole>(&encoded).unwrap(), whole);
            assert_eq!(postcard::from_bytes::<Boxed>(&encoded).unwrap(), boxed);
        }
    }

    #[test]
    fn a_length_that_is_only_claimed_is_refused() {
        // A field of 2^60 bytes, of which there are three.
        let claimed = [
            7, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 2, 3,
        ];
        assert!(postcard::from_bytes::<Whole>(&claimed).is_err());
    }
}
