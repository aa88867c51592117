//! How a sibling is reached: its address, the link to it, and what a failure says about the link. A small border, so
//! that the routes can be tested without sockets; the real one is [`SocketConnect`].

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyperactor_channel::DialOptions;
use hyperactor_mailbox::{
    BoxFuture, Failure, FlushError, MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle,
    Unknown,
};
use hyperactor_refs::{ChannelAddr, Incarnation};
use hyperactor_router::MailboxClient;
use parking_lot::RwLock;
use tokio::runtime::Handle;

use super::words::Fault;

/// A way straight to a sibling.
pub(super) trait Link: MailboxSender {
    /// Takes nothing more, and nothing more comes in. What was taken still gets its outcome.
    fn close(&self);

    /// Resolves when it has ended and everything that was taken has its outcome.
    fn closed(&self) -> BoxFuture<'static, ()>;

    /// How many messages came in over it, where it was dialled here.
    fn received(&self) -> u64;
}

/// Makes links to one sibling.
pub(super) trait Connect: Send + Sync + 'static {
    /// Where background work runs; `None` where there is no runtime.
    fn runtime(&self) -> Option<Handle>;

    /// The life of this process's proc, as its siblings know it; `None` where links carry nothing back.
    fn incarnation(&self) -> Option<Incarnation>;

    /// Where the sibling is; `None` where nobody can be reached.
    fn addr(&self) -> Option<&ChannelAddr>;

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
    own: Arc<Own>,
}

/// What a dialer says of itself to those it dials, and where what they send back goes. Nothing, until it is known.
#[derive(Default)]
pub(super) struct Own(RwLock<Option<(Incarnation, Weak<dyn MailboxSender>)>>);

impl Own {
    pub(super) fn set(&self, incarnation: Incarnation, receive: Weak<dyn MailboxSender>) {
        *self.0.write() = Some((incarnation, receive));
    }

    fn incarnation(&self) -> Option<Incarnation> {
        self.0.read().as_ref().map(|(incarnation, _)| *incarnation)
    }
}

impl SocketConnect {
    pub(super) fn new(
        path: PathBuf,
        runtime: Option<Handle>,
        options: &DialOptions,
        own: Arc<Own>,
    ) -> Self {
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
            own,
        }
    }
}

impl Connect for SocketConnect {
    fn runtime(&self) -> Option<Handle> {
        self.runtime.clone().or_else(|| Handle::try_current().ok())
    }

    fn incarnation(&self) -> Option<Incarnation> {
        self.own.incarnation()
    }

    fn addr(&self) -> Option<&ChannelAddr> {
        self.addr.as_ref()
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
        let mut options = DialOptions {
            expect,
            ..self.options.clone()
        };
        let own = self.own.0.read().clone();
        let Some((incarnation, receive)) = own else {
            return Some(Arc::new(MailboxClient::dial_with(addr, options)));
        };
        options.incarnation = incarnation;
        let received = Arc::<AtomicU64>::default();
        let receive = Receive {
            proc: receive,
            received: Arc::clone(&received),
        };
        let client = MailboxClient::dial_duplex(addr, options, receive);
        Some(Arc::new(DialledLink { client, received }))
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
                NotDelivered::Connect { addr, .. } | NotDelivered::TimedOut { addr, .. },
            ) => Some((addr, Fault::NeverSent)),
            Failure::NotDelivered(NotDelivered::PeerClosed { addr }) => Some((addr, Fault::Closed)),
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

/// A link that was dialled here, and carries messages back.
struct DialledLink {
    client: MailboxClient,
    received: Arc<AtomicU64>,
}

impl MailboxSender for DialledLink {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.client.post_unchecked(envelope, return_handle);
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        self.client.flush()
    }
}

impl Link for DialledLink {
    fn close(&self) {
        self.client.close();
    }

    fn closed(&self) -> BoxFuture<'static, ()> {
        Link::closed(&self.client)
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// A link that a sibling dialled, or one that carries nothing back.
impl Link for MailboxClient {
    fn close(&self) {
        // The client's own method of the same name.
        MailboxClient::close(self);
    }

    fn closed(&self) -> BoxFuture<'static, ()> {
        let client = self.clone();
        Box::pin(async move { drop(MailboxClient::closed(&client).await) })
    }

    fn received(&self) -> u64 {
        0
    }
}

/// Where messages go that come back over a link that was dialled here. It does not keep the proc alive: the proc keeps the
/// dialer, and with it this.
struct Receive {
    proc: Weak<dyn MailboxSender>,
    received: Arc<AtomicU64>,
}

impl MailboxSender for Receive {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.received.fetch_add(1, Ordering::Relaxed);
        match self.proc.upgrade() {
            Some(proc) => proc.post_unchecked(envelope, return_handle),
            None => {
                let proc_id = Arc::clone(envelope.dest().actor_id().proc());
                return_handle.undeliverable(envelope, NotDelivered::ProcGone { proc_id });
            }
        }
    }
}
