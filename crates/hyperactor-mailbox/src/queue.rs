//! The queue of single items, each with its lease. The rules that it follows are those of all queues, in `lanes.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::capacity::{Capacity, Room};
use crate::lanes::{Both, Lane, Lanes, Refusal};
use crate::overflow::{Class, Overflow};
use crate::sender::BoxFuture;
use crate::settle::{Lease, ReturnHandle};

/// A queue with many senders and one receiver. A clone is another handle of the same queue.
///
/// # Bounds
/// Local items: the capacity it was made with. Leased items always fit, because whoever holds a lease was given
/// credit for it; but a queue that does not [wait](Overflow::Wait) counts them too. Of class
/// [`Control`](Class::Control) there may be [`limits::CONTROL_CAPACITY`](crate::limits::CONTROL_CAPACITY) local items
/// besides.
///
/// # Ordering
/// First in, first out, within each class. Everything of class `Control` goes before everything of class `User`.
pub struct Queue<T>(Arc<Lanes<Items<T>>>);

type Items<T> = VecDeque<(T, Lease)>;

impl<T: Send + 'static> Lane for Items<T> {
    type Oldest = (T, Lease);

    fn len(&self) -> usize {
        VecDeque::len(self)
    }

    fn pop_oldest(&mut self) -> Option<(Self::Oldest, bool)> {
        let oldest = self.pop_front()?;
        let is_local = oldest.1.is_local();
        Some((oldest, is_local))
    }
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

impl<T> PushError<T> {
    fn new(refusal: Refusal, item: T) -> Self {
        match refusal {
            Refusal::Full => Self::Full(item),
            Refusal::Closed => Self::Closed(item),
            Refusal::Shed => Self::Shed(item),
        }
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
        Self(Arc::new(Lanes::new(capacity, overflow)))
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
        match self.0.admit(class, lease.is_local()) {
            Ok(place) => {
                let displaced = place.put(|lane| lane.push_back((item, lease)));
                // Its lease ends here, outside the lock: it may take others.
                Ok(displaced.map(|(item, _)| item))
            }
            Err(refusal) => Err((PushError::new(refusal, item), lease)),
        }
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
        let popped = self.0.poll_take(Some(cx), pop);
        // The lease ends here, outside the lock: it may take others.
        popped.map(|popped| popped.map(|(item, _)| item))
    }

    /// Takes the first item, if there is one.
    pub fn try_recv(&self) -> Option<T> {
        match self.0.poll_take(None, pop) {
            Poll::Ready(popped) => popped.map(|(item, _)| item),
            Poll::Pending => None,
        }
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
        let taken = self.0.poll_take(cx, |lanes| {
            let Both {
                user,
                urgent,
                user_local,
                urgent_local,
            } = lanes;
            let first = match urgent {
                Some(urgent) => drain(urgent, urgent_local, out, max, &mut leases),
                None => 0,
            };
            let count = first + drain(user, user_local, out, max - first, &mut leases);
            (count > 0).then_some(count)
        });
        taken.map(|count| count.unwrap_or(0))
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
        self.0.close(|_| ());
    }

    /// Refuses everything from now on, and gives what is inside, in order.
    pub fn close(&self) -> Vec<T> {
        let (urgent, user) = self.0.close(|lanes| {
            lanes.urgent_local = 0;
            // Places that are held stay counted until they are given back.
            let is_local = |(_, lease): &&(T, Lease)| lease.is_local();
            lanes.user_local -= lanes.user.iter().filter(is_local).count();
            (
                std::mem::take(&mut lanes.urgent).unwrap_or_default(),
                std::mem::take(&mut lanes.user),
            )
        });
        let items = urgent.into_iter().chain(user);
        items.map(|(item, _)| item).collect()
    }

    /// Whether it refuses everything.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// What to wait for when it is full.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.room(Class::User)
    }

    /// What to wait for when an item of this class was refused; `None` if there is no use in waiting, because the queue
    /// does not [wait](Overflow::Wait).
    #[must_use]
    pub fn capacity_of(&self, class: Class) -> Option<Capacity> {
        self.0.waits(class).then(|| self.room(class))
    }

    fn room(&self, class: Class) -> Capacity {
        Capacity::new(Arc::new(ClassRoom(Arc::clone(&self.0), class)))
    }

    /// What it does when it is full.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        self.0.overflow()
    }

    /// How many local items it holds at most.
    #[must_use]
    pub fn max_local(&self) -> usize {
        self.0.max_local()
    }

    /// How many items are inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The crate's own two-step push, for a sender that must know of its place before it makes the item.
impl<T: Send + 'static> Queue<T> {
    /// Holds a place for a local item.
    pub(crate) fn reserve(&self) -> Result<(), PushError<()>> {
        self.0
            .reserve()
            .map_err(|refusal| PushError::new(refusal, ()))
    }

    /// Gives a held place back.
    pub(crate) fn unreserve(&self) {
        self.0.with(|lanes| lanes.user_local -= 1);
    }

    /// Fills a held place; false when the queue was closed since.
    pub(crate) fn push_reserved(&self, item: T) -> bool {
        match self.0.fill() {
            Some(place) => {
                place.put(|lane| lane.push_back((item, Lease::none())));
                true
            }
            None => false,
        }
    }
}

/// The room of one class.
struct ClassRoom<T>(Arc<Lanes<Items<T>>>, Class);

impl<T: Send + 'static> Room for ClassRoom<T> {
    fn has_room(&self) -> bool {
        self.0.has_room(self.1)
    }

    fn available(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.available(self.1))
    }
}

/// Takes the first item of all.
fn pop<T: Send + 'static>(lanes: &mut Both<Items<T>>) -> Option<(T, Lease)> {
    let urgent = lanes.urgent.as_mut().and_then(|urgent| urgent.pop_oldest());
    if let Some((item, was_local)) = urgent {
        lanes.urgent_local -= usize::from(was_local);
        return Some(item);
    }
    let (item, was_local) = lanes.user.pop_oldest()?;
    lanes.user_local -= usize::from(was_local);
    Some(item)
}

/// Moves up to `max` items of a lane to the end of `out`, and tells how many.
fn drain<T>(
    lane: &mut Items<T>,
    local: &mut usize,
    out: &mut Vec<T>,
    max: usize,
    leases: &mut Vec<Lease>,
) -> usize {
    let count = lane.len().min(max);
    out.reserve(count);
    for (item, lease) in lane.drain(..count) {
        if lease.is_local() {
            *local -= 1;
        } else {
            leases.push(lease);
        }
        out.push(item);
    }
    count
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queue").field(&self.0).finish()
    }
}
