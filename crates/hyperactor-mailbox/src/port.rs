//! Ports for many messages: a handle to post with, a receiver, and the sink that a mailbox has for it.

use std::fmt;
use std::sync::{Arc, Weak};

use hyperactor_refs::PortId;
use parking_lot::Mutex;

use crate::capacity::Capacity;
use crate::envelope::MessageEnvelope;
use crate::failure::NotDelivered;
use crate::limits;
use crate::mailbox::{self, Inner, PortSink};
use crate::message::Message;
use crate::payload::{Payload, PayloadError};
use crate::port_ref::PortRef;
use crate::queue::{PushError, Queue};
use crate::settle::{Lease, ReturnHandle};
use crate::undeliverable::Undeliverable;

/// Opens a port under `port_id`.
pub(crate) fn open<M: Send + 'static>(
    mailbox: Weak<Inner>,
    port_id: PortId,
    capacity: usize,
) -> (PortHandle<M>, PortReceiver<M>) {
    let queue = Queue::new(capacity);
    let owner = Owner::new(mailbox);
    let take: Arc<dyn Take<M>> = Arc::new(queue.clone());
    let handle = PortHandle::new(port_id.clone(), Arc::clone(&owner), take);
    (
        handle,
        PortReceiver {
            port_id,
            queue,
            owner,
            batch: Vec::new(),
        },
    )
}

/// Which numbers in the mailbox's table belong to one receiver.
pub(crate) struct Owner {
    mailbox: Weak<Inner>,
    indices: Mutex<Vec<u64>>,
}

/// Takes messages: a queue, or a function in front of one.
pub(crate) trait Take<M>: Send + Sync {
    /// Puts a message in, or gives it back with its lease.
    fn take(&self, message: M, lease: Lease) -> Result<(), (TakeError<M>, Lease)>;
    /// Holds a place, for a message that is not made yet.
    fn hold(&self) -> Result<(), PushError<()>>;
    /// Gives the place back.
    fn let_go(&self);
    /// Fills the place; false when the port was closed since.
    fn fill(&self, message: M) -> bool;
    fn room(&self) -> (Capacity, u64);
    fn close(&self);
    fn is_closed(&self) -> bool;
}

/// Why a message was not taken.
pub(crate) enum TakeError<M> {
    Full(M),
    Closed(M),
    /// Closed after the message had been turned into another.
    Gone,
}

impl<M: Send + 'static> Take<M> for Queue<M> {
    fn take(&self, message: M, lease: Lease) -> Result<(), (TakeError<M>, Lease)> {
        self.push(message, lease)
            .map_err(|(error, lease)| match error {
                PushError::Full(message) | PushError::Shed(message) => {
                    (TakeError::Full(message), lease)
                }
                PushError::Closed(message) => (TakeError::Closed(message), lease),
            })
    }

    fn hold(&self) -> Result<(), PushError<()>> {
        self.reserve()
    }

    fn let_go(&self) {
        self.unreserve();
    }

    fn fill(&self, message: M) -> bool {
        self.push_reserved(message)
    }

    fn room(&self) -> (Capacity, u64) {
        (self.capacity(), self.max_local() as u64)
    }

    fn close(&self) {
        self.seal();
    }

    fn is_closed(&self) -> bool {
        Queue::is_closed(self)
    }
}

struct Mapped<M, F> {
    inner: Arc<dyn Take<M>>,
    map: F,
}

/// Gives a held place back, unless it was filled: also when the user's function panics.
struct Held<'a, M>(&'a dyn Take<M>);

impl<M> Drop for Held<'_, M> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl<N, M, F> Take<N> for Mapped<M, F>
where
    N: Send + 'static,
    M: Send + 'static,
    F: Fn(N) -> M + Send + Sync + 'static,
{
    fn take(&self, message: N, lease: Lease) -> Result<(), (TakeError<N>, Lease)> {
        if !lease.is_local() {
            // Always fits, so no place has to be held.
            if self.inner.is_closed() {
                return Err((TakeError::Closed(message), lease));
            }
            let message = (self.map)(message);
            return self
                .inner
                .take(message, lease)
                .map_err(|(_, lease)| (TakeError::Gone, lease));
        }
        match self.inner.hold() {
            Ok(()) => {
                let is_filled = self.fill(message);
                if is_filled {
                    Ok(())
                } else {
                    Err((TakeError::Gone, lease))
                }
            }
            Err(PushError::Full(()) | PushError::Shed(())) => {
                Err((TakeError::Full(message), lease))
            }
            Err(PushError::Closed(())) => Err((TakeError::Closed(message), lease)),
        }
    }

    fn hold(&self) -> Result<(), PushError<()>> {
        self.inner.hold()
    }

    fn let_go(&self) {
        self.inner.let_go();
    }

    fn fill(&self, message: N) -> bool {
        let held = Held(&*self.inner);
        let message = (self.map)(message);
        std::mem::forget(held);
        self.inner.fill(message)
    }

    fn room(&self) -> (Capacity, u64) {
        self.inner.room()
    }

    fn close(&self) {
        self.inner.close();
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}

/// Posts to a port of this process, without an envelope.
pub struct PortHandle<M> {
    port_id: PortId,
    owner: Arc<Owner>,
    take: Arc<dyn Take<M>>,
}

impl<M> PortHandle<M> {
    pub(crate) fn new(port_id: PortId, owner: Arc<Owner>, take: Arc<dyn Take<M>>) -> Self {
        Self {
            port_id,
            owner,
            take,
        }
    }
}

impl<M: Send + 'static> PortHandle<M> {
    /// The port's id.
    #[must_use]
    pub fn port_id(&self) -> &PortId {
        &self.port_id
    }

    /// Puts a message into the port's queue.
    ///
    /// # Errors
    /// [`NotDelivered::QueueFull`], or [`NotDelivered::UnknownPort`] once the receiver is gone. The message is dropped.
    pub fn post(&self, message: M) -> Result<(), NotDelivered> {
        let port_id = self.port_id.clone();
        self.take
            .take(message, Lease::none())
            .map_err(|(error, _)| match error {
                TakeError::Full(_) => NotDelivered::QueueFull {
                    port_id,
                    capacity: self.take.room().1,
                },
                TakeError::Closed(_) | TakeError::Gone => NotDelivered::UnknownPort { port_id },
            })
    }

    /// What to wait for when the queue is full.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.take.room().0
    }

    /// A handle that takes another type and turns it into this port's. It can be bound as a port of its own.
    #[must_use]
    pub fn contramap<N: Send + 'static>(
        &self,
        map: impl Fn(N) -> M + Send + Sync + 'static,
    ) -> PortHandle<N> {
        let port_id = match self.owner.mailbox.upgrade() {
            Some(mailbox) => mailbox.next_port_id(),
            None => self.port_id.clone(),
        };
        let take = Arc::new(Mapped {
            inner: Arc::clone(&self.take),
            map,
        });
        PortHandle {
            port_id,
            owner: Arc::clone(&self.owner),
            take,
        }
    }
}

impl<M: Message> PortHandle<M> {
    /// Makes the port one that others can post to, also from other processes. Binding again gives the same reference.
    ///
    /// When the mailbox is closed, or has as many ports as it may, messages to the reference come back to their senders.
    #[must_use]
    pub fn bind(&self) -> PortRef<M> {
        let index = self.port_id.index();
        let mut indices = self.owner.indices.lock();
        if !indices.contains(&index) {
            indices.push(index);
            drop(indices);
            let sink: Arc<dyn PortSink> = Arc::new(Sink {
                take: Arc::clone(&self.take),
            });
            mailbox::bind_opened(&self.owner.mailbox, &self.port_id, &sink);
            if self.take.is_closed() {
                // The receiver was dropped meanwhile, perhaps before the port was bound.
                if let Some(mailbox) = self.owner.mailbox.upgrade() {
                    drop(mailbox.unbind(index));
                }
            }
        }
        PortRef::attest(self.port_id.clone())
    }
}

impl Owner {
    pub(crate) fn new(mailbox: Weak<Inner>) -> Arc<Self> {
        Arc::new(Self {
            mailbox,
            indices: Mutex::new(Vec::new()),
        })
    }

    pub(crate) fn unbind(&self) {
        let indices = std::mem::take(&mut *self.indices.lock());
        if let Some(mailbox) = self.mailbox.upgrade() {
            for index in indices {
                drop(mailbox.unbind(index));
            }
        }
    }
}

impl<M> Clone for PortHandle<M> {
    fn clone(&self) -> Self {
        Self {
            port_id: self.port_id.clone(),
            owner: Arc::clone(&self.owner),
            take: Arc::clone(&self.take),
        }
    }
}

impl<M> fmt::Debug for PortHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortHandle({})", self.port_id)
    }
}

/// What the mailbox has for a bound port.
struct Sink<M> {
    take: Arc<dyn Take<M>>,
}

impl<M: Message> PortSink for Sink<M> {
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let (message, head) = match envelope.split::<M>() {
            Ok(parts) => parts,
            Err((envelope, error)) => return refuse(envelope, error, return_handle),
        };
        let port_id = head.dest().clone();
        let error = match self.take.take(message, return_handle.lease()) {
            Ok(()) => return return_handle.placed(),
            Err((error, lease)) => {
                lease.forget();
                error
            }
        };
        match error {
            TakeError::Full(message) => {
                let (room, capacity) = self.take.room();
                let envelope = head.with_payload(Payload::typed(message));
                let mut report =
                    Undeliverable::new(envelope, NotDelivered::QueueFull { port_id, capacity });
                report.capacity = Some(room);
                return_handle.report(report);
            }
            TakeError::Closed(message) => {
                let envelope = head.with_payload(Payload::typed(message));
                return_handle.undeliverable(envelope, NotDelivered::UnknownPort { port_id });
            }
            TakeError::Gone => return_handle.lost(NotDelivered::UnknownPort { port_id }),
        }
    }

    fn closed(&self) {
        self.take.close();
    }
}

/// Gives back a message that is not what the port takes.
pub(crate) fn refuse(envelope: MessageEnvelope, error: PayloadError, return_handle: ReturnHandle) {
    let reason = match error {
        PayloadError::TypeMismatch { expected, found } => NotDelivered::TypeMismatch {
            port_id: envelope.dest().clone(),
            expected,
            found,
        },
        PayloadError::Decode { expected, error } => NotDelivered::Decode {
            error: format!("{expected}: {error}"),
        },
    };
    return_handle.undeliverable(envelope, reason);
}

/// Receives what is posted to a port. Dropping it ends the port: later messages come back to their senders.
pub struct PortReceiver<M: Send + 'static> {
    port_id: PortId,
    queue: Queue<M>,
    owner: Arc<Owner>,
    /// Taken out of the queue and not yet received, the first one last.
    batch: Vec<M>,
}

impl<M: Send + 'static> PortReceiver<M> {
    /// The port's id.
    #[must_use]
    pub fn port_id(&self) -> &PortId {
        &self.port_id
    }

    /// The next message; `None` when the mailbox was closed and everything is received.
    ///
    /// # Cancel safety
    /// Cancel safe: a message is taken only in the moment it is returned.
    pub async fn recv(&mut self) -> Option<M> {
        if self.batch.is_empty() {
            self.queue
                .recv_many(&mut self.batch, limits::RECV_BATCH)
                .await;
            self.batch.reverse();
        }
        self.batch.pop()
    }

    /// The next message, if there is one now.
    pub fn try_recv(&mut self) -> Option<M> {
        if self.batch.is_empty() {
            self.queue
                .try_recv_many(&mut self.batch, limits::RECV_BATCH);
            self.batch.reverse();
        }
        self.batch.pop()
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len() + self.queue.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<M: Send + 'static> Drop for PortReceiver<M> {
    fn drop(&mut self) {
        // Closed before unbound: a handle that is bound meanwhile sees one or the other.
        drop(self.queue.close());
        self.owner.unbind();
    }
}

impl<M: Send + 'static> fmt::Debug for PortReceiver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortReceiver({}, {} waiting)", self.port_id, self.len())
    }
}
