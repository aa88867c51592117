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
use crate::runs::{Meta, Origin, Unhandled, envelop};
use crate::{Actor, Receives, TraceContext};

/// An actor of the sender's own proc.
pub(crate) struct Near<A: Actor> {
    cell: Arc<Cell<A>>,
}

impl<A: Actor> Near<A> {
    /// As [`find`](Self::find), for as long as the reference lasts: nothing is counted.
    #[inline]
    pub(crate) fn look<'a>(
        known: &'a KnownMailbox,
        cx: &(impl Outbox + ?Sized),
        actor_id: &ActorId,
    ) -> Option<&'a Cell<A>> {
        let cell = match known.known_owner::<Cell<A>>(cx, actor_id) {
            Some(cell) => cell,
            None => {
                Self::find(known, cx, actor_id)?;
                known.known_owner(cx, actor_id)?
            }
        };
        (cell.is_exported() && !cell.mailbox.is_closed()).then_some(cell)
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
            let sender_hash = cx.actor_id().precomputed_hash();
            cell.inbox
                .push_plain(message, sender_hash, Some(envelop::<M>));
        }
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

/// Why a request is not in the queue of its actor.
pub(crate) enum Unplaced {
    /// There is [room](room) for it later.
    Full,
    Never(NotDelivered),
}

/// Places a request in the queue of an actor of the sender's own proc; it stays where it is if that cannot be.
#[inline(always)]
pub(crate) fn ask<A: Receives<M>, M: Message>(
    cell: &Cell<A>,
    cx: &(impl Outbox + ?Sized),
    message: &mut Option<M>,
    asked: &mut Option<Arc<dyn Asked>>,
) -> Result<(), Unplaced> {
    if let Some(chain) = asked.as_ref().and_then(|asked| cell.circle(asked)) {
        return Err(Unplaced::Never(NotDelivered::Deadlock { chain }));
    }
    let class = cell.class_of::<M>();
    let pushed = match TraceContext::of(cx) {
        None => {
            let inbox = &cell.inbox;
            inbox.push_request(class, message, asked, envelop::<M>)
        }
        Some(trace) => push_traced(cell, class, trace, message, asked),
    };
    match pushed {
        Ok(None) => Ok(()),
        Ok(Some(oldest)) => {
            cell.displaced(*oldest);
            Ok(())
        }
        Err(Refusal::Full) if cell.inbox.waits(class) => Err(Unplaced::Full),
        Err(why) => {
            let port_id = PortId::new(cell.actor_id().clone(), M::port());
            Err(Unplaced::Never(cell.reason_of(why, port_id)))
        }
    }
}

/// Waits until an actor's queue may have room for such a message.
pub(crate) async fn room<A: Receives<M>, M: Message>(cell: &Cell<A>) {
    cell.inbox.available(cell.class_of::<M>()).await;
}

/// Places a request that is part of a trace; it stays where it is if it is refused.
#[cold]
fn push_traced<A: Receives<M>, M: Message>(
    cell: &Cell<A>,
    class: Class,
    trace: TraceContext,
    message: &mut Option<M>,
    asked: &mut Option<Arc<dyn Asked>>,
) -> Result<Option<Box<Unhandled>>, Refusal> {
    let (Some(request), Some(to)) = (message.take(), asked.take()) else {
        return Ok(None);
    };
    let origin = Origin::Request { asked: to };
    let meta = Meta::full(origin, Lease::none(), Some(trace));
    let inbox = &cell.inbox;
    inbox
        .push_by_reference(class, request, meta, envelop::<M>)
        .map_err(|refused| {
            *message = Some(refused.message);
            *asked = refused.meta.into_asked();
            refused.why
        })
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
