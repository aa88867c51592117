//! Ports that hold one value into which every message is folded: the newest value, a merged one, or a sum.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use hyperactor_refs::PortId;
use parking_lot::Mutex;

use crate::capacity::{Capacity, Room};
use crate::mailbox::Inner;
use crate::port::{Owner, PortHandle, Take, TakeError};
use crate::queue::PushError;
use crate::sender::BoxFuture;
use crate::settle::Lease;

/// Opens a port under `port_id`.
pub(crate) fn open<M, S, F>(
    mailbox: Weak<Inner>,
    port_id: PortId,
    fold: F,
) -> (PortHandle<M>, FoldReceiver<S>)
where
    M: Send + 'static,
    S: Send + 'static,
    F: Fn(Option<S>, M) -> S + Send + Sync + 'static,
{
    let state = Arc::new(Mutex::new(State {
        value: None,
        is_closed: false,
        receiver: None,
    }));
    let owner = Owner::new(mailbox);
    let take = Arc::new(Fold {
        state: Arc::clone(&state),
        fold,
    });
    let handle = PortHandle::new(port_id.clone(), Arc::clone(&owner), take);
    let receiver = FoldReceiver {
        port_id,
        state,
        owner,
    };
    (handle, receiver)
}

struct State<S> {
    value: Option<S>,
    is_closed: bool,
    receiver: Option<Waker>,
}

struct Fold<S, F> {
    state: Arc<Mutex<State<S>>>,
    fold: F,
}

impl<M, S, F> Take<M> for Fold<S, F>
where
    M: Send + 'static,
    S: Send + 'static,
    F: Fn(Option<S>, M) -> S + Send + Sync,
{
    fn take(&self, message: M, lease: Lease) -> Result<(), (TakeError<M>, Lease)> {
        if self.put(message).is_err() {
            return Err((TakeError::Gone, lease));
        }
        // The message is no more; its credit goes back at once.
        drop(lease);
        Ok(())
    }

    fn hold(&self) -> Result<(), PushError<()>> {
        match self.is_closed() {
            true => Err(PushError::Closed(())),
            false => Ok(()),
        }
    }

    fn let_go(&self) {}

    fn fill(&self, message: M) -> bool {
        self.put(message).is_ok()
    }

    fn room(&self) -> (Capacity, u64) {
        (Capacity::new(Arc::new(AlwaysRoom)), 1)
    }

    fn close(&self) {
        close(&self.state);
    }

    fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }
}

impl<S, F> Fold<S, F> {
    fn put<M>(&self, message: M) -> Result<(), ()>
    where
        F: Fn(Option<S>, M) -> S,
    {
        let waker = {
            let mut state = self.state.lock();
            if state.is_closed {
                return Err(());
            }
            let before = state.value.take();
            state.value = Some((self.fold)(before, message));
            state.receiver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

fn close<S>(state: &Mutex<State<S>>) {
    let waker = {
        let mut state = state.lock();
        state.is_closed = true;
        state.receiver.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A value that takes everything in is never full.
struct AlwaysRoom;

impl Room for AlwaysRoom {
    fn has_room(&self) -> bool {
        true
    }

    fn available(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Receives the value of a port that folds its messages. Dropping it ends the port: later messages come back to their
/// senders.
pub struct FoldReceiver<S: Send + 'static> {
    port_id: PortId,
    state: Arc<Mutex<State<S>>>,
    owner: Arc<Owner>,
}

impl<S: Send + 'static> FoldReceiver<S> {
    /// The port's id.
    #[must_use]
    pub fn port_id(&self) -> &PortId {
        &self.port_id
    }

    /// Takes the value, or waits for the first message that makes one; `None` when the mailbox was closed and the last
    /// value is received.
    ///
    /// # Cancel safety
    /// Cancel safe: the value is taken only in the moment it is returned.
    pub async fn recv(&mut self) -> Option<S> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Option<S>> {
        let mut state = self.state.lock();
        if let Some(value) = state.value.take() {
            return Poll::Ready(Some(value));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        state.receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes the value, if there is one now.
    pub fn try_recv(&mut self) -> Option<S> {
        self.state.lock().value.take()
    }
}

impl<S: Send + 'static> Drop for FoldReceiver<S> {
    fn drop(&mut self) {
        // Closed before unbound: a handle that is bound meanwhile sees one or the other.
        close(&self.state);
        let value = self.state.lock().value.take();
        drop(value);
        self.owner.unbind();
    }
}

impl<S: Send + 'static> fmt::Debug for FoldReceiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FoldReceiver({})", self.port_id)
    }
}
