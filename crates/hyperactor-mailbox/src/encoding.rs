//! Postcard straight into a growing buffer. The envelope's own layout is in `wire.rs`.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::limits::PART_SHARED_BYTES;
use crate::part;

/// Bytes that are shared instead of being appended, and where in the buffer they belong.
pub(crate) type Parts = Vec<(usize, Bytes)>;

/// Bytes that are appended at once, blank, for fields to be written into: most fields are a byte or a few, and appending each
/// on its own would look each time whether the buffer has room.
const BLANK_BYTES: usize = 128;

/// Lets postcard write to the end of a `BytesMut`.
struct Append<'a> {
    out: &'a mut BytesMut,
    /// The end of what is written; blank bytes follow.
    at: usize,
    /// Where parts go that need not be copied.
    parts: Option<&'a mut Parts>,
}

impl<'a> Append<'a> {
    #[inline]
    fn new(out: &'a mut BytesMut, parts: Option<&'a mut Parts>) -> Self {
        let at = out.len();
        if out.capacity() - at >= BLANK_BYTES {
            out.extend_from_slice(&[0; BLANK_BYTES]);
        }
        Self { out, at, parts }
    }

    /// Shares these bytes instead of appending them, if they are those of a part and somebody wants to know.
    fn share(&mut self, bytes: &[u8]) -> bool {
        let Some(parts) = &mut self.parts else {
            return false;
        };
        let Some(part) = part::written(bytes) else {
            return false;
        };
        parts.push((self.at, part));
        true
    }

    /// Appends blank bytes, `least` or more.
    fn widen(&mut self, least: usize) {
        // No more than there is room for: the buffer is not to move for bytes that may stay blank.
        let free = self.out.capacity() - self.at;
        self.out
            .resize(self.at + free.min(BLANK_BYTES).max(least), 0);
    }

    /// Writes a byte for which there is no blank one.
    #[cold]
    #[inline(never)]
    fn push_past(&mut self, byte: u8) {
        self.widen(1);
        self.out[self.at] = byte;
        self.at += 1;
    }

    /// Writes bytes for which there are not enough blank ones.
    #[cold]
    #[inline(never)]
    fn extend_past(&mut self, bytes: &[u8]) {
        if bytes.len() < BLANK_BYTES {
            self.widen(bytes.len());
            let end = self.at + bytes.len();
            self.out[self.at..end].copy_from_slice(bytes);
            self.at = end;
            return;
        }
        self.out.truncate(self.at);
        if bytes.len() < PART_SHARED_BYTES || !self.share(bytes) {
            self.out.extend_from_slice(bytes);
            self.at = self.out.len();
        }
    }
}

/// Copies between two places of the same length. Most are short, and a call to copy them would cost more than the copying.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    match (from.len(), to, from) {
        (1, [to, ..], [from, ..]) => *to = *from,
        (8..=16, to, from) => copy_ends::<8>(to, from),
        (17..=32, to, from) => copy_ends::<16>(to, from),
        (_, to, from) => to.copy_from_slice(from),
    }
}

/// Copies the first `N` bytes and the last: all, where there are at least `N` and at most twice as many.
#[inline]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
        *to = *from;
    }
}

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.out.get_mut(self.at) {
            Some(place) => {
                *place = byte;
                self.at += 1;
            }
            None => self.push_past(byte),
        }
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let end = self.at + bytes.len();
        match self.out.get_mut(self.at..end) {
            Some(place) => {
                copy(place, bytes);
                self.at = end;
            }
            None => self.extend_past(bytes),
        }
        Ok(())
    }

    #[inline]
    fn finalize(self) -> postcard::Result<()> {
        self.out.truncate(self.at);
        Ok(())
    }
}

/// Appends the encoding of `value`; after an error the buffer may hold a part of it.
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> postcard::Result<()> {
    append_to(value, out, None)
}

/// The same without the large [parts](crate::Part), which go to `parts` in their order.
pub(crate) fn append_sharing<T: Serialize + ?Sized>(
    value: &T,
    out: &mut BytesMut,
    parts: &mut Parts,
) -> postcard::Result<()> {
    append_to(value, out, Some(parts))
}

#[inline]
fn append_to<T: Serialize + ?Sized>(
    value: &T,
    out: &mut BytesMut,
    parts: Option<&mut Parts>,
) -> postcard::Result<()> {
    postcard::serialize_with_flavor(value, Append::new(out, parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_length_are_appended_as_postcard_writes_them() {
        for length in 0..3 * BLANK_BYTES {
            // Bytes one by one, a slice at once, and something behind both.
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let value = (bytes, "a".repeat(length), 300_u16, "b".repeat(length / 2));
            // With room for nothing, for some of it, for exactly all of it, and for more.
            let encoded = postcard::to_stdvec(&value).unwrap();
            for room in [0, 1, BLANK_BYTES, encoded.len(), 8 * BLANK_BYTES] {
                let mut out = BytesMut::with_capacity(6 + room);
                out.extend_from_slice(b"before");
                let place = out.as_ptr();
                append(&value, &mut out).unwrap();
                assert_eq!(&out[..6], b"before");
                assert_eq!(out[6..], encoded);
                let is_moved = out.as_ptr() != place;
                assert!(!is_moved || room < encoded.len(), "moved for blank bytes");
            }
        }
    }
}
