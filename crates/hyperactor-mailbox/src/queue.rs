//! The one queue: what local senders may put in is bounded by its capacity, what came with a lease by its credit.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::capacity::{Capacity, Room};
use crate::sender::BoxFuture;
use crate::settle::{Lease, ReturnHandle};

/// A queue with many senders and one receiver. A clone is another handle of the same queue.
///
/// # Bounds
/// Local items: the capacity it was made with. Leased items always fit, because whoever holds a lease was given
/// credit for it.
///
/// # Ordering
/// First in, first out.
pub struct Queue<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    room: Notify,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<(T, Lease)>,
    /// How many of the items came without a lease.
    local: usize,
    /// Somebody found the queue full and may wait for room.
    is_wanted: bool,
    is_closed: bool,
    /// Set only while the receiver sleeps: a busy one is not woken.
    receiver: Option<Waker>,
}

/// An item that was not taken.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError<T> {
    /// There is no room for another local item.
    #[error("queue is full")]
    Full(T),
    /// The queue was closed or sealed.
    #[error("queue is closed")]
    Closed(T),
}

impl<T> PushError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T: Send + 'static> Queue<T> {
    /// An empty queue for at most `capacity` local items, and at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            local: 0,
            is_wanted: false,
            is_closed: false,
            receiver: None,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            room: Notify::new(),
            capacity: capacity.max(1),
        }))
    }

    /// Puts an item at the end. Its lease is dropped when the item is taken out.
    ///
    /// # Errors
    /// [`PushError::Full`] for a local item without room, [`PushError::Closed`] after [`close`](Self::close) or
    /// [`seal`](Self::seal). Both give the item back.
    pub fn try_push(&self, item: T, lease: Lease) -> Result<(), PushError<T>> {
        self.push(item, lease).map_err(|(error, _)| error)
    }

    /// Puts an item at the end and settles its handle as delivered.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push); the handle comes back unsettled, for the caller to give the reason.
    pub fn place(
        &self,
        item: T,
        return_handle: ReturnHandle,
    ) -> Result<(), (PushError<T>, ReturnHandle)> {
        match self.push(item, return_handle.lease()) {
            Ok(()) => {
                return_handle.placed();
                Ok(())
            }
            Err((error, lease)) => {
                lease.forget();
                Err((error, return_handle))
            }
        }
    }

    pub(crate) fn push(&self, item: T, lease: Lease) -> Result<(), (PushError<T>, Lease)> {
        let waker = {
            let mut state = self.0.state.lock();
            if state.is_closed {
                return Err((PushError::Closed(item), lease));
            }
            if lease.is_local() {
                if state.local >= self.0.capacity {
                    state.is_wanted = true;
                    return Err((PushError::Full(item), lease));
                }
                state.local += 1;
            }
            state.items.push_back((item, lease));
            state.receiver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes the first item, or waits for one; `None` when the queue is closed and empty.
    ///
    /// One task at a time may wait: a second one displaces the first.
    ///
    /// # Cancel safety
    /// Cancel safe: an item is taken only in the moment it is returned.
    pub async fn recv(&self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The poll behind [`recv`](Self::recv).
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let (item, wanted) = {
            let mut state = self.0.state.lock();
            let Some(entry) = state.items.pop_front() else {
                return state.sleep(cx).map(|()| None);
            };
            let local = usize::from(entry.1.is_local());
            (entry, state.make_room(local))
        };
        if wanted {
            self.0.room.notify_waiters();
        }
        // The lease ends here, outside the lock: it may take others.
        Poll::Ready(Some(item.0))
    }

    /// Takes the first item, if there is one.
    pub fn try_recv(&self) -> Option<T> {
        let (item, wanted) = {
            let mut state = self.0.state.lock();
            let entry = state.items.pop_front()?;
            let local = usize::from(entry.1.is_local());
            (entry, state.make_room(local))
        };
        if wanted {
            self.0.room.notify_waiters();
        }
        Some(item.0)
    }

    /// Moves up to `max` items to the end of `out`, or waits for the first one, and tells how many; 0 only when the
    /// queue is closed and empty, or `max` is 0.
    ///
    /// # Cancel safety
    /// Cancel safe: items are moved only in the moment it returns.
    pub async fn recv_many(&self, out: &mut Vec<T>, max: usize) -> usize {
        poll_fn(|cx| self.poll_recv_many(cx, out, max)).await
    }

    /// The poll behind [`recv_many`](Self::recv_many).
    pub fn poll_recv_many(
        &self,
        cx: &mut Context<'_>,
        out: &mut Vec<T>,
        max: usize,
    ) -> Poll<usize> {
        self.take_many(out, max, Some(cx))
    }

    fn take_many(&self, out: &mut Vec<T>, max: usize, cx: Option<&Context<'_>>) -> Poll<usize> {
        if max == 0 {
            return Poll::Ready(0);
        }
        // Leases are collected and end after the lock is gone; for local items the vector stays unallocated.
        let mut leases = Vec::new();
        let (count, wanted) = {
            let mut state = self.0.state.lock();
            if state.items.is_empty() {
                return cx.map_or(Poll::Pending, |cx| state.sleep(cx).map(|()| 0));
            }
            let count = state.items.len().min(max);
            let mut local = 0;
            out.reserve(count);
            for (item, lease) in state.items.drain(..count) {
                if lease.is_local() {
                    local += 1;
                } else {
                    leases.push(lease);
                }
                out.push(item);
            }
            (count, state.make_room(local))
        };
        if wanted {
            self.0.room.notify_waiters();
        }
        Poll::Ready(count)
    }

    /// Moves up to `max` items that are there now to the end of `out`, and tells how many.
    pub fn try_recv_many(&self, out: &mut Vec<T>, max: usize) -> usize {
        match self.take_many(out, max, None) {
            Poll::Ready(count) => count,
            Poll::Pending => 0,
        }
    }

    /// Refuses everything from now on; what is inside can still be received.
    pub fn seal(&self) {
        drop(self.shut(false));
    }

    /// Refuses everything from now on, and gives what is inside, in order.
    pub fn close(&self) -> Vec<T> {
        self.shut(true).into_iter().map(|(item, _)| item).collect()
    }

    fn shut(&self, take: bool) -> VecDeque<(T, Lease)> {
        let (items, waker) = {
            let mut state = self.0.state.lock();
            state.is_closed = true;
            let mut items = VecDeque::new();
            if take {
                items = std::mem::take(&mut state.items);
                // Places that are held stay counted until they are given back.
                state.local -= items.iter().filter(|(_, lease)| lease.is_local()).count();
            }
            (items, state.receiver.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        // Whoever waits for room learns that there will be none.
        self.0.room.notify_waiters();
        items
    }

    /// Whether it refuses everything.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.state.lock().is_closed
    }

    /// What to wait for when it is full.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity::new(self.0.clone())
    }

    /// How many local items it holds at most.
    #[must_use]
    pub fn max_local(&self) -> usize {
        self.0.capacity
    }

    /// How many items are inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.state.lock().items.len()
    }

    /// Whether nothing is inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The crate's own two-step push, for a sender that must know of its place before it makes the item.
impl<T: Send + 'static> Queue<T> {
    /// Holds a place for a local item.
    pub(crate) fn reserve(&self) -> Result<(), PushError<()>> {
        let mut state = self.0.state.lock();
        if state.is_closed {
            return Err(PushError::Closed(()));
        }
        if state.local >= self.0.capacity {
            state.is_wanted = true;
            return Err(PushError::Full(()));
        }
        state.local += 1;
        Ok(())
    }

    /// Gives a held place back.
    pub(crate) fn unreserve(&self) {
        let wanted = {
            let mut state = self.0.state.lock();
            state.make_room(1)
        };
        if wanted {
            self.0.room.notify_waiters();
        }
    }

    /// Fills a held place; false when the queue was closed since.
    pub(crate) fn push_reserved(&self, item: T) -> bool {
        let waker = {
            let mut state = self.0.state.lock();
            if state.is_closed {
                state.local -= 1;
                return false;
            }
            state.items.push_back((item, Lease::none()));
            state.receiver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

impl<T> State<T> {
    /// Counts local items that left, and tells whether somebody waits for that.
    fn make_room(&mut self, local: usize) -> bool {
        self.local -= local;
        local > 0 && std::mem::take(&mut self.is_wanted)
    }

    /// Ready when nothing will come any more; else the receiver sleeps.
    fn sleep(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.is_closed {
            return Poll::Ready(());
        }
        match &mut self.receiver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T: Send + 'static> Room for Shared<T> {
    fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let has_room = state.is_closed || state.local < self.capacity;
        state.is_wanted |= !has_room;
        has_room
    }

    fn available(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                let notified = self.room.notified();
                let mut notified = pin!(notified);
                // Registered before the look, so that room made between the look and the wait is not missed.
                notified.as_mut().enable();
                if self.has_room() {
                    return;
                }
                notified.await;
            }
        })
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Queue")
            .field("len", &state.items.len())
            .field("local", &state.local)
            .field("capacity", &self.0.capacity)
            .field("is_closed", &state.is_closed)
            .finish()
    }
}
