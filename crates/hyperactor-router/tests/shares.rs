//! Each actor its own share: one that takes nothing stops only its own senders, directly and behind a relay, and what is
//! large comes back whole. And what is waited for here can be given up at any poll.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::{actor, over_every_transport, proc_at, reason, send};
use hyperactor_mailbox::{
    Capacity, MailboxMuxer, MailboxSender, MessageEnvelope, NotDelivered, PortReceiver,
    ReturnHandle, SendFailure, Undeliverable,
};
use hyperactor_refs::{ActorId, ChannelTransport, PortId};
use hyperactor_router::{
    DialMailboxRouter, DialOptions, MailboxClient, MailboxServer, MailboxServerHandle,
    ServeOptions, Status,
};

over_every_transport!(
    a_stuck_actor_stops_only_its_own_senders,
    a_stuck_actor_behind_a_relay_stops_only_its_own_senders,
    a_large_message_comes_back_whole_through_a_relay,
    waits_that_are_given_up_change_nothing,
);

/// Smaller than usual, so that it is soon full; and large enough that all that passes a stuck message, which has no
/// outcome as long as it is held by a relay, is within the span of a session.
const WINDOW: u32 = 1_024;

async fn serve(
    transport: ChannelTransport,
    sender: impl MailboxSender + Clone,
) -> MailboxServerHandle {
    let options = ServeOptions {
        window_messages: WINDOW,
        ..ServeOptions::default()
    };
    MailboxServer::serve(transport, sender, options)
        .await
        .unwrap()
}

fn dialling() -> DialOptions {
    DialOptions {
        outbox_messages: 2 * WINDOW,
        ..DialOptions::default()
    }
}

/// Posts; gives back what found no room, and what to wait for.
fn try_post(
    to: &impl MailboxSender,
    envelope: MessageEnvelope,
) -> Result<(), (MessageEnvelope, Capacity)> {
    let (return_handle, outcome) = ReturnHandle::oneshot();
    to.post(envelope, return_handle);
    let mut context = Context::from_waker(Waker::noop());
    match pin!(outcome).poll(&mut context) {
        Poll::Pending | Poll::Ready(Ok(())) => Ok(()),
        Poll::Ready(Err(SendFailure::Returned(report))) => {
            assert!(matches!(reason(&report), NotDelivered::QueueFull { .. }));
            let Undeliverable {
                envelope, capacity, ..
            } = *report;
            Err((envelope, capacity.unwrap()))
        }
        Poll::Ready(Err(other)) => panic!("lost: {other}"),
    }
}

async fn post(to: &impl MailboxSender, envelope: MessageEnvelope) {
    let mut envelope = envelope;
    while let Err((back, capacity)) = try_post(to, envelope) {
        envelope = back;
        let room = tokio::time::timeout(common::PATIENCE, capacity.available());
        room.await.expect("room for this one");
    }
}

fn envelope(dest: &PortId, number: u64) -> MessageEnvelope {
    MessageEnvelope::typed(common::sender(), dest.clone(), number)
}

async fn take(receiver: &mut PortReceiver<u64>, expected: u64) {
    let received = tokio::time::timeout(common::PATIENCE, receiver.recv()).await;
    assert_eq!(received.expect("the next message"), Some(expected));
}

/// A stuck actor and three others, all behind the same client.
async fn goes_on_beside_a_stuck_one(
    client: &MailboxClient,
    muxer: &MailboxMuxer,
    named: impl Fn(&str) -> ActorId,
) {
    const COUNT: u64 = 10_000;
    let (stuck, mut stuck_receiver) = actor::<u64>(muxer, named("stuck"));
    // Once the windows are known, each has its share of them.
    send(client, &stuck, 0_u64).await.unwrap();
    take(&mut stuck_receiver, 0).await;
    let mut posted = 1;
    // A relay lets in what its own windows hold, so it may take a few rounds until all the way is full.
    let mut quiet = 0;
    let capacity = loop {
        match try_post(client, envelope(&stuck, posted)) {
            Ok(()) => {
                posted += 1;
                quiet = 0;
            }
            Err((_, capacity)) if quiet == 20 => break capacity,
            Err(_) => {
                quiet += 1;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        assert!(posted < 20_000, "nothing holds them back");
    };
    let others: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| actor::<u64>(muxer, named(name)))
        .collect();
    let ports: Vec<PortId> = others.iter().map(|(port, _)| port.clone()).collect();
    let takers: Vec<_> = others
        .into_iter()
        .map(|(_, mut receiver)| {
            tokio::spawn(async move {
                for number in 0..COUNT / 3 {
                    take(&mut receiver, number).await;
                }
            })
        })
        .collect();
    for number in 0..COUNT / 3 {
        for port in &ports {
            post(client, envelope(port, number)).await;
        }
    }
    for taker in takers {
        taker.await.unwrap();
    }
    // Its own senders still wait, until it takes again.
    assert!(!capacity.has_room());
    let waiting = tokio::spawn(async move { capacity.available().await });
    for number in 1..posted {
        take(&mut stuck_receiver, number).await;
    }
    let room = tokio::time::timeout(common::PATIENCE, waiting).await;
    room.expect("room for its senders").unwrap();
    post(client, envelope(&stuck, posted)).await;
    take(&mut stuck_receiver, posted).await;
}

async fn a_stuck_actor_stops_only_its_own_senders(transport: ChannelTransport) {
    let muxer = MailboxMuxer::new();
    let server = serve(transport, muxer.clone()).await;
    let client = MailboxClient::dial_with(server.addr().clone(), dialling());
    let proc_id = proc_at(server.addr(), "near");
    goes_on_beside_a_stuck_one(&client, &muxer, |name| ActorId::root(proc_id.clone(), name)).await;
}

async fn a_stuck_actor_behind_a_relay_stops_only_its_own_senders(transport: ChannelTransport) {
    let muxer = MailboxMuxer::new();
    let far = serve(transport, muxer.clone()).await;
    let router = DialMailboxRouter::with_options(dialling());
    let relay = serve(transport, router.clone()).await;
    let proc_id = proc_at(relay.addr(), "far");
    router.bind(proc_id.clone(), far.addr().clone()).unwrap();
    let client = MailboxClient::dial_with(relay.addr().clone(), dialling());
    goes_on_beside_a_stuck_one(&client, &muxer, |name| ActorId::root(proc_id.clone(), name)).await;
}

async fn a_large_message_comes_back_whole_through_a_relay(transport: ChannelTransport) {
    let far = serve(transport, MailboxMuxer::new()).await;
    let router = DialMailboxRouter::with_options(dialling());
    let relay = serve(transport, router.clone()).await;
    let proc_id = proc_at(relay.addr(), "far");
    router.bind(proc_id.clone(), far.addr().clone()).unwrap();
    let client = MailboxClient::dial_with(relay.addr().clone(), dialling());
    let nobody = PortId::new(ActorId::root(proc_id, "nobody"), 7);
    let text: String = (0..3_000_000_u32)
        .map(|at| char::from(b'a' + (at % 26) as u8))
        .collect();
    let report = send(&client, &nobody, text.clone()).await.unwrap_err();
    assert!(matches!(
        reason(&report),
        NotDelivered::UnknownActor { .. } | NotDelivered::UnknownPort { .. }
    ));
    assert_eq!(*report.envelope.dest(), nobody);
    assert!(report.envelope.into_message::<String>().unwrap() == text);
}

/// Polls a future so many times, and drops it; says whether it came to its end.
async fn polled(times: usize, future: impl Future) -> bool {
    let mut future = Box::pin(future);
    for _ in 0..times {
        let once = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready()));
        if once.await {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

async fn waits_that_are_given_up_change_nothing(transport: ChannelTransport) {
    let mut has_ended = false;
    for polls in 1..100 {
        let muxer = MailboxMuxer::new();
        let server = serve(transport, muxer.clone()).await;
        let client = MailboxClient::dial_with(server.addr().clone(), dialling());
        let router = DialMailboxRouter::with_options(dialling());
        let proc_id = proc_at(server.addr(), "near");
        let (port, mut receiver) = actor::<u64>(&muxer, ActorId::root(proc_id, "a"));
        for number in 0..20 {
            post(&client, envelope(&port, number)).await;
        }
        polled(polls, client.closed()).await;
        polled(polls, client.flush()).await;
        router.post(envelope(&port, 20), ReturnHandle::monitored());
        polled(polls, router.flush()).await;
        client.flush().await.unwrap();
        router.flush().await.unwrap();
        let mut received = Vec::new();
        while let Some(number) = receiver.try_recv() {
            received.push(number);
        }
        received.sort_unstable();
        assert_eq!(received, (0..=20).collect::<Vec<_>>());
        // It ends in order by itself, and tells its peers.
        has_ended = polled(polls, server.stop()).await;
        let why = tokio::time::timeout(common::PATIENCE, client.closed()).await;
        assert_eq!(why.unwrap().code(), "peer_closed");
        assert!(matches!(*client.status().borrow(), Status::Closed(_)));
        if has_ended {
            break;
        }
    }
    assert!(has_ended, "a stop never came to its end");
}
