//! The bytes of an envelope. They are specified in `docs/spec/envelope.md`; the golden bytes are in the tests.
//!
//! ```text
//! offset  size  field
//! 0       1     version, 1
//! 1       1     time to live
//! 2       8     type hash of the payload, little-endian
//! 10      8     port index of the destination, little-endian
//! 18      2+n   actor id of the destination: length (u16, little-endian), then its postcard encoding
//! …       2+n   actor id of the sender, likewise
//! …       1     number of headers; for each: key (u32), length (u16), value
//! …       rest  payload
//! ```
//!
//! E-02: the ids stand as counted bytes so that one met before is recognised without decoding it. The payload comes last and
//! is sliced out of the buffer it came in.

use std::cell::RefCell;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyperactor_refs::{ActorId, PortId};

use crate::encoding;
use crate::envelope::{EnvelopeHead, MessageEnvelope};
use crate::headers::Headers;
use crate::limits;
use crate::payload::Payload;

/// The only version of the layout so far.
const VERSION: u8 = 1;

/// The bytes before the first id.
const FIXED_BYTES: usize = 18;

/// An envelope could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message's own `Serialize` failed.
    #[error("message of type `{type_name}` does not encode: {error}")]
    Payload {
        /// The type of the message.
        type_name: String,
        /// What its encoder said.
        error: String,
    },
    /// An id is longer than an envelope may carry.
    #[error(
        "actor id of {size} bytes does not fit an envelope, the limit is {}",
        limits::ID_BYTES
    )]
    IdTooLong {
        /// The size of its encoding in bytes.
        size: usize,
    },
    /// An id did not encode.
    #[error("actor id does not encode: {0}")]
    Id(String),
}

/// Bytes are no envelope. E-03: it concerns this one alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They end within a field.
    #[error("envelope ends within its {field}")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// They are of a version this code does not know.
    #[error(
        "envelope of version {found}, only {VERSION} is known; upgrade the older of the two programs"
    )]
    Version {
        /// The version found.
        found: u8,
    },
    /// An id does not decode.
    #[error("envelope with an invalid id of its {field}: {error}")]
    Id {
        /// Whose id.
        field: &'static str,
        /// What its decoder said.
        error: String,
    },
    /// A limit on headers or ids is passed.
    #[error("envelope with {found} {what}, the limit is {max}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// The limit.
        max: usize,
    },
}

/// Whether these bytes, as [`MessageEnvelope::encode_unnamed`] and the payload behind it make them, are an envelope without
/// headers that has a step left: one that decodes whatever its payload is, and of which nobody on its way has to know
/// more.
#[must_use]
pub fn is_plain(bytes: &[u8]) -> bool {
    matches!(bytes, [VERSION, ttl, ..] if *ttl != 0) && bytes.get(FIXED_BYTES) == Some(&0)
}

/// Appends the beginning of a [plain](is_plain) envelope with one step less, and returns of how many bytes it is: what follows
/// them is passed on as it is.
pub fn pass_plain(bytes: &[u8], out: &mut BytesMut) -> usize {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
        return 0;
    };
    let mut fixed = *fixed;
    fixed[1] = fixed[1].saturating_sub(1);
    out.extend_from_slice(&fixed);
    FIXED_BYTES
}

impl MessageEnvelope {
    /// Appends the envelope's bytes; a typed payload is encoded straight behind the rest.
    ///
    /// # Errors
    /// [`EncodeError`]; the buffer then holds a part of the envelope, which the caller cuts off.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.reserve(FIXED_BYTES + 128 + self.payload().encoded_len().unwrap_or(0));
        out.put_slice(&self.fixed());
        encode_id(self.dest().actor_id(), out)?;
        encode_id(self.sender(), out)?;
        self.encode_headers(out);
        match self.payload() {
            Payload::Typed(message) => (**message).encode(out),
            Payload::Encoded { bytes, .. } => {
                out.put_slice(bytes);
                Ok(())
            }
        }
    }

    /// E-06: as [`encode`](Self::encode) for a receiver that is told the actors by other means: their ids are left out, and so
    /// is a payload that is [encoded](Payload::Encoded) already. The caller appends it, or sends it behind the rest.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_unnamed(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode_front(out);
        match self.payload() {
            Payload::Typed(message) => (**message).encode(out),
            Payload::Encoded { .. } => Ok(()),
        }
    }

    /// As [`encode_unnamed`](Self::encode_unnamed), without the large [parts](crate::Part) of a typed payload: they are
    /// returned in their order, each with the place in `out` where it belongs.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_sharing(&self, out: &mut BytesMut) -> Result<Vec<(usize, Bytes)>, EncodeError> {
        self.encode_front(out);
        let mut parts = Vec::new();
        if let Payload::Typed(message) = self.payload() {
            (**message).encode_sharing(out, &mut parts)?;
        }
        Ok(parts)
    }

    /// The fixed part and the headers, where nothing stands between them.
    #[inline]
    fn encode_front(&self, out: &mut BytesMut) {
        if !self.headers().is_empty() {
            out.put_slice(&self.fixed());
            return self.encode_headers(out);
        }
        let mut front = [0; FIXED_BYTES + 1];
        if let Some(fixed) = front.first_chunk_mut() {
            *fixed = self.fixed();
        }
        out.put_slice(&front);
    }

    #[inline]
    fn fixed(&self) -> [u8; FIXED_BYTES] {
        let head = self.head();
        let mut fixed = [0; FIXED_BYTES];
        fixed[0] = VERSION;
        fixed[1] = head.ttl;
        fixed[2..10].copy_from_slice(&self.payload().type_hash().to_le_bytes());
        fixed[10..].copy_from_slice(&head.dest.index().to_le_bytes());
        fixed
    }

    fn encode_headers(&self, out: &mut BytesMut) {
        let headers = self.headers();
        // At most HEADERS_PER_ENVELOPE entries of HEADER_VALUE_BYTES bytes, so neither number is cut.
        out.put_u8(headers.len() as u8);
        for (key, value) in headers.iter() {
            out.put_u32_le(key);
            out.put_u16_le(value.len() as u16);
            out.put_slice(value);
        }
    }

    /// Reads an envelope. The payload is a slice of `bytes`: not copied, not decoded.
    ///
    /// # Errors
    /// [`DecodeError`] says which field is wrong.
    ///
    /// # Bounds
    /// Allocates in proportion to `bytes`. Each thread remembers the last [`limits::DECODED_IDS_PER_THREAD`] ids it
    /// decoded, of at most [`limits::DECODED_ID_BYTES`] bytes each.
    pub fn decode(mut bytes: Bytes) -> Result<Self, DecodeError> {
        let fixed = Fixed::decode(&bytes)?;
        bytes.advance(FIXED_BYTES);
        let dest = decode_id(&mut bytes, "destination")?;
        let sender = decode_id(&mut bytes, "sender")?;
        let headers = decode_headers(&mut bytes)?;
        Ok(fixed.with_ids(dest, sender, headers, bytes))
    }

    /// Reads what [`encode_unnamed`](Self::encode_unnamed) wrote and the payload behind it, with the actors that were told
    /// by other means. The payload is a slice of `bytes`: not copied, not decoded.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_unnamed(
        mut bytes: Bytes,
        dest: ActorId,
        sender: ActorId,
    ) -> Result<Self, DecodeError> {
        let fixed = Fixed::decode(&bytes)?;
        // One step where no headers stand between the fixed part and the payload.
        let headers = if bytes.get(FIXED_BYTES) == Some(&0) {
            bytes.advance(FIXED_BYTES + 1);
            Headers::new()
        } else {
            bytes.advance(FIXED_BYTES);
            decode_headers(&mut bytes)?
        };
        Ok(fixed.with_ids(dest, sender, headers, bytes))
    }
}

/// The part of an envelope before its ids.
struct Fixed {
    ttl: u8,
    type_hash: u64,
    index: u64,
}

impl Fixed {
    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
            return Err(DecodeError::Truncated {
                field: "fixed part",
            });
        };
        // All of it at once: each step in the bytes on its own is one more look whether they end.
        let [version, ttl, words @ ..] = fixed;
        if *version != VERSION {
            return Err(DecodeError::Version { found: *version });
        }
        let mut words = &words[..];
        Ok(Self {
            ttl: *ttl,
            type_hash: words.get_u64_le(),
            index: words.get_u64_le(),
        })
    }

    /// The envelope, whose payload is what is left of the bytes.
    #[inline]
    fn with_ids(
        self,
        dest: ActorId,
        sender: ActorId,
        headers: Headers,
        bytes: Bytes,
    ) -> MessageEnvelope {
        let head = EnvelopeHead {
            sender,
            dest: PortId::new(dest, self.index),
            headers,
            ttl: self.ttl,
        };
        let type_hash = self.type_hash;
        // E-01: whatever is left is the payload, passed on as it came.
        head.with_payload(Payload::Encoded { type_hash, bytes })
    }
}

fn encode_id(id: &ActorId, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16_le(0);
    encoding::append(id, out).map_err(|error| EncodeError::Id(error.to_string()))?;
    let size = out.len() - start - 2;
    if size > limits::ID_BYTES {
        return Err(EncodeError::IdTooLong { size });
    }
    // ID_BYTES fits 16 bits.
    out[start..start + 2].copy_from_slice(&(size as u16).to_le_bytes());
    Ok(())
}

fn decode_id(bytes: &mut Bytes, field: &'static str) -> Result<ActorId, DecodeError> {
    if bytes.len() < 2 {
        return Err(DecodeError::Truncated { field });
    }
    let size = usize::from(bytes.get_u16_le());
    if size > limits::ID_BYTES {
        return Err(DecodeError::TooMuch {
            what: "bytes of id",
            found: size,
            max: limits::ID_BYTES,
        });
    }
    if bytes.len() < size {
        return Err(DecodeError::Truncated { field });
    }
    let id = KNOWN_IDS
        .with_borrow_mut(|known| known.decode(&bytes[..size]))
        .map_err(|error| DecodeError::Id { field, error })?;
    bytes.advance(size);
    Ok(id)
}

fn decode_headers(bytes: &mut Bytes) -> Result<Headers, DecodeError> {
    const TRUNCATED: DecodeError = DecodeError::Truncated { field: "headers" };
    if bytes.is_empty() {
        return Err(TRUNCATED);
    }
    let count = usize::from(bytes.get_u8());
    let max = limits::HEADERS_PER_ENVELOPE;
    if count > max {
        return Err(DecodeError::TooMuch {
            what: "headers",
            found: count,
            max,
        });
    }
    let mut headers = Headers::new();
    for _ in 0..count {
        if bytes.len() < 6 {
            return Err(TRUNCATED);
        }
        let key = bytes.get_u32_le();
        let size = usize::from(bytes.get_u16_le());
        if bytes.len() < size {
            return Err(TRUNCATED);
        }
        // Copied: a header must not keep the whole read buffer alive wherever somebody stores it.
        let value = Bytes::copy_from_slice(&bytes[..size]);
        bytes.advance(size);
        let max = limits::HEADER_VALUE_BYTES;
        headers.set(key, value).map_err(|_| DecodeError::TooMuch {
            what: "bytes of header",
            found: size,
            max,
        })?;
    }
    Ok(headers)
}

thread_local! {
    static KNOWN_IDS: RefCell<KnownIds> = const { RefCell::new(KnownIds { slots: Vec::new() }) };
}

/// Ids this thread has decoded, by their bytes: building an id costs several allocations, recognising it none.
///
/// A table of fixed size without chains: an id that falls on a taken slot replaces what is there, so a peer that
/// sends many ids, or chooses them to collide, costs time only.
struct KnownIds {
    slots: Vec<Option<(Box<[u8]>, ActorId)>>,
}

impl KnownIds {
    fn decode(&mut self, bytes: &[u8]) -> Result<ActorId, String> {
        if bytes.len() > limits::DECODED_ID_BYTES {
            return decode_exact(bytes);
        }
        if self.slots.is_empty() {
            self.slots
                .resize_with(limits::DECODED_IDS_PER_THREAD, || None);
        }
        let at = slot_of(bytes) % limits::DECODED_IDS_PER_THREAD;
        if let Some((known, id)) = &self.slots[at]
            && **known == *bytes
        {
            return Ok(id.clone());
        }
        let id = decode_exact(bytes)?;
        self.slots[at] = Some((bytes.into(), id.clone()));
        Ok(id)
    }
}

fn decode_exact(bytes: &[u8]) -> Result<ActorId, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((id, [])) => Ok(id),
        Ok((_, rest)) => Err(format!("{} bytes left over", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// A quick mix of the bytes, eight at a time. It need not resist anybody: a collision only costs a decoding.
fn slot_of(bytes: &[u8]) -> usize {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    for byte in chunks.remainder() {
        hash = (hash.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(MULTIPLIER);
    }
    (hash >> 48) as usize
}
