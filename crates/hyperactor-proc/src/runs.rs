//! Messages of one type that follow each other in an actor's queue, side by side in one buffer: a message costs no
//! allocation of its own, and is found by its type without being unpacked. The queue that is made of such runs is in
//! `inbox.rs`.

use std::any::Any;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::BytesMut;
use hyperactor_mailbox::{
    Asked, BoxFuture, EncodeError, ErasedMessage, Lease, LeaseGroup, Message, MessageEnvelope,
    Payload,
};
use hyperactor_refs::{ActorId, PortId};

use crate::batch::{Batch, crash, run};
use crate::{Actor, ActorResult, Context, Handler, PanicReport, TraceContext, limits};

/// Who sent a message, so that they can be told if it is never handled.
///
/// A post within the proc leaves only the hash of its sender's id: the id itself would cost a reference count that the
/// sending and the receiving thread then pass back and forth.
pub(crate) enum Origin {
    /// By a handle, from whoever has an id of this hash.
    Handle { sender_hash: u64 },
    /// By a reference, from somebody of the same proc.
    Reference { sender_hash: u64 },
    /// By the actor itself, later: a timer, or a future whose result it waits for. The token counts the messages of one
    /// such source that still wait.
    Own { _token: Arc<()> },
    /// By somebody of the same proc who waits for the reply.
    Request { asked: Arc<dyn Asked> },
    /// By an envelope of this process.
    Envelope {
        sender: ActorId,
        asked: Option<Arc<dyn Asked>>,
    },
    /// By a session from another process.
    Remote {
        sender: ActorId,
        asked: Option<Arc<dyn Asked>>,
    },
}

impl Origin {
    /// The request that the message is, if its sender waits for a reply.
    pub(crate) fn asked(&self) -> Option<&Arc<dyn Asked>> {
        match self {
            Self::Handle { .. } | Self::Reference { .. } | Self::Own { .. } => None,
            Self::Request { asked } => Some(asked),
            Self::Envelope { asked, .. } | Self::Remote { asked, .. } => asked.as_ref(),
        }
    }
}

impl Origin {
    pub(crate) fn into_asked(self) -> Option<Arc<dyn Asked>> {
        match self {
            Self::Handle { .. } | Self::Reference { .. } | Self::Own { .. } => None,
            Self::Request { asked } => Some(asked),
            Self::Envelope { asked, .. } | Self::Remote { asked, .. } => asked,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle { .. } => f.write_str("through a handle"),
            Self::Reference { .. } => f.write_str("through a reference"),
            Self::Own { .. } => f.write_str("from itself"),
            Self::Request { .. } => f.write_str("by an ask"),
            Self::Envelope { sender, .. } | Self::Remote { sender, .. } => {
                write!(f, "from `{sender}`")
            }
        }
    }
}

/// What lies in the queue beside a message. Most messages have nothing but the hash of their sender, and those from another
/// process what they share with the others that their sender sent by the same session.
pub(crate) enum Meta {
    Handle(u64),
    Reference(u64),
    /// A request from within the proc: who asked, the run has in a row of its own.
    Request,
    Remote(Remote),
    Full(Box<Full>),
}

// Two words, whatever it says: they are copied with every message.
const _: () = assert!(size_of::<Meta>() == 16);

/// What messages of one sender have in common that came by one session.
pub(crate) struct Source {
    pub(crate) sender: ActorId,
    pub(crate) leases: LeaseGroup,
}

/// Beside a message that came from another process and has no more to it. Dropped when the message leaves its queue, which
/// gives its credit back.
pub(crate) struct Remote {
    source: Arc<Source>,
    size: u32,
    // The values that this has not are what tells the kinds of `Meta` apart, which so needs no place of its own.
    lease: Held,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    No,
}

impl Remote {
    pub(crate) fn new(source: Arc<Source>, size: u32) -> Self {
        Self {
            source,
            size,
            lease: Held::Yes,
        }
    }

    fn forget_lease(mut self) {
        self.lease = Held::No;
    }

    fn into_full(mut self) -> Box<Full> {
        self.lease = Held::No;
        Box::new(Full {
            origin: Origin::Remote {
                sender: self.source.sender.clone(),
                asked: None,
            },
            lease: self.source.leases.lease(self.size),
            trace: None,
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.lease == Held::Yes {
            self.source.leases.release(self.size);
        }
    }
}

/// What the others have.
pub(crate) struct Full {
    pub(crate) origin: Origin,
    pub(crate) lease: Lease,
    pub(crate) trace: Option<TraceContext>,
}

impl Meta {
    /// Of a message posted within the proc through a handle, by whoever has an id of this hash.
    #[inline]
    pub(crate) fn handle(sender_hash: u64, trace: Option<TraceContext>) -> Self {
        match trace {
            None => Self::Handle(sender_hash),
            Some(_) => Self::full(Origin::Handle { sender_hash }, Lease::none(), trace),
        }
    }

    /// Of a message posted within the proc through a reference, by whoever has an id of this hash.
    #[inline]
    pub(crate) fn reference(sender_hash: u64, trace: Option<TraceContext>) -> Self {
        match trace {
            None => Self::Reference(sender_hash),
            Some(_) => Self::full(Origin::Reference { sender_hash }, Lease::none(), trace),
        }
    }

    pub(crate) fn full(origin: Origin, lease: Lease, trace: Option<TraceContext>) -> Self {
        Self::Full(Box::new(Full {
            origin,
            lease,
            trace,
        }))
    }

    /// Of a message of the actor to itself, made by a task of its own.
    pub(crate) fn own(token: Arc<()>) -> Self {
        Self::full(Origin::Own { _token: token }, Lease::none(), None)
    }

    /// Whether the message counts against the queue's capacity.
    #[inline]
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Handle(_) | Self::Reference(_) | Self::Request => true,
            Self::Remote(_) => false,
            Self::Full(full) => full.lease.is_local(),
        }
    }

    /// The request that the message is, if it is one that has it.
    pub(crate) fn into_asked(self) -> Option<Arc<dyn Asked>> {
        match self {
            Self::Full(full) => full.origin.into_asked(),
            Self::Handle(_) | Self::Reference(_) | Self::Remote(_) | Self::Request => None,
        }
    }

    /// The message was not placed: its lease ends without giving credit back.
    pub(crate) fn forget_lease(self) {
        match self {
            Self::Full(full) => full.lease.forget(),
            Self::Remote(remote) => remote.forget_lease(),
            Self::Handle(_) | Self::Reference(_) | Self::Request => {}
        }
    }

    /// `asked` is the request, where that is what the message is.
    fn into_full(self, asked: impl FnOnce() -> Option<Arc<dyn Asked>>) -> Box<Full> {
        let origin = match self {
            Self::Handle(sender_hash) => Origin::Handle { sender_hash },
            Self::Reference(sender_hash) => Origin::Reference { sender_hash },
            Self::Request => match asked() {
                Some(asked) => Origin::Request { asked },
                // There is one for each, so this is never come to.
                None => Origin::Own {
                    _token: Arc::default(),
                },
            },
            Self::Remote(remote) => return remote.into_full(),
            Self::Full(full) => return full,
        };
        Box::new(Full {
            origin,
            lease: Lease::none(),
            trace: None,
        })
    }
}

/// Makes the envelope again that a message would have come in.
pub(crate) type Envelop<M> = fn(M, ActorId, &ActorId) -> MessageEnvelope;

/// A message in the envelope of its exported port.
pub(crate) fn envelop<M: Message>(message: M, sender: ActorId, actor: &ActorId) -> MessageEnvelope {
    MessageEnvelope::typed(sender, PortId::new(actor.clone(), M::port()), message)
}

/// A message in an envelope that cannot leave the process.
pub(crate) fn envelop_local<M: Send + 'static>(
    message: M,
    sender: ActorId,
    actor: &ActorId,
) -> MessageEnvelope {
    let payload = Payload::Typed(Box::new(Unencodable(message)));
    // Port 0 stands for the actor's queue itself: such a message is sent by no port.
    MessageEnvelope::new(sender, PortId::new(actor.clone(), 0), payload)
}

/// How a message lies in its run: as it is, or in a box of its own where it is large.
pub(crate) trait Kept<M>: Send + 'static {
    fn keep(message: M) -> Self;
    fn give(self) -> M;
}

pub(crate) struct Inline<M>(M);

impl<M: Send + 'static> Kept<M> for Inline<M> {
    #[inline]
    fn keep(message: M) -> Self {
        Self(message)
    }

    #[inline]
    fn give(self) -> M {
        self.0
    }
}

impl<M: Send + 'static> Kept<M> for Box<M> {
    fn keep(message: M) -> Self {
        Self::new(message)
    }

    fn give(self) -> M {
        *self
    }
}

/// Whether messages of a type lie in their runs as they are.
pub(crate) const fn is_inline<M>() -> bool {
    size_of::<M>() <= limits::INLINE_BYTES_MAX
}

/// Apart from the run, which most messages have no use for it in.
#[derive(Default)]
struct Requests(VecDeque<Arc<dyn Asked>>);

/// Messages of type `M` in a row.
///
/// They lie side by side in places that are filled from the first to the last, emptied in that order, and then filled anew from the
/// first one on: what is known of a place's neighbours is known without a calculation, and a message is written where it is to lie.
pub(crate) struct Run<A, M, K> {
    /// Those from `first` to `end` have a message, the others none.
    places: Vec<Option<(K, Meta)>>,
    first: u32,
    end: u32,
    /// Who asked, for each message that is a [`Meta::Request`], in their order. Nothing before the first of them.
    requests: Option<Box<Requests>>,
    /// How many of them hold a lease.
    leased: usize,
    /// Set by the first message that came through a port.
    envelop: Option<Envelop<M>>,
    actor: PhantomData<fn(A)>,
}

impl<A: Handler<M>, M: Send + 'static, K: Kept<M>> Run<A, M, K> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut places = Vec::new();
        if capacity > 0 {
            places.reserve_exact(capacity);
            places.resize_with(capacity, || None);
        }
        Self {
            places,
            first: 0,
            end: 0,
            requests: None,
            leased: 0,
            envelop: None,
            actor: PhantomData,
        }
    }

    /// Puts a message into the next place, which [is there](Self::has_place), and what lies beside it; nothing if it has gone.
    ///
    /// What lies beside it is made there: words that are written one by one and then copied together make the processor wait.
    #[inline(always)]
    fn fill(&mut self, message: &mut Option<M>, beside: impl FnOnce() -> Meta) {
        // Looked at first: so there is nothing to be dropped, and the message is moved to where it stays.
        if let Some(place) = self.places.get_mut(self.end as usize)
            && place.is_none()
            && let Some(message) = message.take()
        {
            // What is replaced has nothing to drop, which the compiler does not see.
            std::mem::forget(place.replace((K::keep(message), Meta::Request)));
            if let Some((_, meta)) = place {
                std::mem::forget(std::mem::replace(meta, beside()));
            }
            self.end += 1;
        }
    }

    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        message: &mut Option<M>,
        meta: Meta,
        envelop: Option<Envelop<M>>,
    ) {
        if !meta.is_local() {
            self.leased += 1;
        }
        if let Some(envelop) = envelop {
            self.envelop = Some(envelop);
        }
        self.fill(message, || meta);
    }

    /// As [`push`](Self::push), for a message of which nothing but its sender is known.
    #[inline(always)]
    pub(crate) fn push_plain(
        &mut self,
        message: &mut Option<M>,
        sender_hash: u64,
        by_reference: Option<Envelop<M>>,
    ) {
        match by_reference {
            Some(envelop) => {
                self.envelop = Some(envelop);
                self.fill(message, || Meta::Reference(sender_hash));
            }
            None => self.fill(message, || Meta::Handle(sender_hash)),
        }
    }

    /// As [`push`](Self::push), for a request from within the proc.
    #[inline(always)]
    pub(crate) fn push_request(
        &mut self,
        message: &mut Option<M>,
        asked: Arc<dyn Asked>,
        envelop: Envelop<M>,
    ) {
        self.envelop = Some(envelop);
        self.requests.get_or_insert_default().0.push_back(asked);
        self.fill(message, || Meta::Request);
    }

    /// The request that the first entry is, or that was just taken out, where it is a [`Meta::Request`].
    #[inline(always)]
    pub(crate) fn pop_request(&mut self) -> Option<Arc<dyn Asked>> {
        self.requests.as_mut()?.0.pop_front()
    }

    /// Back to the first place, if all are empty; or from one place to a few, and from those to all that a run may have. Whether
    /// there is one more.
    #[cold]
    fn make_place(&mut self) -> bool {
        if self.end > 0 && self.is_empty() {
            self.rewind();
            return true;
        }
        let len = self.places.len();
        if len >= limits::RUN_MESSAGES_MAX {
            return false;
        }
        let capacity = match len {
            0 => 1,
            len => (len * 8).min(limits::RUN_MESSAGES_MAX).max(len + 1),
        };
        self.places.reserve_exact(capacity - len);
        self.places.resize_with(capacity, || None);
        true
    }

    /// If it is empty, it is filled from the first place on.
    #[inline(always)]
    pub(crate) fn rewind(&mut self) {
        if self.is_empty() {
            self.first = 0;
            self.end = 0;
        }
    }

    /// Takes the first message out, if nothing that lies beside it is to be looked at, as with most.
    #[inline(always)]
    pub(crate) fn pop_if_plain(&mut self) -> Option<M> {
        let place = self.places.get_mut(self.first as usize)?;
        match place {
            Some((_, Meta::Handle(_) | Meta::Reference(_))) => {}
            _ => return None,
        }
        self.first += 1;
        let (kept, meta) = place.take()?;
        // It has nothing to drop, which the compiler does not know.
        std::mem::forget(meta);
        Some(kept.give())
    }

    /// Takes the first message out, if it is a request from within the proc; [who asked](Self::pop_request) comes after it.
    #[inline(always)]
    pub(crate) fn pop_if_request(&mut self) -> Option<M> {
        let place = self.places.get_mut(self.first as usize)?;
        match place {
            Some((_, Meta::Request)) => {}
            _ => return None,
        }
        self.first += 1;
        let (kept, meta) = place.take()?;
        std::mem::forget(meta);
        Some(kept.give())
    }

    /// Takes the first message out, to be handled.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<(K, Meta)> {
        let (kept, meta) = self.places.get_mut(self.first as usize)?.take()?;
        self.first += 1;
        if !meta.is_local() {
            self.leased -= 1;
        }
        Some((kept, meta))
    }

    /// Whether another message may be pushed, for which there is a place then.
    #[inline(always)]
    pub(crate) fn has_place(&mut self) -> bool {
        (self.end as usize) < self.places.len() || self.make_place()
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// Whether it has no memory for messages.
    pub(crate) fn is_bare(&self) -> bool {
        self.places.capacity() == 0
    }
}

/// A run of whatever type.
pub(crate) trait AnyRun<A: Actor>: Any + Send {
    fn len(&self) -> usize;

    /// How many of its messages count against the queue's capacity.
    fn local(&self) -> usize;

    /// Handles the messages of a run of this type, and what follows of the same type.
    fn handler(&self) -> RunHandler<A>;

    /// Takes the first message out without handling it.
    fn pop_unhandled(&mut self) -> Option<Box<Unhandled>>;

    /// Its last message was taken: it can be filled anew.
    fn spend(&mut self);

    /// Whether it has room for more messages than an actor at rest should keep.
    fn is_large(&self) -> bool;
}

impl<A: Actor> dyn AnyRun<A> {
    /// The run as one of a type, if it is one.
    #[inline(always)]
    pub(crate) fn of<R: Any>(&mut self) -> Option<&mut R> {
        (self as &mut dyn Any).downcast_mut()
    }

    /// The same of a run that is owned.
    pub(crate) fn into_a<R: Any>(self: Box<Self>) -> Option<Box<R>> {
        (self as Box<dyn Any>).downcast().ok()
    }
}

/// Handles messages of one type: those of the run that the batch has in hand, and then those that come.
pub(crate) type RunHandler<A> =
    for<'a> fn(&'a mut A, &'a Context<A>, &'a mut Batch<A>) -> BoxFuture<'a, ActorResult>;

impl<A: Handler<M>, M: Send + 'static, K: Kept<M>> AnyRun<A> for Run<A, M, K> {
    fn len(&self) -> usize {
        (self.end - self.first) as usize
    }

    fn local(&self) -> usize {
        (self.end - self.first) as usize - self.leased
    }

    fn handler(&self) -> RunHandler<A> {
        run::<A, M, K>
    }

    fn pop_unhandled(&mut self) -> Option<Box<Unhandled>> {
        let (message, meta) = self.pop()?;
        let Full { origin, lease, .. } = *meta.into_full(|| self.pop_request());
        let envelop = match (&origin, self.envelop) {
            (Origin::Handle { .. } | Origin::Own { .. }, _) | (_, None) => envelop_local::<M>,
            (_, Some(envelop)) => envelop,
        };
        Some(Box::new(Unhandled {
            origin,
            lease,
            envelope: Box::new(move |sender, actor| envelop(message.give(), sender, actor)),
        }))
    }

    fn spend(&mut self) {
        self.envelop = None;
        self.rewind();
    }

    fn is_large(&self) -> bool {
        self.places.capacity() * size_of::<Option<(K, Meta)>>() > limits::RUN_KEPT_BYTES
    }
}

/// A failure that the actor comes to as to a message: a future whose result it waits for has panicked.
pub(crate) struct Crash(pub(crate) Option<PanicReport>);

impl<A: Actor> AnyRun<A> for Crash {
    fn len(&self) -> usize {
        usize::from(self.0.is_some())
    }

    fn local(&self) -> usize {
        AnyRun::<A>::len(self)
    }

    fn handler(&self) -> RunHandler<A> {
        crash::<A>
    }

    fn pop_unhandled(&mut self) -> Option<Box<Unhandled>> {
        self.0.take()?;
        Some(Box::new(Unhandled {
            origin: Origin::Own {
                _token: Arc::default(),
            },
            lease: Lease::none(),
            envelope: Box::new(|sender, actor| {
                MessageEnvelope::typed(sender, PortId::new(actor.clone(), 0), ())
            }),
        }))
    }

    fn spend(&mut self) {}

    fn is_large(&self) -> bool {
        false
    }
}

/// A message that was in a queue and is not going to be handled.
pub(crate) struct Unhandled {
    pub(crate) origin: Origin,
    pub(crate) lease: Lease,
    envelope: Enveloping,
}

/// Makes the envelope of one message.
type Enveloping = Box<dyn FnOnce(ActorId, &ActorId) -> MessageEnvelope + Send>;

impl Unhandled {
    /// The message in an envelope, for a report to its sender.
    pub(crate) fn into_envelope(self, sender: ActorId, actor: &ActorId) -> MessageEnvelope {
        (self.envelope)(sender, actor)
    }
}

/// A message without an encoding, as the content of the report that gives it back.
struct Unencodable<M>(M);

impl<M: Send + 'static> ErasedMessage for Unencodable<M> {
    fn encode(&self, _: &mut BytesMut) -> Result<(), EncodeError> {
        Err(EncodeError::Payload {
            type_name: std::any::type_name::<M>().to_owned(),
            error: "the message was sent through a handle and has no encoding".to_owned(),
        })
    }

    fn type_hash(&self) -> u64 {
        0
    }

    fn type_name(&self) -> Cow<'static, str> {
        Cow::Borrowed(std::any::type_name::<M>())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        Box::new(self.0)
    }
}
