//! A reference to an actor anywhere, as a value: sent in messages, printed, compared.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::task::{Poll, ready};
use std::time::Duration;

use hyperactor_mailbox::{
    BoxFuture, KnownMailbox, Message, OncePortRef, Outbox, Outcome, PortRef, begin_feed, post_by,
    send,
};
use hyperactor_refs::{ActorId, PortId};
use tokio::task::coop;

use crate::ask::{self, AskError};
use crate::claim::is_an_id_with_a_claim;
use crate::near::Near;
use crate::{Receives, limits};

/// A reference to an actor of type `A`, in this process or any other.
///
/// It takes the messages that the actor exports. A message to an actor of the same proc is moved, not encoded, and the
/// actor's mailbox is looked up once and remembered. The reference
/// says nothing about whether the actor lives: what becomes of a message, its outcome says.
///
/// Its text is the actor's id; it is encoded as the id.
pub struct ActorRef<A> {
    actor_id: ActorId,
    known: KnownMailbox,
    // Neither owns an actor nor depends on it being `Send` or `Sync`.
    claim: PhantomData<fn(A)>,
}

impl<A> ActorRef<A> {
    /// A reference to an actor of which the caller knows that it is an `A`. A wrong claim is found out when a
    /// message arrives: it comes back because there is no such port.
    pub fn attest(actor_id: ActorId) -> Self {
        Self {
            actor_id,
            known: KnownMailbox::default(),
            claim: PhantomData,
        }
    }

    /// Who it refers to.
    pub fn actor_id(&self) -> &ActorId {
        &self.actor_id
    }

    /// The port at which the actor receives `M`.
    pub fn port<M: Message>(&self) -> PortRef<M>
    where
        A: Receives<M>,
    {
        PortRef::attest(self.port_id::<M>())
    }

    fn port_id<M: Message>(&self) -> PortId {
        PortId::new(self.actor_id.clone(), M::port())
    }

    /// Posts a message and goes on. If it cannot be delivered, it comes back to the sender: an actor's
    /// [`on_undeliverable`](crate::Actor::on_undeliverable), a client's
    /// [`next_undeliverable`](crate::Client::next_undeliverable).
    #[inline]
    pub fn post<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M)
    where
        A: Receives<M>,
    {
        let mut message = Some(message);
        Near::<A>::post_plainly(&self.known, cx, &self.actor_id, &mut message);
        if let Some(message) = message {
            self.post_otherwise(cx, message);
        }
    }

    fn post_otherwise<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M)
    where
        A: Receives<M>,
    {
        match Near::<A>::find(&self.known, cx, &self.actor_id) {
            Some(near) => near.post(cx, message),
            None => post_by(cx, &self.known, self.port_id::<M>(), message),
        }
    }

    /// Sends a message: waits for room where a queue of this process is full, and then for the outcome.
    ///
    /// # Cancel safety
    /// A dropped future leaves open whether the message was sent.
    pub async fn send<M: Message>(&self, cx: &(impl Outbox + ?Sized), message: M) -> Outcome
    where
        A: Receives<M>,
    {
        match Near::<A>::find(&self.known, cx, &self.actor_id) {
            Some(near) => near.send(cx, message).await,
            None => send(cx, &self.port_id::<M>(), message).await,
        }
    }

    /// Posts a message as soon as there is room, and does not wait for its outcome: for streams.
    ///
    /// # Cancel safety
    /// A future that is dropped while it waits for room gives the message back as undeliverable.
    #[inline]
    pub fn feed<'a, M: Message>(
        &'a self,
        cx: &'a (impl Outbox + ?Sized),
        message: M,
    ) -> impl Future<Output = ()>
    where
        A: Receives<M>,
    {
        let mut message = Some(message);
        let mut rest: Option<BoxFuture<'a, ()>> = None;
        // By hand, so that a message for which there is room lies in this future once and is moved from here into the queue.
        poll_fn(move |task| {
            if message.is_some() {
                Near::<A>::post_plainly(&self.known, cx, &self.actor_id, &mut message);
                if let Some(message) = message.take() {
                    rest = self.feed_otherwise(cx, message);
                }
            }
            if let Some(unfed) = &mut rest {
                ready!(unfed.as_mut().poll(task));
                rest = None;
            }
            // A stream for which there is always room, or never a way, leaves others their turn. Only now: who drops this while
            // it waits for its own has sent the message.
            ready!(coop::poll_proceed(task)).made_progress();
            Poll::Ready(())
        })
    }

    /// Posts what did not go the usual way; what is to be waited for, if there is no room.
    fn feed_otherwise<'a, M: Message>(
        &'a self,
        cx: &'a (impl Outbox + ?Sized),
        message: M,
    ) -> Option<BoxFuture<'a, ()>>
    where
        A: Receives<M>,
    {
        match Near::<A>::find(&self.known, cx, &self.actor_id) {
            Some(near) => near.begin_feed(cx, message),
            None => {
                let unfed = begin_feed(cx, &self.port_id::<M>(), message)?;
                Some(Box::pin(unfed.feed(cx)))
            }
        }
    }

    /// Sends a request and waits for its reply, for [`limits::ASK_DEADLINE`].
    ///
    /// `request` makes the message around the port that takes the reply.
    ///
    /// # Errors
    /// [`AskError`]. A request that is not delivered ends the wait at once, with the reason.
    ///
    /// # Cancel safety
    /// A dropped future leaves open whether the request was sent; its reply is then dropped on arrival.
    ///
    /// # Panics
    /// Outside of a tokio runtime, or in one without a timer, as tokio's own timers do.
    pub async fn ask<R: Message, M: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        request: impl FnOnce(OncePortRef<R>) -> M,
    ) -> Result<R, AskError>
    where
        A: Receives<M>,
    {
        self.ask_within(cx, limits::ASK_DEADLINE, request).await
    }

    /// As [`ask`](Self::ask), with a deadline of one's own.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    ///
    /// # Cancel safety
    /// As [`ask`](Self::ask).
    ///
    /// # Panics
    /// As [`ask`](Self::ask).
    pub async fn ask_within<R: Message, M: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        deadline: Duration,
        request: impl FnOnce(OncePortRef<R>) -> M,
    ) -> Result<R, AskError>
    where
        A: Receives<M>,
    {
        match Near::<A>::look(&self.known, cx, &self.actor_id) {
            Some(cell) => ask::ask_near(cx, cell, deadline, request).await,
            None => ask::ask(cx, self.port_id::<M>(), deadline, request).await,
        }
    }
}

is_an_id_with_a_claim!(ActorRef<A>);
