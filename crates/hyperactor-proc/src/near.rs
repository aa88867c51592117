//! Messages by reference to an actor of the sender's own proc: they go into its queue as through a handle, past envelope
//! and ports. Everything else goes the long way, and so does what cannot be placed.

use std::sync::Arc;

use hyperactor_mailbox::{
    Asked, BoxFuture, Capacity, Class, KnownMailbox, Lease, Message, NotDelivered, Outbox, Outcome,
    Refusal,
};
use hyperactor_refs::{ActorId, PortId};

use crate::cell::Cell;
use crate::inbox::Refused;
use crate::runs::{Meta, Origin, envelop};
use crate::{Actor, Receives, TraceContext};

/// An actor of the sender's own proc.
pub(crate) struct Near<A: Actor> {
    cell: Arc<Cell<A>>,
}

impl<A: Actor> Near<A> {
    /// An actor that somebody has a handle to, if it is in the sender's proc.
    pub(crate) fn of(cell: &Arc<Cell<A>>, cx: &(impl Outbox + ?Sized)) -> Option<Self> {
        let cell = Arc::clone(cell);
        cell.shares_proc(cx.actor_id()).then_some(Self { cell })
    }

    /// The actor, if it is in the sender's proc, takes messages and has ports for them.
    #[inline]
    pub(crate) fn find(
        known: &KnownMailbox,
        cx: &(impl Outbox + ?Sized),
        actor_id: &ActorId,
    ) -> Option<Self> {
        let cell = known.owner::<Cell<A>>(cx, actor_id)?;
        let is_open = cell.is_exported() && !cell.mailbox.is_closed();
        is_open.then_some(Self { cell })
    }

    /// Puts a message into the actor's queue, as far as that is the usual case: the actor is in the sender's proc, and was posted
    /// to before by this reference. Else the message stays where it is.
    ///
    /// A reference that was used before so costs no reference count, which the threads of several senders would take from each
    /// other.
    #[inline(always)]
    pub(crate) fn post_plainly<M: Message>(
        known: &KnownMailbox,
        cx: &(impl Outbox + ?Sized),
        actor_id: &ActorId,
        message: &mut Option<M>,
    ) where
        A: Receives<M>,
    {
        // That its mailbox is closed need not be looked at: its queue is closed before.
        if let Some(cell) = known.known_owner::<Cell<A>>(cx, actor_id)
            && cell.is_exported()
            && !cx.is_stamping()
            && cell.class_of::<M>() == Class::User
        {
            let meta = Meta::Reference(cx.actor_id().precomputed_hash());
            cell.inbox.push_plain(message, meta, Some(envelop::<M>));
        }
    }

    pub(crate) fn actor_id(&self) -> &ActorId {
        self.cell.actor_id()
    }

    /// Posts a message; it comes back to its sender if it cannot be placed.
    #[inline]
    pub(crate) fn post<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M)
    where
        A: Receives<M>,
    {
        if let Err(refused) = self.place(cx, message) {
            self.give_back(cx, refused);
        }
    }

    /// Posts a message; what to wait for if there is no room. It comes back to its sender if it cannot be placed, or if that
    /// is dropped.
    pub(crate) fn begin_feed<'a, M: Message>(
        self,
        cx: &'a (impl Outbox + ?Sized),
        message: M,
    ) -> Option<BoxFuture<'a, ()>>
    where
        A: Receives<M>,
    {
        let refused = self.place(cx, message).err()?;
        Some(Box::pin(self.feed(cx, refused)))
    }

    async fn feed<M: Message>(self, cx: &(impl Outbox + ?Sized), refused: Refused<M>)
    where
        A: Receives<M>,
    {
        let mut waiting = Waiting {
            near: &self,
            cx,
            refused: Some(refused),
        };
        while let Some(capacity) = waiting.capacity() {
            capacity.available().await;
            let Some(refused) = waiting.refused.take() else {
                return;
            };
            waiting.refused = self.place(cx, refused.message).err();
        }
        // Dropped, it goes back.
    }

    /// Places a message as soon as there is room, and tells what became of it.
    pub(crate) async fn send<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M) -> Outcome
    where
        A: Receives<M>,
    {
        let mut message = message;
        while let Err(refused) = self.place(cx, message) {
            let class = self.cell.class_of::<M>();
            match (refused.why, self.cell.capacity_of(class)) {
                (Refusal::Full, Some(capacity)) => capacity.available().await,
                (why, _) => {
                    let port_id = PortId::new(self.cell.actor_id().clone(), M::port());
                    let reason = self.cell.reason_of(why, port_id);
                    return Outcome::NotDelivered(Box::new(reason));
                }
            }
            message = refused.message;
        }
        Outcome::Delivered
    }

    /// Places a request as soon as there is room.
    pub(crate) async fn ask<M: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        message: M,
        asked: Arc<dyn Asked>,
    ) -> Result<(), NotDelivered>
    where
        A: Receives<M>,
    {
        let cell = &self.cell;
        let class = cell.class_of::<M>();
        let origin = Origin::Envelope {
            sender: cx.actor_id().clone(),
            asked: Some(Arc::clone(&asked)),
        };
        let mut meta = Meta::full(origin, Lease::none(), TraceContext::of(cx));
        let mut message = message;
        loop {
            if let Some(chain) = cell.circle(&asked) {
                return Err(NotDelivered::Deadlock { chain });
            }
            let refused = match self.push(class, message, meta) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            match (refused.why, cell.capacity_of(class)) {
                // The deadline bounds the wait for room.
                (Refusal::Full, Some(capacity)) => capacity.available().await,
                (why, _) => {
                    let port_id = PortId::new(cell.actor_id().clone(), M::port());
                    return Err(cell.reason_of(why, port_id));
                }
            }
            (message, meta) = (refused.message, refused.meta);
        }
    }

    #[allow(clippy::result_large_err)]
    #[inline(always)]
    fn place<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M) -> Result<(), Refused<M>>
    where
        A: Receives<M>,
    {
        let meta = Meta::reference(cx.actor_id().precomputed_hash(), TraceContext::of(cx));
        self.push(self.cell.class_of::<M>(), message, meta)
    }

    #[allow(clippy::result_large_err)]
    #[inline(always)]
    fn push<M: Message>(&self, class: Class, message: M, meta: Meta) -> Result<(), Refused<M>>
    where
        A: Receives<M>,
    {
        let cell = &*self.cell;
        if let Some(oldest) = cell
            .inbox
            .push_by_reference(class, message, meta, envelop::<M>)?
        {
            cell.displaced(*oldest);
        }
        Ok(())
    }

    #[cold]
    fn give_back<M: Message>(&self, cx: &(impl Outbox + ?Sized), refused: Refused<M>)
    where
        A: Receives<M>,
    {
        let Refused { why, message, .. } = refused;
        let envelope = envelop(message, cx.actor_id().clone(), self.cell.actor_id());
        let class = self.cell.class_of::<M>();
        cx.return_handle()
            .report(self.cell.report_of(why, envelope, class));
    }
}

/// A message that waits for room.
struct Waiting<'a, A: Receives<M>, M: Message, O: Outbox + ?Sized> {
    near: &'a Near<A>,
    cx: &'a O,
    refused: Option<Refused<M>>,
}

impl<A: Receives<M>, M: Message, O: Outbox + ?Sized> Waiting<'_, A, M, O> {
    /// What to wait for, if there is any use in it.
    fn capacity(&self) -> Option<Capacity> {
        let cell = &self.near.cell;
        match self.refused.as_ref()?.why {
            Refusal::Full => cell.capacity_of(cell.class_of::<M>()),
            Refusal::Closed | Refusal::Shed => None,
        }
    }
}

impl<A: Receives<M>, M: Message, O: Outbox + ?Sized> Drop for Waiting<'_, A, M, O> {
    fn drop(&mut self) {
        if let Some(refused) = self.refused.take() {
            self.near.give_back(self.cx, refused);
        }
    }
}
