//! The life of one actor: initialise, handle messages until asked to end, end the children, clean up, and give
//! everything back. What an actor shares with others is in `cell.rs`; its signals are in `control.rs`.

use std::sync::Arc;

use futures_util::future::{AbortRegistration, Abortable};
use hyperactor_mailbox::ending_with;

use crate::batch::{Batch, Woken};
use crate::cell::{Cell, unhandled};
use crate::control::End;
use crate::panics::{caught, caught_sync};
use crate::reports::Report;
use crate::time::within;
use crate::{
    Actor, ActorError, ActorExit, ActorResult, ActorStatus, Context, Event, ExitReason, waits,
};

/// The whole life, as the actor's task.
///
/// The task may be dropped at any await, as when its runtime is shut down; [`Ending`] then gives everything back.
pub(crate) async fn run<A: Actor>(mut ending: Ending<A>, mut actor: A, abort: AbortRegistration) {
    let cx = Context::new(Arc::clone(&ending.cell));
    let life = Abortable::new(live(&mut actor, &cx, &mut ending.batch), abort);
    let mut exit = match life.await {
        Ok(exit) => exit,
        Err(_) => {
            let control = cx.control();
            control.set_status(ActorStatus::Ending);
            control
                .end_children(End::Abort, control.deadlines().children)
                .await;
            ActorExit::Aborted
        }
    };
    // Before the end is published, so that what the actor held is free when its end is seen.
    // Replies that it still owed are told its end.
    let cause = exit.to_string();
    if let Err(report) = caught_sync(move || ending_with(&cause, || drop(actor))) {
        exit = ActorExit::Panicked(report);
    }
    ending.exit = exit;
}

/// Everything that can be aborted.
///
/// Whoever waits for the reply to a message that ends the actor is told with the cause, so the message stays marked as in
/// hand unless its handler succeeds.
async fn live<A: Actor>(actor: &mut A, cx: &Context<A>, batch: &mut Batch<A>) -> ActorExit {
    let control = cx.control();
    match caught(actor.init(cx)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let reason = failed(error.context("init"));
            finish(cx, End::Stop).await;
            return reason.into();
        }
        Err(report) => {
            finish(cx, End::Stop).await;
            return ActorExit::Panicked(report);
        }
    }
    control.set_status(ActorStatus::Running);
    // Only `serve` rests, so that a long `init` or `cleanup` shows as such.
    control.counters().wakes();
    let reason = match caught(serve(actor, cx, batch)).await {
        Ok(Ok(reason)) => reason,
        Ok(Err(error)) => {
            let reason = failed(error);
            // Who waits for this very reply need not wait for the cleanup.
            batch.tell_in_hand(&waits::ended(&ActorExit::from(reason.clone())));
            reason
        }
        Err(report) => {
            control.counters().failed();
            let exit = ActorExit::Panicked(report);
            batch.tell_in_hand(&waits::ended(&exit));
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
    let cleanup = caught(actor.cleanup(cx, &reason));
    let deadline = cx.control().deadlines().cleanup;
    let outcome = within(deadline, cleanup).await;
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
async fn serve<A: Actor>(
    actor: &mut A,
    cx: &Context<A>,
    batch: &mut Batch<A>,
) -> ActorResult<ExitReason> {
    let control = cx.control();
    let inbox = &cx.cell().inbox;
    loop {
        if !control.is_quiet() {
            let attention = control.take_attention();
            if attention.stop {
                return Ok(ExitReason::Stopped);
            }
            if attention.drain {
                // From here on the queue only empties; when it has, the wait below says so.
                inbox.seal();
                control.set_status(ActorStatus::Ending);
            }
            if attention.report {
                let report = control.next_report();
                let is_event = matches!(report, Some(Report::Event(_)));
                attend(actor, cx, report).await?;
                tokio::task::coop::consume_budget().await;
                if is_event {
                    // Ends go before messages, each of them after a look at the signals.
                    continue;
                }
                // One undeliverable, and then a message: neither may keep the other waiting for ever.
            }
        }
        if !batch.is_empty() {
            batch.run(actor, cx).await?;
            continue;
        }
        let woken = batch.wait(cx).await;
        // What came back of the last messages is still looked at.
        if matches!(woken, Woken::Empty) && control.is_quiet() {
            return Ok(ExitReason::Drained);
        }
    }
}

/// Lets the actor look at one report.
async fn attend<A: Actor>(actor: &mut A, cx: &Context<A>, report: Option<Report>) -> ActorResult {
    match report {
        None => Ok(()),
        Some(Report::Undeliverable(report)) => {
            cx.control().counters().returned();
            actor.on_undeliverable(cx, *report).await
        }
        Some(Report::Event(event)) => actor.on_supervision(cx, *event).await,
    }
}

/// Gives back everything that an actor had, when it is dropped: at the end of the actor's life, or when the task is
/// dropped before that.
pub(crate) struct Ending<A: Actor> {
    cell: Arc<Cell<A>>,
    batch: Batch<A>,
    exit: ActorExit,
}

impl<A: Actor> Ending<A> {
    pub(crate) fn new(cell: Arc<Cell<A>>) -> Self {
        Self {
            cell,
            batch: Batch::new(),
            exit: ActorExit::Aborted,
        }
    }

    fn give_back(&mut self) {
        let cell = &*self.cell;
        self.batch.close(cell);
        // Ports that the user bound are told of the end; a panic of theirs must not hide it.
        if let Err(report) = caught_sync(|| cell.mailbox.close()) {
            tracing::error!(actor = %cell.actor_id(), panic = %report, "a port panicked when it was closed");
        }
        cell.control.abort_children();
        let proc = cell.proc.upgrade().ok();
        if let Some(proc) = &proc {
            proc.unbind(cell.actor_id());
        }
        let cause = waits::ended(&self.exit);
        cell.set_in_hand(None);
        self.batch.tell_in_hand(&cause);
        while let Some(message) = self.batch.pop_unhandled() {
            // The message's own `Drop` may run here, and it is the user's code.
            if let Err(report) = caught_sync(|| unhandled(cell, *message, &cause)) {
                tracing::warn!(actor = %cell.actor_id(), panic = %report, "a queued message panicked when it was dropped");
            }
        }
    }
}

impl<A: Actor> Drop for Ending<A> {
    fn drop(&mut self) {
        self.give_back();
        let control = &self.cell.control;
        let id = control.actor_id();
        match &self.exit {
            ActorExit::Stopped => tracing::debug!(actor = %id, "actor stopped"),
            ActorExit::Aborted => tracing::warn!(actor = %id, "actor aborted"),
            exit => tracing::error!(actor = %id, exit = %exit, "actor ended"),
        }
        control.close_reports();
        let watched = control.close_watching();
        let event = Arc::new(Event::of(
            id.clone(),
            self.cell.proc.incarnation(),
            &self.exit,
        ));
        if let Ok(proc) = self.cell.proc.upgrade() {
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
        control.set_status(ActorStatus::Ended(self.exit.clone()));
    }
}
