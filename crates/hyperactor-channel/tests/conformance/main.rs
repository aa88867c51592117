//! One suite for every transport: the same tests over in-process channels, Unix sockets by path and by abstract name, and
//! TCP. What only byte streams can do (being cut, carrying garbage) is in the other suites.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod cancel;
mod duplex;
mod lives;
mod shares;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use cancel::*;
use duplex::*;
use hyperactor_channel::{
    ChannelRx, ChannelTx, DialOptions, Failure, Outcome, Postcard, Reason, Refusal, ServeOptions,
    Status, Verdict, dial, dial_tx, dial_with, serve, serve_queue, serve_with,
};
use hyperactor_refs::Incarnation;
use lives::*;
use shares::*;
use support::{Entry, Keeper, Kind, Ledger, Message, Poison, eventually, settle_delivered, soon};

async fn pair(kind: Kind) -> (ChannelTx<Message>, ChannelRx<Message>, support::Place) {
    let place = kind.place();
    let (addr, rx) = serve(place.bind.clone()).await.unwrap();
    (dial(addr), rx, place)
}

async fn messages_arrive_in_the_order_sent(kind: Kind) {
    const COUNT: u64 = 20_000;
    let (tx, mut rx, _place) = pair(kind).await;
    let sender = tokio::spawn(async move {
        send_all(&tx, COUNT).await;
        tx
    });
    receive_all(&mut rx, COUNT).await;
    soon("the flush", sender).await.unwrap();
    assert!(rx.try_recv().is_none());
}

async fn a_sent_message_is_delivered(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    assert_eq!(*tx.status().borrow(), Status::Idle);
    for id in 0..50 {
        assert_eq!(
            soon("the outcome", tx.send(Message::new(id))).await,
            Outcome::Delivered
        );
        assert_eq!(rx.recv().await.unwrap().id, id);
    }
    assert_eq!(*tx.status().borrow(), Status::Connected);
}

async fn big_messages_arrive_whole_among_small_ones(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    let sizes = [0, 8 << 20, 1, 100_000, 8 << 20, 70_000, 3];
    let expected = sizes.map(|bytes| Message::sized(bytes as u64, bytes));
    let sender = async {
        for message in &expected {
            assert!(tx.send(message.clone()).await.is_delivered());
        }
    };
    let receiver = async {
        for message in &expected {
            assert!(
                rx.recv().await.unwrap() == *message,
                "{message:?} came broken"
            );
        }
    };
    soon("all sizes", async { tokio::join!(sender, receiver) }).await;
}

async fn a_full_channel_says_so_and_tells_when_there_is_room(kind: Kind) {
    let place = kind.place();
    let serving = ServeOptions {
        window_messages: 4,
        ..Default::default()
    };
    let keeper = Keeper::default();
    let server = serve_with(place.bind.clone(), serving, Postcard, keeper.clone())
        .await
        .unwrap();
    let dialing = DialOptions {
        outbox_messages: 16,
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(server.addr().clone(), dialing, Postcard);
    let mut posted = 0;
    let reason = loop {
        match tx.try_post(Message::new(posted)) {
            Ok(()) => posted += 1,
            Err((back, reason)) => {
                assert_eq!(back.id, posted, "another message came back");
                break reason;
            }
        }
    };
    assert_eq!((posted, reason), (16, Reason::Full));
    eventually("the window is used", || keeper.len() == 4).await;
    let ready = tx.ready();
    tokio::pin!(ready);
    assert!(
        futures_poll(&mut ready).await.is_none(),
        "ready although full"
    );
    // Outcomes make room. Settle and release as they come, and all get through.
    let mut taken = 0;
    while taken < posted {
        eventually("more arrives", || keeper.len() > 0).await;
        for (message, ticket, inbound) in keeper.with(|kept| std::mem::take(&mut kept.messages)) {
            assert_eq!(message.id, taken);
            taken += 1;
            inbound.settle(ticket, Verdict::Delivered);
            inbound.release(ticket);
        }
    }
    soon("room", ready).await.unwrap();
    tx.try_post(Message::new(99)).unwrap();
}

async fn flush_waits_for_the_outcome_of_what_was_posted_before(kind: Kind) {
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
    let tx: ChannelTx<Message> = dial(server.addr().clone());
    tx.flush().await.unwrap();
    for id in 0..10 {
        tx.post(Message::new(id));
    }
    eventually("all arrived", || keeper.len() == 10).await;
    let flush = tx.flush();
    tokio::pin!(flush);
    assert!(
        futures_poll(&mut flush).await.is_none(),
        "flushed before any outcome"
    );
    // Out of order, and one of them refused: an outcome is an outcome.
    keeper.with(|kept| {
        for (_, ticket, inbound) in kept.messages.iter().rev() {
            let verdict = match ticket.seq {
                3 => Verdict::NotDelivered(Refusal::new(7)),
                _ => Verdict::Delivered,
            };
            inbound.settle(*ticket, verdict);
        }
    });
    soon("the flush", flush).await.unwrap();
}

async fn verdicts_reach_their_own_messages(kind: Kind) {
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
    for id in 0..300 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    eventually("all arrived", || keeper.len() == 300).await;
    let refusal = |id: u64| Refusal::new(id as u16).with_detail(id.to_string().into_bytes());
    keeper.with(|kept| {
        for (message, ticket, inbound) in kept.messages.drain(..) {
            match message.id % 3 {
                0 => inbound.settle(ticket, Verdict::Delivered),
                1 => {
                    let verdict = Verdict::NotDelivered(refusal(message.id));
                    inbound.refuse(ticket, verdict, message);
                }
                _ => inbound.settle(ticket, Verdict::Unknown(refusal(message.id))),
            }
        }
    });
    ledger.all_settled().await;
    for (id, entry) in ledger.entries() {
        let reason = Reason::Remote(refusal(id));
        match id % 3 {
            0 => assert_eq!(entry, Entry::Delivered),
            1 => assert_eq!(entry, Entry::Failed(Failure::NotDelivered(reason), true)),
            // In-process the receiver kept the only copy.
            _ => assert_eq!(
                entry,
                Entry::Failed(Failure::Unknown(reason), kind.is_stream())
            ),
        }
    }
}

async fn receivers_know_whose_outcome_is_awaited(kind: Kind) {
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
    for id in 0..9 {
        let line = if id % 3 == 0 {
            ledger.urgent(id)
        } else {
            ledger.line(id)
        };
        tx.try_post(Message::new(id), line);
    }
    eventually("all arrived", || keeper.len() == 9).await;
    keeper.with(|kept| {
        assert_eq!(kept.awaited, [0, 3, 6]);
        kept.messages.iter().for_each(settle_delivered);
    });
    ledger.all_settled().await;
    assert!(!tx.is_closed());
}

async fn close_lets_what_was_posted_arrive_and_takes_nothing_more(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    for id in 0..500 {
        tx.post(Message::new(id));
    }
    tx.close();
    tx.close();
    let (back, reason) = tx.try_post(Message::new(500)).unwrap_err();
    assert_eq!((back.id, reason), (500, Reason::Closed));
    for id in 0..500 {
        assert_eq!(soon("the next message", rx.recv()).await.unwrap().id, id);
    }
    assert_eq!(soon("the end", tx.closed()).await, Reason::Closed);
    assert_eq!(
        tx.send(Message::new(501)).await,
        Outcome::NotDelivered(Reason::Closed)
    );
}

async fn a_dropped_sender_lingers_until_its_messages_have_arrived(kind: Kind) {
    let place = kind.place();
    let (addr, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
    let ledger = Ledger::default();
    let tx = dial_with(addr, DialOptions::default(), Postcard);
    for id in 0..500 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    drop(tx);
    for id in 0..500 {
        assert_eq!(soon("the next message", rx.recv()).await.unwrap().id, id);
    }
    ledger.all_settled().await;
    assert_eq!(ledger.count(|entry| *entry == Entry::Delivered), 500);
}

async fn sessions_are_told_when_their_sender_is_gone(kind: Kind) {
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
    let tx: ChannelTx<Message> = dial(server.addr().clone());
    tx.post(Message::new(1));
    eventually("it arrived", || keeper.len() == 1).await;
    assert_eq!(keeper.with(|kept| (kept.sessions, kept.closed)), (1, 0));
    drop(tx);
    keeper.with(|kept| kept.messages.iter().for_each(settle_delivered));
    eventually("the session is closed", || {
        keeper.with(|kept| kept.closed) == 1
    })
    .await;
}

async fn the_peer_is_known_by_its_incarnation_and_its_user(kind: Kind) {
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
    let options = DialOptions {
        incarnation: Incarnation::new(77),
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(server.addr().clone(), options, Postcard);
    tx.post(Message::new(1));
    eventually("it arrived", || keeper.len() == 1).await;
    let peer = keeper.with(|kept| kept.peers[0].clone());
    assert_eq!(peer.incarnation, Incarnation::new(77));
    let known = kind != Kind::Tcp;
    assert_eq!(peer.pid, known.then(std::process::id));
    assert_eq!(peer.uid, known.then(|| rustix::process::geteuid().as_raw()));
}

async fn an_undecodable_message_is_refused_alone(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    let before = tx.send(Message::new(1)).await;
    let bad = tx.send(Message::poisoned(2, Poison::FailsToDecode)).await;
    let after = tx.send(Message::new(3)).await;
    assert_eq!((before, after), (Outcome::Delivered, Outcome::Delivered));
    assert_eq!(rx.recv().await.unwrap().id, 1);
    if kind.is_stream() {
        match bad {
            Outcome::NotDelivered(Reason::Decode(_)) => {}
            other => panic!("{other:?}"),
        }
    } else {
        // Nothing is decoded in-process: the value itself arrives.
        assert_eq!(bad, Outcome::Delivered);
        assert_eq!(rx.recv().await.unwrap().id, 2);
    }
    assert_eq!(rx.recv().await.unwrap().id, 3);
}

async fn a_message_that_does_not_encode_fails_alone(kind: Kind) {
    if !kind.is_stream() {
        return;
    }
    let (tx, mut rx, _place) = pair(kind).await;
    for poison in [Poison::FailsToEncode, Poison::PanicsInEncode] {
        tx.post(Message::new(1));
        let (back, reason) = tx.try_post(Message::poisoned(2, poison)).unwrap_err();
        assert_eq!(back.id, 2);
        assert!(matches!(reason, Reason::Encode(_)), "{reason:?}");
        assert!(tx.send(Message::new(3)).await.is_delivered());
        assert_eq!(rx.recv().await.unwrap().id, 1);
        assert_eq!(rx.recv().await.unwrap().id, 3);
    }
}

async fn a_message_that_is_too_large_fails_alone(kind: Kind) {
    if !kind.is_stream() {
        return;
    }
    let place = kind.place();
    let (addr, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
    let options = DialOptions {
        max_message_bytes: 10_000,
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(addr, options, Postcard);
    tx.post(Message::sized(1, 9_000));
    let (back, reason) = tx.try_post(Message::sized(2, 10_001)).unwrap_err();
    assert_eq!(back, Message::sized(2, 10_001));
    assert!(
        matches!(reason, Reason::TooLarge { max: 10_000, .. }),
        "{reason:?}"
    );
    assert!(tx.send(Message::new(3)).await.is_delivered());
    assert_eq!(rx.recv().await.unwrap().id, 1);
    assert_eq!(rx.recv().await.unwrap().id, 3);
}

async fn a_message_larger_than_the_receiver_takes_fails_alone(kind: Kind) {
    if !kind.is_stream() {
        return;
    }
    let place = kind.place();
    let options = ServeOptions {
        max_message_bytes: 10_000,
        ..Default::default()
    };
    let mut rx = serve_queue::<Message>(place.bind.clone(), options, Postcard)
        .await
        .unwrap();
    let tx: ChannelTx<Message> = dial(rx.addr().clone());
    let outcomes = tokio::join!(
        tx.send(Message::sized(1, 9_000)),
        tx.send(Message::sized(2, 20_000)),
        tx.send(Message::new(3)),
    );
    assert!(
        outcomes.0.is_delivered() && outcomes.2.is_delivered(),
        "{outcomes:?}"
    );
    assert!(
        matches!(outcomes.1, Outcome::NotDelivered(Reason::TooLarge { .. })),
        "{outcomes:?}"
    );
    assert_eq!(rx.recv().await.unwrap().id, 1);
    assert_eq!(rx.recv().await.unwrap().id, 3);
}

async fn a_slow_receiver_holds_no_more_than_its_window(kind: Kind) {
    const WINDOW: u32 = 32;
    let place = kind.place();
    let serving = ServeOptions {
        window_messages: WINDOW,
        ..Default::default()
    };
    let keeper = Keeper::default();
    let server = serve_with(place.bind.clone(), serving, Postcard, keeper.clone())
        .await
        .unwrap();
    let ledger = Ledger::default();
    let tx = dial_with(server.addr().clone(), DialOptions::default(), Postcard);
    for id in 0..1_000 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    let mut next = 0;
    while next < 1_000 {
        eventually("more arrives", || keeper.len() > 0).await;
        let kept = keeper.with(|kept| std::mem::take(&mut kept.messages));
        assert!(kept.len() <= WINDOW as usize, "{} are held", kept.len());
        for (message, ticket, inbound) in kept {
            assert_eq!(message.id, next);
            next += 1;
            inbound.settle(ticket, Verdict::Delivered);
            inbound.release(ticket);
        }
    }
    ledger.all_settled().await;
    assert_eq!(ledger.count(|entry| *entry == Entry::Delivered), 1_000);
}

async fn acknowledgements_flow_while_the_receiver_takes_nothing(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    // All of them fit into the window, none is taken, each is delivered.
    for id in 0..1_000 {
        tx.post(Message::new(id));
    }
    soon("the flush", tx.flush()).await.unwrap();
    assert_eq!(rx.try_recv().unwrap().id, 0);
}

async fn a_hundred_senders_share_one_channel(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    let tx = Arc::new(tx);
    let senders: Vec<_> = (0..100_u64)
        .map(|sender| {
            let tx = Arc::clone(&tx);
            tokio::spawn(async move {
                for step in 0..20 {
                    assert!(
                        tx.send(Message::new(sender * 1_000 + step))
                            .await
                            .is_delivered()
                    );
                }
            })
        })
        .collect();
    let mut next = [0_u64; 100];
    for _ in 0..2_000 {
        let id = soon("the next message", rx.recv()).await.unwrap().id;
        let (sender, step) = ((id / 1_000) as usize, id % 1_000);
        assert_eq!(next[sender], step, "sender {sender} is out of order");
        next[sender] += 1;
    }
    for sender in senders {
        soon("a sender", sender).await.unwrap();
    }
}

async fn many_channels_reach_one_receiver(kind: Kind) {
    let place = kind.place();
    let (addr, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
    let channels: Vec<ChannelTx<Message>> = (0..20).map(|_| dial(addr.clone())).collect();
    for (number, tx) in channels.iter().enumerate() {
        for step in 0..50 {
            tx.post(Message::new(number as u64 * 1_000 + step));
        }
    }
    let mut next = [0_u64; 20];
    for _ in 0..1_000 {
        let id = soon("the next message", rx.recv()).await.unwrap().id;
        assert_eq!(next[(id / 1_000) as usize], id % 1_000);
        next[(id / 1_000) as usize] += 1;
    }
    for tx in &channels {
        soon("a flush", tx.flush()).await.unwrap();
    }
}

/// Polls a future once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// Makes a module of all tests for one transport.
macro_rules! suite {
    ($module:ident, $kind:expr, [$($test:ident),* $(,)?]) => {
        mod $module {
            use super::support::Kind;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test($kind).await;
                }
            )*
        }
    };
}

macro_rules! suites {
    ($tests:tt) => {
        suite!(local, Kind::Local, $tests);
        suite!(unix_path, Kind::UnixPath, $tests);
        suite!(unix_abstract, Kind::UnixAbstract, $tests);
        suite!(tcp, Kind::Tcp, $tests);
    };
}

suites!([
    messages_arrive_in_the_order_sent,
    a_sent_message_is_delivered,
    big_messages_arrive_whole_among_small_ones,
    a_full_channel_says_so_and_tells_when_there_is_room,
    flush_waits_for_the_outcome_of_what_was_posted_before,
    verdicts_reach_their_own_messages,
    receivers_know_whose_outcome_is_awaited,
    close_lets_what_was_posted_arrive_and_takes_nothing_more,
    a_dropped_sender_lingers_until_its_messages_have_arrived,
    sessions_are_told_when_their_sender_is_gone,
    the_peer_is_known_by_its_incarnation_and_its_user,
    an_undecodable_message_is_refused_alone,
    a_message_that_does_not_encode_fails_alone,
    a_message_that_is_too_large_fails_alone,
    a_message_larger_than_the_receiver_takes_fails_alone,
    a_restarted_receiver_gets_what_was_not_sent_before,
    messages_for_one_life_do_not_reach_another,
    nobody_there_is_told_within_the_time_chosen,
    an_orderly_stop_settles_what_was_placed_and_returns_the_rest,
    what_a_receiver_took_before_it_was_dropped_counts_as_delivered,
    a_closed_receiver_can_still_take_what_is_in_its_queue,
    a_slow_receiver_holds_no_more_than_its_window,
    acknowledgements_flow_while_the_receiver_takes_nothing,
    a_hundred_senders_share_one_channel,
    many_channels_reach_one_receiver,
    both_ends_send_and_receive_in_order,
    the_accepting_end_may_be_the_only_one_that_sends,
    a_dialer_that_takes_nothing_bounds_what_comes_back,
    outcomes_of_what_goes_back_are_the_dialers_verdicts,
    a_dialer_says_whether_it_receives,
    an_end_that_is_abandoned_leaves_nothing_without_an_outcome,
    a_dialer_that_only_sends_refuses_what_comes_back,
    a_close_at_either_end_lets_both_directions_arrive_and_ends_both,
    a_pair_that_is_dropped_closes_its_session,
    an_end_without_its_receiver_still_sends,
    a_receiving_dialer_finds_a_restarted_server_by_itself,
    an_orderly_stop_tells_every_receiving_dialer,
    a_receiver_learns_that_nobody_answers,
    a_send_given_up_at_any_poll_sends_once_or_never,
    a_send_given_up_while_it_waits_for_room_is_not_sent,
    a_wait_for_room_given_up_leaves_the_room_to_others,
    a_receive_given_up_at_any_poll_takes_nothing,
    a_flush_given_up_at_any_poll_changes_nothing,
    a_close_given_up_at_any_poll_goes_on_in_order,
    a_stop_given_up_at_any_poll_goes_on_in_order,
    a_wait_for_the_end_given_up_at_any_poll_ends_nothing,
    serving_given_up_before_it_returns_binds_nothing,
    an_accept_given_up_at_any_poll_loses_no_dialer,
    a_stream_accept_given_up_at_any_poll_loses_no_connection,
    low_level_waits_given_up_at_any_poll_lose_nothing,
    a_destination_that_never_takes_stops_only_its_own_senders,
    a_send_waits_for_its_own_destination_only,
    each_destination_keeps_its_order_with_mixed_sizes,
    names_survive_lost_connections,
    there_may_be_more_destinations_than_a_session_has_numbers,
    a_large_message_that_is_refused_comes_back_whole,
    a_large_message_that_nobody_takes_comes_back_whole,
    a_name_that_cannot_be_told_fails_its_messages_alone,
    small_messages_pass_a_message_of_256_mib,
]);
