#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod capacity;
mod certificate;
mod encoding;
mod envelope;
mod failure;
mod hash;
mod headers;
mod mailbox;
mod message;
mod muxer;
mod once_port;
mod outbox;
mod payload;
mod port;
mod port_ref;
mod queue;
mod schema;
mod sender;
mod settle;
mod settle_oneshot;
mod undeliverable;
mod wire;

pub mod limits;

pub use capacity::{Capacity, Room};
pub use certificate::{DeathCertificate, Handling, OutOfMemory, ProcExit, ResourceUse};
pub use envelope::{EnvelopeHead, MessageEnvelope};
pub use failure::{Failure, NotDelivered, Outcome, Unknown};
pub use headers::{Headers, HeadersFull};
pub use mailbox::{BindError, Mailbox, PortSink};
pub use message::{Message, combine, type_hash};
pub use muxer::MailboxMuxer;
pub use once_port::{OncePortHandle, OncePortReceiver, PortClosed};
pub use outbox::{Outbox, feed, post, send};
pub use payload::{ErasedMessage, Payload, PayloadError};
pub use port::{PortHandle, PortReceiver};
pub use port_ref::{OncePortRef, PortRef};
pub use queue::{PushError, Queue};
pub use schema::wire_hash;
pub use sender::{
    BoxFuture, BoxedMailboxSender, FlushError, MailboxSender, UnroutableMailboxSender,
};
pub use settle::{Lease, ReturnHandle, ReturnSink, Token};
pub use settle_oneshot::{OutcomeReceiver, SendFailure};
pub use undeliverable::{Hop, RouteKind, Undeliverable};
pub use wire::{DecodeError, EncodeError};

/// What the derives name; not for people.
#[doc(hidden)]
pub mod __private {
    pub use crate::schema::{Opaque, Shape, fold};
    pub use crate::{Message, combine, type_hash};
}
