//! The part of an actor that does not depend on its type: the signals that end it, its status, its children, whom it
//! watches and who watches it, and the reports that wait for it. Messages are not here; they are in the queue of the cell, of
//! which this is a part, too: one allocation holds both.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::task::AtomicWaker;
use hyperactor_mailbox::{ReturnSink, Undeliverable};
use hyperactor_refs::ActorId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::blocking::Pace;
use crate::counters::Counters;
use crate::reports::{Report, Reports};
use crate::status::{Followed, Stage};
use crate::supervision::Watchers;
use crate::time::within;
use crate::trace::{Carried, CurrentTrace};
use crate::{ActorExit, ActorStatus, Event, Relation, limits};

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

/// One for each actor, so what most of them never need is in [`More`].
///
/// In this order in memory: what others read and seldom change lies between the queue, before it, and the counters, which the
/// actor's task writes for every message, so that senders and the actor do not take a cache line from each other.
#[repr(C)]
pub(crate) struct Control {
    id: ActorId,
    parent: Option<Weak<dyn AnyCell>>,
    more: OnceLock<Box<More>>,
    /// `None` where they are the usual ones.
    deadlines: Option<Box<Deadlines>>,
    /// `DRAIN`, `STOP` and `REPORT`, so that the loop reads one byte per message.
    attention: AtomicU8,
    is_aborted: AtomicBool,
    /// Whether the waker is there, for the actor's task itself.
    is_watching: AtomicBool,
    stage: Stage,
    is_tracing: AtomicBool,
    pace: Pace,
    /// Wakes the actor's task, from its first turn to its end.
    waker: Mutex<Option<Waker>>,
    counters: Counters,
}

/// What an actor comes to have when it gets children, watches or is watched, or is told something. Every actor has it from
/// its end on.
#[derive(Default)]
struct More {
    status: Followed,
    trace: Carried,
    reports: Reports,
    children: Mutex<Children>,
    watchers: Watchers,
    watching: Mutex<Watching>,
    /// How many tasks run on the actor's behalf.
    tasks: Arc<AtomicUsize>,
    /// Wakes a part of the actor's task that would rather not wait when the actor is asked to stop.
    stop_waker: AtomicWaker,
}

/// The cell of an actor of whatever type, and by it the actor's control.
///
/// Whoever has it keeps the actor's memory, and neither its life nor its messages.
pub(crate) trait AnyCell: ReturnSink {
    fn control(&self) -> &Control;

    /// The name of the actor's type.
    fn actor_type(&self) -> &'static str;

    /// How many messages wait.
    fn queued(&self) -> usize;

    /// How many came by reference from within the proc.
    fn by_reference(&self) -> u64;
}

impl Deref for dyn AnyCell {
    type Target = Control;

    fn deref(&self) -> &Control {
        self.control()
    }
}

/// How long the parts of an actor's end may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    pub(crate) cleanup: Duration,
    pub(crate) children: Duration,
    /// For the whole of it, once it is asked for; the parent's for its children where there is none.
    pub(crate) stop: Option<Duration>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            cleanup: limits::CLEANUP_DEADLINE,
            children: limits::CHILDREN_DEADLINE,
            stop: None,
        }
    }
}

/// Whom an actor watches.
#[derive(Default)]
struct Watching {
    /// Set when the actor has ended: nothing is watched any more.
    is_closed: bool,
    /// By the key of the watch; no relation where the actor ends with the one it watches.
    by_key: HashMap<u64, (ActorId, Option<Relation>)>,
}

#[derive(Default)]
struct Children {
    /// Set when the actor begins to end: a child that would be spawned now is refused.
    is_closed: bool,
    /// With numbers that grow from child to child.
    living: HashMap<ActorId, (u64, Arc<dyn AnyCell>)>,
    adopted: u64,
    /// They end one after the other, the last one first.
    end_in_order: bool,
}

impl Control {
    pub(crate) fn new(
        id: ActorId,
        parent: Option<Weak<dyn AnyCell>>,
        deadlines: Deadlines,
        pace: Pace,
    ) -> Self {
        Self {
            id,
            parent,
            more: OnceLock::new(),
            deadlines: (deadlines != Deadlines::default()).then(|| Box::new(deadlines)),
            attention: AtomicU8::new(0),
            is_aborted: AtomicBool::new(false),
            is_watching: AtomicBool::new(false),
            stage: Stage::default(),
            is_tracing: AtomicBool::new(false),
            pace,
            waker: Mutex::default(),
            counters: Counters::default(),
        }
    }

    fn more(&self) -> &More {
        self.more.get_or_init(Box::default)
    }

    /// How many tasks run on the actor's behalf.
    pub(crate) fn tasks(&self) -> &Arc<AtomicUsize> {
        &self.more().tasks
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How its turns went lately.
    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// The trace that the message in hand belongs to.
    #[inline]
    pub(crate) fn trace<'a>(&'a self) -> CurrentTrace<'a, impl FnOnce() -> &'a Carried> {
        CurrentTrace {
            is_set: &self.is_tracing,
            carried: || &self.more().trace,
        }
    }

    pub(crate) fn has_parent(&self) -> bool {
        self.parent.is_some()
    }

    pub(crate) fn actor_id(&self) -> &ActorId {
        &self.id
    }

    pub(crate) fn deadlines(&self) -> Deadlines {
        self.deadlines.as_deref().copied().unwrap_or_default()
    }

    /// Asks the actor to end. Idempotent; a stronger wish overrides a weaker one.
    pub(crate) fn end(&self, end: End) {
        match end {
            End::Drain => self.raise(DRAIN),
            End::Stop => self.raise(STOP),
            End::Abort => {
                self.is_aborted.store(true, Ordering::Release);
                self.wake();
            }
        }
    }

    fn wake(&self) {
        // Ordered by the lock: either this finds the waker there, or the task finds the signal that was given before.
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn raise(&self, bit: u8) {
        self.attention.fetch_or(bit, Ordering::Release);
        self.wake();
        if let Some(more) = self.more.get() {
            more.stop_waker.wake();
        }
    }

    /// Has the actor's task woken by every signal from here on. Called at the beginning of each of its turns, so that a signal
    /// is either seen in this turn or brings the next one.
    ///
    /// It is always the same task, so this is done in the first of them.
    #[inline]
    pub(crate) fn watch_task(&self, task: &TaskContext<'_>) {
        if !self.is_watching.load(Ordering::Relaxed) {
            *self.waker.lock() = Some(task.waker().clone());
            self.is_watching.store(true, Ordering::Relaxed);
        }
    }

    /// The actor's task ends, and its memory is not to be kept for those who know the actor.
    pub(crate) fn unwatch_task(&self) {
        let waker = self.waker.lock().take();
        drop(waker);
    }

    /// Whether the actor is to end at once.
    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Acquire)
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
    pub(crate) fn poll_attention(&self) -> Poll<()> {
        match self.attention.load(Ordering::Acquire) {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// Ready when the actor is asked to stop; otherwise `task` is woken when there is something to look at.
    pub(crate) fn poll_stop(&self, task: &TaskContext<'_>) -> Poll<()> {
        // Of its own, since it may be a part of the actor's task that is polled only when it was woken itself. Registered before
        // the look, so that a signal between the look and the sleep is not missed.
        self.more().stop_waker.register(task.waker());
        if self.attention.load(Ordering::Acquire) & STOP == 0 {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// The next report that waits for the actor.
    pub(crate) fn next_report(&self) -> Option<Report> {
        let report = self.more().reports.pop();
        if report.is_none() {
            self.attention.fetch_and(!REPORT, Ordering::AcqRel);
            // One that came between the look and the clearing would wait for the next signal otherwise.
            let report = self.more().reports.pop();
            if report.is_some() {
                self.attention.fetch_or(REPORT, Ordering::Release);
            }
            return report;
        }
        report
    }

    /// What the actor is doing, to wait for what it does next.
    pub(crate) fn status(&self) -> watch::Receiver<ActorStatus> {
        self.stage.follow(&self.more().status)
    }

    /// What the actor is doing.
    pub(crate) fn status_now(&self) -> ActorStatus {
        let more = self.more.get();
        self.stage.now(more.map(|more| &more.status))
    }

    pub(crate) fn set_status(&self, status: ActorStatus) {
        self.stage.set(status, &self.more, |more| &more.status);
    }

    /// Whether the actor was initialised, which its last status does not tell.
    pub(crate) fn has_run(&self) -> bool {
        self.stage.has_run()
    }

    /// Resolves when the actor has ended.
    pub(crate) async fn ended(&self) -> ActorExit {
        match self.status_now() {
            ActorStatus::Ended(exit) => exit,
            _ => exit_of(self.status()).await,
        }
    }

    // Children.

    /// Takes a child in. `false` when this actor is already ending.
    pub(crate) fn adopt(&self, child: &Arc<dyn AnyCell>) -> bool {
        let mut children = self.more().children.lock();
        if children.is_closed {
            return false;
        }
        children.adopted += 1;
        let number = children.adopted;
        children
            .living
            .insert(child.actor_id().clone(), (number, Arc::clone(child)));
        true
    }

    /// The ids of the children, in no order.
    pub(crate) fn child_ids(&self) -> Vec<ActorId> {
        self.more().children.lock().living.keys().cloned().collect()
    }

    /// The parent, while it lives.
    pub(crate) fn parent_id(&self) -> Option<ActorId> {
        let parent = self.parent.as_ref()?.upgrade()?;
        Some(parent.id.clone())
    }

    /// Lets go of a child: its end is not told here. Whether it was one.
    pub(crate) fn disown(&self, child: &ActorId) -> bool {
        self.more().children.lock().living.remove(child).is_some()
    }

    /// Tells the parent that this actor has ended.
    pub(crate) fn leave_parent(&self, event: &Event) {
        let Some(parent) = self.parent.as_ref().and_then(Weak::upgrade) else {
            return;
        };
        let told = {
            let mut children = parent.more().children.lock();
            children.living.remove(&self.id).is_some() && !children.is_closed
        };
        if told {
            parent.supervise(event.told_as(Relation::Child));
        }
    }

    /// Ends all children and waits for them: each for its own deadline, or else for `deadline`, and then for
    /// [`limits::ABORT_GRACE`] after it was aborted.
    pub(crate) async fn end_children(&self, end: End, deadline: Duration) {
        let (children, is_in_order) = self.close_children();
        if is_in_order {
            for child in children.iter().rev() {
                self.end_child(child, end, deadline).await;
            }
        } else if !children.is_empty() {
            let ends = children
                .iter()
                .map(|child| self.end_child(child, end, deadline));
            join_all(ends).await;
        }
    }

    async fn end_child(&self, child: &Control, end: End, deadline: Duration) {
        child.end(end);
        let deadline = child.deadlines().stop.unwrap_or(deadline);
        if child.ended_within(deadline).await.is_none() {
            tracing::warn!(actor = %self.id, child = %child.id, "a child did not end in time and is aborted");
            child.end(End::Abort);
            if child.ended_within(limits::ABORT_GRACE).await.is_none() {
                tracing::error!(actor = %self.id, child = %child.id, "a child blocks its thread and cannot be ended");
            }
        }
    }

    /// Asks for the end, and enforces it after a while. Nothing where the actor blocks its thread.
    pub(crate) async fn end_within(&self, end: End, deadline: Duration) -> Option<ActorExit> {
        self.end(end);
        if let Some(exit) = self.ended_within(deadline).await {
            return Some(exit);
        }
        self.end(End::Abort);
        self.ended_within(limits::ABORT_GRACE).await
    }

    /// Waits for the end, for a while.
    pub(crate) async fn ended_within(&self, time: Duration) -> Option<ActorExit> {
        within(time, self.ended()).await
    }

    /// Aborts all children without waiting, for an end that cannot wait.
    pub(crate) fn abort_children(&self) {
        for child in self.close_children().0 {
            child.end(End::Abort);
        }
    }

    /// From now on the children end one after the other, the last one first, each with the deadline for itself.
    pub(crate) fn end_children_in_order(&self) {
        self.more().children.lock().end_in_order = true;
    }

    /// Takes no more, and gives those that live, in the order they came, and whether they are to end in order.
    fn close_children(&self) -> (Vec<Arc<dyn AnyCell>>, bool) {
        let mut children = self.more().children.lock();
        children.is_closed = true;
        let mut living: Vec<_> = children.living.values().cloned().collect();
        living.sort_unstable_by_key(|(number, _)| *number);
        let living = living.into_iter().map(|(_, child)| child).collect();
        (living, children.end_in_order)
    }

    // Watches.

    pub(crate) fn watchers(&self) -> &Watchers {
        &self.more().watchers
    }

    /// Notes that this actor watches another. `false` when it has ended.
    pub(crate) fn starts_watching(
        &self,
        key: u64,
        target: &ActorId,
        relation: Option<Relation>,
    ) -> bool {
        let mut watching = self.more().watching.lock();
        if watching.is_closed {
            return false;
        }
        watching.by_key.insert(key, (target.clone(), relation));
        true
    }

    /// Whether it watched until now.
    pub(crate) fn stops_watching(&self, key: u64) -> bool {
        self.more().watching.lock().by_key.remove(&key).is_some()
    }

    /// Watches nobody from now on, and gives whom it did.
    pub(crate) fn close_watching(&self) -> Vec<(u64, ActorId)> {
        let mut watching = self.more().watching.lock();
        watching.is_closed = true;
        let watched = watching.by_key.drain();
        watched.map(|(key, (target, _))| (key, target)).collect()
    }

    pub(crate) fn watched_under(&self, key: u64) -> Option<ActorId> {
        let watching = self.more().watching.lock();
        watching.by_key.get(&key).map(|(target, _)| target.clone())
    }

    /// Under which key this actor is linked with another.
    pub(crate) fn link_key(&self, other: &ActorId) -> Option<u64> {
        let watching = self.more().watching.lock();
        let mut links = watching.by_key.iter();
        links
            .find(|(_, (target, relation))| *relation == Some(Relation::Linked) && target == other)
            .map(|(key, _)| *key)
    }

    /// Whom it is linked with.
    pub(crate) fn links(&self) -> Vec<ActorId> {
        let watching = self.more().watching.lock();
        let links = watching.by_key.values();
        links
            .filter(|(_, relation)| *relation == Some(Relation::Linked))
            .map(|(target, _)| target.clone())
            .collect()
    }

    // Reports.

    /// Tells this actor that another has ended.
    pub(crate) fn supervise(&self, event: Event) {
        self.report(Report::Event(Box::new(event)));
    }

    /// Takes back what it was not yet told; whether there was any.
    pub(crate) fn forget_events(&self, which: impl Fn(&Event) -> bool) -> bool {
        self.more().reports.forget_events(which)
    }

    /// Tells this actor that a message of its own comes back.
    pub(crate) fn returned(&self, report: Undeliverable) {
        self.report(Report::Undeliverable(Box::new(report)));
    }

    fn report(&self, report: Report) {
        match self.more().reports.push(report) {
            None => self.raise(REPORT),
            Some(report) => report.log(&self.id),
        }
    }

    /// Logs what the actor did not come to look at, and from now on everything.
    pub(crate) fn close_reports(&self) {
        for report in self.more().reports.close() {
            report.log(&self.id);
        }
    }
}

/// Resolves when all of them have ended.
pub(crate) async fn all_ended(actors: &[Arc<dyn AnyCell>]) {
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
