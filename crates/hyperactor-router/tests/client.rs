//! One client and one server: bounds, order, ends.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{
    PATIENCE, actor, nowhere, over_every_transport, proc_at, reason, send, serve, serve_at,
};
use hyperactor_mailbox::{
    Mailbox, MailboxMuxer, MailboxSender, MessageEnvelope, NotDelivered, Outbox, PortRef,
    ReturnHandle,
};
use hyperactor_refs::{ActorId, ChannelTransport};
use hyperactor_router::{
    DialOptions, MailboxClient, MailboxRedialer, MailboxServer, ServeOptions, Status,
};

over_every_transport!(
    a_slow_receiver_bounds_its_sender_and_nothing_is_refused,
    a_flush_covers_what_was_posted_before,
    a_type_mismatch_is_found_at_the_far_end,
    a_redialer_reaches_whoever_serves_the_address_next,
);

/// Sends through a client.
struct Through {
    mailbox: Mailbox,
    client: MailboxClient,
}

impl Outbox for Through {
    fn actor_id(&self) -> &ActorId {
        self.mailbox.actor_id()
    }

    fn return_handle(&self) -> ReturnHandle {
        ReturnHandle::monitored()
    }

    fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.client.post(envelope, return_handle);
    }

    fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

async fn a_slow_receiver_bounds_its_sender_and_nothing_is_refused(transport: ChannelTransport) {
    const COUNT: u64 = 1_000;
    let muxer = MailboxMuxer::new();
    let options = ServeOptions {
        window_messages: 16,
        ..ServeOptions::default()
    };
    let bind = hyperactor_refs::BindSpec::from(transport);
    let server = MailboxServer::serve(bind, muxer.clone(), options)
        .await
        .unwrap();
    // Its queue holds fewer than the window: what comes from elsewhere is bounded by credit alone.
    let mailbox = Mailbox::with_capacity(ActorId::root(proc_at(server.addr(), "p"), "a"), 2);
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let port = PortRef::<u64>::attest(port.bind().into_port_id());
    muxer.bind(mailbox).unwrap();
    let options = DialOptions {
        outbox_messages: 8,
        ..DialOptions::default()
    };
    let client = MailboxClient::dial_with(server.addr().clone(), options);
    let cx = Through {
        mailbox: Mailbox::new(common::sender()),
        client: client.clone(),
    };
    let feeder = tokio::spawn(async move {
        for number in 0..COUNT {
            port.feed(&cx, number).await;
        }
    });
    for number in 0..COUNT {
        let received = tokio::time::timeout(PATIENCE, receiver.recv())
            .await
            .unwrap();
        assert_eq!(received, Some(number));
        // Not yet received: the window, and never more.
        assert!(receiver.len() <= 16 + 64, "{} wait", receiver.len());
    }
    feeder.await.unwrap();
    client.flush().await.unwrap();
}

async fn a_flush_covers_what_was_posted_before(transport: ChannelTransport) {
    let muxer = MailboxMuxer::new();
    let server = serve(transport, muxer.clone()).await;
    let (dest, receiver) = actor::<u64>(&muxer, ActorId::root(proc_at(server.addr(), "p"), "a"));
    let client = MailboxClient::dial(server.addr().clone());
    assert_eq!(client.addr(), server.addr());
    for number in 0..100_u64 {
        let envelope = MessageEnvelope::typed(common::sender(), dest.clone(), number);
        client.post(envelope, ReturnHandle::monitored());
    }
    tokio::time::timeout(PATIENCE, client.flush())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(receiver.len(), 100);
}

async fn a_redialer_reaches_whoever_serves_the_address_next(transport: ChannelTransport) {
    let options = DialOptions {
        connect_give_up_local: Duration::ZERO,
        delivery_timeout: Duration::from_millis(200),
        ..DialOptions::default()
    };
    let muxer = MailboxMuxer::new();
    let mut server = serve(transport, muxer.clone()).await;
    let addr = server.addr().clone();
    let (dest, mut receiver) = actor::<u64>(&muxer, ActorId::root(proc_at(&addr, "p"), "a"));
    let redialer = MailboxRedialer::new(addr.clone(), options);
    for round in 0..3_u64 {
        send(&redialer, &dest, round).await.unwrap();
        assert_eq!(receiver.try_recv(), Some(round));
        server.stop().await;
        // While nobody serves, messages come back, and a flush covers them.
        let report = send(&redialer, &dest, 99_u64).await.unwrap_err();
        assert!(report.failure.is_retryable(), "{report}");
        redialer.flush().await.unwrap();
        server = serve_at(addr.clone(), muxer.clone()).await;
    }
    send(&redialer, &dest, 7_u64).await.unwrap();
    assert_eq!(receiver.try_recv(), Some(7));
}

async fn a_type_mismatch_is_found_at_the_far_end(transport: ChannelTransport) {
    let muxer = MailboxMuxer::new();
    let server = serve(transport, muxer.clone()).await;
    let (dest, _receiver) = actor::<u64>(&muxer, ActorId::root(proc_at(server.addr(), "p"), "a"));
    let client = MailboxClient::dial(server.addr().clone());
    let report = send(&client, &dest, "text".to_string()).await.unwrap_err();
    let NotDelivered::TypeMismatch {
        expected, port_id, ..
    } = reason(&report)
    else {
        panic!("{report}")
    };
    assert_eq!((expected.as_str(), port_id), ("u64", &dest));
    assert_eq!(report.envelope.into_message::<String>().unwrap(), "text");
}

#[tokio::test]
async fn a_full_client_gives_back_something_to_wait_for() {
    let options = DialOptions {
        outbox_messages: 2,
        ..DialOptions::default()
    };
    let client = MailboxClient::dial_with(nowhere(), options);
    let dest = hyperactor_refs::PortId::new(ActorId::root(proc_at(&nowhere(), "p"), "a"), 1);
    let envelope = || MessageEnvelope::typed(common::sender(), dest.clone(), 1_u8);
    client.post(envelope(), ReturnHandle::monitored());
    client.post(envelope(), ReturnHandle::monitored());
    let (return_handle, mut outcome) = ReturnHandle::oneshot();
    client.post(envelope(), return_handle);
    let failure = outcome.try_take().expect("told at once").unwrap_err();
    let hyperactor_mailbox::SendFailure::Returned(report) = failure else {
        panic!("lost")
    };
    let port_id = dest.clone();
    assert_eq!(
        *reason(&report),
        NotDelivered::QueueFull {
            port_id,
            capacity: 2
        }
    );
    // Nobody answers there: the channel ends, which is room enough to learn of it.
    tokio::time::timeout(PATIENCE, report.capacity.unwrap().available())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_large_fails_alone() {
    let muxer = MailboxMuxer::new();
    let server = serve(ChannelTransport::Unix, muxer.clone()).await;
    let (dest, mut receiver) =
        actor::<String>(&muxer, ActorId::root(proc_at(server.addr(), "p"), "a"));
    let options = DialOptions {
        max_message_bytes: 100_000,
        ..DialOptions::default()
    };
    let client = MailboxClient::dial_with(server.addr().clone(), options);
    let report = send(&client, &dest, "x".repeat(200_000)).await.unwrap_err();
    assert!(
        matches!(reason(&report), NotDelivered::TooLarge { max: 100_000, .. }),
        "{report}"
    );
    send(&client, &dest, "small".to_string()).await.unwrap();
    assert_eq!(receiver.try_recv().as_deref(), Some("small"));
}

#[tokio::test]
async fn a_closed_client_takes_nothing_more_and_says_so() {
    let muxer = MailboxMuxer::new();
    let server = serve(ChannelTransport::Local, muxer.clone()).await;
    let (dest, _receiver) = actor::<u64>(&muxer, ActorId::root(proc_at(server.addr(), "p"), "a"));
    let client = MailboxClient::dial(server.addr().clone());
    send(&client, &dest, 1_u64).await.unwrap();
    assert!(!client.is_closed());
    client.close();
    tokio::time::timeout(PATIENCE, client.closed())
        .await
        .unwrap();
    assert!(client.is_closed() && matches!(*client.status().borrow(), Status::Closed(_)));
    let report = send(&client, &dest, 2_u64).await.unwrap_err();
    assert_eq!(reason(&report).code(), "peer-closed");
}

#[tokio::test]
async fn an_address_that_nobody_serves_is_told_within_its_time() {
    let options = DialOptions {
        connect_give_up_local: Duration::from_millis(50),
        ..DialOptions::default()
    };
    let client = MailboxClient::dial_with(nowhere(), options);
    let dest = hyperactor_refs::PortId::new(ActorId::root(proc_at(&nowhere(), "p"), "a"), 1);
    let report = send(&client, &dest, 1_u8).await.unwrap_err();
    let NotDelivered::Connect { addr, .. } = reason(&report) else {
        panic!("{report}")
    };
    assert_eq!(*addr, nowhere());
    assert!(report.failure.is_retryable());
}

#[test]
fn a_runtime_that_ends_leaves_no_post_without_an_outcome() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, dest) = runtime.block_on(async {
        let options = DialOptions {
            outbox_messages: 4,
            ..DialOptions::default()
        };
        let client = MailboxClient::dial_with(nowhere(), options);
        let dest = hyperactor_refs::PortId::new(ActorId::root(proc_at(&nowhere(), "p"), "a"), 1);
        (client, dest)
    });
    let outcomes: Vec<_> = (0..4_u8)
        .map(|number| {
            let (return_handle, outcome) = ReturnHandle::oneshot();
            let envelope = MessageEnvelope::typed(common::sender(), dest.clone(), number);
            client.post(envelope, return_handle);
            outcome
        })
        .collect();
    runtime.shutdown_timeout(PATIENCE);
    for mut outcome in outcomes {
        assert!(outcome.try_take().expect("an outcome").is_err());
    }
}
