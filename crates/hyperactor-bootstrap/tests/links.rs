//! One connection for two processes: procs with sockets of their own in one directory, whose dialers are told of each other as
//! a host would tell them.
#![allow(
    clippy::unwrap_used,
    reason = "the panic of a test, and of its helpers, is its report"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyperactor_bootstrap::SocketDir;
use hyperactor_bootstrap::mailbox::{LinkOrigin, LocalProcDialer, ProcSessions, RouteRung};
use hyperactor_mailbox::{
    Failure, Mailbox, MailboxMuxer, MailboxSender, MessageEnvelope, PortReceiver, ReturnHandle,
    SendFailure, Unknown,
};
use hyperactor_proc::Message;
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, Incarnation, PortId, ProcId};
use hyperactor_router::{
    AcceptSession, MailboxServer, MailboxServerHandle, MailboxSession, ServeOptions,
};
use hyperactor_testkit::{Class, Key, Ledger, Outcome, Rng, Seed, Stamped, eventually};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Longer than anything takes here, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn frontend() -> ChannelAddr {
    "unix:@hyperactor-links-tests-nobody-serves-this"
        .parse()
        .unwrap()
}

/// Stands for the host: knows the procs by their names.
#[derive(Clone, Default)]
struct Backend(Arc<Mutex<Vec<(String, MailboxMuxer)>>>);

impl MailboxSender for Backend {
    fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        let name = envelope.dest().proc_id().name();
        let found = self
            .0
            .lock()
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, muxer)| muxer.clone());
        let muxer = found.expect("the procs of the test");
        muxer.post_unchecked(envelope, handle);
    }
}

/// Counts the sessions on their way to the dialer.
struct Counting {
    sessions: ProcSessions,
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl AcceptSession for Counting {
    type Sender = <ProcSessions as AcceptSession>::Sender;

    fn opened(&self, session: &MailboxSession) -> Self::Sender {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        self.sessions.opened(session)
    }

    fn closed(&self, session: &MailboxSession) {
        self.sessions.closed(session);
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Message, Serialize, Deserialize)]
struct Note(Stamped);

impl Note {
    fn number(&self) -> u64 {
        self.0.key().number
    }
}

struct Node {
    proc_id: ProcId,
    incarnation: Incarnation,
    dialer: LocalProcDialer,
    port: PortId,
    server: MailboxServerHandle,
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

struct World {
    dir: SocketDir,
    backend: Backend,
    link_idle: Duration,
}

impl World {
    fn new(link_idle: Duration) -> Self {
        Self {
            dir: SocketDir::create().unwrap(),
            backend: Backend::default(),
            link_idle,
        }
    }

    async fn node(&self, name: &str, incarnation: u64) -> (Node, PortReceiver<Note>) {
        let proc_id = ProcId::Direct(frontend(), name.to_owned());
        let muxer = MailboxMuxer::new();
        let mailbox = Mailbox::new(ActorId::root(proc_id.clone(), "actor"));
        let (port, receiver) = mailbox.open_port::<Note>();
        let port = port.bind().into_port_id();
        muxer.bind(mailbox).unwrap();
        self.backend.0.lock().push((name.to_owned(), muxer.clone()));
        let node = self.serve(proc_id, incarnation, port, muxer).await;
        (node, receiver)
    }

    async fn serve(
        &self,
        proc_id: ProcId,
        incarnation: u64,
        port: PortId,
        sender: impl MailboxSender,
    ) -> Node {
        let incarnation = Incarnation::new(incarnation);
        let dialer = LocalProcDialer::new(frontend(), self.dir.path(), self.backend.clone())
            .with_link_idle(self.link_idle);
        let (opened, open) = (Arc::default(), Arc::default());
        let sessions = Counting {
            sessions: dialer.sessions_of(incarnation, sender),
            opened: Arc::clone(&opened),
            open: Arc::clone(&open),
        };
        let path = self.dir.socket_path(proc_id.name());
        let addr = BindSpec::from(ChannelAddr::unix_path(path).unwrap());
        let options = ServeOptions {
            incarnation,
            ..ServeOptions::default()
        };
        let server = MailboxServer::serve_duplex(addr, options, sessions)
            .await
            .unwrap();
        Node {
            proc_id,
            incarnation,
            dialer,
            port,
            server,
            opened,
            open,
        }
    }
}

impl Node {
    fn knows(&self, other: &Node) {
        self.dialer
            .announce(other.proc_id.name(), other.incarnation);
    }

    fn post(&self, to: &Node, note: Note) -> hyperactor_mailbox::OutcomeReceiver {
        let (handle, outcome) = ReturnHandle::oneshot();
        let sender = self.port.actor_id().clone();
        self.dialer.post(
            MessageEnvelope::typed(sender, to.port.clone(), note),
            handle,
        );
        outcome
    }

    async fn send(&self, to: &Node, number: u64) -> Result<(), SendFailure> {
        timeout(PATIENCE, self.post(to, note(number)))
            .await
            .expect("every post has an outcome")
    }

    fn link_to(&self, other: &Node) -> Option<LinkOrigin> {
        self.dialer.explain(&other.proc_id).link
    }
}

fn know_each_other(a: &Node, b: &Node) {
    a.knows(b);
    b.knows(a);
}

fn note(number: u64) -> Note {
    let key = Key {
        sender: 0,
        stream: 0,
        number,
    };
    Note(Stamped::new(key, Vec::new()))
}

fn open<const N: usize>(nodes: [&Node; N]) -> usize {
    nodes
        .iter()
        .map(|node| node.open.load(Ordering::SeqCst))
        .sum()
}

fn opened(nodes: [&Node; 2]) -> usize {
    nodes
        .iter()
        .map(|node| node.opened.load(Ordering::SeqCst))
        .sum()
}

#[tokio::test]
async fn what_a_sibling_dialled_carries_the_messages_to_it() {
    let world = World::new(PATIENCE);
    let (a, mut at_a) = world.node("a", 1).await;
    let (b, mut at_b) = world.node("b", 2).await;
    know_each_other(&a, &b);
    a.send(&b, 1).await.unwrap();
    b.send(&a, 2).await.unwrap();
    assert_eq!(at_b.try_recv().unwrap().number(), 1);
    assert_eq!(at_a.try_recv().unwrap().number(), 2);
    assert_eq!((opened([&a, &b]), open([&a, &b])), (1, 1));
    assert_eq!(a.link_to(&b), Some(LinkOrigin::Dialled));
    assert_eq!(b.link_to(&a), Some(LinkOrigin::Accepted));
    let report = b.dialer.explain(&a.proc_id);
    assert_eq!(report.now, Some(RouteRung::Direct));
    assert!(
        report
            .to_string()
            .contains("a connection that was accepted"),
        "{report}"
    );
    assert_eq!(b.dialer.counts()[0].relay, 0);
}

#[tokio::test]
async fn a_dialer_that_is_announced_later_is_answered_over_its_own_connection_then() {
    let world = World::new(PATIENCE);
    let (a, _at_a) = world.node("a", 1).await;
    let (b, _at_b) = world.node("b", 2).await;
    a.knows(&b);
    a.send(&b, 1).await.unwrap();
    assert_eq!(b.link_to(&a), None, "nobody has said who dialled");
    b.knows(&a);
    b.send(&a, 2).await.unwrap();
    assert_eq!(b.link_to(&a), Some(LinkOrigin::Accepted));
    assert_eq!(opened([&a, &b]), 1);
}

#[tokio::test]
async fn a_dialer_that_is_nobody_known_is_received_from_and_never_sent_to() {
    let world = World::new(PATIENCE);
    let (a, _at_a) = world.node("a", 1).await;
    let (b, mut at_b) = world.node("b", 2).await;
    a.knows(&b);
    // The name is taken, by another life than the one that dials.
    b.dialer.announce("a", Incarnation::new(77));
    a.send(&b, 1).await.unwrap();
    assert_eq!(at_b.try_recv().unwrap().number(), 1);
    assert_eq!(b.link_to(&a), None);
}

#[tokio::test]
async fn two_that_dial_at_once_end_with_the_lower_incarnations_connection() {
    let mut crossed = 0;
    for round in 0..60_u64 {
        let world = World::new(PATIENCE);
        let lives = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        let (a, mut at_a) = world.node("a", lives.0).await;
        let (b, mut at_b) = world.node("b", lives.1).await;
        know_each_other(&a, &b);
        let mut waiting = Vec::new();
        for number in 0..100 {
            waiting.push(a.post(&b, note(number)));
            waiting.push(b.post(&a, note(number)));
            if number % 10 == round % 10 {
                tokio::task::yield_now().await;
            }
        }
        for outcome in waiting {
            timeout(PATIENCE, outcome).await.unwrap().unwrap();
        }
        for number in 0..100 {
            assert_eq!(at_a.try_recv().unwrap().number(), number, "round {round}");
            assert_eq!(at_b.try_recv().unwrap().number(), number, "round {round}");
        }
        crossed += usize::from(opened([&a, &b]) == 2);
        eventually(PATIENCE, || open([&a, &b]) == 1).await;
        let (lower, higher) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert_eq!(lower.link_to(higher), Some(LinkOrigin::Dialled));
        assert_eq!(higher.link_to(lower), Some(LinkOrigin::Accepted));
        // And stays so.
        a.send(&b, 100).await.unwrap();
        b.send(&a, 100).await.unwrap();
        assert_eq!(open([&a, &b]), 1);
    }
    assert!(crossed > 30, "only {crossed} rounds had two connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_close_cross_and_reopen_lose_nothing_and_keep_the_order() {
    const COUNT: usize = 30_000;
    let seed = Seed::from_env();
    println!("{seed}");
    let world = World::new(Duration::from_millis(2));
    let (a, at_a) = world.node("a", 1).await;
    let (b, at_b) = world.node("b", 2).await;
    know_each_other(&a, &b);
    let nodes = [Arc::new(a), Arc::new(b)];
    let ledger = Ledger::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, receiver) in [at_a, at_b].into_iter().enumerate() {
        tasks.spawn(take(receiver, ledger.clone(), COUNT));
        let (from, to) = (Arc::clone(&nodes[index]), Arc::clone(&nodes[1 - index]));
        let (ledger, rng) = (ledger.clone(), seed.fork(&format!("sender {index}")).rng());
        tasks.spawn(async move { send_in_bursts(&from, &to, &ledger, rng, COUNT).await });
    }
    timeout(4 * PATIENCE, tasks.join_all()).await.unwrap();
    ledger.verdict().assert_clean();
    assert_eq!(ledger.verdict().count(Class::Delivered), 2 * COUNT);
    let [a, b] = &nodes;
    let links = opened([a, b]);
    let direct: u64 = nodes
        .iter()
        .map(|node| node.dialer.counts()[0].direct)
        .sum();
    println!("{links} connections, {direct} messages straight");
    assert!(links > 100, "only {links} connections: nothing was tested");
    assert!(
        direct > COUNT as u64,
        "only {direct} messages went straight: nothing was tested"
    );
    // Nothing goes any more: the last one is closed, too.
    eventually(PATIENCE, || open([a, b]) == 0).await;
}

/// Records what comes in, as much as is meant to.
async fn take(mut receiver: PortReceiver<Note>, ledger: Ledger, count: usize) {
    for _ in 0..count {
        let note = receiver.recv().await.unwrap();
        ledger.arrived(0, &note.0);
    }
}

/// Sends in bursts, with pauses around the time after which an idle link is closed.
async fn send_in_bursts(from: &Node, to: &Node, ledger: &Ledger, mut rng: Rng, count: usize) {
    let mut left = count;
    while left > 0 {
        let burst = left.min(rng.range(1..100) as usize);
        left -= burst;
        let mut waiting = Vec::new();
        for _ in 0..burst {
            let stamped = ledger.post(from.incarnation.get() as u32, 0, Vec::new());
            let key = stamped.key();
            waiting.push((key, from.post(to, Note(stamped))));
        }
        for (key, outcome) in waiting {
            let told = match timeout(PATIENCE, outcome).await.expect("an outcome") {
                Ok(()) => Outcome::Delivered,
                Err(failure) => {
                    eprintln!("{key:?}: {failure}");
                    match failure.failure() {
                        Failure::NotDelivered(_) => Outcome::NotDelivered,
                        Failure::Unknown(_) => Outcome::Unknown,
                    }
                }
            };
            ledger.outcome(key, told);
        }
        tokio::time::sleep(Duration::from_micros(rng.below(9_000))).await;
    }
}

/// Takes what comes and never says what became of it.
struct Silent(mpsc::UnboundedSender<(MessageEnvelope, ReturnHandle)>);

impl MailboxSender for Silent {
    fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        // The test may be over.
        drop(self.0.send((envelope, handle)));
    }
}

#[tokio::test]
async fn a_sibling_that_dies_is_not_waited_for_over_the_connection_that_it_dialled() {
    let world = World::new(PATIENCE);
    let (a, _at_a) = world.node("a", 1).await;
    // Its runtime is its process, as far as others can see.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (held_tx, mut held) = mpsc::unbounded_channel();
    let port = PortId::new(
        ActorId::root(ProcId::Direct(frontend(), "b".to_owned()), "actor"),
        1,
    );
    let b = {
        let _inside = runtime.enter();
        let proc_id = port.actor_id().proc_id().clone();
        world.serve(proc_id, 2, port, Silent(held_tx)).await
    };
    know_each_other(&a, &b);
    b.send(&a, 1).await.unwrap();
    assert_eq!(a.link_to(&b), Some(LinkOrigin::Accepted));
    let outcomes: Vec<_> = (0..50).map(|number| a.post(&b, note(number))).collect();
    let mut kept = Vec::new();
    for _ in 0..50 {
        kept.push(timeout(PATIENCE, held.recv()).await.unwrap().unwrap());
    }
    let died = Instant::now();
    runtime.shutdown_background();
    for outcome in outcomes {
        let failure = timeout(PATIENCE, outcome).await.unwrap().unwrap_err();
        assert!(
            matches!(
                failure.failure(),
                Failure::Unknown(Unknown::PeerDied { .. })
            ),
            "{failure}"
        );
    }
    let known = died.elapsed();
    assert!(known < Duration::from_secs(5), "it took {known:?}");
    eventually(PATIENCE, || a.link_to(&b).is_none()).await;
    drop((b, kept));
}

#[tokio::test]
async fn a_proc_that_ends_in_order_tells_both_kinds_of_links() {
    for dials in [true, false] {
        let world = World::new(PATIENCE);
        let (a, _at_a) = world.node("a", 1).await;
        let (b, mut at_b) = world.node("b", 2).await;
        know_each_other(&a, &b);
        let (near, far) = if dials { (&a, &b) } else { (&b, &a) };
        near.send(far, 0).await.unwrap();
        let waiting: Vec<_> = (1..200).map(|number| a.post(&b, note(number))).collect();
        let Node { dialer, server, .. } = b;
        let ends = async { tokio::join!(dialer.close(), server.stop()) };
        timeout(PATIENCE, ends).await.expect("it does not hang");
        for outcome in waiting {
            // By the link, or, what that did not take, by the host: nothing is unknown.
            timeout(PATIENCE, outcome).await.unwrap().unwrap();
        }
        let came: Vec<u64> = std::iter::from_fn(|| at_b.try_recv())
            .map(|note| note.number())
            .collect();
        assert!(came.is_sorted(), "{came:?}");
        assert_eq!(came.len(), if dials { 200 } else { 199 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proc_that_has_closed_its_links_may_end_at_once_and_leaves_no_session() {
    for _ in 0..10 {
        let world = World::new(PATIENCE);
        let (a, _at_a) = world.node("a", 1).await;
        // Its runtime is its process: what has not left when this ends never does.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let ends = async {
            let (b, _at_b) = world.node("b", 2).await;
            // Nobody has told the other one whose end it could look for.
            b.knows(&a);
            b.send(&a, 1).await.unwrap();
            b.dialer.close().await;
        };
        tokio::task::block_in_place(|| runtime.block_on(ends));
        runtime.shutdown_background();
        assert_eq!(a.opened.load(Ordering::SeqCst), 1);
        // Without a goodbye it would be kept for as long as a dialer may take to come back.
        eventually(Duration::from_secs(10), || open([&a]) == 0).await;
    }
}
