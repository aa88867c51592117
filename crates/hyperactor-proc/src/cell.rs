//! What an actor's task, its handles and its context share, and the ports through which exported messages reach the
//! actor's queue.

use std::any::{Any, TypeId};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use hyperactor_mailbox::{
    Asked, Class, Dropped, EnvelopeHead, Mailbox, Message, MessageEnvelope, Never, NotDelivered,
    Notice, Payload, PayloadError, PortSink, PushError, Queue, ReturnHandle, Token, Undeliverable,
    decode_with_duties,
};
use hyperactor_refs::{ActorId, PortId};
use parking_lot::Mutex;

use crate::control::Control;
use crate::job::{Job, Origin};
use crate::proc::WeakProc;
use crate::waits::{AskHeader, RemoteReply};
use crate::{Actor, Exports, Receives, TraceContext};

/// One actor, seen by everybody but its own state.
pub(crate) struct Cell<A: Actor> {
    pub(crate) queue: Queue<Job<A>>,
    /// The messages that go before others, by type.
    pub(crate) control_types: Box<[TypeId]>,
    pub(crate) control: Arc<Control>,
    pub(crate) mailbox: Mailbox,
    pub(crate) proc: WeakProc,
    /// The request that the actor is handling, if its message is one.
    pub(crate) in_hand: Mutex<Option<Arc<dyn Asked>>>,
    /// How many tasks run on the actor's behalf.
    pub(crate) tasks: Arc<AtomicUsize>,
}

impl<A: Actor> Cell<A> {
    pub(crate) fn actor_id(&self) -> &ActorId {
        self.control.actor_id()
    }

    pub(crate) fn set_in_hand(&self, request: Option<Arc<dyn Asked>>) {
        // The old one may be the last to hold a reply, and is dropped without the lock.
        let before = std::mem::replace(&mut *self.in_hand.lock(), request);
        drop(before);
    }

    /// The actors that would wait for each other if this one were asked: each for the next, the last one for the first.
    ///
    /// this one has a place in the chain only while it waits, at that very port, for the reply that all the others hang
    /// on: a wait that was given up since is none.
    fn circle(&self, request: &Arc<dyn Asked>) -> Option<Vec<ActorId>> {
        let chain = request.chain();
        let first = chain.iter().position(|link| {
            link.actor_id == *self.actor_id() && self.mailbox.awaits(link.reply_port)
        })?;
        let circle = chain.into_iter().skip(first);
        Some(circle.map(|link| link.actor_id).collect())
    }

    fn stopped(&self) -> NotDelivered {
        NotDelivered::ActorStopped {
            actor_id: self.actor_id().clone(),
        }
    }

    /// Whether messages of a type go before others.
    pub(crate) fn class_of<M: 'static>(&self) -> Class {
        // Of a few types the comparison of all is the quickest look-up, and of none it costs nothing.
        match self.control_types.contains(&TypeId::of::<M>()) {
            true => Class::Control,
            false => Class::User,
        }
    }

    pub(crate) fn full(&self, port_id: PortId) -> NotDelivered {
        NotDelivered::QueueFull {
            port_id,
            capacity: self.queue.max_local() as u64,
        }
    }

    pub(crate) fn shed(&self, dropped: Dropped) -> NotDelivered {
        NotDelivered::Shed {
            actor_id: self.actor_id().clone(),
            capacity: self.queue.max_local() as u64,
            dropped,
        }
    }

    /// Tells the sender of a message that made room for a newer one.
    pub(crate) fn displaced(&self, job: Job<A>) {
        let reason = self.shed(Dropped::Oldest);
        let never = Never::Shed {
            reason: reason.to_string(),
        };
        give_up(self, job, reason, &never);
    }
}

/// The ports of an actor while its exports are bound.
pub struct Ports<A: Actor> {
    cell: Arc<Cell<A>>,
}

impl<A: Exports> Ports<A> {
    /// Opens the port of every message that the actor exports. Doing it again changes nothing.
    pub(crate) fn bind_all(cell: &Arc<Cell<A>>) {
        A::bind(&mut Self {
            cell: Arc::clone(cell),
        });
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
            message: PhantomData,
        });
        match self.cell.mailbox.bind_sink(M::port(), sink) {
            Ok(()) | Err(BindError::PortTaken { .. } | BindError::Closed { .. }) => {}
            Err(error) => {
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
        message: PhantomData,
    };
    port.deliver(envelope, return_handle);
}

impl<A: Receives<M>, M: Message> PortSink for ExportedPort<A, M> {
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let cell = &*self.cell;
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
        let (message, replies) = decode_with_duties(|| boxed_message::<M>(payload));
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
        let sender = head.sender().clone();
        let origin = if return_handle.is_leased() {
            Origin::Remote { sender, asked }
        } else {
            Origin::Envelope { sender, asked }
        };
        let class = cell.class_of::<M>();
        let trace = TraceContext::read(head.headers());
        let job = Job::exported(message, origin, class).traced(trace);
        match cell.queue.place_as(class, job, return_handle) {
            Ok(None) => {}
            Ok(Some(oldest)) => cell.displaced(oldest),
            Err((PushError::Full(job), return_handle)) => {
                let reason = cell.full(head.dest().clone());
                let mut report = Undeliverable::new(give_back(job, head), reason);
                report.capacity = cell.queue.capacity_of(class);
                return_handle.report(report);
            }
            Err((PushError::Shed(job), return_handle)) => {
                let reason = cell.shed(Dropped::Newest);
                return_handle.undeliverable(give_back(job, head), reason);
            }
            Err((PushError::Closed(job), return_handle)) => {
                return_handle.undeliverable(give_back(job, head), cell.stopped());
            }
        }
    }
}

/// The envelope that a job was made of, again.
fn give_back<A: Actor>(job: Job<A>, head: EnvelopeHead) -> MessageEnvelope {
    let actor = head.dest().actor_id().clone();
    let (_, payload) = job
        .into_envelope(head.sender().clone(), &actor)
        .into_parts();
    head.with_payload(payload)
}

/// Tells the sender of a message that was in the queue when the actor ended. Whoever waits for a reply is told `cause`
/// instead.
pub(crate) fn unhandled<A: Actor>(cell: &Cell<A>, job: Job<A>, cause: &Never) {
    give_up(cell, job, cell.stopped(), cause);
}

/// Gives a message back that was in the queue and is not going to be handled.
///
/// Its outcome was `Delivered`, and that was true: it was placed. This is a report beside the outcome.
fn give_up<A: Actor>(cell: &Cell<A>, job: Job<A>, reason: NotDelivered, never: &Never) {
    let proc = cell.proc.upgrade().ok();
    let teller = proc
        .as_ref()
        .and_then(|proc| proc.sender_of_unhandled(&job.origin));
    if let Some(asked) = job.origin.asked() {
        return asked.never(never.clone());
    }
    if let Some((sender, sink)) = teller {
        let envelope = job.into_envelope(sender, cell.actor_id());
        return sink.undelivered(Token::default(), Undeliverable::new(envelope, reason));
    }
    match (&job.origin, proc) {
        (Origin::Remote { sender, .. } | Origin::Envelope { sender, .. }, Some(proc))
            if **sender.proc() != *proc.proc_id() =>
        {
            let sender = sender.clone();
            let envelope = job.into_envelope(sender.clone(), cell.actor_id());
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

/// The message of a payload. A typed one stays in the box it came in.
fn boxed_message<M: Message>(payload: Payload) -> Result<Box<M>, (Payload, PayloadError)> {
    match payload {
        Payload::Typed(message) if (&*message as &dyn Any).is::<M>() => message
            .into_any()
            .downcast::<M>()
            .map_err(|_| (Payload::typed(()), mismatch::<M>())),
        other => other.into_message().map(Box::new),
    }
}

/// Written for an arm that the type comparison before it rules out.
fn mismatch<M: Message>() -> PayloadError {
    PayloadError::TypeMismatch {
        expected: M::type_name().into_owned(),
        found: "a value that changed its type".to_owned(),
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
