//! What an actor does with the messages that it has taken out of its queue: handles them, a run of one type at a time. How
//! they lie there is in `runs.rs`.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use hyperactor_mailbox::{Asked, BoxFuture, Never, Outbox};
use tracing::Instrument;

use crate::inbox::Taken;
use crate::runs::{AnyRun, Crash, Full, Kept, Meta, Run, Unhandled};
use crate::{Actor, ActorError, ActorResult, Context, Handler, PanicReport, TraceContext, limits};

/// Why a wait for messages ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Attention,
    Messages,
    /// The queue is sealed and empty.
    Empty,
}

/// Messages that the actor has taken out of its queue and not handled yet.
pub(crate) struct Batch<A: Actor> {
    taken: Taken<A>,
    /// The request that is being handled, if the message is one.
    in_hand: Option<Arc<dyn Asked>>,
    /// Messages handled since the task last let others run.
    since_yield: u32,
    /// The type of the message that was handled last.
    shown: &'static str,
}

impl<A: Actor> Batch<A> {
    pub(crate) fn new() -> Self {
        Self {
            taken: Taken::default(),
            in_hand: None,
            since_yield: 0,
            shown: "",
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Waits for messages, or for something else to look at. Called on an empty batch.
    pub(crate) fn wait<'a>(
        &'a mut self,
        cx: &'a Context<A>,
    ) -> impl Future<Output = Woken> + Send + 'a {
        debug_assert!(self.is_empty(), "more would be taken than a batch may hold");
        poll_fn(move |task| self.poll_wait(cx, task))
    }

    /// As [`wait`](Self::wait), for an actor that has no batch before it has messages.
    pub(crate) fn wait_for_more<'a>(
        batch: &'a mut Option<Box<Self>>,
        cx: &'a Context<A>,
    ) -> impl Future<Output = Woken> + Send + Unpin + 'a {
        poll_fn(move |task| {
            if let Some(batch) = batch {
                return batch.poll_wait(cx, task);
            }
            let mut first = Self::new();
            let woken = first.poll_wait(cx, task);
            if !first.is_empty() {
                *batch = Some(Box::new(first));
            }
            woken
        })
    }

    fn poll_wait(&mut self, cx: &Context<A>, task: &mut TaskContext<'_>) -> Poll<Woken> {
        let (inbox, control) = (&cx.cell().inbox, cx.control());
        let woken = match inbox.poll_take(task, &mut self.taken) {
            Poll::Ready(true) => Woken::Messages,
            Poll::Ready(false) => Woken::Empty,
            Poll::Pending => match control.poll_attention() {
                Poll::Ready(()) => Woken::Attention,
                Poll::Pending => {
                    control.counters().rests();
                    return Poll::Pending;
                }
            },
        };
        control.counters().wakes();
        Poll::Ready(woken)
    }

    /// Handles the next message, and those behind it that are of the same type; nothing where there is none.
    ///
    /// Ends when the batch is empty, the type changes, or the control wants attention.
    pub(crate) fn run<'a>(
        &'a mut self,
        actor: &'a mut A,
        cx: &'a Context<A>,
    ) -> Option<BoxFuture<'a, ActorResult>> {
        if self.is_empty() {
            return None;
        }
        let inbox = &cx.cell().inbox;
        if inbox.is_urgent() {
            inbox.take_urgent(&mut self.taken);
        }
        let handler = self.taken.front()?.handler();
        Some(handler(actor, cx, self))
    }

    /// Looks at what lies beside a message before it is handled; `None` if it is not to be. The lease ends here: the message
    /// is out of the queue.
    #[inline(never)]
    fn look_at(&mut self, full: Full, cx: &Context<A>) -> Option<Option<TraceContext>> {
        let Full {
            origin,
            trace,
            lease: _,
        } = full;
        if let Some(asked) = origin.asked() {
            if !asked.is_wanted() {
                tracing::debug!(actor = %cx.actor_id(), "a request {origin} was withdrawn before it was handled");
                return None;
            }
            asked.taken();
            self.in_hand = Some(Arc::clone(asked));
            cx.cell().set_in_hand(Some(Arc::clone(asked)));
        }
        Some(trace)
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
    #[inline(always)]
    fn handled(&mut self, cx: &Context<A>) {
        cx.control().counters().handled();
        if let Some(asked) = self.in_hand.take() {
            cx.cell().set_in_hand(None);
            // If the reply was dropped meanwhile, that was no failure of the handler.
            asked.let_go();
        }
        self.since_yield += 1;
    }

    /// Tells whoever waits for a reply to the message whose handler failed, panicked or was aborted.
    pub(crate) fn tell_in_hand(&mut self, cause: &Never) {
        if let Some(asked) = self.in_hand.take() {
            asked.never(cause.clone());
        }
    }

    /// Closes the queue, and takes everything out, handled or not, in order.
    pub(crate) fn close(&mut self, cx: &crate::cell::Cell<A>) {
        cx.inbox.close(&mut self.taken);
    }

    /// Takes the first message out without handling it.
    pub(crate) fn pop_unhandled(&mut self) -> Option<Box<Unhandled>> {
        self.taken.pop_unhandled()
    }
}

/// Whether somebody wants a span of every message.
#[inline(always)]
fn is_each_recorded() -> bool {
    tracing::enabled!(target: "hyperactor::actor", tracing::Level::TRACE)
}

/// Begins the step of a trace that the handling of a message is, and the span of one message: for those who want each, or who
/// follow a trace.
#[inline(never)]
fn step<M>(cx: &Context<impl Actor>, parent: Option<TraceContext>) -> tracing::Span {
    // A step of its own: what the handler posts follows from this message.
    let step = parent.as_ref().map(TraceContext::child);
    cx.control().trace().set(step);
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

/// A run whose messages are being handled. What is left of it when this is dropped goes back to where it was: also when
/// the actor is aborted, or a handler panics.
struct Row<'a, A: Handler<M>, M: Send + 'static, K: Kept<M>> {
    batch: &'a mut Batch<A>,
    entries: VecDeque<(K, Meta)>,
    /// The run without its messages.
    run: Option<(Box<dyn AnyRun<A>>, bool)>,
    message: PhantomData<fn(M)>,
}

impl<'a, A: Handler<M>, M: Send + 'static, K: Kept<M>> Row<'a, A, M, K> {
    fn new(batch: &'a mut Batch<A>) -> Self {
        Self {
            batch,
            entries: VecDeque::new(),
            run: None,
            message: PhantomData,
        }
    }

    /// Begins the next run, if it is one of this type.
    fn begin(&mut self) -> Option<()> {
        self.end();
        let (mut run, is_urgent) = self.batch.taken.pop_run::<Run<A, M, K>>()?;
        if let Some(run) = run.of::<Run<A, M, K>>() {
            // No message is moved by this, and none by the way back.
            self.entries = std::mem::take(&mut run.entries).into();
        }
        self.run = Some((run, is_urgent));
        Some(())
    }

    fn end(&mut self) {
        if let Some((mut run, is_urgent)) = self.run.take() {
            if let Some(run) = run.of::<Run<A, M, K>>() {
                run.entries = std::mem::take(&mut self.entries).into();
            }
            self.batch.taken.put_back(run, is_urgent);
        }
    }
}

impl<A: Handler<M>, M: Send + 'static, K: Kept<M>> Drop for Row<'_, A, M, K> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether something goes before the next message.
#[inline(always)]
fn is_interrupted(cx: &Context<impl Actor>) -> bool {
    !cx.control().is_quiet() || cx.cell().inbox.is_urgent()
}

/// One boxed future serves a whole row of messages of one type, and waits for the next one itself: neither a message nor
/// its handling costs an allocation, whether the actor is busy or at rest.
pub(crate) fn run<'a, A, M, K>(
    actor: &'a mut A,
    cx: &'a Context<A>,
    batch: &'a mut Batch<A>,
) -> BoxFuture<'a, ActorResult>
where
    A: Handler<M>,
    M: Send + 'static,
    K: Kept<M>,
{
    Box::pin(async move {
        batch.show::<M>(cx);
        let mut row = Row::<A, M, K>::new(batch);
        // The first message is taken unconditionally: the caller has just looked at the control.
        let mut is_first = true;
        loop {
            while row.begin().is_some() {
                while is_first || !is_interrupted(cx) {
                    is_first = false;
                    let Some((kept, meta)) = row.entries.pop_front() else {
                        break;
                    };
                    // Most messages have no more to them.
                    let trace = match meta {
                        Meta::Handle(_) | Meta::Reference(_) => None,
                        Meta::Full(full) => match row.batch.look_at(*full, cx) {
                            Some(trace) => trace,
                            None => continue,
                        },
                    };
                    let handled = if trace.is_none() && !cx.is_stamping() && !is_each_recorded() {
                        actor.handle(cx, kept.give()).await
                    } else {
                        let span = step::<M>(cx, trace);
                        actor.handle(cx, kept.give()).instrument(span).await
                    };
                    if let Err(error) = handled {
                        cx.control().counters().failed();
                        return Err(error);
                    }
                    row.batch.handled(cx);
                    if row.batch.since_yield >= limits::MESSAGES_PER_TURN {
                        // Lets the neighbours of an actor run that always has messages.
                        row.batch.since_yield = 0;
                        tokio::task::yield_now().await;
                    }
                }
                row.end();
                if is_interrupted(cx) {
                    return Ok(());
                }
            }
            if !row.batch.is_empty() || row.batch.wait(cx).await != Woken::Messages {
                return Ok(());
            }
        }
    })
}

/// Fails the actor: it has come to the panic of a future whose result it waits for.
pub(crate) fn crash<'a, A: Actor>(
    _: &'a mut A,
    _: &'a Context<A>,
    batch: &'a mut Batch<A>,
) -> BoxFuture<'a, ActorResult> {
    Box::pin(async move {
        let run = batch.taken.pop_run::<Crash>();
        let crash = run.and_then(|(mut run, _)| run.of::<Crash>()?.0.take());
        match crash {
            Some(report) => Err(ActorError::new(PipePanicked(report))),
            None => Ok(()),
        }
    })
}

/// A future whose result an actor waited for has panicked.
#[derive(Debug, thiserror::Error)]
#[error("a piped future panicked: {0}")]
struct PipePanicked(PanicReport);
