//! [`Guest`]: taking part in the conversation of a host without an address of one's own.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyperactor_mailbox::{
    BoxFuture, BoxedMailboxSender, FlushError, Hop, MailboxSender, MessageEnvelope, NotDelivered,
    Notice, ReturnHandle, RouteKind,
};
use hyperactor_proc::{Client, Proc, SpawnError, StopReport};
use hyperactor_refs::{ActorId, ChannelAddr, ChannelTransport, ProcId};
use hyperactor_router::{DialOptions, MailboxClient, Status};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::addrs::HostAddrs;
use crate::agent::HOST_AGENT;
use crate::door::{self, Unwelcome};
use crate::host::SERVICE_PROC;
use crate::limits;
use crate::visitors::reaches;

/// A proc of this program that is reached through a host, over the one connection that this program dialled to it. It needs no
/// port of its own: answers come back the way the questions went.
///
/// Its id is below the host's address, with a name that no proc of the host can have:
/// [`GUEST_PREFIX`](crate::GUEST_PREFIX) and 128 bits of chance. It reaches the procs of the host, those of hosts
/// that stand behind it, and other guests; and they reach it, as long as it is there. When the connection is lost, it is
/// made again, however long that takes, and a host that was restarted learns of its guests anew.
///
/// A clone is another handle of the same guest. The guest leaves with the last one, or with [`leave`](Self::leave), which
/// waits until everything has its outcome.
///
/// ```no_run
/// use std::time::Duration;
///
/// use hyperactor_host::{DescribeHost, Guest, HostAgent};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let guest = Guest::join("tcp:127.0.0.1:7000".parse()?).await?;
/// let client = guest.client("main")?;
/// let host = HostAgent::at(guest.host()).ask(&client, |reply| DescribeHost { reply }).await??;
/// println!("{} procs", host.procs.len());
/// guest.leave(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Guest {
    inner: Arc<Inner>,
}

struct Inner {
    addrs: HostAddrs,
    proc: Proc,
    line: Line,
}

/// Why a host did not take a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// Nobody answers at the address, or nobody who is a host.
    #[error("no host answers at {addr}: {reason}")]
    Unreachable {
        /// What was dialled.
        addr: ChannelAddr,
        /// Why, in words.
        reason: String,
    },
    /// The host answered, and takes no guest now.
    #[error("the host at {addr} takes no guest: {reason}")]
    Refused {
        /// What was dialled.
        addr: ChannelAddr,
        /// Why, in words.
        reason: String,
    },
    /// The system's source of randomness failed.
    #[error("cannot draw a name for the guest: {reason}")]
    Random {
        /// What the system said.
        reason: String,
    },
    /// The guest's proc has no room for its own mailbox, which is a fault of this library.
    #[error("the guest's proc is not usable: {0}")]
    Proc(#[from] SpawnError),
}

impl GuestError {
    /// A short name for programs to compare, stable between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Random { .. } => "random",
            Self::Proc(error) => error.code(),
        }
    }

    /// Whether the same call may succeed a little later without anybody mending something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { .. })
    }
}

impl Guest {
    /// Joins the host at an address, which may be any that leads to one of its frontends, also through a tunnel: the host says
    /// how it is called.
    ///
    /// # Errors
    /// [`GuestError`]; the connection is closed then.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    ///
    /// # Bounds
    /// Answers within twice [`limits::DOOR_TIMEOUT`].
    pub async fn join(addr: ChannelAddr) -> Result<Self, GuestError> {
        Self::join_with(addr, DialOptions::default()).await
    }

    /// As [`join`](Self::join), with options for the connection.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub async fn join_with(addr: ChannelAddr, options: DialOptions) -> Result<Self, GuestError> {
        let name = door::guest_name().map_err(|error| GuestError::Random {
            reason: error.to_string(),
        })?;
        let hall = Hall::default();
        let line = Line::dial(addr.clone(), options, hall.clone());
        let open = Opening(Some(hall.clone()));
        // Until the host has said how it is called, the guest is called by what was dialled.
        let proc = Proc::new(ProcId::Direct(addr.clone(), name.clone()), line.boxed());
        hall.admit(Some(proc.clone()));
        let answers = proc.client("door")?;
        let unwelcome = |why: Unwelcome| match why {
            Unwelcome::Refused(refusal) => GuestError::Refused {
                addr: addr.clone(),
                reason: refusal.text,
            },
            other => GuestError::Unreachable {
                addr: addr.clone(),
                reason: other.to_string(),
            },
        };
        let end = Instant::now() + limits::DOOR_TIMEOUT;
        let welcome = loop {
            match door::knock(&answers, &line, &addr, None).await {
                Ok(welcome) => break welcome,
                Err(Unwelcome::Refused(refusal))
                    if refusal.code == door::STARTING && Instant::now() < end =>
                {
                    sleep(limits::ATTACH_BACKOFF_MIN).await;
                }
                Err(why) => return Err(unwelcome(why)),
            }
        };
        drop(answers);
        let Some(host) = welcome.host() else {
            let reason = "it does not say who it is".to_owned();
            return Err(GuestError::Unreachable { addr, reason });
        };
        let addrs = host.addrs.clone();
        let proc_id = ProcId::Direct(addrs.canonical().clone(), name);
        let proc = Proc::new(proc_id, line.boxed());
        hall.admit(Some(proc.clone()));
        let inner = Inner { addrs, proc, line };
        inner.announce().await.map_err(|why| match why {
            Some(reason) => GuestError::Refused {
                addr: addr.clone(),
                reason,
            },
            None => unwelcome(Unwelcome::Silent(limits::DOOR_TIMEOUT)),
        })?;
        open.stay();
        let inner = Arc::new(inner);
        let status = inner.line.present().status();
        tokio::spawn(keep(Arc::downgrade(&inner), status));
        Ok(Self { inner })
    }

    /// The address in the ids of the host's procs, which need not be the one that was dialled.
    #[must_use]
    pub fn host(&self) -> &ChannelAddr {
        self.inner.addrs.canonical()
    }

    /// All addresses under which the host knows itself.
    #[must_use]
    pub fn host_addrs(&self) -> &HostAddrs {
        &self.inner.addrs
    }

    /// The guest's proc, in which actors can be spawned as in any other.
    #[must_use]
    pub fn proc(&self) -> &Proc {
        &self.inner.proc
    }

    /// A client of the guest's proc: for code that is no actor.
    ///
    /// # Errors
    /// As [`Proc::client`].
    pub fn client(&self, name: &str) -> Result<Client, SpawnError> {
        self.inner.proc.client(name)
    }

    /// Sends over the connection to the host: the way that all messages of the guest take.
    #[must_use]
    pub fn sender(&self) -> BoxedMailboxSender {
        self.inner.line.boxed()
    }

    /// Leaves the host: the guest's actors are stopped within `deadline`, everything that was posted has its outcome or is
    /// given up after as long again, and the host forgets the guest.
    ///
    /// # Cancel safety
    /// A dropped future leaves as if the guest had been dropped.
    pub async fn leave(self, deadline: Duration) -> StopReport {
        let inner = &self.inner;
        let report = inner.proc.stop(deadline).await;
        let last = inner.line.hang_up();
        if timeout(deadline, last.left()).await.is_err() {
            tracing::debug!(target: "hyperactor::host", host = %self.host(), "the host did not take leave of its guest in time");
        }
        report
    }
}

impl Inner {
    /// Sends the host something, so that it knows the guest. On failure, why; nothing when there was no answer.
    async fn announce(&self) -> Result<(), Option<String>> {
        let service = ProcId::Direct(self.addrs.canonical().clone(), SERVICE_PROC.to_owned());
        let host = ActorId::root(service, HOST_AGENT);
        let envelope = Notice::Probe.envelope(self.proc.actor_id("guest"), &host);
        let (handle, outcome) = ReturnHandle::oneshot();
        self.line.post(envelope, handle);
        match timeout(limits::DOOR_TIMEOUT, outcome).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(Some(failure.into_failure().to_string())),
            Err(_) => Err(None),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The connection holds the proc and the proc the connection: this lets go of both.
        self.line.0.hall.admit(None);
    }
}

/// Announces the guest over every new connection, to a host that may have been restarted; and makes one when the last was given
/// up. Holds nothing of the guest while it waits.
async fn keep(guest: Weak<Inner>, mut status: watch::Receiver<Status>) {
    let mut pause = limits::ATTACH_BACKOFF_MIN;
    loop {
        let is_back = reaches(&mut status, false).await && reaches(&mut status, true).await;
        if !is_back {
            sleep(pause).await;
            pause = (pause * 2).min(limits::ATTACH_BACKOFF_MAX);
        }
        let Some(guest) = guest.upgrade() else { return };
        if guest.line.0.has_left.load(Ordering::Acquire) {
            return;
        }
        // Dials anew if need be, as any post does.
        match guest.announce().await {
            Ok(()) => pause = limits::ATTACH_BACKOFF_MIN,
            Err(why) => {
                let why = why.unwrap_or_else(|| "no answer".to_owned());
                tracing::debug!(target: "hyperactor::host", guest = %guest.proc.proc_id(), why, "the host does not know its guest");
            }
        }
        status = guest.line.present().status();
    }
}

/// The connection of a guest to its host, and its successors: one that was given up is dialled anew by the next post.
#[derive(Clone)]
struct Line(Arc<LineInner>);

struct LineInner {
    addr: ChannelAddr,
    options: DialOptions,
    hall: Hall,
    has_left: AtomicBool,
    client: RwLock<MailboxClient>,
}

impl Line {
    fn dial(addr: ChannelAddr, options: DialOptions, hall: Hall) -> Self {
        let client = RwLock::new(dial(&addr, &options, &hall));
        Self(Arc::new(LineInner {
            addr,
            options,
            hall,
            has_left: AtomicBool::new(false),
            client,
        }))
    }

    fn present(&self) -> MailboxClient {
        self.0.client.read().clone()
    }

    /// The present client, or its successor if it was given up.
    fn client(&self) -> MailboxClient {
        let line = &self.0;
        let present = self.present();
        if !present.is_closed() || line.has_left.load(Ordering::Acquire) {
            return present;
        }
        // Outside the lock. Should another thread be first, this one is closed before it was used.
        let dialled = dial(&line.addr, &line.options, &line.hall);
        let mut client = line.client.write();
        if !client.is_closed() {
            let first = client.clone();
            drop(client);
            return first;
        }
        let former = std::mem::replace(&mut *client, dialled.clone());
        drop(client);
        drop(former);
        dialled
    }

    /// Closes the connection for good, and returns it.
    fn hang_up(&self) -> MailboxClient {
        self.0.has_left.store(true, Ordering::Release);
        let last = self.present();
        last.close();
        last
    }
}

fn dial(addr: &ChannelAddr, options: &DialOptions, hall: &Hall) -> MailboxClient {
    let hop = Hop {
        at: addr.to_string(),
        route: route_to(addr),
    };
    MailboxClient::dial_duplex(addr.clone(), options.clone(), hall.clone()).with_hop(hop)
}

impl MailboxSender for Line {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.client().post_unchecked(envelope, return_handle);
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        let present = self.present();
        Box::pin(async move { present.flush().await })
    }
}

/// Takes what comes over the connection, for the guest's proc while there is one.
#[derive(Clone, Default)]
struct Hall(Arc<RwLock<Option<Proc>>>);

impl Hall {
    fn admit(&self, proc: Option<Proc>) {
        // The former one is dropped without the lock: its end may post.
        let former = std::mem::replace(&mut *self.0.write(), proc);
        drop(former);
    }
}

impl MailboxSender for Hall {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let proc = self.0.read().clone();
        let port_id = envelope.dest().clone();
        match proc {
            // Only what is for the guest: it is no relay between its host and itself.
            Some(proc) if *proc.proc_id() == *port_id.proc_id() => {
                proc.post_unchecked(envelope, return_handle);
            }
            _ => {
                let detail = "the guest at the end of this connection has another name".to_owned();
                return_handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
            }
        }
    }
}

/// Lets go of what was begun when joining does not come to its end.
struct Opening(Option<Hall>);

impl Opening {
    fn stay(mut self) {
        self.0 = None;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(hall) = self.0.take() {
            hall.admit(None);
        }
    }
}

fn route_to(addr: &ChannelAddr) -> RouteKind {
    match addr.transport() {
        ChannelTransport::Local | ChannelTransport::Unix => RouteKind::Direct,
        _ => RouteKind::Remote,
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("proc_id", &format_args!("{}", self.inner.proc.proc_id()))
            .field("sender", &self.inner.line.present())
            .finish_non_exhaustive()
    }
}
