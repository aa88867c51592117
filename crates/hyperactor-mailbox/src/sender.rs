//! The contract of everything that takes an envelope: [`MailboxSender`]. The senders themselves are elsewhere:
//! mailboxes and the muxer in this crate, clients and routers in `hyperactor-router`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::envelope::MessageEnvelope;
use crate::failure::NotDelivered;
use crate::passage::Passage;
use crate::settle::ReturnHandle;

/// A future behind a pointer, so that a trait with it stays usable behind a pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Takes an envelope and moves it on: into a mailbox, over a channel, to another sender.
///
/// A sender takes ownership, never blocks, never loses silently: each envelope ends in exactly one settlement of its
/// return handle.
///
/// # Ordering
/// Envelopes that one thread posts for one destination are placed in the order posted.
///
/// ```
/// use hyperactor_mailbox::{MailboxSender, MessageEnvelope, ReturnHandle};
///
/// /// Counts what goes through it.
/// struct Counting<S> {
///     inner: S,
///     count: std::sync::atomic::AtomicU64,
/// }
///
/// impl<S: MailboxSender> MailboxSender for Counting<S> {
///     fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
///         self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///         self.inner.post_unchecked(envelope, return_handle);
///     }
/// }
/// ```
pub trait MailboxSender: Send + Sync + 'static {
    /// Moves the envelope on without spending its time to live: for a step that cannot be part of a loop.
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle);

    /// Spends one step of the time to live and moves the envelope on; an envelope without steps left comes back as
    /// [`NotDelivered::TtlExpired`].
    fn post(&self, mut envelope: MessageEnvelope, return_handle: ReturnHandle) {
        if envelope.spend_ttl() {
            self.post_unchecked(envelope, return_handle);
        } else {
            let port_id = envelope.dest().clone();
            return_handle.undeliverable(envelope, NotDelivered::TtlExpired { port_id });
        }
    }

    /// The way that [`post`](Self::post) would send this envelope, where it would send every envelope of its sender for any port of
    /// its destination the same way, and with no other change than one step of the time to live. Asked for an envelope that
    /// is about to be posted; none unless said otherwise.
    fn passage(&self, _envelope: &MessageEnvelope) -> Option<Passage> {
        None
    }

    /// Resolves when everything that was posted before has an outcome.
    ///
    /// # Errors
    /// [`FlushError::Unsupported`] from a sender that does not keep track; see [`FlushError`] for the others.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future stops the waiting and nothing else.
    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        Box::pin(std::future::ready(Err(FlushError::Unsupported)))
    }

    /// A clone of this sender with its type forgotten.
    fn boxed(&self) -> BoxedMailboxSender
    where
        Self: Clone + Sized,
    {
        BoxedMailboxSender::new(self.clone())
    }

    /// This sender with its type forgotten.
    fn into_boxed(self) -> BoxedMailboxSender
    where
        Self: Sized,
    {
        BoxedMailboxSender::new(self)
    }
}

/// Any sender. A clone costs one reference count.
#[derive(Clone)]
pub struct BoxedMailboxSender(Arc<dyn MailboxSender>);

impl BoxedMailboxSender {
    /// Forgets the type of a sender.
    pub fn new(sender: impl MailboxSender) -> Self {
        Self(Arc::new(sender))
    }
}

impl From<Arc<dyn MailboxSender>> for BoxedMailboxSender {
    fn from(sender: Arc<dyn MailboxSender>) -> Self {
        Self(sender)
    }
}

impl MailboxSender for BoxedMailboxSender {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.0.post_unchecked(envelope, return_handle);
    }

    fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        // Passed on, so that the inner sender spends the step and no two are spent.
        self.0.post(envelope, return_handle);
    }

    fn passage(&self, envelope: &MessageEnvelope) -> Option<Passage> {
        self.0.passage(envelope)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        self.0.flush()
    }

    fn boxed(&self) -> BoxedMailboxSender {
        self.clone()
    }

    fn into_boxed(self) -> BoxedMailboxSender {
        self
    }
}

impl<S: MailboxSender + ?Sized> MailboxSender for Arc<S> {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        (**self).post_unchecked(envelope, return_handle);
    }

    fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        (**self).post(envelope, return_handle);
    }

    fn passage(&self, envelope: &MessageEnvelope) -> Option<Passage> {
        (**self).passage(envelope)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        (**self).flush()
    }
}

impl fmt::Debug for BoxedMailboxSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedMailboxSender").finish_non_exhaustive()
    }
}

/// A flush did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The sender does not keep track of outcomes.
    #[error("this sender does not keep track of outcomes, so it cannot be flushed")]
    Unsupported,
    /// The sender ended while it was flushed; every message still has an outcome of its own.
    #[error("the sender to {to} ended while it was flushed: {error}")]
    Closed {
        /// Where the sender led.
        to: String,
        /// Why it ended.
        error: String,
    },
}

/// Leads nowhere: every envelope comes back as [`NotDelivered::NoRoute`] with a text that says why.
#[derive(Clone, Debug)]
pub struct UnroutableMailboxSender {
    detail: Arc<str>,
}

impl UnroutableMailboxSender {
    /// A sender that answers with this text.
    pub fn new(detail: impl Into<Arc<str>>) -> Self {
        Self {
            detail: detail.into(),
        }
    }
}

impl Default for UnroutableMailboxSender {
    fn default() -> Self {
        Self::new("nothing leads out of here")
    }
}

impl MailboxSender for UnroutableMailboxSender {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let port_id = envelope.dest().clone();
        let detail = self.detail.to_string();
        return_handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        // Everything is settled before `post` returns.
        Box::pin(std::future::ready(Ok(())))
    }
}
