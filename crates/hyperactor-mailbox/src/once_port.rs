//! Ports for exactly one message, as for a reply. References to them, as values, are in `once_ref.rs`.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use hyperactor_refs::PortId;
use parking_lot::Mutex;
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
    let state = State {
        stage: Stage::Waiting(None),
        is_taken: false,
        is_dropped: false,
        is_handed_over: false,
        is_watched: false,
        when_named: None,
    };
    let shared = Arc::new_cyclic(|me| Shared {
        port_id,
        mailbox,
        in_hand,
        state: Mutex::new(state),
        unwanted: Notify::new(),
        holders: Holders::default(),
        is_bound: AtomicBool::new(false),
        me: Weak::clone(me),
    });
    (
        OncePortHandle {
            shared: Some(Arc::clone(&shared)),
        },
        OncePortReceiver { shared },
    )
}

struct Shared<M> {
    port_id: PortId,
    mailbox: Weak<Inner>,
    in_hand: InHand,
    state: Mutex<State<M>>,
    unwanted: Notify,
    holders: Holders,
    /// Whether the mailbox has it, or is about to.
    is_bound: AtomicBool,
    me: Weak<Self>,
}

struct State<M> {
    stage: Stage<M>,
    /// A handler has the request that carries this port's reference.
    is_taken: bool,
    /// The last reference was dropped unused while a handler had the request.
    is_dropped: bool,
    /// The reference was encoded for another process.
    is_handed_over: bool,
    /// Somebody waits until the message is no longer wanted.
    is_watched: bool,
    /// Binds the port, which is put off until somebody could look for it.
    when_named: Option<fn(&Arc<Shared<M>>)>,
}

enum Stage<M> {
    Waiting(Option<Waker>),
    Full(M),
    /// Nothing will come, or it was received already.
    Closed(Option<Never>),
}

impl<M: Send + 'static> Shared<M> {
    /// Takes the message, if it is the first and somebody may still receive it.
    fn fill(&self, message: M) -> Result<(), M> {
        let (waker, is_watched) = {
            let mut state = self.state.lock();
            let Stage::Waiting(waker) = &mut state.stage else {
                return Err(message);
            };
            let waker = waker.take();
            state.stage = Stage::Full(message);
            (waker, state.is_watched)
        };
        self.tell(waker, is_watched);
        Ok(())
    }

    /// Nothing will come any more; what came can still be received.
    fn seal(&self, why: Option<Never>) {
        let (waker, is_watched) = {
            let mut state = self.state.lock();
            let Stage::Waiting(waker) = &mut state.stage else {
                return;
            };
            let waker = waker.take();
            state.stage = Stage::Closed(why);
            (waker, state.is_watched)
        };
        self.tell(waker, is_watched);
    }

    /// Wakes both ends: the receiver, and whoever watches whether the message is wanted.
    fn tell(&self, waker: Option<Waker>, is_watched: bool) {
        if let Some(waker) = waker {
            waker.wake();
        }
        if is_watched {
            self.unwanted.notify_waiters();
        }
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Result<M, PortClosed>> {
        let mut state = self.state.lock();
        if let Stage::Waiting(waker) = &mut state.stage {
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let never = match std::mem::replace(&mut state.stage, Stage::Closed(None)) {
            Stage::Full(message) => return Poll::Ready(Ok(message)),
            Stage::Waiting(_) => None,
            Stage::Closed(never) => never,
        };
        state.stage = Stage::Closed(never.clone());
        Poll::Ready(Err(PortClosed {
            port_id: self.port_id.clone(),
            never,
        }))
    }

    fn unbind(&self) {
        // Ordered with the binding: one of the two sees the other.
        if self.is_bound.load(Ordering::SeqCst)
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
        matches!(self.state.lock().stage, Stage::Waiting(_))
    }

    fn unwanted(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                let mut notified = pin!(self.unwanted.notified());
                // Registered before the look, so that an end between the look and the wait is not missed.
                notified.as_mut().enable();
                self.state.lock().is_watched = true;
                if !self.is_wanted() {
                    return;
                }
                notified.await;
            }
        })
    }

    fn dropped(&self) {
        {
            let mut state = self.state.lock();
            if state.is_taken {
                state.is_dropped = true;
                return;
            }
        }
        self.end(Never::Dropped);
    }

    fn handed_over(&self) {
        self.state.lock().is_handed_over = true;
    }

    fn taken(&self) {
        self.state.lock().is_taken = true;
    }

    fn let_go(&self) {
        {
            let mut state = self.state.lock();
            state.is_taken = false;
            if !state.is_dropped {
                return;
            }
        }
        self.end(Never::Dropped);
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

    fn named(&self) {
        let bind = self.state.lock().when_named.take();
        if let Some(bind) = bind
            && let Some(me) = self.me.upgrade()
        {
            bind(&me);
        }
    }

    fn holders(&self) -> Option<&Holders> {
        Some(&self.holders)
    }

    fn chain(&self) -> Vec<WaitLink> {
        let InHand::Busy(request) = &self.in_hand else {
            return Vec::new();
        };
        // Who finds itself in the chain looks for the port, to see whether it is waited at.
        self.named();
        // Whoever waits for a process beyond this one does not wait for those that have the request here.
        if self.state.lock().is_handed_over {
            return Vec::new();
        }
        self.links(request.as_ref())
    }
}

impl<M: Send + 'static> Shared<M> {
    /// those who wait for the owner of this port, as long as they do, and the owner.
    fn links(&self, request: Option<&Arc<dyn Asked>>) -> Vec<WaitLink> {
        let mut links = match request {
            Some(request) if request.is_wanted() => request.chain(),
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

    /// As [`bind`](Self::bind), but the mailbox does not know of the port until its id is: for a reply that is likely to come
    /// through this very reference.
    ///
    /// Until then the port does not learn that the mailbox was closed: the caller knows that it is not, for as long as it
    /// waits.
    #[must_use]
    pub fn bind_when_named(self) -> OncePortRef<M> {
        let shared = self.into_shared();
        shared.state.lock().when_named = Some(bind);
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
    shared.is_bound.store(true, Ordering::SeqCst);
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
}

impl<M: Send + 'static> OncePortReceiver<M> {
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
        poll_fn(|cx| self.shared.poll_recv(cx)).await
    }
}

impl<M: Send + 'static> Drop for OncePortReceiver<M> {
    fn drop(&mut self) {
        let (before, is_watched) = {
            let mut state = self.shared.state.lock();
            let before = std::mem::replace(&mut state.stage, Stage::Closed(None));
            (before, state.is_watched)
        };
        // What came and was not received may be the user's, and its end takes the time it takes.
        drop(before);
        self.shared.tell(None, is_watched);
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
