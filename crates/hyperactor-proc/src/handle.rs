//! A handle to an actor of the same process: typed, local, without an id to resolve and without encoding.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use hyperactor_mailbox::{
    BoxFuture, Capacity, Class, Dropped, NotDelivered, Outbox, Outcome, Refusal,
};
use hyperactor_refs::{ActorId, PortId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::coop;

use crate::cell::{Cell, Ports};
use crate::control::{End, exit_of};
use crate::inbox::Refused;
use crate::runs::{Meta, envelop_local};
use crate::{Actor, ActorExit, ActorRef, ActorStatus, Exports, Handler, TraceContext};

/// A handle to an actor in this process. A clone is one reference count.
///
/// It takes every message that the actor handles, whether it can be encoded or not, and tells at the call whether
/// the message is in the actor's queue. It does not keep the actor alive.
///
/// # Ordering
/// Messages posted by one task through handles and references of this process arrive in the order posted.
pub struct ActorHandle<A: Actor> {
    cell: Arc<Cell<A>>,
}

impl<A: Actor> ActorHandle<A> {
    pub(crate) fn new(cell: Arc<Cell<A>>) -> Self {
        Self { cell }
    }

    pub(crate) fn cell(&self) -> &Arc<Cell<A>> {
        &self.cell
    }

    /// Who it is.
    pub fn actor_id(&self) -> &ActorId {
        self.cell.actor_id()
    }

    /// Puts a message into the actor's queue. Never waits.
    ///
    /// A message that is still queued when the actor ends is not handled; the sender is told by a report, as of an
    /// undeliverable. So is the sender of a message that a full queue drops, if the actor was spawned so.
    ///
    /// # Errors
    /// The message, because the queue is full, or because the actor has ended or is about to.
    ///
    /// # Bounds
    /// The message is moved into the queue, beside others of its type: that costs no allocation, unless it is larger than
    /// [`limits::INLINE_BYTES_MAX`](crate::limits::INLINE_BYTES_MAX). Handling costs one box each time the type of the
    /// messages changes, for the handler's future.
    #[inline]
    pub fn post<M: Send + 'static>(
        &self,
        cx: &(impl Outbox + ?Sized),
        message: M,
    ) -> Result<(), PostError<M>>
    where
        A: Handler<M>,
    {
        let mut message = Some(message);
        self.post_plainly(cx, &mut message);
        match message {
            None => Ok(()),
            Some(message) => self.post_otherwise(cx, message),
        }
    }

    /// Puts the message into the actor's queue, as far as that is the usual case; else the message stays where it is.
    #[inline(always)]
    fn post_plainly<M: Send + 'static>(&self, cx: &(impl Outbox + ?Sized), message: &mut Option<M>)
    where
        A: Handler<M>,
    {
        if !cx.is_stamping() && self.cell.class_of::<M>() == Class::User {
            let sender_hash = cx.actor_id().precomputed_hash();
            self.cell.inbox.push_plain(message, sender_hash, None);
        }
    }

    #[cold]
    fn post_otherwise<M: Send + 'static>(
        &self,
        cx: &(impl Outbox + ?Sized),
        message: M,
    ) -> Result<(), PostError<M>>
    where
        A: Handler<M>,
    {
        let class = self.cell.class_of::<M>();
        let sender_hash = cx.actor_id().precomputed_hash();
        let meta = Meta::handle(sender_hash, TraceContext::of(cx));
        let Refused { why, message, .. } = match self.cell.inbox.push(class, message, meta, None) {
            Ok(None) => return Ok(()),
            Ok(Some(oldest)) => {
                self.cell.displaced(*oldest);
                return Ok(());
            }
            Err(refused) => refused,
        };
        match why {
            Refusal::Full => Err(self.error(message, Kind::Full(class))),
            Refusal::Closed => Err(self.error(message, Kind::Stopped)),
            Refusal::Shed => {
                // As posted through a reference: the call succeeds, and the message comes back.
                let envelope = envelop_local(message, cx.actor_id().clone(), self.actor_id());
                let reason = self.cell.shed(Dropped::Newest);
                cx.return_handle().undeliverable(envelope, reason);
                Ok(())
            }
        }
    }

    /// Puts a message into the actor's queue as soon as there is room.
    ///
    /// # Errors
    /// The message, because the actor has ended or is about to.
    ///
    /// # Cancel safety
    /// A future that is dropped while it waits drops the message; it was not placed.
    #[inline]
    pub fn feed<M: Send + 'static>(
        &self,
        cx: &(impl Outbox + ?Sized),
        message: M,
    ) -> impl Future<Output = Result<(), PostError<M>>>
    where
        A: Handler<M>,
    {
        let mut message = Some(message);
        let mut room: Option<BoxFuture<'static, ()>> = None;
        // By hand, so that a message for which there is room lies in this future once and is moved from here into the queue.
        poll_fn(move |task| {
            match &mut room {
                // A stream for which there is always room, or never a way, leaves others their turn.
                None => ready!(coop::poll_proceed(task)).made_progress(),
                Some(made) => ready!(made.as_mut().poll(task)),
            }
            self.post_plainly(cx, &mut message);
            match message.take() {
                None => Poll::Ready(Ok(())),
                Some(refused) => self.poll_otherwise(cx, task, refused, &mut message, &mut room),
            }
        })
    }

    /// Posts what did not go the usual way; if there is no room, it is in `message` again, and `room` is what is waited for.
    #[cold]
    fn poll_otherwise<M: Send + 'static>(
        &self,
        cx: &(impl Outbox + ?Sized),
        task: &mut task::Context<'_>,
        mut refused: M,
        message: &mut Option<M>,
        room: &mut Option<BoxFuture<'static, ()>>,
    ) -> Poll<Result<(), PostError<M>>>
    where
        A: Handler<M>,
    {
        loop {
            let error = match self.post_otherwise(cx, refused) {
                Err(error) if error.0.capacity.is_some() => error,
                result => return Poll::Ready(result),
            };
            let unposted = *error.0;
            refused = unposted.message.into_inner();
            let Some(capacity) = unposted.capacity else {
                continue;
            };
            let mut made: BoxFuture<'static, ()> =
                Box::pin(async move { capacity.available().await });
            if made.as_mut().poll(task).is_pending() {
                *message = Some(refused);
                *room = Some(made);
                return Poll::Pending;
            }
        }
    }

    /// As [`feed`](Self::feed), with the result as the outcome that the other ways of sending have.
    ///
    /// # Cancel safety
    /// As [`feed`](Self::feed).
    pub async fn send<M: Send + 'static>(&self, cx: &(impl Outbox + ?Sized), message: M) -> Outcome
    where
        A: Handler<M>,
    {
        match self.feed(cx, message).await {
            Ok(()) => Outcome::Delivered,
            Err(error) => Outcome::NotDelivered(Box::new(error.0.reason)),
        }
    }

    fn error<M>(&self, message: M, kind: Kind) -> PostError<M> {
        let actor_id = self.actor_id().clone();
        let (reason, capacity) = match kind {
            Kind::Full(class) => (
                self.cell.full(PortId::new(actor_id, 0)),
                self.cell.capacity_of(class),
            ),
            Kind::Stopped => (NotDelivered::ActorStopped { actor_id }, None),
        };
        PostError(Box::new(Unposted {
            message: Mutex::new(message),
            reason,
            capacity,
        }))
    }

    /// Opens the ports of the exported messages, and gives a reference that can be sent anywhere.
    pub fn bind(&self) -> ActorRef<A>
    where
        A: Exports,
    {
        Ports::bind_all(&self.cell);
        ActorRef::attest(self.actor_id().clone())
    }

    /// Asks the actor to stop: ahead of everything in its queue, after the message in hand. What waits in the queue
    /// is not handled; its senders are told.
    pub fn stop(&self) {
        self.cell.control.end(End::Stop);
    }

    /// Asks the actor to handle what is in its queue, to take nothing more, and then to stop.
    pub fn drain(&self) {
        self.cell.control.end(End::Drain);
    }

    /// Ends the actor where it awaits next, without cleanup. An actor that blocks its thread goes on until it awaits.
    pub fn abort(&self) {
        self.cell.control.end(End::Abort);
    }

    /// As [`stop`](Self::stop), and aborts the actor if it has not ended within `deadline`. Gives its exit, or nothing if it
    /// blocks its thread and has not ended within [`limits::ABORT_GRACE`](crate::limits::ABORT_GRACE) either.
    ///
    /// # Cancel safety
    /// A dropped future leaves the actor asked to stop, and does not abort it.
    pub async fn stop_within(&self, deadline: Duration) -> Option<ActorExit> {
        self.cell.control.end_within(End::Stop, deadline).await
    }

    /// As [`drain`](Self::drain), and aborts the actor if it has not ended within `deadline`; see
    /// [`stop_within`](Self::stop_within).
    ///
    /// # Cancel safety
    /// As [`stop_within`](Self::stop_within).
    pub async fn drain_within(&self, deadline: Duration) -> Option<ActorExit> {
        self.cell.control.end_within(End::Drain, deadline).await
    }

    /// What the actor is doing, to look at or to wait for.
    pub fn status(&self) -> watch::Receiver<ActorStatus> {
        self.cell.control.status()
    }

    /// Waits until the actor has ended. Its name is free again then, and its children have ended.
    ///
    /// # Cancel safety
    /// Cancel safe; it only watches.
    pub async fn join(&self) -> ActorExit {
        exit_of(self.status()).await
    }

    /// How many messages wait in the actor's queue.
    pub fn queued(&self) -> usize {
        self.cell.inbox.len()
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Full(Class),
    Stopped,
}

impl<A: Actor> Clone for ActorHandle<A> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.cell))
    }
}

impl<A: Actor> fmt::Debug for ActorHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorHandle({})", self.actor_id())
    }
}

/// A message that a handle did not take, with the reason.
// In a box, or a result without error would be copied from future to future as large as one with it.
pub struct PostError<M>(Box<Unposted<M>>);

struct Unposted<M> {
    // Only so that the error can be shared and passed up by `?` whether the message is `Sync` or not.
    message: Mutex<M>,
    reason: NotDelivered,
    capacity: Option<Capacity>,
}

impl<M> PostError<M> {
    /// The message.
    pub fn into_message(self) -> M {
        self.0.message.into_inner()
    }

    /// Why it was not taken.
    pub fn reason(&self) -> &NotDelivered {
        &self.0.reason
    }

    /// Whether only the lack of room is in the way.
    pub fn is_full(&self) -> bool {
        matches!(self.0.reason, NotDelivered::QueueFull { .. })
    }

    /// What to wait for, if the queue was full and takes messages from those that wait.
    pub fn capacity(&self) -> Option<&Capacity> {
        self.0.capacity.as_ref()
    }

    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        self.0.reason.code()
    }

    /// Whether the same message may well be taken a little later.
    pub fn is_retryable(&self) -> bool {
        self.0.reason.is_retryable()
    }
}

impl<M> fmt::Display for PostError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.reason.fmt(f)
    }
}

impl<M> fmt::Debug for PostError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostError")
            .field("reason", &self.0.reason)
            .finish_non_exhaustive()
    }
}

impl<M> std::error::Error for PostError<M> {}
