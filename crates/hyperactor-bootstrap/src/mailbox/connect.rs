//! How a sibling is reached: its address, the link to it, and what a failure says about the link. A small border, so
//! that the routes can be tested without sockets; the real one is [`SocketConnect`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_channel::DialOptions;
use hyperactor_mailbox::{BoxFuture, Failure, MailboxSender, NotDelivered, Unknown};
use hyperactor_refs::{ChannelAddr, Incarnation};
use hyperactor_router::MailboxClient;
use tokio::runtime::Handle;

use super::words::Fault;

/// A way straight to a sibling.
pub(super) trait Link: MailboxSender {
    /// Takes nothing more. What was taken still gets its outcome.
    fn close(&self);
}

/// Makes links to one sibling.
pub(super) trait Connect: Send + Sync + 'static {
    /// Where background work runs; `None` where there is no runtime.
    fn runtime(&self) -> Option<Handle>;

    /// Whether somebody of ours listens there.
    fn probe(&self) -> BoxFuture<'static, io::Result<()>>;

    /// Makes a link without waiting. `None` when that is not possible now.
    fn connect(&self, expect: Option<Incarnation>) -> Option<Arc<dyn Link>>;

    /// What a failure says about a link to this sibling.
    fn fault(&self, failure: &Failure) -> Fault;
}

/// Reaches a sibling at its Unix socket.
pub(super) struct SocketConnect {
    path: PathBuf,
    /// `None` when the path is too long for the kernel: nothing there can be dialled, and the host is the way.
    addr: Option<ChannelAddr>,
    runtime: Option<Handle>,
    options: DialOptions,
}

impl SocketConnect {
    pub(super) fn new(path: PathBuf, runtime: Option<Handle>, options: &DialOptions) -> Self {
        let addr = ChannelAddr::unix_path(&path).ok();
        Self {
            path,
            addr,
            runtime,
            options: DialOptions {
                // There is another way: no need to wait for a socket to appear.
                connect_give_up_local: Duration::ZERO,
                ..options.clone()
            },
        }
    }
}

impl Connect for SocketConnect {
    fn runtime(&self) -> Option<Handle> {
        self.runtime.clone().or_else(|| Handle::try_current().ok())
    }

    fn probe(&self) -> BoxFuture<'static, io::Result<()>> {
        let path = self.path.clone();
        Box::pin(async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            let peer = stream.peer_cred()?.uid();
            let ours = rustix::process::geteuid().as_raw();
            if peer == ours {
                Ok(())
            } else {
                let text = format!("user {peer} listens there, not user {ours}");
                Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
            }
        })
    }

    fn connect(&self, expect: Option<Incarnation>) -> Option<Arc<dyn Link>> {
        let addr = self.addr.clone()?;
        let runtime = self.runtime()?;
        let _inside = runtime.enter();
        let options = DialOptions {
            expect,
            ..self.options.clone()
        };
        Some(Arc::new(MailboxClient::dial_with(addr, options)))
    }

    fn fault(&self, failure: &Failure) -> Fault {
        // Another life answers at the address, or this one is ending: the host knows which, and where to.
        if matches!(
            failure,
            Failure::NotDelivered(NotDelivered::ProcGone { .. })
        ) {
            return Fault::NeverSent;
        }
        // The same kinds of failure come from beyond as well, of other addresses: those say nothing of this link.
        let fault = match failure {
            Failure::NotDelivered(
                NotDelivered::Connect { addr, .. }
                | NotDelivered::PeerClosed { addr }
                | NotDelivered::TimedOut { addr, .. },
            ) => Some((addr, Fault::NeverSent)),
            Failure::Unknown(
                Unknown::PeerDied { addr }
                | Unknown::PeerRestarted { addr }
                | Unknown::ConnectionLost { addr, .. }
                | Unknown::TimedOut { addr, .. },
            ) => Some((addr, Fault::Lost)),
            _ => None,
        };
        match fault {
            Some((addr, fault)) if Some(addr) == self.addr.as_ref() => fault,
            _ => Fault::None,
        }
    }
}

impl Link for MailboxClient {
    fn close(&self) {
        // The client's own method of the same name.
        MailboxClient::close(self);
    }
}
