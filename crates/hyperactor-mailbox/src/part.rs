//! A message's large byte fields, which cross a process border without being copied. The bytes of a message are the same
//! with it as with `Bytes`: only where they lie differs.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::PART_SHARED_BYTES;

/// Bytes in a message that are shared on their way: neither copied where the message is encoded, nor where it is decoded.
///
/// A plain `Bytes` field is copied once on each side, because a serialiser sees only what it refers to. On the wire
/// there is no difference, except that the two have different names, and so messages with the one or the other
/// different shapes.
///
/// ```
/// use hyperactor_mailbox::Part;
///
/// let part = Part::from(vec![7; 1 << 20]);
/// assert_eq!(part.len(), 1 << 20);
/// assert_eq!(part[0], 7);
/// let bytes: bytes::Bytes = part.into();
/// ```
///
/// # Bounds
///
/// Shared from [`limits::PART_SHARED_BYTES`](crate::limits::PART_SHARED_BYTES) on; smaller ones are copied. A part that was
/// received holds the memory of the whole message that it came in, for as long as it or a clone of it lives: copy what is
/// to be kept of it for long.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part(Bytes);

impl Part {
    /// The bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Part {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Part {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Part> for Bytes {
    fn from(part: Part) -> Self {
        part.0
    }
}

/// Shows the size, never the bytes.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} bytes)", self.0.len())
    }
}

thread_local! {
    /// The part that is being serialised.
    static WRITTEN: RefCell<Option<Bytes>> = const { RefCell::new(None) };
    /// The bytes of the message that is being decoded.
    static READ: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// Puts back what was there before, also after a panic: a message can hold another one that is encoded or decoded with it.
struct Restore(
    &'static std::thread::LocalKey<RefCell<Option<Bytes>>>,
    Option<Bytes>,
);

impl Restore {
    fn set(key: &'static std::thread::LocalKey<RefCell<Option<Bytes>>>, bytes: Bytes) -> Self {
        Self(key, key.replace(Some(bytes)))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.0.set(self.1.take());
    }
}

/// The part that is being serialised, if these are its bytes.
pub(crate) fn written(bytes: &[u8]) -> Option<Bytes> {
    WRITTEN.with_borrow(|part| {
        part.as_ref()
            .filter(|part| std::ptr::eq::<[u8]>(&***part, bytes))
            .cloned()
    })
}

/// Runs `decode`, in which parts are slices of `bytes` where they lie in them.
pub(crate) fn decoding<T>(bytes: &Bytes, decode: impl FnOnce(&[u8]) -> T) -> T {
    let _restore = (bytes.len() >= PART_SHARED_BYTES).then(|| Restore::set(&READ, bytes.clone()));
    decode(bytes)
}

/// The same bytes out of what is being decoded, if they lie in it.
fn shared(bytes: &[u8]) -> Option<Bytes> {
    if bytes.len() < PART_SHARED_BYTES {
        return None;
    }
    READ.with_borrow(|read| {
        let read = read.as_ref()?;
        let (all, part) = (read.as_ptr_range(), bytes.as_ptr_range());
        let lies_in_it = all.start <= part.start && part.end <= all.end;
        lies_in_it.then(|| read.slice_ref(bytes))
    })
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _restore =
            (self.0.len() >= PART_SHARED_BYTES).then(|| Restore::set(&WRITTEN, self.0.clone()));
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Part, E> {
        Ok(Part(
            shared(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes)),
        ))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Part, E> {
        Ok(Part(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Part, E> {
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{append, append_sharing};
    use bytes::BytesMut;

    fn part(bytes: usize) -> Part {
        vec![7; bytes].into()
    }

    #[test]
    fn it_is_encoded_as_bytes_are() {
        for size in [0, 1, 100, PART_SHARED_BYTES - 1, PART_SHARED_BYTES, 100_000] {
            let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
            append(&(1_u8, part(size), 2_u8), &mut one).unwrap();
            append(&(1_u8, Bytes::from(vec![7; size]), 2_u8), &mut other).unwrap();
            assert_eq!(one, other);
        }
    }

    #[test]
    fn what_is_encoded_around_it_is_what_is_copied() {
        let large = part(PART_SHARED_BYTES);
        let message = (1_u8, large.clone(), part(10), vec![large.clone()], "end");
        let (mut own, mut parts) = (BytesMut::from(&b"before"[..]), Vec::new());
        append_sharing(&message, &mut own, &mut parts).unwrap();
        assert_eq!(parts.len(), 2);
        let mut whole = own[..parts[0].0].to_vec();
        assert!(own.len() < 50, "{} bytes", own.len());
        for (part, behind) in [(0, parts[1].0), (1, own.len())] {
            assert_eq!(parts[part].1.as_ptr(), large.as_ptr());
            whole.extend_from_slice(&parts[part].1);
            whole.extend_from_slice(&own[parts[part].0..behind]);
        }
        let mut copied = BytesMut::from(&b"before"[..]);
        append(&message, &mut copied).unwrap();
        assert_eq!(whole, copied);
    }

    #[test]
    fn it_is_decoded_as_a_slice_of_what_came() {
        let mut encoded = BytesMut::new();
        append(&(part(PART_SHARED_BYTES), part(10)), &mut encoded).unwrap();
        let encoded = encoded.freeze();
        let decode = |bytes: &[u8]| postcard::from_bytes::<(Part, Part)>(bytes).unwrap();
        let (large, small) = decoding(&encoded, decode);
        assert!(encoded.as_ptr_range().contains(&large.as_ptr()));
        assert!(!encoded.as_ptr_range().contains(&small.as_ptr()));
        assert_eq!(large, part(PART_SHARED_BYTES));
        // Of other bytes than those that are being decoded nothing is shared.
        let other = encoded.to_vec();
        let (large, _) = decoding(&encoded, |_| decode(&other));
        assert_eq!(large, part(PART_SHARED_BYTES));
        assert!(!other.as_ptr_range().contains(&large.as_ptr()));
        let (alone, _) = decode(&encoded);
        assert!(!encoded.as_ptr_range().contains(&alone.as_ptr()));
    }

    #[test]
    fn nothing_of_it_is_kept_behind_an_encoding_or_a_decoding() {
        let large = part(PART_SHARED_BYTES);
        append(&large, &mut BytesMut::new()).unwrap();
        assert!(written(&large).is_none());
        let encoded = Bytes::from(vec![0; PART_SHARED_BYTES]);
        let failed = decoding(&encoded, |bytes| {
            postcard::from_bytes::<(Part, String)>(&bytes[..1])
        });
        assert!(failed.is_err());
        READ.with_borrow(|read| assert!(read.is_none()));
    }

    #[test]
    fn its_text_shows_no_content() {
        assert_eq!(format!("{:?}", part(3)), "Part(3 bytes)");
    }
}
