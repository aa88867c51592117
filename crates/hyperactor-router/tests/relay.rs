//! Across a relay: the outcome is that of the last mailbox, the reason and the route come back with the message, and the
//! relay does not look into it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{actor, over_every_transport, proc_at, reason, send, send_envelope, serve};
use hyperactor_mailbox::{
    Hop, MailboxMuxer, MailboxSender, Message, MessageEnvelope, NotDelivered, ReturnHandle,
    RouteKind, limits,
};
use hyperactor_refs::{ActorId, ChannelTransport, PortId, ProcId};
use hyperactor_router::{DialMailboxRouter, DialOptions, MailboxClient, MailboxServerHandle};

/// A client, a relay, and a proc behind it.
struct Chain {
    client: MailboxClient,
    proc_id: ProcId,
    muxer: MailboxMuxer,
    relay: MailboxServerHandle,
    far: MailboxServerHandle,
}

async fn chain(transport: ChannelTransport, options: DialOptions) -> Chain {
    let muxer = MailboxMuxer::new();
    let far = serve(transport, muxer.clone()).await;
    let router = DialMailboxRouter::with_options(options);
    let relay = serve(transport, router.clone()).await;
    let proc_id = proc_at(relay.addr(), "far");
    router.bind(proc_id.clone(), far.addr().clone()).unwrap();
    router.own(relay.addr().clone());
    let hop = Hop {
        at: relay.addr().to_string(),
        route: RouteKind::Relay,
    };
    let client = MailboxClient::dial(relay.addr().clone()).with_hop(hop);
    Chain {
        client,
        proc_id,
        muxer,
        relay,
        far,
    }
}

over_every_transport!(
    delivered_means_placed_beyond_the_relay,
    a_refusal_comes_back_with_reason_route_and_message,
    an_unknown_proc_is_answered_by_the_relay_with_the_names_it_has,
    a_stream_through_a_full_relay_loses_nothing_and_keeps_its_order,
    a_dead_end_behind_the_relay_is_told_as_such,
    the_relay_does_not_look_into_the_message,
);

async fn delivered_means_placed_beyond_the_relay(transport: ChannelTransport) {
    let chain = chain(transport, DialOptions::default()).await;
    let to = ActorId::root(chain.proc_id.clone(), "a");
    let (dest, mut receiver) = actor::<String>(&chain.muxer, to);
    for number in 0..20 {
        send(&chain.client, &dest, format!("message {number}"))
            .await
            .unwrap();
        // It is there when the outcome is, not some time later.
        assert_eq!(receiver.try_recv(), Some(format!("message {number}")));
    }
}

async fn a_refusal_comes_back_with_reason_route_and_message(transport: ChannelTransport) {
    let chain = chain(transport, DialOptions::default()).await;
    let to = ActorId::root(chain.proc_id.clone(), "a");
    let (dest, receiver) = actor::<String>(&chain.muxer, to);
    drop(receiver);
    let mut envelope = MessageEnvelope::typed(common::sender(), dest.clone(), "text".to_string());
    envelope.headers_mut().set(4, "kept").unwrap();
    let mut report = send_envelope(&chain.client, envelope).await.unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::UnknownPort {
            port_id: dest.clone()
        }
    );
    // The last step first, as each place on the way back adds its own.
    let kind = if transport == ChannelTransport::Tcp {
        RouteKind::Remote
    } else {
        RouteKind::Direct
    };
    let far = Hop {
        at: chain.far.addr().to_string(),
        route: kind,
    };
    let relay = Hop {
        at: chain.relay.addr().to_string(),
        route: RouteKind::Relay,
    };
    assert_eq!(report.route, [far, relay]);
    assert!(report.capacity.is_none());
    // The message is the one that was sent.
    assert_eq!(
        (report.envelope.sender(), report.envelope.dest()),
        (&common::sender(), &dest)
    );
    assert_eq!(report.envelope.headers_mut().remove(4).unwrap(), "kept");
    assert_eq!(report.envelope.into_message::<String>().unwrap(), "text");
}

async fn an_unknown_proc_is_answered_by_the_relay_with_the_names_it_has(
    transport: ChannelTransport,
) {
    let chain = chain(transport, DialOptions::default()).await;
    let nobody = proc_at(chain.relay.addr(), "nobody");
    let dest = PortId::new(ActorId::root(nobody.clone(), "a"), 1);
    let report = send(&chain.client, &dest, 1_u8).await.unwrap_err();
    let host = chain.relay.addr().clone();
    let known = vec!["far".to_string()];
    assert_eq!(
        *reason(&report),
        NotDelivered::UnknownProc {
            proc_id: nobody.into(),
            host,
            known
        }
    );
    // It went to the relay and no further.
    assert_eq!(report.route.len(), 1);
}

async fn a_stream_through_a_full_relay_loses_nothing_and_keeps_its_order(
    transport: ChannelTransport,
) {
    stream_through_relay(transport, 4, 2_000).await;
}

/// Streams `count` messages through a relay whose way out holds `outbox` messages; its way in lets all of them in.
async fn stream_through_relay(transport: ChannelTransport, outbox: u32, count: u64) {
    let options = DialOptions {
        outbox_messages: outbox,
        ..DialOptions::default()
    };
    let chain = chain(transport, options).await;
    let to = ActorId::root(chain.proc_id.clone(), "a");
    let (dest, mut receiver) = actor::<u64>(&chain.muxer, to);
    let outcomes: Vec<_> = (0..count)
        .map(|number| {
            let (return_handle, outcome) = ReturnHandle::oneshot();
            let envelope = MessageEnvelope::typed(common::sender(), dest.clone(), number);
            chain.client.post(envelope, return_handle);
            outcome
        })
        .collect();
    for number in 0..count {
        let received = tokio::time::timeout(common::PATIENCE, receiver.recv()).await;
        assert_eq!(received.unwrap(), Some(number));
    }
    for outcome in outcomes {
        tokio::time::timeout(common::PATIENCE, outcome)
            .await
            .unwrap()
            .unwrap();
    }
}

async fn a_dead_end_behind_the_relay_is_told_as_such(transport: ChannelTransport) {
    let options = DialOptions {
        connect_give_up_local: std::time::Duration::ZERO,
        delivery_timeout: std::time::Duration::from_millis(300),
        ..DialOptions::default()
    };
    let Chain {
        client,
        proc_id,
        far,
        relay: _relay,
        ..
    } = chain(transport, options).await;
    let gone = far.addr().clone();
    far.stop().await;
    let dest = PortId::new(ActorId::root(proc_id, "a"), 1);
    let report = send(&client, &dest, 1_u8).await.unwrap_err();
    let reason = reason(&report);
    assert!(matches!(reason.code(), "connect" | "timed-out"), "{reason}");
    assert!(reason.to_string().contains(&gone.to_string()), "{reason}");
    assert_eq!(report.route.len(), 2);
}

static ENCODED: AtomicUsize = AtomicUsize::new(0);
static DECODED: AtomicUsize = AtomicUsize::new(0);

/// Counts how often it is encoded and decoded. Tests run in a process each.
struct Counting(u8);

impl serde::Serialize for Counting {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.fetch_add(1, Ordering::SeqCst);
        self.0.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Counting {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::SeqCst);
        u8::deserialize(deserializer).map(Self)
    }
}

impl Message for Counting {
    const TYPE_HASH: u64 = hyperactor_mailbox::type_hash("Counting");
    fn type_name() -> std::borrow::Cow<'static, str> {
        "Counting".into()
    }
}

async fn the_relay_does_not_look_into_the_message(transport: ChannelTransport) {
    let before = (
        ENCODED.load(Ordering::SeqCst),
        DECODED.load(Ordering::SeqCst),
    );
    let chain = chain(transport, DialOptions::default()).await;
    let to = ActorId::root(chain.proc_id.clone(), "a");
    let (dest, mut receiver) = actor::<Counting>(&chain.muxer, to);
    send(&chain.client, &dest, Counting(9)).await.unwrap();
    assert_eq!(receiver.try_recv().unwrap().0, 9);
    let after = (
        ENCODED.load(Ordering::SeqCst),
        DECODED.load(Ordering::SeqCst),
    );
    let times = (after.0 - before.0, after.1 - before.1);
    if transport == ChannelTransport::Local {
        assert_eq!(times, (0, 0), "in process a value is moved");
    } else {
        assert_eq!(
            times,
            (1, 1),
            "encoded by the sender and decoded by the receiver"
        );
    }
}

#[tokio::test]
async fn two_relays_that_point_at_one_another_end_by_the_time_to_live() {
    let (one, other) = (DialMailboxRouter::new(), DialMailboxRouter::new());
    let serve_one = serve(ChannelTransport::Unix, one.clone()).await;
    let serve_other = serve(ChannelTransport::Unix, other.clone()).await;
    let proc_id = proc_at(serve_one.addr(), "p");
    one.bind(proc_id.clone(), serve_other.addr().clone())
        .unwrap();
    other
        .bind(proc_id.clone(), serve_one.addr().clone())
        .unwrap();
    let dest = PortId::new(ActorId::root(proc_id, "a"), 1);
    let report = send(&one, &dest, 1_u8).await.unwrap_err();
    assert_eq!(*reason(&report), NotDelivered::TtlExpired { port_id: dest });
    assert!(
        report.route.len() >= 3 && report.route.len() <= limits::ROUTE_HOPS,
        "{report}"
    );
}

#[tokio::test]
async fn a_relay_that_stops_leaves_no_post_without_an_outcome() {
    let chain = chain(ChannelTransport::Unix, DialOptions::default()).await;
    let to = ActorId::root(chain.proc_id.clone(), "a");
    let (dest, mut receiver) = actor::<u64>(&chain.muxer, to);
    let outcomes: Vec<_> = (0..500_u64)
        .map(|number| {
            let (return_handle, outcome) = ReturnHandle::oneshot();
            let envelope = MessageEnvelope::typed(common::sender(), dest.clone(), number);
            chain.client.post(envelope, return_handle);
            outcome
        })
        .collect();
    chain.relay.stop().await;
    let (mut delivered, mut uncertain) = (0, 0);
    chain.client.close();
    for outcome in outcomes {
        match tokio::time::timeout(common::PATIENCE, outcome)
            .await
            .unwrap()
        {
            Ok(()) => delivered += 1,
            Err(failure) => {
                let is_unknown =
                    matches!(failure.failure(), hyperactor_mailbox::Failure::Unknown(_));
                uncertain += usize::from(is_unknown);
            }
        }
    }
    let mut received = 0;
    while receiver.try_recv().is_some() {
        received += 1;
    }
    // What was reported delivered is there; what is there beyond is only what was reported uncertain.
    assert!(
        delivered <= received && received <= delivered + uncertain,
        "{delivered} {uncertain} {received}"
    );
}

/// Notes of each envelope whether its sender waits for the outcome.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<bool>>>);

impl MailboxSender for Noting {
    fn post_unchecked(&self, _: MessageEnvelope, return_handle: ReturnHandle) {
        self.0.lock().unwrap().push(return_handle.wants_outcome());
        drop(return_handle.delivered());
    }
}

#[tokio::test]
async fn a_relay_passes_on_that_somebody_waits_for_the_outcome() {
    let noting = Noting::default();
    let far = serve(ChannelTransport::Unix, noting.clone()).await;
    let router = DialMailboxRouter::new();
    let relay = serve(ChannelTransport::Unix, router.clone()).await;
    let proc_id = proc_at(relay.addr(), "far");
    router.bind(proc_id.clone(), far.addr().clone()).unwrap();
    let client = MailboxClient::dial(relay.addr().clone());
    let dest = PortId::new(ActorId::root(proc_id, "a"), 1);
    let envelope = || MessageEnvelope::typed(common::sender(), dest.clone(), 1_u8);
    client.post(envelope(), ReturnHandle::monitored());
    send(&client, &dest, 1_u8).await.unwrap();
    client.post(envelope(), ReturnHandle::monitored());
    client.flush().await.unwrap();
    // Otherwise each relay would add the delay of its acknowledgements to the sender's wait.
    assert_eq!(*noting.0.lock().unwrap(), [false, true, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_overtakes_what_waits_in_a_full_relay() {
    // Two threads, so that room appears while the relay reads on: what it reads must go behind what waits.
    for round in 0..5 {
        for outbox in [1, 2, 5] {
            let transport = if round % 2 == 0 {
                ChannelTransport::Unix
            } else {
                ChannelTransport::Local
            };
            stream_through_relay(transport, outbox, 400).await;
        }
    }
}
