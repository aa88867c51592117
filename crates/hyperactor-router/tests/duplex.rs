//! One connection, both directions: what a server sends back over the connection that somebody dialled has the order, the
//! outcomes, the room and the ends that the way there has.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, actor, nowhere, over_every_transport, proc_at, reason, send, sender};
use hyperactor_channel::Reason;
use hyperactor_mailbox::{
    Failure, MailboxMuxer, MailboxSender, MessageEnvelope, NotDelivered, PortReceiver,
    ReturnHandle, SendFailure,
};
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, ChannelTransport, Incarnation, PortId};
use hyperactor_router::{
    AcceptSession, DialOptions, MailboxClient, MailboxServer, MailboxServerHandle, MailboxSession,
    ServeOptions,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Gives all sessions to one sender, and tells of each.
struct Telling<S> {
    sender: S,
    opened: mpsc::UnboundedSender<MailboxSession>,
    closed: mpsc::UnboundedSender<u64>,
}

impl<S: MailboxSender + Clone> AcceptSession for Telling<S> {
    type Sender = S;

    fn opened(&self, session: &MailboxSession) -> S {
        self.opened.send(session.clone()).unwrap();
        self.sender.clone()
    }

    fn closed(&self, session: &MailboxSession) {
        // The test may be over.
        let _unheard = self.closed.send(session.id());
    }
}

struct Server {
    handle: MailboxServerHandle,
    opened: mpsc::UnboundedReceiver<MailboxSession>,
    closed: mpsc::UnboundedReceiver<u64>,
}

impl Server {
    async fn new(
        transport: ChannelTransport,
        options: ServeOptions,
        sender: impl MailboxSender + Clone,
    ) -> Self {
        let (opened_tx, opened) = mpsc::unbounded_channel();
        let (closed_tx, closed) = mpsc::unbounded_channel();
        let telling = Telling {
            sender,
            opened: opened_tx,
            closed: closed_tx,
        };
        let handle = MailboxServer::serve_duplex(BindSpec::from(transport), options, telling)
            .await
            .unwrap();
        Self {
            handle,
            opened,
            closed,
        }
    }

    fn addr(&self) -> ChannelAddr {
        self.handle.addr().clone()
    }

    async fn session(&mut self) -> MailboxSession {
        soon(self.opened.recv()).await.unwrap()
    }

    async fn back(&mut self) -> MailboxClient {
        self.session().await.back().expect("it receives").clone()
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it does not hang")
}

/// An actor of this name with one port.
fn port(muxer: &MailboxMuxer, name: &str) -> (PortId, PortReceiver<u64>) {
    actor::<u64>(muxer, ActorId::root(proc_at(&nowhere(), name), "actor"))
}

/// Two ends over one connection, with an actor at each.
struct Pair {
    server: Server,
    client: MailboxClient,
    back: MailboxClient,
    near: (PortId, PortReceiver<u64>),
    far: (PortId, PortReceiver<u64>),
}

async fn pair(transport: ChannelTransport) -> Pair {
    pair_with(transport, ServeOptions::default(), DialOptions::default()).await
}

async fn pair_with(
    transport: ChannelTransport,
    serving: ServeOptions,
    dialling: DialOptions,
) -> Pair {
    let (near_muxer, far_muxer) = (MailboxMuxer::new(), MailboxMuxer::new());
    let near = port(&near_muxer, "near");
    let far = port(&far_muxer, "far");
    let mut server = Server::new(transport, serving, far_muxer).await;
    let client = MailboxClient::dial_duplex(server.addr(), dialling, near_muxer);
    let back = server.back().await;
    Pair {
        server,
        client,
        back,
        near,
        far,
    }
}

over_every_transport!(
    both_ends_send_in_order_and_learn_their_outcomes,
    a_refusal_comes_back_with_its_reason_and_the_message,
    a_server_learns_who_dialled_and_whether_it_receives,
    a_dialer_that_goes_in_order_ends_the_way_back,
    a_server_that_stops_ends_its_dialers,
    either_end_may_close_the_session,
    a_dialer_that_vanishes_leaves_no_post_without_an_outcome,
    a_full_way_back_says_when_it_has_room,
    a_relay_passes_on_by_the_way_back_in_order,
    a_loop_over_one_connection_ends,
    a_dialer_finds_no_server_and_says_so,
);

async fn both_ends_send_in_order_and_learn_their_outcomes(transport: ChannelTransport) {
    const COUNT: u64 = 3_000;
    let mut pair = pair(transport).await;
    let stream = async |client: &MailboxClient, dest: &PortId| {
        let mut outcomes = Vec::new();
        for number in 0..COUNT {
            let envelope = MessageEnvelope::typed(sender(), dest.clone(), number);
            let (handle, outcome) = ReturnHandle::oneshot();
            client.post(envelope, handle);
            outcomes.push(outcome);
            if number % 500 == 0 {
                soon(client.flush()).await.unwrap();
            }
        }
        for outcome in outcomes {
            soon(outcome).await.unwrap();
        }
    };
    let drain = async |receiver: &mut PortReceiver<u64>| {
        for number in 0..COUNT {
            assert_eq!(soon(receiver.recv()).await, Some(number));
        }
        assert_eq!(receiver.try_recv(), None);
    };
    tokio::join!(
        stream(&pair.client, &pair.far.0),
        stream(&pair.back, &pair.near.0),
        drain(&mut pair.far.1),
        drain(&mut pair.near.1),
    );
    assert!(!pair.back.is_closed() && !pair.client.is_closed());
    assert!(pair.server.opened.is_empty(), "there was one connection");
}

async fn a_refusal_comes_back_with_its_reason_and_the_message(transport: ChannelTransport) {
    let pair = pair(transport).await;
    let nobody = PortId::new(pair.near.0.actor_id().clone(), 77);
    let report = send(&pair.back, &nobody, 5_u64).await.unwrap_err();
    let unknown = NotDelivered::UnknownPort {
        port_id: nobody.clone(),
    };
    assert_eq!(*reason(&report), unknown);
    assert_eq!(report.envelope.into_message::<u64>().unwrap(), 5);
    // The session goes on.
    send(&pair.back, &pair.near.0, 6_u64).await.unwrap();
    send(&pair.client, &pair.far.0, 7_u64).await.unwrap();
}

async fn a_server_learns_who_dialled_and_whether_it_receives(transport: ChannelTransport) {
    let muxer = MailboxMuxer::new();
    let (dest, _receiver) = port(&muxer, "far");
    let mut server = Server::new(transport, ServeOptions::default(), muxer.clone()).await;
    let options = |life| DialOptions {
        incarnation: Incarnation::new(life),
        ..DialOptions::default()
    };
    let sends = MailboxClient::dial_with(server.addr(), options(7));
    send(&sends, &dest, 1_u64).await.unwrap();
    let first = server.session().await;
    assert_eq!(first.peer().incarnation, Incarnation::new(7));
    assert!(first.back().is_none() && !first.peer().receives);

    let _receives = MailboxClient::dial_duplex(server.addr(), options(8), muxer);
    let second = server.session().await;
    assert_eq!(second.peer().incarnation, Incarnation::new(8));
    assert!(second.back().is_some() && second.peer().receives);
    assert_ne!(first.id(), second.id());
    if transport != ChannelTransport::Tcp {
        assert_eq!(second.peer().pid, Some(std::process::id()));
    }
}

async fn a_dialer_that_goes_in_order_ends_the_way_back(transport: ChannelTransport) {
    let mut pair = pair(transport).await;
    send(&pair.back, &pair.near.0, 1_u64).await.unwrap();
    // What was posted still goes out.
    let (handle, outcome) = ReturnHandle::oneshot();
    let envelope = MessageEnvelope::typed(sender(), pair.far.0.clone(), 2_u64);
    pair.client.post(envelope, handle);
    drop(pair.client);
    soon(outcome).await.unwrap();
    assert_eq!(soon(pair.back.closed()).await, Reason::PeerClosed);
    assert!(pair.back.is_closed());
    assert_eq!(soon(pair.server.closed.recv()).await, Some(0));
    assert!(pair.server.closed.is_empty(), "it is told once");

    let back = pair.back.clone().with_addr(nowhere());
    let report = send(&back, &pair.near.0, 3_u64).await.unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::PeerClosed { addr: nowhere() }
    );
    assert_eq!(pair.near.1.try_recv(), Some(1));
    assert_eq!(pair.near.1.try_recv(), None);
}

async fn a_server_that_stops_ends_its_dialers(transport: ChannelTransport) {
    let pair = pair(transport).await;
    send(&pair.back, &pair.near.0, 1_u64).await.unwrap();
    soon(pair.server.handle.stop()).await;
    assert_eq!(soon(pair.client.closed()).await, Reason::PeerClosed);
    assert!(pair.back.is_closed());
    let report = send(&pair.client, &pair.far.0, 3_u64).await.unwrap_err();
    assert!(
        matches!(reason(&report), NotDelivered::PeerClosed { .. }),
        "{report:?}"
    );
}

async fn either_end_may_close_the_session(transport: ChannelTransport) {
    let mut pair = pair(transport).await;
    let mut outcomes = Vec::new();
    for number in 0..100_u64 {
        let envelope = MessageEnvelope::typed(sender(), pair.near.0.clone(), number);
        let (handle, outcome) = ReturnHandle::oneshot();
        pair.back.post(envelope, handle);
        outcomes.push(outcome);
    }
    pair.back.close();
    for outcome in outcomes {
        soon(outcome).await.unwrap();
    }
    assert_eq!(soon(pair.back.closed()).await, Reason::Closed);
    assert_eq!(soon(pair.client.closed()).await, Reason::PeerClosed);
    for number in 0..100_u64 {
        assert_eq!(pair.near.1.try_recv(), Some(number));
    }
}

async fn a_dialer_that_vanishes_leaves_no_post_without_an_outcome(transport: ChannelTransport) {
    let muxer = MailboxMuxer::new();
    let options = ServeOptions {
        delivery_timeout: Duration::from_millis(400),
        session_ttl: Duration::from_millis(400),
        ..ServeOptions::default()
    };
    let mut server = Server::new(transport, options, muxer).await;
    // Its runtime is its process, as far as the server can see.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // It takes what comes and never says what became of it.
    let (kept_tx, mut kept) = mpsc::unbounded_channel();
    let client = {
        let _inside = runtime.enter();
        MailboxClient::dial_duplex(server.addr(), DialOptions::default(), Keeping(kept_tx))
    };
    let back = server.back().await;
    let (dest, _receiver) = port(&MailboxMuxer::new(), "near");
    let outcomes: Vec<_> = (0..20_u64)
        .map(|number| {
            let (handle, outcome) = ReturnHandle::oneshot();
            back.post(
                MessageEnvelope::typed(sender(), dest.clone(), number),
                handle,
            );
            outcome
        })
        .collect();
    let held = soon(kept.recv()).await.unwrap();
    runtime.shutdown_background();
    if transport == ChannelTransport::Local {
        // There the values themselves were handed over: they vanish with whoever has them.
        drop(kept);
        drop(held);
        drop(client);
    }
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let Err(failure) = soon(outcome).await else {
            panic!("{number} was never taken by anybody")
        };
        if number == 0 {
            // It was seen over there, so nobody may say that it was not.
            let certain = matches!(
                failure,
                SendFailure::Returned(report) if matches!(report.failure, Failure::NotDelivered(_))
            );
            assert!(!certain);
        }
    }
    assert_eq!(soon(server.closed.recv()).await, Some(0));
    assert!(back.is_closed());
}

/// Keeps what comes, unsettled.
struct Keeping(mpsc::UnboundedSender<(MessageEnvelope, ReturnHandle)>);

impl MailboxSender for Keeping {
    fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        // The test may be over.
        drop(self.0.send((envelope, handle)));
    }
}

async fn a_full_way_back_says_when_it_has_room(transport: ChannelTransport) {
    let serving = ServeOptions {
        outbox_messages: 8,
        ..ServeOptions::default()
    };
    let dialling = DialOptions {
        window_messages: 8,
        ..DialOptions::default()
    };
    let mut pair = pair_with(transport, serving, dialling).await;
    let mut taken = 0_u64;
    let capacity = loop {
        let envelope = MessageEnvelope::typed(sender(), pair.near.0.clone(), taken);
        let (handle, outcome) = ReturnHandle::oneshot();
        pair.back.post(envelope, handle);
        // What finds no room is told before the post returns.
        let Ok(Err(SendFailure::Returned(report))) =
            tokio::time::timeout(Duration::ZERO, outcome).await
        else {
            taken += 1;
            assert!(taken < 100, "nothing bounds it");
            continue;
        };
        assert!(
            matches!(reason(&report), NotDelivered::QueueFull { capacity: 8, .. }),
            "{report:?}"
        );
        let capacity = report.capacity.expect("what to wait for");
        // Full for good: what is on its way has arrived, and nobody takes it.
        let waited = tokio::time::timeout(Duration::from_millis(200), capacity.available()).await;
        if waited.is_err() {
            break capacity;
        }
    };
    assert!(!capacity.has_room());
    for number in 0..taken {
        assert_eq!(soon(pair.near.1.recv()).await, Some(number));
    }
    soon(capacity.available()).await;
    soon(pair.back.flush()).await.unwrap();
    send(&pair.back, &pair.near.0, taken).await.unwrap();
}

/// Posts into the session that was opened last.
#[derive(Clone, Default)]
struct Latest(Arc<Mutex<Option<MailboxClient>>>);

impl MailboxSender for Latest {
    fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        let client = self.0.lock().clone().expect("a session");
        client.post_unchecked(envelope, handle);
    }
}

async fn a_relay_passes_on_by_the_way_back_in_order(transport: ChannelTransport) {
    const COUNT: u64 = 2_500;
    let latest = Latest::default();
    let serving = ServeOptions {
        outbox_messages: 64,
        ..ServeOptions::default()
    };
    let mut server = Server::new(transport, serving, latest.clone()).await;
    let dialling = DialOptions {
        window_messages: 32,
        ..DialOptions::default()
    };
    let muxer = MailboxMuxer::new();
    let (dest, mut receiver) = port(&muxer, "near");
    let _receives = MailboxClient::dial_duplex(server.addr(), dialling, muxer);
    *latest.0.lock() = Some(server.back().await);
    let client = MailboxClient::dial(server.addr());
    let mut outcomes = Vec::new();
    for number in 0..COUNT {
        let (handle, outcome) = ReturnHandle::oneshot();
        client.post(
            MessageEnvelope::typed(sender(), dest.clone(), number),
            handle,
        );
        outcomes.push(outcome);
    }
    for number in 0..COUNT {
        assert_eq!(soon(receiver.recv()).await, Some(number));
    }
    for outcome in outcomes {
        soon(outcome).await.unwrap();
    }
    soon(client.flush()).await.unwrap();
}

async fn a_loop_over_one_connection_ends(transport: ChannelTransport) {
    let (there, here) = (Latest::default(), Latest::default());
    let mut server = Server::new(transport, ServeOptions::default(), there.clone()).await;
    let client = MailboxClient::dial_duplex(server.addr(), DialOptions::default(), here.clone());
    *here.0.lock() = Some(client.clone());
    *there.0.lock() = Some(server.back().await);
    let (dest, _receiver) = port(&MailboxMuxer::new(), "near");
    let report = send(&client, &dest, 1_u64).await.unwrap_err();
    assert!(
        matches!(reason(&report), NotDelivered::TtlExpired { .. }),
        "{report:?}"
    );
    // Each keeps the other, so that neither would ever be dropped.
    (*here.0.lock(), *there.0.lock()) = (None, None);
}

async fn a_dialer_finds_no_server_and_says_so(transport: ChannelTransport) {
    let server = Server::new(transport, ServeOptions::default(), MailboxMuxer::new()).await;
    let addr = server.addr();
    soon(server.handle.stop()).await;
    let options = DialOptions {
        connect_give_up_local: Duration::ZERO,
        ..DialOptions::default()
    };
    let client = MailboxClient::dial_duplex(addr, options, MailboxMuxer::new());
    let why = soon(client.closed()).await;
    assert!(matches!(why, Reason::Connect { .. }), "{why}");
    let (dest, _receiver) = port(&MailboxMuxer::new(), "far");
    let report = send(&client, &dest, 1_u64).await.unwrap_err();
    assert_eq!(reason(&report).code(), "connect");
}
