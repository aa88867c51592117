//! Serving an address: [`serve`], [`serve_with`] and the [`ServerHandle`] that owns the server.
//! The accept loop and the sessions behind it are in `net`, in-process servers in `local`.

use std::fmt;

use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::local::table;
use crate::net::acceptor;
use crate::net::admission::Admission;
use crate::rx::Feed;
use crate::transport;
use crate::{Accept, ChannelRx, Codec, Postcard, ServeError, ServeOptions};

/// What the owner of a server wants of it. The owner being gone says more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    Stopping,
}

/// How the owner of a server wants it to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order, and somebody waits for it.
    Orderly,
    /// At once: the owner is gone.
    AtOnce,
}

/// Waits until the server is to end.
pub(crate) async fn ending(phase: &mut watch::Receiver<Phase>) -> Ending {
    match phase.wait_for(|phase| *phase == Phase::Stopping).await {
        Ok(_) => Ending::Orderly,
        Err(_) => Ending::AtOnce,
    }
}

/// Owns a server. Dropping it ends the server at once: it stops accepting, frees its address, acknowledges what was placed
/// as far as that needs no waiting, and closes its connections without a goodbye. Dialers take it for a server that died.
pub struct ServerHandle {
    addr: ChannelAddr,
    control: watch::Sender<Phase>,
    task: JoinHandle<()>,
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl ServerHandle {
    /// The address that others dial; for a bind of "any", the one that was found.
    pub fn addr(&self) -> &ChannelAddr {
        &self.addr
    }

    /// Ends the server in order: nothing more is accepted or received, what was received is settled and acknowledged, and
    /// every peer is told goodbye. What the peers had not got through by then comes back to them as not delivered.
    ///
    /// # Bounds
    ///
    /// Waits at most [`limits::STOP_GRACE`](crate::limits::STOP_GRACE) for verdicts that the application still owes.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the server goes on ending in order by itself.
    pub async fn stop(self) {
        let Self { control, task, .. } = self;
        control.send_replace(Phase::Stopping);
        if let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(%error, "a server panicked while it stopped");
        }
        drop(control);
    }
}

/// Serves an address with the default codec, and gives all messages to one receiver.
///
/// # Errors
///
/// See [`serve_with`].
///
/// # Cancel safety
///
/// Nothing is bound before it returns.
pub async fn serve<M>(bind: impl Into<BindSpec>) -> Result<(ChannelAddr, ChannelRx<M>), ServeError>
where
    M: Serialize + DeserializeOwned + Send + 'static,
{
    let feed = Feed::new();
    let server = serve_with(bind, ServeOptions::default(), Postcard, feed.acceptor()).await?;
    Ok((server.addr().clone(), feed.into_rx(server)))
}

/// As [`serve`], with options and a codec.
///
/// # Errors
///
/// See [`serve_with`].
///
/// # Cancel safety
///
/// Nothing is bound before it returns.
pub async fn serve_queue<M: Send + 'static>(
    bind: impl Into<BindSpec>,
    options: ServeOptions,
    codec: impl Codec<M>,
) -> Result<ChannelRx<M>, ServeError> {
    let feed = Feed::new();
    let server = serve_with(bind, options, codec, feed.acceptor()).await?;
    Ok(feed.into_rx(server))
}

/// Serves an address: each session that a dialer opens is given to `acceptor`.
///
/// A bind of "any" finds a free address of its transport: a number, a loopback port, an abstract name.
///
/// # Errors
///
/// [`ServeError`] says which address or path was refused and why, at the call.
///
/// # Cancel safety
///
/// Nothing is bound before it returns.
pub async fn serve_with<M, C, A>(
    bind: impl Into<BindSpec>,
    options: ServeOptions,
    codec: C,
    acceptor: A,
) -> Result<ServerHandle, ServeError>
where
    M: Send + 'static,
    C: Codec<M>,
    A: Accept<M>,
{
    let bind = bind.into();
    let Ok(runtime) = Handle::try_current() else {
        return Err(ServeError::NoRuntime {
            addr: bind.to_string(),
        });
    };
    let (control, phase) = watch::channel(Phase::Serving);
    if bind.transport() == ChannelTransport::Local {
        let number = match bind.addr() {
            Some(ChannelAddr::Local(number)) => Some(number.get()),
            _ => None,
        };
        let (addr, server) = table::Registration::<M>::new(number, &options, codec, acceptor)?;
        let task = runtime.spawn(server.run(phase));
        return Ok(ServerHandle {
            addr,
            control,
            task,
        });
    }
    let listener = transport::listen(&bind, &options)?;
    let addr = listener.addr().clone();
    // Its descriptor is kept back from here on, whenever the task has its first turn.
    let admission = Admission::new();
    let server = acceptor::run(listener, options, codec, acceptor, phase, admission);
    let task = runtime.spawn(server);
    Ok(ServerHandle {
        addr,
        control,
        task,
    })
}
