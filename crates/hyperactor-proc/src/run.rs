//! The life of one actor: initialise, handle messages until asked to end, end the children, clean up, and give
//! everything back. What an actor shares with others is in `cell.rs`; its signals are in `control.rs`.

// The arguments of an `async fn` lie in its future twice, and these futures are what every actor at rest has.
#![allow(clippy::manual_async_fn)]

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use hyperactor_mailbox::{BoxFuture, ending_with};

use crate::batch::{Batch, Woken};
use crate::blocking::turn;
use crate::cell::{Cell, unhandled};
use crate::control::{Control, End};
use crate::panics::{caught, caught_boxed, caught_sync};
use crate::reports::Report;
use crate::time::within;
use crate::{
    Actor, ActorError, ActorExit, ActorResult, ActorStatus, Context, Event, ExitReason,
    PanicReport, waits,
};

/// How the part of a life went in which messages are handled.
type Served = Result<ActorResult<ExitReason>, PanicReport>;

/// Why something that the actor did was not done to its end.
enum Cut {
    Aborted,
    // Boxed: a step's result is copied a few times for each turn, and is small otherwise.
    Panicked(Box<PanicReport>),
}

/// Why the loop ends, as far as nobody asked for it.
enum Broken {
    Failed(ActorError),
    Cut(Cut),
}

/// The whole life, as the actor's task.
///
/// The task may be dropped at any await, as when its runtime is shut down; [`Ending`] then gives everything back.
///
/// Most actors rest most of the time, so the future has room for that and no more: whatever else an actor waits for has a box
/// of its own for as long as it takes.
pub(crate) fn run<A: Actor>(
    mut ending: Ending<A>,
    mut actor: A,
) -> impl Future<Output = ()> + Send + 'static {
    async move {
        let begun = Box::pin(begin(&mut actor, &ending.cx));
        if let Err(exit) = small(guarded(&ending.cx, begun).await) {
            if exit.is_none() {
                Box::pin(aborted(ending.cx.control())).await;
            }
            return ending.end(actor, exit);
        }
        let mut is_message_next = false;
        let served = loop {
            let Ending { cx, batch, .. } = &mut ending;
            let report = match is_message_next || cx.control().is_quiet() {
                true => None,
                false => match look(cx) {
                    Look::At(report) => report,
                    Look::Stop => break Some(Box::new(Ok(Ok(ExitReason::Stopped)))),
                },
            };
            // Ends go before messages, each of them after a look at the signals. After one undeliverable comes a message:
            // neither may keep the other waiting for ever.
            is_message_next = matches!(report, Some(Report::Undeliverable(_)));
            let step = if let Some(report) = report {
                stepped(cx, Box::pin(attend(&mut actor, cx, report))).await
            } else if let Some(work) = batch.as_mut().and_then(|batch| batch.run(&mut actor, cx)) {
                stepped(cx, work).await
            } else {
                match guarded(cx, Batch::wait_for_more(batch, cx)).await {
                    // What came back of the last messages is still looked at.
                    Ok(Woken::Empty) if cx.control().is_quiet() => {
                        break Some(Box::new(Ok(Ok(ExitReason::Drained))));
                    }
                    Ok(_) => Ok(()),
                    Err(cut) => Err(Box::new(Broken::Cut(cut))),
                }
            };
            if let Err(broken) = step {
                break match *broken {
                    Broken::Failed(error) => Some(Box::new(Ok(Err(error)))),
                    Broken::Cut(Cut::Panicked(report)) => Some(Box::new(Err(*report))),
                    Broken::Cut(Cut::Aborted) => None,
                };
            }
        };
        let exit = match served {
            Some(served) => {
                let cx = &ending.cx;
                let closing = Box::pin(close_down(&mut actor, cx, served));
                small(guarded(cx, closing).await.map(Err)).err().flatten()
            }
            None => None,
        };
        if exit.is_none() {
            Box::pin(aborted(ending.cx.control())).await;
        }
        ending.end(actor, exit);
    }
}

/// What the signals say.
enum Look {
    /// What an actor that goes on has to look at, if anything.
    At(Option<Report>),
    Stop,
}

fn look<A: Actor>(cx: &Context<A>) -> Look {
    let control = cx.control();
    let attention = control.take_attention();
    if attention.stop {
        return Look::Stop;
    }
    if attention.drain {
        // From here on the queue only empties; when it has, the wait for messages says so.
        cx.cell().inbox.seal();
        control.set_status(ActorStatus::Ending);
    }
    match attention.report {
        true => Look::At(control.next_report()),
        false => Look::At(None),
    }
}

/// Whether an actor has begun, or how it ended; nothing where it was aborted.
fn small(begun: Result<Result<(), ActorExit>, Cut>) -> Result<(), Option<Box<ActorExit>>> {
    match begun {
        Ok(begun) => begun.map_err(|exit| Some(Box::new(exit))),
        Err(Cut::Panicked(report)) => Err(Some(Box::new(ActorExit::Panicked(*report)))),
        Err(Cut::Aborted) => Err(None),
    }
}

/// The output, unless the actor is aborted before, or panics.
fn guarded<A: Actor, F: Future + Unpin>(
    cx: &Context<A>,
    mut future: F,
) -> impl Future<Output = Result<F::Output, Cut>> {
    poll_fn(move |task| {
        let mut turn = Poll::Pending;
        take_turn(cx, task, |task| {
            let polled = caught_boxed(|| Pin::new(&mut future).poll(task));
            turn = match polled {
                Ok(polled) => polled.map(Ok),
                Err(report) => Poll::Ready(Err(Cut::Panicked(report))),
            };
        })
        .map_or_else(|cut| Poll::Ready(Err(cut)), |()| turn)
    })
}

/// The same of what may fail. Its result fits into a register through all that a turn passes it: one that lies in memory is
/// copied right after it was written in parts, for which the processor waits.
fn stepped<'a, A: Actor>(
    cx: &'a Context<A>,
    mut step: BoxFuture<'a, ActorResult>,
) -> impl Future<Output = Result<(), Box<Broken>>> + Send + 'a {
    poll_fn(move |task| {
        let mut turn = Poll::Pending;
        take_turn(cx, task, |task| {
            let polled = caught_boxed(|| match step.as_mut().poll(task) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(Box::new(Broken::Failed(error)))),
            });
            turn = match polled {
                Ok(polled) => polled,
                Err(report) => Poll::Ready(Err(Box::new(Broken::Cut(Cut::Panicked(report))))),
            };
        })
        .map_or_else(
            |cut| Poll::Ready(Err(Box::new(Broken::Cut(cut)))),
            |()| turn,
        )
    })
}

/// Polls the actor for one turn, unless it was aborted.
#[inline(always)]
fn take_turn<A: Actor>(
    cx: &Context<A>,
    task: &mut TaskContext<'_>,
    poll: impl FnOnce(&mut TaskContext<'_>),
) -> Result<(), Cut> {
    let control = cx.control();
    control.watch_task(task);
    if control.is_aborted() {
        return Err(Cut::Aborted);
    }
    turn(control.pace(), control.counters(), || poll(task));
    Ok(())
}

async fn aborted(control: &Control) {
    control.set_status(ActorStatus::Ending);
    control
        .end_children(End::Abort, control.deadlines().children)
        .await;
}

/// Initialises the actor.
async fn begin<A: Actor>(actor: &mut A, cx: &Context<A>) -> Result<(), ActorExit> {
    let exit = match caught(pin!(actor.init(cx))).await {
        Ok(Ok(())) => {
            let control = cx.control();
            control.set_status(ActorStatus::Running);
            // Only `serve` rests, so that a long `init` or `cleanup` shows as such.
            control.counters().wakes();
            return Ok(());
        }
        Ok(Err(error)) => failed(error.context("init")).into(),
        Err(report) => ActorExit::Panicked(report),
    };
    finish(cx, End::Stop).await;
    Err(exit)
}

/// Ends the life of an actor that handles no more messages.
///
/// Whoever waits for the reply to a message that ends the actor is told with the cause, so the message stays marked as in
/// hand unless its handler succeeds.
async fn close_down<A: Actor>(actor: &mut A, cx: &Context<A>, served: Box<Served>) -> ActorExit {
    let reason = match *served {
        Ok(Ok(reason)) => reason,
        Ok(Err(error)) => {
            let reason = failed(error);
            // Who waits for this very reply need not wait for the cleanup.
            cx.cell()
                .tell_in_hand(&waits::ended(&ActorExit::from(reason.clone())));
            reason
        }
        Err(report) => {
            cx.control().counters().failed();
            let exit = ActorExit::Panicked(report);
            cx.cell().tell_in_hand(&waits::ended(&exit));
            finish(cx, End::Stop).await;
            return exit;
        }
    };
    let end = match &reason {
        ExitReason::Drained => End::Drain,
        _ => End::Stop,
    };
    finish(cx, end).await;
    clean_up(actor, cx, reason).await
}

fn failed(error: ActorError) -> ExitReason {
    ExitReason::Failed(Arc::new(error))
}

/// Refuses new messages and ends the children.
async fn finish<A: Actor>(cx: &Context<A>, end: End) {
    cx.cell().inbox.seal();
    let control = cx.control();
    control.set_status(ActorStatus::Ending);
    control
        .end_children(end, control.deadlines().children)
        .await;
}

async fn clean_up<A: Actor>(actor: &mut A, cx: &Context<A>, reason: ExitReason) -> ActorExit {
    let deadline = cx.control().deadlines().cleanup;
    let outcome = {
        let cleanup = pin!(actor.cleanup(cx, &reason));
        within(deadline, caught(cleanup)).await
    };
    match (outcome, reason) {
        (Some(Ok(Ok(()))), reason) => reason.into(),
        // The first failure is the one to mend; the second often follows from it.
        (Some(Ok(Err(error))), ExitReason::Failed(first)) => {
            tracing::warn!(actor = %cx.cell().actor_id(), error = %error, "cleanup failed, after a failure");
            ActorExit::Failed(first)
        }
        (Some(Ok(Err(error))), _) => failed(error.context("cleanup")).into(),
        (Some(Err(report)), _) => ActorExit::Panicked(report),
        (None, _) => {
            tracing::warn!(
                actor = %cx.cell().actor_id(),
                ?deadline,
                "cleanup did not end in time"
            );
            ActorExit::Aborted
        }
    }
}

/// Lets the actor look at one report.
async fn attend<A: Actor>(actor: &mut A, cx: &Context<A>, report: Report) -> ActorResult {
    match report {
        Report::Undeliverable(report) => {
            cx.control().counters().returned();
            actor.on_undeliverable(cx, *report).await?;
        }
        Report::Event(event) => actor.on_supervision(cx, *event).await?,
    }
    tokio::task::coop::consume_budget().await;
    Ok(())
}

/// Gives back everything that an actor had, when it is dropped: at the end of the actor's life, or when the task is
/// dropped before that.
pub(crate) struct Ending<A: Actor> {
    cx: Context<A>,
    /// Nothing before the first message.
    batch: Option<Box<Batch<A>>>,
    /// How the life went, once it is over: only then it is worth a box.
    exit: Option<Box<ActorExit>>,
}

impl<A: Actor> Ending<A> {
    pub(crate) fn new(cell: Arc<Cell<A>>) -> Self {
        Self {
            cx: Context::new(cell),
            batch: None,
            exit: None,
        }
    }

    /// `exit` is nothing where the actor was aborted.
    fn end(mut self, actor: A, exit: Option<Box<ActorExit>>) {
        let mut exit = exit.map_or(ActorExit::Aborted, |exit| *exit);
        // Before the end is published, so that what the actor held is free when its end is seen.
        // Replies that it still owed are told its end.
        let cause = exit.to_string();
        if let Err(report) = caught_sync(move || ending_with(&cause, || drop(actor))) {
            exit = ActorExit::Panicked(report);
        }
        self.exit = Some(Box::new(exit));
    }

    fn give_back(&mut self, exit: &ActorExit) {
        let cell = &**self.cx.cell();
        let batch = self.batch.get_or_insert_with(|| Box::new(Batch::new()));
        batch.close(cell);
        // Ports that the user bound are told of the end; a panic of theirs must not hide it.
        if let Err(report) = caught_sync(|| cell.mailbox.close()) {
            tracing::error!(actor = %cell.actor_id(), panic = %report, "a port panicked when it was closed");
        }
        cell.control.abort_children();
        let proc = cell.proc.upgrade().ok();
        if let Some(proc) = &proc {
            proc.unbind(cell.actor_id());
        }
        let cause = waits::ended(exit);
        cell.tell_in_hand(&cause);
        while let Some(message) = batch.pop_unhandled() {
            // The message's own `Drop` may run here, and it is the user's code.
            if let Err(report) = caught_sync(|| unhandled(cell, *message, &cause)) {
                tracing::warn!(actor = %cell.actor_id(), panic = %report, "a queued message panicked when it was dropped");
            }
        }
    }
}

impl<A: Actor> Drop for Ending<A> {
    fn drop(&mut self) {
        let exit = self.exit.take().map_or(ActorExit::Aborted, |exit| *exit);
        self.give_back(&exit);
        let cell = self.cx.cell();
        let control = &cell.control;
        let id = control.actor_id();
        match &exit {
            ActorExit::Stopped => tracing::debug!(actor = %id, "actor stopped"),
            ActorExit::Aborted => tracing::warn!(actor = %id, "actor aborted"),
            exit => tracing::error!(actor = %id, exit = %exit, "actor ended"),
        }
        control.unwatch_task();
        control.close_reports();
        let watched = control.close_watching();
        let event = Arc::new(Event::of(id.clone(), cell.proc.incarnation(), &exit));
        if let Ok(proc) = cell.proc.upgrade() {
            for (key, target) in watched {
                proc.unwatch_actor(key, &target);
            }
            // Before the watchers are told, so that one who asks too late for that finds it here.
            proc.actor_ended(&event);
            proc.forget(id);
        }
        control.leave_parent(&event);
        control.watchers().tell(&event);
        // Last: who sees the end finds the name free, the messages told, and everybody told of it.
        control.set_status(ActorStatus::Ended(exit));
    }
}
