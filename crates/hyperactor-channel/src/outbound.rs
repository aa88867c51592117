//! The sending border: [`Outbound`], the handle of a dialled channel, its [`Status`] and its [`Capacity`].
//! What moves the messages is in `local` (in-process) and `net` (byte streams), behind the `Link` trait here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyperactor_protocol::Label;
use hyperactor_refs::ChannelAddr;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{Completion, Failure, FlushError, Reason};

/// Where a dialled channel stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Not connected, and nothing waits to be sent.
    Idle,
    /// Connected.
    Connected,
    /// Not connected while messages are under way or wait to be sent.
    Reconnecting,
    /// Ended for good. Every later post fails at once: whoever keeps channels should dial anew. Known before the outcomes
    /// that the end brings about are told.
    Closed(Reason),
}

/// Whether a channel has room for another message, and a way to wait until it has. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Capacity(Arc<CapacityInner>);

#[derive(Debug)]
struct CapacityInner {
    room: Mutex<bool>,
    changed: Notify,
}

impl Capacity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(CapacityInner {
            room: Mutex::new(true),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn set(&self, room: bool) {
        let mut current = self.0.room.lock();
        let opened = room && !*current;
        *current = room;
        drop(current);
        if opened {
            self.0.changed.notify_waiters();
        }
    }

    /// Whether there was room a moment ago. A closed channel has room: a post says at once that it is closed.
    pub fn has_room(&self) -> bool {
        *self.0.room.lock()
    }

    /// Waits until there is room, or the channel is closed. Others may take the room before the caller does.
    ///
    /// # Cancel safety
    ///
    /// Holds no place in a queue: dropping it loses nothing.
    pub async fn available(&self) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.has_room() {
                return;
            }
            changed.await;
        }
    }
}

/// What stands for the names of a message in one channel: [`Outbound::labelled`]. It holds nothing; what it stood for once, it never
/// stands for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labelled {
    pub(crate) to: Label,
    pub(crate) from: Label,
    /// When the two were given to their names.
    pub(crate) since: (u64, u64),
}

/// A message on its way through this process: [`Outbound::pass`].
pub struct Passing<K> {
    /// The message as it came.
    pub body: Bytes,
    /// What learns its outcome.
    pub completion: K,
}

/// How far messages were [passed on](Outbound::pass).
pub enum Passed<K> {
    /// To their end.
    All,
    /// This one was not taken, and none behind it; [offered](Outbound::offer) by itself it tells why.
    Refused(Passing<K>),
    /// None was taken: the names have other numbers by now, or the channel has ended.
    Renamed,
}

/// A message that was not taken, with its completion.
pub struct Rejected<M, K> {
    /// The message.
    pub message: M,
    /// Its completion, not called.
    pub completion: K,
    /// Why it was not taken.
    pub reason: Reason,
}

impl<M, K> fmt::Debug for Rejected<M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// How far all messages have an outcome and their completions have returned. Telling costs next to nothing while nobody
/// waits.
#[derive(Default)]
pub(crate) struct Settled {
    below: AtomicU64,
    moved: Notify,
}

impl Settled {
    pub(crate) fn advance(&self, below: u64) {
        self.below.fetch_max(below, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Waits until all messages below `target` are settled; says whether it had to.
    async fn reaches(&self, target: u64) -> bool {
        let mut waited = false;
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.below.load(Ordering::Acquire) >= target {
                return waited;
            }
            waited = true;
            moved.await;
        }
    }
}

/// What the handles of every kind of channel share.
pub(crate) struct Common {
    pub(crate) addr: ChannelAddr,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) capacity: Capacity,
    /// All messages below this sequence number have an outcome, and their completions returned.
    pub(crate) settled: Settled,
    /// Whether a task drives the channel, and may still have to take leave of the peer.
    driving: Arc<watch::Sender<bool>>,
}

/// Held by the task that drives a channel, until it has ended.
pub(crate) struct Driving(Arc<watch::Sender<bool>>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Common {
    pub(crate) fn new(addr: ChannelAddr) -> Self {
        Self {
            addr,
            status: watch::Sender::new(Status::Idle),
            capacity: Capacity::new(),
            settled: Settled::default(),
            driving: Arc::default(),
        }
    }

    /// Notes that a task drives the channel from here on.
    pub(crate) fn drive(&self) -> Driving {
        self.driving.send_replace(true);
        Driving(Arc::clone(&self.driving))
    }

    /// Publishes a status, unless it is the present one or the channel is closed.
    pub(crate) fn publish(&self, status: Status) {
        self.status.send_if_modified(|current| {
            let changed = !matches!(current, Status::Closed(_)) && *current != status;
            if changed {
                *current = status;
            }
            changed
        });
    }
}

/// One dialled channel, of either kind.
pub(crate) trait Link<M, K>: Send + Sync {
    fn common(&self) -> &Common;
    /// The room for messages as this one.
    fn capacity_for(&self, message: &M) -> Capacity;
    /// Takes a message, or gives it back with the reason. Never blocks.
    fn offer(&self, message: M, completion: K) -> Result<(), Rejected<M, K>>;
    /// What stands for the names of a message as this one.
    fn labelled(&self, _message: &M) -> Option<Labelled> {
        None
    }
    /// Takes those in front, as long as it can.
    fn pass(&self, _names: Labelled, _run: &mut dyn Iterator<Item = Passing<K>>) -> Passed<K> {
        Passed::Renamed
    }
    /// The sequence number of the next post.
    fn posted(&self) -> u64;
    /// Takes nothing more; what was taken still goes out and gets its outcome.
    fn close(&self);
    /// Ends now, for this reason.
    fn abandon(&self, reason: Reason);
}

/// The sending end of a channel, with a completion of the caller's own type for each message. Cheap to clone.
///
/// Of a dialled channel: it connects when the first message is posted, or at once when it also receives. Dropping the last
/// clone lets it linger: what was posted still goes out and gets its outcome, then the peer is told goodbye. Of an accepted
/// session: the way back to its dialer, see [`Accept::open`](crate::Accept::open).
///
/// # Ordering
///
/// Messages posted by one thread arrive in the order posted, across any number of reconnects, and none arrives twice.
///
/// # Bounds
///
/// Memory is bounded by [`DialOptions::outbox_messages`](crate::DialOptions::outbox_messages) and
/// [`DialOptions::outbox_bytes`](crate::DialOptions::outbox_bytes).
pub struct Outbound<M, K> {
    link: Arc<dyn Link<M, K>>,
    last: Arc<LastHandle<M, K>>,
}

struct LastHandle<M, K> {
    link: Arc<dyn Link<M, K>>,
    /// Whether the session ends with its last handle. One that was accepted is its dialer's.
    closes: bool,
}

impl<M, K> Drop for LastHandle<M, K> {
    fn drop(&mut self) {
        if self.closes {
            self.link.close();
        }
    }
}

impl<M, K> Clone for Outbound<M, K> {
    fn clone(&self) -> Self {
        Self {
            link: Arc::clone(&self.link),
            last: Arc::clone(&self.last),
        }
    }
}

impl<M, K> fmt::Debug for Outbound<M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let common = self.link.common();
        f.debug_struct("Outbound")
            .field("addr", &common.addr)
            .field("status", &*common.status.borrow())
            .finish_non_exhaustive()
    }
}

impl<M: Send + 'static, K: Completion<M>> Outbound<M, K> {
    pub(crate) fn new(link: Arc<dyn Link<M, K>>) -> Self {
        Self::with_end(link, true)
    }

    /// The way back of an accepted session: dropping it does not close the session.
    pub(crate) fn accepted(link: Arc<dyn Link<M, K>>) -> Self {
        Self::with_end(link, false)
    }

    /// The same channel, which is closed when the last clone of this handle is dropped.
    pub(crate) fn owning(self) -> Self {
        Self::with_end(self.link, true)
    }

    fn with_end(link: Arc<dyn Link<M, K>>, closes: bool) -> Self {
        let last = Arc::new(LastHandle {
            link: Arc::clone(&link),
            closes,
        });
        Self { link, last }
    }

    /// Posts a message. Never blocks. A failure that is known at once (full, closed, too large, not encodable) is told to
    /// the completion before this returns; every other outcome later.
    pub fn try_post(&self, message: M, completion: K) {
        if let Err(rejected) = self.link.offer(message, completion) {
            rejected
                .completion
                .undelivered(rejected.message, Failure::NotDelivered(rejected.reason));
        }
    }

    /// As [`try_post`](Self::try_post), but a failure that is known at once comes back with message and completion, and
    /// the completion is not called.
    ///
    /// # Errors
    ///
    /// The reason is `Full`, `Closed` (or why the channel ended), `TooLarge` or `Encode`.
    pub fn offer(&self, message: M, completion: K) -> Result<(), Rejected<M, K>> {
        self.link.offer(message, completion)
    }

    /// What stands for the names of a message as this one, in this channel, to [pass](Self::pass) others of the same names with.
    /// `None` where messages are not encoded, for messages without names, and where no number is free.
    pub fn labelled(&self, message: &M) -> Option<Labelled> {
        self.link.labelled(message)
    }

    /// Passes messages on as they came over another channel of the same codec, but for what
    /// [the codec changes](crate::Codec::pass) for one more step: as [`offer`](Self::offer) for each that `run` gives, up to the first
    /// that is not taken. `run` is called under the channel's lock, and must do nothing but give what is there.
    pub fn pass(&self, names: Labelled, run: &mut dyn Iterator<Item = Passing<K>>) -> Passed<K> {
        self.link.pass(names, run)
    }

    /// Waits until the channel has room for another message. For messages that name a destination, wait for
    /// [`capacity_for`](Self::capacity_for) instead.
    ///
    /// # Errors
    ///
    /// Why the channel ended, when it did.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing. Having been ready reserves nothing either: another thread may take the room first.
    pub async fn ready(&self) -> Result<(), Reason> {
        self.link.common().capacity.available().await;
        match &*self.link.common().status.borrow() {
            Status::Closed(reason) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// Waits until every message posted before the call has its outcome and its completion was called.
    ///
    /// # Errors
    ///
    /// The channel ended for good meanwhile: each message has its outcome, but not every one may be `Delivered`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let target = self.link.posted();
        if !self.link.common().settled.reaches(target).await {
            return Ok(());
        }
        match &*self.link.common().status.borrow() {
            // A close that was asked for lets everything before it have its ordinary outcome.
            Status::Closed(reason) if *reason != Reason::Closed => {
                Err(FlushError::Closed(reason.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Takes nothing more. What was posted still goes out and gets its outcome; then the peer is told goodbye and the
    /// status becomes [`Status::Closed`]. What comes in meanwhile is refused: the session ends in both directions.
    /// Returns at once; calling it twice is fine.
    pub fn close(&self) {
        self.link.close();
    }

    /// Ends the channel now, both ways, because nobody is there any more, as this side has learned in another way: for an
    /// accepted session whose dialer has died, and would be waited for. What was not sent ends as not delivered, what was sent
    /// and has no outcome as unknown, each for this reason. Returns at once; a channel that has ended stays as it is.
    pub fn abandon(&self, reason: Reason) {
        self.link.abandon(reason);
    }

    /// Waits until the channel has ended for good and every message has its outcome, and says why it ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn closed(&self) -> Reason {
        let mut status = self.status();
        // In a block of its own: the guard of the status must not live across the wait below, or the future is not `Send`.
        let reason = {
            let ended = status
                .wait_for(|status| matches!(status, Status::Closed(_)))
                .await;
            match ended.as_deref() {
                Ok(Status::Closed(reason)) => reason.clone(),
                _ => Reason::Dropped,
            }
        };
        // Why it ended is known a moment before the last outcome is told.
        match self.flush().await {
            Ok(()) | Err(FlushError::Closed(_)) => reason,
        }
    }

    /// As [`closed`](Self::closed), and the peer was told goodbye, if it listens. To be waited for where the process ends next: a
    /// peer that hears no goodbye keeps the session for a while, in case that somebody comes back to it.
    ///
    /// # Bounds
    ///
    /// Longer than `closed` by [`limits::FAREWELL_DEADLINE`](crate::limits::FAREWELL_DEADLINE) at most.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn left(&self) -> Reason {
        let reason = self.closed().await;
        let mut driving = self.link.common().driving.subscribe();
        // Its sender lives as long as the channel does.
        drop(driving.wait_for(|driving| !driving).await);
        reason
    }

    /// The address that was dialled; of an accepted session, the address that its server was asked for.
    pub fn addr(&self) -> &ChannelAddr {
        &self.link.common().addr
    }

    /// Whether the channel has ended for good: every later post fails at once.
    pub fn is_closed(&self) -> bool {
        matches!(&*self.link.common().status.borrow(), Status::Closed(_))
    }

    /// Follows the status.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.link.common().status.subscribe()
    }

    /// The room of this channel, as a value that can be kept without keeping the channel open. Of messages that name a
    /// destination, each destination has a room of its own: see [`capacity_for`](Self::capacity_for).
    pub fn capacity(&self) -> Capacity {
        self.link.common().capacity.clone()
    }

    /// The room for messages to the destination of this one: what to wait for when it came back as [`Reason::Full`].
    pub fn capacity_for(&self, message: &M) -> Capacity {
        self.link.capacity_for(message)
    }
}
