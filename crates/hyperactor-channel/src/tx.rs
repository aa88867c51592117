//! The everyday sending end: [`ChannelTx`] and the trait [`Tx`], for those who want outcomes as values instead of
//! completions of their own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use hyperactor_refs::ChannelAddr;
use tokio::sync::{oneshot, watch};

use crate::completion::TxCompletion;
use crate::{FlushError, Outbound, Outcome, Reason, Rejected, Status};

/// A boxed future, so that the traits here can be made into objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends messages of one type to one address.
pub trait Tx<M: Send + 'static>: Send + Sync {
    /// Posts without blocking.
    ///
    /// # Errors
    ///
    /// A failure that is known at once, with the message.
    fn try_post(&self, message: M) -> Result<(), (M, Reason)>;

    /// Waits for room, posts, and waits for the outcome.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for room, the message is dropped with it; dropped later, it goes out all the same.
    fn send(&self, message: M) -> BoxFuture<'_, Outcome>;

    /// Where the messages go.
    fn addr(&self) -> &ChannelAddr;

    /// Fire and forget: a failure is logged and nobody is told.
    fn post(&self, message: M) {
        if let Err((_, reason)) = self.try_post(message) {
            tracing::debug!(addr = %self.addr(), %reason, "a posted message failed");
        }
    }
}

/// The sending end of a dialled channel. Cheap to clone. See [`Outbound`] for what it promises.
pub struct ChannelTx<M>(Outbound<M, TxCompletion>);

impl<M> Clone for ChannelTx<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> fmt::Debug for ChannelTx<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChannelTx").field(&self.0).finish()
    }
}

impl<M: Send + 'static> ChannelTx<M> {
    pub(crate) fn new(outbound: Outbound<M, TxCompletion>) -> Self {
        Self(outbound)
    }

    /// Fire and forget: a failure is logged and nobody is told.
    pub fn post(&self, message: M) {
        Tx::post(self, message);
    }

    /// Posts without blocking. The outcome of a message that was taken is not reported; use [`send`](Self::send) for it.
    ///
    /// # Errors
    ///
    /// A failure that is known at once (full, closed, too large, not encodable), with the message.
    pub fn try_post(&self, message: M) -> Result<(), (M, Reason)> {
        self.0
            .offer(message, TxCompletion::Ignore)
            .map_err(|rejected| (rejected.message, rejected.reason))
    }

    /// Waits for room, posts, and waits for the outcome, which the peer reports at once.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for room, the message is not sent and is dropped with it. Dropped later, the message goes
    /// out all the same and nobody learns its outcome.
    pub async fn send(&self, message: M) -> Outcome {
        let (waiter, outcome) = oneshot::channel();
        let mut next = (message, TxCompletion::Waiter(waiter));
        loop {
            match self.0.offer(next.0, next.1) {
                Ok(()) => break,
                Err(Rejected {
                    message,
                    completion,
                    reason: Reason::Full,
                }) => {
                    // A channel that has ended has room: the next offer says why it ended.
                    let capacity = self.0.capacity_for(&message);
                    next = (message, completion);
                    capacity.available().await;
                }
                Err(Rejected { reason, .. }) => return Outcome::NotDelivered(reason),
            }
        }
        // A completion is always called; should it be dropped instead, nothing is claimed about the message.
        outcome.await.unwrap_or(Outcome::Unknown(Reason::Dropped))
    }

    /// Waits until there is room for another message; see [`Outbound::ready`].
    ///
    /// # Errors
    ///
    /// Why the channel ended, when it did.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn ready(&self) -> Result<(), Reason> {
        self.0.ready().await
    }

    /// Waits until every message posted before the call has its outcome; see [`Outbound::flush`].
    ///
    /// # Errors
    ///
    /// The channel ended for good meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.0.flush().await
    }

    /// Takes nothing more; see [`Outbound::close`].
    pub fn close(&self) {
        self.0.close();
    }

    /// Waits until the channel has ended for good, and says why; see [`Outbound::closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn closed(&self) -> Reason {
        self.0.closed().await
    }

    /// The address that was dialled.
    pub fn addr(&self) -> &ChannelAddr {
        self.0.addr()
    }

    /// Follows the status.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.status()
    }
}

impl<M: Send + 'static> Tx<M> for ChannelTx<M> {
    fn try_post(&self, message: M) -> Result<(), (M, Reason)> {
        ChannelTx::try_post(self, message)
    }

    fn send(&self, message: M) -> BoxFuture<'_, Outcome> {
        Box::pin(ChannelTx::send(self, message))
    }

    fn addr(&self) -> &ChannelAddr {
        ChannelTx::addr(self)
    }
}
