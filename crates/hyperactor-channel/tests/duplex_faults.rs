//! Both directions of one session through a proxy that cuts its connections: what is promised of one direction holds for
//! two, at the same time.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use std::sync::atomic::Ordering;

use std::sync::Arc;

use hyperactor_channel::{
    Accept, ChannelRx, ChannelTx, DialOptions, Ignore, Inbound, Outbound, Peer, Postcard, Reason,
    ServeOptions, Status, dial, dial_duplex, serve_duplex, serve_with,
};
use parking_lot::Mutex;
use support::proxy::{Cut, Proxy, Seeded};
use support::{Keeper, KeeperSession, Kind, Message, eventually, settle_delivered, soon};

const COUNT: u64 = 2_000;

async fn send(tx: ChannelTx<Message>, seed: u64) {
    let mut random = Seeded(seed);
    for id in 0..COUNT {
        let size = if random.below(50) == 0 { 20_000 } else { 500 };
        let message = Message::sized(id, random.below(size) as usize);
        if id % 64 == 0 {
            // Waits for its outcome, over however many connections.
            assert!(tx.send(message).await.is_delivered(), "seed {seed}: {id}");
            continue;
        }
        tx.ready().await.unwrap();
        tx.post(message);
    }
    tx.flush().await.unwrap();
}

async fn receive(mut rx: ChannelRx<Message>, seed: u64) -> ChannelRx<Message> {
    for id in 0..COUNT {
        let message = rx.recv().await.unwrap();
        assert_eq!(message.id, id, "seed {seed}");
        assert!(
            message == Message::sized(id, message.body.len()),
            "seed {seed}: {id} is broken"
        );
    }
    assert!(rx.try_recv().is_none(), "seed {seed}: something came twice");
    // Kept until both directions are done: a receiver that is gone refuses.
    rx
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_survive_every_cut() {
    for (kind, seed) in [(Kind::Tcp, 11), (Kind::UnixPath, 12)] {
        let place = kind.place();
        let options = ServeOptions::default();
        let mut listener = serve_duplex::<Message>(place.bind.clone(), options, Postcard)
            .await
            .unwrap();
        let mut random = Seeded(seed);
        let proxy = Proxy::start(listener.addr().clone(), move |number| {
            if number >= 40 {
                return Cut::NEVER;
            }
            Cut {
                up: random.below(50_000),
                down: random.below(50_000),
                is_silent: false,
            }
        })
        .await;
        let (tx, rx) = dial_duplex(proxy.addr.clone(), DialOptions::default(), Postcard);
        let (back, back_rx, _) = soon("the dialer", listener.accept()).await.unwrap();
        soon("everything", async {
            let _ends = tokio::join!(
                send(tx.clone(), seed),
                send(back.clone(), !seed),
                receive(rx, seed),
                receive(back_rx, !seed),
            );
        })
        .await;
        let happened = proxy.cuts.load(Ordering::Relaxed);
        assert!(happened >= 20, "seed {seed}: only {happened} cuts happened");
    }
}

/// Keeps messages, and the way back.
#[derive(Clone, Default)]
struct Closing {
    keeper: Keeper,
    way: Arc<Mutex<Option<Outbound<Message, Ignore>>>>,
}

impl Accept<Message> for Closing {
    type Session = KeeperSession;
    type Completion = Ignore;

    fn open(
        &self,
        peer: Peer,
        inbound: Inbound,
        outbound: Outbound<Message, Ignore>,
    ) -> KeeperSession {
        *self.way.lock() = Some(outbound);
        self.keeper.session(peer, inbound)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_closes_without_a_connection_ends_with_its_last_verdict() {
    let place = Kind::Tcp.place();
    let server = Closing::default();
    let options = ServeOptions::default();
    let handle = serve_with(place.bind.clone(), options, Postcard, server.clone())
        .await
        .unwrap();
    let proxy = Proxy::start(handle.addr().clone(), |_| Cut::NEVER).await;
    let tx: ChannelTx<Message> = dial(proxy.addr.clone());
    tx.post(Message::new(1));
    eventually("it arrived", || server.keeper.len() == 1).await;
    let way = server.way.lock().clone().unwrap();
    drop(proxy);
    let mut status = way.status();
    let lost = status.wait_for(|status| *status != Status::Connected);
    soon("the connection is lost", lost).await.unwrap();
    way.close();
    assert!(!way.is_closed());
    server
        .keeper
        .with(|kept| settle_delivered(&kept.messages[0]));
    assert_eq!(soon("the end", way.closed()).await, Reason::Closed);
}
