//! Ports for exactly one message, as for a reply.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use hyperactor_refs::PortId;
use parking_lot::Mutex;

use crate::envelope::MessageEnvelope;
use crate::failure::NotDelivered;
use crate::mailbox::{self, Inner, PortSink};
use crate::message::Message;
use crate::payload::Payload;
use crate::port;
use crate::port_ref::OncePortRef;
use crate::settle::ReturnHandle;

/// Opens a port under `port_id`.
pub(crate) fn open<M: Send + 'static>(
    mailbox: Weak<Inner>,
    port_id: PortId,
) -> (OncePortHandle<M>, OncePortReceiver<M>) {
    let shared = Arc::new(Shared {
        port_id,
        mailbox,
        state: Mutex::new(State::Waiting(None)),
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
    state: Mutex<State<M>>,
}

enum State<M> {
    Waiting(Option<Waker>),
    Full(M),
    Closed,
}

impl<M: Send + 'static> Shared<M> {
    /// Takes the message, if it is the first and somebody may still receive it.
    fn fill(&self, message: M) -> Result<(), M> {
        let waker = {
            let mut state = self.state.lock();
            let State::Waiting(waker) = &mut *state else {
                return Err(message);
            };
            let waker = waker.take();
            *state = State::Full(message);
            waker
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Nothing will come any more; what came can still be received.
    fn seal(&self) {
        let waker = {
            let mut state = self.state.lock();
            match &mut *state {
                State::Waiting(waker) => {
                    let waker = waker.take();
                    *state = State::Closed;
                    waker
                }
                State::Full(_) | State::Closed => None,
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Result<M, PortClosed>> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            State::Closed => {
                return Poll::Ready(Err(PortClosed {
                    port_id: self.port_id.clone(),
                }));
            }
            State::Full(_) => {}
        }
        match std::mem::replace(&mut *state, State::Closed) {
            State::Full(message) => Poll::Ready(Ok(message)),
            _ => Poll::Ready(Err(PortClosed {
                port_id: self.port_id.clone(),
            })),
        }
    }

    fn unbind(&self) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            drop(mailbox.unbind(self.port_id.index()));
        }
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
        self.seal();
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
        if matches!(*shared.state.lock(), State::Closed) {
            // The receiver was dropped meanwhile, perhaps before the port was bound.
            shared.unbind();
        }
        OncePortRef::attest(port_id)
    }
}

impl<M: Send + 'static> Drop for OncePortHandle<M> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.seal();
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

    /// Waits for the message.
    ///
    /// # Errors
    /// [`PortClosed`] when it will not come: the handle was dropped, or the mailbox closed; also after the message.
    ///
    /// # Cancel safety
    /// Cancel safe: the message is taken only in the moment it is returned.
    pub async fn recv(&mut self) -> Result<M, PortClosed> {
        poll_fn(|cx| self.shared.poll_recv(cx)).await
    }
}

impl<M: Send + 'static> Drop for OncePortReceiver<M> {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *self.shared.state.lock(), State::Closed);
        drop(before);
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
#[error("port `{port_id}` was closed before its message came")]
pub struct PortClosed {
    /// The port.
    pub port_id: PortId,
}
