//! The part of an actor that does not depend on its type: the signals that end it, its status, its children, and
//! the reports that wait for it. Messages are not here; they are in the queue of the cell.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::future::AbortHandle;
use futures_util::task::AtomicWaker;
use hyperactor_mailbox::{Failure, ReturnSink, Token, Undeliverable};
use hyperactor_refs::ActorId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::reports::{Report, Reports};
use crate::time::within;
use crate::{ActorExit, ActorStatus, limits};

/// Asked to handle what is queued and end.
const DRAIN: u8 = 1;
/// Asked to end after the message in hand.
const STOP: u8 = 2;
/// Something waits in the reports.
const REPORT: u8 = 4;

/// How an actor is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Drain,
    Stop,
    Abort,
}

/// What the actor's loop has to look at before the next message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attention {
    pub(crate) drain: bool,
    pub(crate) stop: bool,
    pub(crate) report: bool,
}

pub(crate) struct Control {
    id: ActorId,
    /// `DRAIN`, `STOP` and `REPORT`, so that the loop reads one byte per message.
    attention: AtomicU8,
    waker: AtomicWaker,
    abort: AbortHandle,
    status: watch::Sender<ActorStatus>,
    reports: Reports,
    parent: Option<Weak<Control>>,
    children: Mutex<Children>,
}

#[derive(Default)]
struct Children {
    /// Set when the actor begins to end: a child that would be spawned now is refused.
    is_closed: bool,
    living: HashMap<ActorId, Arc<Control>>,
}

impl Control {
    pub(crate) fn new(id: ActorId, abort: AbortHandle, parent: Option<Weak<Control>>) -> Self {
        Self {
            id,
            attention: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            abort,
            status: watch::Sender::new(ActorStatus::Starting),
            reports: Reports::default(),
            parent,
            children: Mutex::default(),
        }
    }

    pub(crate) fn has_parent(&self) -> bool {
        self.parent.is_some()
    }

    pub(crate) fn actor_id(&self) -> &ActorId {
        &self.id
    }

    /// Asks the actor to end. Idempotent; a stronger wish overrides a weaker one.
    pub(crate) fn end(&self, end: End) {
        match end {
            End::Drain => self.raise(DRAIN),
            End::Stop => self.raise(STOP),
            End::Abort => self.abort.abort(),
        }
    }

    fn raise(&self, bit: u8) {
        self.attention.fetch_or(bit, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the loop has anything to look at. Called before every message, so it is one plain load.
    pub(crate) fn is_quiet(&self) -> bool {
        self.attention.load(Ordering::Relaxed) == 0
    }

    /// What there is to look at. A wish to drain is told once; the caller remembers it.
    pub(crate) fn take_attention(&self) -> Attention {
        let bits = self.attention.fetch_and(!DRAIN, Ordering::AcqRel);
        Attention {
            drain: bits & DRAIN != 0,
            stop: bits & STOP != 0,
            report: bits & REPORT != 0,
        }
    }

    /// Ready when there is something to look at; otherwise the actor's task is woken when there is.
    pub(crate) fn poll_attention(&self, cx: &TaskContext<'_>) -> Poll<()> {
        // Registered before the look, so that a signal between the look and the sleep is not missed.
        self.waker.register(cx.waker());
        if self.attention.load(Ordering::Acquire) == 0 {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// The next report that waits for the actor.
    pub(crate) fn next_report(&self) -> Option<Report> {
        let report = self.reports.pop();
        if report.is_none() {
            self.attention.fetch_and(!REPORT, Ordering::AcqRel);
            // One that came between the look and the clearing would wait for the next signal otherwise.
            let report = self.reports.pop();
            if report.is_some() {
                self.attention.fetch_or(REPORT, Ordering::Release);
            }
            return report;
        }
        report
    }

    pub(crate) fn status(&self) -> watch::Receiver<ActorStatus> {
        self.status.subscribe()
    }

    pub(crate) fn set_status(&self, status: ActorStatus) {
        self.status.send_replace(status);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.status.borrow().exit().is_some()
    }

    /// Resolves when the actor has ended.
    pub(crate) async fn ended(&self) -> ActorExit {
        exit_of(self.status()).await
    }

    // Children.

    /// Takes a child in. `false` when this actor is already ending.
    pub(crate) fn adopt(&self, child: &Arc<Control>) -> bool {
        let mut children = self.children.lock();
        if children.is_closed {
            return false;
        }
        children
            .living
            .insert(child.actor_id().clone(), Arc::clone(child));
        true
    }

    /// Tells the parent that this actor has ended.
    pub(crate) fn leave_parent(&self, exit: &ActorExit) {
        let Some(parent) = self.parent.as_ref().and_then(Weak::upgrade) else {
            return;
        };
        let told = {
            let mut children = parent.children.lock();
            children.living.remove(&self.id).is_some() && !children.is_closed
        };
        if told {
            parent.report(Report::ChildExit {
                child: self.id.clone(),
                exit: exit.clone(),
            });
        }
    }

    /// Ends all children and waits for them, at most for `deadline` and then for
    /// [`limits::ABORT_GRACE`] after they were aborted.
    pub(crate) async fn end_children(&self, end: End, deadline: Duration) {
        let children = self.close_children();
        if children.is_empty() {
            return;
        }
        for child in &children {
            child.end(end);
        }
        if within(deadline, all_ended(&children)).await.is_some() {
            return;
        }
        for child in children.iter().filter(|child| !child.is_ended()) {
            tracing::warn!(actor = %self.id, child = %child.id, "a child did not end in time and is aborted");
            child.end(End::Abort);
        }
        if within(limits::ABORT_GRACE, all_ended(&children))
            .await
            .is_none()
        {
            for child in children.iter().filter(|child| !child.is_ended()) {
                tracing::error!(actor = %self.id, child = %child.id, "a child blocks its thread and cannot be ended");
            }
        }
    }

    /// Aborts all children without waiting, for an end that cannot wait.
    pub(crate) fn abort_children(&self) {
        for child in self.close_children() {
            child.end(End::Abort);
        }
    }

    fn close_children(&self) -> Vec<Arc<Control>> {
        let mut children = self.children.lock();
        children.is_closed = true;
        children.living.values().cloned().collect()
    }

    // Reports.

    fn report(&self, report: Report) {
        match self.reports.push(report) {
            None => self.raise(REPORT),
            Some(report) => report.log(&self.id),
        }
    }

    /// Logs what the actor did not come to look at, and from now on everything.
    pub(crate) fn close_reports(&self) {
        for report in self.reports.close() {
            report.log(&self.id);
        }
    }
}

impl ReturnSink for Control {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        self.report(Report::Undeliverable(Box::new(report)));
    }

    fn abandoned(&self, _: Token) {
        tracing::warn!(actor = %self.id, "a message was dropped on its way without a verdict");
    }

    fn lost(&self, _: Token, failure: Failure) {
        tracing::warn!(actor = %self.id, failure = %failure, "a message was lost");
    }
}

/// Resolves when all of them have ended.
pub(crate) async fn all_ended(actors: &[Arc<Control>]) {
    for actor in actors {
        actor.ended().await;
    }
}

/// Resolves to the exit that a status ends in.
pub(crate) async fn exit_of(mut status: watch::Receiver<ActorStatus>) -> ActorExit {
    match status.wait_for(|status| status.exit().is_some()).await {
        Ok(status) => status.exit().cloned().unwrap_or(ActorExit::Aborted),
        // The sender lives in the actor's control and sends before it goes; without it nothing more is known.
        Err(_) => ActorExit::Aborted,
    }
}
