//! What an envelope carries: a value that was never encoded, or bytes that were never decoded.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::encoding;
use crate::message::Message;
use crate::part;
use crate::schema::{self, wire_hash};
use crate::wire::EncodeError;

/// A [`Message`] whose type is known only at run time. Implemented for every message; not meant to be implemented else.
pub trait ErasedMessage: Any + Send {
    /// Appends the encoded message.
    ///
    /// # Errors
    /// What the type's `Serialize` reports. The buffer may then hold a part of the encoding.
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError>;

    /// The same without the large [parts](crate::Part) of the message: they go to `parts` in their order, each with the
    /// place in `out` where it belongs. By default nothing is shared.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_sharing(
        &self,
        out: &mut BytesMut,
        _parts: &mut Vec<(usize, Bytes)>,
    ) -> Result<(), EncodeError> {
        self.encode(out)
    }

    /// The [`wire_hash`] of the message.
    fn type_hash(&self) -> u64;

    /// [`Message::type_name`] of the message.
    fn type_name(&self) -> Cow<'static, str>;

    /// Gives the value up for a downcast.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl<M: Message> ErasedMessage for M {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        encoding::append(self, out).map_err(|error| payload_error::<M>(&error))
    }

    fn encode_sharing(
        &self,
        out: &mut BytesMut,
        parts: &mut Vec<(usize, Bytes)>,
    ) -> Result<(), EncodeError> {
        encoding::append_sharing(self, out, parts).map_err(|error| payload_error::<M>(&error))
    }

    fn type_hash(&self) -> u64 {
        wire_hash::<M>()
    }

    fn type_name(&self) -> Cow<'static, str> {
        M::type_name()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

fn payload_error<M: Message>(error: &postcard::Error) -> EncodeError {
    EncodeError::Payload {
        type_name: M::type_name().into_owned(),
        error: error.to_string(),
    }
}

/// The content of an envelope.
///
/// `Debug` shows type and size, never the content.
pub enum Payload {
    /// A value, as its sender made it.
    Typed(Box<dyn ErasedMessage>),
    /// An encoded value; a relay passes it on untouched.
    Encoded {
        /// The [`wire_hash`] of what is encoded.
        type_hash: u64,
        /// The encoding.
        bytes: Bytes,
    },
}

impl Payload {
    /// A payload that holds a value.
    pub fn typed<M: Message>(message: M) -> Self {
        Self::Typed(Box::new(message))
    }

    /// The [`wire_hash`] of the message it carries.
    #[must_use]
    pub fn type_hash(&self) -> u64 {
        match self {
            Self::Typed(message) => (**message).type_hash(),
            Self::Encoded { type_hash, .. } => *type_hash,
        }
    }

    /// The size of the encoding in bytes, where it is encoded.
    #[must_use]
    pub fn encoded_len(&self) -> Option<usize> {
        match self {
            Self::Typed(_) => None,
            Self::Encoded { bytes, .. } => Some(bytes.len()),
        }
    }

    /// Why it is no `M`. An encoded payload tells only a hash, but half of that is known if it is an `M` of another
    /// shape.
    fn mismatch<M: Message>(&self) -> PayloadError {
        let expected = M::type_name().into_owned();
        let found = match self {
            Self::Typed(message) => (**message).type_name().into_owned(),
            Self::Encoded { type_hash, .. }
                if schema::is_same_type(*type_hash, wire_hash::<M>()) =>
            {
                return PayloadError::TypeMismatch {
                    found: schema::describe(&expected, *type_hash),
                    expected: schema::describe(&expected, wire_hash::<M>()),
                };
            }
            Self::Encoded { type_hash, .. } => format!("{type_hash:#018x}"),
        };
        PayloadError::TypeMismatch { expected, found }
    }

    /// Takes the message out: a downcast of a value, a decoding of bytes.
    ///
    /// # Errors
    /// The payload as it was, and why it is no `M`.
    pub fn into_message<M: Message>(self) -> Result<M, (Self, PayloadError)> {
        match self {
            Self::Typed(message) if (&*message as &dyn Any).is::<M>() => {
                match message.into_any().downcast::<M>() {
                    Ok(message) => Ok(*message),
                    // The type was compared above, so this arm is never taken; it is written without a panic.
                    Err(_) => Err((
                        Self::Encoded {
                            type_hash: wire_hash::<M>(),
                            bytes: Bytes::new(),
                        },
                        PayloadError::Decode {
                            expected: M::type_name().into_owned(),
                            error: "downcast failed".into(),
                        },
                    )),
                }
            }
            Self::Encoded { type_hash, bytes } if type_hash == wire_hash::<M>() => {
                // Bytes left over mean that sender and receiver disagree on the fields: refused, not ignored.
                let error = match part::decoding(&bytes, hyperactor_decode::from_bytes::<M>) {
                    Ok(message) => return Ok(message),
                    Err(error) => error.to_string(),
                };
                let error = PayloadError::Decode {
                    expected: M::type_name().into_owned(),
                    error,
                };
                Err((Self::Encoded { type_hash, bytes }, error))
            }
            // E-04: whether these bytes would decode as `M` is not tried.
            other => {
                let error = other.mismatch::<M>();
                Err((other, error))
            }
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Typed(message) => write!(f, "Typed({})", (**message).type_name()),
            Self::Encoded { type_hash, bytes } => {
                write!(f, "Encoded({type_hash:#018x}, {} bytes)", bytes.len())
            }
        }
    }
}

/// Why a payload is not the message that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// It is of another type, or of another shape: then both texts are the type's name with the hash of a shape.
    #[error("expected a message of type `{expected}` and found `{found}`")]
    TypeMismatch {
        /// The name of the type asked for.
        expected: String,
        /// The name, or the wire hash, of the type that is there.
        found: String,
    },
    /// It has the right hash and does not decode: sender and receiver disagree on what the hash does not cover.
    #[error("the payload does not decode as `{expected}`: {error}")]
    Decode {
        /// The name of the type asked for.
        expected: String,
        /// What the decoder said.
        error: String,
    },
}
