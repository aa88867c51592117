//! The life of one actor: initialise, handle messages until asked to end, end the children, clean up, and give
//! everything back. What an actor shares with others is in `cell.rs`; its signals are in `control.rs`.

// The arguments of an `async fn` lie in its future twice, and these futures are what every actor at rest has.
#![allow(clippy::manual_async_fn)]

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use hyperactor_mailbox::{Never, ending_with};

use crate::batch::{Batch, Woken};
use crate::cell::{Cell, unhandled};
use crate::control::{Control, End};
use crate::panics::{caught, caught_sync};
use crate::reports::Report;
use crate::time::within;
use crate::{
    Actor, ActorError, ActorExit, ActorResult, ActorStatus, Context, Event, ExitReason,
    PanicReport, waits,
};

/// How the part of a life went in which messages are handled.
type Served = Result<ActorResult<ExitReason>, PanicReport>;

/// The whole life, as the actor's task.
///
/// The task may be dropped at any await, as when its runtime is shut down; [`Ending`] then gives everything back.
///
/// Most actors rest most of the time, so the future has room for that and no more: what happens once in a life has a box of
/// its own for as long as it takes.
pub(crate) fn run<A: Actor>(
    mut ending: Ending<A>,
    mut actor: A,
) -> impl Future<Output = ()> + Send + 'static {
    async move {
        let exit = {
            let Ending { cx, batch, .. } = &mut ending;
            let life = pin!(live(&mut actor, cx, batch));
            let exit = unless_aborted(cx.control(), life).await;
            exit.map(Box::new)
        };
        if exit.is_none() {
            Box::pin(aborted(ending.cx.control())).await;
        }
        ending.end(actor, exit.map_or(ActorExit::Aborted, |exit| *exit));
    }
}

/// The output, or nothing if the actor was aborted before.
fn unless_aborted<F: Future>(
    control: &Control,
    mut future: Pin<&mut F>,
) -> impl Future<Output = Option<F::Output>> {
    poll_fn(move |task| {
        control.watch_task(task);
        match control.is_aborted() {
            true => Poll::Ready(None),
            false => future.as_mut().poll(task).map(Some),
        }
    })
}

async fn aborted(control: &Control) {
    control.set_status(ActorStatus::Ending);
    control
        .end_children(End::Abort, control.deadlines().children)
        .await;
}

/// Everything that can be aborted.
fn live<A: Actor>(
    actor: &mut A,
    cx: &Context<A>,
    batch: &mut Option<Box<Batch<A>>>,
) -> impl Future<Output = ActorExit> + Send {
    async move {
        if let Err(exit) = Box::pin(begin(actor, cx)).await {
            return exit;
        }
        let served = {
            let serving = pin!(serve(actor, cx, batch));
            caught(serving).await
        };
        Box::pin(close_down(actor, cx, batch, served)).await
    }
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
async fn close_down<A: Actor>(
    actor: &mut A,
    cx: &Context<A>,
    batch: &mut Option<Box<Batch<A>>>,
    served: Served,
) -> ActorExit {
    let reason = match served {
        Ok(Ok(reason)) => reason,
        Ok(Err(error)) => {
            let reason = failed(error);
            // Who waits for this very reply need not wait for the cleanup.
            tell_in_hand(batch, &waits::ended(&ActorExit::from(reason.clone())));
            reason
        }
        Err(report) => {
            cx.control().counters().failed();
            let exit = ActorExit::Panicked(report);
            tell_in_hand(batch, &waits::ended(&exit));
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

/// Tells whoever waits for a reply to the message in hand, if there is one.
fn tell_in_hand<A: Actor>(batch: &mut Option<Box<Batch<A>>>, cause: &Never) {
    if let Some(batch) = batch {
        batch.tell_in_hand(cause);
    }
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

/// Handles messages until something ends it.
fn serve<A: Actor>(
    actor: &mut A,
    cx: &Context<A>,
    batch: &mut Option<Box<Batch<A>>>,
) -> impl Future<Output = ActorResult<ExitReason>> + Send {
    async move {
        let control = cx.control();
        loop {
            if !control.is_quiet() {
                let attention = control.take_attention();
                if attention.stop {
                    return Ok(ExitReason::Stopped);
                }
                if attention.drain {
                    // From here on the queue only empties; when it has, the wait below says so.
                    cx.cell().inbox.seal();
                    control.set_status(ActorStatus::Ending);
                }
                if attention.report {
                    let report = control.next_report();
                    let is_event = matches!(report, Some(Report::Event(_)));
                    Box::pin(attend(actor, cx, report)).await?;
                    if is_event {
                        // Ends go before messages, each of them after a look at the signals.
                        continue;
                    }
                    // One undeliverable, and then a message: neither may keep the other waiting for ever.
                }
            }
            if let Some(run) = batch.as_mut().and_then(|batch| batch.run(actor, cx)) {
                run.await?;
                continue;
            }
            let woken = match &mut *batch {
                Some(batch) => batch.wait(cx).await,
                none => Batch::wait_for_first(none, cx).await,
            };
            // What came back of the last messages is still looked at.
            if matches!(woken, Woken::Empty) && control.is_quiet() {
                return Ok(ExitReason::Drained);
            }
        }
    }
}

/// Lets the actor look at one report.
async fn attend<A: Actor>(actor: &mut A, cx: &Context<A>, report: Option<Report>) -> ActorResult {
    match report {
        None => {}
        Some(Report::Undeliverable(report)) => {
            cx.control().counters().returned();
            actor.on_undeliverable(cx, *report).await?;
        }
        Some(Report::Event(event)) => actor.on_supervision(cx, *event).await?,
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

    fn end(mut self, actor: A, mut exit: ActorExit) {
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
        cell.set_in_hand(None);
        batch.tell_in_hand(&cause);
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
