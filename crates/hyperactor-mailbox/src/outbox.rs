//! Who sends: the [`Outbox`] trait, and the three ways to send through one. References to ports use them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyperactor_refs::{ActorId, PortId, ProcId};

use crate::asked::InHand;
use crate::capacity::Capacity;
use crate::envelope::MessageEnvelope;
use crate::failure::{Failure, NotDelivered, Outcome};
use crate::feeding;
use crate::headers::Headers;
use crate::known::KnownMailbox;
use crate::mailbox::Mailbox;
use crate::message::Message;
use crate::sender::BoxFuture;
use crate::settle::ReturnHandle;
use crate::settle_oneshot::SendFailure;
use crate::undeliverable::Undeliverable;

/// Somebody who sends messages under an id of their own: an actor while it handles a message, or a client of a proc.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot send messages",
    label = "sends nothing",
    note = "pass whoever sends: the `cx: &Context<Self>` of a handler, or a client, `&proc.client(\"name\")?`"
)]
pub trait Outbox: Send + Sync {
    /// Who sends.
    fn actor_id(&self) -> &ActorId;

    /// A handle that reports to the sender what became of one post.
    fn return_handle(&self) -> ReturnHandle;

    /// Posts on the sender's behalf.
    fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle);

    /// The sender's own mailbox, in which ports for replies are opened.
    fn mailbox(&self) -> &Mailbox;

    /// Adds what the sender's messages carry beside their content: by default nothing, for an actor or a client the trace that
    /// it is part of. What is posted through [`post`](Self::post) is stamped there.
    fn stamp(&self, headers: &mut Headers) {
        let _ = headers;
    }

    /// Whether [`stamp`](Self::stamp) has anything to add now, for those who make no headers for nothing.
    fn is_stamping(&self) -> bool {
        true
    }

    /// What the sender has in hand while it waits for a reply; an actor's context tells the request that it handles.
    fn in_hand(&self) -> InHand {
        InHand::Free
    }

    /// An outbox of its own that sends under the same id, for a task or a value that outlives this borrow. It is never
    /// [busy](InHand::Busy).
    fn delegate(&self) -> Option<Arc<dyn Outbox>> {
        None
    }

    /// The mailbox of an actor in the sender's own proc, for whoever posts to it again and again and remembers it.
    fn resolve(&self, actor_id: &ActorId) -> Option<Mailbox> {
        let _ = actor_id;
        None
    }

    /// As [`post`](Self::post), into a mailbox that was [resolved](Self::resolve) before.
    fn post_into(&self, mailbox: &Mailbox, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let _ = mailbox;
        self.post(envelope, return_handle);
    }

    /// The counter of messages that are placed within the sender's proc without being [posted](Self::post), if such may be.
    fn placed(&self) -> Option<&AtomicU64> {
        None
    }

    /// Whether the sender's mailbox stays open for as long as somebody borrows the sender.
    fn outlives_borrows(&self) -> bool {
        false
    }

    /// Watches a proc, if the sender can: resolves when it is known to be lost, with how in words.
    fn proc_lost(&self, proc_id: &Arc<ProcId>) -> Option<BoxFuture<'static, String>> {
        let _ = proc_id;
        None
    }
}

/// Posts a message. What becomes of it, the sender's return handle learns.
pub fn post<M: Message>(cx: &(impl Outbox + ?Sized), dest: &PortId, message: M) {
    let envelope = MessageEnvelope::typed(cx.actor_id().clone(), dest.clone(), message);
    cx.post(envelope, cx.return_handle());
}

/// As [`post`], by a reference that remembers where its port is.
pub fn post_by<M: Message>(
    cx: &(impl Outbox + ?Sized),
    known: &KnownMailbox,
    dest: PortId,
    message: M,
) {
    let mailbox = known.mailbox(cx, dest.actor_id());
    let envelope = MessageEnvelope::typed(cx.actor_id().clone(), dest, message);
    match mailbox {
        Some(mailbox) => cx.post_into(&mailbox, envelope, cx.return_handle()),
        None => cx.post(envelope, cx.return_handle()),
    }
}

/// Sends a message: waits for room if a queue of this process is full, and then for the outcome.
///
/// # Cancel safety
/// A dropped future leaves open whether the message was sent; nobody is told its outcome.
pub async fn send<M: Message>(cx: &(impl Outbox + ?Sized), dest: &PortId, message: M) -> Outcome {
    let mut envelope = MessageEnvelope::typed(cx.actor_id().clone(), dest.clone(), message);
    let ttl = envelope.ttl();
    loop {
        let (return_handle, outcome) = ReturnHandle::oneshot();
        cx.post(envelope, return_handle);
        match outcome.await {
            Ok(()) => return Outcome::Delivered,
            Err(SendFailure::Returned(report)) if full(&report).is_some() => {
                let report = *report;
                if let Some(capacity) = report.capacity {
                    capacity.available().await;
                }
                envelope = report.envelope;
                // The steps of the attempt that failed are not counted.
                envelope.set_ttl(ttl);
            }
            Err(failure) => return failure.into(),
        }
    }
}

/// Posts a message as soon as there is room, and does not wait for its outcome: that goes to the sender's return handle.
///
/// # Cancel safety
/// A future dropped while it waits for room gives the message back through the return handle, as
/// [`NotDelivered::QueueFull`].
pub async fn feed<M: Message>(cx: &(impl Outbox + ?Sized), dest: &PortId, message: M) {
    if let Some(unfed) = begin_feed(cx, dest, message) {
        unfed.feed(cx).await;
    }
}

/// As [`feed`], as far as it goes without waiting; the message, if there was no room for it.
#[must_use = "a message that waits for room goes back when it is dropped"]
pub fn begin_feed<M: Message>(
    cx: &(impl Outbox + ?Sized),
    dest: &PortId,
    message: M,
) -> Option<Unfed> {
    let envelope = MessageEnvelope::typed(cx.actor_id().clone(), dest.clone(), message);
    let ttl = envelope.ttl();
    Unfed::post(cx, envelope, cx.return_handle(), ttl)
}

/// What to wait for, if a report says that a queue of this process was full.
pub(crate) fn full(report: &Undeliverable) -> Option<&Capacity> {
    match report.failure {
        Failure::NotDelivered(NotDelivered::QueueFull { .. }) => report.capacity.as_ref(),
        _ => None,
    }
}

/// A message that waits for room. Dropped with it, as when the future is dropped, it is given back.
pub struct Unfed {
    returned: Option<(ReturnHandle, Box<Undeliverable>)>,
    /// That of the message before it was posted: the steps of an attempt that failed are not counted.
    ttl: u8,
}

impl Unfed {
    fn post(
        cx: &(impl Outbox + ?Sized),
        envelope: MessageEnvelope,
        return_handle: ReturnHandle,
        ttl: u8,
    ) -> Option<Self> {
        let returned = feeding::post(return_handle, |handle| cx.post(envelope, handle))?;
        Some(Self {
            returned: Some(returned),
            ttl,
        })
    }

    /// Posts the message as soon as there is room.
    ///
    /// # Cancel safety
    /// As [`feed`].
    pub async fn feed(self, cx: &(impl Outbox + ?Sized)) {
        let mut waiting = self;
        loop {
            if let Some(capacity) = waiting.capacity().cloned() {
                capacity.available().await;
            }
            let Some((return_handle, report)) = waiting.returned.take() else {
                return;
            };
            let mut envelope = report.envelope;
            envelope.set_ttl(waiting.ttl);
            match Self::post(cx, envelope, return_handle, waiting.ttl) {
                Some(returned) => waiting = returned,
                None => return,
            }
        }
    }

    fn capacity(&self) -> Option<&Capacity> {
        let (_, report) = self.returned.as_ref()?;
        full(report)
    }
}

impl Drop for Unfed {
    fn drop(&mut self) {
        if let Some((handle, report)) = self.returned.take() {
            handle.report(*report);
        }
    }
}
