//! [`LocalProcDialer`]: the forwarder of a proc that shares its host with others. It decides who is a sibling; how a
//! sibling is reached, and how the route to it changes, is in `sibling` and `route`.

mod accepted;
mod agent;
mod connect;
mod explain;
mod links;
mod pending;
mod route;
mod sibling;
mod sink;
mod slots;
mod words;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use hyperactor_channel::DialOptions;
use hyperactor_host::{HostAddrs, RoutePolicy, SERVICE_PROC};
use hyperactor_mailbox::{
    BoxFuture, BoxedMailboxSender, DeathCertificate, FlushError, MailboxSender, MessageEnvelope,
    NotDelivered, ReturnHandle,
};
use hyperactor_refs::{ChannelAddr, Incarnation, ProcId};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::limits;
use crate::socket_dir::socket_name;
pub use accepted::ProcSessions;
use accepted::Strangers;
pub use agent::{ExplainRoute, ROUTE_AGENT, RouteAgent};
use connect::{Own, SocketConnect};
pub use explain::{LinkOrigin, RouteReport, RouteRung, RungRefusal};
use sibling::Sibling;
use words::Life;

/// Sends messages for procs of the same host straight to their processes, and everything else to the host's backend.
///
/// A destination is a sibling when its address is the host's frontend address, in any spelling of it, and it is not the
/// host's own service proc. Siblings are known because the host announces them ([`announce`](Self::announce)); where
/// nobody announces, the first message goes by the backend and the sibling's socket is looked for in the background.
///
/// # Routes
///
/// A message goes straight when the sibling's socket answers, and by the backend when it does not: absent, refusing,
/// stale or lost, it is tried again later (after 10 ms to 2 s), and no error is remembered for longer than that.
/// What never left on a connection that failed goes by the backend; what may have arrived comes back as
/// unknown. [`RoutePolicy`] forces one route; [`explain`](Self::explain) says which is taken, and why.
///
/// # Links
///
/// One connection serves both directions, where the proc's socket is served with [`sessions_of`](Self::sessions_of): what a
/// sibling dialled takes the messages to it as well. The sibling is known by its user, whom the kernel names, and by the
/// incarnation that it says and the host announced; a dialer that is not announced (yet) is received from and never sent to.
/// When two dial each other at once, the dial of the lower incarnation stands: the other side changes over to it and closes its
/// own. A link over which nothing went either way for [`limits::LINK_IDLE`], or [as long as was
/// chosen](Self::with_link_idle), is closed by who dialled it, and opened again by the next message of either.
///
/// # Ordering
///
/// Messages from one thread to one sibling arrive in the order posted, also across a change of route: the new
/// route carries nothing until everything on the old one has its outcome. Until then messages are held, at most
/// [`limits::HELD_MESSAGES_MAX`]; beyond that a post comes back as `QueueFull` with a capacity to wait on.
///
/// # Cost
///
/// A post takes one look-up by name, one short lock of that sibling, no system call but the channel's own and no
/// allocation but the channel's own. Nothing is dialled or posted under a lock.
///
/// # Events
///
/// Changes of route are `tracing` events of the target `hyperactor::route`, with the sibling in the field `proc` and one of
/// these names in the field `event`: `route.announced`, `route.no_answer`, `route.stranger` (somebody else's socket is in a
/// sibling's place), `route.direct` (its field `link` says who dialled), `route.lost` (with the failure's `code`), `route.closed`
/// (by this side), `route.ended` (a link that the sibling dialled), `route.stays` (a change to the sibling's link kept messages
/// waiting, and is tried again later), `route.unannounced` (somebody dialled who is not announced; without `proc`). A reason why
/// the straight way fails is said once, at the level INFO or, for a stranger, WARN; that it still does is a detail.
///
/// ```no_run
/// use hyperactor_bootstrap::mailbox::LocalProcDialer;
/// use hyperactor_mailbox::MailboxSender;
/// use hyperactor_proc::Proc;
/// use hyperactor_refs::{ChannelAddr, ProcId};
/// use hyperactor_router::MailboxClient;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let host_frontend_addr: ChannelAddr = "unix:@abc123".parse()?;
/// let backend_addr: ChannelAddr = "unix:/run/user/1000/hyperactor-demo/backend.sock".parse()?;
/// let proc_id = ProcId::Direct(host_frontend_addr.clone(), "worker".to_string());
///
/// let backend_sender = MailboxClient::dial(backend_addr);
/// let proc_forwarder =
///     LocalProcDialer::new(host_frontend_addr, "/run/user/1000/hyperactor-demo", backend_sender);
/// let proc = Proc::new(proc_id, proc_forwarder.boxed());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LocalProcDialer {
    shared: Arc<Shared>,
}

struct Shared {
    addrs: HostAddrs,
    socket_dir: PathBuf,
    backend: BoxedMailboxSender,
    policy: RoutePolicy,
    dial: DialOptions,
    own: Option<(Arc<ProcId>, BoxedMailboxSender)>,
    runtime: Option<Handle>,
    link_idle: Duration,
    /// Who this is to those that it dials.
    identity: Arc<Own>,
    siblings: RwLock<HashMap<Box<str>, Arc<Sibling>>>,
    /// Whom the last message went to, by the very id that it named: as a rule the next one names the same.
    recent: Mutex<Option<(Arc<ProcId>, Arc<Sibling>)>>,
    /// Dialers that nobody has announced.
    strangers: Strangers,
    /// No link is opened any more.
    has_ended: AtomicBool,
    /// Starts the task that closes idle links.
    idle: Once,
    /// Messages to the service proc.
    service: AtomicU64,
    /// Messages to other hosts.
    remote: AtomicU64,
}

/// How many messages a proc sent to another, by route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCount {
    /// The proc that was addressed.
    pub proc_id: Arc<ProcId>,
    /// Messages that went straight to its process.
    pub direct: u64,
    /// Messages that went through the host.
    pub relay: u64,
}

impl LocalProcDialer {
    /// Makes the forwarder of one proc.
    ///
    /// `host_frontend_addr` is the address in the ids of this host's procs, `socket_dir` the directory in which they put
    /// their sockets, `backend_sender` takes everything that is not for a sibling. Needs no runtime; without one
    /// (neither here nor where it posts) everything goes by the backend.
    pub fn new(
        host_frontend_addr: ChannelAddr,
        socket_dir: impl Into<PathBuf>,
        backend_sender: impl MailboxSender,
    ) -> Self {
        let shared = Shared::new(
            HostAddrs::new(host_frontend_addr),
            socket_dir.into(),
            backend_sender.into_boxed(),
        );
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Names other addresses of the host: an id that is spelt with one of them means the same proc. To be called before the
    /// first message.
    #[must_use]
    pub fn with_aliases(self, aliases: impl IntoIterator<Item = ChannelAddr>) -> Self {
        self.rebuilt(|shared| shared.addrs = shared.addrs.clone().with_all(aliases))
    }

    /// Forces a route. To be called before the first message; it starts afresh, forgetting what was announced.
    #[must_use]
    pub fn with_policy(self, policy: RoutePolicy) -> Self {
        self.rebuilt(|shared| shared.policy = policy)
    }

    /// Sets the options of the links to siblings, such as how long one may be silent. Two of them are decided here for each
    /// link, whatever these say: the life that is expected, and not to wait for a socket that is absent. To be called before
    /// the first message.
    #[must_use]
    pub fn with_dial_options(self, options: DialOptions) -> Self {
        self.rebuilt(|shared| shared.dial = options)
    }

    /// Chooses how long nothing may go over a link before it is closed; it is closed after twice as long at most. The default
    /// is [`limits::LINK_IDLE`], the least that is taken [`limits::LINK_IDLE_MIN`]. To be called before the first message.
    #[must_use]
    pub fn with_link_idle(self, idle: Duration) -> Self {
        self.rebuilt(|shared| shared.link_idle = idle.max(limits::LINK_IDLE_MIN))
    }

    /// Names the proc that this is the forwarder of, and where its own messages go. A proc keeps those to itself, so this
    /// matters only where the dialer is used without one. To be called before the first message.
    #[must_use]
    pub fn with_local(self, proc_id: impl Into<Arc<ProcId>>, sender: impl MailboxSender) -> Self {
        let own = (proc_id.into(), sender.into_boxed());
        self.rebuilt(|shared| shared.own = Some(own))
    }

    /// Lets one connection serve both directions: the proc of this life receives by `sender`, over the connections that this
    /// dialer makes from now on as over those of the server that is given the result
    /// ([`MailboxServer::serve_duplex`](hyperactor_router::MailboxServer::serve_duplex)), and sends over both.
    ///
    /// To be called once, after the choices above. Dropping the result ends receiving.
    #[must_use = "siblings are answered over their own connections only by a server that has it"]
    pub fn sessions_of(
        &self,
        incarnation: Incarnation,
        sender: impl MailboxSender,
    ) -> ProcSessions {
        ProcSessions::new(Arc::clone(&self.shared), incarnation, Arc::new(sender))
    }

    /// Closes every link in order and opens none any more; resolves when all have ended. What is posted afterwards goes by the
    /// host.
    ///
    /// # Cancel safety
    /// Dropped half-way, the links go on ending in order by themselves.
    pub async fn close(&self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        let siblings = self.shared.known();
        let links: Vec<_> = siblings
            .iter()
            .flat_map(|sibling| sibling.end_links())
            .collect();
        for link in links {
            link.closed().await;
        }
    }

    fn rebuilt(self, change: impl FnOnce(&mut Shared)) -> Self {
        let old = &self.shared;
        let mut shared = Shared::new(
            old.addrs.clone(),
            old.socket_dir.clone(),
            old.backend.clone(),
        );
        shared.policy = old.policy;
        shared.dial = old.dial.clone();
        shared.own = old.own.clone();
        shared.link_idle = old.link_idle;
        change(&mut shared);
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Notes that a sibling is up in this life: the next message to it goes straight, without a look for its socket.
    pub fn announce(&self, name: &str, incarnation: Incarnation) {
        if let Some(sibling) = self.shared.sibling_named(name) {
            sibling.announce(Life::Up(incarnation));
            self.shared.meet_strangers(&sibling, incarnation);
        }
    }

    /// Notes that this life of a sibling is over: nothing is dialled until it is announced again. Messages to it go to the
    /// host, which knows best, and what the host does not know either comes back as `ProcGone`.
    pub fn announce_gone(&self, name: &str, incarnation: Incarnation) {
        if let Some(sibling) = self.shared.sibling_named(name) {
            sibling.announce(Life::Gone(incarnation));
        }
    }

    /// As [`announce_gone`](Self::announce_gone), with the certificate of the end: messages that come back because of it name
    /// it to their senders.
    pub fn announce_end(&self, certificate: Arc<DeathCertificate>) {
        let name = certificate.proc_id.name();
        if let Some(sibling) = self.shared.sibling_named(name) {
            sibling.note_end(certificate);
        }
    }

    /// Returns how many messages went to each proc of this host, and by which route, in the order of the names. Messages to
    /// the service proc are counted under its name; those under way are included.
    #[must_use]
    pub fn counts(&self) -> Vec<RouteCount> {
        let mut counts: Vec<RouteCount> = self
            .shared
            .siblings
            .read()
            .values()
            .map(|sibling| {
                let (direct, relay) = sibling.counts();
                RouteCount {
                    proc_id: Arc::clone(sibling.proc_id()),
                    direct,
                    relay,
                }
            })
            .filter(|count| count.direct + count.relay > 0)
            .collect();
        let service = self.shared.service.load(Ordering::Relaxed);
        if service > 0 {
            let proc_id = Arc::new(self.shared.proc_id(SERVICE_PROC));
            counts.push(RouteCount {
                proc_id,
                direct: 0,
                relay: service,
            });
        }
        counts.sort_by(|a, b| a.proc_id.cmp(&b.proc_id));
        counts
    }

    /// Says which way messages to a proc go at the moment, and why not by a faster one.
    #[must_use]
    pub fn explain(&self, proc_id: &ProcId) -> RouteReport {
        explain::explain(&self.shared, proc_id)
    }

    /// Returns how many messages went to other hosts.
    #[must_use]
    pub fn remote_count(&self) -> u64 {
        self.shared.remote.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn new(addrs: HostAddrs, socket_dir: PathBuf, backend: BoxedMailboxSender) -> Self {
        Self {
            addrs,
            socket_dir,
            backend,
            policy: RoutePolicy::Auto,
            dial: DialOptions::default(),
            own: None,
            runtime: Handle::try_current().ok(),
            link_idle: limits::LINK_IDLE,
            identity: Arc::default(),
            siblings: RwLock::default(),
            recent: Mutex::default(),
            strangers: Strangers::default(),
            has_ended: AtomicBool::new(false),
            idle: Once::new(),
            service: AtomicU64::new(0),
            remote: AtomicU64::new(0),
        }
    }

    fn proc_id(&self, name: &str) -> ProcId {
        ProcId::Direct(self.addrs.canonical().clone(), name.to_owned())
    }

    fn known(&self) -> Vec<Arc<Sibling>> {
        self.siblings.read().values().map(Arc::clone).collect()
    }

    /// Starts, once, the task that closes links over which nothing went for a while. It ends with the dialer.
    fn close_idle_links(self: &Arc<Self>) {
        let Some(runtime) = self.runtime.clone().or_else(|| Handle::try_current().ok()) else {
            return;
        };
        self.idle.call_once(|| {
            let (shared, idle) = (Arc::downgrade(self), self.link_idle);
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(idle).await;
                    let Some(shared) = shared.upgrade() else {
                        return;
                    };
                    for sibling in shared.known() {
                        sibling.close_idle();
                    }
                }
            });
        });
    }

    /// The sibling that the last message went to, if it named this very id. It stays known as long as it is here.
    fn recent_sibling(&self, proc_id: &Arc<ProcId>) -> Option<Arc<Sibling>> {
        let recent = self.recent.lock();
        let (recent_id, sibling) = recent.as_ref()?;
        Arc::ptr_eq(recent_id, proc_id).then(|| Arc::clone(sibling))
    }

    /// The sibling of a name, known or new; `None` when no more can be kept.
    fn sibling_named(self: &Arc<Self>, name: &str) -> Option<Arc<Sibling>> {
        if let Some(sibling) = self.siblings.read().get(name) {
            return Some(Arc::clone(sibling));
        }
        self.close_idle_links();
        let path = self.socket_dir.join(socket_name(name));
        let connect = Arc::new(SocketConnect::new(
            path,
            self.runtime.clone(),
            &self.dial,
            Arc::clone(&self.identity),
        ));
        let proc_id = Arc::new(self.proc_id(name));
        let policy = if self.has_ended.load(Ordering::SeqCst) {
            RoutePolicy::Relay
        } else {
            self.policy
        };
        let new = Sibling::new(proc_id, policy, self.backend.clone(), connect);
        let mut siblings = self.siblings.write();
        if siblings.len() >= limits::SIBLINGS_MAX {
            // Dropped after the lock: an idle entry holds no message, yet owns what it was given.
            siblings.retain(|_, sibling| Arc::strong_count(sibling) > 1 || !sibling.is_idle());
            if siblings.len() >= limits::SIBLINGS_MAX {
                return None;
            }
        }
        Some(Arc::clone(
            siblings.entry(name.into()).or_insert_with(|| Arc::new(new)),
        ))
    }
}

impl MailboxSender for LocalProcDialer {
    fn post_unchecked(&self, mut envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let shared = &self.shared;
        if let Some(sibling) = shared.recent_sibling(envelope.dest().actor_id().proc()) {
            return sibling.post(envelope, return_handle);
        }
        let is_of_host = shared.addrs.translate(&mut envelope);
        let proc_id = envelope.dest().proc_id();
        if let Some((_, sender)) = shared.own.as_ref().filter(|(own, _)| **own == *proc_id) {
            return sender.post_unchecked(envelope, return_handle);
        }
        if !is_of_host {
            shared.remote.fetch_add(1, Ordering::Relaxed);
            return shared.backend.post_unchecked(envelope, return_handle);
        }
        if proc_id.name() == SERVICE_PROC {
            shared.service.fetch_add(1, Ordering::Relaxed);
            return shared.backend.post_unchecked(envelope, return_handle);
        }
        match shared.sibling_named(proc_id.name()) {
            Some(sibling) => {
                let recent = (
                    Arc::clone(envelope.dest().actor_id().proc()),
                    Arc::clone(&sibling),
                );
                let former = shared.recent.lock().replace(recent);
                drop(former);
                sibling.post(envelope, return_handle);
            }
            None => {
                let port_id = envelope.dest().clone();
                let detail = format!(
                    "messages to {} other procs of this host are under way",
                    limits::SIBLINGS_MAX
                );
                return_handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
            }
        }
    }

    /// Resolves when everything posted before has an outcome, whichever way it went.
    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        let mut siblings = self.shared.known();
        if cfg!(planted = "P10") {
            siblings.clear();
        }
        let waits: Vec<_> = siblings.iter().map(|sibling| sibling.flush()).collect();
        let backend = self.shared.backend.flush();
        Box::pin(async move {
            for wait in waits {
                wait.await;
            }
            backend.await
        })
    }
}

impl std::fmt::Debug for LocalProcDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalProcDialer")
            .field("frontend", self.shared.addrs.canonical())
            .field("socket_dir", &self.shared.socket_dir)
            .field("policy", &self.shared.policy)
            .field("siblings", &self.shared.siblings.read().len())
            .finish_non_exhaustive()
    }
}
