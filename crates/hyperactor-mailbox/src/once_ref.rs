//! References to ports for one message, as for a reply. Within a process such a reference knows whether its message is
//! still waited for, and dropping it unused tells so; see `duty.rs`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic;

use hyperactor_refs::PortId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::asked::Asked;
use crate::duty::{self, Owed};
use crate::envelope::MessageEnvelope;
use crate::failure::Outcome;
use crate::known::share_proc;
use crate::message::{Message, combine, type_hash};
use crate::outbox::{self, Outbox};
use crate::port_ref::reference;
use crate::reply_return;

/// A port anywhere that takes one message of one type. It is used up by sending.
///
/// It can be cloned, so that it can travel within messages that can; whichever message arrives second comes back.
///
/// When its last clone is dropped unused, whoever waits for the message is told that none will come: at once, also in
/// another process, as long as the reference came in a message to an actor. A reference that was encoded, taken apart
/// or [attested](Self::attest) is not watched any more: its copies may be anywhere.
pub struct OncePortRef<M> {
    port_id: PortId,
    duty: Option<Owed>,
    message: PhantomData<fn(M)>,
}

impl<M: Message> OncePortRef<M> {
    /// Posts the message. What becomes of it, the sender's return handle learns.
    pub fn post(self, cx: &(impl Outbox + ?Sized), message: M) {
        self.answered();
        let mut message = Some(message);
        if let Some(port) = self.port()
            && let Some(placed) = cx.placed()
            && share_proc(cx, self.port_id.actor_id())
            && port.take_reply(&mut message)
        {
            placed.fetch_add(1, atomic::Ordering::Relaxed);
        }
        let Some(message) = message else {
            return;
        };
        self.named();
        match self.port().filter(|port| port.is_elsewhere()) {
            None => outbox::post(cx, &self.port_id, message),
            Some(port) => {
                let envelope =
                    MessageEnvelope::typed(cx.actor_id().clone(), self.port_id.clone(), message);
                cx.post(
                    envelope,
                    reply_return::watch(cx.return_handle(), Arc::clone(port)),
                );
            }
        }
    }

    /// Sends the message and waits for the outcome.
    ///
    /// # Cancel safety
    /// Not cancel safe in the sense that a dropped future leaves open whether the message was sent.
    pub async fn send(self, cx: &(impl Outbox + ?Sized), message: M) -> Outcome {
        self.answered();
        self.named();
        let outcome = outbox::send(cx, &self.port_id, message).await;
        if let (Outcome::NotDelivered(reason), Some(port)) = (&outcome, self.port()) {
            port.undelivered(reason);
        }
        outcome
    }
}

impl<M> OncePortRef<M> {
    /// A reference to a port of which the caller knows that it takes `M`. A wrong claim is found out when a message
    /// arrives: it comes back as a type mismatch.
    #[must_use]
    pub fn attest(port_id: PortId) -> Self {
        Self {
            port_id,
            duty: None,
            message: PhantomData,
        }
    }

    /// A reference whose drop is told to `port`.
    pub(crate) fn owed(port_id: PortId, port: Arc<dyn Asked>) -> Self {
        Self {
            port_id,
            duty: Some(Owed::to(port)),
            message: PhantomData,
        }
    }

    /// As [`owed`](Self::owed), to a port that counts this reference already.
    pub(crate) fn first(port_id: PortId, port: Arc<dyn Asked>) -> Self {
        Self {
            port_id,
            duty: Some(Owed::first(port)),
            message: PhantomData,
        }
    }

    /// The id of the port. The reference is then no longer watched: the port stays open until its message comes or its
    /// receiver is dropped.
    #[must_use]
    pub fn into_port_id(self) -> PortId {
        self.named();
        if let Some(duty) = &self.duty {
            duty.handed_over();
        }
        self.port_id
    }

    /// Whether the message is still waited for, as far as this process knows.
    ///
    /// False once the receiver has gone: whoever asked has dropped the question or reached its deadline, or a reply has
    /// come. From another process that is told by a message, so it takes as long as one. For a reference that was
    /// [attested](Self::attest), or decoded elsewhere than in a message to an actor, it stays true.
    ///
    /// ```
    /// # use hyperactor_mailbox::Mailbox;
    /// # use hyperactor_refs::{ActorId, ProcId};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let proc_id = ProcId::direct("local:1".parse()?, "demo")?;
    /// let mailbox = Mailbox::new(ActorId::root(proc_id, "asker"));
    /// let (handle, receiver) = mailbox.open_once_port::<u64>();
    /// let reply = handle.bind();
    /// assert!(reply.is_wanted());
    /// drop(receiver);
    /// assert!(!reply.is_wanted());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.port().is_none_or(|port| port.is_wanted())
    }

    /// Resolves when the message is no longer waited for; see [`is_wanted`](Self::is_wanted).
    ///
    /// # Cancel safety
    /// Cancel safe: it only watches.
    pub async fn closed(&self) {
        match self.port() {
            Some(port) => port.unwanted().await,
            None => std::future::pending().await,
        }
    }

    fn port(&self) -> Option<&Arc<dyn Asked>> {
        self.duty.as_ref()?.port()
    }

    /// The port's id is about to be known beyond this reference.
    fn named(&self) {
        if let Some(port) = self.port() {
            Arc::clone(port).named();
        }
    }

    fn answered(&self) {
        if let Some(duty) = &self.duty {
            duty.answered();
        }
    }
}

impl<M> Clone for OncePortRef<M> {
    fn clone(&self) -> Self {
        Self {
            port_id: self.port_id.clone(),
            duty: self.duty.clone(),
            message: PhantomData,
        }
    }
}

impl<M> Serialize for OncePortRef<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.named();
        // R-06: from here on a copy may answer, wherever the bytes go.
        if let Some(duty) = &self.duty {
            duty.handed_over();
        }
        self.port_id.serialize(serializer)
    }
}

impl<'de, M> Deserialize<'de> for OncePortRef<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let port_id = PortId::deserialize(deserializer)?;
        Ok(Self {
            duty: duty::decoded(&port_id),
            port_id,
            message: PhantomData,
        })
    }
}

reference!(OncePortRef, "OncePortRef");
