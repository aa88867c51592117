//! How a message becomes bytes and comes back: the [`Codec`] border and its default, [`Postcard`].
//! Framing, sequence numbers and everything else around those bytes belong to the session.

use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::SharedParts;
use hyperactor_protocol::limits::SHARED_BODY_BYTES;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a message could not be written as bytes. That message alone fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not encode: {0}")]
pub struct EncodeError(String);

/// Why bytes are not a message. That message alone is refused; the connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a message of the expected type: {0}")]
pub struct DecodeError(String);

impl EncodeError {
    /// An error with a text for people.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text alone.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl DecodeError {
    /// An error with a text for people.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text alone.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Whom a message is for and from, where its codec tells.
///
/// What is named here need not be in the message's bytes: a name crosses each connection once, and stands as a small
/// number in front of every message then.
pub struct Names<'a, N> {
    /// Its destination. Each destination has its own share of the receiver's room, so that one that takes nothing stops
    /// only its own senders; messages of one destination arrive in the order posted.
    pub to: Option<&'a N>,
    /// Its sender.
    pub from: Option<&'a N>,
}

impl<N> Names<'_, N> {
    /// Neither.
    pub const NONE: Self = Self {
        to: None,
        from: None,
    };
}

impl<N> Clone for Names<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Names<'_, N> {}

impl<N: fmt::Debug> fmt::Debug for Names<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("to", &self.to)
            .field("from", &self.from)
            .finish()
    }
}

/// The name type of messages that name nobody: there is no such value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoName {}

/// Writes messages as bytes and reads them back.
///
/// `encode` runs in the thread that posts, under the short lock of the outgoing log: it writes straight into the
/// buffer that goes to the socket. It must not post to the same channel. `decode` runs in the task that reads.
/// In-process channels use [`names`](Self::names) alone.
pub trait Codec<M>: Send + Sync + 'static {
    /// What names a destination or a sender; [`NoName`] for messages that go to whoever receives.
    type Name: Clone + Eq + Hash + Send + Sync + 'static;

    /// Whom the message is for and from. Called for each post: it should cost next to nothing.
    fn names<'m>(&self, _message: &'m M) -> Names<'m, Self::Name> {
        Names::NONE
    }

    /// Appends a name to `out`: 1 to 2,048 bytes ([`LABEL_NAME_MAX`](hyperactor_protocol::limits::LABEL_NAME_MAX)).
    /// Called once for each name that a session knows.
    fn encode_name(&self, _name: &Self::Name, _out: &mut BytesMut) -> Result<(), EncodeError> {
        Err(EncodeError::new("its codec has no names"))
    }

    /// Reads a name, once for each connection and name. As with [`decode`](Self::decode), nothing in the bytes may make
    /// this panic; a name that is an error here fails the messages that carry it, one by one.
    fn decode_name(&self, _bytes: Bytes) -> Result<Self::Name, DecodeError> {
        Err(DecodeError::new("its codec has no names"))
    }

    /// Appends the message to `out`. What was already in `out` must stay as it is; when an error is returned, the
    /// caller cuts `out` back.
    fn encode(&self, message: &M, out: &mut BytesMut) -> Result<(), EncodeError>;

    /// The end of the encoding, when the message has it as bytes already: it follows what `encode` writes, and is shared
    /// with the outgoing log instead of being copied when it is large. Empty unless said otherwise.
    fn shared_tail(&self, _message: &M) -> Bytes {
        Bytes::new()
    }

    /// As [`encode`](Self::encode), and what need not be copied is returned with its place in `out` instead: bytes of the
    /// message that are shared already. Sessions call this one.
    fn encode_sharing(&self, message: &M, out: &mut BytesMut) -> Result<SharedParts, EncodeError> {
        self.encode(message, out).map(SharedParts::from)
    }

    /// About how many bytes `encode` will write; a good guess keeps large messages from being moved. 0 when unknown.
    fn size_hint(&self, _message: &M) -> usize {
        0
    }

    /// Appends the beginning of a message that goes on as it came ([`Outbound::pass`](crate::Outbound::pass)), with what one more
    /// step of its way changes, and returns how many bytes of `body` that stands for: the rest follows it unchanged.
    fn pass(&self, _body: &[u8], _out: &mut BytesMut) -> usize {
        0
    }

    /// Reads one message from the whole of `bytes`, tail included, and the names it was posted with. The bytes come from
    /// a peer: nothing in them may make this panic.
    fn decode(&self, bytes: Bytes, names: Names<'_, Self::Name>) -> Result<M, DecodeError>;
}

/// What a codec knows of a message before it is encoded; none when it panicked.
#[inline(always)]
pub(crate) fn parts<'m, M: 'static, C: Codec<M>>(
    codec: &C,
    message: &'m M,
) -> Option<(Bytes, usize, Names<'m, C::Name>)> {
    catch_unwind(AssertUnwindSafe(|| {
        (
            codec.shared_tail(message),
            codec.size_hint(message),
            codec.names(message),
        )
    }))
    .ok()
}

/// Encodes a message; a panic of its serialiser is that message's failure.
#[inline(always)]
pub(crate) fn encode<M: 'static>(
    codec: &impl Codec<M>,
    message: &M,
    out: &mut BytesMut,
) -> Result<SharedParts, EncodeError> {
    catch_unwind(AssertUnwindSafe(|| codec.encode_sharing(message, out)))
        .unwrap_or_else(|_| Err(EncodeError::new("its serialiser panicked")))
}

/// Begins a message that goes on as it came; a panic is that message's failure.
pub(crate) fn pass<M: 'static>(
    codec: &impl Codec<M>,
    body: &Bytes,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    catch_unwind(AssertUnwindSafe(|| codec.pass(body, out)))
        .map_err(|_| EncodeError::new("its codec panicked"))
}

/// Decodes a message; a panic of its decoder is that message's failure.
pub(crate) fn decode<M, C: Codec<M>>(
    codec: &C,
    bytes: Bytes,
    names: Names<'_, C::Name>,
) -> Result<M, DecodeError> {
    catch_unwind(AssertUnwindSafe(|| codec.decode(bytes, names)))
        .unwrap_or_else(|_| Err(panicked()))
}

/// What a panic of a message's decoder counts as.
#[cold]
pub(crate) fn panicked() -> DecodeError {
    DecodeError::new("its decoder panicked")
}

/// The default codec: postcard, for every type that serde serialises. Bytes left over after a message are an error.
///
/// # Bounds
/// Memory follows the bytes that came. A value of a type that contains itself is decoded by recursion, for which the stack has a
/// bound: one that is nested more deeply than [`DECODE_STACK_BYTES`](hyperactor_decode::limits::DECODE_STACK_BYTES) allow, or the stack of
/// the thread that decodes it, is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postcard;

impl<M: Serialize + DeserializeOwned> Codec<M> for Postcard {
    type Name = NoName;

    fn encode(&self, message: &M, out: &mut BytesMut) -> Result<(), EncodeError> {
        postcard::serialize_with_flavor(message, Appender(out))
            .map_err(|error| EncodeError::new(error.to_string()))
    }

    fn decode(&self, bytes: Bytes, _names: Names<'_, NoName>) -> Result<M, DecodeError> {
        hyperactor_decode::from_bytes(&bytes).map_err(|error| DecodeError::new(error.to_string()))
    }
}

/// The codec of messages that are bytes already: they travel as they are. Large ones are neither copied into the outgoing
/// log nor out of the buffer they arrive in, so one that is kept keeps its part of that buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    type Name = NoName;

    fn encode(&self, message: &Bytes, out: &mut BytesMut) -> Result<(), EncodeError> {
        if !is_shared(message) {
            out.extend_from_slice(message);
        }
        Ok(())
    }

    fn shared_tail(&self, message: &Bytes) -> Bytes {
        if is_shared(message) {
            message.clone()
        } else {
            Bytes::new()
        }
    }

    fn size_hint(&self, message: &Bytes) -> usize {
        if is_shared(message) { 0 } else { message.len() }
    }

    fn decode(&self, bytes: Bytes, _names: Names<'_, NoName>) -> Result<Bytes, DecodeError> {
        Ok(bytes)
    }
}

/// Whether a message is shared with the outgoing log. Less would be copied there all the same, and counted as shared before.
#[inline]
fn is_shared(message: &Bytes) -> bool {
    message.len() >= SHARED_BODY_BYTES
}

/// Lets postcard append to a buffer that already holds something.
struct Appender<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Appender<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.extend_from_slice(&[byte]);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_appended_and_read_back() {
        let mut out = BytesMut::from(&b"before"[..]);
        Codec::<(u32, String)>::encode(&Postcard, &(7, "seven".into()), &mut out).unwrap();
        let bytes = out.split_off(6).freeze();
        assert_eq!(&out[..], b"before");
        let back: (u32, String) = Postcard.decode(bytes, Names::NONE).unwrap();
        assert_eq!(back, (7, "seven".to_owned()));
    }

    #[test]
    fn messages_of_every_length_are_appended_as_postcard_writes_them() {
        for length in 0..384 {
            // Bytes one by one, a slice at once, and something behind both.
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let message = (bytes, "a".repeat(length), 300_u16, "b".repeat(length / 2));
            let mut out = BytesMut::new();
            Codec::encode(&Postcard, &message, &mut out).unwrap();
            assert_eq!(out[..], postcard::to_stdvec(&message).unwrap());
        }
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let error = Codec::<u8>::decode(&Postcard, Bytes::from_static(&[1, 2, 3]), Names::NONE)
            .unwrap_err();
        assert!(error.to_string().contains("2 bytes left over"), "{error}");
    }

    #[test]
    fn a_length_beyond_the_bytes_is_an_error_and_not_an_allocation() {
        let bomb =
            Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert!(Codec::<Vec<u64>>::decode(&Postcard, bomb.clone(), Names::NONE).is_err());
        assert!(Codec::<String>::decode(&Postcard, bomb, Names::NONE).is_err());
    }
}
