//! Messages that name their destination and their sender, so that each destination has its own share of the receiver's
//! room: a stamped message whose stream is its destination, or plain bytes.

use bytes::{BufMut, Bytes, BytesMut};
use hyperactor_channel::{Codec, DecodeError, EncodeError, Names, Postcard};
use hyperactor_testkit::Stamped;

/// A message for one of many destinations.
#[derive(Clone, Debug)]
pub(crate) struct Named<T> {
    pub(crate) to: u32,
    pub(crate) from: u32,
    pub(crate) message: T,
}

impl Named<Stamped> {
    /// A stamped message goes where its stream does, from its sender.
    pub(crate) fn of(message: Stamped) -> Self {
        let key = message.key();
        Self {
            to: key.stream,
            from: key.sender,
            message,
        }
    }
}

/// Writes the message alone; the names cross a connection once each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByName;

fn names<T>(message: &Named<T>) -> Names<'_, u32> {
    Names {
        to: Some(&message.to),
        from: Some(&message.from),
    }
}

fn encode_name(name: u32, out: &mut BytesMut) {
    out.put_u32_le(name);
}

fn decode_name(bytes: &Bytes) -> Result<u32, DecodeError> {
    let bytes = <[u8; 4]>::try_from(&bytes[..]);
    bytes
        .map(u32::from_le_bytes)
        .map_err(|_| DecodeError::new("a name has 4 bytes"))
}

fn named<T>(message: T, names: Names<'_, u32>) -> Result<Named<T>, DecodeError> {
    match (names.to, names.from) {
        (Some(&to), Some(&from)) => Ok(Named { to, from, message }),
        _ => Err(DecodeError::new("a message names both ends")),
    }
}

impl Codec<Named<Stamped>> for ByName {
    type Name = u32;

    fn names<'m>(&self, message: &'m Named<Stamped>) -> Names<'m, u32> {
        names(message)
    }

    fn encode_name(&self, name: &u32, out: &mut BytesMut) -> Result<(), EncodeError> {
        encode_name(*name, out);
        Ok(())
    }

    fn decode_name(&self, bytes: Bytes) -> Result<u32, DecodeError> {
        decode_name(&bytes)
    }

    fn encode(&self, message: &Named<Stamped>, out: &mut BytesMut) -> Result<(), EncodeError> {
        Codec::<Stamped>::encode(&Postcard, &message.message, out)
    }

    fn decode(&self, bytes: Bytes, to: Names<'_, u32>) -> Result<Named<Stamped>, DecodeError> {
        named(Postcard.decode(bytes, Names::NONE)?, to)
    }
}

impl Codec<Named<Bytes>> for ByName {
    type Name = u32;

    fn names<'m>(&self, message: &'m Named<Bytes>) -> Names<'m, u32> {
        names(message)
    }

    fn encode_name(&self, name: &u32, out: &mut BytesMut) -> Result<(), EncodeError> {
        encode_name(*name, out);
        Ok(())
    }

    fn decode_name(&self, bytes: Bytes) -> Result<u32, DecodeError> {
        decode_name(&bytes)
    }

    fn encode(&self, _message: &Named<Bytes>, _out: &mut BytesMut) -> Result<(), EncodeError> {
        Ok(())
    }

    fn shared_tail(&self, message: &Named<Bytes>) -> Bytes {
        message.message.clone()
    }

    fn decode(&self, bytes: Bytes, to: Names<'_, u32>) -> Result<Named<Bytes>, DecodeError> {
        named(bytes, to)
    }
}
