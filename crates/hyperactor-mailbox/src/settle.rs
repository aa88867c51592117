//! How an outcome gets back to whoever posted: [`ReturnHandle`] settles a post exactly once through a [`ReturnSink`],
//! and a [`Lease`] tells when the message has left its queue. Waiting for one outcome is in `settle_oneshot.rs`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::asked::Asked;
use crate::envelope::MessageEnvelope;
use crate::failure::{Failure, Unknown};
use crate::feeding::{self, Attempt};
use crate::undeliverable::Undeliverable;

/// What a sink told a handle to give back: which of its posts is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Token {
    /// The sink's own number of the post.
    pub id: u64,
    /// The size of the message in bytes as the sink counts it; 0 where it does not.
    pub size: u32,
    /// The sink's own number of the destination; 0 where it has none.
    pub to: u32,
}

/// Where outcomes go. Exactly one of `delivered`, `undelivered`, `lost` and `abandoned` is called for each handle.
///
/// Called from whichever thread settles, with no lock of this crate held. Must not block.
pub trait ReturnSink: Send + Sync + 'static {
    /// The message was placed in the destination mailbox.
    fn delivered(&self, token: Token) {
        let _ = token;
    }

    /// The message comes back.
    fn undelivered(&self, token: Token, report: Undeliverable);

    /// The handle was dropped without a verdict: the outcome is [`Unknown::Dropped`], and the message is gone.
    fn abandoned(&self, token: Token);

    /// The outcome is a failure, and the message cannot be given back.
    fn lost(&self, token: Token, failure: Failure) {
        let _ = failure;
        self.abandoned(token);
    }

    /// A message that was delivered has left the queue it was placed in. Called once for each, and only if
    /// [`wants_release`](Self::wants_release); not for a message that was not delivered, whose credit is free anyway.
    ///
    /// A receiver may be so quick that this comes before [`delivered`](Self::delivered) of the same message.
    fn released(&self, token: Token) {
        let _ = token;
    }

    /// As [`delivered`](Self::delivered) and [`released`](Self::released) at once, for a message that lies in no queue of this
    /// process: it was placed beyond it.
    fn delivered_beyond(&self, token: Token) {
        self.delivered(token);
        if self.wants_release() {
            self.released(token);
        }
    }

    /// Whether the sink counts what is queued and gives out credit for it.
    ///
    /// A queue takes messages of such sinks beyond its capacity, because the credit bounds them.
    fn wants_release(&self) -> bool {
        false
    }

    /// Whether [`released`](Self::released) looks at nothing of a token but its size and its destination. Then messages that
    /// follow each other can hold their credit as one [group](LeaseGroup), and a release names no number.
    fn releases_by_size(&self) -> bool {
        false
    }

    /// Whether somebody waits for the outcome right now, so that it is worth an acknowledgement of its own.
    fn wants_outcome(&self) -> bool {
        false
    }

    /// The request that the message is, if its sender waits in this process for a reply.
    fn asked(&self) -> Option<Arc<dyn Asked>> {
        None
    }
}

/// The duty to tell what became of one message.
///
/// Settled once, by [`delivered`](Self::delivered), [`undeliverable`](Self::undeliverable), [`report`](Self::report) or
/// [`lost`](Self::lost); dropping it unsettled reports [`Unknown::Dropped`]. Making one allocates nothing.
#[must_use = "a return handle that is dropped reports its message as lost"]
pub struct ReturnHandle {
    // Empty once it is settled.
    sink: Option<Arc<dyn ReturnSink>>,
    token: Token,
    /// The try to post it that wants it back where a queue is full.
    attempt: Attempt,
}

impl ReturnHandle {
    /// A handle that settles through `sink` under `token`.
    pub fn new(sink: Arc<dyn ReturnSink>, token: Token) -> Self {
        Self {
            sink: Some(sink),
            token,
            attempt: Attempt::default(),
        }
    }

    pub(crate) fn with_attempt(mut self, attempt: Attempt) -> Self {
        self.attempt = attempt;
        self
    }

    pub(crate) fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// A handle for a post whose sender does not listen: failures are logged with ids and reason.
    pub fn monitored() -> Self {
        static MONITOR: OnceLock<Arc<dyn ReturnSink>> = OnceLock::new();
        Self::new(
            Arc::clone(MONITOR.get_or_init(|| Arc::new(Monitor))),
            Token::default(),
        )
    }

    /// The message is in its mailbox. The lease belongs beside the message, and is dropped when the message is taken out.
    pub fn delivered(mut self) -> Lease {
        let Some(sink) = self.sink.take() else {
            return Lease::none();
        };
        sink.delivered(self.token);
        if sink.wants_release() {
            Lease(Some((sink, self.token)))
        } else {
            Lease::none()
        }
    }

    /// The message is in its mailbox, beyond this process: no queue holds its credit here.
    pub fn delivered_beyond(mut self) {
        if let Some(sink) = self.sink.take() {
            sink.delivered_beyond(self.token);
        }
    }

    /// The lease of a message that is about to be placed, so that both go into the queue together. Then follows
    /// [`placed`](Self::placed), or the lease is [forgotten](Lease::forget) and the message given back.
    pub fn lease(&self) -> Lease {
        match &self.sink {
            Some(sink) if sink.wants_release() => Lease(Some((Arc::clone(sink), self.token))),
            _ => Lease::none(),
        }
    }

    /// As [`lease`](Self::lease), of this group; `None` if the message is not of it.
    #[must_use]
    pub fn lease_in(&self, group: &LeaseGroup) -> Option<u32> {
        let sink = self.sink.as_ref()?;
        let is_same = std::ptr::addr_eq(Arc::as_ptr(sink), Arc::as_ptr(&group.sink));
        (is_same && self.token.to == group.to).then_some(self.token.size)
    }

    /// The group that the lease of this message can be of; `None` if its sink has none.
    #[must_use]
    pub fn lease_group(&self) -> Option<LeaseGroup> {
        let sink = self.sink.as_ref()?;
        (sink.wants_release() && sink.releases_by_size()).then(|| LeaseGroup {
            sink: Arc::clone(sink),
            to: self.token.to,
        })
    }

    /// The message is in its mailbox, with the [lease](Self::lease) that was asked for before.
    pub fn placed(mut self) {
        if let Some(sink) = self.sink.take() {
            sink.delivered(self.token);
        }
    }

    /// Gives the message back with the reason.
    pub fn undeliverable(self, envelope: MessageEnvelope, failure: impl Into<Failure>) {
        self.report(Undeliverable::new(envelope, failure));
    }

    /// Gives the message back with a report that others made.
    pub fn report(self, report: Undeliverable) {
        if self.attempt.is_none() {
            return self.tell(report);
        }
        if let Err((handle, report)) = feeding::keep(self, report) {
            handle.tell(report);
        }
    }

    fn tell(mut self, report: Undeliverable) {
        if let Some(sink) = self.sink.take() {
            sink.undelivered(self.token, report);
        }
    }

    /// Reports a failure of a message that cannot be given back.
    pub fn lost(mut self, failure: impl Into<Failure>) {
        if let Some(sink) = self.sink.take() {
            sink.lost(self.token, failure.into());
        }
    }

    /// Whether somebody waits for this outcome.
    #[must_use]
    pub fn wants_outcome(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.wants_outcome())
    }

    /// Whether the message is bounded by credit that its sender was given, rather than by a queue's capacity.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.wants_release())
    }

    /// The request that the message is, if its sender waits in this process for a reply.
    #[must_use]
    pub fn asked(&self) -> Option<Arc<dyn Asked>> {
        self.sink.as_ref().and_then(|sink| sink.asked())
    }

    /// What the sink told the handle.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }
}

impl Drop for ReturnHandle {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.abandoned(self.token);
        }
    }
}

impl fmt::Debug for ReturnHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReturnHandle")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Credit that a placed message holds. Dropped when the message leaves its queue, which gives the credit back.
#[must_use = "a lease that is dropped gives its credit back at once"]
pub struct Lease(Option<(Arc<dyn ReturnSink>, Token)>);

impl Lease {
    /// A lease that holds nothing: the message is from this process.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether the message is from this process, and so counts against its queue's capacity.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0.is_none()
    }
}

impl Lease {
    /// Ends the lease without giving credit back: its message was not placed after all.
    pub fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((sink, token)) = self.0.take() {
            sink.released(token);
        }
    }
}

/// What the leases of messages have in common that came by one session for one destination: beside each of them lies its size
/// only.
pub struct LeaseGroup {
    sink: Arc<dyn ReturnSink>,
    to: u32,
}

impl LeaseGroup {
    /// A message of this size has left its queue: its credit goes back. Once for each that was placed with a lease
    /// [of the group](ReturnHandle::lease_in).
    pub fn release(&self, size: u32) {
        self.sink.released(self.token(size));
    }

    /// The lease of one message of this size, on its own. The group does not release it then.
    pub fn lease(&self, size: u32) -> Lease {
        Lease(Some((Arc::clone(&self.sink), self.token(size))))
    }

    fn token(&self, size: u32) -> Token {
        Token {
            id: 0,
            size,
            to: self.to,
        }
    }
}

impl fmt::Debug for LeaseGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseGroup")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("is_local", &self.is_local())
            .finish()
    }
}

/// The process-wide default: nobody listens, so failures are logged.
struct Monitor;

impl ReturnSink for Monitor {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        tracing::warn!(
            sender = %report.envelope.sender(),
            dest = %report.envelope.dest(),
            code = report.failure.code(),
            "{report}",
        );
    }

    fn abandoned(&self, _: Token) {
        tracing::warn!(
            code = Unknown::Dropped.code(),
            "a message was dropped on the way without a verdict"
        );
    }

    fn lost(&self, _: Token, failure: Failure) {
        tracing::warn!(code = failure.code(), "a message was lost: {failure}");
    }
}
