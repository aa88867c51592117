//! A message on its way through an actor's queue: its value without its type, and the two functions that still know
//! the type.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use hyperactor_mailbox::{
    Asked, BoxFuture, Class, EncodeError, ErasedMessage, Message, MessageEnvelope, Never, Payload,
};
use hyperactor_refs::{ActorId, PortId};
use tracing::Instrument;

use crate::{
    Actor, ActorError, ActorResult, Context, Handler, PanicReport, Receives, TraceContext, limits,
};

/// One queued message.
pub(crate) struct Job<A: Actor> {
    message: Box<dyn Any + Send>,
    kind: &'static Kind<A>,
    pub(crate) origin: Origin,
    class: Class,
    /// Boxed, because few messages have one.
    trace: Option<Box<TraceContext>>,
}

/// Who sent a message, so that they can be told if it is never handled.
///
/// A post through a handle leaves only the hash of its sender's id: the id itself would cost a reference count that
/// the sending and the receiving thread then pass back and forth.
pub(crate) enum Origin {
    /// By a handle, from whoever has an id of this hash.
    Handle { sender_hash: u64 },
    /// By the actor itself, later: a timer, or a future whose result it waits for. The token counts the messages of one
    /// such source that still wait.
    Own { _token: Arc<()> },
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
            Self::Handle { .. } | Self::Own { .. } => None,
            Self::Envelope { asked, .. } | Self::Remote { asked, .. } => asked.as_ref(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle { .. } => f.write_str("through a handle"),
            Self::Own { .. } => f.write_str("from itself"),
            Self::Envelope { sender, .. } | Self::Remote { sender, .. } => {
                write!(f, "from `{sender}`")
            }
        }
    }
}

/// What is known of a kind of message at compile time.
pub(crate) struct Kind<A: Actor> {
    run: for<'a> fn(&'a mut A, &'a Context<A>, &'a mut Batch<A>) -> BoxFuture<'a, ActorResult>,
    give_back: fn(Box<dyn Any + Send>, ActorId, &ActorId) -> MessageEnvelope,
}

/// Makes the [`Kind`] of a message that is handled within the proc only.
struct Local<A, M>(PhantomData<(A, M)>);

impl<A: Handler<M>, M: Send + 'static> Local<A, M> {
    const KIND: &'static Kind<A> = &Kind {
        run: run::<A, M>,
        give_back: |message, sender, actor| {
            let payload = Payload::Typed(Box::new(Unencodable::<M> {
                _message: message,
                kind: PhantomData,
            }));
            // Port 0 stands for the actor's queue itself: such a message is sent by no port.
            MessageEnvelope::new(sender, PortId::new(actor.clone(), 0), payload)
        },
    };
}

/// Makes the [`Kind`] of a message that may come from elsewhere.
struct Exported<A, M>(PhantomData<(A, M)>);

impl<A: Receives<M>, M: Message> Exported<A, M> {
    const KIND: &'static Kind<A> = &Kind {
        run: run::<A, M>,
        give_back: |message, sender, actor| {
            let dest = PortId::new(actor.clone(), M::port());
            match message.downcast::<M>() {
                Ok(message) => MessageEnvelope::new(sender, dest, Payload::Typed(message)),
                // A kind is only ever paired with a message of its type; written so that nothing can panic.
                Err(_) => MessageEnvelope::typed(sender, dest, ()),
            }
        },
    };
}

/// Makes the [`Kind`] of a failure that the actor comes to as to a message.
struct Crash<A>(PhantomData<A>);

impl<A: Actor> Crash<A> {
    const KIND: &'static Kind<A> = &Kind {
        run: |_, cx, batch| {
            Box::pin(async move {
                match batch.take::<PanicReport>(cx) {
                    Some(report) => Err(ActorError::new(PipePanicked(report))),
                    None => Ok(()),
                }
            })
        },
        give_back: |_, sender, actor| {
            MessageEnvelope::typed(sender, PortId::new(actor.clone(), 0), ())
        },
    };
}

/// A future whose result an actor waited for has panicked.
#[derive(Debug, thiserror::Error)]
#[error("a piped future panicked: {0}")]
struct PipePanicked(PanicReport);

impl<A: Actor> Job<A> {
    pub(crate) fn local<M: Send + 'static>(message: M, sender: &ActorId, class: Class) -> Self
    where
        A: Handler<M>,
    {
        Self {
            class,
            message: Box::new(message),
            kind: Local::<A, M>::KIND,
            origin: Origin::Handle {
                sender_hash: sender.precomputed_hash(),
            },
            trace: None,
        }
    }

    /// A message of the actor to itself, made by a task of its own.
    pub(crate) fn own<M: Send + 'static>(message: M, token: Arc<()>, class: Class) -> Self
    where
        A: Handler<M>,
    {
        Self {
            message: Box::new(message),
            kind: Local::<A, M>::KIND,
            origin: Origin::Own { _token: token },
            class,
            trace: None,
        }
    }

    /// Fails the actor when it comes to it: a future whose result it waits for has panicked.
    pub(crate) fn crash(report: PanicReport) -> Self {
        Self {
            message: Box::new(report),
            kind: Crash::<A>::KIND,
            origin: Origin::Own {
                _token: Arc::default(),
            },
            class: Class::User,
            trace: None,
        }
    }

    pub(crate) fn exported<M: Message>(message: Box<M>, origin: Origin, class: Class) -> Self
    where
        A: Receives<M>,
    {
        Self {
            class,
            message,
            kind: Exported::<A, M>::KIND,
            origin,
            trace: None,
        }
    }

    /// As part of a chain of messages, if it is one.
    pub(crate) fn traced(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace.map(Box::new);
        self
    }

    /// The message again, if it is an `M`.
    pub(crate) fn into_message<M: 'static>(self) -> Option<M> {
        self.message.downcast().ok().map(|message| *message)
    }

    /// The message in an envelope, for a report to its sender.
    pub(crate) fn into_envelope(self, sender: ActorId, actor: &ActorId) -> MessageEnvelope {
        (self.kind.give_back)(self.message, sender, actor)
    }
}

/// Why a wait for messages ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Attention,
    Jobs,
    /// The queue is sealed and empty.
    Empty,
}

/// Jobs that the actor has taken out of its queue and not handled yet.
pub(crate) struct Batch<A: Actor> {
    /// In reverse, so that the next one is taken from the end.
    jobs: Vec<Job<A>>,
    /// The request that is being handled, if the message is one.
    in_hand: Option<Arc<dyn Asked>>,
    /// Messages handled since the task last let others run.
    since_yield: u32,
    /// The type of the message that was handled last.
    shown: &'static str,
    /// What the handling of the message in hand is recorded under.
    span: tracing::Span,
}

impl<A: Actor> Batch<A> {
    pub(crate) fn new() -> Self {
        Self {
            jobs: Vec::new(),
            in_hand: None,
            since_yield: 0,
            shown: "",
            span: tracing::Span::none(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Waits for messages, or for something else to look at. Called on an empty batch.
    pub(crate) async fn wait(&mut self, cx: &Context<A>) -> Woken {
        debug_assert!(self.jobs.is_empty(), "a refill would reorder what is left");
        let (queue, control) = (&cx.cell().queue, cx.control());
        let counters = control.counters();
        let woken = poll_fn(|task| {
            let taken = queue.poll_recv_many(task, &mut self.jobs, limits::BATCH_MESSAGES_MAX);
            if let Poll::Ready(count) = taken {
                self.jobs.reverse();
                return Poll::Ready(match count {
                    0 => Woken::Empty,
                    _ => Woken::Jobs,
                });
            }
            let attention = control.poll_attention(task).map(|()| Woken::Attention);
            if attention.is_pending() {
                counters.rests();
            }
            attention
        });
        let woken = woken.await;
        counters.wakes();
        woken
    }

    /// Handles the next message, and those behind it that are of the same type.
    ///
    /// Returns when the batch is empty, the type changes, or the control wants attention.
    pub(crate) async fn run(&mut self, actor: &mut A, cx: &Context<A>) -> ActorResult {
        self.admit_urgent(cx);
        match self.jobs.last() {
            Some(job) => (job.kind.run)(actor, cx, self).await,
            None => Ok(()),
        }
    }

    /// Lets messages of class `Control` that came meanwhile go before the user's, and behind those of their own class.
    fn admit_urgent(&mut self, cx: &Context<A>) {
        let queue = &cx.cell().queue;
        if !queue.is_urgent() {
            return;
        }
        let is_user = |job: &Job<A>| job.class == Class::User;
        let at = self
            .jobs
            .iter()
            .rposition(is_user)
            .map_or(0, |last| last + 1);
        let mut urgent = Vec::new();
        queue.take_urgent(&mut urgent);
        self.jobs.splice(at..at, urgent.into_iter().rev());
    }

    /// The next message, if it is an `M`, the control is quiet, and nothing goes before it.
    fn next<M: 'static>(&mut self, cx: &Context<A>) -> Option<M> {
        if !cx.control().is_quiet() || cx.cell().queue.is_urgent() {
            return None;
        }
        self.take(cx)
    }

    /// The next message, if it is an `M`. Requests that nobody waits for any more are passed over.
    fn take<M: 'static>(&mut self, cx: &Context<A>) -> Option<M> {
        loop {
            let Job {
                message,
                kind,
                origin,
                class,
                trace,
            } = self.jobs.pop()?;
            if let Some(asked) = origin.asked()
                && !asked.is_wanted()
            {
                tracing::debug!(actor = %cx.actor_id(), "a request {origin} was withdrawn before it was handled");
                continue;
            }
            return match message.downcast::<M>() {
                Ok(message) => {
                    if let Some(asked) = origin.asked() {
                        asked.taken();
                        self.in_hand = Some(Arc::clone(asked));
                        cx.cell().set_in_hand(Some(Arc::clone(asked)));
                    }
                    // A step of its own: what the handler posts follows from this message.
                    let step = trace.as_deref().map(TraceContext::child);
                    cx.control().trace().set(step);
                    self.span = span_of::<M>(cx, trace.as_deref(), step.as_ref());
                    Some(*message)
                }
                Err(message) => {
                    self.jobs.push(Job {
                        message,
                        kind,
                        origin,
                        class,
                        trace,
                    });
                    None
                }
            };
        }
    }

    /// Notes what is handled, for whoever looks at the actor from outside; only where it changes.
    fn show<M>(&mut self, cx: &Context<A>) {
        let name = std::any::type_name::<M>();
        if !std::ptr::eq(self.shown, name) {
            self.shown = name;
            cx.control().counters().takes(name);
        }
    }

    /// The handler of the message in hand came to its end.
    fn handled(&mut self, cx: &Context<A>) {
        cx.control().counters().handled();
        if let Some(asked) = self.in_hand.take() {
            cx.cell().set_in_hand(None);
            // If the reply was dropped meanwhile, that was no failure of the handler.
            asked.let_go();
        }
        self.since_yield += 1;
    }

    /// Lets the neighbours of an actor run that always has messages.
    async fn breathe(&mut self) {
        if self.since_yield >= limits::MESSAGES_PER_TURN {
            self.since_yield = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Tells whoever waits for a reply to the message whose handler failed, panicked or was aborted.
    pub(crate) fn tell_in_hand(&mut self, cause: &Never) {
        if let Some(asked) = self.in_hand.take() {
            asked.never(cause.clone());
        }
    }

    /// What was not handled, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Job<A>> {
        self.jobs.drain(..).rev()
    }
}

/// The span of one message: for those who want each, or who follow a trace.
fn span_of<M>(
    cx: &Context<impl Actor>,
    parent: Option<&TraceContext>,
    step: Option<&TraceContext>,
) -> tracing::Span {
    match (parent, step) {
        (Some(parent), Some(step)) => tracing::debug_span!(
            target: "hyperactor::actor",
            "handle",
            actor = %cx.actor_id(),
            message = std::any::type_name::<M>(),
            trace_id = %format_args!("{:032x}", step.trace_id()),
            span_id = %format_args!("{:016x}", step.span_id()),
            parent_id = %format_args!("{:016x}", parent.span_id()),
        ),
        _ => tracing::trace_span!(
            target: "hyperactor::actor",
            "handle",
            actor = %cx.actor_id(),
            message = std::any::type_name::<M>(),
        ),
    }
}

/// One boxed future serves a whole run of messages of one type, and waits for the next one itself: a message costs one
/// box, its own, whether the actor is busy or at rest.
fn run<'a, A: Handler<M>, M: Send + 'static>(
    actor: &'a mut A,
    cx: &'a Context<A>,
    batch: &'a mut Batch<A>,
) -> BoxFuture<'a, ActorResult> {
    Box::pin(async move {
        batch.show::<M>(cx);
        // The first one is taken unconditionally: the caller has just looked at the control.
        let mut next = batch.take::<M>(cx);
        loop {
            while let Some(message) = next {
                let span = std::mem::replace(&mut batch.span, tracing::Span::none());
                if let Err(error) = actor.handle(cx, message).instrument(span).await {
                    cx.control().counters().failed();
                    return Err(error);
                }
                batch.handled(cx);
                batch.breathe().await;
                next = batch.next::<M>(cx);
            }
            let is_interrupted = !batch.is_empty() || !cx.control().is_quiet();
            if is_interrupted || batch.wait(cx).await != Woken::Jobs {
                return Ok(());
            }
            next = batch.next::<M>(cx);
        }
    })
}

/// A message without an encoding, as the content of the report that gives it back.
struct Unencodable<M> {
    /// Kept, so that a receiver of the report can still drop it in its own time.
    _message: Box<dyn Any + Send>,
    kind: PhantomData<fn() -> M>,
}

impl<M: 'static> ErasedMessage for Unencodable<M> {
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
        self._message
    }
}
