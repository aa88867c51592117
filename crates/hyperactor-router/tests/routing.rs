//! Where an envelope goes: books, prefixes, owned addresses, clients that ended.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{
    PATIENCE, actor, nowhere, over_every_transport, proc_at, reason, send, serve, serve_at,
};
use hyperactor_mailbox::{
    FlushError, Mailbox, MailboxMuxer, MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle,
    ReturnSink, Token, Undeliverable, UnroutableMailboxSender,
};
use hyperactor_refs::{ActorId, ChannelAddr, ChannelTransport, PortId, Reference};
use hyperactor_router::{DialMailboxRouter, DialOptions, MailboxRouter, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

over_every_transport!(
    the_address_within_the_id_is_dialled,
    a_restarted_peer_is_reached_again,
    a_flush_waits_for_every_outcome,
    unbinding_one_of_two_names_of_an_address_disturbs_nothing,
);

async fn the_address_within_the_id_is_dialled(transport: ChannelTransport) {
    let muxer = MailboxMuxer::new();
    let server = serve(transport, muxer.clone()).await;
    let (dest, mut receiver) =
        actor::<u64>(&muxer, ActorId::root(proc_at(server.addr(), "p"), "a"));
    let router = DialMailboxRouter::new();
    for number in 0..3_u64 {
        send(&router, &dest, number).await.unwrap();
        assert_eq!(receiver.try_recv(), Some(number));
    }
    assert!(format!("{router:?}").contains("addresses: 1"), "{router:?}");
}

async fn a_restarted_peer_is_reached_again(transport: ChannelTransport) {
    let options = DialOptions {
        connect_give_up_local: Duration::ZERO,
        delivery_timeout: Duration::from_millis(200),
        ..DialOptions::default()
    };
    let router = DialMailboxRouter::with_options(options);
    let muxer = MailboxMuxer::new();
    let mut server = serve(transport, muxer.clone()).await;
    let addr = server.addr().clone();
    let (dest, mut receiver) = actor::<u64>(&muxer, ActorId::root(proc_at(&addr, "p"), "a"));
    for round in 0..3_u64 {
        send(&router, &dest, round).await.unwrap();
        assert_eq!(receiver.try_recv(), Some(round));
        server.stop().await;
        // While it is away, messages come back.
        let report = send(&router, &dest, 99_u64).await.unwrap_err();
        assert!(report.failure.is_retryable(), "{report}");
        server = serve_at(addr.clone(), muxer.clone()).await;
    }
    send(&router, &dest, 7_u64).await.unwrap();
    assert_eq!(receiver.try_recv(), Some(7));
}

/// Counts the outcomes of many posts.
#[derive(Default)]
struct Counter {
    delivered: AtomicUsize,
    failed: AtomicUsize,
}

impl ReturnSink for Counter {
    fn delivered(&self, _: Token) {
        self.delivered.fetch_add(1, Ordering::SeqCst);
    }

    fn undelivered(&self, _: Token, _: Undeliverable) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }

    fn abandoned(&self, _: Token) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }
}

async fn a_flush_waits_for_every_outcome(transport: ChannelTransport) {
    let router = DialMailboxRouter::new();
    let counter = Arc::new(Counter::default());
    let muxer = MailboxMuxer::new();
    let servers = [
        serve(transport, muxer.clone()).await,
        serve(transport, muxer.clone()).await,
    ];
    let mut receivers = Vec::new();
    for server in &servers {
        let (dest, receiver) =
            actor::<u64>(&muxer, ActorId::root(proc_at(server.addr(), "p"), "a"));
        let unknown = PortId::new(dest.actor_id().clone(), 5);
        receivers.push(receiver);
        for number in 0..300_u64 {
            for dest in [&dest, &unknown] {
                let envelope = MessageEnvelope::typed(common::sender(), dest.clone(), number);
                router.post(
                    envelope,
                    ReturnHandle::new(counter.clone(), Token::default()),
                );
            }
        }
    }
    tokio::time::timeout(PATIENCE, router.flush())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(counter.delivered.load(Ordering::SeqCst), 600);
    assert_eq!(counter.failed.load(Ordering::SeqCst), 600);
    assert!(receivers.iter().all(|receiver| receiver.len() == 300));
}

async fn unbinding_one_of_two_names_of_an_address_disturbs_nothing(transport: ChannelTransport) {
    let router = DialMailboxRouter::new();
    let muxer = MailboxMuxer::new();
    let server = serve(transport, muxer.clone()).await;
    let [one, other] = ["one", "other"].map(|name| proc_at(&nowhere(), name));
    for proc_id in [&one, &other] {
        router.bind(proc_id.clone(), server.addr().clone()).unwrap();
    }
    let (dest, mut receiver) = actor::<u64>(&muxer, ActorId::root(other.clone(), "a"));
    let counter = Arc::new(Counter::default());
    for number in 0..100_u64 {
        let envelope = MessageEnvelope::typed(common::sender(), dest.clone(), number);
        router.post(
            envelope,
            ReturnHandle::new(counter.clone(), Token::default()),
        );
        if number == 50 {
            assert!(router.unbind(&Reference::from(one.clone())));
            assert!(!router.unbind(&Reference::from(one.clone())));
        }
    }
    // Unbound as well, what was posted still arrives.
    assert!(router.unbind(&Reference::from(other)));
    for number in 0..100 {
        assert_eq!(
            tokio::time::timeout(PATIENCE, receiver.recv())
                .await
                .unwrap(),
            Some(number)
        );
    }
    drop(server);
}

#[tokio::test]
async fn an_unknown_proc_below_an_owned_address_is_answered_without_dialling() {
    let router = DialMailboxRouter::new();
    let host = "tcp:127.0.0.1:1".parse().unwrap();
    router.own(host);
    for name in ["worker-2", "worker-1", "service"] {
        let proc_id = format!("tcp:127.0.0.1:1,{name}")
            .parse::<hyperactor_refs::ProcId>()
            .unwrap();
        router.bind(proc_id, nowhere()).unwrap();
    }
    // Another spelling of the same address.
    let wanted: hyperactor_refs::ProcId = "tcp:localhost:1,worker-3".parse().unwrap();
    let dest = PortId::new(ActorId::root(wanted, "a"), 1);
    let report = send(&router, &dest, 1_u8).await.unwrap_err();
    let NotDelivered::UnknownProc { host, known, .. } = reason(&report) else {
        panic!("{report}")
    };
    assert_eq!(host.to_string(), "tcp:127.0.0.1:1");
    assert_eq!(known, &["service", "worker-1", "worker-2"]);
    assert!(report.route.is_empty());
    assert!(format!("{router:?}").contains("addresses: 1"), "{router:?}");
}

#[tokio::test]
async fn owning_an_address_later_ends_what_was_dialled_there() {
    let muxer = MailboxMuxer::new();
    let server = serve(ChannelTransport::Local, muxer.clone()).await;
    let (dest, _receiver) = actor::<u64>(&muxer, ActorId::root(proc_at(server.addr(), "p"), "a"));
    let router = DialMailboxRouter::new();
    send(&router, &dest, 1_u64).await.unwrap();
    router.own(server.addr().clone());
    let report = send(&router, &dest, 2_u64).await.unwrap_err();
    assert_eq!(reason(&report).code(), "unknown-proc");
}

/// A muxer that knows one actor, to tell by which way a message came.
fn place(actor_id: &ActorId) -> (MailboxMuxer, PortId, hyperactor_mailbox::PortReceiver<u64>) {
    let muxer = MailboxMuxer::new();
    let (dest, receiver) = actor::<u64>(&muxer, actor_id.clone());
    (muxer, dest, receiver)
}

#[tokio::test]
async fn the_longest_prefix_wins_also_beside_a_more_specific_sibling() {
    let proc_id = proc_at(&nowhere(), "p");
    let [a, b] = ["a", "b"].map(|name| ActorId::root(proc_id.clone(), name));
    let (at_a, to_a, mut receiver_a) = place(&a);
    let (at_b, to_b, mut receiver_b) = place(&b);
    let (of_a, of_b) = (
        serve(ChannelTransport::Local, at_a.clone()).await,
        serve(ChannelTransport::Local, at_b.clone()).await,
    );

    let dialling = DialMailboxRouter::new();
    dialling.bind(proc_id.clone(), of_b.addr().clone()).unwrap();
    dialling.bind(a.clone(), of_a.addr().clone()).unwrap();
    let router = MailboxRouter::new();
    router.bind(proc_id.clone(), at_b.clone());
    router.bind(a.clone(), at_a.clone());
    for number in 0..2 {
        let send_to = async |dest: &PortId| match number {
            0 => send(&dialling, dest, 5_u64).await,
            _ => send(&router, dest, 5_u64).await,
        };
        send_to(&to_a).await.unwrap();
        send_to(&to_b).await.unwrap();
        assert_eq!(
            (receiver_a.try_recv(), receiver_b.try_recv()),
            (Some(5), Some(5))
        );
        // A port goes before its actor.
        let port = PortId::new(a.clone(), 77);
        assert_eq!(
            reason(&send_to(&port).await.unwrap_err()).code(),
            "unknown-port"
        );
        let refuse = UnroutableMailboxSender::new("this port alone");
        match number {
            0 => dialling.bind_sender(port.clone(), refuse),
            _ => drop(router.bind(port.clone(), refuse)),
        }
        assert_eq!(
            reason(&send_to(&port).await.unwrap_err()).code(),
            "no-route"
        );
        send_to(&to_a).await.unwrap();
        assert_eq!(receiver_a.try_recv(), Some(5));
    }
}

#[tokio::test]
async fn without_a_way_a_router_says_so_and_a_fallback_takes_the_rest() {
    let actor_id = ActorId::root(proc_at(&nowhere(), "p"), "a");
    let (muxer, dest, mut receiver) = place(&actor_id);
    let router = MailboxRouter::new();
    assert_eq!(
        reason(&send(&router, &dest, 1_u64).await.unwrap_err()).code(),
        "no-route"
    );
    router.fallback(muxer.clone());
    send(&router, &dest, 2_u64).await.unwrap();
    assert_eq!(receiver.try_recv(), Some(2));
    assert!(router.unbind(&Reference::from(actor_id)).is_none());
    assert_eq!(router.flush().await, Ok(()));

    let dialling = DialMailboxRouter::new().with_default(muxer);
    send(&dialling, &dest, 3_u64).await.unwrap();
    assert_eq!(receiver.try_recv(), Some(3));
    assert!(
        format!("{dialling:?}").contains("addresses: 0"),
        "{dialling:?}"
    );
}

/// Changes its own router while it takes an envelope: hangs if a lock is held meanwhile.
#[derive(Clone)]
struct Meddler {
    dialling: DialMailboxRouter,
    router: MailboxRouter,
}

impl MailboxSender for Meddler {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let other = proc_at(&nowhere(), "other");
        self.dialling.bind(other.clone(), nowhere()).unwrap();
        self.dialling.own(nowhere());
        assert!(self.dialling.unbind(&Reference::from(other.clone())));
        self.router
            .bind(other.clone(), UnroutableMailboxSender::default());
        self.router.unbind(&Reference::from(other));
        drop(envelope);
        drop(return_handle.delivered());
    }
}

#[tokio::test]
async fn no_lock_is_held_while_a_sender_takes_an_envelope() {
    let proc_id = proc_at(&nowhere(), "p");
    let meddler = Meddler {
        dialling: DialMailboxRouter::new(),
        router: MailboxRouter::new(),
    };
    meddler
        .dialling
        .bind_sender(proc_id.clone(), meddler.clone());
    meddler.router.bind(proc_id.clone(), meddler.clone());
    let dest = PortId::new(ActorId::root(proc_id, "a"), 1);
    send(&meddler.dialling, &dest, 1_u8).await.unwrap();
    send(&meddler.router, &dest, 1_u8).await.unwrap();
}

#[tokio::test]
async fn a_flush_of_a_sender_that_cannot_is_not_a_success() {
    struct Silent;
    impl MailboxSender for Silent {
        fn post_unchecked(&self, _: MessageEnvelope, return_handle: ReturnHandle) {
            drop(return_handle);
        }
    }
    let router = DialMailboxRouter::new();
    assert_eq!(router.flush().await, Ok(()));
    router.bind_sender(proc_at(&nowhere(), "p"), Silent);
    assert_eq!(router.flush().await, Err(FlushError::Unsupported));
}

#[test]
fn without_a_runtime_a_message_comes_back_and_says_why() {
    let router = DialMailboxRouter::new();
    let dest = PortId::new(ActorId::root(proc_at(&nowhere(), "p"), "a"), 1);
    let (return_handle, mut outcome) = ReturnHandle::oneshot();
    router.post(
        MessageEnvelope::typed(common::sender(), dest, 1_u8),
        return_handle,
    );
    let failure = outcome.try_take().unwrap().unwrap_err();
    assert_eq!(failure.failure().code(), "no-route");
    assert!(failure.to_string().contains("runtime"), "{failure}");
}

#[tokio::test]
async fn many_threads_share_one_client_for_an_address() {
    let muxer = MailboxMuxer::new();
    let server = serve(ChannelTransport::Local, muxer.clone()).await;
    let mailbox = Mailbox::new(ActorId::root(proc_at(server.addr(), "p"), "a"));
    let (port, mut receiver) = mailbox.open_port::<(u64, u64)>();
    let dest = port.bind().into_port_id();
    muxer.bind(mailbox).unwrap();
    let router = DialMailboxRouter::new();
    let runtime = tokio::runtime::Handle::current();
    let counter = Arc::new(Counter::default());
    let posting = tokio::task::spawn_blocking({
        let (router, counter) = (router.clone(), counter.clone());
        move || {
            std::thread::scope(|scope| {
                for thread in 0..4_u64 {
                    let (router, counter, dest, runtime) = (&router, &counter, &dest, &runtime);
                    scope.spawn(move || {
                        let _entered = runtime.enter();
                        for number in 0..200_u64 {
                            let message = (thread, number);
                            let envelope =
                                MessageEnvelope::typed(common::sender(), dest.clone(), message);
                            let sink: Arc<dyn ReturnSink> = counter.clone();
                            router.post(envelope, ReturnHandle::new(sink, Token::default()));
                        }
                    });
                }
            });
        }
    });
    posting.await.unwrap();
    router.flush().await.unwrap();
    assert_eq!(counter.delivered.load(Ordering::SeqCst), 800);
    let mut next = [0; 4];
    while let Some((thread, number)) = receiver.try_recv() {
        assert_eq!(number, next[thread as usize]);
        next[thread as usize] += 1;
    }
    assert_eq!(next, [200; 4]);
    assert!(format!("{router:?}").contains("addresses: 1"), "{router:?}");
}

/// Takes its time over the one outcome it is told.
struct Slow {
    told: tokio::sync::Notify,
    go_on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl ReturnSink for Slow {
    fn undelivered(&self, _: Token, _: Undeliverable) {
        self.told.notify_one();
        self.go_on.lock().unwrap().recv().unwrap();
    }

    fn abandoned(&self, _: Token) {
        panic!("abandoned");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_waits_for_outcomes_of_a_client_that_has_ended_and_was_replaced() {
    let options = DialOptions {
        connect_give_up_local: Duration::ZERO,
        ..DialOptions::default()
    };
    let router = DialMailboxRouter::with_options(options);
    let dest = PortId::new(ActorId::root(proc_at(&nowhere(), "p"), "a"), 5);
    let (release, go_on) = std::sync::mpsc::channel();
    let slow = Arc::new(Slow {
        told: tokio::sync::Notify::new(),
        go_on: go_on.into(),
    });
    let envelope = MessageEnvelope::typed(common::sender(), dest.clone(), 1_u64);
    router.post(envelope, ReturnHandle::new(slow.clone(), Token::default()));
    tokio::time::timeout(PATIENCE, slow.told.notified())
        .await
        .expect("the outcome is being told");
    // The first client has ended by now; this dials another.
    send(&router, &dest, 2_u64).await.unwrap_err();
    let mut flush = std::pin::pin!(router.flush());
    for _ in 0..50 {
        tokio::select! {
            biased;
            _ = &mut flush => panic!("an outcome is still being told"),
            () = tokio::task::yield_now() => {}
        }
    }
    release.send(()).unwrap();
    // The client that ended may be named; either way nothing is open now.
    drop(
        tokio::time::timeout(PATIENCE, flush)
            .await
            .expect("everything has its outcome"),
    );
}

#[tokio::test]
async fn an_address_with_messages_under_way_is_not_given_up_for_another() {
    let router = DialMailboxRouter::new();
    let dest = |number: usize| {
        let addr = format!("unix:@hyperactor-router-tests-nobody-{number}");
        let proc_id = proc_at(&addr.parse().unwrap(), "p");
        PortId::new(ActorId::root(proc_id, "a"), 5)
    };
    // No channel has had its turn yet: none has begun to connect, and each has a message.
    for number in 0..limits::ADDRESSES {
        let envelope = MessageEnvelope::typed(common::sender(), dest(number), 1_u64);
        let (return_handle, outcome) = ReturnHandle::oneshot();
        router.post(envelope, return_handle);
        drop(outcome);
    }
    let beyond = dest(limits::ADDRESSES);
    let report = send(&router, &beyond, 2_u64).await.unwrap_err();
    assert!(
        matches!(reason(&report), NotDelivered::NoRoute { .. }),
        "{report}"
    );
}

#[tokio::test]
async fn a_peer_without_a_common_version_is_dialled_again_only_after_a_while() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: ChannelAddr = format!("tcp:{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let dials = Arc::new(AtomicUsize::new(0));
    let refuser = tokio::spawn(refuse_versions(listener, Arc::clone(&dials)));
    let dest = PortId::new(ActorId::root(proc_at(&addr, "p"), "a"), 1);
    let router = DialMailboxRouter::new();
    for round in 1..=2 {
        for number in 0..5_u64 {
            let report = send(&router, &dest, number).await.unwrap_err();
            assert_eq!(report.failure.code(), "connect", "{report}");
        }
        assert_eq!(dials.load(Ordering::Relaxed), round);
        tokio::time::pause();
        tokio::time::advance(limits::REFUSED_HOLD).await;
        tokio::time::resume();
    }
    refuser.abort();
}

/// Answers every hello as a peer of another version does.
async fn refuse_versions(listener: TcpListener, dials: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        dials.fetch_add(1, Ordering::Relaxed);
        // The hello of the wire specification without its extensions.
        let mut hello = [0; 136];
        stream.read_exact(&mut hello).await.unwrap();
        hello[8..12].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
        hello[12..18].copy_from_slice(&[4, 0, 0, 0, 1, 0]);
        hello[120..122].copy_from_slice(&[0, 0]);
        stream.write_all(&hello).await.unwrap();
    }
}
