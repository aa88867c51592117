//! Messages that name a destination: each has its share of the room, its order, and its sender's wait; large ones keep
//! nobody waiting.

use std::time::Duration;

use hyperactor_channel::{
    ChannelTx, DialOptions, Failure, Outbound, Outcome, Reason, ServeOptions, ServerHandle,
    dial_duplex_with, dial_tx, dial_with, serve_with,
};
use tokio::sync::mpsc;

use crate::support::named::{Letter, NOWHERE, Office, Post, Told};
use crate::support::proxy::{Cut, Proxy, Seeded};
use crate::support::{Kind, Place, eventually, soon};

async fn office(kind: Kind, options: ServeOptions) -> (Office, ServerHandle, Place) {
    let place = kind.place();
    let office = Office::default();
    let server = serve_with(place.bind.clone(), options, Post, office.clone())
        .await
        .unwrap();
    (office, server, place)
}

/// Posts, waiting for room of that destination alone.
async fn post(tx: &Outbound<Letter, Told>, told: &Told, letter: Letter) {
    let mut letter = letter;
    loop {
        let completion = Told(told.0.clone(), letter.id);
        match tx.offer(letter, completion) {
            Ok(()) => return,
            Err(back) => {
                assert_eq!(back.reason, Reason::Full);
                letter = back.message;
                soon("room for it", tx.capacity_for(&letter).available()).await;
            }
        }
    }
}

pub(crate) async fn a_destination_that_never_takes_stops_only_its_own_senders(kind: Kind) {
    const COUNT: u64 = 10_000;
    let serving = ServeOptions {
        window_messages: 64,
        ..Default::default()
    };
    let dialling = DialOptions {
        outbox_messages: 128,
        ..Default::default()
    };
    let (office, server, _place) = office(kind, serving).await;
    office.stick("stuck");
    let tx = dial_with(server.addr().clone(), dialling, Post);
    let (told, mut outcomes) = mpsc::unbounded_channel();
    let told = Told(told, 0);
    // Once the window is known, each has its share of it.
    post(&tx, &told, Letter::new("a", 0)).await;
    soon("the first", tx.flush()).await.unwrap();
    let mut stuck = 0;
    let refused = loop {
        match tx.offer(Letter::new("stuck", stuck), Told(told.0.clone(), stuck)) {
            Ok(()) => stuck += 1,
            Err(back) => break back,
        }
        assert!(stuck < 1_000, "nothing holds them back");
    };
    assert_eq!(refused.reason, Reason::Full);
    for id in 0..COUNT {
        let to = ["a", "b", "c"][id as usize % 3];
        post(&tx, &told, Letter::new(to, COUNT + id)).await;
    }
    eventually("the neighbours' letters came", || {
        ["a", "b", "c"]
            .iter()
            .map(|to| office.count(to))
            .sum::<usize>() as u64
            == COUNT + 1
    })
    .await;
    // Its own senders are still told to wait, and it has not taken more than its share.
    assert!(office.count("stuck") <= 64);
    // What was placed has its outcome since, and made room for a few more, but no more than a share.
    let again = loop {
        match tx.offer(Letter::new("stuck", stuck), Told(told.0.clone(), stuck)) {
            Ok(()) => stuck += 1,
            Err(back) => break back,
        }
        assert!(stuck < 64 + 128, "nothing holds them back");
    };
    assert_eq!(again.reason, Reason::Full);
    assert!(!tx.capacity_for(&refused.message).has_room());
    assert!(tx.capacity_for(&Letter::new("a", 0)).has_room());
    // Those that wait get their room when it takes again.
    let capacity = tx.capacity_for(&refused.message);
    let waiting = tokio::spawn(async move { capacity.available().await });
    office.unstick("stuck");
    soon("room", waiting).await.unwrap();
    eventually("all of its own came too", || {
        office.count("stuck") as u64 == stuck
    })
    .await;
    office.check_order();
    soon("the flush", tx.flush()).await.unwrap();
    drop((told, refused, again));
    let mut count = 0;
    while let Ok((_, failure, _)) = outcomes.try_recv() {
        assert_eq!(failure, None);
        count += 1;
    }
    assert_eq!(count, COUNT + stuck + 1);
}

pub(crate) async fn a_send_waits_for_its_own_destination_only(kind: Kind) {
    let serving = ServeOptions {
        window_messages: 8,
        ..Default::default()
    };
    let dialling = DialOptions {
        outbox_messages: 16,
        ..Default::default()
    };
    let (office, server, _place) = office(kind, serving).await;
    office.stick("stuck");
    let tx: ChannelTx<Letter> = dial_tx(server.addr().clone(), dialling, Post);
    assert!(
        soon("the outcome", tx.send(Letter::new("stuck", 0)))
            .await
            .is_delivered()
    );
    let mut id = 1;
    while tx.try_post(Letter::new("stuck", id)).is_ok() {
        id += 1;
        assert!(id < 100, "nothing holds them back");
    }
    let waits = {
        let tx = tx.clone();
        tokio::spawn(async move { tx.send(Letter::new("stuck", 100)).await })
    };
    for id in 0..200 {
        let outcome = soon("the outcome", tx.send(Letter::new("free", id))).await;
        assert_eq!(outcome, Outcome::Delivered);
    }
    assert!(!waits.is_finished());
    office.unstick("stuck");
    assert_eq!(
        soon("the outcome", waits).await.unwrap(),
        Outcome::Delivered
    );
}

pub(crate) async fn each_destination_keeps_its_order_with_mixed_sizes(kind: Kind) {
    const COUNT: u64 = 1_000;
    let (office, server, _place) = office(kind, ServeOptions::default()).await;
    let tx = dial_with(server.addr().clone(), DialOptions::default(), Post);
    send_mixed(&tx, &office, COUNT, 3).await;
}

async fn send_mixed(tx: &Outbound<Letter, Told>, office: &Office, count: u64, seed: u64) {
    let (told, mut outcomes) = mpsc::unbounded_channel();
    let told = Told(told, 0);
    let mut random = Seeded(seed);
    for id in 0..count {
        let size = match random.below(40) {
            0 => 600_000,
            1..5 => 70_000,
            _ => 100,
        };
        let to = random.below(5);
        post(
            tx,
            &told,
            Letter::sized(&to, id, random.below(size) as usize),
        )
        .await;
    }
    soon("the flush", tx.flush()).await.unwrap();
    office.check_order();
    assert_eq!(office.with(|desk| desk.came.len()) as u64, count);
    drop(told);
    while let Ok((id, failure, _)) = outcomes.try_recv() {
        assert_eq!(failure, None, "{id}");
    }
}

pub(crate) async fn names_survive_lost_connections(kind: Kind) {
    if !matches!(kind, Kind::Tcp | Kind::UnixPath) {
        return;
    }
    let (office, server, _place) = office(kind, ServeOptions::default()).await;
    let mut random = Seeded(5);
    let proxy = Proxy::start(server.addr().clone(), move |number| {
        if number >= 30 {
            return Cut::NEVER;
        }
        Cut {
            up: random.below(400_000),
            down: random.below(400_000),
            is_silent: false,
        }
    })
    .await;
    let tx = dial_with(proxy.addr.clone(), DialOptions::default(), Post);
    send_mixed(&tx, &office, 1_500, 7).await;
    let cuts = proxy.cuts.load(std::sync::atomic::Ordering::Relaxed);
    assert!(cuts >= 10, "only {cuts} cuts happened");
}

pub(crate) async fn there_may_be_more_destinations_than_a_session_has_numbers(kind: Kind) {
    const COUNT: u64 = 20_000;
    let (office, server, _place) = office(kind, ServeOptions::default()).await;
    let tx = dial_with(server.addr().clone(), DialOptions::default(), Post);
    let (told, outcomes) = mpsc::unbounded_channel();
    let told = Told(told, 0);
    for id in 0..COUNT {
        let mut letter = Letter::new(&format!("place {id}"), id);
        // Each is from somebody else, too; the check of the order compares with a letter from "me".
        if id % 2 == 1 {
            letter.from = format!("place {}", id + COUNT);
        }
        post(&tx, &told, letter).await;
    }
    soon("the flush", tx.flush()).await.unwrap();
    let mut ids: Vec<u64> = office.with(|desk| desk.came.iter().map(|came| came.1).collect());
    ids.sort_unstable();
    assert_eq!(ids, (0..COUNT).collect::<Vec<_>>());
    drop(outcomes);
}

pub(crate) async fn a_large_message_that_is_refused_comes_back_whole(kind: Kind) {
    let (office, server, _place) = office(kind, ServeOptions::default()).await;
    office.with(|desk| desk.refused.insert("closed".to_owned()));
    let tx = dial_with(server.addr().clone(), DialOptions::default(), Post);
    let (told, mut outcomes) = mpsc::unbounded_channel();
    let letter = Letter::sized("closed", 4, 3_000_000);
    tx.try_post(letter.clone(), Told(told.clone(), 4));
    let (id, failure, back) = soon("the outcome", outcomes.recv()).await.unwrap();
    assert_eq!(id, 4);
    assert!(matches!(
        failure,
        Some(Failure::NotDelivered(Reason::Remote(_)))
    ));
    assert!(back.as_ref() == Some(&letter), "{back:?} came back");
}

pub(crate) async fn a_large_message_that_nobody_takes_comes_back_whole(kind: Kind) {
    let place = kind.place();
    let Some(addr) = place.bind.addr().cloned() else {
        // Any address of this transport is one where somebody is.
        return;
    };
    let options = DialOptions {
        connect_give_up_local: Duration::ZERO,
        ..Default::default()
    };
    let tx = dial_with(addr, options, Post);
    let (told, mut outcomes) = mpsc::unbounded_channel();
    let letter = Letter::sized("anybody", 4, 3_000_000);
    tx.try_post(letter.clone(), Told(told, 4));
    let (_, failure, back) = soon("the outcome", outcomes.recv()).await.unwrap();
    assert!(matches!(
        failure,
        Some(Failure::NotDelivered(Reason::Connect { .. }))
    ));
    assert!(back.as_ref() == Some(&letter), "{back:?} came back");
}

pub(crate) async fn a_name_that_cannot_be_told_fails_its_messages_alone(kind: Kind) {
    let (office, server, _place) = office(kind, ServeOptions::default()).await;
    let tx: ChannelTx<Letter> = dial_tx(server.addr().clone(), DialOptions::default(), Post);
    if kind.is_stream() {
        for to in ["", &"x".repeat(2_049)] {
            let (_, reason) = tx.try_post(Letter::new(to, 1)).unwrap_err();
            assert!(matches!(reason, Reason::Encode(_)), "{reason}");
        }
        let outcome = soon("the outcome", tx.send(Letter::new(NOWHERE, 2))).await;
        assert!(
            matches!(outcome, Outcome::NotDelivered(Reason::Decode(_))),
            "{outcome:?}"
        );
    }
    let outcome = soon("the outcome", tx.send(Letter::new("somewhere", 3))).await;
    assert_eq!(outcome, Outcome::Delivered);
    assert_eq!(office.count("somewhere"), 1);
}

/// 256 MiB, in either direction, beside small messages and their outcomes, both ways.
pub(crate) async fn small_messages_pass_a_message_of_256_mib(kind: Kind) {
    const LARGE: usize = 256 << 20;
    if !matches!(kind, Kind::Tcp | Kind::UnixPath) {
        // In-process channels hand it over in one piece, at once; an abstract name makes no other stream than a path.
        return;
    }
    let serving = ServeOptions {
        max_message_bytes: LARGE + 100,
        ..Default::default()
    };
    let dialling = DialOptions {
        max_message_bytes: LARGE + 100,
        // Beside the large one, which is held until it has its outcome.
        outbox_bytes: LARGE + (32 << 20),
        ..Default::default()
    };
    let place = kind.place();
    let far = Ways::default();
    let server = serve_with(place.bind.clone(), serving, Post, far.clone())
        .await
        .unwrap();
    let near = Office::default();
    let desk = near.clone();
    let tx: Outbound<Letter, Told> =
        dial_duplex_with(server.addr().clone(), dialling, Post, move |inbound| {
            desk.session(inbound)
        });
    eventually("the way back", || far.way().is_some()).await;
    let back = far.way().unwrap();
    let (told, mut outcomes) = mpsc::unbounded_channel();
    let told = Told(told, 0);
    let large = Letter::large("large", 0, LARGE);
    tx.try_post(large, Told(told.0.clone(), 0));
    // One small message each way after the other, each with its outcome, until the large one is there. The outcomes of
    // those that come back travel behind and between the parts of the large one.
    let mut passed = 0;
    let mut id = 1;
    while far.office.count("large") == 0 {
        for way in [&tx, &back] {
            way.try_post(Letter::new("small", id), Told(told.0.clone(), id));
            let (which, failure, _) = soon("an outcome", outcomes.recv()).await.unwrap();
            assert_eq!(failure, None);
            if which == 0 {
                // The large one's own: it is there by now.
                let (which, failure, _) = soon("an outcome", outcomes.recv()).await.unwrap();
                assert_eq!((which, failure), (id, None));
            } else {
                assert_eq!(which, id);
            }
            id += 1;
        }
        passed += 1;
    }
    assert!(passed >= 10, "{passed} small messages passed");
    let came: Vec<_> = far.office.with(|desk| desk.came.clone());
    let at = came.iter().position(|came| came.0 == "large").unwrap();
    assert_eq!((came[at].2, came[at].3), (LARGE, true));
    assert!(at >= 10, "{at} small messages came before the large one");
}

/// As an [`Office`], and keeps the way back.
#[derive(Clone, Default)]
struct Ways {
    office: Office,
    way: std::sync::Arc<parking_lot::Mutex<Option<Outbound<Letter, Told>>>>,
}

impl Ways {
    fn way(&self) -> Option<Outbound<Letter, Told>> {
        self.way.lock().clone()
    }
}

impl hyperactor_channel::Accept<Letter> for Ways {
    type Session = <Office as hyperactor_channel::Accept<Letter>>::Session;
    type Completion = Told;

    fn open(
        &self,
        _: hyperactor_channel::Peer,
        inbound: hyperactor_channel::Inbound,
        outbound: Outbound<Letter, Told>,
    ) -> Self::Session {
        *self.way.lock() = Some(outbound);
        self.office.session(inbound)
    }
}
