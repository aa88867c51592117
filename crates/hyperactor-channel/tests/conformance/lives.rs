//! How channels begin and end: restarts, lives that differ, nobody there, orderly stops and dropped receivers.

use std::time::Duration;

use hyperactor_channel::{
    ChannelTx, DialOptions, Failure, Outcome, Postcard, Reason, ServeOptions, Status, dial_tx,
    dial_with, serve, serve_queue, serve_with,
};
use hyperactor_refs::Incarnation;

use crate::pair;
use crate::support::{Entry, Keeper, Kind, Ledger, Message, eventually, settle_delivered, soon};

pub(crate) async fn a_restarted_receiver_gets_what_was_not_sent_before(kind: Kind) {
    let place = kind.place();
    let first = ServeOptions {
        incarnation: Incarnation::new(1),
        ..Default::default()
    };
    let second = ServeOptions {
        incarnation: Incarnation::new(2),
        ..Default::default()
    };
    let keeper = Keeper::default();
    let server = serve_with(place.bind.clone(), first, Postcard, keeper.clone())
        .await
        .unwrap();
    let addr = server.addr().clone();
    let ledger = Ledger::default();
    let tx = dial_with(addr.clone(), DialOptions::default(), Postcard);
    for id in 0..20 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    eventually("all arrived", || keeper.len() == 20).await;
    keeper.with(|kept| kept.messages[..10].iter().for_each(settle_delivered));
    eventually("the first ten have outcomes", || ledger.open() == 10).await;
    let ended = {
        drop(server);
        let keeper = keeper.clone();
        eventually("the old server is gone", move || {
            keeper.with(|kept| kept.closed) == 1
        })
    };
    ended.await;
    for id in 20..40 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    let mut rx = serve_queue::<Message>(addr, second, Postcard)
        .await
        .unwrap();
    for id in 20..40 {
        assert_eq!(soon("the next message", rx.recv()).await.unwrap().id, id);
    }
    ledger.all_settled().await;
    for (id, entry) in ledger.entries() {
        match id {
            10..20 => assert!(
                matches!(
                    entry,
                    Entry::Failed(Failure::Unknown(Reason::PeerRestarted), _)
                ),
                "{id}: {entry:?}"
            ),
            _ => assert_eq!(entry, Entry::Delivered, "{id}"),
        }
    }
    assert!(rx.try_recv().is_none());
}

pub(crate) async fn messages_for_one_life_do_not_reach_another(kind: Kind) {
    let place = kind.place();
    let serving = ServeOptions {
        incarnation: Incarnation::new(2),
        ..Default::default()
    };
    let mut rx = serve_queue::<Message>(place.bind.clone(), serving, Postcard)
        .await
        .unwrap();
    let options = DialOptions {
        expect: Some(Incarnation::new(1)),
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(rx.addr().clone(), options, Postcard);
    let outcome = soon("the outcome", tx.send(Message::new(1))).await;
    assert_eq!(outcome, Outcome::NotDelivered(Reason::PeerRestarted));
    assert_eq!(*tx.status().borrow(), Status::Closed(Reason::PeerRestarted));
    assert_eq!(
        tx.try_post(Message::new(2)).unwrap_err().1,
        Reason::PeerRestarted
    );
    assert!(rx.try_recv().is_none());
}

pub(crate) async fn nobody_there_is_told_within_the_time_chosen(kind: Kind) {
    // Bound and freed: an address where nobody is.
    let (tx, mut rx, _place) = pair(kind).await;
    let addr = tx.addr().clone();
    rx.close().await;
    let give_up = DialOptions {
        connect_give_up_local: Duration::from_millis(50),
        delivery_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let ledger = Ledger::default();
    let tx = dial_with(addr.clone(), give_up, Postcard);
    tx.try_post(Message::new(1), ledger.line(1));
    ledger.all_settled().await;
    match ledger.of(1) {
        Entry::Failed(
            Failure::NotDelivered(Reason::Connect {
                addr: at, errno, ..
            }),
            true,
        ) => {
            assert_eq!(at, addr);
            assert!(errno.is_some());
        }
        Entry::Failed(Failure::NotDelivered(Reason::Silent(_)), true) if kind == Kind::Tcp => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(&*tx.status().borrow(), Status::Closed(_)));
    tx.try_post(Message::new(2), ledger.line(2));
    assert!(matches!(
        ledger.of(2),
        Entry::Failed(Failure::NotDelivered(_), true)
    ));
}

pub(crate) async fn an_orderly_stop_settles_what_was_placed_and_returns_the_rest(kind: Kind) {
    let place = kind.place();
    let serving = ServeOptions {
        window_messages: 8,
        ..Default::default()
    };
    let keeper = Keeper::default();
    let server = serve_with(place.bind.clone(), serving, Postcard, keeper.clone())
        .await
        .unwrap();
    let ledger = Ledger::default();
    let tx = dial_with(server.addr().clone(), DialOptions::default(), Postcard);
    for id in 0..20 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    eventually("the window is used", || keeper.len() == 8).await;
    keeper.with(|kept| kept.messages.iter().for_each(settle_delivered));
    soon("the stop", server.stop()).await;
    ledger.all_settled().await;
    for (id, entry) in ledger.entries() {
        match id {
            0..8 => assert_eq!(entry, Entry::Delivered, "{id}"),
            _ => {
                let failure = Failure::NotDelivered(Reason::PeerClosed);
                assert_eq!(entry, Entry::Failed(failure, true), "{id}");
            }
        }
    }
    assert_eq!(soon("the end", tx.closed()).await, Reason::PeerClosed);
    assert_eq!(keeper.with(|kept| kept.closed), 1);
}

pub(crate) async fn what_a_receiver_took_before_it_was_dropped_counts_as_delivered(kind: Kind) {
    let place = kind.place();
    let (addr, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
    let ledger = Ledger::default();
    let tx = dial_with(addr, DialOptions::default(), Postcard);
    for id in 0..100 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    for id in 0..100 {
        assert_eq!(soon("the next message", rx.recv()).await.unwrap().id, id);
    }
    drop(rx);
    ledger.all_settled().await;
    assert_eq!(ledger.count(|entry| *entry == Entry::Delivered), 100);
}

pub(crate) async fn a_closed_receiver_can_still_take_what_is_in_its_queue(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    for id in 0..10 {
        assert!(tx.send(Message::new(id)).await.is_delivered());
    }
    soon("the close", rx.close()).await;
    rx.close().await;
    for id in 0..10 {
        assert_eq!(rx.recv().await.unwrap().id, id);
    }
    assert!(soon("the end", rx.recv()).await.is_none());
    assert!(rx.recv().await.is_none());
}
