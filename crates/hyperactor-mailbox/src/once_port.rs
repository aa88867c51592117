//! Ports for exactly one message, as for a reply. References to them, as values, are in `once_ref.rs`.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use crate::lock::BriefMutex;
use hyperactor_refs::{ActorId, PortId};
use tokio::sync::Notify;

use crate::asked::{Asked, InHand, Never, WaitLink};
use crate::duty::Holders;
use crate::envelope::MessageEnvelope;
use crate::failure::NotDelivered;
use crate::mailbox::{self, Inner, PortSink};
use crate::message::Message;
use crate::once_ref::OncePortRef;
use crate::payload::Payload;
use crate::port;
use crate::sender::BoxFuture;
use crate::settle::ReturnHandle;

/// Opens a port under `port_id`; `in_hand` is what its owner handles meanwhile.
pub(crate) fn open<M: Send + 'static>(
    mailbox: Weak<Inner>,
    port_id: PortId,
    in_hand: InHand,
) -> (OncePortHandle<M>, OncePortReceiver<M>) {
    let shared = Arc::new(Shared::new(mailbox, port_id, in_hand, None));
    let handle = OncePortHandle {
        shared: Some(Arc::clone(&shared)),
    };
    (handle, OncePortReceiver::new(shared))
}

/// As [`open`], and gives the reference at once; the mailbox does not know of the port until its id is.
pub(crate) fn open_unnamed<M: Message>(
    mailbox: Weak<Inner>,
    port_id: PortId,
    in_hand: InHand,
) -> (OncePortRef<M>, OncePortReceiver<M>) {
    let mut shared = Shared::new(mailbox, port_id, in_hand, Some(bind));
    shared.holders = Holders::one();
    let shared = Arc::new(shared);
    let reply = OncePortRef::first(shared.port_id.clone(), shared.clone());
    (reply, OncePortReceiver::new(shared))
}

/// Nothing will be taken any more: the message is there, or it will not come. Set under the lock of the stage.
const ENDED: u8 = 1;
/// A handler has the request that carries this port's reference.
const TAKEN: u8 = 1 << 1;
/// The last reference was dropped unused.
const DROPPED: u8 = 1 << 2;
/// The reference was encoded for another process.
const HANDED_OVER: u8 = 1 << 3;
/// Somebody waits until the message is no longer wanted.
const WATCHED: u8 = 1 << 4;
/// The mailbox has it, or is about to.
const BOUND: u8 = 1 << 5;
/// To be bound when somebody could look for it.
const UNNAMED: u8 = 1 << 6;

struct Shared<M> {
    port_id: PortId,
    mailbox: Weak<Inner>,
    in_hand: InHand,
    /// What is known of it, bit by bit: of two that each set one and then look for the other's, one sees the other.
    known: AtomicU8,
    stage: BriefMutex<Stage<M>>,
    unwanted: Notify,
    holders: Holders,
    /// Binds the port, where that is put off.
    when_named: Option<fn(&Arc<Self>)>,
}

enum Stage<M> {
    Waiting(Option<Waker>),
    Full(M),
    /// Nothing will come, or it was received already.
    Closed(Option<Never>),
}

impl<M> Shared<M> {
    fn new(
        mailbox: Weak<Inner>,
        port_id: PortId,
        in_hand: InHand,
        when_named: Option<fn(&Arc<Self>)>,
    ) -> Self {
        Self {
            port_id,
            mailbox,
            in_hand,
            known: AtomicU8::new(if when_named.is_some() { UNNAMED } else { 0 }),
            stage: BriefMutex::new(Stage::Waiting(None)),
            unwanted: Notify::new(),
            holders: Holders::default(),
            when_named,
        }
    }

    fn knows(&self, what: u8) -> bool {
        self.known.load(Ordering::SeqCst) & what != 0
    }

    /// Sets it, and tells what was known before.
    fn learn(&self, what: u8) -> u8 {
        self.known.fetch_or(what, Ordering::SeqCst)
    }
}

impl<M: Send + 'static> Shared<M> {
    /// Takes the message, if it is the first and somebody may still receive it.
    fn fill(&self, message: M) -> Result<(), M> {
        self.advance(message, Stage::Full)
    }

    /// Nothing will come any more; what came can still be received.
    fn seal(&self, why: Option<Never>) {
        // Whoever was first has told already.
        let _: Result<(), Option<Never>> = self.advance(why, Stage::Closed);
    }

    /// From waiting on to what `next` makes, and wakes both ends: the receiver, and whoever watches whether the message is
    /// wanted. Gives back what it was to be made of where nothing is waited for.
    fn advance<T>(&self, with: T, next: impl FnOnce(T) -> Stage<M>) -> Result<(), T> {
        let mut stage = self.stage.lock();
        let Stage::Waiting(waker) = &mut *stage else {
            return Err(with);
        };
        let waker = waker.take();
        *stage = next(with);
        let before = self.learn(ENDED);
        drop(stage);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.tell_watchers(before);
        Ok(())
    }

    /// `before` is what was known when it ended.
    fn tell_watchers(&self, before: u8) {
        if before & WATCHED != 0 {
            self.unwanted.notify_waiters();
        }
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Result<M, PortClosed>> {
        let mut stage = self.stage.lock();
        if let Stage::Waiting(waker) = &mut *stage {
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let never = match std::mem::replace(&mut *stage, Stage::Closed(None)) {
            Stage::Full(message) => return Poll::Ready(Ok(message)),
            Stage::Waiting(_) => None,
            Stage::Closed(never) => never,
        };
        *stage = Stage::Closed(never.clone());
        Poll::Ready(Err(PortClosed {
            port_id: self.port_id.clone(),
            never,
        }))
    }

    fn unbind(&self) {
        // Ordered with the binding: one of the two sees the other.
        if self.knows(BOUND)
            && let Some(mailbox) = self.mailbox.upgrade()
        {
            drop(mailbox.unbind(self.port_id.index()));
        }
    }

    /// Ends the port from outside of its receiver, which is told why.
    fn end(&self, why: Never) {
        self.seal(Some(why));
        self.unbind();
    }
}

impl<M: Send + 'static> Asked for Shared<M> {
    fn is_wanted(&self) -> bool {
        !self.knows(ENDED)
    }

    fn unwanted(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                let mut notified = pin!(self.unwanted.notified());
                // Registered before the look, so that an end between the look and the wait is not missed.
                notified.as_mut().enable();
                if self.learn(WATCHED) & ENDED != 0 {
                    return;
                }
                notified.await;
            }
        })
    }

    fn dropped(&self) {
        // Ordered with `let_go`: one of the two sees the other.
        if self.learn(DROPPED) & TAKEN == 0 {
            self.end(Never::Dropped);
        }
    }

    fn handed_over(&self) {
        self.learn(HANDED_OVER);
    }

    fn taken(&self) {
        self.learn(TAKEN);
    }

    fn let_go(&self) {
        // Of an answered request, as most are, nothing more can become known.
        if !self.knows(ENDED) && self.known.fetch_and(!TAKEN, Ordering::SeqCst) & DROPPED != 0 {
            self.end(Never::Dropped);
        }
    }

    fn never(&self, why: Never) {
        self.end(why);
    }

    fn take_reply(&self, reply: &mut dyn Any) -> bool {
        let Some(reply) = reply.downcast_mut::<Option<M>>() else {
            return false;
        };
        let Some(message) = reply.take() else {
            return false;
        };
        match self.fill(message) {
            Ok(()) => self.unbind(),
            Err(message) => *reply = Some(message),
        }
        reply.is_none()
    }

    fn named(self: Arc<Self>) {
        if let Some(bind) = self.when_named
            && self.knows(UNNAMED)
            && self.known.fetch_and(!UNNAMED, Ordering::SeqCst) & UNNAMED != 0
        {
            bind(&self);
        }
    }

    fn holders(&self) -> Option<&Holders> {
        Some(&self.holders)
    }

    fn is_behind(&self, actor_id: &ActorId) -> bool {
        let InHand::Busy(request) = &self.in_hand else {
            return false;
        };
        let request = request.as_ref().filter(|request| request.is_wanted());
        self.port_id.actor_id() == actor_id
            || request.is_some_and(|request| request.is_behind(actor_id))
    }

    fn chain(self: Arc<Self>) -> Vec<WaitLink> {
        let InHand::Busy(request) = &self.in_hand else {
            return Vec::new();
        };
        // Who finds itself in the chain looks for the port, to see whether it is waited at.
        Arc::clone(&self).named();
        // Whoever waits for a process beyond this one does not wait for those that have the request here.
        if self.knows(HANDED_OVER) {
            return Vec::new();
        }
        self.links(request.as_ref())
    }
}

impl<M: Send + 'static> Shared<M> {
    /// those who wait for the owner of this port, as long as they do, and the owner.
    fn links(&self, request: Option<&Arc<dyn Asked>>) -> Vec<WaitLink> {
        let mut links = match request {
            Some(request) if request.is_wanted() => Arc::clone(request).chain(),
            _ => Vec::new(),
        };
        links.push(WaitLink {
            actor_id: self.port_id.actor_id().clone(),
            reply_port: self.port_id.index(),
        });
        links
    }
}

impl<M: Message> PortSink for Shared<M> {
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        // A message that is none does not use the port up.
        let (message, head) = match envelope.split::<M>() {
            Ok(parts) => parts,
            Err((envelope, error)) => return port::refuse(envelope, error, return_handle),
        };
        match self.fill(message) {
            Ok(()) => {
                self.unbind();
                // The one message needs no queue, so its credit goes back at once.
                drop(return_handle.delivered());
            }
            Err(message) => {
                let port_id = head.dest().clone();
                let envelope = head.with_payload(Payload::typed(message));
                return_handle.undeliverable(envelope, NotDelivered::UnknownPort { port_id });
            }
        }
    }

    fn closed(&self) {
        self.seal(None);
    }

    fn never(&self, why: Never) {
        self.end(why);
    }

    fn is_awaited(&self) -> bool {
        self.is_wanted()
    }
}

/// The right to send the one message of a port. Dropping it unused ends the port.
pub struct OncePortHandle<M: Send + 'static> {
    // Empty once it is used or bound.
    shared: Option<Arc<Shared<M>>>,
}

impl<M: Send + 'static> OncePortHandle<M> {
    /// Sends the message.
    ///
    /// # Errors
    /// The message, when the receiver is gone.
    pub fn send(mut self, message: M) -> Result<(), M> {
        match self.shared.take() {
            Some(shared) => shared.fill(message),
            None => Err(message),
        }
    }
}

impl<M: Message> OncePortHandle<M> {
    /// Turns the handle into a reference that others can send to, also from other processes.
    ///
    /// When the mailbox is closed, or has as many ports as it may, the receiver ends with [`PortClosed`] and messages
    /// to the reference come back to their senders.
    #[must_use]
    pub fn bind(self) -> OncePortRef<M> {
        let shared = self.into_shared();
        bind(&shared);
        OncePortRef::owed(shared.port_id.clone(), shared)
    }

    fn into_shared(mut self) -> Arc<Shared<M>> {
        match self.shared.take() {
            Some(shared) => shared,
            // The methods that take the handle's content consume the handle, so it is there.
            None => unreachable!("a handle is used once"),
        }
    }
}

/// Puts the port into its mailbox.
fn bind<M: Message>(shared: &Arc<Shared<M>>) {
    shared.learn(BOUND);
    let sink: Arc<dyn PortSink> = shared.clone();
    mailbox::bind_opened(&shared.mailbox, &shared.port_id, &sink);
    if !shared.is_wanted() {
        // The receiver was dropped meanwhile, perhaps before the port was bound.
        shared.unbind();
    }
}

impl<M: Send + 'static> Drop for OncePortHandle<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.seal(Some(Never::Dropped));
        }
    }
}

impl<M: Send + 'static> fmt::Debug for OncePortHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shared {
            Some(shared) => write!(f, "OncePortHandle({})", shared.port_id),
            None => f.write_str("OncePortHandle(used)"),
        }
    }
}

/// Receives the one message of a port. Dropping it ends the port.
pub struct OncePortReceiver<M: Send + 'static> {
    shared: Arc<Shared<M>>,
    /// The message was received, so there is nothing left to end.
    is_done: bool,
}

impl<M: Send + 'static> OncePortReceiver<M> {
    fn new(shared: Arc<Shared<M>>) -> Self {
        Self {
            shared,
            is_done: false,
        }
    }

    /// The port's id.
    #[must_use]
    pub fn port_id(&self) -> &PortId {
        &self.shared.port_id
    }

    /// The request that this port's reference travels with, for whoever passes it on.
    #[must_use]
    pub fn asked(&self) -> Arc<dyn Asked> {
        self.shared.clone()
    }

    /// Waits for the message.
    ///
    /// # Errors
    /// [`PortClosed`] when it will not come: the handle or the last reference was dropped unused, whoever had it has
    /// ended, or the mailbox was closed; also after the message.
    ///
    /// # Cancel safety
    /// Cancel safe: the message is taken only in the moment it is returned.
    pub async fn recv(&mut self) -> Result<M, PortClosed> {
        poll_fn(|cx| {
            let polled = self.shared.poll_recv(cx);
            self.is_done |= matches!(polled, Poll::Ready(Ok(_)));
            polled
        })
        .await
    }
}

impl<M: Send + 'static> Drop for OncePortReceiver<M> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let (stage, known) = {
            let mut stage = self.shared.stage.lock();
            let before = std::mem::replace(&mut *stage, Stage::Closed(None));
            (before, self.shared.learn(ENDED))
        };
        // What came and was not received may be the user's, and its end takes the time it takes.
        drop(stage);
        self.shared.tell_watchers(known);
        self.shared.unbind();
    }
}

impl<M: Send + 'static> fmt::Debug for OncePortReceiver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OncePortReceiver({})", self.shared.port_id)
    }
}

/// The message of a once-port will not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port `{port_id}` was closed before its message came{}", Why(never.as_ref()))]
pub struct PortClosed {
    /// The port.
    pub port_id: PortId,
    /// Why, where somebody told.
    pub never: Option<Never>,
}

struct Why<'a>(Option<&'a Never>);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(never) => write!(f, ": {never}"),
            None => Ok(()),
        }
    }
}
