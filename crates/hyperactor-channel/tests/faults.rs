//! What befalls byte streams: connections cut at any byte, peers that restart, runtimes that shut down, code of users that
//! panics. Nothing may be lost, doubled, reordered, or left without its outcome.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyperactor_channel::{
    Accept, ChannelTx, Completion, Deliver, DialOptions, Failure, Ignore, Inbound, Outbound,
    Outcome, Peer, Postcard, Reason, ServeOptions, Status, Ticket, Verdict, dial, dial_tx,
    dial_with, serve, serve_queue, serve_with,
};
use hyperactor_refs::{ChannelAddr, ChannelTransport};
use support::proxy::{Cut, Proxy, Seeded};
use support::{Entry, Keeper, Kind, Ledger, Message, eventually, soon};

/// Sends messages of mixed sizes through a proxy that cuts its connections, and checks all that is promised.
async fn survives_cuts(kind: Kind, seed: u64, cuts: u64, longest: u64) {
    const COUNT: u64 = 3_000;
    let place = kind.place();
    let mut rx = serve_queue::<Message>(place.bind.clone(), ServeOptions::default(), Postcard)
        .await
        .unwrap();
    let mut random = Seeded(seed);
    let proxy = Proxy::start(rx.addr().clone(), move |number| {
        if number >= cuts {
            return Cut::NEVER;
        }
        Cut {
            up: random.below(longest),
            down: random.below(longest),
            is_silent: false,
        }
    })
    .await;
    let ledger = Ledger::default();
    let tx = dial_with(proxy.addr.clone(), DialOptions::default(), Postcard);
    let sender = {
        let ledger = ledger.clone();
        let tx = tx.clone();
        tokio::spawn(async move {
            let mut random = Seeded(!seed);
            for id in 0..COUNT {
                tx.ready().await.unwrap();
                let size = match random.below(50) {
                    0 => 20_000,
                    1..10 => 2_000,
                    _ => 50,
                };
                let message = Message::sized(id, random.below(size) as usize);
                tx.try_post(
                    message,
                    if id % 7 == 0 {
                        ledger.urgent(id)
                    } else {
                        ledger.line(id)
                    },
                );
            }
        })
    };
    for id in 0..COUNT {
        let message = soon("the next message", rx.recv()).await.unwrap();
        assert_eq!(message.id, id, "seed {seed}");
        assert!(
            message == Message::sized(id, message.body.len()),
            "seed {seed}: {id} is broken"
        );
    }
    soon("the sender", sender).await.unwrap();
    ledger.all_settled().await;
    assert_eq!(
        ledger.count(|entry| *entry == Entry::Delivered) as u64,
        COUNT,
        "seed {seed}"
    );
    assert!(rx.try_recv().is_none(), "seed {seed}: something came twice");
    let happened = proxy.cuts.load(Ordering::Relaxed);
    assert!(
        happened >= cuts / 2,
        "seed {seed}: only {happened} cuts happened"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_resumed_over_tcp() {
    soon("all cuts", survives_cuts(Kind::Tcp, 1, 40, 60_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_resumed_over_unix() {
    soon("all cuts", survives_cuts(Kind::UnixPath, 2, 40, 60_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_inside_the_handshake_are_survived() {
    soon("all cuts", survives_cuts(Kind::UnixPath, 3, 12, 300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_restarts_in_mid_stream_gets_each_message_at_most_once() {
    let addr = {
        let rx = serve::<Message>(ChannelTransport::Tcp).await.unwrap().1;
        rx.addr().clone()
    };
    let ledger = Ledger::default();
    let tx = dial_with(addr.clone(), DialOptions::default(), Postcard);
    let mut received = Vec::new();
    let mut id = 0;
    for life in 1..=5 {
        let options = ServeOptions {
            incarnation: hyperactor_refs::Incarnation::new(life),
            window_messages: 64,
            ..Default::default()
        };
        let bind = addr.clone();
        let server = async {
            loop {
                let bound = serve_queue::<Message>(&bind, options.clone(), Postcard).await;
                match bound {
                    Ok(rx) => break rx,
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
                tokio::task::yield_now().await;
            }
        };
        let mut rx = soon("the address", server).await;
        for _ in 0..500 {
            tx.try_post(Message::new(id), ledger.line(id));
            id += 1;
        }
        for _ in 0..100 {
            received.push(soon("a message", rx.recv()).await.unwrap().id);
        }
        // It dies with messages in its queue, in the sockets, and in the sender's log.
    }
    let mut rx = loop {
        match serve::<Message>(addr.clone()).await {
            Ok((_, rx)) => break rx,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    while ledger.open() > 0 {
        tokio::select! {
            message = rx.recv() => received.push(message.unwrap().id),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    while let Some(message) = rx.try_recv() {
        received.push(message.id);
    }
    assert!(received.is_sorted(), "out of order");
    let mut once = received.clone();
    once.dedup();
    assert_eq!(once, received, "something came twice");
    ledger.all_settled().await;
    for (id, entry) in ledger.entries() {
        match entry {
            Entry::Delivered => {}
            Entry::Failed(Failure::Unknown(Reason::PeerRestarted), true) => {}
            // It came to a server whose receiver was gone already.
            Entry::Failed(Failure::NotDelivered(Reason::PeerClosed), true) => {
                assert!(
                    !received.contains(&id),
                    "{id} arrived and is claimed not to have"
                );
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    for id in &received {
        assert!(
            matches!(
                ledger.of(*id),
                Entry::Delivered | Entry::Failed(Failure::Unknown(Reason::PeerRestarted), _)
            ),
            "{id} arrived and counts as {:?}",
            ledger.of(*id)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_server_that_died_is_known_within_a_second() {
    for kind in [Kind::UnixPath, Kind::Tcp] {
        let place = kind.place();
        let keeper = Keeper::default();
        let server = serve_with(
            place.bind.clone(),
            ServeOptions::default(),
            Postcard,
            keeper.clone(),
        )
        .await
        .unwrap();
        let ledger = Ledger::default();
        let tx = dial_with(server.addr().clone(), DialOptions::default(), Postcard);
        for id in 0..10 {
            tx.try_post(Message::new(id), ledger.line(id));
        }
        eventually("all arrived", || keeper.len() == 10).await;
        let died = tokio::time::Instant::now();
        drop(server);
        ledger.all_settled().await;
        assert!(
            died.elapsed() < Duration::from_secs(1),
            "{kind:?} took {:?}",
            died.elapsed()
        );
        for (id, entry) in ledger.entries() {
            let unknown = Failure::Unknown(Reason::Connect {
                addr: tx.addr().clone(),
                error: String::new(),
                errno: None,
            });
            match entry {
                Entry::Failed(failure, true) => {
                    assert_eq!(failure.reason().code(), unknown.reason().code(), "{id}");
                    assert!(!failure.is_certain(), "{id}: {failure}");
                }
                other => panic!("{id}: {other:?}"),
            }
        }
        assert!(matches!(
            &*tx.status().borrow(),
            Status::Closed(Reason::Connect { .. })
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_does_not_block_its_successor() {
    const COUNT: u64 = 300;
    let (addr, mut rx) = serve::<Message>(ChannelTransport::Tcp).await.unwrap();
    // The first connection goes silent in the middle of a message, and neither end is told.
    let proxy = Proxy::start(addr, |number| match number {
        0 => Cut {
            up: 10_000,
            down: u64::MAX,
            is_silent: true,
        },
        _ => Cut::NEVER,
    })
    .await;
    let ledger = Ledger::default();
    let options = DialOptions {
        silence_timeout: Duration::from_millis(200),
        ..Default::default()
    };
    let tx = dial_with(proxy.addr.clone(), options, Postcard);
    let began = tokio::time::Instant::now();
    for id in 0..COUNT {
        tx.try_post(Message::sized(id, 100), ledger.line(id));
    }
    for id in 0..COUNT {
        assert_eq!(soon("the next message", rx.recv()).await.unwrap().id, id);
    }
    ledger.all_settled().await;
    assert_eq!(
        ledger.count(|entry| *entry == Entry::Delivered) as u64,
        COUNT
    );
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        began.elapsed()
    );
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_kept_for_longer_than_the_silence_that_would_end_it() {
    let (addr, mut rx) = serve::<Message>(ChannelTransport::Tcp).await.unwrap();
    let proxy = Proxy::start(addr, |_| Cut::NEVER).await;
    let options = DialOptions {
        silence_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(proxy.addr.clone(), options, Postcard);
    assert!(tx.send(Message::new(0)).await.is_delivered());
    assert_eq!(rx.recv().await.unwrap().id, 0);
    // Time has to pass for there to be a silence: three times what would end the connection.
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(tx.send(Message::new(1)).await.is_delivered());
    assert_eq!(
        proxy.connections.load(Ordering::Relaxed),
        1,
        "an idle connection was given up"
    );
}

#[test]
fn a_runtime_that_shuts_down_leaves_no_message_without_an_outcome() {
    for kind in [Kind::Local, Kind::UnixAbstract, Kind::Tcp] {
        let ledger = Ledger::default();
        let keeper = Keeper::default();
        let place = kind.place();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let tx = runtime.block_on(async {
            let server = serve_with(
                place.bind.clone(),
                ServeOptions::default(),
                Postcard,
                keeper.clone(),
            )
            .await
            .unwrap();
            let tx = dial_with(server.addr().clone(), DialOptions::default(), Postcard);
            for id in 0..100 {
                tx.try_post(Message::new(id), ledger.line(id));
            }
            eventually("all arrived", || keeper.len() == 100).await;
            std::mem::forget(server);
            tx
        });
        drop(runtime);
        assert_eq!(ledger.open(), 0, "{kind:?}");
        assert_eq!(
            ledger.count(|entry| matches!(entry, Entry::Failed(Failure::Unknown(_), _))),
            100
        );
        tx.try_post(Message::new(100), ledger.line(100));
        drop(tx);
        assert!(
            matches!(
                ledger.of(100),
                Entry::Failed(Failure::NotDelivered(_), true)
            ),
            "{kind:?}"
        );
        assert_eq!(
            ledger.count(|entry| matches!(entry, Entry::Forgotten | Entry::Twice)),
            0
        );
    }
}

#[test]
fn dialling_outside_a_runtime_fails_each_message_and_does_not_panic() {
    for addr in ["local:77", "unix:@nobody-is-here", "tcp:127.0.0.1:9"] {
        let tx: ChannelTx<Message> = dial(addr.parse().unwrap());
        assert_eq!(
            tx.try_post(Message::new(1)).unwrap_err().1,
            Reason::NoRuntime
        );
        tx.close();
    }
}

#[derive(Clone)]
struct PanicsInDeliver;

struct PanicsInDeliverSession(Inbound);

impl Accept<Message> for PanicsInDeliver {
    type Session = PanicsInDeliverSession;
    type Completion = Ignore;
    fn open(
        &self,
        _peer: Peer,
        inbound: Inbound,
        _: Outbound<Message, Ignore>,
    ) -> PanicsInDeliverSession {
        PanicsInDeliverSession(inbound)
    }
}

impl Deliver<Message> for PanicsInDeliverSession {
    fn deliver(&mut self, message: Message, ticket: Ticket) {
        assert!(message.id != 3, "a receiver that panics");
        self.0.settle(ticket, Verdict::Delivered);
        self.0.release(ticket);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_panics_costs_its_session_and_no_claim_is_made() {
    for kind in [Kind::Local, Kind::UnixAbstract, Kind::Tcp] {
        let place = kind.place();
        let server = serve_with(
            place.bind.clone(),
            ServeOptions::default(),
            Postcard,
            PanicsInDeliver,
        )
        .await
        .unwrap();
        let ledger = Ledger::default();
        let tx = dial_with(server.addr().clone(), DialOptions::default(), Postcard);
        for id in 0..6 {
            tx.try_post(Message::new(id), ledger.line(id));
        }
        ledger.all_settled().await;
        assert!(
            matches!(ledger.of(3), Entry::Failed(Failure::Unknown(_), _)),
            "{kind:?}: {:?}",
            ledger.of(3)
        );
        // The server itself goes on.
        let other: ChannelTx<Message> = dial(server.addr().clone());
        assert_eq!(
            soon("the outcome", other.send(Message::new(9))).await,
            Outcome::Delivered
        );
    }
}

/// Panics when the first session opens.
struct PanicsInOpen(AtomicUsize);

impl Accept<Message> for PanicsInOpen {
    type Session = PanicsInDeliverSession;
    type Completion = Ignore;
    fn open(
        &self,
        _peer: Peer,
        inbound: Inbound,
        _: Outbound<Message, Ignore>,
    ) -> PanicsInDeliverSession {
        assert!(
            self.0.fetch_add(1, Ordering::Relaxed) != 0,
            "an acceptor that panics"
        );
        PanicsInDeliverSession(inbound)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acceptor_that_panics_leaves_no_message_without_an_outcome() {
    for kind in [Kind::Local, Kind::UnixAbstract, Kind::Tcp] {
        let place = kind.place();
        let acceptor = PanicsInOpen(AtomicUsize::new(0));
        let options = ServeOptions::default();
        let server = serve_with(place.bind.clone(), options, Postcard, acceptor)
            .await
            .unwrap();
        let ledger = Ledger::default();
        let tx = dial_with(server.addr().clone(), DialOptions::default(), Postcard);
        tx.try_post(Message::new(0), ledger.line(0));
        ledger.all_settled().await;
        // A stream's dialer tries again and gets through; in-process the failure is the outcome.
        match ledger.of(0) {
            Entry::Delivered => assert!(kind.is_stream()),
            Entry::Failed(Failure::NotDelivered(Reason::Dropped), true) => {
                assert!(!kind.is_stream());
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        let other: ChannelTx<Message> = dial(server.addr().clone());
        assert!(
            soon("the outcome", other.send(Message::new(9)))
                .await
                .is_delivered()
        );
    }
}

struct PanicsWhenTold(Arc<AtomicUsize>);

impl Completion<Message> for PanicsWhenTold {
    fn delivered(self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a completion that panics");
    }
    fn undelivered(self, _message: Message, failure: Failure) {
        panic!("{failure}");
    }
    fn lost(self, failure: Failure) {
        panic!("{failure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_that_panics_keeps_no_other_from_being_called() {
    for kind in [Kind::Local, Kind::UnixAbstract, Kind::Tcp] {
        let place = kind.place();
        let (addr, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let tx = dial_with(addr, DialOptions::default(), Postcard);
        for id in 0..20 {
            tx.try_post(Message::new(id), PanicsWhenTold(Arc::clone(&told)));
        }
        for id in 0..20 {
            assert_eq!(soon("a message", rx.recv()).await.unwrap().id, id);
        }
        soon("the flush", tx.flush()).await.unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 20);
    }
}

/// Posts into the very channel that it is called by.
struct Echoes(ChannelAddr, AtomicUsize);

struct EchoesSession(Option<ChannelTx<u64>>, Inbound);

impl Accept<u64> for Echoes {
    type Session = EchoesSession;
    type Completion = Ignore;
    fn open(&self, _peer: Peer, inbound: Inbound, _: Outbound<u64, Ignore>) -> EchoesSession {
        self.1.fetch_add(1, Ordering::Relaxed);
        EchoesSession(Some(dial(self.0.clone())), inbound)
    }
}

impl Deliver<u64> for EchoesSession {
    fn deliver(&mut self, message: u64, ticket: Ticket) {
        if let Some(tx) = &self.0 {
            tx.post(message + 1);
        }
        self.1.settle(ticket, Verdict::Delivered);
        self.1.release(ticket);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_answer_each_other_from_within_do_not_lock_up() {
    for transport in [ChannelTransport::Local, ChannelTransport::Unix] {
        let (sink_addr, mut sink) = serve::<u64>(transport).await.unwrap();
        let relay = serve_with(
            transport,
            ServeOptions::default(),
            Postcard,
            Echoes(sink_addr, AtomicUsize::new(0)),
        )
        .await
        .unwrap();
        let tx: ChannelTx<u64> = dial(relay.addr().clone());
        for number in 0..1_000 {
            tx.post(number);
        }
        for number in 0..1_000 {
            assert_eq!(soon("an echo", sink.recv()).await.unwrap(), number + 1);
        }
    }
}

#[tokio::test]
async fn dropping_every_future_loses_nothing() {
    let (addr, mut rx) = serve::<Message>(ChannelTransport::Unix).await.unwrap();
    let tx: ChannelTx<Message> = dial(addr);
    for id in 0..200 {
        // Polled once and dropped: it has posted its message, or it has not.
        let send = tx.send(Message::new(id));
        tokio::select! {
            biased;
            outcome = send => assert!(outcome.is_delivered()),
            () = std::future::ready(()) => {}
        }
        tokio::select! {
            biased;
            _ = tx.flush() => {}
            () = std::future::ready(()) => {}
        }
    }
    let mut next = 0;
    while next < 200 {
        tokio::select! {
            biased;
            message = rx.recv() => {
                assert_eq!(message.unwrap().id, next);
                next += 1;
            }
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_message_is_given_the_time_that_a_connection_needs() {
    for kind in [Kind::UnixPath, Kind::Tcp] {
        let place = kind.place();
        let (addr, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
        let proxy = Proxy::start(addr, |_| Cut::NEVER).await;
        let tx: ChannelTx<Message> = dial(proxy.addr.clone());
        for id in 0..50 {
            tx.post(Message::new(id));
        }
        for id in 0..50 {
            assert_eq!(soon("the message", rx.recv()).await.unwrap().id, id);
        }
        let connections = proxy.connections.load(Ordering::SeqCst);
        assert_eq!(connections, 1, "connections were given up at once");
    }
}
