//! Notices: small messages between mailboxes about messages whose two ends are in different processes. They go to a
//! reserved port that every mailbox has, and are acted on where they arrive; they wait in no queue.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use hyperactor_refs::{ActorId, PortId};
use serde::{Deserialize, Serialize};

use crate::asked::Never;
use crate::envelope::MessageEnvelope;
use crate::failure::NotDelivered;
use crate::limits;
use crate::message::{Message, type_hash};
use crate::payload::{Payload, PayloadError};
use crate::settle::ReturnHandle;
use crate::undeliverable::Undeliverable;

/// What one mailbox tells another about a message between them.
///
/// A notice that is lost costs time, never truth: a wait that is not told of its end has its deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Notice {
    /// To whoever asked: no reply will come at this port.
    Never {
        /// The index of the port that waits for it.
        reply_port: u64,
        /// Why.
        why: Never,
    },
    /// To a sender: a message that was delivered to a queue was not handled.
    Returned {
        /// The port that it was sent to.
        dest: PortId,
        /// The hash of its type.
        type_hash: u64,
        /// The message, encoded; empty if it has more than [`limits::RETURNED_BYTES`].
        message: Bytes,
        /// Why.
        reason: Box<NotDelivered>,
    },
    /// To whoever was asked: nobody waits for the reply any more.
    Withdrawn {
        /// The port that waited for it.
        reply_port: PortId,
    },
    /// To any mailbox: nothing. That it was placed is the answer, to those who measure the way.
    Probe,
}

impl Message for Notice {
    const TYPE_HASH: u64 = type_hash("hyperactor.Notice");

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("hyperactor.Notice")
    }
}

impl Notice {
    /// the notice that gives a message back which was delivered and is not going to be handled.
    #[must_use]
    pub fn returned(envelope: &MessageEnvelope, reason: NotDelivered) -> Self {
        let mut bytes = BytesMut::new();
        let encoded = match envelope.payload() {
            Payload::Typed(message) => (**message).encode(&mut bytes).is_ok(),
            Payload::Encoded { bytes: known, .. } => {
                bytes.extend_from_slice(known);
                true
            }
        };
        if !encoded || bytes.len() > limits::RETURNED_BYTES {
            bytes.clear();
        }
        Self::Returned {
            dest: envelope.dest().clone(),
            type_hash: envelope.payload().type_hash(),
            message: bytes.freeze(),
            reason: Box::new(reason),
        }
    }

    /// The notice on its way to the mailbox of an actor.
    #[must_use]
    pub fn envelope(self, sender: ActorId, to: &ActorId) -> MessageEnvelope {
        let dest = PortId::new(to.clone(), limits::NOTICE_PORT);
        MessageEnvelope::typed(sender, dest, self)
    }

    /// The return handle of a notice: what becomes of it is only logged, at the lowest level but one.
    pub fn return_handle() -> ReturnHandle {
        use std::sync::{Arc, OnceLock};

        use crate::settle::{ReturnSink, Token};

        /// Nobody waits to hear of a notice.
        struct Unheard;
        impl ReturnSink for Unheard {
            fn undelivered(&self, _: Token, report: Undeliverable) {
                tracing::debug!(code = report.failure.code(), "notice: {report}");
            }
            fn abandoned(&self, _: Token) {
                tracing::debug!("a notice was dropped on its way");
            }
        }
        static UNHEARD: OnceLock<Arc<dyn ReturnSink>> = OnceLock::new();
        let sink = UNHEARD.get_or_init(|| Arc::new(Unheard));
        ReturnHandle::new(Arc::clone(sink), Token::default())
    }
}

/// The notice in an envelope.
// As with `MessageEnvelope::into_message`, the error is what was passed in.
#[allow(clippy::result_large_err)]
pub(crate) fn read(envelope: MessageEnvelope) -> Result<Notice, (MessageEnvelope, PayloadError)> {
    let sender = envelope.sender().clone();
    let (notice, head) = envelope.split::<Notice>()?;
    match notice {
        // Only who asked may withdraw the question.
        Notice::Withdrawn { reply_port } if *reply_port.actor_id() != sender => {
            let error = PayloadError::Decode {
                expected: Notice::type_name().into_owned(),
                error: format!(
                    "`{sender}` withdraws a request of `{}`",
                    reply_port.actor_id()
                ),
            };
            let notice = Notice::Withdrawn { reply_port };
            Err((head.with_payload(Payload::typed(notice)), error))
        }
        notice => Ok(notice),
    }
}
