//! Serving an address for channels of both directions: [`serve_duplex`] and the [`ChannelListener`] that gives out a pair for
//! each dialer. With one receiver for all dialers, and no way back: see `serve`.

use std::fmt;

use hyperactor_refs::{BindSpec, ChannelAddr};
use tokio::sync::mpsc;

use crate::completion::TxCompletion;
use crate::rx::{Feed, QueueSession};
use crate::{
    Accept, ChannelRx, ChannelTx, Codec, Inbound, Outbound, Peer, ServeError, ServeOptions,
    ServerHandle, serve_with,
};

/// Serves an address for dialers that send and receive ([`dial_duplex`](crate::dial_duplex)): each gets a channel pair of
/// its own.
///
/// # Errors
///
/// See [`serve_with`].
///
/// # Cancel safety
///
/// Nothing is bound before it returns.
pub async fn serve_duplex<M: Send + 'static>(
    bind: impl Into<BindSpec>,
    options: ServeOptions,
    codec: impl Codec<M>,
) -> Result<ChannelListener<M>, ServeError> {
    let (pairs, accepted) = mpsc::channel(options.sessions_max.max(1));
    let server = serve_with(bind, options, codec, PairAcceptor(pairs)).await?;
    Ok(ChannelListener { accepted, server })
}

/// One end of an accepted channel: what sends to its dialer, what receives from it, and who it is.
pub type AcceptedPair<M> = (ChannelTx<M>, ChannelRx<M>, Peer);

/// Gives out a channel pair for each dialer. Dropping it ends the server at once, and with it every session.
///
/// # Bounds
///
/// Pairs that were not taken: at most [`ServeOptions::sessions_max`], each with the messages of one window. The session of
/// one more is closed.
pub struct ChannelListener<M> {
    accepted: mpsc::Receiver<AcceptedPair<M>>,
    server: ServerHandle,
}

impl<M: Send + 'static> ChannelListener<M> {
    /// Waits for the next dialer; `None` when none will come any more.
    ///
    /// A pair survives lost connections, and ends with its session: when the dialer has closed it or stays away for
    /// [`ServeOptions::session_ttl`], when both its ends are dropped here, when one of them is closed, or with the server.
    ///
    /// # Cancel safety
    ///
    /// A pair is handed out only in the poll that returns it: dropping the future loses nothing.
    pub async fn accept(&mut self) -> Option<AcceptedPair<M>> {
        self.accepted.recv().await
    }

    /// What others dial.
    pub fn addr(&self) -> &ChannelAddr {
        self.server.addr()
    }

    /// Ends the server in order, as [`ServerHandle::stop`] does: every session is closed, and every dialer told.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the server goes on ending in order by itself.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl<M> fmt::Debug for ChannelListener<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelListener")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// Makes a pair of each session.
struct PairAcceptor<M>(mpsc::Sender<AcceptedPair<M>>);

impl<M: Send + 'static> Accept<M> for PairAcceptor<M> {
    type Session = QueueSession<M>;
    type Completion = TxCompletion;

    fn open(
        &self,
        peer: Peer,
        inbound: Inbound,
        outbound: Outbound<M, TxCompletion>,
    ) -> QueueSession<M> {
        // Here the session is the pair's: dropping both ends closes it.
        let outbound = outbound.owning();
        let feed = Feed::new();
        let session = feed.session(inbound);
        let rx = feed.into_session_rx(outbound.clone());
        // Without a listener, or when it takes none, the pair is dropped here, which closes the session.
        drop(self.0.try_send((ChannelTx::new(outbound), rx, peer)));
        session
    }
}
