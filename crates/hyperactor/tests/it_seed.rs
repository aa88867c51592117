//! The definition of a proc, clause by clause, over real sockets: construction, identity, forwarders, the way past the host,
//! spawning. `docs/seed.md` shows the same to a reader; here each clause can fail.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers too: a test's panic is its report"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyperactor::bootstrap::SocketDir;
use hyperactor::bootstrap::mailbox::LocalProcDialer;
use hyperactor::channel::ServeOptions;
use hyperactor::host::LocalProcManager;
use hyperactor::mailbox::{
    BoxedMailboxSender, MessageEnvelope, ReturnHandle, UnroutableMailboxSender,
};
use hyperactor::prelude::*;
use hyperactor::router::{DialMailboxRouter, MailboxClient, MailboxServer, MailboxServerHandle};
use hyperactor_testkit::eventually;

const PATIENCE: Duration = Duration::from_secs(20);

/// A host's frontend address that nobody else uses.
fn frontend() -> ChannelAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("unix:@seed-{}-{number}", std::process::id())
        .parse()
        .unwrap()
}

/// Counts what passes through.
#[derive(Clone)]
struct Counting<S> {
    inner: S,
    posts: Arc<AtomicU64>,
}

impl<S: MailboxSender> MailboxSender for Counting<S> {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.posts.fetch_add(1, Ordering::Relaxed);
        self.inner.post_unchecked(envelope, return_handle);
    }
}

impl<S> Counting<S> {
    fn new(inner: S) -> Self {
        Self {
            inner,
            posts: Arc::default(),
        }
    }

    fn posts(&self) -> u64 {
        self.posts.load(Ordering::Relaxed)
    }
}

fn nowhere() -> BoxedMailboxSender {
    UnroutableMailboxSender::new("nothing leaves this proc").into_boxed()
}

/// A host's backend that knows one sibling, and a proc beside it with a dialer.
struct Neighbours {
    sockets: SocketDir,
    sibling: Proc,
    /// Where the backend reaches the sibling: not its socket in the folder.
    relay_server: MailboxServerHandle,
    backend_server: MailboxServerHandle,
    dialer: LocalProcDialer,
    backend: Counting<MailboxClient>,
    proc: Proc,
}

impl Neighbours {
    async fn new(policy: RoutePolicy) -> Self {
        let host_frontend_addr = frontend();
        let sockets = SocketDir::create().unwrap();
        let sibling_id = ProcId::Direct(host_frontend_addr.clone(), "sibling".to_string());
        let sibling = Proc::new(sibling_id, nowhere());
        let relay_server = MailboxServer::serve(
            ChannelTransport::Unix,
            sibling.clone(),
            ServeOptions::default(),
        )
        .await
        .unwrap();
        let router = DialMailboxRouter::new();
        router
            .bind(sibling.proc_id().clone(), relay_server.addr().clone())
            .unwrap();
        let backend_server =
            MailboxServer::serve(ChannelTransport::Unix, router, ServeOptions::default())
                .await
                .unwrap();

        let backend = Counting::new(MailboxClient::dial(backend_server.addr().clone()));
        let dialer = LocalProcDialer::new(
            host_frontend_addr.clone(),
            sockets.path().to_path_buf(),
            backend.clone(),
        )
        .with_policy(policy);
        let proc_id = ProcId::Direct(host_frontend_addr, "first".to_string());
        let proc = Proc::new(proc_id, dialer.boxed());
        Self {
            sockets,
            sibling,
            relay_server,
            backend_server,
            dialer,
            backend,
            proc,
        }
    }

    /// Serves the sibling at its socket in the folder.
    async fn open_socket(&self) -> MailboxServerHandle {
        let socket = ChannelAddr::unix_path(self.sockets.socket_path("sibling")).unwrap();
        MailboxServer::serve(socket, self.sibling.clone(), ServeOptions::default())
            .await
            .unwrap()
    }

    fn routes(&self) -> (u64, u64) {
        let counts = self.dialer.counts();
        (
            counts.iter().map(|count| count.direct).sum(),
            counts.iter().map(|count| count.relay).sum(),
        )
    }
}

#[test]
fn a_proc_is_made_without_a_runtime() {
    let new: fn(ProcId, BoxedMailboxSender) -> Proc = Proc::new;
    let proc_id = ProcId::Direct(frontend(), "service".to_string());
    let proc = new(proc_id.clone(), nowhere());
    assert_eq!(proc.proc_id(), &proc_id);
}

#[test]
fn an_id_is_an_address_and_a_name_and_its_text_parses_back() {
    let addr: ChannelAddr = "unix:@abc123".parse().unwrap();
    let proc_id = ProcId::Direct(addr.clone(), "service".to_string());
    assert_eq!((proc_id.addr(), proc_id.name()), (&addr, "service"));
    assert_eq!(proc_id.to_string(), "unix:@abc123,service");
    assert_eq!(proc_id.to_string().parse::<ProcId>().unwrap(), proc_id);
    let error = "unix:@abc123".parse::<ProcId>().unwrap_err();
    assert!(error.to_string().contains("unix:@abc123"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_proc_of_a_host_is_named_by_its_frontend() {
    let host = Host::new(
        LocalProcManager::new(Registry::new()),
        ChannelTransport::Unix,
    )
    .await
    .unwrap();
    let expected = ProcId::Direct(host.addr().clone(), "service".to_string());
    assert_eq!(host.service_proc().proc_id(), &expected);
    host.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_looks_up_dials_and_sends() {
    let far = Proc::new(ProcId::Direct(frontend(), "far".to_string()), nowhere());
    let server = MailboxServer::serve(ChannelTransport::Unix, far.clone(), ServeOptions::default())
        .await
        .unwrap();
    let listener = far.client("listener").unwrap();
    let (port, mut received) = listener.mailbox().open_port::<u64>();

    let router = DialMailboxRouter::new();
    let proc = Proc::new(
        ProcId::Direct(frontend(), "near".to_string()),
        router.boxed(),
    );
    let client = proc.client("sender").unwrap();
    router
        .bind(far.proc_id().clone(), server.addr().clone())
        .unwrap();
    for number in 0..100 {
        port.bind().feed(&client, number).await;
    }
    for number in 0..100 {
        assert_eq!(received.recv().await, Some(number));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_proc_of_a_live_host_comes_back_at_once_with_the_names_there_are() {
    let host = Host::new(
        LocalProcManager::new(Registry::new()),
        ChannelTransport::Unix,
    )
    .await
    .unwrap();
    host.spawn("known", ProcConfig::default()).await.unwrap();
    let client = host.service_proc().client("sender").unwrap();
    let unknown = ProcId::Direct(host.addr().clone(), "unknown".to_string());
    let port = PortRef::<u64>::attest(PortId::new(ActorId::root(unknown, "actor"), 1));
    let outcome = tokio::time::timeout(Duration::from_secs(1), port.send(&client, 1))
        .await
        .unwrap();
    let text = outcome.to_string();
    assert!(text.contains(&host.addr().to_string()), "{text}");
    assert!(text.contains("known"), "{text}");
    host.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_with_a_socket_is_reached_past_the_host() {
    let neighbours = Neighbours::new(RoutePolicy::Direct).await;
    let socket = neighbours.open_socket().await;
    let listener = neighbours.sibling.client("listener").unwrap();
    let (port, mut received) = listener.mailbox().open_port::<u64>();
    let client = neighbours.proc.client("sender").unwrap();
    for number in 0..1_000 {
        port.bind().feed(&client, number).await;
    }
    for number in 0..1_000 {
        assert_eq!(received.recv().await, Some(number));
    }
    assert_eq!(
        neighbours.backend.posts(),
        0,
        "nothing went through the host"
    );
    assert_eq!(neighbours.routes(), (1_000, 0));
    socket.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_without_a_socket_is_reached_through_the_backend() {
    let neighbours = Neighbours::new(RoutePolicy::Auto).await;
    let listener = neighbours.sibling.client("listener").unwrap();
    let (port, mut received) = listener.mailbox().open_port::<u64>();
    let client = neighbours.proc.client("sender").unwrap();
    for number in 0..100 {
        assert!(port.bind().send(&client, number).await.is_delivered());
        assert_eq!(received.recv().await, Some(number));
    }
    assert_eq!(neighbours.backend.posts(), 100);
    assert_eq!(neighbours.routes(), (0, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_appears_later_is_used_and_no_message_overtakes_another() {
    const LAST: u64 = u64::MAX;
    let neighbours = Neighbours::new(RoutePolicy::Auto).await;
    let listener = neighbours.sibling.client("listener").unwrap();
    let (port, mut received) = listener.mailbox().open_port::<u64>();
    let client = neighbours.proc.client("sender").unwrap();
    let reader = tokio::spawn(async move {
        let mut expected = 0;
        loop {
            match received.recv().await.unwrap() {
                LAST => return expected,
                number => assert_eq!(number, expected, "overtaken"),
            }
            expected += 1;
        }
    });
    let mut sent = 0;
    let mut feed = async |count: u64| {
        for number in sent..sent + count {
            port.bind().feed(&client, number).await;
        }
        sent += count;
        sent
    };
    feed(100).await;
    assert_eq!(neighbours.routes().0, 0);
    let socket = neighbours.open_socket().await;
    let switched = tokio::time::timeout(PATIENCE, async {
        while neighbours.routes().0 < 1_000 {
            feed(10).await;
        }
    });
    switched
        .await
        .expect("the direct way is taken when it is there");
    let sent = feed(0).await;
    port.bind().feed(&client, LAST).await;
    assert_eq!(reader.await.unwrap(), sent);
    assert!(neighbours.routes().1 >= 100, "it began with the backend");
    socket.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_of_another_host_goes_through_the_backend() {
    let neighbours = Neighbours::new(RoutePolicy::Auto).await;
    let socket = neighbours.open_socket().await;
    let client = neighbours.proc.client("sender").unwrap();
    let elsewhere = ProcId::Direct(frontend(), "sibling".to_string());
    let port = PortRef::<u64>::attest(PortId::new(ActorId::root(elsewhere, "actor"), 1));
    let outcome = port.send(&client, 1).await;
    assert!(!outcome.is_delivered(), "nobody serves that host");
    assert_eq!(neighbours.backend.posts(), 1);
    assert_eq!(neighbours.routes(), (0, 0));
    socket.stop().await;
    neighbours.backend_server.stop().await;
    neighbours.relay_server.stop().await;
}

#[derive(Debug, serde::Serialize, serde::Deserialize, Message)]
struct SayTo {
    port: PortRef<String>,
}

#[derive(Actor)]
#[actor(messages(SayTo))]
struct MyActor;

impl MyActor {
    fn new() -> Self {
        Self
    }
}

impl Handler<SayTo> for MyActor {
    async fn handle(&mut self, cx: &Context<Self>, SayTo { port }: SayTo) -> ActorResult {
        port.post(cx, cx.actor_id().to_string());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_runs_in_its_proc_has_its_id_and_takes_its_forwarder() {
    let elsewhere = Proc::isolated("elsewhere");
    let listener = elsewhere.client("listener").unwrap();
    let (port, mut received) = listener.mailbox().open_port::<String>();
    let forwarder = Counting::new(elsewhere.clone());
    let proc = Proc::new(
        ProcId::Direct(frontend(), "mine".to_string()),
        forwarder.boxed(),
    );

    let actor_handle = proc.spawn("my_actor", MyActor::new()).unwrap();

    assert_eq!(actor_handle.actor_id().proc_id(), proc.proc_id());
    assert_eq!(actor_handle.actor_id().name(), "my_actor");
    let client = proc.client("main").unwrap();
    let port = port.bind();
    actor_handle.bind().post(&client, SayTo { port });
    let text = received.recv().await.unwrap();
    assert_eq!(text, format!("{},my_actor[0]", proc.proc_id()));
    assert_eq!(forwarder.posts(), 1, "only the answer left the proc");
    eventually(PATIENCE, || proc.traffic().forwarded == 1).await;
}
