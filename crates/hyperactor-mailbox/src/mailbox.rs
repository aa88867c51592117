//! The mailbox of one actor: a table from port numbers to what stands behind them. The ports are in `port.rs` and
//! `once_port.rs`, the table of all mailboxes of a proc in `muxer.rs`.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use hyperactor_refs::{ActorId, PortId};
use parking_lot::{Mutex, RwLock};

use crate::asked::{Asked, InHand, Never};
use crate::envelope::MessageEnvelope;
use crate::failure::NotDelivered;
use crate::fold_port::{self, FoldReceiver};
use crate::hash::KeyHash;
use crate::limits;
use crate::lock::BriefMutex;
use crate::message::Message;
use crate::notice::{self, Notice};
use crate::once_port::{self, OncePortHandle, OncePortReceiver};
use crate::once_ref::OncePortRef;
use crate::payload::Payload;
use crate::port::{self, PortHandle, PortReceiver};
use crate::recent;
use crate::sender::{BoxFuture, FlushError, MailboxSender};
use crate::settle::{ReturnHandle, ReturnSink, Token};
use crate::undeliverable::Undeliverable;

/// What a mailbox has behind a port number.
pub trait PortSink: Send + Sync + 'static {
    /// Takes the message, or gives it back with a reason, before it returns. Called with no lock held; must not block.
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle);

    /// The mailbox was closed, and nothing will come any more.
    fn closed(&self) {}

    /// Somebody told that what the port waits for will never come. Ports for many messages wait for none of them.
    fn never(&self, why: Never) {
        let _ = why;
    }

    /// Whether its owner waits for the one message of the port.
    fn is_awaited(&self) -> bool {
        false
    }
}

/// Where the messages for one actor arrive. A clone is another handle of the same mailbox.
///
/// # Bounds
/// At most [`limits::PORTS_PER_MAILBOX`] bound ports.
///
/// # Ordering
/// Messages posted by one thread for one port are placed in the order posted.
#[derive(Clone)]
pub struct Mailbox(Arc<Inner>);

/// A mailbox that is remembered and not kept alive.
#[derive(Clone)]
pub(crate) struct WeakMailbox(Weak<Inner>);

impl WeakMailbox {
    pub(crate) fn upgrade(&self) -> Option<Mailbox> {
        self.0.upgrade().map(Mailbox)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.upgrade().is_some_and(|mailbox| !mailbox.is_closed())
    }
}

/// One for each actor, so what most of them never need is in [`More`].
pub(crate) struct Inner {
    actor_id: ActorId,
    next_port: AtomicU64,
    ports: RwLock<Ports>,
    /// Whose mailbox it is: for those who know the type, and to tell of messages that were delivered elsewhere and not handled.
    owner: OnceLock<Weak<dyn Owner>>,
    more: OnceLock<Box<More>>,
    /// Of each port.
    capacity: u32,
    /// Set under the lock of the ports.
    is_closed: AtomicBool,
}

#[derive(Default)]
struct More {
    /// Requests from other processes that this actor has and whose senders may still withdraw them.
    requests: Mutex<Requests>,
    /// Whom to tell of messages that were delivered elsewhere and not handled, instead of the owner.
    reports: Mutex<Option<Arc<dyn ReturnSink>>>,
    /// What its owner keeps for the next wait.
    kept: BriefMutex<Kept>,
}

/// What is kept with a mailbox for whoever waits at it, as a timer.
#[derive(Default)]
pub enum Kept {
    /// Nothing yet. Whoever takes it out may make something and [keep](Mailbox::keep) it.
    #[default]
    Nothing,
    /// Somebody has it, and is to bring it back.
    Taken,
    /// This.
    There(Box<dyn Any + Send>),
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Taken => "Taken",
            Self::There(_) => "There(..)",
        })
    }
}

/// Whoever has a mailbox.
pub(crate) trait Owner: ReturnSink + Any {}

impl<T: ReturnSink> Owner for T {}

type Requests = HashMap<PortId, Weak<dyn Asked>>;

type Ports = HashMap<u64, Arc<dyn PortSink>, KeyHash>;

/// A port, or an actor, was not bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Something is bound there already.
    #[error("port `{port_id}` is bound already")]
    PortTaken {
        /// The port.
        port_id: PortId,
    },
    /// The mailbox is closed.
    #[error("the mailbox of actor `{actor_id}` is closed")]
    Closed {
        /// Whose mailbox.
        actor_id: ActorId,
    },
    /// The mailbox has as many ports as it may.
    #[error(
        "the mailbox of actor `{actor_id}` has {max} ports, which is the limit; drop receivers no longer used"
    )]
    TooManyPorts {
        /// Whose mailbox.
        actor_id: ActorId,
        /// The limit.
        max: usize,
    },
    /// An actor of this id has its mailbox there already.
    #[error("actor `{actor_id}` is bound already")]
    ActorTaken {
        /// The actor.
        actor_id: ActorId,
    },
    /// There are as many actors as there may be.
    #[error("actor `{actor_id}` not bound: there are {max} actors, which is the limit")]
    TooManyActors {
        /// The actor that was to be bound.
        actor_id: ActorId,
        /// The limit.
        max: usize,
    },
}

impl Mailbox {
    /// The empty mailbox of an actor. Its ports hold [`limits::QUEUE_CAPACITY_DEFAULT`] messages each.
    #[must_use]
    pub fn new(actor_id: ActorId) -> Self {
        Self::with_capacity(actor_id, limits::QUEUE_CAPACITY_DEFAULT)
    }

    /// The empty mailbox of an actor, whose ports hold `capacity` messages of local senders each; at most 2³² - 1.
    #[must_use]
    pub fn with_capacity(actor_id: ActorId, capacity: usize) -> Self {
        Self(Arc::new(Inner {
            actor_id,
            next_port: AtomicU64::new(limits::FIRST_EPHEMERAL_PORT),
            ports: RwLock::default(),
            owner: OnceLock::new(),
            more: OnceLock::new(),
            // So many messages fit into no memory.
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// Whose mailbox it is.
    #[must_use]
    pub fn actor_id(&self) -> &ActorId {
        &self.0.actor_id
    }

    /// Says whose mailbox it is. References of the owner's own proc that know its type then reach it past the ports; and it is
    /// told of messages that were delivered to another process and not handled there, unless somebody else
    /// [is](Self::report_to). Only the first call counts.
    pub fn set_owner<O: ReturnSink>(&self, owner: Weak<O>) {
        // A mailbox changes hands as little as an id does.
        let _ = self.0.owner.set(owner);
    }

    pub(crate) fn owner(&self) -> Option<Weak<dyn Owner>> {
        self.0.owner.get().cloned()
    }

    /// Opens a port for many messages. Others can post to it once its handle is [bound](PortHandle::bind); it ends
    /// when the receiver is dropped.
    #[must_use]
    pub fn open_port<M: Send + 'static>(&self) -> (PortHandle<M>, PortReceiver<M>) {
        self.open_port_with_capacity(self.0.capacity as usize)
    }

    /// As [`open_port`](Self::open_port), for `capacity` messages of local senders.
    #[must_use]
    pub fn open_port_with_capacity<M: Send + 'static>(
        &self,
        capacity: usize,
    ) -> (PortHandle<M>, PortReceiver<M>) {
        port::open(Arc::downgrade(&self.0), self.0.next_port_id(), capacity)
    }

    /// Opens a port that holds at most one value: each message is merged into the one that waits.
    ///
    /// With `|waiting, newer| *waiting = newer` the newest value wins. The receiver sees every value, or one that it was
    /// merged into. A message is never refused for lack of room.
    ///
    /// `merge` runs in the thread that posts, with the port locked: it must be quick, and must not post to this port.
    ///
    /// ```
    /// # use hyperactor_mailbox::Mailbox;
    /// # use hyperactor_refs::{ActorId, ProcId};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let proc_id = ProcId::direct("local:1".parse()?, "demo")?;
    /// let mailbox = Mailbox::new(ActorId::root(proc_id, "gauge"));
    /// let (port, mut newest) = mailbox.open_coalescing_port(|waiting: &mut u64, newer| *waiting = newer);
    /// for value in 1..=1_000_000 {
    ///     port.post(value)?;
    /// }
    /// assert_eq!(newest.try_recv(), Some(1_000_000));
    /// assert_eq!(newest.try_recv(), None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn open_coalescing_port<M: Send + 'static>(
        &self,
        merge: impl Fn(&mut M, M) + Send + Sync + 'static,
    ) -> (PortHandle<M>, FoldReceiver<M>) {
        let fold = move |waiting: Option<M>, newer: M| match waiting {
            Some(mut waiting) => {
                merge(&mut waiting, newer);
                waiting
            }
            None => newer,
        };
        fold_port::open(Arc::downgrade(&self.0), self.0.next_port_id(), fold)
    }

    /// Opens a port that adds up what comes: each message is folded into a state, which the receiver takes as a whole.
    /// The next message then begins with `init` again.
    ///
    /// `fold` runs in the thread that posts, with the port locked: it must be quick, and must not post to this port.
    ///
    /// # Bounds
    /// One state; how large it may grow is up to `fold`.
    #[must_use]
    pub fn open_accumulating_port<M: Send + 'static, S: Send + 'static>(
        &self,
        init: impl Fn() -> S + Send + Sync + 'static,
        fold: impl Fn(&mut S, M) + Send + Sync + 'static,
    ) -> (PortHandle<M>, FoldReceiver<S>) {
        let fold = move |state: Option<S>, message: M| {
            let mut state = state.unwrap_or_else(&init);
            fold(&mut state, message);
            state
        };
        fold_port::open(Arc::downgrade(&self.0), self.0.next_port_id(), fold)
    }

    /// Opens a port for one message. It ends with that message, or when the receiver is dropped.
    #[must_use]
    pub fn open_once_port<M: Send + 'static>(&self) -> (OncePortHandle<M>, OncePortReceiver<M>) {
        self.open_reply_port(InHand::Free)
    }

    /// As [`open_once_port`](Self::open_once_port), for a reply that the owner waits for while it has `in_hand`.
    #[must_use]
    pub fn open_reply_port<M: Send + 'static>(
        &self,
        in_hand: InHand,
    ) -> (OncePortHandle<M>, OncePortReceiver<M>) {
        once_port::open(Arc::downgrade(&self.0), self.0.next_port_id(), in_hand)
    }

    /// As [`open_reply_port`](Self::open_reply_port), but the mailbox does not know of the port until its id is: for a reply that
    /// is likely to come through this very reference.
    ///
    /// Until then the port does not learn that the mailbox was closed: the caller knows that it is not, for as long as it
    /// waits.
    #[must_use]
    pub fn open_unnamed_reply_port<M: Message>(
        &self,
        in_hand: InHand,
    ) -> (OncePortRef<M>, OncePortReceiver<M>) {
        once_port::open_unnamed(Arc::downgrade(&self.0), self.0.next_port_id(), in_hand)
    }

    /// Whether the owner waits for the one message of this port.
    #[must_use]
    pub fn awaits(&self, index: u64) -> bool {
        self.sink(index).is_some_and(|sink| sink.is_awaited())
    }

    /// Remembers a request from another process, so that its sender can withdraw it, under the port of its reply.
    ///
    /// # Bounds
    /// At most [`limits::REQUESTS_PER_MAILBOX`]; a further one is handled although its sender may have withdrawn it.
    pub fn enter_request(&self, reply_port: PortId, request: &Arc<dyn Asked>) {
        let mut requests = self.0.more.get_or_init(Box::default).requests.lock();
        if requests.len() < limits::REQUESTS_PER_MAILBOX {
            requests.insert(reply_port, Arc::downgrade(request));
        }
    }

    /// Forgets a request that is done with.
    pub fn leave_request(&self, reply_port: &PortId) {
        if let Some(more) = self.0.more.get() {
            more.requests.lock().remove(reply_port);
        }
    }

    /// Puts `sink` behind the port number `index`.
    ///
    /// # Errors
    /// [`BindError`] when the number is taken, the mailbox closed, or the table full.
    pub fn bind_sink(&self, index: u64, sink: Arc<dyn PortSink>) -> Result<(), BindError> {
        self.0.bind(index, sink)
    }

    /// Takes away what is behind a port number; later messages for it come back.
    pub fn unbind_sink(&self, index: u64) -> Option<Arc<dyn PortSink>> {
        self.0.unbind(index)
    }

    /// Closes every bound port. From now on messages come back as [`NotDelivered::ActorStopped`].
    pub fn close(&self) {
        let sinks = {
            let mut ports = self.0.ports.write();
            self.0.is_closed.store(true, Ordering::Release);
            recent::forget();
            std::mem::take(&mut *ports)
        };
        for sink in sinks.into_values() {
            sink.closed();
        }
        // Whoever it is may own the mailbox in turn.
        let reports = self.0.more.get().map(|more| more.reports.lock().take());
        drop(reports);
        // What is taken out is dropped when it comes back.
        let kept = self
            .0
            .more
            .get()
            .map(|more| std::mem::take(&mut *more.kept.lock()));
        drop(kept);
    }

    /// Keeps something that whoever waits at this mailbox can use again, as a timer, until the mailbox is closed. There is
    /// place for one: it was [taken](Self::take_kept) before.
    pub fn keep(&self, kept: Box<dyn Any + Send>) {
        let mut place = self.0.more.get_or_init(Box::default).kept.lock();
        // Looked at under the lock that the end takes, too.
        let useless = match self.is_closed() {
            true => Kept::There(kept),
            false => std::mem::replace(&mut *place, Kept::There(kept)),
        };
        drop(place);
        drop(useless);
    }

    /// Takes out what is [kept](Self::keep). Whoever finds anything but [`Kept::Taken`] is to keep something again when it is
    /// done; until then the others find that.
    #[must_use]
    pub fn take_kept(&self) -> Kept {
        let mut place = self.0.more.get_or_init(Box::default).kept.lock();
        std::mem::replace(&mut *place, Kept::Taken)
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Acquire)
    }

    pub(crate) fn downgrade(&self) -> WeakMailbox {
        WeakMailbox(Arc::downgrade(&self.0))
    }

    /// How many ports are bound.
    #[must_use]
    pub fn bound_ports(&self) -> usize {
        self.0.ports.read().len()
    }

    /// Has somebody told of messages that were delivered to another process and not handled there, until the mailbox is
    /// closed. Without this and without an [owner](Self::set_owner) they are logged.
    pub fn report_to(&self, sink: Arc<dyn ReturnSink>) {
        *self.0.more.get_or_init(Box::default).reports.lock() = Some(sink);
    }

    /// Whom to tell of what comes back late.
    fn reports(&self) -> Option<Arc<dyn ReturnSink>> {
        if let Some(sink) = self
            .0
            .more
            .get()
            .and_then(|more| more.reports.lock().clone())
        {
            return Some(sink);
        }
        let owner = self.0.owner.get().filter(|_| !self.is_closed())?;
        Some(owner.upgrade()?)
    }

    /// What is behind a port number.
    fn sink(&self, index: u64) -> Option<Arc<dyn PortSink>> {
        self.0.ports.read().get(&index).cloned()
    }

    /// Acts on a notice of another mailbox.
    fn notice(&self, notice: Notice) {
        match notice {
            Notice::Returned {
                dest,
                type_hash,
                message,
                reason,
            } => {
                let payload = Payload::Encoded {
                    type_hash,
                    bytes: message,
                };
                let envelope = MessageEnvelope::new(self.actor_id().clone(), dest, payload);
                let report = Undeliverable::new(envelope, *reason);
                match self.reports() {
                    Some(sink) => sink.undelivered(Token::default(), report),
                    None => ReturnHandle::monitored().report(report),
                }
            }
            Notice::Never { reply_port, why } => {
                if let Some(sink) = self.sink(reply_port) {
                    sink.never(why);
                }
            }
            Notice::Withdrawn { reply_port } => {
                let request = self.0.more.get().and_then(|more| {
                    let requests = more.requests.lock();
                    requests.get(&reply_port).and_then(Weak::upgrade)
                });
                if let Some(request) = request {
                    request.withdrawn();
                }
            }
            Notice::Probe => {}
        }
    }

    /// Places an envelope whose destination is known to be this actor; [`post`](MailboxSender::post) compares the ids.
    pub fn place(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.place_found(envelope, return_handle, |_, _| {});
    }

    /// As [`place`](Self::place), and shows what is behind the port before the envelope goes there.
    #[inline]
    pub(crate) fn place_found(
        &self,
        envelope: MessageEnvelope,
        return_handle: ReturnHandle,
        found: impl FnOnce(&PortId, &Arc<dyn PortSink>),
    ) {
        if envelope.dest().index() == limits::NOTICE_PORT {
            return match notice::read(envelope) {
                Ok(notice) => {
                    // Taken before it is acted on: what follows may take its time.
                    drop(return_handle.delivered());
                    self.notice(notice);
                }
                Err((envelope, error)) => port::refuse(envelope, error, return_handle),
            };
        }
        let bound = {
            let ports = self.0.ports.read();
            ports
                .get(&envelope.dest().index())
                .cloned()
                .ok_or_else(|| self.is_closed())
        };
        match bound {
            Ok(sink) => {
                found(envelope.dest(), &sink);
                sink.deliver(envelope, return_handle);
            }
            Err(true) => {
                let actor_id = self.actor_id().clone();
                return_handle.undeliverable(envelope, NotDelivered::ActorStopped { actor_id });
            }
            Err(false) => {
                let port_id = envelope.dest().clone();
                return_handle.undeliverable(envelope, NotDelivered::UnknownPort { port_id });
            }
        }
    }
}

impl Inner {
    pub(crate) fn next_port_id(&self) -> PortId {
        // Never wraps: at a port a nanosecond it takes 292 years to reach the numbers of message types.
        PortId::new(
            self.actor_id.clone(),
            self.next_port.fetch_add(1, Ordering::Relaxed),
        )
    }

    pub(crate) fn bind(&self, index: u64, sink: Arc<dyn PortSink>) -> Result<(), BindError> {
        let mut ports = self.ports.write();
        if self.is_closed.load(Ordering::Acquire) {
            return Err(BindError::Closed {
                actor_id: self.actor_id.clone(),
            });
        }
        if ports.len() >= limits::PORTS_PER_MAILBOX {
            return Err(BindError::TooManyPorts {
                actor_id: self.actor_id.clone(),
                max: limits::PORTS_PER_MAILBOX,
            });
        }
        match ports.entry(index) {
            Entry::Occupied(_) => Err(BindError::PortTaken {
                port_id: PortId::new(self.actor_id.clone(), index),
            }),
            Entry::Vacant(entry) => {
                entry.insert(sink);
                Ok(())
            }
        }
    }

    pub(crate) fn unbind(&self, index: u64) -> Option<Arc<dyn PortSink>> {
        let mut ports = self.ports.write();
        if recent::is_kept(index) {
            recent::forget();
        }
        ports.remove(&index)
    }
}

/// Binds a port that was opened here. A port that cannot be bound is as one whose mailbox is closed: messages for it
/// come back to their senders. Why, the log tells the owner.
pub(crate) fn bind_opened(mailbox: &Weak<Inner>, port_id: &PortId, sink: &Arc<dyn PortSink>) {
    let Some(mailbox) = mailbox.upgrade() else {
        return sink.closed();
    };
    match mailbox.bind(port_id.index(), Arc::clone(sink)) {
        Ok(()) | Err(BindError::PortTaken { .. }) => {}
        Err(error) => {
            if !matches!(error, BindError::Closed { .. }) {
                tracing::error!(%port_id, "port not bound: {error}");
            }
            sink.closed();
        }
    }
}

impl MailboxSender for Mailbox {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        if envelope.dest().actor_id() == self.actor_id() {
            self.place(envelope, return_handle);
        } else {
            let actor_id = envelope.dest().actor_id().clone();
            return_handle.undeliverable(envelope, NotDelivered::UnknownActor { actor_id });
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        // Everything is settled before `post` returns.
        Box::pin(std::future::ready(Ok(())))
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.0.ports.read();
        f.debug_struct("Mailbox")
            .field("actor_id", &format_args!("{}", self.0.actor_id))
            .field("ports", &ports.len())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}
