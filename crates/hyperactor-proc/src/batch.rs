//! What an actor does with the messages that it has taken out of its queue: handles them, a run of one type at a time. How
//! they lie there is in `runs.rs`.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use hyperactor_mailbox::{Asked, BoxFuture, Outbox};
use tracing::Instrument;

use crate::blocking::Finds;
use crate::control::Control;
use crate::inbox::{Found, Taken};
use crate::runs::{AnyRun, Crash, Full, Kept, Meta, Run, Unhandled};
use crate::{Actor, ActorError, ActorResult, Context, Handler, PanicReport, TraceContext};

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
    /// A run of messages that go first.
    urgent: Option<Box<dyn AnyRun<A>>>,
    /// A run of others.
    user: Option<Box<dyn AnyRun<A>>>,
    /// Runs whose messages are all handled.
    spent: Vec<Box<dyn AnyRun<A>>>,
    /// What was in the queue when it was closed, and in hand.
    left: VecDeque<Box<dyn AnyRun<A>>>,
    /// Whether the message that is being handled is a request; the cell has it.
    is_request: bool,
    /// Messages handled since the task last let others run.
    since_yield: u32,
    /// The type of the message that was handled last.
    shown: &'static str,
}

impl<A: Actor> Batch<A> {
    pub(crate) fn new() -> Self {
        Self {
            urgent: None,
            user: None,
            spent: Vec::new(),
            left: VecDeque::new(),
            is_request: false,
            since_yield: 0,
            shown: "",
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.urgent.is_none() && self.user.is_none()
    }

    fn hold(&mut self, taken: Taken<A>) {
        let place = match taken.is_urgent {
            true => &mut self.urgent,
            false => &mut self.user,
        };
        debug_assert!(place.is_none(), "a run would be lost");
        *place = Some(taken.run);
    }

    /// Takes out the run that comes next.
    fn pop(&mut self) -> Option<Taken<A>> {
        let is_urgent = self.urgent.is_some();
        let run = self.urgent.take().or_else(|| self.user.take())?;
        Some(Taken { run, is_urgent })
    }

    /// Waits for messages, or for something else to look at, with an empty batch, or with none before the first messages.
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
        debug_assert!(self.is_empty(), "more would be taken than a batch may hold");
        let woken = match cx.cell().inbox.poll_take(task, &mut self.spent) {
            Poll::Ready(Some(taken)) => {
                self.hold(taken);
                Woken::Messages
            }
            Poll::Ready(None) => Woken::Empty,
            Poll::Pending => match poll_attention(cx) {
                Poll::Ready(Attention) => Woken::Attention,
                Poll::Pending => return Poll::Pending,
            },
        };
        cx.control().counters().wakes();
        Poll::Ready(woken)
    }

    /// Handles the next message, and those behind it that are of the same type; nothing where there is none.
    ///
    /// Ends when the type changes, or the control wants attention.
    pub(crate) fn run<'a>(
        &'a mut self,
        actor: &'a mut A,
        cx: &'a Context<A>,
    ) -> Option<BoxFuture<'a, ActorResult>> {
        if self.is_empty() {
            return None;
        }
        let inbox = &cx.cell().inbox;
        if self.urgent.is_none()
            && inbox.is_urgent()
            && let Some(taken) = inbox.take_urgent()
        {
            self.hold(taken);
        }
        let handler = self.urgent.as_ref().or(self.user.as_ref())?.handler();
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
        if origin.asked().is_some_and(|asked| !asked.is_wanted()) {
            tracing::debug!(actor = %cx.actor_id(), "a request {origin} was withdrawn before it was handled");
            return None;
        }
        self.take_up(origin.into_asked(), cx).then_some(trace)
    }

    /// Notes the request that is to be handled, if it is one; false if nobody waits for its reply any more.
    #[inline(always)]
    fn take_up(&mut self, asked: Option<Arc<dyn Asked>>, cx: &Context<A>) -> bool {
        let Some(asked) = asked else {
            return true;
        };
        if !asked.is_wanted() {
            tracing::debug!(actor = %cx.actor_id(), "a request was withdrawn before it was handled");
            return false;
        }
        asked.taken();
        cx.cell().set_in_hand(asked);
        self.is_request = true;
        true
    }

    /// Notes what is handled, for whoever looks at the actor from outside; only where it changes.
    fn show<M>(&mut self, cx: &Context<A>) {
        let name = std::any::type_name::<M>();
        if !std::ptr::eq(self.shown, name) {
            self.shown = name;
            cx.control().counters().takes(name);
        }
    }

    /// The same of a message that is no request.
    #[inline(always)]
    fn handled_plain(&mut self, control: &Control) {
        control.counters().handled();
        self.since_yield = self.since_yield.wrapping_add(1);
    }

    /// The handler of the message in hand came to its end.
    #[inline(always)]
    fn handled(&mut self, cx: &Context<A>) {
        cx.control().counters().handled();
        if std::mem::take(&mut self.is_request)
            && let Some(asked) = cx.cell().take_in_hand()
        {
            // If the reply was dropped meanwhile, that was no failure of the handler.
            asked.let_go();
        }
        self.since_yield = self.since_yield.wrapping_add(1);
    }

    /// Closes the queue, and takes everything out, handled or not, in order.
    pub(crate) fn close(&mut self, cx: &crate::cell::Cell<A>) {
        let queued = cx.inbox.close();
        let (urgent, user): (Vec<_>, Vec<_>) =
            queued.into_iter().partition(|taken| taken.is_urgent);
        let run = |taken: Taken<A>| taken.run;
        self.left.extend(self.urgent.take());
        self.left.extend(urgent.into_iter().map(run));
        self.left.extend(self.user.take());
        self.left.extend(user.into_iter().map(run));
    }

    /// Takes the first message out without handling it, once the queue is [closed](Self::close).
    pub(crate) fn pop_unhandled(&mut self) -> Option<Box<Unhandled>> {
        loop {
            match self.left.front_mut()?.pop_unhandled() {
                Some(unhandled) => return Some(unhandled),
                None => self.left.pop_front(),
            };
        }
    }
}

/// The control wants attention.
struct Attention;

/// Ready when the control wants attention; else the actor goes to rest.
#[inline(always)]
fn poll_attention(cx: &Context<impl Actor>) -> Poll<Attention> {
    let control = cx.control();
    let attention = control.poll_attention();
    if attention.is_pending() {
        control.counters().rests();
    }
    attention.map(|()| Attention)
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

/// A run whose messages are being handled. What is left of it when this is dropped goes back to the batch: also when
/// the actor is aborted, or a handler panics.
struct Row<'a, A: Handler<M>, M: Send + 'static, K: Kept<M>> {
    batch: &'a mut Batch<A>,
    /// Here, and not where it came from: the next box is perhaps the one that senders fill, and the two sides would take a cache
    /// line from each other.
    run: Run<A, M, K>,
    /// Where it came from, bare. There until it is dropped.
    place: Option<Box<Run<A, M, K>>>,
    is_urgent: bool,
}

impl<'a, A: Handler<M>, M: Send + 'static, K: Kept<M>> Row<'a, A, M, K> {
    /// Takes the run that the batch has in hand.
    fn begin(batch: &'a mut Batch<A>) -> Option<Self> {
        let taken = batch.pop()?;
        let mut place: Box<Run<A, M, K>> = taken.run.into_a()?;
        Some(Self {
            batch,
            run: std::mem::replace(&mut *place, Run::with_capacity(0)),
            place: Some(place),
            is_urgent: taken.is_urgent,
        })
    }
}

impl<A: Handler<M>, M: Send + 'static, K: Kept<M>> Drop for Row<'_, A, M, K> {
    fn drop(&mut self) {
        let Some(mut run) = self.place.take() else {
            return;
        };
        std::mem::swap(&mut *run, &mut self.run);
        match run.is_empty() {
            true => self.batch.spent.push(run),
            false => self.batch.hold(Taken {
                run,
                is_urgent: self.is_urgent,
            }),
        }
    }
}

/// Whether something goes before the next message.
#[inline(always)]
fn is_interrupted(cx: &Context<impl Actor>) -> bool {
    !cx.control().is_quiet() || cx.cell().inbox.is_urgent()
}

/// Handles a message. If the actor is asleep already, but that takes more than this turn, it is awake again: what wakes it may
/// be the next message then.
#[inline(always)]
fn handling<T>(
    cx: &Context<impl Actor>,
    is_asleep: &mut bool,
    mut handling: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = T> {
    poll_fn(move |task| {
        let polled = handling.as_mut().poll(task);
        if polled.is_pending() && std::mem::take(is_asleep) {
            cx.cell().inbox.stay_awake();
        }
        polled
    })
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
        let Some(mut row) = Row::<A, M, K>::begin(batch) else {
            return Ok(());
        };
        let Row {
            batch,
            run,
            is_urgent,
            ..
        } = &mut row;
        let control = cx.control();
        // The first message is taken unconditionally: the caller has just looked at the control.
        let mut is_first = true;
        // The one message in the run is the last one, and a later one wakes the actor.
        let mut is_asleep = false;
        let mut finds = Finds::so_far();
        loop {
            // Who begins to want them has them from the next messages on that are taken out of the queue.
            let is_each_recorded = is_each_recorded();
            while is_first || !is_interrupted(cx) {
                is_first = false;
                // Most messages have no more to them than what the first two say.
                let is_watched = cx.is_stamping() || is_each_recorded;
                if !is_watched && let Some(message) = run.pop_if_plain() {
                    let handled = pin!(actor.handle(cx, message));
                    if let Err(error) = handling(cx, &mut is_asleep, handled).await {
                        control.counters().failed();
                        return Err(error);
                    }
                    batch.handled_plain(control);
                } else if !is_watched && let Some(message) = run.pop_if_request() {
                    if !batch.take_up(run.pop_request(), cx) {
                        continue;
                    }
                    let handled = pin!(actor.handle(cx, message));
                    if let Err(error) = handling(cx, &mut is_asleep, handled).await {
                        control.counters().failed();
                        return Err(error);
                    }
                    batch.handled(cx);
                } else {
                    let Some((kept, meta)) = run.pop() else {
                        break;
                    };
                    let trace = match meta {
                        Meta::Handle(_) | Meta::Reference(_) => None,
                        Meta::Request => match batch.take_up(run.pop_request(), cx) {
                            true => None,
                            false => continue,
                        },
                        // Its lease ends here: the message is out of the queue.
                        Meta::Remote(remote) => {
                            drop(remote);
                            None
                        }
                        Meta::Full(full) => match batch.look_at(*full, cx) {
                            Some(trace) => trace,
                            None => continue,
                        },
                    };
                    let handled = if trace.is_none() && !cx.is_stamping() && !is_each_recorded {
                        handling(cx, &mut is_asleep, pin!(actor.handle(cx, kept.give()))).await
                    } else {
                        is_asleep = false;
                        let span = step::<M>(cx, trace);
                        actor.handle(cx, kept.give()).instrument(span).await
                    };
                    if let Err(error) = handled {
                        control.counters().failed();
                        return Err(error);
                    }
                    batch.handled(cx);
                }
                if batch.since_yield >= control.pace().messages_per_turn() || finds.has_this() {
                    // Lets the neighbours of an actor run that always has messages, or takes long for one.
                    batch.since_yield = 0;
                    is_asleep = false;
                    tokio::task::yield_now().await;
                }
            }
            if is_interrupted(cx) || !batch.is_empty() {
                return Ok(());
            }
            run.rewind();
            let inbox = &cx.cell().inbox;
            let came = poll_fn(|task| {
                if std::mem::take(&mut is_asleep) && poll_attention(cx).is_pending() {
                    batch.since_yield = 0;
                    return Poll::Pending;
                }
                let may_sleep = batch.spent.is_empty();
                if let Some(last) = inbox.exchange_plain(task, run, may_sleep) {
                    is_asleep = last;
                    *is_urgent = false;
                    return Poll::Ready(Came::Same);
                }
                match inbox.poll_exchange(task, run, &mut batch.spent) {
                    Poll::Ready(Found::Same { is_urgent: first }) => {
                        *is_urgent = first;
                        Poll::Ready(Came::Same)
                    }
                    Poll::Ready(Found::Other(taken)) => {
                        batch.hold(taken);
                        Poll::Ready(Came::Other)
                    }
                    Poll::Ready(Found::Nothing) => Poll::Ready(Came::Other),
                    Poll::Pending => poll_attention(cx).map(|Attention| Came::Other),
                }
            });
            let came = came.await;
            control.counters().wakes();
            if came == Came::Other {
                return Ok(());
            }
        }
    })
}

/// What a row that waited for more has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Messages of its type; it has them.
    Same,
    /// Something else: other messages, which the batch has, or what the control wants to be looked at, or an end.
    Other,
}

/// Fails the actor: it has come to the panic of a future whose result it waits for.
pub(crate) fn crash<'a, A: Actor>(
    _: &'a mut A,
    _: &'a Context<A>,
    batch: &'a mut Batch<A>,
) -> BoxFuture<'a, ActorResult> {
    Box::pin(async move {
        let run = batch.pop();
        let crash = run.and_then(|taken| taken.run.into_a::<Crash>()?.0);
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
