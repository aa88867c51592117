//! The envelope: sender, destination, headers, payload and time to live. Its bytes are in `wire.rs`.

use std::fmt;

use hyperactor_refs::{ActorId, PortId};

use crate::headers::Headers;
use crate::limits;
use crate::message::Message;
use crate::payload::{Payload, PayloadError};

/// What routers move.
///
/// `Debug` shows ids and sizes, never the payload.
pub struct MessageEnvelope {
    head: EnvelopeHead,
    payload: Payload,
}

/// An envelope without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeHead {
    pub(crate) sender: ActorId,
    pub(crate) dest: PortId,
    pub(crate) headers: Headers,
    pub(crate) ttl: u8,
}

impl MessageEnvelope {
    /// An envelope with the full time to live and no headers.
    #[must_use]
    pub fn new(sender: ActorId, dest: PortId, payload: Payload) -> Self {
        EnvelopeHead {
            sender,
            dest,
            headers: Headers::new(),
            ttl: limits::TTL_DEFAULT,
        }
        .with_payload(payload)
    }

    /// An envelope around a value, which it boxes.
    pub fn typed<M: Message>(sender: ActorId, dest: PortId, message: M) -> Self {
        Self::new(sender, dest, Payload::typed(message))
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> &ActorId {
        &self.head.sender
    }

    /// Where it goes.
    #[must_use]
    pub fn dest(&self) -> &PortId {
        &self.head.dest
    }

    /// Sets where it goes, as a router does that knows the destination by another spelling of its id. What comes back then
    /// names the new one.
    pub fn set_dest(&mut self, dest: PortId) {
        self.head.dest = dest;
    }

    /// What it carries.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// Its headers, to change them.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.head.headers
    }

    /// The steps it may still take.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.head.ttl
    }

    /// Sets the steps it may still take.
    pub fn set_ttl(&mut self, ttl: u8) {
        self.head.ttl = ttl;
    }

    /// Spends one step; false when none was left.
    pub(crate) fn spend_ttl(&mut self) -> bool {
        match self.head.ttl.checked_sub(1) {
            Some(left) => {
                self.head.ttl = left;
                true
            }
            None => false,
        }
    }

    /// Takes the message out: a downcast of a value, a decoding of bytes.
    ///
    /// # Errors
    /// The envelope as it was, and why its payload is no `M`.
    // The error carries the message itself back: it is as large as what was passed in, and boxing it would cost an
    // allocation on a path that has just failed.
    #[allow(clippy::result_large_err)]
    pub fn into_message<M: Message>(self) -> Result<M, (Self, PayloadError)> {
        self.split().map(|(message, _)| message)
    }

    /// As [`into_message`](Self::into_message), and keeps the rest of the envelope.
    ///
    /// # Errors
    /// As [`into_message`](Self::into_message).
    #[allow(clippy::result_large_err)]
    pub fn split<M: Message>(self) -> Result<(M, EnvelopeHead), (Self, PayloadError)> {
        let Self { head, payload } = self;
        match payload.into_message() {
            Ok(message) => Ok((message, head)),
            Err((payload, error)) => Err((Self { head, payload }, error)),
        }
    }

    /// The two parts of the envelope.
    #[must_use]
    pub fn into_parts(self) -> (EnvelopeHead, Payload) {
        (self.head, self.payload)
    }

    pub(crate) fn head(&self) -> &EnvelopeHead {
        &self.head
    }
}

impl EnvelopeHead {
    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> &ActorId {
        &self.sender
    }

    /// Where it goes.
    #[must_use]
    pub fn dest(&self) -> &PortId {
        &self.dest
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The whole envelope again.
    #[must_use]
    pub fn with_payload(self, payload: Payload) -> MessageEnvelope {
        MessageEnvelope {
            head: self,
            payload,
        }
    }
}

impl fmt::Debug for MessageEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEnvelope")
            .field("sender", &format_args!("{}", self.head.sender))
            .field("dest", &format_args!("{}", self.head.dest))
            .field("payload", &self.payload)
            .field("headers", &self.head.headers)
            .field("ttl", &self.head.ttl)
            .finish()
    }
}
