//! Envelopes as the messages of a channel. The ids of the two actors are the names of the message, and cross each connection
//! once; the bytes are those of `MessageEnvelope::encode_unnamed`.

use bytes::{Bytes, BytesMut};
use hyperactor_channel::{Codec, DecodeError, EncodeError, Names};
use hyperactor_mailbox::{MessageEnvelope, Payload};
use hyperactor_refs::ActorId;

/// Encodes an envelope straight into the outgoing log, and decodes all but the payload. A payload that is encoded already,
/// as in a relay, is not copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnvelopeCodec;

impl Codec<MessageEnvelope> for EnvelopeCodec {
    type Name = ActorId;

    fn names<'m>(&self, envelope: &'m MessageEnvelope) -> Names<'m, ActorId> {
        Names {
            to: Some(envelope.dest().actor_id()),
            from: Some(envelope.sender()),
        }
    }

    fn encode_name(&self, id: &ActorId, out: &mut BytesMut) -> Result<(), EncodeError> {
        let bytes = postcard::to_stdvec(id).map_err(|error| EncodeError::new(error.to_string()))?;
        out.extend_from_slice(&bytes);
        Ok(())
    }

    fn decode_name(&self, bytes: Bytes) -> Result<ActorId, DecodeError> {
        match postcard::take_from_bytes(&bytes) {
            Ok((id, [])) => Ok(id),
            Ok((_, rest)) => Err(DecodeError::new(format!(
                "an actor id with {} bytes left over",
                rest.len()
            ))),
            Err(error) => Err(DecodeError::new(format!("no actor id: {error}"))),
        }
    }

    fn encode(&self, envelope: &MessageEnvelope, out: &mut BytesMut) -> Result<(), EncodeError> {
        envelope
            .encode_unnamed(out)
            .map_err(|error| EncodeError::new(error.to_string()))
    }

    fn shared_tail(&self, envelope: &MessageEnvelope) -> Bytes {
        match envelope.payload() {
            Payload::Encoded { bytes, .. } => bytes.clone(),
            Payload::Typed(_) => Bytes::new(),
        }
    }

    fn decode(
        &self,
        bytes: Bytes,
        names: Names<'_, ActorId>,
    ) -> Result<MessageEnvelope, DecodeError> {
        let missing = |which| DecodeError::new(format!("an envelope without its {which}"));
        let dest = names.to.ok_or_else(|| missing("destination"))?;
        let sender = names.from.ok_or_else(|| missing("sender"))?;
        MessageEnvelope::decode_unnamed(bytes, dest.clone(), sender.clone())
            .map_err(|error| DecodeError::new(error.to_string()))
    }
}
