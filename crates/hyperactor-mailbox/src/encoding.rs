//! Postcard straight into a growing buffer. The envelope's own layout is in `wire.rs`.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::limits::PART_SHARED_BYTES;
use crate::part;

/// Bytes that are shared instead of being appended, and where in the buffer they belong.
pub(crate) type Parts = Vec<(usize, Bytes)>;

/// Bytes that gather on the stack before they are appended: most fields are a byte or a few, and appending each on its own
/// would look each time whether the buffer has room.
const STAGE_BYTES: usize = 128;

/// Lets postcard append to a `BytesMut`.
struct Append<'a> {
    out: &'a mut BytesMut,
    /// Where parts go that need not be copied.
    parts: Option<&'a mut Parts>,
    stage: [u8; STAGE_BYTES],
    staged: usize,
}

impl Append<'_> {
    /// Shares these bytes instead of appending them, if they are those of a part and somebody wants to know.
    fn share(&mut self, bytes: &[u8]) -> bool {
        let Some(parts) = &mut self.parts else {
            return false;
        };
        let Some(part) = part::written(bytes) else {
            return false;
        };
        parts.push((self.out.len(), part));
        true
    }

    #[inline]
    fn flush(&mut self) {
        if let Some(staged) = self.stage.get(..self.staged) {
            self.out.put_slice(staged);
        }
        self.staged = 0;
    }

    #[cold]
    #[inline(never)]
    fn push_to_next_stage(&mut self, byte: u8) {
        self.flush();
        self.stage[0] = byte;
        self.staged = 1;
    }

    #[cold]
    #[inline(never)]
    fn extend_past_stage(&mut self, bytes: &[u8]) {
        self.flush();
        if bytes.len() < PART_SHARED_BYTES || !self.share(bytes) {
            self.out.put_slice(bytes);
        }
    }
}

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.stage.get_mut(self.staged) {
            Some(place) => {
                *place = byte;
                self.staged += 1;
            }
            None => self.push_to_next_stage(byte),
        }
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let end = self.staged + bytes.len();
        match self.stage.get_mut(self.staged..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.staged = end;
            }
            None => self.extend_past_stage(bytes),
        }
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<()> {
        self.flush();
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
    postcard::serialize_with_flavor(
        value,
        Append {
            out,
            parts,
            stage: [0; STAGE_BYTES],
            staged: 0,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_length_are_appended_as_postcard_writes_them() {
        for length in 0..3 * STAGE_BYTES {
            // Bytes one by one, a slice at once, and something behind both.
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let value = (bytes, "a".repeat(length), 300_u16, "b".repeat(length / 2));
            let mut out = BytesMut::from(&b"before"[..]);
            append(&value, &mut out).unwrap();
            assert_eq!(&out[..6], b"before");
            assert_eq!(out[6..], postcard::to_stdvec(&value).unwrap());
        }
    }
}
