//! References to ports for many messages, as values: they are sent in messages, printed and compared. Those to ports for
//! one message are in `once_ref.rs`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use hyperactor_refs::PortId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure::Outcome;
use crate::known::KnownMailbox;
use crate::message::{Message, combine, type_hash};
use crate::outbox::{self, Outbox};

/// A port anywhere that takes any number of messages of one type.
///
/// For senders of its own proc it looks its port's mailbox up once and remembers it.
pub struct PortRef<M> {
    port_id: PortId,
    known: KnownMailbox,
    // Neither owns an `M` nor depends on it being `Send` or `Sync`.
    message: PhantomData<fn(M)>,
}

impl<M: Message> PortRef<M> {
    /// Posts a message. What becomes of it, the sender's return handle learns.
    pub fn post(&self, cx: &(impl Outbox + ?Sized), message: M) {
        outbox::post_by(cx, &self.known, self.port_id.clone(), message);
    }

    /// Sends a message: waits for room if a queue of this process is full, and then for the outcome.
    ///
    /// # Cancel safety
    /// Not cancel safe in the sense that a dropped future leaves open whether the message was sent.
    pub async fn send(&self, cx: &(impl Outbox + ?Sized), message: M) -> Outcome {
        outbox::send(cx, &self.port_id, message).await
    }

    /// Posts a message as soon as there is room, and does not wait for its outcome: for streams.
    ///
    /// # Cancel safety
    /// A future dropped while it waits for room gives the message back as undeliverable: a full queue.
    pub async fn feed(&self, cx: &(impl Outbox + ?Sized), message: M) {
        outbox::feed(cx, &self.port_id, message).await;
    }
}

impl<M> PortRef<M> {
    /// A reference to a port of which the caller knows that it takes `M`. A wrong claim is found out when a message
    /// arrives: it comes back as a type mismatch.
    #[must_use]
    pub fn attest(port_id: PortId) -> Self {
        Self {
            port_id,
            known: KnownMailbox::default(),
            message: PhantomData,
        }
    }

    /// The id of the port.
    #[must_use]
    pub fn into_port_id(self) -> PortId {
        self.port_id
    }
}

impl<M> Clone for PortRef<M> {
    fn clone(&self) -> Self {
        Self {
            port_id: self.port_id.clone(),
            known: self.known.clone(),
            message: PhantomData,
        }
    }
}

impl<M> Serialize for PortRef<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.port_id.serialize(serializer)
    }
}

impl<'de, M> Deserialize<'de> for PortRef<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PortId::deserialize(deserializer).map(Self::attest)
    }
}

/// What both kinds of references have in common: they are their port's id, as far as others can see.
macro_rules! reference {
    ($name:ident, $text:literal) => {
        impl<M> $name<M> {
            /// The id of the port.
            #[must_use]
            pub fn port_id(&self) -> &PortId {
                self.named();
                &self.port_id
            }
        }

        impl<M: Message> Message for $name<M> {
            const TYPE_HASH: u64 = combine(type_hash($text), M::TYPE_HASH);
            // The shape of what is sent there later: whoever disagrees on it shall learn so before the first reply.
            const SCHEMA_HASH: u64 = combine(type_hash($text), M::SCHEMA_HASH);

            fn type_name() -> Cow<'static, str> {
                Cow::Owned(format!(concat!($text, "<{}>"), M::type_name()))
            }
        }

        impl<M> PartialEq for $name<M> {
            fn eq(&self, other: &Self) -> bool {
                self.port_id == other.port_id
            }
        }

        impl<M> Eq for $name<M> {}

        impl<M> PartialOrd for $name<M> {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<M> Ord for $name<M> {
            fn cmp(&self, other: &Self) -> Ordering {
                self.port_id.cmp(&other.port_id)
            }
        }

        impl<M> Hash for $name<M> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.port_id.hash(state);
            }
        }

        impl<M> fmt::Display for $name<M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.named();
                self.port_id.fmt(f)
            }
        }

        impl<M> fmt::Debug for $name<M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($text, "({})"), self.port_id)
            }
        }
    };
}

impl<M> PortRef<M> {
    /// Ports for many messages are in their mailbox from the beginning.
    fn named(&self) {}
}

reference!(PortRef, "PortRef");
pub(crate) use reference;
