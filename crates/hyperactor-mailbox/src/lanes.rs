//! What all queues of messages have in common, whatever they keep them in: two lanes behind one lock, of which the one for
//! control goes first, a bound on what local senders put in, what happens when it is full, the receiver that sleeps and
//! the senders that wait for room. The queue of single items is in `queue.rs`.

use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use crate::lock::{BriefGuard, BriefMutex};
use tokio::sync::Notify;

use crate::limits;
use crate::overflow::{Class, Overflow};

/// What one lane keeps its messages in, first in, first out.
pub trait Lane: Default + Send + 'static {
    /// A message that was given up for a newer one.
    type Oldest;

    /// How many messages are inside.
    fn len(&self) -> usize;

    /// Whether nothing is inside.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the oldest message out, and tells whether it was from a local sender.
    fn pop_oldest(&mut self) -> Option<(Self::Oldest, bool)>;
}

/// Two lanes with many senders and one receiver; the rules of every queue, without what is queued.
///
/// # Bounds
/// Local messages: the capacity. What comes with credit of its own always fits, except where the queue does not
/// [wait](Overflow::Wait): then everything counts. In the lane for control, [`limits::CONTROL_CAPACITY`] local ones besides.
///
/// # Ordering
/// First in, first out, within each lane. The lane for control goes first.
// What the receiver reads before each message comes first, and what each message changes comes last, more than a cache line
// behind it: else the two sides would take that line from each other with every message.
#[repr(C)]
pub struct Lanes<L> {
    /// Whether the lane for control has messages, to be read without the lock.
    is_urgent: AtomicBool,
    overflow: Overflow,
    capacity: usize,
    /// Where senders wait for room; nothing before the first that does.
    room: OnceLock<Box<Notify>>,
    state: BriefMutex<State<L>>,
}

#[repr(C)]
struct State<L> {
    lanes: Both<L>,
    /// Open, and it [waits](Overflow::Wait): a user message needs no more than room.
    is_plain: bool,
    /// Somebody found the queue full and may wait for room.
    is_wanted: bool,
    is_closed: bool,
    /// Set only while the receiver sleeps: a busy one is not woken.
    receiver: Option<Waker>,
}

/// The two lanes, for the receiver.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Both<L> {
    /// Of class [`Control`](Class::Control); nothing before the first such message, which most queues never see.
    pub urgent: Option<Box<L>>,
    /// How many of the control messages are local. Whoever takes messages out takes them off.
    pub urgent_local: usize,
    /// Of class [`User`](Class::User).
    pub user: L,
    /// How many of the user messages are local, and how many places are held for such; taken off in the same way.
    pub user_local: usize,
}

impl<L: Lane> Both<L> {
    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.user.is_empty() && !self.is_urgent()
    }

    /// Whether messages of class [`Control`](Class::Control) are inside.
    #[inline(always)]
    pub fn is_urgent(&self) -> bool {
        self.urgent
            .as_ref()
            .is_some_and(|urgent| !urgent.is_empty())
    }

    /// How many messages are inside.
    fn len(&self) -> usize {
        self.user.len() + self.urgent.as_ref().map_or(0, |urgent| urgent.len())
    }
}

/// Why a queue takes no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room.
    Full,
    /// It was closed or sealed.
    Closed,
    /// There is no room, and the queue prefers what it has: the message is to be given up.
    Shed,
}

/// A place in a queue, to be filled before the queue does anything else.
#[must_use = "an empty place counts as a message"]
pub struct Admitted<'a, L: Lane> {
    state: BriefGuard<'a, State<L>>,
    is_urgent: &'a AtomicBool,
    class: Class,
    displaced: Option<L::Oldest>,
}

impl<L: Lane> Admitted<'_, L> {
    /// Puts the message at the end of its lane, and wakes the receiver; gives the message that was given up for it, if one
    /// was. `put` runs under the queue's lock.
    #[inline(always)]
    pub fn put(mut self, put: impl FnOnce(&mut L)) -> Option<L::Oldest> {
        put(self.lane());
        self.filled()
    }

    /// Where the message is to be put, at the end; then follows [`filled`](Self::filled). For those who must not pay for the
    /// way of a message through a closure.
    #[inline(always)]
    pub fn lane(&mut self) -> &mut L {
        match self.class {
            Class::User => &mut self.state.lanes.user,
            Class::Control => self.state.lanes.urgent.get_or_insert_default(),
        }
    }

    /// The message is in its [lane](Self::lane): wakes the receiver; gives the message that was given up for it, if one was.
    #[inline(always)]
    pub fn filled(self) -> Option<L::Oldest> {
        if self.class == Class::Control {
            self.is_urgent.store(true, Ordering::Release);
        }
        if self.state.receiver.is_some() {
            wake(self.state);
        }
        self.displaced
    }
}

/// As [`Admitted`], for a message for which nothing else is to be given up.
#[must_use = "an empty place counts as a message"]
pub struct AdmittedPlain<'a, L> {
    state: BriefGuard<'a, State<L>>,
}

impl<L> AdmittedPlain<'_, L> {
    /// Where the message is to be put, at the end; then follows [`filled`](Self::filled).
    #[inline(always)]
    pub fn lane(&mut self) -> &mut L {
        &mut self.state.lanes.user
    }

    /// The message is in its [lane](Self::lane): wakes the receiver, if it sleeps.
    #[inline(always)]
    pub fn filled(self) {
        if self.state.receiver.is_some() {
            wake(self.state);
        }
    }
}

/// The queue, locked by its receiver.
#[must_use = "the queue is locked"]
pub struct Receiving<'a, L> {
    queue: &'a Lanes<L>,
    state: BriefGuard<'a, State<L>>,
}

impl<L: Lane> Receiving<'_, L> {
    /// What is inside. What is taken out is taken off the counts of local messages.
    #[inline(always)]
    pub fn lanes(&mut self) -> &mut Both<L> {
        &mut self.state.lanes
    }

    /// User messages were taken out; `has_room` if some of them were local. With `last` the receiver goes to sleep with what it
    /// has, and the next message wakes it, so that it need not look again when it is done; whether it does.
    #[inline(always)]
    pub fn done(mut self, has_room: bool, last: Option<&Context<'_>>) -> bool {
        let is_asleep = last.is_some_and(|task| self.state.sleep(task).is_pending());
        let is_wanted = has_room && std::mem::take(&mut self.state.is_wanted);
        drop(self.state);
        if is_wanted {
            self.queue.tell_room();
        }
        is_asleep
    }
}

/// Wakes the receiver, without the lock.
#[inline]
fn wake<L>(mut state: BriefGuard<'_, State<L>>) {
    let waker = state.receiver.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<L: Lane> Lanes<L> {
    /// Empty lanes for at most `capacity` messages, and at least one, that do `overflow` when they are full.
    #[must_use]
    pub fn new(capacity: usize, overflow: Overflow) -> Self {
        let state = State {
            lanes: Both {
                user: L::default(),
                urgent: None,
                user_local: 0,
                urgent_local: 0,
            },
            is_plain: overflow == Overflow::Wait,
            is_wanted: false,
            is_closed: false,
            receiver: None,
        };
        Self {
            is_urgent: AtomicBool::new(false),
            overflow,
            capacity: capacity.max(1),
            room: OnceLock::new(),
            state: BriefMutex::new(state),
        }
    }

    /// Makes room for a local message of class [`User`](Class::User) in the usual case: the queue is open, has room, and waits
    /// when it has none. Else nothing has changed, and [`admit`](Self::admit) says why.
    #[inline(always)]
    pub fn admit_plain(&self) -> Option<AdmittedPlain<'_, L>> {
        let mut state = self.state.lock();
        if state.lanes.user_local >= self.capacity || !state.is_plain {
            return None;
        }
        state.lanes.user_local += 1;
        Some(AdmittedPlain { state })
    }

    /// Makes room for one message, local or not.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    #[inline(always)]
    pub fn admit(&self, class: Class, is_local: bool) -> Result<Admitted<'_, L>, Refusal> {
        let mut state = self.state.lock();
        let has_room = !is_local || state.lanes.user_local < self.capacity;
        if class != Class::User || !has_room || !state.is_plain {
            return self.admit_otherwise(state, class, is_local);
        }
        state.lanes.user_local += usize::from(is_local);
        Ok(self.admitted(state, class, None))
    }

    #[inline(always)]
    fn admitted<'a>(
        &'a self,
        state: BriefGuard<'a, State<L>>,
        class: Class,
        displaced: Option<L::Oldest>,
    ) -> Admitted<'a, L> {
        Admitted {
            state,
            is_urgent: &self.is_urgent,
            class,
            displaced,
        }
    }

    /// Whatever is not the usual case of a queue with room.
    #[cold]
    fn admit_otherwise<'a>(
        &'a self,
        mut state: BriefGuard<'a, State<L>>,
        class: Class,
        is_local: bool,
    ) -> Result<Admitted<'a, L>, Refusal> {
        if state.is_closed {
            return Err(Refusal::Closed);
        }
        let displaced = match class {
            Class::User => self.admit_user(&mut state, is_local)?,
            Class::Control => {
                Self::admit_urgent(&mut state, is_local)?;
                None
            }
        };
        Ok(self.admitted(state, class, displaced))
    }

    fn admit_user(
        &self,
        state: &mut State<L>,
        is_local: bool,
    ) -> Result<Option<L::Oldest>, Refusal> {
        let is_full = match self.overflow {
            Overflow::Wait => is_local && state.lanes.user_local >= self.capacity,
            _ => state.lanes.user.len() >= self.capacity,
        };
        let mut displaced = None;
        if is_full {
            match self.overflow {
                Overflow::Wait => {
                    state.is_wanted = true;
                    return Err(Refusal::Full);
                }
                Overflow::Fail => return Err(Refusal::Full),
                Overflow::DropNewest => return Err(Refusal::Shed),
                Overflow::DropOldest => {
                    if let Some((oldest, was_local)) = state.lanes.user.pop_oldest() {
                        state.lanes.user_local -= usize::from(was_local);
                        displaced = Some(oldest);
                    }
                }
            }
        }
        state.lanes.user_local += usize::from(is_local);
        Ok(displaced)
    }

    fn admit_urgent(state: &mut State<L>, is_local: bool) -> Result<(), Refusal> {
        if is_local {
            if state.lanes.urgent_local >= limits::CONTROL_CAPACITY {
                state.is_wanted = true;
                return Err(Refusal::Full);
            }
            state.lanes.urgent_local += 1;
        }
        Ok(())
    }

    /// Has `take` take messages out. If it takes none, the receiver sleeps where it gave a task, and `None` is ready when
    /// nothing will come any more. `take` runs under the queue's lock, and takes what it takes off the counts of local
    /// messages.
    pub fn poll_take<T>(
        &self,
        task: Option<&Context<'_>>,
        take: impl FnOnce(&mut Both<L>) -> Option<T>,
    ) -> Poll<Option<T>> {
        let (taken, is_wanted) = {
            let mut state = self.state.lock();
            let (taken, is_wanted) = state.take(&self.is_urgent, take);
            match (taken, task) {
                (Some(taken), _) => (taken, is_wanted),
                (None, Some(task)) => return state.sleep(task).map(|()| None),
                (None, None) => return Poll::Pending,
            }
        };
        if is_wanted {
            self.tell_room();
        }
        Poll::Ready(Some(taken))
    }

    /// The lanes, for the receiver to take out of them what it knows to be there. Whoever finds nothing drops this, and nothing
    /// has changed; else follows [`Receiving::done`]. Of class [`Control`](Class::Control) nothing is taken out by this way.
    #[inline(always)]
    pub fn receive(&self) -> Receiving<'_, L> {
        Receiving {
            queue: self,
            state: self.state.lock(),
        }
    }

    /// The receiver is not asleep after all: it is not to be woken before it has looked again.
    pub fn stay_awake(&self) {
        // Dropped without the lock.
        let waker = self.state.lock().receiver.take();
        drop(waker);
    }

    /// Works with the lanes, whatever is in them; `work` takes what it takes off the counts of local messages.
    pub fn with<T>(&self, work: impl FnOnce(&mut Both<L>) -> T) -> T {
        let (done, is_wanted) = self.state.lock().take(&self.is_urgent, work);
        if is_wanted {
            self.tell_room();
        }
        done
    }

    /// Whether messages of class [`Control`](Class::Control) wait. One plain load, for a receiver that looks before each
    /// message of a batch that it took out.
    #[inline]
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.is_urgent.load(Ordering::Relaxed)
    }

    /// Holds a place for a local message of class `User`.
    pub(crate) fn reserve(&self) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(Refusal::Closed);
        }
        if state.lanes.user_local >= self.capacity {
            state.is_wanted = true;
            return Err(Refusal::Full);
        }
        state.lanes.user_local += 1;
        Ok(())
    }

    /// The place that was held; `None`, and it is given back, when the queue was closed since.
    pub(crate) fn fill(&self) -> Option<Admitted<'_, L>> {
        let mut state = self.state.lock();
        if state.is_closed {
            state.lanes.user_local -= 1;
            return None;
        }
        Some(self.admitted(state, Class::User, None))
    }

    /// Refuses everything from now on, and does `work` with what is inside.
    pub fn close<T>(&self, work: impl FnOnce(&mut Both<L>) -> T) -> T {
        let (done, waker) = {
            let mut state = self.state.lock();
            state.is_closed = true;
            state.is_plain = false;
            let (done, _) = state.take(&self.is_urgent, work);
            (done, state.receiver.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        // Whoever waits for room learns that there will be none.
        self.tell_room();
        done
    }

    /// Whether it refuses everything.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// What it does when it is full.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// How many local messages it holds at most.
    #[must_use]
    pub fn max_local(&self) -> usize {
        self.capacity
    }

    /// How many messages are inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().lanes.len()
    }

    /// Whether nothing is inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is use in waiting when a message of this class was refused.
    #[must_use]
    pub fn waits(&self, class: Class) -> bool {
        class == Class::Control || self.overflow == Overflow::Wait
    }

    /// Resolves when a local message of this class would be taken, or refused for good.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is reserved and nothing is lost.
    pub async fn available(&self, class: Class) {
        loop {
            let mut notified = pin!(self.room.get_or_init(Box::default).notified());
            // Registered before the look, so that room made between the look and the wait is not missed.
            notified.as_mut().enable();
            if self.has_room(class) {
                return;
            }
            notified.await;
        }
    }

    /// Whoever waits made the place to wait at before he found the queue full, under its lock, so it is seen here.
    fn tell_room(&self) {
        if let Some(room) = self.room.get() {
            room.notify_waiters();
        }
    }

    /// Whether a local message of this class would be taken now, or refused for good. If not, whoever waits for room is told
    /// when there is some.
    #[must_use]
    pub fn has_room(&self, class: Class) -> bool {
        let mut state = self.state.lock();
        let is_free = match class {
            Class::User => state.lanes.user_local < self.capacity,
            Class::Control => state.lanes.urgent_local < limits::CONTROL_CAPACITY,
        };
        let has_room = state.is_closed || is_free;
        state.is_wanted |= !has_room;
        has_room
    }
}

impl<L: Lane> State<L> {
    /// Does `work`, and tells whether somebody waits for the room that it made.
    fn take<T>(
        &mut self,
        is_urgent: &AtomicBool,
        work: impl FnOnce(&mut Both<L>) -> T,
    ) -> (T, bool) {
        let lanes = &mut self.lanes;
        let before = (lanes.user_local, lanes.urgent_local);
        let done = work(lanes);
        let has_left = lanes.user_local < before.0 || lanes.urgent_local < before.1;
        if is_urgent.load(Ordering::Relaxed) && !lanes.is_urgent() {
            is_urgent.store(false, Ordering::Release);
        }
        (done, has_left && std::mem::take(&mut self.is_wanted))
    }

    /// Ready when nothing will come any more; else the receiver sleeps.
    fn sleep(&mut self, task: &Context<'_>) -> Poll<()> {
        if self.is_closed {
            return Poll::Ready(());
        }
        match &mut self.receiver {
            Some(waker) => waker.clone_from(task.waker()),
            none => *none = Some(task.waker().clone()),
        }
        Poll::Pending
    }
}

impl<L: Lane> std::fmt::Debug for Lanes<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Lanes")
            .field("user", &state.lanes.user.len())
            .field("urgent", &(state.lanes.len() - state.lanes.user.len()))
            .field("local", &state.lanes.user_local)
            .field("capacity", &self.capacity)
            .field("is_closed", &state.is_closed)
            .finish()
    }
}
