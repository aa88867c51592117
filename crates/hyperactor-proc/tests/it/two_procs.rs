//! Two procs with real muxers, joined by a forwarder that encodes every message.

use hyperactor_mailbox::{MailboxSender, Outcome};
use hyperactor_proc::ActorRef;

use crate::common::{Add, Counter, Event, Forward, Gated, Total, Wire, soon};

async fn crosses() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let counter = b.spawn("counter", Counter::default()).unwrap().bind();
    assert_ne!(counter.actor_id().proc_id(), a.proc_id());
    counter.post(&main, Add(1));
    assert_eq!(soon(counter.send(&main, Add(2))).await, Outcome::Delivered);
    counter.feed(&main, Add(3)).await;
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(6));
    // Three and the request out; the reply in.
    assert_eq!(a.traffic().forwarded, 4);
    assert_eq!(a.traffic().received, 1);
    assert_eq!(a.traffic().in_process, 0);
    assert_eq!(b.traffic().forwarded, 1);
    assert_eq!(b.traffic().received, 4);
}

#[tokio::test]
async fn messages_and_replies_cross_between_procs() {
    crosses().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_replies_cross_between_procs_on_two_threads() {
    tokio::spawn(crosses()).await.unwrap();
}

#[tokio::test]
async fn a_reference_that_was_sent_through_another_proc_works_there() {
    let wire = Wire::default();
    let (a, b, c) = (wire.proc("a"), wire.proc("b"), wire.proc("c"));
    let main = a.client("main").unwrap();
    let counter = c.spawn("counter", Counter::default()).unwrap().bind();
    let (relay, _gate, _events) = Gated::new();
    let relay = b.spawn("relay", relay).unwrap();
    let main_b = b.client("main").unwrap();
    let encoded = postcard::to_stdvec(&Forward {
        to: counter.port(),
        number: 5,
    })
    .unwrap();
    let decoded: Forward = postcard::from_bytes(&encoded).unwrap();
    relay.post(&main_b, decoded).unwrap();
    // The relay's message is on its way when the relay has ended in order.
    relay.drain();
    soon(relay.join()).await;
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(5));
}

#[tokio::test]
async fn a_message_to_an_actor_that_is_not_there_comes_back_across() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let (sender, _gate, mut events) = Gated::new();
    let sender = a.spawn("sender", sender).unwrap();
    let main = a.client("main").unwrap();
    let nobody = ActorRef::<Counter>::attest(b.actor_id("nobody"));
    let to = nobody.port();
    sender.post(&main, Forward { to, number: 3 }).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Returned(3)));
    let error = soon(nobody.ask(&main, Total)).await.unwrap_err();
    assert_eq!(error.code(), "unknown-actor");
}

#[tokio::test]
async fn a_message_to_a_proc_that_has_gone_comes_back() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let counter = b.spawn("counter", Counter::default()).unwrap().bind();
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(0));
    wire.cut("b");
    drop(b);
    let error = soon(counter.ask(&main, Total)).await.unwrap_err();
    assert_eq!(error.code(), "proc-gone");
}

#[tokio::test]
async fn an_envelope_for_a_third_proc_is_forwarded_and_its_steps_are_counted() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let counter = b.spawn("counter", Counter::default()).unwrap().bind();
    // As a server would hand it to `a`, which is not its destination.
    let dest = counter.port::<Add>().into_port_id();
    let envelope =
        hyperactor_mailbox::MessageEnvelope::typed(main.actor_id().clone(), dest, Add(8));
    let (return_handle, outcome) = hyperactor_mailbox::ReturnHandle::oneshot();
    a.post(envelope, return_handle);
    assert!(soon(outcome).await.is_ok());
    assert_eq!(a.traffic().forwarded, 1);
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(8));
}

#[tokio::test]
async fn an_envelope_that_goes_round_in_a_circle_ends() {
    use hyperactor_mailbox::{MessageEnvelope, ReturnHandle, SendFailure};
    use hyperactor_proc::Proc;
    use std::sync::{Arc, OnceLock};

    /// Sends everything back to the proc it came from.
    #[derive(Clone, Default)]
    struct Mirror(Arc<OnceLock<Proc>>);
    impl MailboxSender for Mirror {
        fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
            self.0.get().unwrap().post(envelope, return_handle);
        }
    }
    let mirror = Mirror::default();
    let proc = Proc::new("local:7,a".parse().unwrap(), mirror.boxed());
    mirror.0.set(proc.clone()).unwrap();
    let main = proc.client("main").unwrap();
    let elsewhere = "local:7,b,counter[0]".parse::<ActorRef<Counter>>().unwrap();
    let dest = elsewhere.port::<Add>().into_port_id();
    let envelope = MessageEnvelope::typed(main.actor_id().clone(), dest, Add(1));
    let (return_handle, outcome) = ReturnHandle::oneshot();
    proc.post(envelope, return_handle);
    let Err(SendFailure::Returned(report)) = soon(outcome).await else {
        panic!("a circle delivers nothing");
    };
    assert_eq!(report.failure.code(), "ttl-expired");
}

#[tokio::test]
async fn a_message_from_elsewhere_goes_beyond_a_full_queue_only_on_credit() {
    use hyperactor_mailbox::{MessageEnvelope, ReturnHandle, ReturnSink, Token, Undeliverable};
    use hyperactor_proc::{Proc, SpawnOptions};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts as the session of a channel would.
    #[derive(Default)]
    struct Session {
        delivered: AtomicU64,
        released: AtomicU64,
        refused: AtomicU64,
    }
    impl ReturnSink for Session {
        fn delivered(&self, _: Token) {
            self.delivered.fetch_add(1, Ordering::SeqCst);
        }
        fn undelivered(&self, _: Token, _: Undeliverable) {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        fn abandoned(&self, _: Token) {
            panic!("every message has a verdict");
        }
        fn released(&self, _: Token) {
            self.released.fetch_add(1, Ordering::SeqCst);
        }
        fn wants_release(&self) -> bool {
            true
        }
    }
    let proc = Proc::isolated("p");
    let (actor, gate, mut events) = Gated::new();
    let options = SpawnOptions::default().queue_capacity(1);
    let handle = proc.spawn_with("gated", actor, &options).unwrap();
    let gated = handle.bind();
    let session = Arc::new(Session::default());
    let sender = "local:9,elsewhere,sender[0]"
        .parse::<hyperactor_refs::ActorId>()
        .unwrap();
    let arrive = |id| {
        let dest = gated.port::<Add>().into_port_id();
        let envelope = MessageEnvelope::typed(sender.clone(), dest, Add(id));
        let handle = ReturnHandle::new(
            session.clone(),
            Token {
                id,
                size: 9,
                ..Token::default()
            },
        );
        proc.post(envelope, handle);
    };
    arrive(0);
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    // It has been taken out of the queue.
    assert_eq!(session.released.load(Ordering::SeqCst), 1);
    for id in 1..=10 {
        arrive(id);
    }
    assert_eq!(session.delivered.load(Ordering::SeqCst), 11);
    assert_eq!(session.released.load(Ordering::SeqCst), 1);
    handle.stop();
    gate.add_permits(1);
    soon(handle.join()).await;
    // Every credit is back, also that of the messages that were not handled.
    assert_eq!(session.released.load(Ordering::SeqCst), 11);
    assert_eq!(proc.traffic().unhandled, 10);
    arrive(11);
    // What is refused was never placed, so there is nothing to release.
    assert_eq!(session.refused.load(Ordering::SeqCst), 1);
    assert_eq!(session.delivered.load(Ordering::SeqCst), 11);
    assert_eq!(session.released.load(Ordering::SeqCst), 11);
}
