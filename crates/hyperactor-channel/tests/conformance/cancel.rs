//! Every wait of this crate, given up at every poll: nothing is lost, nothing comes twice, and whoever waits beside it
//! still gets its turn.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyperactor_channel::transport::{Dial, Listen};
use hyperactor_channel::{
    ChannelTx, DialOptions, Outbound, Outcome, Postcard, Reason, ServeError, ServeOptions,
    dial_duplex, dial_tx, dial_with, serve, serve_duplex, serve_queue, serve_with, transport,
};

use crate::pair;
use crate::support::{Entry, Keeper, Kind, Ledger, Message, eventually, settle_delivered, soon};

/// Polls a future so many times, then drops it. `None` when it had not come to its end by then.
pub(crate) async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    struct Polled<F> {
        future: Pin<Box<F>>,
        left: usize,
    }

    impl<F: Future> Future for Polled<F> {
        type Output = Option<F::Output>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            match self.future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.left == 0 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        }
    }

    let future = Box::pin(future);
    soon(
        "a poll",
        Polled {
            future,
            left: times,
        },
    )
    .await
}

/// More polls than any of these futures needs.
const POLLS_MAX: usize = 50;

pub(crate) async fn a_send_given_up_at_any_poll_sends_once_or_never(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    for polls in 0..POLLS_MAX {
        let sent = polled(polls, tx.send(Message::new(polls as u64))).await;
        // There is room: the first poll posts it, and from there on it goes out whoever waits.
        if polls > 0 {
            assert_eq!(soon("it", rx.recv()).await.unwrap().id, polls as u64);
        }
        if let Some(outcome) = sent {
            assert_eq!(outcome, Outcome::Delivered);
            assert!(rx.try_recv().is_none());
            return;
        }
    }
    panic!("it never came to its end");
}

/// A channel that is full until its receiver settles and releases.
async fn full(
    kind: Kind,
) -> (
    ChannelTx<Message>,
    Keeper,
    hyperactor_channel::ServerHandle,
    crate::support::Place,
    u64,
) {
    let place = kind.place();
    let keeper = Keeper::default();
    let serving = ServeOptions {
        window_messages: 2,
        ..Default::default()
    };
    let server = serve_with(place.bind.clone(), serving, Postcard, keeper.clone())
        .await
        .unwrap();
    let dialling = DialOptions {
        outbox_messages: 2,
        ..Default::default()
    };
    let tx: ChannelTx<Message> = dial_tx(server.addr().clone(), dialling, Postcard);
    let mut posted = 0;
    while tx.try_post(Message::new(posted)).is_ok() {
        posted += 1;
    }
    eventually("two arrived", || keeper.len() == 2).await;
    (tx, keeper, server, place, posted)
}

/// Settles and releases everything from here on, as it comes.
fn open_up(keeper: &Keeper, done: &mut usize) {
    keeper.with(|kept| {
        for entry in &kept.messages[*done..] {
            settle_delivered(entry);
            entry.2.release(entry.1);
        }
        *done = kept.messages.len();
    });
}

pub(crate) async fn a_send_given_up_while_it_waits_for_room_is_not_sent(kind: Kind) {
    let (tx, keeper, _server, _place, posted) = full(kind).await;
    for polls in 0..3 {
        // Nothing makes room: it can only wait.
        let send = tx.send(Message::new(1_000 + polls));
        let mut send = Box::pin(send);
        for _ in 0..polls {
            let once = std::future::poll_fn(|cx| Poll::Ready(send.as_mut().poll(cx).is_ready()));
            assert!(!once.await);
        }
    }
    let mut done = 0;
    // A waiter that was there all along, and those that were given up do not keep it from its room.
    let last = tx.send(Message::new(2_000));
    let mut last = Box::pin(last);
    let outcome = soon("the outcome", async {
        loop {
            open_up(&keeper, &mut done);
            tokio::select! {
                biased;
                outcome = &mut last => return outcome,
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    assert_eq!(outcome, Outcome::Delivered);
    let ids: Vec<u64> = keeper.with(|kept| kept.messages.iter().map(|kept| kept.0.id).collect());
    assert_eq!(ids, (0..posted).chain([2_000]).collect::<Vec<_>>());
}

pub(crate) async fn a_wait_for_room_given_up_leaves_the_room_to_others(kind: Kind) {
    let (tx, keeper, _server, _place, _) = full(kind).await;
    let mut done = 0;
    for polls in 0..POLLS_MAX {
        let others = tx.clone();
        let other = tokio::spawn(async move { others.ready().await });
        let given_up = tx.ready();
        let mut given_up = Box::pin(given_up);
        let mut ended = None;
        for _ in 0..polls {
            open_up(&keeper, &mut done);
            ended = std::future::poll_fn(|cx| match given_up.as_mut().poll(cx) {
                Poll::Ready(ready) => Poll::Ready(Some(ready)),
                Poll::Pending => Poll::Ready(None),
            })
            .await;
            if ended.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(given_up);
        soon("room for the other", async {
            while !other.is_finished() {
                open_up(&keeper, &mut done);
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(other.await.unwrap(), Ok(()));
        if let Some(ready) = ended {
            assert_eq!(ready, Ok(()));
            return;
        }
        // Full again for the next round.
        let mut next = 10_000 * (polls as u64 + 1);
        soon("it to be full again", async {
            while tx.try_post(Message::new(next)).is_ok() {
                next += 1;
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub(crate) async fn a_receive_given_up_at_any_poll_takes_nothing(kind: Kind) {
    const COUNT: u64 = 500;
    let (tx, mut rx, _place) = pair(kind).await;
    let sender = tokio::spawn(async move {
        for id in 0..COUNT {
            // One at a time, so that the receiver often finds nothing.
            assert!(tx.send(Message::new(id)).await.is_delivered());
        }
        tx
    });
    let mut next = 0;
    for round in 0.. {
        if next == COUNT {
            break;
        }
        // Every other round looks once and gives up, the others wait for longer.
        let polls = if round % 2 == 0 { 1 } else { round % 5 };
        match polled(polls, rx.recv()).await {
            Some(message) => {
                assert_eq!(message.unwrap().id, next);
                next += 1;
            }
            None => tokio::task::yield_now().await,
        }
    }
    drop(soon("the sender", sender).await.unwrap());
    assert!(rx.try_recv().is_none());
}

pub(crate) async fn a_flush_given_up_at_any_poll_changes_nothing(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    let mut next = 0;
    for polls in 0..POLLS_MAX {
        for _ in 0..50 {
            tx.post(Message::new(next));
            next += 1;
        }
        let flushed = polled(polls, tx.flush()).await;
        soon("another flush", tx.flush()).await.unwrap();
        while let Some(message) = rx.try_recv() {
            assert!(message.id + 50 >= next);
        }
        if polls > 2 && flushed.is_some() {
            return;
        }
    }
}

pub(crate) async fn a_close_given_up_at_any_poll_goes_on_in_order(kind: Kind) {
    for polls in 0..POLLS_MAX {
        let place = kind.place();
        let options = ServeOptions::default();
        let mut rx = serve_queue::<Message>(place.bind.clone(), options, Postcard)
            .await
            .unwrap();
        let ledger = Ledger::default();
        let tx = dial_with(rx.addr().clone(), DialOptions::default(), Postcard);
        for id in 0..20 {
            tx.try_post(Message::new(id), ledger.urgent(id));
        }
        ledger.all_settled().await;
        let closed = polled(polls, rx.close()).await;
        if polls > 0 {
            // Told goodbye, and not left to find out.
            assert_eq!(soon("the end", tx.closed()).await, Reason::PeerClosed);
        }
        for id in 0..20 {
            assert_eq!(soon("what was placed", rx.recv()).await.unwrap().id, id);
        }
        if polls > 0 {
            assert_eq!(soon("the end", rx.recv()).await, None);
        }
        if closed.is_some() {
            return;
        }
    }
    panic!("it never came to its end");
}

pub(crate) async fn a_stop_given_up_at_any_poll_goes_on_in_order(kind: Kind) {
    for polls in 1..POLLS_MAX {
        let place = kind.place();
        let keeper = Keeper::default();
        let options = ServeOptions::default();
        let server = serve_with(place.bind.clone(), options, Postcard, keeper.clone())
            .await
            .unwrap();
        let ledger = Ledger::default();
        let tx = dial_with(server.addr().clone(), DialOptions::default(), Postcard);
        tx.try_post(Message::new(0), ledger.line(0));
        eventually("it arrived", || keeper.len() == 1).await;
        keeper.with(|kept| settle_delivered(&kept.messages[0]));
        let stopped = polled(polls, server.stop()).await;
        assert_eq!(soon("the end", tx.closed()).await, Reason::PeerClosed);
        assert_eq!(ledger.of(0), Entry::Delivered);
        if stopped.is_some() {
            return;
        }
    }
    panic!("it never came to its end");
}

pub(crate) async fn a_wait_for_the_end_given_up_at_any_poll_ends_nothing(kind: Kind) {
    let (tx, mut rx, _place) = pair(kind).await;
    for polls in 0..3_usize {
        let mut closed = Box::pin(tx.closed());
        for _ in 0..polls {
            let once = std::future::poll_fn(|cx| Poll::Ready(closed.as_mut().poll(cx).is_ready()));
            assert!(!once.await);
        }
        drop(closed);
        let sent = soon("the outcome", tx.send(Message::new(polls as u64))).await;
        assert_eq!(sent, Outcome::Delivered);
        assert_eq!(rx.recv().await.unwrap().id, polls as u64);
    }
    tx.close();
    assert_eq!(soon("the end", tx.closed()).await, Reason::Closed);
}

pub(crate) async fn serving_given_up_before_it_returns_binds_nothing(kind: Kind) {
    // An address that is free: one that was served, and is not any more.
    let place = kind.place();
    let (addr, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
    soon("the end", rx.close()).await;
    drop(rx);
    for polls in 0..POLLS_MAX {
        let bound = polled(polls, serve::<Message>(addr.clone())).await;
        match bound {
            None => {}
            Some(result) => {
                let (bound, _rx) = result.unwrap();
                assert_eq!(bound, addr);
                let second = serve::<Message>(addr.clone()).await;
                assert!(matches!(second, Err(ServeError::AddrInUse { .. })));
                return;
            }
        }
    }
    panic!("it never came to its end");
}

pub(crate) async fn an_accept_given_up_at_any_poll_loses_no_dialer(kind: Kind) {
    const DIALERS: u64 = 30;
    let place = kind.place();
    let mut listener =
        serve_duplex::<Message>(place.bind.clone(), ServeOptions::default(), Postcard)
            .await
            .unwrap();
    let dialled: Vec<_> = (0..DIALERS)
        .map(|id| {
            let pair = dial_duplex(listener.addr().clone(), DialOptions::default(), Postcard);
            pair.0.post(Message::new(id));
            pair
        })
        .collect();
    let mut accepted = Vec::new();
    for round in 0.. {
        if accepted.len() as u64 == DIALERS {
            break;
        }
        match polled(round % 4, listener.accept()).await {
            Some(pair) => accepted.push(pair.unwrap()),
            None => tokio::task::yield_now().await,
        }
    }
    let mut ids = Vec::new();
    for (_, rx, _) in &mut accepted {
        ids.push(soon("its message", rx.recv()).await.unwrap().id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..DIALERS).collect::<Vec<_>>());
    drop(dialled);
}

pub(crate) async fn a_stream_accept_given_up_at_any_poll_loses_no_connection(kind: Kind) {
    const COUNT: usize = 20;
    let place = kind.place();
    let (mut listening, dialer): (Box<dyn Listen>, Box<dyn Dial>) = match kind {
        Kind::Local => return,
        Kind::Tcp => (
            Box::new(transport::TcpListening::bind(&place.bind, false).unwrap()),
            Box::new(transport::TcpDialer),
        ),
        Kind::UnixPath | Kind::UnixAbstract => (
            Box::new(transport::UnixListening::bind(&place.bind).unwrap()),
            Box::new(transport::UnixDialer),
        ),
    };
    let addr = listening.addr().clone();
    let mut kept = Vec::new();
    let mut accepted = 0;
    for round in 0.. {
        if accepted == COUNT {
            break;
        }
        if kept.len() < COUNT {
            // A dial that is given up makes no connection that anybody keeps: only whole ones are counted.
            kept.push(soon("the stream", dialer.dial(&addr)).await.unwrap());
        }
        let polls = if kept.len() < COUNT {
            round % 3
        } else {
            POLLS_MAX
        };
        if let Some(stream) = polled(polls, listening.accept()).await {
            drop(stream.unwrap());
            accepted += 1;
        }
    }
    assert_eq!(kept.len(), COUNT);
}

pub(crate) async fn low_level_waits_given_up_at_any_poll_lose_nothing(kind: Kind) {
    let place = kind.place();
    let keeper = Keeper::default();
    let options = ServeOptions::default();
    let server = serve_with(place.bind.clone(), options, Postcard, keeper.clone())
        .await
        .unwrap();
    let ledger = Ledger::default();
    let options = DialOptions {
        outbox_messages: 4,
        ..Default::default()
    };
    let tx: Outbound<Message, _> = dial_with(server.addr().clone(), options, Postcard);
    for id in 0..4 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    let refused = tx.offer(Message::new(4), ledger.line(4)).unwrap_err();
    assert_eq!(refused.reason, Reason::Full);
    refused.completion.forget();
    let capacity = tx.capacity_for(&refused.message);
    for polls in 0..3 {
        assert!(none_within(polls, capacity.available()).await);
        assert!(none_within(polls, tx.ready()).await);
        assert!(none_within(polls, tx.flush()).await);
        assert!(none_within(polls, tx.closed()).await);
    }
    eventually("all arrived", || keeper.len() == 4).await;
    keeper.with(|kept| kept.messages.iter().for_each(settle_delivered));
    soon("room", capacity.available()).await;
    soon("room", tx.ready()).await.unwrap();
    soon("the flush", tx.flush()).await.unwrap();
    for id in 0..4 {
        assert_eq!(ledger.of(id), Entry::Delivered);
    }
}

/// Polls a future that cannot come to its end, so many times, and drops it.
async fn none_within<F: Future>(polls: usize, future: F) -> bool {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let once = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready()));
        if once.await {
            return false;
        }
    }
    true
}
