//! Postcard straight into a growing buffer. The envelope's own layout is in `wire.rs`.

use bytes::{BufMut, BytesMut};
use serde::Serialize;

/// Lets postcard append to a `BytesMut` by whole slices.
struct Append<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the encoding of `value`; after an error the buffer may hold a part of it.
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> postcard::Result<()> {
    postcard::serialize_with_flavor(value, Append(out))
}
