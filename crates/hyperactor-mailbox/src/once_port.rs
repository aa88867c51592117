//! Ports for exactly one message, as for a reply. References to them, as values, are in `once_ref.rs`.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use hyperactor_refs::PortId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::asked::{Asked, InHand, Never, WaitLink};
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
    };
    let shared = Arc::new(Shared {
        port_id,
        mailbox,
        in_hand,
        state: Mutex::new(state),
        unwanted: Notify::new(),
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
}

struct State<M> {
    stage: Stage<M>,
    /// A handler has the request that carries this port's reference.
    is_taken: bool,
    /// The last reference was dropped unused while a handler had the request.
    is_dropped: bool,
    /// The reference was encoded for another process.
    is_handed_over: bool,
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
        let waker = {
            let mut state = self.state.lock();
            let Stage::Waiting(waker) = &mut state.stage else {
                return Err(message);
            };
            let waker = waker.take();
            state.stage = Stage::Full(message);
            waker
        };
        self.tell(waker);
        Ok(())
    }

    /// Nothing will come any more; what came can still be received.
    fn seal(&self, why: Option<Never>) {
        let waker = {
            let mut state = self.state.lock();
            let Stage::Waiting(waker) = &mut state.stage else {
                return;
            };
            let waker = waker.take();
            state.stage = Stage::Closed(why);
            waker
        };
        self.tell(waker);
    }

    /// Wakes both ends: the receiver, and whoever watches whether the message is wanted.
    fn tell(&self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            waker.wake();
        }
        self.unwanted.notify_waiters();
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Result<M, PortClosed>> {
        let mut state = self.state.lock();
        let never = match std::mem::replace(&mut state.stage, Stage::Closed(None)) {
            Stage::Full(message) => return Poll::Ready(Ok(message)),
            Stage::Waiting(_) => {
                state.stage = Stage::Waiting(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            Stage::Closed(never) => never,
        };
        state.stage = Stage::Closed(never.clone());
        Poll::Ready(Err(PortClosed {
            port_id: self.port_id.clone(),
            never,
        }))
    }

    fn unbind(&self) {
        if let Some(mailbox) = self.mailbox.upgrade() {
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

    fn chain(&self) -> Vec<WaitLink> {
        let InHand::Busy(request) = &self.in_hand else {
            return Vec::new();
        };
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
    pub fn bind(mut self) -> OncePortRef<M> {
        // The only two methods that take the handle's content consume the handle, so it is there.
        let Some(shared) = self.shared.take() else {
            unreachable!("a handle is used once")
        };
        let port_id = shared.port_id.clone();
        let sink: Arc<dyn PortSink> = shared.clone();
        mailbox::bind_opened(&shared.mailbox, &port_id, &sink);
        if !shared.is_wanted() {
            // The receiver was dropped meanwhile, perhaps before the port was bound.
            shared.unbind();
        }
        OncePortRef::owed(port_id, shared)
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
        let before = {
            let mut state = self.shared.state.lock();
            std::mem::replace(&mut state.stage, Stage::Closed(None))
        };
        // What came and was not received may be the user's, and its end takes the time it takes.
        drop(before);
        self.shared.unwanted.notify_waiters();
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
