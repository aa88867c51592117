#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod as_bytes;
mod asked;
mod capacity;
mod certificate;
mod duty;
mod encoding;
mod envelope;
mod failure;
mod feeding;
mod fold_port;
mod hash;
mod headers;
mod known;
mod lanes;
mod lock;
mod mailbox;
mod message;
mod muxer;
mod notice;
mod once_port;
mod once_ref;
mod outbox;
mod overflow;
mod part;
mod passage;
mod payload;
mod port;
mod port_ref;
mod queue;
mod recent;
mod reply_return;
mod schema;
mod sender;
mod settle;
mod settle_oneshot;
mod undeliverable;
mod wire;

pub mod limits;

/// Bytes that are shared, not copied: the type for a field of bytes in a message.
pub use bytes::Bytes;

pub use asked::{Asked, InHand, Never, WaitLink};
pub use capacity::{Capacity, Room};
pub use certificate::{DeathCertificate, Handling, OutOfMemory, ProcExit, ResourceUse};
pub use duty::{DecodedReply, Holders, decode_with_duties, ending_with};
pub use envelope::{EnvelopeHead, MessageEnvelope};
pub use failure::{Dropped, Failure, NotDelivered, Outcome, Unknown};
pub use fold_port::FoldReceiver;
pub use headers::{Headers, HeadersFull};
pub use known::KnownMailbox;
pub use lanes::{Admitted, AdmittedPlain, Both, Lane, Lanes, Receiving, Refusal};
pub use lock::{BriefGuard, BriefMutex};
pub use mailbox::{BindError, Kept, Mailbox, PortSink};
pub use message::{Message, combine, type_hash};
pub use muxer::MailboxMuxer;
pub use notice::Notice;
pub use once_port::{OncePortHandle, OncePortReceiver, PortClosed};
pub use once_ref::OncePortRef;
pub use outbox::{Outbox, Unfed, begin_feed, feed, post, post_by, send};
pub use overflow::{Class, Overflow};
pub use part::Part;
pub use passage::{Pass, Passage, Sealed};
pub use payload::{ErasedMessage, Payload, PayloadError};
pub use port::{PortHandle, PortReceiver};
pub use port_ref::PortRef;
pub use queue::{PushError, Queue};
pub use recent::{Missed, Recent};
pub use schema::wire_hash;
pub use sender::{
    BoxFuture, BoxedMailboxSender, FlushError, MailboxSender, UnroutableMailboxSender,
};
pub use settle::{Lease, LeaseGroup, ReturnHandle, ReturnSink, Token};
pub use settle_oneshot::{OutcomeReceiver, SendFailure};
pub use undeliverable::{Hop, RouteKind, Undeliverable};
pub use wire::{DecodeError, EncodeError, is_plain, pass_plain};

/// What the derives name; not for people.
#[doc(hidden)]
pub mod __private {
    pub use crate::schema::{Opaque, Shape, fold};
    pub use crate::{Message, combine, type_hash};
}
