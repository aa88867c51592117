//! The one queue: what local senders may put in is bounded by its capacity, what came with a lease by its credit. It has
//! two lanes, of which the one for control goes first; what a full queue does is its [`Overflow`].

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::capacity::{Capacity, Room};
use crate::limits;
use crate::overflow::{Class, Overflow};
use crate::sender::BoxFuture;
use crate::settle::{Lease, ReturnHandle};

/// A queue with many senders and one receiver. A clone is another handle of the same queue.
///
/// # Bounds
/// Local items: the capacity it was made with. Leased items always fit, because whoever holds a lease was given
/// credit for it; but a queue that does not [wait](Overflow::Wait) counts them too. Of class
/// [`Control`](Class::Control) there may be [`limits::CONTROL_CAPACITY`] local items besides.
///
/// # Ordering
/// First in, first out, within each class. Everything of class `Control` goes before everything of class `User`.
pub struct Queue<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    room: Notify,
    capacity: usize,
    overflow: Overflow,
    /// Whether the lane for control has items, to be read without the lock.
    is_urgent: AtomicBool,
}

struct State<T> {
    /// Of class `User`.
    items: VecDeque<(T, Lease)>,
    /// Of class `Control`.
    urgent: VecDeque<(T, Lease)>,
    /// How many of the user items came without a lease, and how many places are held for such.
    local: usize,
    /// The same of the control items.
    urgent_local: usize,
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
    /// There is no room, and the queue prefers what it has: the item is to be given up.
    #[error("queue is full and drops what comes")]
    Shed(T),
}

impl<T> PushError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) | Self::Shed(item) => item,
        }
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
            Self::Shed(_) => "Shed(..)",
        })
    }
}

impl<T: Send + 'static> Queue<T> {
    /// An empty queue for at most `capacity` local items, and at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::with_overflow(capacity, Overflow::Wait)
    }

    /// An empty queue for at most `capacity` items, and at least one, that does `overflow` when it is full.
    #[must_use]
    pub fn with_overflow(capacity: usize, overflow: Overflow) -> Self {
        let state = State {
            items: VecDeque::new(),
            urgent: VecDeque::new(),
            local: 0,
            urgent_local: 0,
            is_wanted: false,
            is_closed: false,
            receiver: None,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            room: Notify::new(),
            capacity: capacity.max(1),
            overflow,
            is_urgent: AtomicBool::new(false),
        }))
    }

    /// Puts an item at the end. Its lease is dropped when the item is taken out.
    ///
    /// An item that a queue which [drops its oldest](Overflow::DropOldest) gives up for it is dropped; who wants it
    /// calls [`offer`](Self::offer).
    ///
    /// # Errors
    /// [`PushError`] gives the item back: [`Full`](PushError::Full) and [`Shed`](PushError::Shed) where there is no
    /// room, [`Closed`](PushError::Closed) after [`close`](Self::close) or [`seal`](Self::seal).
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
        self.place_as(Class::User, item, return_handle).map(drop)
    }

    /// As [`place`](Self::place), for an item of a class; gives the item that was given up for it, if one was.
    ///
    /// # Errors
    /// As [`place`](Self::place).
    pub fn place_as(
        &self,
        class: Class,
        item: T,
        return_handle: ReturnHandle,
    ) -> Result<Option<T>, (PushError<T>, ReturnHandle)> {
        match self.offer(class, item, return_handle.lease()) {
            Ok(displaced) => {
                return_handle.placed();
                Ok(displaced)
            }
            Err((error, lease)) => {
                lease.forget();
                Err((error, return_handle))
            }
        }
    }

    pub(crate) fn push(&self, item: T, lease: Lease) -> Result<(), (PushError<T>, Lease)> {
        self.offer(Class::User, item, lease).map(drop)
    }

    /// Puts an item of a class at the end of its lane; gives the item that was given up for it, if one was.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push), with the lease.
    pub fn offer(
        &self,
        class: Class,
        item: T,
        lease: Lease,
    ) -> Result<Option<T>, (PushError<T>, Lease)> {
        let (waker, displaced) = {
            let mut state = self.0.state.lock();
            if state.is_closed {
                return Err((PushError::Closed(item), lease));
            }
            let displaced = match class {
                Class::Control => match self.0.admit_urgent(&mut state, lease.is_local()) {
                    true => None,
                    false => return Err((PushError::Full(item), lease)),
                },
                Class::User => match self.0.admit(&mut state, lease.is_local()) {
                    Admission::Free => None,
                    Admission::InPlaceOf(oldest) => Some(oldest),
                    Admission::Full => return Err((PushError::Full(item), lease)),
                    Admission::Shed => return Err((PushError::Shed(item), lease)),
                },
            };
            match class {
                Class::Control => {
                    state.urgent.push_back((item, lease));
                    self.0.is_urgent.store(true, Ordering::Release);
                }
                Class::User => state.items.push_back((item, lease)),
            }
            (state.receiver.take(), displaced)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        // Its lease ends here, outside the lock: it may take others.
        Ok(displaced.map(|(item, _)| item))
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
            let Some(entry) = self.0.pop(&mut state) else {
                return state.sleep(cx).map(|()| None);
            };
            entry
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
            self.0.pop(&mut state)?
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
            if state.is_empty() {
                return cx.map_or(Poll::Pending, |cx| state.sleep(cx).map(|()| 0));
            }
            let urgent = self.0.drain_urgent(&mut state, out, max, &mut leases);
            let count = state.items.len().min(max - urgent.0);
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
            let is_wanted = state.make_room(local);
            (urgent.0 + count, is_wanted | urgent.1)
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

    /// Whether items of class [`Control`](Class::Control) wait. One plain load, for a receiver that looks before each
    /// item of a batch that it took out.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.0.is_urgent.load(Ordering::Relaxed)
    }

    /// Moves the items of class [`Control`](Class::Control) to the end of `out`.
    pub fn take_urgent(&self, out: &mut Vec<T>) {
        let mut leases = Vec::new();
        let (_, wanted) = {
            let mut state = self.0.state.lock();
            self.0
                .drain_urgent(&mut state, out, usize::MAX, &mut leases)
        };
        if wanted {
            self.0.room.notify_waiters();
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
                items = std::mem::take(&mut state.urgent);
                state.urgent_local = 0;
                self.0.is_urgent.store(false, Ordering::Release);
                let mut rest = std::mem::take(&mut state.items);
                // Places that are held stay counted until they are given back.
                state.local -= rest.iter().filter(|(_, lease)| lease.is_local()).count();
                if items.is_empty() {
                    items = rest;
                } else {
                    items.append(&mut rest);
                }
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

    /// What to wait for when an item of this class was refused; `None` if there is no use in waiting, because the queue
    /// does not [wait](Overflow::Wait).
    #[must_use]
    pub fn capacity_of(&self, class: Class) -> Option<Capacity> {
        match class {
            Class::Control => Some(Capacity::new(Arc::new(ControlRoom(Arc::clone(&self.0))))),
            Class::User if self.0.overflow == Overflow::Wait => Some(self.capacity()),
            Class::User => None,
        }
    }

    /// What it does when it is full.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        self.0.overflow
    }

    /// How many local items it holds at most.
    #[must_use]
    pub fn max_local(&self) -> usize {
        self.0.capacity
    }

    /// How many items are inside.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.0.state.lock();
        state.items.len() + state.urgent.len()
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

/// What becomes of an item that is put in.
enum Admission<T> {
    Free,
    InPlaceOf((T, Lease)),
    Full,
    Shed,
}

impl<T> Shared<T> {
    /// Counts an item in, if there is room for it or it is made.
    fn admit(&self, state: &mut State<T>, is_local: bool) -> Admission<T> {
        let is_full = match self.overflow {
            Overflow::Wait => is_local && state.local >= self.capacity,
            _ => state.items.len() >= self.capacity,
        };
        let mut admission = Admission::Free;
        if is_full {
            match self.overflow {
                Overflow::Wait => {
                    state.is_wanted = true;
                    return Admission::Full;
                }
                Overflow::Fail => return Admission::Full,
                Overflow::DropNewest => return Admission::Shed,
                Overflow::DropOldest => {
                    if let Some(oldest) = state.items.pop_front() {
                        state.local -= usize::from(oldest.1.is_local());
                        admission = Admission::InPlaceOf(oldest);
                    }
                }
            }
        }
        state.local += usize::from(is_local);
        admission
    }

    /// Counts an item of class `Control` in; false when there is no room.
    fn admit_urgent(&self, state: &mut State<T>, is_local: bool) -> bool {
        if is_local {
            if state.urgent_local >= limits::CONTROL_CAPACITY {
                state.is_wanted = true;
                return false;
            }
            state.urgent_local += 1;
        }
        true
    }

    /// Takes the first item, and tells whether somebody waits for its room.
    fn pop(&self, state: &mut State<T>) -> Option<((T, Lease), bool)> {
        if let Some(entry) = state.urgent.pop_front() {
            self.is_urgent
                .store(!state.urgent.is_empty(), Ordering::Release);
            let local = usize::from(entry.1.is_local());
            state.urgent_local -= local;
            let is_wanted = local > 0 && std::mem::take(&mut state.is_wanted);
            return Some((entry, is_wanted));
        }
        let entry = state.items.pop_front()?;
        let local = usize::from(entry.1.is_local());
        let is_wanted = state.make_room(local);
        Some((entry, is_wanted))
    }

    /// Moves items of class `Control` out: how many, and whether somebody waits for their room.
    fn drain_urgent(
        &self,
        state: &mut State<T>,
        out: &mut Vec<T>,
        max: usize,
        leases: &mut Vec<Lease>,
    ) -> (usize, bool) {
        let count = state.urgent.len().min(max);
        if count == 0 {
            return (0, false);
        }
        let mut local = 0;
        for (item, lease) in state.urgent.drain(..count) {
            if lease.is_local() {
                local += 1;
            } else {
                leases.push(lease);
            }
            out.push(item);
        }
        self.is_urgent
            .store(!state.urgent.is_empty(), Ordering::Release);
        state.urgent_local -= local;
        let is_wanted = local > 0 && std::mem::take(&mut state.is_wanted);
        (count, is_wanted)
    }
}

impl<T> State<T> {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.urgent.is_empty()
    }

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

impl<T> Shared<T> {
    /// Resolves when `has_room` says so, which is asked again whenever room was made.
    async fn room_for(&self, has_room: impl Fn(&Self) -> bool) {
        loop {
            let mut notified = pin!(self.room.notified());
            // Registered before the look, so that room made between the look and the wait is not missed.
            notified.as_mut().enable();
            if has_room(self) {
                return;
            }
            notified.await;
        }
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
        Box::pin(self.room_for(Self::has_room))
    }
}

/// The room in the lane for control.
struct ControlRoom<T>(Arc<Shared<T>>);

impl<T: Send + 'static> Room for ControlRoom<T> {
    fn has_room(&self) -> bool {
        let mut state = self.0.state.lock();
        let has_room = state.is_closed || state.urgent_local < limits::CONTROL_CAPACITY;
        state.is_wanted |= !has_room;
        has_room
    }

    fn available(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.room_for(|_| self.has_room()))
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
            .field("urgent", &state.urgent.len())
            .field("local", &state.local)
            .field("capacity", &self.0.capacity)
            .field("is_closed", &state.is_closed)
            .finish()
    }
}
