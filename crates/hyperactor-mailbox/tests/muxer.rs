//! The muxer: who is there, who was there, and many threads at once.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use common::{Cx, actor, post_and_see, reason};
use hyperactor_mailbox::{
    BindError, Mailbox, MailboxMuxer, MailboxSender, MessageEnvelope, PortSink, ReturnHandle,
    limits,
};
use hyperactor_refs::PortId;

fn envelope(name: &str) -> MessageEnvelope {
    MessageEnvelope::typed(actor("s"), PortId::new(actor(name), 1), 1_u64)
}

#[test]
fn an_actor_is_bound_once() {
    let muxer = MailboxMuxer::new();
    muxer.bind(Mailbox::new(actor("a"))).unwrap();
    let error = muxer.bind(Mailbox::new(actor("a"))).unwrap_err();
    assert_eq!(
        error,
        BindError::ActorTaken {
            actor_id: actor("a")
        }
    );
    assert_eq!(muxer.get(&actor("a")).unwrap().actor_id(), &actor("a"));
    assert_eq!(muxer.actor_ids(), [actor("a")]);
    assert!(muxer.unbind(&actor("a")).is_some());
    assert!(muxer.unbind(&actor("a")).is_none());
    assert!(muxer.is_empty());
}

#[test]
fn a_name_that_is_bound_again_lives_again() {
    let muxer = MailboxMuxer::new();
    for _ in 0..3 {
        muxer.bind(Mailbox::new(actor("a"))).unwrap();
        let report = post_and_see(&muxer, envelope("a")).unwrap_err();
        assert_eq!(reason(&report).code(), "unknown-port");
        muxer.unbind(&actor("a"));
        let report = post_and_see(&muxer, envelope("a")).unwrap_err();
        assert_eq!(reason(&report).code(), "actor-stopped");
    }
}

/// Counts what is placed.
#[derive(Default)]
struct Count(AtomicUsize);

impl PortSink for Count {
    fn deliver(&self, _: MessageEnvelope, return_handle: ReturnHandle) {
        self.0.fetch_add(1, Ordering::Relaxed);
        drop(return_handle.delivered());
    }
}

/// However often its messages went to a port before, a stream of them follows what becomes of it.
#[test]
fn what_was_found_for_a_stream_counts_no_more_when_it_has_gone() {
    const EXPORTED: u64 = 1 << 63 | 7;
    let muxer = MailboxMuxer::new();
    let dest = PortId::new(actor("a"), EXPORTED);
    let envelope = || MessageEnvelope::typed(actor("s"), dest.clone(), 1_u64);
    let bind = |mailbox: &Mailbox| {
        let sink = Arc::new(Count::default());
        mailbox.bind_sink(EXPORTED, Arc::clone(&sink) as _).unwrap();
        sink
    };
    let stream = |sink: &Count| {
        for _ in 0..10 {
            post_and_see(&muxer, envelope()).unwrap();
        }
        assert_eq!(sink.0.swap(0, Ordering::Relaxed), 10);
    };
    let refused = || reason(&post_and_see(&muxer, envelope()).unwrap_err()).code();

    let mailbox = Mailbox::new(actor("a"));
    let first = bind(&mailbox);
    muxer.bind(mailbox.clone()).unwrap();
    stream(&first);
    // The port goes, and another one takes its place.
    mailbox.unbind_sink(EXPORTED).unwrap();
    assert_eq!(refused(), "unknown-port");
    let second = bind(&mailbox);
    stream(&second);
    // The actor goes, with its mailbox open, and another one takes its name.
    muxer.unbind(&actor("a")).unwrap();
    assert_eq!(refused(), "actor-stopped");
    let next = Mailbox::new(actor("a"));
    let third = bind(&next);
    muxer.bind(next.clone()).unwrap();
    stream(&third);
    // The mailbox is closed while the actor is bound.
    next.close();
    assert_eq!(refused(), "actor-stopped");
    assert_eq!(first.0.load(Ordering::Relaxed), 0);
    assert_eq!(
        Arc::strong_count(&third),
        1,
        "what is remembered is kept alive"
    );
}

/// Ports of different actors that share a place of what is remembered are not taken for each other.
#[test]
fn a_stream_to_many_ports_in_turns_reaches_each_of_them() {
    let muxer = MailboxMuxer::new();
    let names: Vec<_> = (0..4 * limits::RECENT_PORTS)
        .map(|at| format!("a{at}"))
        .collect();
    let counts: Vec<_> = names
        .iter()
        .map(|name| {
            let mailbox = Mailbox::new(actor(name));
            let count = Arc::new(Count::default());
            mailbox.bind_sink(1 << 63, Arc::clone(&count) as _).unwrap();
            muxer.bind(mailbox).unwrap();
            count
        })
        .collect();
    for turn in [1, 1, 3, 1] {
        for (name, count) in names.iter().zip(&counts) {
            for _ in 0..turn {
                let dest = PortId::new(actor(name), 1 << 63);
                let envelope = MessageEnvelope::typed(actor("s"), dest, 1_u64);
                post_and_see(&muxer, envelope).unwrap();
            }
            assert_eq!(count.0.swap(0, Ordering::Relaxed), turn);
        }
    }
}

#[test]
fn the_memory_of_the_departed_is_bounded() {
    let muxer = MailboxMuxer::new();
    let count = 2 * limits::DEPARTED_ACTORS;
    for number in 0..count {
        let actor_id = actor(&number.to_string());
        muxer.bind(Mailbox::new(actor_id.clone())).unwrap();
        muxer.unbind(&actor_id).unwrap();
    }
    let remembered = (0..count)
        .filter(|number| {
            let report = post_and_see(&muxer, envelope(&number.to_string())).unwrap_err();
            reason(&report).code() == "actor-stopped"
        })
        .count();
    assert!(
        remembered <= limits::DEPARTED_ACTORS,
        "{remembered} are remembered"
    );
    assert!(
        remembered > limits::DEPARTED_ACTORS / 2,
        "only {remembered} are remembered"
    );
    let last = post_and_see(&muxer, envelope(&(count - 1).to_string())).unwrap_err();
    assert_eq!(reason(&last).code(), "actor-stopped");
}

#[test]
fn many_threads_post_and_each_ones_order_is_kept() {
    const THREADS: u64 = 4;
    const EACH: u64 = 2_000;
    let muxer = MailboxMuxer::new();
    let mailbox = Mailbox::with_capacity(actor("receiver"), (THREADS * EACH) as usize);
    let (port, mut receiver) = mailbox.open_port::<(u64, u64)>();
    let port = port.bind();
    muxer.bind(mailbox).unwrap();
    let barrier = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (muxer, port, barrier) = (&muxer, &port, &barrier);
            scope.spawn(move || {
                let cx = Cx::new(muxer, &format!("sender-{thread}"));
                barrier.wait();
                for number in 0..EACH {
                    port.post(&cx, (thread, number));
                }
            });
        }
    });
    let mut next = [0; THREADS as usize];
    while let Some((thread, number)) = receiver.try_recv() {
        assert_eq!(number, next[thread as usize]);
        next[thread as usize] += 1;
    }
    assert_eq!(next, [EACH; THREADS as usize]);
}

#[test]
fn every_post_has_one_outcome_while_actors_come_and_go() {
    const ROUNDS: u64 = 500;
    let muxer = MailboxMuxer::new();
    let barrier = Barrier::new(3);
    let outcomes = std::thread::scope(|scope| {
        let posters: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    (0..ROUNDS)
                        .filter(|_| post_and_see(&muxer, envelope("a")).is_ok())
                        .count()
                })
            })
            .collect();
        barrier.wait();
        let mut placed = 0;
        for _ in 0..ROUNDS {
            let mailbox = Mailbox::new(actor("a"));
            let queue = hyperactor_mailbox::Queue::<u64>::new(8);
            let sink = Arc::new(Sink(queue.clone()));
            mailbox.bind_sink(1, sink).unwrap();
            muxer.bind(mailbox.clone()).unwrap();
            std::thread::yield_now();
            muxer.unbind(&actor("a")).unwrap();
            mailbox.close();
            placed += queue.close().len();
        }
        let delivered: usize = posters
            .into_iter()
            .map(|poster| poster.join().unwrap())
            .sum();
        (placed, delivered)
    });
    // What was reported delivered was placed, and the other way round.
    assert_eq!(outcomes.0, outcomes.1);
}

struct Sink(hyperactor_mailbox::Queue<u64>);

impl PortSink for Sink {
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let dest = envelope.dest().clone();
        let (message, head) = envelope.split::<u64>().unwrap();
        if let Err((error, return_handle)) = self.0.place(message, return_handle) {
            let payload = hyperactor_mailbox::Payload::typed(error.into_inner());
            let reason = hyperactor_mailbox::NotDelivered::UnknownPort { port_id: dest };
            return_handle.undeliverable(head.with_payload(payload), reason);
        }
    }
}

#[tokio::test]
async fn everything_is_settled_when_a_post_returns_so_a_flush_is_ready() {
    let muxer = MailboxMuxer::new();
    assert_eq!(muxer.flush().await, Ok(()));
    assert_eq!(Mailbox::new(actor("a")).flush().await, Ok(()));
}
