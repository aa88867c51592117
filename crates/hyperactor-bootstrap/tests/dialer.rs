//! `LocalProcDialer` over real sockets, with the procs in this process: nobody announces siblings here, so the routes are
//! found by looking for sockets, as on the page that describes the dialer.
#![allow(
    clippy::unwrap_used,
    reason = "the panic of a test, and of its helpers, is its report"
)]

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyperactor_bootstrap::SocketDir;
use hyperactor_bootstrap::mailbox::LocalProcDialer;
use hyperactor_channel::{ServeOptions, process_incarnation};
use hyperactor_host::{End, Host, HostedProc, LocalProcManager, ProcConfig, RoutePolicy};
use hyperactor_mailbox::{BoxFuture, FlushError, MailboxSender, MessageEnvelope, ReturnHandle};
use hyperactor_proc::{
    Actor, ActorError, ActorRef, ActorResult, Context, Handler, Message, OncePortRef, Outbox, Proc,
    Registry, RemoteSpawn,
};
use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport, ProcId};
use hyperactor_router::{DialMailboxRouter, MailboxClient, MailboxServer, MailboxServerHandle};
use hyperactor_testkit::eventually;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Keeps the numbers that it gets.
#[derive(Actor, Default)]
#[actor(messages(Number, Numbers, Forward))]
struct Keeper {
    numbers: Vec<u64>,
}

#[derive(Message, Serialize, Deserialize)]
struct Number(u64);

#[derive(Message, Serialize, Deserialize)]
struct Numbers(OncePortRef<Vec<u64>>);

/// Has a keeper send the numbers of a range to another, and wait for the outcome of each.
#[derive(Message, Serialize, Deserialize)]
struct Forward {
    to: ActorRef<Keeper>,
    first: u64,
    count: u64,
    done: OncePortRef<u64>,
}

impl RemoteSpawn for Keeper {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl Handler<Number> for Keeper {
    async fn handle(&mut self, _: &Context<Self>, Number(number): Number) -> ActorResult {
        self.numbers.push(number);
        Ok(())
    }
}

impl Handler<Numbers> for Keeper {
    async fn handle(&mut self, cx: &Context<Self>, Numbers(reply): Numbers) -> ActorResult {
        cx.reply(reply, self.numbers.clone());
        Ok(())
    }
}

impl Handler<Forward> for Keeper {
    async fn handle(&mut self, cx: &Context<Self>, forward: Forward) -> ActorResult {
        let numbers = forward.first..forward.first + forward.count;
        // All posted one after the other, then all awaited: many are under way at the same time.
        let waiting: Vec<_> = numbers
            .map(|number| {
                let (handle, outcome) = ReturnHandle::oneshot();
                let dest = forward.to.port::<Number>().port_id().clone();
                let sender = cx.actor_id().clone();
                cx.post(MessageEnvelope::typed(sender, dest, Number(number)), handle);
                outcome
            })
            .collect();
        let mut delivered = 0;
        for outcome in waiting {
            delivered += u64::from(outcome.await.is_ok());
        }
        cx.reply(forward.done, delivered);
        Ok(())
    }
}

struct World {
    host: Host,
    client: hyperactor_proc::Client,
    dir: Arc<SocketDir>,
    dialers: Arc<Mutex<Vec<(String, LocalProcDialer)>>>,
}

impl World {
    /// Procs whose sockets may be anywhere: `place` says where each one listens.
    async fn new(place: impl Fn(&SocketDir, &str) -> PathBuf + Send + Sync + 'static) -> Self {
        let dir = Arc::new(SocketDir::create().unwrap());
        let dialers = Arc::new(Mutex::new(Vec::new()));
        let (binds, looks, kept) = (Arc::clone(&dir), Arc::clone(&dir), Arc::clone(&dialers));
        let manager = LocalProcManager::new(Registry::new().with::<Keeper>())
            .with_backend(ChannelAddr::unix_path(dir.backend_path()).unwrap())
            .with_bind(move |spec| {
                let path = place(&binds, spec.proc_id.name());
                BindSpec::from(ChannelAddr::unix_path(path).unwrap())
            })
            .with_forwarding(move |spec: &hyperactor_host::ProcSpec| {
                let backend = MailboxClient::dial(spec.backend.clone());
                let dialer = LocalProcDialer::new(spec.frontend.clone(), looks.path(), backend)
                    .with_policy(spec.config.route);
                kept.lock()
                    .push((spec.proc_id.name().to_owned(), dialer.clone()));
                dialer.boxed()
            });
        let host = Host::new(manager, ChannelTransport::Unix).await.unwrap();
        let client = host.service_proc().client("test").unwrap();
        Self {
            host,
            client,
            dir,
            dialers,
        }
    }

    async fn keeper(&self, name: &str) -> (HostedProc, ActorRef<Keeper>) {
        let proc = self.host.spawn(name, ProcConfig::new()).await.unwrap();
        let keeper = proc
            .spawn::<Keeper>(&self.client, "keeper", ())
            .await
            .unwrap();
        (proc, keeper)
    }

    async fn forward(
        &self,
        from: &ActorRef<Keeper>,
        to: &ActorRef<Keeper>,
        first: u64,
        count: u64,
    ) -> u64 {
        let to = to.clone();
        let ask = |done| Forward {
            to,
            first,
            count,
            done,
        };
        from.ask_within(&self.client, Duration::from_secs(20), ask)
            .await
            .unwrap()
    }

    /// Messages from one proc to another, straight and by the host.
    fn routes(&self, from: &str, to: &str) -> (u64, u64) {
        let dialers = self.dialers.lock();
        let (_, dialer) = dialers.iter().rfind(|(name, _)| name == from).unwrap();
        let counts = dialer.counts();
        let count = counts.iter().find(|count| count.proc_id.name() == to);
        count
            .map(|count| (count.direct, count.relay))
            .unwrap_or_default()
    }

    async fn end(self) {
        let report = self.host.stop(Duration::from_secs(5)).await;
        assert!(report.is_clean(), "{report:?}");
    }
}

fn in_dir(dir: &SocketDir, name: &str) -> PathBuf {
    dir.socket_path(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_that_nobody_announced_is_found_by_its_socket_and_the_order_is_kept() {
    let world = World::new(in_dir).await;
    let ((_a, a), (_b, b)) = (world.keeper("a").await, world.keeper("b").await);
    let mut sent = 0;
    eventually_direct(&world, &a, &b, &mut sent).await;
    assert_eq!(world.forward(&a, &b, sent, 2_000).await, 2_000);
    sent += 2_000;
    let numbers = b.ask(&world.client, Numbers).await.unwrap();
    assert_eq!(
        numbers,
        (0..sent).collect::<Vec<_>>(),
        "lost, doubled or out of order"
    );
    let (direct, relay) = world.routes("a", "b");
    assert_eq!(direct + relay, sent);
    assert!(
        relay > 0 && direct >= 2_000,
        "{direct} direct, {relay} by the host"
    );
    world.end().await;
}

/// Sends until the route has changed, so that the change happens with messages under way.
async fn eventually_direct(
    world: &World,
    a: &ActorRef<Keeper>,
    b: &ActorRef<Keeper>,
    sent: &mut u64,
) {
    while world.routes("a", "b").0 == 0 {
        assert_eq!(world.forward(a, b, *sent, 50).await, 50);
        *sent += 50;
        assert!(*sent < 1_000_000, "the route never changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_without_a_socket_in_the_directory_is_reached_by_the_host() {
    // b listens somewhere else than where it is looked for.
    let world = World::new(|dir, name| dir.path().join(format!("elsewhere-{name}.sock"))).await;
    let ((_a, a), (_b, b)) = (world.keeper("a").await, world.keeper("b").await);
    assert_eq!(world.forward(&a, &b, 0, 500).await, 500);
    assert_eq!(world.routes("a", "b"), (0, 500));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_socket_costs_no_message_and_the_next_life_is_reached() {
    let world = World::new(in_dir).await;
    let ((_a, a), (b_proc, b)) = (world.keeper("a").await, world.keeper("b").await);
    let mut sent = 0;
    eventually_direct(&world, &a, &b, &mut sent).await;
    b_proc
        .end(End::Drain {
            deadline: Duration::from_secs(5),
        })
        .await;
    // What a killed process leaves: a file that refuses connections.
    drop(std::os::unix::net::UnixListener::bind(world.dir.socket_path("b")).unwrap());
    assert_eq!(
        world.forward(&a, &b, 0, 10).await,
        0,
        "nobody of that name is there"
    );

    let (_b, b) = world.keeper("b").await;
    let (before, _) = world.routes("a", "b");
    let mut sent = 0;
    while world.routes("a", "b").0 == before {
        assert_eq!(world.forward(&a, &b, sent, 50).await, 50);
        sent += 50;
        assert!(sent < 1_000_000, "the new life was never reached straight");
    }
    let numbers = b.ask(&world.client, Numbers).await.unwrap();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
    world.end().await;
}

#[tokio::test]
async fn what_is_not_for_a_sibling_goes_to_the_backend_unchanged() {
    let frontend: ChannelAddr = "tcp:127.0.0.1:4000".parse().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let backend = Recording(Arc::clone(&seen));
    let dir = SocketDir::create().unwrap();
    let own = ProcId::direct(frontend.clone(), "own").unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let dialer = LocalProcDialer::new(frontend, dir.path(), backend)
        .with_aliases(["unix:@host".parse().unwrap()])
        .with_local(own, Recording(Arc::clone(&kept)));
    let others = [
        "tcp:127.0.0.1:4000,service",
        "tcp:127.0.0.1:4001,worker",
        "tcp:10.1.2.3:4000,worker",
        "unix:@elsewhere,worker",
    ];
    for dest in others {
        post(&dialer, dest);
    }
    // A sibling in any spelling is one proc with one id: it is looked for, and meanwhile relayed.
    post(&dialer, "tcp:127.0.0.1:4000,worker");
    post(&dialer, "tcp:localhost:4000,worker");
    post(&dialer, "unix:@host,worker");
    post(&dialer, "tcp:127.0.0.1:4000,own");
    post(&dialer, "unix:@host,own");
    let expected: Vec<String> = others
        .iter()
        .chain(&["tcp:127.0.0.1:4000,worker"; 3])
        .map(|proc_id| (*proc_id).to_owned())
        .collect();
    assert_eq!(*seen.lock(), expected);
    assert_eq!(*kept.lock(), ["tcp:127.0.0.1:4000,own"; 2]);
    assert_eq!(dialer.remote_count(), 3);
    let names: HashSet<String> = dialer
        .counts()
        .iter()
        .map(|count| count.proc_id.name().to_owned())
        .collect();
    assert_eq!(
        names,
        HashSet::from(["service".to_owned(), "worker".to_owned()])
    );
}

#[tokio::test]
async fn a_link_is_closed_after_the_idle_time_that_was_chosen_and_opened_again() {
    let (dir, dialer, worker) = with_worker();
    let dialer = dialer.with_link_idle(Duration::from_millis(1));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let _worker = serve(&dir, Recording(Arc::clone(&seen))).await;
    dialer.announce(worker.name(), process_incarnation());
    for count in 1..=2 {
        post(&dialer, &worker.to_string());
        eventually(Duration::from_secs(10), || seen.lock().len() == count).await;
        let is_idle = || {
            dialer
                .explain(&worker)
                .refusals
                .iter()
                .any(|way| way.code == "idle")
        };
        eventually(Duration::from_secs(10), is_idle).await;
    }
    assert_eq!(dialer.counts()[0].direct, 2);
}

#[tokio::test]
async fn a_flush_waits_for_what_went_straight() {
    let (dir, dialer, worker) = with_worker();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let _worker = serve(&dir, Keeping(Arc::clone(&kept))).await;
    dialer.announce(worker.name(), process_incarnation());
    post(&dialer, &worker.to_string());
    eventually(Duration::from_secs(10), || !kept.lock().is_empty()).await;
    let mut flush = dialer.flush();
    let early = (&mut flush).now_or_never();
    assert!(early.is_none(), "the message has no outcome yet");
    let (_, handle) = kept.lock().pop().unwrap();
    drop(handle.delivered());
    flush.await.unwrap();
}

/// A sibling's name, the directory in which its socket is, and a dialer whose backend takes everything.
fn with_worker() -> (SocketDir, LocalProcDialer, ProcId) {
    let frontend: ChannelAddr = "tcp:127.0.0.1:4000".parse().unwrap();
    let dir = SocketDir::create().unwrap();
    let worker = ProcId::direct(frontend.clone(), "worker").unwrap();
    let dialer = LocalProcDialer::new(frontend, dir.path(), Recording(Arc::default()));
    (dir, dialer, worker)
}

/// Serves the sibling's socket.
async fn serve(dir: &SocketDir, sender: impl MailboxSender + Clone) -> MailboxServerHandle {
    let addr = ChannelAddr::unix_path(dir.socket_path("worker")).unwrap();
    MailboxServer::serve(addr, sender, ServeOptions::default())
        .await
        .unwrap()
}

/// Keeps what it gets, for the test to settle.
#[derive(Clone)]
struct Keeping(Arc<Mutex<Vec<(MessageEnvelope, ReturnHandle)>>>);

impl MailboxSender for Keeping {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.0.lock().push((envelope, return_handle));
    }
}

/// Notes where messages were addressed to.
#[derive(Clone)]
struct Recording(Arc<Mutex<Vec<String>>>);

impl MailboxSender for Recording {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.0.lock().push(envelope.dest().proc_id().to_string());
        drop(return_handle.delivered());
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        // Everything is settled before a post returns.
        Box::pin(std::future::ready(Ok(())))
    }
}

fn post(dialer: &LocalProcDialer, proc_id: &str) {
    let proc_id: Arc<ProcId> = Arc::new(proc_id.parse().unwrap());
    let actor_id = hyperactor_refs::ActorId::root(proc_id, "actor");
    let dest = hyperactor_refs::PortId::new(actor_id.clone(), 1);
    dialer.post(
        MessageEnvelope::typed(actor_id, dest, 7u64),
        ReturnHandle::monitored(),
    );
}

/// The snippets of the page that the dialer is built from.
#[tokio::test]
async fn the_seed_pages_snippets_are_programs() {
    let dir = SocketDir::create().unwrap();
    let socket_dir = dir.path();

    // "Example: Service Proc in Host".
    let frontend_addr: ChannelAddr = "unix:@abc123".parse().unwrap();
    let router = DialMailboxRouter::new();
    let service_proc_id = ProcId::Direct(frontend_addr.clone(), "service".to_string());
    let service_proc = Proc::new(service_proc_id, router.boxed());
    assert_eq!(service_proc.proc_id().to_string(), "unix:@abc123,service");

    // "Local Proc Bypass".
    let host_frontend_addr = frontend_addr;
    let backend_addr: ChannelAddr = ChannelAddr::unix_path(dir.backend_path()).unwrap();
    let proc_id = ProcId::Direct(host_frontend_addr.clone(), "worker".to_string());
    let backend_sender = MailboxClient::dial(backend_addr);
    let proc_forwarder = LocalProcDialer::new(host_frontend_addr, socket_dir, backend_sender);
    let proc = Proc::new(proc_id, proc_forwarder.boxed());

    // "Spawning Actors".
    let actor_handle = proc.spawn("my_actor", Keeper::default()).unwrap();
    assert_eq!(actor_handle.actor_id().proc_id(), proc.proc_id());
    assert!(proc.stop(Duration::from_secs(1)).await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_route_is_kept_also_where_it_cannot_work() {
    let world = World::new(|dir, name| dir.path().join(format!("elsewhere-{name}.sock"))).await;
    let direct = ProcConfig::new().with_route(RoutePolicy::Direct);
    let a = world.host.spawn("a", direct).await.unwrap();
    let a = a
        .spawn::<Keeper>(&world.client, "keeper", ())
        .await
        .unwrap();
    let (_b, b) = world.keeper("b").await;
    assert_eq!(world.forward(&a, &b, 0, 20).await, 0);
    assert_eq!(world.routes("a", "b").1, 0);
    eventually(Duration::from_secs(5), || world.host.procs().len() == 2).await;
    world.end().await;
}
