//! Request and reply with a deadline. A wait that cannot come to a reply ends at once: the request is known not to
//! arrive, whoever had it has ended or dropped it, or it would wait for itself. A wait that is given up takes its
//! request back.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyperactor_mailbox::{
    Asked, Failure, Hop, Kept, Mailbox, Message, MessageEnvelope, Never, NotDelivered, Notice,
    OncePortRef, Outbox, PortClosed, ReturnHandle, ReturnSink, Token, Undeliverable, Unknown,
};
use hyperactor_refs::{ActorId, PortId};
use parking_lot::Mutex;
use tokio::runtime::{self, Handle};
use tokio::task::{self, coop};
use tokio::time::{Instant, Sleep};

use crate::cell::Cell;
use crate::near::{self, Unplaced};
use crate::waits::{ASK_HEADER, AskHeader};
use crate::{Receives, limits};

/// Why a request has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The request was not delivered, and never will be.
    #[error("request to `{target}` not delivered: {reason}{}", Route(route))]
    NotDelivered {
        /// Who was asked.
        target: ActorId,
        /// Why.
        reason: Box<NotDelivered>,
        /// The steps the request had taken, the last one first.
        route: Vec<Hop>,
    },
    /// The request was sent, and what became of it is not known: it may have been handled.
    #[error("request to `{target}`: {reason}{}", Route(route))]
    Unknown {
        /// Who was asked.
        target: ActorId,
        /// Why it is not known.
        reason: Box<Unknown>,
        /// The steps the request had taken, the last one first.
        route: Vec<Hop>,
    },
    /// The actor had the request and ended without a reply: it was still in the queue, its handler failed, or it kept
    /// the reply for later.
    #[error("`{target}` has ended without a reply: {cause}")]
    TargetEnded {
        /// Who was asked.
        target: ActorId,
        /// How it ended, in words.
        cause: String,
    },
    /// Whoever had the request dropped the reply's port unused, and lives on, or the reply did not arrive.
    #[error("`{target}` gave no reply: {why}")]
    Unanswered {
        /// Who was asked.
        target: ActorId,
        /// What became of the reply.
        why: Never,
    },
    /// The actor waits for the asker already, through others: no one of them could ever go on.
    #[error(
        "`{target}` not asked: {}",
        NotDelivered::Deadlock { chain: chain.clone() }
    )]
    Deadlock {
        /// Who was asked.
        target: ActorId,
        /// Who waits for whom: each for the next, the last one for the first.
        chain: Vec<ActorId>,
    },
    /// The process of the actor was lost while the reply was waited for.
    #[error("no reply from `{target}`: {cause}")]
    ProcLost {
        /// Who was asked.
        target: ActorId,
        /// How it was lost, in words.
        cause: String,
    },
    /// No reply came in time. The request may have been handled, or may be yet.
    #[error("no reply from `{target}` within {} ms", deadline.as_millis())]
    TimedOut {
        /// Who was asked.
        target: ActorId,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// Whoever asked has ended, so no reply can reach it.
    #[error("`{asker}` has ended and can receive no reply")]
    AskerEnded {
        /// Who asked.
        asker: ActorId,
    },
}

impl AskError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotDelivered { reason, .. } => reason.code(),
            Self::Unknown { reason, .. } => reason.code(),
            Self::TargetEnded { .. } => "target-ended",
            Self::Unanswered { why, .. } => why.code(),
            Self::Deadlock { .. } => "deadlock",
            Self::ProcLost { .. } => "proc-lost",
            Self::TimedOut { .. } => "no-reply",
            Self::AskerEnded { .. } => "asker-ended",
        }
    }

    /// Whether asking again is safe and promising: only when the request was certainly not handled.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotDelivered { reason, .. } => reason.is_retryable(),
            _ => false,
        }
    }

    fn from_report(target: ActorId, failure: Failure, route: Vec<Hop>) -> Self {
        match failure {
            Failure::NotDelivered(NotDelivered::Deadlock { chain }) => {
                Self::Deadlock { target, chain }
            }
            Failure::NotDelivered(reason) => Self::NotDelivered {
                target,
                reason: Box::new(reason),
                route,
            },
            Failure::Unknown(reason) => Self::Unknown {
                target,
                reason: Box::new(reason),
                route,
            },
        }
    }
}

struct Route<'a>(&'a [Hop]);

impl std::fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, hop) in self.0.iter().rev().enumerate() {
            write!(f, "{}{hop}", if at == 0 { "; route: " } else { ", " })?;
        }
        Ok(())
    }
}

/// Asks. `request` makes the message around the port that takes the reply.
pub(crate) async fn ask<R: Message, M: Message>(
    cx: &(impl Outbox + ?Sized),
    dest: PortId,
    deadline: Duration,
    request: impl FnOnce(OncePortRef<R>) -> M,
) -> Result<R, AskError> {
    let target = dest.actor_id().clone();
    let is_elsewhere = **target.proc() != *cx.actor_id().proc_id();
    let (handle, mut receiver) = cx.mailbox().open_reply_port::<R>(cx.in_hand());
    let asked = receiver.asked();
    let header = is_elsewhere.then(|| AskHeader {
        reply_port: receiver.port_id().index(),
        chain: Arc::clone(&asked).chain(),
    });
    let lost = is_elsewhere.then(|| cx.proc_lost(target.proc())).flatten();
    let message = request(handle.bind());
    let mut envelope = MessageEnvelope::typed(cx.actor_id().clone(), dest, message);
    if let Some(header) = header {
        // One header of a size within the limit, in an envelope without others.
        let set = envelope.headers_mut().set(ASK_HEADER, header.encode());
        debug_assert!(set.is_ok(), "a request has one header: {set:?}");
    }
    let ttl = envelope.ttl();
    let fate = Arc::new(Fate::new(asked));
    let withdraw = Withdraw {
        cx,
        target: target.clone(),
        reply_port: is_elsewhere.then(|| receiver.port_id().clone()),
    };

    let waiting = async {
        let mut lost = pin!(async {
            match lost {
                Some(lost) => lost.await,
                None => pending().await,
            }
        });
        loop {
            cx.post(envelope, ReturnHandle::new(fate.clone(), Token::default()));
            let bad_news = tokio::select! {
                biased;
                // First: a reply that is there counts, whatever is told of the request.
                reply = receiver.recv() => return reply.map_err(|closed| fate.closed(closed)),
                bad_news = fate.told() => bad_news,
                how = &mut lost => return Err(Ending::ProcLost(how)),
            };
            let report = match bad_news {
                BadNews::Returned(report) => *report,
                BadNews::Lost(failure) => return Err(Ending::Failed(failure, Vec::new())),
            };
            // A queue of this process was full: the deadline bounds the wait for room.
            let Some(capacity) = report.capacity else {
                return Err(Ending::Failed(report.failure, report.route));
            };
            capacity.available().await;
            envelope = report.envelope;
            envelope.set_ttl(ttl);
        }
    };
    let answer = in_time(cx.mailbox(), deadline, pin!(waiting)).await;
    if answer.is_some() {
        withdraw.needless();
    }
    match answer {
        Some(Ok(reply)) => Ok(reply),
        Some(Err(ending)) => Err(ending.into_error(target, cx.actor_id())),
        None => Err(AskError::TimedOut { target, deadline }),
    }
}

/// As [`ask`], of an actor of the sender's own proc: the request goes straight into its queue, so that only the port for the
/// reply can tell anything afterwards.
pub(crate) async fn ask_near<R: Message, A: Receives<M>, M: Message>(
    cx: &(impl Outbox + ?Sized),
    cell: &Cell<A>,
    deadline: Duration,
    request: impl FnOnce(OncePortRef<R>) -> M,
) -> Result<R, AskError> {
    let mailbox = cx.mailbox();
    // A reply within the proc comes to the port itself, and its mailbox need not know of it.
    let (reply, mut receiver) = match cx.outlives_borrows() && !mailbox.is_closed() {
        true => mailbox.open_unnamed_reply_port::<R>(cx.in_hand()),
        false => {
            let (handle, receiver) = mailbox.open_reply_port::<R>(cx.in_hand());
            (handle.bind(), receiver)
        }
    };
    // Before anything is waited for, so that the message need not lie in a future of its own meanwhile.
    let unplaced = {
        let (mut message, mut asked) = (Some(request(reply)), Some(receiver.asked()));
        let placed = near::ask(cell, cx, &mut message, &mut asked);
        placed.err().map(|why| (why, message, asked))
    };
    let answer = match unplaced {
        None => in_time(mailbox, deadline, pin!(receiver.recv())).await,
        Some((mut why, mut message, mut asked)) => {
            let receiver = &mut receiver;
            // The deadline bounds the wait for room, too.
            let waiting = Box::pin(async move {
                loop {
                    match why {
                        Unplaced::Full => near::room::<A, M>(cell).await,
                        Unplaced::Never(reason) => return Err(reason),
                    }
                    match near::ask(cell, cx, &mut message, &mut asked) {
                        Ok(()) => return Ok(receiver.recv().await),
                        Err(again) => why = again,
                    }
                }
            });
            match in_time(mailbox, deadline, pin!(waiting)).await {
                Some(Ok(reply)) => Some(reply),
                Some(Err(reason)) => {
                    let target = cell.actor_id().clone();
                    return Err(AskError::from_report(target, reason.into(), Vec::new()));
                }
                None => None,
            }
        }
    };
    let target = || cell.actor_id().clone();
    match answer {
        Some(Ok(reply)) => Ok(reply),
        Some(Err(closed)) => {
            let ending = closed.never.map_or(Ending::Closed, Ending::Never);
            Err(ending.into_error(target(), cx.actor_id()))
        }
        None => Err(AskError::TimedOut {
            target: target(),
            deadline,
        }),
    }
}

/// The output, unless it is not there by the deadline. The clock is looked at first when there is something to wait for, and the
/// future stays where it is.
async fn in_time<F: Future>(
    mailbox: &Mailbox,
    deadline: Duration,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let mut timer = Timer {
        mailbox,
        deadline,
        set: None,
    };
    let mut own = pin!(None);
    poll_fn(|task| {
        if let Poll::Ready(output) = future.as_mut().poll(task) {
            return Poll::Ready(Some(output));
        }
        if timer.set.is_none() && own.is_none() && !timer.begin() {
            own.set(Some(tokio::time::sleep(deadline)));
        }
        if let Some(set) = &mut timer.set {
            return set.poll(task).map(|()| None);
        }
        match own.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(task).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// The timer of one wait, if it has that which a task keeps from wait to wait. One that is set already, for an earlier moment, is
/// left as it is: most waits end long before their deadline, and the one in which it fires sets it on to its own. A mailbox has
/// place for one; of several waits at a time the others have timers of their own.
///
/// What is kept stays set after its wait: a task that rests then may be woken by it once for nothing, within the deadline of its
/// last wait.
struct Timer<'a> {
    mailbox: &'a Mailbox,
    deadline: Duration,
    set: Option<SetTimer>,
}

/// A kept timer that fires at the end of a wait, or before.
struct SetTimer {
    kept: Box<KeptTimer>,
    /// The end.
    until: Instant,
}

struct KeptTimer {
    /// The task that it wakes.
    task: task::Id,
    /// The runtime that it belongs to. The task does not tell: one that blocks its thread may drive other runtimes there, which
    /// end before it does.
    runtime: runtime::Id,
    /// Whom it wakes, which may be a part of the task.
    waker: Waker,
    sleep: Pin<Box<Sleep>>,
}

impl Timer<'_> {
    /// Sets the kept timer, if there is one for this wait.
    fn begin(&mut self) -> bool {
        // One that is far off would keep the memory of an ended task for long; and outside of tasks nobody knows whose it is.
        let (Some(task), true) = (task::try_id(), self.deadline <= limits::ASK_DEADLINE) else {
            return false;
        };
        let Ok(runtime) = Handle::try_current().map(|handle| handle.id()) else {
            return false;
        };
        let kept = match self.mailbox.take_kept() {
            Kept::There(kept) => kept.downcast::<KeptTimer>().ok(),
            Kept::Nothing => None,
            Kept::Taken => return false,
        };
        let until = Instant::now() + self.deadline;
        let kept = match kept {
            Some(mut kept) if (kept.task, kept.runtime) == (task, runtime) => {
                if kept.sleep.deadline() > until {
                    kept.sleep.as_mut().reset(until);
                }
                kept
            }
            _ => Box::new(KeptTimer {
                task,
                runtime,
                // Nobody's, so that it is polled once before it is waited for.
                waker: Waker::noop().clone(),
                sleep: Box::pin(tokio::time::sleep_until(until)),
            }),
        };
        self.set = Some(SetTimer { kept, until });
        true
    }
}

impl SetTimer {
    /// Ready at the end of the wait.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let KeptTimer { waker, sleep, .. } = &mut *self.kept;
        // Polled by this very task before, it wakes it.
        if waker.will_wake(context.waker()) && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        *waker = Waker::noop().clone();
        loop {
            // A task whose turn is at its end is told to come again, and not yet of the timer.
            let is_registered = coop::has_budget_remaining();
            let polled = sleep.as_mut().poll(context);
            if polled.is_pending() && is_registered {
                waker.clone_from(context.waker());
            }
            ready!(polled);
            if Instant::now() >= self.until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(self.until);
        }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(set) = self.set.take() {
            self.mailbox.keep(set.kept);
        }
    }
}

/// tells the other process that nobody waits any more, when the wait is given up: at its deadline, or by dropping it.
///
/// Within a process the receiver that is dropped beside it tells that by itself.
struct Withdraw<'a, O: Outbox + ?Sized> {
    cx: &'a O,
    target: ActorId,
    reply_port: Option<PortId>,
}

impl<O: Outbox + ?Sized> Withdraw<'_, O> {
    /// There is a reply, or there will be none.
    fn needless(mut self) {
        self.reply_port = None;
    }
}

impl<O: Outbox + ?Sized> Drop for Withdraw<'_, O> {
    fn drop(&mut self) {
        if let Some(reply_port) = self.reply_port.take() {
            let notice = Notice::Withdrawn { reply_port };
            let envelope = notice.envelope(self.cx.actor_id().clone(), &self.target);
            self.cx.post(envelope, Notice::return_handle());
        }
    }
}

/// Why a wait ended without a reply.
enum Ending {
    Failed(Failure, Vec<Hop>),
    Never(Never),
    ProcLost(String),
    /// The port for the reply was closed on this side.
    Closed,
}

impl Ending {
    fn into_error(self, target: ActorId, asker: &ActorId) -> AskError {
        match self {
            Self::Failed(failure, route) => AskError::from_report(target, failure, route),
            Self::ProcLost(cause) => AskError::ProcLost { target, cause },
            Self::Never(Never::Ended { cause }) => AskError::TargetEnded { target, cause },
            Self::Never(why) => AskError::Unanswered { target, why },
            Self::Closed => AskError::AskerEnded {
                asker: asker.clone(),
            },
        }
    }
}

enum BadNews {
    Returned(Box<Undeliverable>),
    Lost(Failure),
}

/// What became of a request, as far as it is bad news.
struct Fate {
    asked: Arc<dyn Asked>,
    bad_news: Mutex<Option<BadNews>>,
    waker: AtomicWaker,
}

impl Fate {
    fn new(asked: Arc<dyn Asked>) -> Self {
        Self {
            asked,
            bad_news: Mutex::default(),
            waker: AtomicWaker::new(),
        }
    }

    /// Why the port for the reply was closed. What is known of the request comes first: its message, and with it the
    /// port's reference, may have been dropped because it failed.
    fn closed(&self, closed: PortClosed) -> Ending {
        match (self.bad_news.lock().take(), closed.never) {
            (Some(BadNews::Lost(failure)), _) => Ending::Failed(failure, Vec::new()),
            (Some(BadNews::Returned(report)), _) => Ending::Failed(report.failure, report.route),
            (None, Some(never)) => Ending::Never(never),
            (None, None) => Ending::Closed,
        }
    }

    fn tell(&self, bad_news: BadNews) {
        *self.bad_news.lock() = Some(bad_news);
        self.waker.wake();
    }

    async fn told(&self) -> BadNews {
        poll_fn(|cx| {
            // Registered before the look, so that news between the look and the sleep are not missed.
            self.waker.register(cx.waker());
            match self.bad_news.lock().take() {
                Some(bad_news) => Poll::Ready(bad_news),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl ReturnSink for Fate {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        self.tell(BadNews::Returned(Box::new(report)));
    }

    fn abandoned(&self, _: Token) {
        self.tell(BadNews::Lost(Unknown::Dropped.into()));
    }

    fn lost(&self, _: Token, failure: Failure) {
        self.tell(BadNews::Lost(failure));
    }

    fn asked(&self) -> Option<Arc<dyn Asked>> {
        Some(Arc::clone(&self.asked))
    }
}
