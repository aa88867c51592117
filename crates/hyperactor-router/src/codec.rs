//! Envelopes as the messages of a channel. The ids of the two actors are the names of the message, and cross each connection
//! once; the bytes are those of `MessageEnvelope::encode_unnamed`.

use bytes::{Bytes, BytesMut};
use hyperactor_channel::{Codec, DecodeError, EncodeError, Names, SharedParts};
use hyperactor_mailbox::{MessageEnvelope, Payload, pass_plain};
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

    fn encode_sharing(
        &self,
        envelope: &MessageEnvelope,
        out: &mut BytesMut,
    ) -> Result<SharedParts, EncodeError> {
        let parts = envelope.encode_sharing(out);
        parts
            .map(SharedParts::from)
            .map_err(|error| EncodeError::new(error.to_string()))
    }

    fn shared_tail(&self, envelope: &MessageEnvelope) -> Bytes {
        match envelope.payload() {
            Payload::Encoded { bytes, .. } => bytes.clone(),
            Payload::Typed(_) => Bytes::new(),
        }
    }

    fn pass(&self, body: &[u8], out: &mut BytesMut) -> usize {
        pass_plain(body, out)
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

#[cfg(test)]
mod tests {
    use hyperactor_refs::{PortId, ProcId};

    use super::*;

    fn actor(name: &str) -> ActorId {
        ActorId::root(
            ProcId::direct("local:7".parse().unwrap(), "p").unwrap(),
            name,
        )
    }

    fn named(id: &ActorId) -> ActorId {
        let mut out = BytesMut::new();
        EnvelopeCodec.encode_name(id, &mut out).unwrap();
        EnvelopeCodec.decode_name(out.freeze()).unwrap()
    }

    #[test]
    fn an_envelope_comes_back_from_its_bytes_and_its_names() {
        let (sender, dest) = (actor("s"), PortId::new(actor("d"), 5));
        let envelope = MessageEnvelope::typed(sender, dest, "hi".to_owned());
        let mut out = BytesMut::new();
        EnvelopeCodec.encode(&envelope, &mut out).unwrap();
        assert!(EnvelopeCodec.shared_tail(&envelope).is_empty());
        let names = EnvelopeCodec.names(&envelope);
        let (to, from) = (named(names.to.unwrap()), named(names.from.unwrap()));
        let names = Names {
            to: Some(&to),
            from: Some(&from),
        };
        let back = EnvelopeCodec.decode(out.freeze(), names).unwrap();
        assert_eq!(back.sender(), envelope.sender());
        assert_eq!(back.dest(), envelope.dest());
        assert_eq!(back.into_message::<String>().unwrap(), "hi");
    }

    #[test]
    fn a_relay_does_not_copy_the_payload() {
        let bytes = Bytes::from(vec![7; 100_000]);
        let payload = Payload::Encoded {
            type_hash: 1,
            bytes: bytes.clone(),
        };
        let envelope = MessageEnvelope::new(actor("s"), PortId::new(actor("d"), 5), payload);
        let mut out = BytesMut::new();
        EnvelopeCodec.encode(&envelope, &mut out).unwrap();
        assert!(out.len() < 100, "{} bytes", out.len());
        assert_eq!(
            EnvelopeCodec.shared_tail(&envelope).as_ptr(),
            bytes.as_ptr()
        );
    }

    #[test]
    fn what_names_nobody_or_is_no_name_says_so() {
        let bytes = Bytes::from_static(&[1; 40]);
        let error = EnvelopeCodec.decode(bytes, Names::NONE).unwrap_err();
        assert!(error.text().contains("destination"), "{error}");
        for name in [&[][..], &[0xff; 9], &[1, 2, 3]] {
            assert!(
                EnvelopeCodec
                    .decode_name(Bytes::copy_from_slice(name))
                    .is_err()
            );
        }
    }
}
