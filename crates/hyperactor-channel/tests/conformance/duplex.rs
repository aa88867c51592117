//! One connection, both directions: what the accepting end sends, outcomes and credit both ways, and how such channels end.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_channel::{
    Accept, ChannelListener, ChannelRx, ChannelTx, Deliver, DialOptions, Failure, Inbound,
    Outbound, Outcome, Peer, Postcard, Reason, Refusal, ServeError, ServeOptions, Ticket, Verdict,
    dial_duplex, dial_duplex_with, dial_with, serve_duplex, serve_with,
};
use parking_lot::Mutex;

use crate::support::{
    Entry, Keeper, Kind, Ledger, Line, Message, Place, eventually, settle_delivered, soon,
};

type Pair = (ChannelTx<Message>, ChannelRx<Message>);

async fn pairs(kind: Kind) -> (Pair, Pair, ChannelListener<Message>, Place) {
    let place = kind.place();
    let mut listener = serve_duplex(place.bind.clone(), ServeOptions::default(), Postcard)
        .await
        .unwrap();
    let dialled = dial_duplex(listener.addr().clone(), DialOptions::default(), Postcard);
    let (tx, rx, peer) = soon("the dialer", listener.accept()).await.unwrap();
    assert_eq!(peer.incarnation, DialOptions::default().incarnation);
    (dialled, (tx, rx), listener, place)
}

/// Sends so many messages as fast as there is room.
pub(crate) async fn send_all(tx: &ChannelTx<Message>, count: u64) {
    for id in 0..count {
        let mut message = Message::new(id);
        while let Err((back, reason)) = tx.try_post(message) {
            assert_eq!(reason, Reason::Full);
            message = back;
            tx.ready().await.unwrap();
        }
    }
    tx.flush().await.unwrap();
}

/// Receives so many, in the order sent.
pub(crate) async fn receive_all(rx: &mut ChannelRx<Message>, count: u64) {
    for id in 0..count {
        assert_eq!(soon("the next message", rx.recv()).await.unwrap().id, id);
    }
}

pub(crate) async fn both_ends_send_and_receive_in_order(kind: Kind) {
    const COUNT: u64 = 10_000;
    let (mut dialled, mut accepted, _listener, _place) = pairs(kind).await;
    tokio::join!(
        send_all(&dialled.0, COUNT),
        receive_all(&mut dialled.1, COUNT),
        send_all(&accepted.0, COUNT),
        receive_all(&mut accepted.1, COUNT),
    );
    assert!(dialled.1.try_recv().is_none() && accepted.1.try_recv().is_none());
}

pub(crate) async fn the_accepting_end_may_be_the_only_one_that_sends(kind: Kind) {
    let (mut dialled, accepted, _listener, _place) = pairs(kind).await;
    for id in 0..50 {
        let outcome = soon("the outcome", accepted.0.send(Message::new(id))).await;
        assert_eq!(outcome, Outcome::Delivered);
        assert_eq!(soon("a message", dialled.1.recv()).await.unwrap().id, id);
    }
}

pub(crate) async fn a_dialer_that_takes_nothing_bounds_what_comes_back(kind: Kind) {
    let place = kind.place();
    let serving = ServeOptions {
        outbox_messages: 40,
        ..Default::default()
    };
    let dialling = DialOptions {
        window_messages: 16,
        ..Default::default()
    };
    let mut listener = serve_duplex::<Message>(place.bind.clone(), serving, Postcard)
        .await
        .unwrap();
    let (_tx, mut rx) = dial_duplex(listener.addr().clone(), dialling, Postcard);
    let (tx, _accepted_rx, _) = soon("the dialer", listener.accept()).await.unwrap();
    let mut posted = 0;
    // What was placed has its outcome and leaves the outbox, so the window goes on top of it.
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(50), tx.ready()).await {
        while tx.try_post(Message::new(posted)).is_ok() {
            posted += 1;
            assert!(posted <= 16 + 40, "more than window and outbox");
        }
    }
    assert!(posted >= 40);
    receive_all(&mut rx, posted).await;
    soon("room", tx.ready()).await.unwrap();
    soon("the flush", tx.flush()).await.unwrap();
}

/// Keeps the way back of every session.
#[derive(Clone, Default)]
struct Returning {
    keeper: Keeper,
    ways: Arc<Mutex<Vec<Outbound<Message, Line>>>>,
    receives: Arc<Mutex<Vec<bool>>>,
}

impl Accept<Message> for Returning {
    type Session = <Keeper as Accept<Message>>::Session;
    type Completion = Line;

    fn open(
        &self,
        peer: Peer,
        inbound: Inbound,
        outbound: Outbound<Message, Line>,
    ) -> Self::Session {
        self.receives.lock().push(peer.receives);
        self.ways.lock().push(outbound);
        self.keeper.session(peer, inbound)
    }
}

impl Returning {
    async fn way(&self) -> Outbound<Message, Line> {
        eventually("a session", || !self.ways.lock().is_empty()).await;
        self.ways.lock()[0].clone()
    }
}

/// Refuses every third message, gives everything back at once.
struct Picky(Inbound);

impl Deliver<Message> for Picky {
    fn deliver(&mut self, message: Message, ticket: Ticket) {
        if message.id.is_multiple_of(3) {
            let verdict = Verdict::NotDelivered(Refusal::new(7));
            self.0.refuse(ticket, verdict, message);
        } else {
            self.0.settle(ticket, Verdict::Delivered);
            self.0.release(ticket);
        }
    }
}

pub(crate) async fn outcomes_of_what_goes_back_are_the_dialers_verdicts(kind: Kind) {
    let place = kind.place();
    let server = Returning::default();
    let handle = serve_with(
        place.bind.clone(),
        ServeOptions::default(),
        Postcard,
        server.clone(),
    )
    .await
    .unwrap();
    let options = DialOptions::default();
    let _tx: Outbound<Message, Line> =
        dial_duplex_with(handle.addr().clone(), options, Postcard, Picky);
    let way = server.way().await;
    let ledger = Ledger::default();
    for id in 0..300 {
        way.try_post(Message::new(id), ledger.line(id));
    }
    ledger.all_settled().await;
    for (id, entry) in ledger.entries() {
        if id.is_multiple_of(3) {
            let refused = Failure::NotDelivered(Reason::Remote(Refusal::new(7)));
            assert_eq!(entry, Entry::Failed(refused, true), "{id}");
        } else {
            assert_eq!(entry, Entry::Delivered, "{id}");
        }
    }
}

/// W-14.
pub(crate) async fn a_dialer_says_whether_it_receives(kind: Kind) {
    let place = kind.place();
    let server = Returning::default();
    let options = ServeOptions::default();
    let handle = serve_with(place.bind.clone(), options, Postcard, server.clone())
        .await
        .unwrap();
    let sends: Outbound<Message, Line> =
        dial_with(handle.addr().clone(), DialOptions::default(), Postcard);
    sends.try_post(Message::new(0), Ledger::default().line(0));
    server.way().await;
    let _both = dial_duplex::<Message>(handle.addr().clone(), DialOptions::default(), Postcard);
    eventually("two sessions", || server.ways.lock().len() == 2).await;
    assert_eq!(*server.receives.lock(), [false, true]);
}

pub(crate) async fn a_dialer_that_only_sends_refuses_what_comes_back(kind: Kind) {
    let place = kind.place();
    let server = Returning::default();
    let options = ServeOptions::default();
    let handle = serve_with(place.bind.clone(), options, Postcard, server.clone())
        .await
        .unwrap();
    let tx = dial_with(handle.addr().clone(), DialOptions::default(), Postcard);
    let ledger = Ledger::default();
    tx.try_post(Message::new(0), ledger.urgent(0));
    let way = server.way().await;
    way.try_post(Message::new(1), ledger.urgent(1));
    eventually("the way back has its outcome", || {
        ledger.of(1) != Entry::Posted
    })
    .await;
    assert_eq!(
        ledger.of(1),
        Entry::Failed(Failure::NotDelivered(Reason::PeerClosed), true)
    );
    eventually("it arrived", || server.keeper.len() == 1).await;
    server
        .keeper
        .with(|kept| settle_delivered(&kept.messages[0]));
    ledger.all_settled().await;
    assert_eq!(ledger.of(0), Entry::Delivered);
}

pub(crate) async fn a_close_at_either_end_lets_both_directions_arrive_and_ends_both(kind: Kind) {
    for closes_dialer in [true, false] {
        let (mut dialled, mut accepted, _listener, _place) = pairs(kind).await;
        for id in 0..100 {
            dialled.0.post(Message::new(id));
            accepted.0.post(Message::new(id));
        }
        soon("the flush", dialled.0.flush()).await.unwrap();
        soon("the flush", accepted.0.flush()).await.unwrap();
        let (near, far) = if closes_dialer {
            (&mut dialled, &mut accepted)
        } else {
            (&mut accepted, &mut dialled)
        };
        near.0.close();
        assert_eq!(soon("the end", near.0.closed()).await, Reason::Closed);
        assert_eq!(soon("the end", far.0.closed()).await, Reason::PeerClosed);
        for (tx, rx) in [near, far] {
            receive_all(rx, 100).await;
            assert_eq!(soon("the end", rx.recv()).await, None);
            assert!(tx.try_post(Message::new(0)).is_err());
        }
    }
}

pub(crate) async fn a_pair_that_is_dropped_closes_its_session(kind: Kind) {
    for drops_dialer in [true, false] {
        let (dialled, accepted, _listener, _place) = pairs(kind).await;
        let (near, mut far) = if drops_dialer {
            (dialled, accepted)
        } else {
            (accepted, dialled)
        };
        near.0.post(Message::new(7));
        drop(near);
        assert_eq!(soon("its last message", far.1.recv()).await.unwrap().id, 7);
        assert_eq!(soon("the end", far.1.recv()).await, None);
        assert_eq!(soon("the end", far.0.closed()).await, Reason::PeerClosed);
    }
}

pub(crate) async fn an_end_without_its_receiver_still_sends(kind: Kind) {
    for drops_dialers in [true, false] {
        let (dialled, accepted, _listener, _place) = pairs(kind).await;
        let (near, mut far) = if drops_dialers {
            (dialled, accepted)
        } else {
            (accepted, dialled)
        };
        let (tx, rx) = near;
        drop(rx);
        let outcome = soon("the outcome", far.0.send(Message::new(1))).await;
        assert_eq!(outcome, Outcome::NotDelivered(Reason::PeerClosed));
        let outcome = soon("the outcome", tx.send(Message::new(2))).await;
        assert_eq!(outcome, Outcome::Delivered);
        assert_eq!(soon("a message", far.1.recv()).await.unwrap().id, 2);
    }
}

pub(crate) async fn a_receiving_dialer_finds_a_restarted_server_by_itself(kind: Kind) {
    let (mut dialled, accepted, listener, _place) = pairs(kind).await;
    let addr = listener.addr().clone();
    assert!(accepted.0.send(Message::new(1)).await.is_delivered());
    drop(listener);
    let why = soon("the end of the old session", accepted.0.closed()).await;
    assert_eq!(why, Reason::Dropped);
    // The server that was dropped frees its address by itself, in its own time.
    let mut listener = soon("the address", async {
        loop {
            match serve_duplex(addr.clone(), ServeOptions::default(), Postcard).await {
                Ok(listener) => return listener,
                Err(ServeError::AddrInUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    let (tx, mut rx, _) = soon("the same dialer", listener.accept()).await.unwrap();
    assert!(
        soon("the outcome", tx.send(Message::new(2)))
            .await
            .is_delivered()
    );
    assert!(
        soon("the outcome", dialled.0.send(Message::new(3)))
            .await
            .is_delivered()
    );
    for id in [1, 2] {
        assert_eq!(soon("a message", dialled.1.recv()).await.unwrap().id, id);
    }
    assert_eq!(soon("a message", rx.recv()).await.unwrap().id, 3);
}

pub(crate) async fn an_end_that_is_abandoned_leaves_nothing_without_an_outcome(kind: Kind) {
    for abandons_dialer in [true, false] {
        let place = kind.place();
        let server = Returning::default();
        let options = ServeOptions::default();
        let handle = serve_with(place.bind.clone(), options, Postcard, server.clone())
            .await
            .unwrap();
        let held = Keeper::default();
        let dialled: Outbound<Message, Line> = dial_duplex_with(
            handle.addr().clone(),
            DialOptions::default(),
            Postcard,
            |inbound| held.session(Peer::new(DialOptions::default().incarnation), inbound),
        );
        let accepted = server.way().await;
        let (near, far, taken) = if abandons_dialer {
            (dialled, accepted, &server.keeper)
        } else {
            (accepted, dialled, &held)
        };
        let ledger = Ledger::default();
        for id in 0..20 {
            near.try_post(Message::new(id), ledger.line(id));
        }
        eventually("they arrived", || taken.len() == 20).await;
        let why = Reason::Connect {
            addr: handle.addr().clone(),
            error: "it is said to be dead".to_owned(),
            errno: None,
        };
        near.abandon(why.clone());
        assert_eq!(soon("the end", near.closed()).await, why);
        for (id, entry) in ledger.entries() {
            let unknown = Failure::Unknown(why.clone());
            assert!(
                matches!(&entry, Entry::Failed(failure, _) if *failure == unknown),
                "{id}: {entry:?}"
            );
        }
        // Told a second time, nothing changes.
        near.abandon(Reason::Dropped);
        assert_eq!(soon("the end", near.closed()).await, why);
        near.try_post(Message::new(20), ledger.line(20));
        assert_eq!(
            ledger.of(20),
            Entry::Failed(Failure::NotDelivered(why), true)
        );
        soon("the other end", far.closed()).await;
    }
}

pub(crate) async fn an_orderly_stop_tells_every_receiving_dialer(kind: Kind) {
    let (mut dialled, accepted, listener, _place) = pairs(kind).await;
    for id in 0..100 {
        accepted.0.post(Message::new(id));
    }
    soon("the flush", accepted.0.flush()).await.unwrap();
    soon("the stop", listener.stop()).await;
    receive_all(&mut dialled.1, 100).await;
    assert_eq!(soon("the end", dialled.1.recv()).await, None);
    assert_eq!(
        soon("the end", dialled.0.closed()).await,
        Reason::PeerClosed
    );
}

pub(crate) async fn a_receiver_learns_that_nobody_answers(kind: Kind) {
    let place = kind.place();
    let listener = serve_duplex::<Message>(place.bind.clone(), ServeOptions::default(), Postcard)
        .await
        .unwrap();
    let addr = listener.addr().clone();
    soon("the stop", listener.stop()).await;
    let options = DialOptions {
        connect_give_up_local: Duration::from_millis(50),
        ..Default::default()
    };
    let (tx, mut rx): Pair = dial_duplex(addr, options, Postcard);
    assert_eq!(soon("the end", rx.recv()).await, None);
    let why = soon("the end", tx.closed()).await;
    assert!(matches!(why, Reason::Connect { .. }), "{why}");
}
