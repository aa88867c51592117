//! What an actor's task, its handles and its context share, and the ports through which exported messages reach the
//! actor's queue.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyperactor_mailbox::{
    Asked, BoxFuture, BriefMutex, Capacity, Class, Dropped, Failure, Lease, Mailbox, Message,
    MessageEnvelope, Never, NotDelivered, Notice, Payload, PayloadError, PortSink, Refusal,
    ReturnHandle, ReturnSink, Room, Token, Undeliverable, decode_with_duties,
};
use hyperactor_refs::{ActorId, PortId};
use parking_lot::Mutex;

use crate::control::{AnyCell, Control};
use crate::inbox::{Inbox, Refused};
use crate::proc::WeakProc;
use crate::runs::{Meta, Origin, Remote, Source, Unhandled, envelop};
use crate::waits::{AskHeader, RemoteReply};
use crate::{Actor, Exports, Receives, TraceContext};

/// One actor, seen by everybody but its own state.
///
/// In this order in memory: first what senders read, then the queue that they write to, and what the actor's task writes at
/// the end.
#[repr(C)]
pub(crate) struct Cell<A: Actor> {
    /// The messages that go before others, by type.
    pub(crate) control_types: Box<[TypeId]>,
    pub(crate) mailbox: Mailbox,
    pub(crate) proc: WeakProc,
    /// Whether every exported message has its port.
    pub(crate) is_exported: AtomicBool,
    pub(crate) inbox: Inbox<A>,
    /// The request that the actor is handling, if its message is one.
    pub(crate) in_hand: BriefMutex<Option<Arc<dyn Asked>>>,
    pub(crate) control: Control,
}

impl<A: Actor> ReturnSink for Cell<A> {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        self.control.returned(report);
    }

    fn abandoned(&self, _: Token) {
        tracing::warn!(actor = %self.actor_id(), "a message was dropped on its way without a verdict");
    }

    fn lost(&self, _: Token, failure: Failure) {
        tracing::warn!(actor = %self.actor_id(), failure = %failure, "a message was lost");
    }
}

impl<A: Actor> AnyCell for Cell<A> {
    fn control(&self) -> &Control {
        &self.control
    }

    fn actor_type(&self) -> &'static str {
        std::any::type_name::<A>()
    }

    fn queued(&self) -> usize {
        self.inbox.len()
    }

    fn by_reference(&self) -> u64 {
        self.inbox.by_reference()
    }
}

impl<A: Actor> Cell<A> {
    pub(crate) fn actor_id(&self) -> &ActorId {
        self.control.actor_id()
    }

    pub(crate) fn set_in_hand(&self, request: Arc<dyn Asked>) {
        // The old one may be the last to hold a reply, and is dropped without the lock.
        let before = self.in_hand.lock().replace(request);
        drop(before);
    }

    pub(crate) fn take_in_hand(&self) -> Option<Arc<dyn Asked>> {
        self.in_hand.lock().take()
    }

    /// Tells whoever waits for a reply to the message whose handler failed, panicked or was aborted.
    pub(crate) fn tell_in_hand(&self, cause: &Never) {
        if let Some(asked) = self.take_in_hand() {
            asked.never(cause.clone());
        }
    }

    /// The actors that would wait for each other if this one were asked: each for the next, the last one for the first.
    ///
    /// this one has a place in the chain only while it waits, at that very port, for the reply that all the others hang
    /// on: a wait that was given up since is none.
    pub(crate) fn circle(&self, request: &Arc<dyn Asked>) -> Option<Vec<ActorId>> {
        if !request.is_behind(self.actor_id()) {
            return None;
        }
        let chain = Arc::clone(request).chain();
        let first = chain.iter().position(|link| {
            link.actor_id == *self.actor_id() && self.mailbox.awaits(link.reply_port)
        })?;
        let circle = chain.into_iter().skip(first);
        Some(circle.map(|link| link.actor_id).collect())
    }

    pub(crate) fn shares_proc(&self, other: &ActorId) -> bool {
        self.actor_id().shares_proc(other)
    }

    /// Whether every exported message has its port.
    #[inline]
    pub(crate) fn is_exported(&self) -> bool {
        self.is_exported.load(Ordering::Acquire)
    }

    pub(crate) fn stopped(&self) -> NotDelivered {
        NotDelivered::ActorStopped {
            actor_id: self.actor_id().clone(),
        }
    }

    /// Whether messages of a type go before others.
    pub(crate) fn class_of<M: 'static>(&self) -> Class {
        // Of a few types the comparison of all is the quickest look-up.
        match !self.control_types.is_empty() && self.control_types.contains(&TypeId::of::<M>()) {
            true => Class::Control,
            false => Class::User,
        }
    }

    /// What to wait for when the queue is full.
    pub(crate) fn capacity(self: &Arc<Self>) -> Capacity {
        self.room(Class::User)
    }

    /// What to wait for when a message of this class was refused; `None` if there is no use in waiting.
    pub(crate) fn capacity_of(self: &Arc<Self>, class: Class) -> Option<Capacity> {
        self.inbox.waits(class).then(|| self.room(class))
    }

    fn room(self: &Arc<Self>, class: Class) -> Capacity {
        Capacity::new(Arc::new(QueueRoom(Arc::clone(self), class)))
    }

    pub(crate) fn full(&self, port_id: PortId) -> NotDelivered {
        NotDelivered::QueueFull {
            port_id,
            capacity: self.inbox.max_local() as u64,
        }
    }

    pub(crate) fn shed(&self, dropped: Dropped) -> NotDelivered {
        NotDelivered::Shed {
            actor_id: self.actor_id().clone(),
            capacity: self.inbox.max_local() as u64,
            dropped,
        }
    }

    /// Why the queue did not take a message for a port.
    pub(crate) fn reason_of(&self, why: Refusal, port_id: PortId) -> NotDelivered {
        match why {
            Refusal::Full => self.full(port_id),
            Refusal::Shed => self.shed(Dropped::Newest),
            Refusal::Closed => self.stopped(),
        }
    }

    /// The report of a message that the queue did not take.
    pub(crate) fn report_of(
        self: &Arc<Self>,
        why: Refusal,
        envelope: MessageEnvelope,
        class: Class,
    ) -> Undeliverable {
        let reason = self.reason_of(why, envelope.dest().clone());
        let mut report = Undeliverable::new(envelope, reason);
        if why == Refusal::Full {
            report.capacity = self.capacity_of(class);
        }
        report
    }

    /// Tells the sender of a message that made room for a newer one.
    pub(crate) fn displaced(&self, message: Unhandled) {
        let reason = self.shed(Dropped::Oldest);
        let never = Never::Shed {
            reason: reason.to_string(),
        };
        give_up(self, message, reason, &never);
    }
}

/// The room for messages of one class in an actor's queue.
struct QueueRoom<A: Actor>(Arc<Cell<A>>, Class);

impl<A: Actor> Room for QueueRoom<A> {
    fn has_room(&self) -> bool {
        self.0.inbox.has_room(self.1)
    }

    fn available(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.inbox.available(self.1))
    }
}

/// The ports of an actor while its exports are bound.
pub struct Ports<A: Actor> {
    cell: Arc<Cell<A>>,
    is_complete: bool,
}

impl<A: Exports> Ports<A> {
    /// Opens the port of every message that the actor exports. Doing it again changes nothing.
    pub(crate) fn bind_all(cell: &Arc<Cell<A>>) {
        let mut ports = Self {
            cell: Arc::clone(cell),
            is_complete: true,
        };
        A::bind(&mut ports);
        cell.is_exported.store(ports.is_complete, Ordering::Release);
    }
}

impl<A: Actor> Ports<A> {
    /// Opens the port at which the actor receives `M` from everywhere.
    ///
    /// An ended actor has no ports: messages for it come back as
    /// [`ActorStopped`](NotDelivered::ActorStopped), whether they were opened or not.
    pub fn export<M: Message>(&mut self)
    where
        A: Receives<M>,
    {
        use hyperactor_mailbox::BindError;

        let sink = Arc::new(ExportedPort::<A, M> {
            cell: Arc::clone(&self.cell),
            source: Mutex::default(),
            message: PhantomData,
        });
        match self.cell.mailbox.bind_sink(M::port(), sink) {
            Ok(()) | Err(BindError::PortTaken { .. } | BindError::Closed { .. }) => {}
            Err(error) => {
                self.is_complete = false;
                // Messages for it come back as an unknown port; here stands why.
                tracing::error!(
                    actor = %self.cell.actor_id(),
                    message = %M::type_name(),
                    "an exported message has no port: {error}"
                );
            }
        }
    }
}

/// The port of one exported message: what arrives there goes into the actor's queue.
struct ExportedPort<A: Actor, M> {
    // The mailbox that owns this port is closed when the actor ends, which ends the cycle through the cell.
    cell: Arc<Cell<A>>,
    /// Where the last message from another process came from: as a rule the next one comes from there, too.
    source: Mutex<Option<Arc<Source>>>,
    message: PhantomData<fn(M)>,
}

/// Delivers as the port of `M` does, without looking for it: it need not be open.
pub(crate) fn deliver<A: Receives<M>, M: Message>(
    cell: &Arc<Cell<A>>,
    envelope: MessageEnvelope,
    return_handle: ReturnHandle,
) {
    let port = ExportedPort::<A, M> {
        cell: Arc::clone(cell),
        source: Mutex::default(),
        message: PhantomData,
    };
    port.deliver(envelope, return_handle);
}

impl<A: Receives<M>, M: Message> ExportedPort<A, M> {
    /// What lies beside a message of this sender, if it came by a session from another process.
    fn remote(&self, sender: &ActorId, return_handle: &ReturnHandle) -> Option<Remote> {
        let mut recent = self.source.lock();
        if let Some(source) = &*recent
            && let Some(size) = return_handle.lease_in(&source.leases)
            && source.sender == *sender
        {
            return Some(Remote::new(Arc::clone(source), size));
        }
        let leases = return_handle.lease_group()?;
        let size = return_handle.lease_in(&leases)?;
        let source = Arc::new(Source {
            sender: sender.clone(),
            leases,
        });
        let former = recent.replace(Arc::clone(&source));
        drop(recent);
        // It may be the last to know its session, which is nothing to end under a lock.
        drop(former);
        Some(Remote::new(source, size))
    }
}

impl<A: Receives<M>, M: Message> PortSink for ExportedPort<A, M> {
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let cell = &self.cell;
        let (head, payload) = envelope.into_parts();
        let header = AskHeader::read(head.headers());
        let reply_port = header.as_ref().map(|header| header.reply_port);
        let asked = match header {
            Some(header) => Some(RemoteReply::to_request(
                &cell.mailbox,
                &cell.proc,
                head.sender(),
                header,
            )),
            None => return_handle.asked(),
        };
        if let Some(chain) = asked.as_ref().and_then(|asked| cell.circle(asked)) {
            let envelope = head.with_payload(payload);
            return return_handle.undeliverable(envelope, NotDelivered::Deadlock { chain });
        }
        let (message, replies) = decode_with_duties(|| payload.into_message::<M>());
        let message = match message {
            Ok(message) => message,
            Err((payload, error)) => {
                let reason = refusal(head.dest(), error);
                return return_handle.undeliverable(head.with_payload(payload), reason);
            }
        };
        for reply in replies {
            let port_id = reply.port_id();
            let is_awaited =
                Some(port_id.index()) == reply_port && port_id.actor_id() == head.sender();
            // A request may carry further ports; its own is where its sender waits.
            match &asked {
                Some(asked) if is_awaited => reply.owed_to(Arc::clone(asked)),
                _ => {
                    let port = RemoteReply::to_port(&cell.mailbox, &cell.proc, port_id.clone());
                    reply.owed_to(port);
                }
            }
        }
        let trace = TraceContext::read(head.headers());
        let remote = match (&asked, &trace) {
            (None, None) => self.remote(head.sender(), &return_handle),
            _ => None,
        };
        let lease = match &remote {
            Some(_) => Lease::none(),
            None => return_handle.lease(),
        };
        let meta = if let Some(remote) = remote {
            Meta::Remote(remote)
        } else if lease.is_local() && asked.is_none() && cell.shares_proc(head.sender()) {
            let sender_hash = head.sender().precomputed_hash();
            Meta::reference(sender_hash, trace)
        } else {
            let sender = head.sender().clone();
            let origin = match lease.is_local() {
                true => Origin::Envelope { sender, asked },
                false => Origin::Remote { sender, asked },
            };
            Meta::full(origin, lease, trace)
        };
        let class = cell.class_of::<M>();
        let refused = match cell.inbox.push(class, message, meta, Some(envelop::<M>)) {
            Ok(displaced) => {
                return_handle.placed();
                if let Some(oldest) = displaced {
                    cell.displaced(*oldest);
                }
                return;
            }
            Err(refused) => refused,
        };
        let Refused { why, message, meta } = refused;
        meta.forget_lease();
        let envelope = head.with_payload(Payload::typed(message));
        return_handle.report(cell.report_of(why, envelope, class));
    }
}

/// Tells the sender of a message that was in the queue when the actor ended. Whoever waits for a reply is told `cause`
/// instead.
pub(crate) fn unhandled<A: Actor>(cell: &Cell<A>, message: Unhandled, cause: &Never) {
    give_up(cell, message, cell.stopped(), cause);
}

/// Gives a message back that was in the queue and is not going to be handled.
///
/// Its outcome was `Delivered`, and that was true: it was placed. This is a report beside the outcome.
fn give_up<A: Actor>(cell: &Cell<A>, message: Unhandled, reason: NotDelivered, never: &Never) {
    let proc = cell.proc.upgrade().ok();
    let teller = proc
        .as_ref()
        .and_then(|proc| proc.sender_of_unhandled(&message.origin));
    if let Some(asked) = message.origin.asked() {
        return asked.never(never.clone());
    }
    if let Some((sender, sink)) = teller {
        let envelope = message.into_envelope(sender, cell.actor_id());
        return sink.undelivered(Token::default(), Undeliverable::new(envelope, reason));
    }
    match (&message.origin, proc) {
        (Origin::Remote { sender, .. } | Origin::Envelope { sender, .. }, Some(proc))
            if **sender.proc() != *proc.proc_id() =>
        {
            let sender = sender.clone();
            let envelope = message.into_envelope(sender.clone(), cell.actor_id());
            let notice = Notice::returned(&envelope, reason);
            let envelope = notice.envelope(cell.actor_id().clone(), &sender);
            cell.proc.post(envelope, Notice::return_handle());
        }
        (origin, _) => {
            tracing::debug!(
                actor = %cell.actor_id(),
                "a queued message {origin} was not handled, and its sender has ended: {reason}",
            );
        }
    }
}

/// Why a payload is not what a port takes, as its sender is told.
pub(crate) fn refusal(port_id: &PortId, error: PayloadError) -> NotDelivered {
    match error {
        PayloadError::TypeMismatch { expected, found } => NotDelivered::TypeMismatch {
            port_id: port_id.clone(),
            expected,
            found,
        },
        other => NotDelivered::Decode {
            error: other.to_string(),
        },
    }
}
