//! The border through which a post learns its outcome: [`Completion`], and the two that channels use themselves.

use tokio::sync::oneshot;

use crate::{Failure, Outcome};

/// What becomes of one posted message. Exactly one of the three methods is called, exactly once, and never while the
/// channel holds a lock of its own: by the task that drives the channel, or, for a failure that is known at once and
/// for in-process channels, by the posting thread before the post returns.
///
/// It is also called when a handle is dropped, the driver panics or the runtime shuts down. The methods must not block.
pub trait Completion<M>: Send + 'static {
    /// The message was placed at its destination.
    fn delivered(self);

    /// The message was not delivered, or that is unknown; here it is again.
    fn undelivered(self, message: M, failure: Failure);

    /// As [`undelivered`](Self::undelivered), when the message itself cannot be rebuilt.
    fn lost(self, failure: Failure);

    /// Whether someone waits for the outcome. Then the peer acknowledges at once instead of with the next batch.
    fn wants_outcome(&self) -> bool {
        false
    }
}

/// Ignores every outcome: for fire and forget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ignore;

impl<M> Completion<M> for Ignore {
    fn delivered(self) {}
    fn undelivered(self, _message: M, failure: Failure) {
        tracing::debug!(%failure, "a posted message failed");
    }
    fn lost(self, failure: Failure) {
        tracing::debug!(%failure, "a posted message failed");
    }
}

/// The completion of a [`ChannelTx`](crate::ChannelTx): nobody waits, or one `send` does.
#[derive(Debug)]
pub(crate) enum TxCompletion {
    Ignore,
    Waiter(oneshot::Sender<Outcome>),
}

impl TxCompletion {
    fn fail(self, failure: Failure) {
        match self {
            Self::Ignore => tracing::debug!(%failure, "a posted message failed"),
            // The waiter may have stopped waiting: then nobody wants to know.
            Self::Waiter(waiter) => drop(waiter.send(failure.into())),
        }
    }
}

impl<M> Completion<M> for TxCompletion {
    #[inline]
    fn delivered(self) {
        if let Self::Waiter(waiter) = self {
            // As above.
            drop(waiter.send(Outcome::Delivered));
        }
    }
    fn undelivered(self, _message: M, failure: Failure) {
        self.fail(failure);
    }
    fn lost(self, failure: Failure) {
        self.fail(failure);
    }
    fn wants_outcome(&self) -> bool {
        matches!(self, Self::Waiter(_))
    }
}
