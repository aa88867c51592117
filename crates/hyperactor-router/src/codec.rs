//! Envelopes as the messages of a channel. The bytes are those of `MessageEnvelope::encode`.

use bytes::{Bytes, BytesMut};
use hyperactor_channel::{Codec, DecodeError, EncodeError, Names, NoName};
use hyperactor_mailbox::MessageEnvelope;

/// Encodes an envelope with its payload straight into the outgoing log, and decodes all but the payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnvelopeCodec;

impl Codec<MessageEnvelope> for EnvelopeCodec {
    type Name = NoName;

    fn encode(&self, envelope: &MessageEnvelope, out: &mut BytesMut) -> Result<(), EncodeError> {
        envelope
            .encode(out)
            .map_err(|error| EncodeError::new(error.to_string()))
    }

    fn decode(
        &self,
        bytes: Bytes,
        _names: Names<'_, NoName>,
    ) -> Result<MessageEnvelope, DecodeError> {
        MessageEnvelope::decode(bytes).map_err(|error| DecodeError::new(error.to_string()))
    }
}
