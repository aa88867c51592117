//! Sending within one proc: order, outcomes, bounds, requests, and what is moved rather than encoded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Add, Counter, Event, Forward, Gated, Total, polled_once, soon, workers};
use hyperactor_mailbox::{NotDelivered, Outcome};
use hyperactor_proc::{
    Actor, ActorRef, ActorResult, AskError, Context, Handler, Message, Proc, SpawnOptions,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[tokio::test]
async fn a_handle_and_a_reference_reach_the_same_actor_in_order() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let handle = proc.spawn("counter", Counter::default()).unwrap();
    let counter = handle.bind();
    handle.post(&main, Add(1)).unwrap();
    counter.post(&main, Add(2));
    counter.port::<Add>().post(&main, Add(3));
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(6));
}

/// Keeps what it got.
#[derive(Actor, Default)]
#[actor(messages(Add, Seen))]
struct Recorder(Vec<u64>);

#[derive(Message, Serialize, Deserialize)]
struct Seen(hyperactor_proc::OncePortRef<Vec<u64>>);

impl Handler<Add> for Recorder {
    async fn handle(&mut self, _cx: &Context<Self>, Add(number): Add) -> ActorResult {
        // Lets others in between, which must not change the order.
        tokio::task::yield_now().await;
        self.0.push(number);
        Ok(())
    }
}

impl Handler<Seen> for Recorder {
    async fn handle(&mut self, cx: &Context<Self>, Seen(reply): Seen) -> ActorResult {
        cx.reply(reply, self.0.clone());
        Ok(())
    }
}

/// A second type in the stream, so that runs of one type are cut.
impl Handler<&'static str> for Recorder {
    async fn handle(&mut self, _cx: &Context<Self>, _: &'static str) -> ActorResult {
        Ok(())
    }
}

async fn keeps_the_order() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let handle = proc.spawn("recorder", Recorder::default()).unwrap();
    let recorder = handle.bind();
    for number in 0..10_000_u64 {
        match number % 5 {
            0 => recorder.feed(&main, Add(number)).await,
            1 => assert_eq!(recorder.send(&main, Add(number)).await, Outcome::Delivered),
            _ => handle.feed(&main, Add(number)).await.unwrap(),
        }
        if number % 7 == 0 {
            handle.feed(&main, "between").await.unwrap();
        }
    }
    let seen = soon(recorder.ask(&main, Seen)).await.unwrap();
    assert_eq!(seen, (0..10_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn messages_of_all_kinds_of_one_sender_keep_their_order() {
    soon(keeps_the_order()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_all_kinds_of_one_sender_keep_their_order_on_two_threads() {
    soon(tokio::spawn(keeps_the_order())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_lose_nothing_and_each_keeps_its_order() {
    const SENDERS: u64 = 8;
    const MESSAGES: u64 = 3_000;
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let recorder = proc.spawn("recorder", Recorder::default()).unwrap().bind();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (proc, recorder) = (proc.clone(), recorder.clone());
            tokio::spawn(async move {
                let client = proc.client(&format!("client-{sender}")).unwrap();
                for number in 0..MESSAGES {
                    recorder.feed(&client, Add(sender << 32 | number)).await;
                }
                assert!(client.try_next_undeliverable().is_none());
            })
        })
        .collect();
    for sender in senders {
        soon(sender).await.unwrap();
    }
    let seen = soon(recorder.ask(&main, Seen)).await.unwrap();
    assert_eq!(seen.len() as u64, SENDERS * MESSAGES);
    for sender in 0..SENDERS {
        let own: Vec<_> = seen
            .iter()
            .filter(|number| *number >> 32 == sender)
            .collect();
        assert_eq!(own.len() as u64, MESSAGES);
        assert!(own.is_sorted());
    }
}

/// Counts its encodings.
struct Precious(Arc<AtomicU64>);

impl Message for Precious {
    const TYPE_HASH: u64 = hyperactor_mailbox::type_hash("Precious");
    fn type_name() -> std::borrow::Cow<'static, str> {
        "Precious".into()
    }
}

impl Serialize for Precious {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Precious {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self(Arc::default()))
    }
}

#[derive(Actor)]
#[actor(messages(Precious))]
struct Keeper(tokio::sync::mpsc::UnboundedSender<Precious>);

impl Handler<Precious> for Keeper {
    async fn handle(&mut self, _cx: &Context<Self>, message: Precious) -> ActorResult {
        self.0.send(message).map_err(|_| "the test has ended")?;
        Ok(())
    }
}

#[tokio::test]
async fn a_reference_within_the_proc_moves_the_very_value_and_never_encodes_it() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (kept, mut keeper) = tokio::sync::mpsc::unbounded_channel();
    let actor = proc.spawn("keeper", Keeper(kept)).unwrap().bind();
    let encodings = Arc::new(AtomicU64::new(0));
    actor.post(&main, Precious(Arc::clone(&encodings)));
    let received = soon(keeper.recv()).await.unwrap();
    assert!(Arc::ptr_eq(&received.0, &encodings));
    assert_eq!(encodings.load(Ordering::SeqCst), 0);
    assert_eq!(proc.traffic().in_process, 1);
    assert_eq!(proc.traffic().forwarded, 0);
}

#[tokio::test]
async fn a_reference_survives_text_and_encoding_and_still_works() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let counter = proc.spawn("counter", Counter::default()).unwrap().bind();
    let parsed: ActorRef<Counter> = counter.to_string().parse().unwrap();
    assert_eq!(parsed, counter);
    let bytes = postcard::to_stdvec(&parsed).unwrap();
    let decoded: ActorRef<Counter> = postcard::from_bytes(&bytes).unwrap();
    decoded.post(&main, Add(4));
    assert_eq!(soon(decoded.ask(&main, Total)).await, Ok(4));
}

#[tokio::test]
async fn a_full_queue_gives_a_handles_message_back_and_feed_waits_for_room() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, gate, mut events) = Gated::new();
    let options = SpawnOptions::default().queue_capacity(2);
    let handle = proc.spawn_with("gated", actor, &options).unwrap();
    handle.post(&main, Add(0)).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    handle.post(&main, Add(1)).unwrap();
    handle.post(&main, Add(2)).unwrap();

    let error = handle.post(&main, Add(3)).unwrap_err();
    assert!(error.is_full() && error.is_retryable());
    assert_eq!(error.code(), "queue-full");
    let message = error.into_message();
    assert_eq!(message, Add(3));

    let fed = handle.feed(&main, message);
    tokio::pin!(fed);
    assert!(polled_once(fed.as_mut()).await.is_pending());
    gate.add_permits(1);
    soon(fed).await.unwrap();
}

#[tokio::test]
async fn a_feed_that_is_dropped_while_it_lets_others_go_first_has_sent_its_message() {
    // Several times what a task may do before others have their turn.
    const MESSAGES: u64 = 1_000;
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let handle = proc.spawn("counter", Counter::default()).unwrap();
    let counter = handle.bind();
    let mut waiting = 0;
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..MESSAGES {
        let fed = std::pin::pin!(counter.feed(&main, Add(1)));
        waiting += u64::from(fed.poll(&mut task).is_pending());
    }
    assert!(waiting > 0, "nothing had to wait for its turn");
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(MESSAGES));
}

#[tokio::test]
async fn a_feed_that_is_polled_again_when_it_is_done_takes_no_room() {
    const CAPACITY: usize = 4;
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, gate, mut events) = Gated::new();
    let options = SpawnOptions::default().queue_capacity(CAPACITY);
    let handle = proc.spawn_with("gated", actor, &options).unwrap();
    let reference = handle.bind();
    handle.post(&main, Add(0)).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    // A reference takes the short way from its second message on.
    reference.post(&main, Add(1));
    let mut by_handle = std::pin::pin!(handle.feed(&main, Add(2)));
    let mut by_reference = std::pin::pin!(reference.feed(&main, Add(3)));
    for _ in 0..10 * CAPACITY {
        assert!(soon(polled_once(by_handle.as_mut())).await.is_ready());
        assert!(soon(polled_once(by_reference.as_mut())).await.is_ready());
    }
    handle.post(&main, Add(4)).unwrap();
    assert!(handle.post(&main, Add(5)).unwrap_err().is_full());
    gate.add_permits(5);
}

#[tokio::test]
async fn a_full_queue_gives_a_references_message_back_and_send_and_ask_wait_for_room() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, gate, mut events) = Gated::new();
    let options = SpawnOptions::default().queue_capacity(1);
    let gated = proc.spawn_with("gated", actor, &options).unwrap().bind();
    gated.post(&main, Add(0));
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    gated.post(&main, Add(1));
    gated.post(&main, Add(2));
    let report = soon(main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "queue-full");
    let Ok(Add(2)) = report.envelope.into_message() else {
        panic!("another message came back");
    };

    let sent = gated.send(&main, Add(3));
    tokio::pin!(sent);
    assert!(polled_once(sent.as_mut()).await.is_pending());
    gate.add_permits(1);
    assert_eq!(soon(sent).await, Outcome::Delivered);

    let asked = gated.ask(&main, Total);
    tokio::pin!(asked);
    assert!(polled_once(asked.as_mut()).await.is_pending());
    gate.add_permits(3);
    assert_eq!(soon(asked).await, Ok(0));
}

#[tokio::test]
async fn a_message_to_nobody_comes_back_to_the_actor_that_sent_it_and_kills_it_not() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    let nobody = ActorRef::<Counter>::attest(proc.actor_id("nobody"));
    let to = nobody.port();
    handle.post(&main, Forward { to, number: 7 }).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Returned(7)));
    // It lives on.
    gate.add_permits(1);
    handle.post(&main, Add(8)).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(8)));
}

#[tokio::test]
async fn each_way_of_being_nobody_has_its_own_reason() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();

    let nobody = ActorRef::<Counter>::attest(proc.actor_id("nobody"));
    nobody.post(&main, Add(1));
    let report = soon(main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "unknown-actor");

    let unbound = proc.spawn("unbound", Counter::default()).unwrap();
    let claimed = ActorRef::<Counter>::attest(unbound.actor_id().clone());
    claimed.post(&main, Add(1));
    let report = soon(main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "unknown-port");

    let counter = unbound.bind();
    unbound.stop();
    soon(unbound.join()).await;
    let outcome = soon(counter.send(&main, Add(1))).await;
    let Outcome::NotDelivered(reason) = outcome else {
        panic!("{outcome}");
    };
    let actor_id = counter.actor_id().clone();
    assert_eq!(*reason, NotDelivered::ActorStopped { actor_id });

    let elsewhere = "local:1,elsewhere,counter[0]"
        .parse::<ActorRef<Counter>>()
        .unwrap();
    elsewhere.post(&main, Add(1));
    let report = soon(main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "no-route");
    assert_eq!(proc.traffic().forwarded, 1);
}

#[tokio::test]
async fn a_message_of_another_type_at_a_port_comes_back_as_a_mismatch() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let counter = proc.spawn("counter", Counter::default()).unwrap().bind();
    let claimed = hyperactor_proc::PortRef::<String>::attest(counter.port::<Add>().into_port_id());
    claimed.post(&main, "text".to_owned());
    let report = soon(main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "type-mismatch");
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn an_ask_without_a_reply_ends_at_its_deadline() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, _gate, _events) = Gated::new();
    let gated = proc.spawn("gated", actor).unwrap().bind();
    let deadline = Duration::from_millis(250);
    let start = tokio::time::Instant::now();
    let result = gated.ask_within(&main, deadline, Total).await;
    let target = gated.actor_id().clone();
    assert_eq!(result, Err(AskError::TimedOut { target, deadline }));
    assert_eq!(start.elapsed(), deadline);
}

// The clock stands still in the tests below: an ask that waited for its deadline would still end, and the time would
// show it.

#[tokio::test(start_paused = true)]
async fn an_ask_of_nobody_ends_at_once_with_the_reason() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let start = tokio::time::Instant::now();
    let nobody = ActorRef::<Counter>::attest(proc.actor_id("nobody"));
    let error = nobody.ask(&main, Total).await.unwrap_err();
    assert_eq!(error.code(), "unknown-actor");
    assert!(error.to_string().contains("nobody[0]"), "{error}");
    assert!(start.elapsed().is_zero());
    assert_eq!(hyperactor_mailbox::Mailbox::bound_ports(main.mailbox()), 0);
}

#[tokio::test(start_paused = true)]
async fn an_ask_ends_at_once_when_its_actor_ends_with_the_request_in_its_queue() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, _gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    let gated = handle.bind();
    gated.post(&main, Add(0));
    assert_eq!(events.recv().await, Some(Event::Handling(0)));
    let start = tokio::time::Instant::now();
    let (result, ()) = tokio::join!(gated.ask(&main, Total), async { handle.abort() });
    let target = gated.actor_id().clone();
    let cause = "aborted".to_owned();
    assert_eq!(result, Err(AskError::TargetEnded { target, cause }));
    assert!(start.elapsed().is_zero());
}

#[derive(Actor)]
#[actor(messages(Total))]
struct Failing;

impl Handler<Total> for Failing {
    async fn handle(&mut self, _cx: &Context<Self>, _: Total) -> ActorResult {
        Err("cannot".into())
    }
}

#[tokio::test(start_paused = true)]
async fn an_ask_ends_at_once_when_its_handler_fails() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let failing = proc.spawn("failing", Failing).unwrap().bind();
    let start = tokio::time::Instant::now();
    let result = failing.ask(&main, Total).await;
    let target = failing.actor_id().clone();
    let cause = "failed: cannot".to_owned();
    assert_eq!(result, Err(AskError::TargetEnded { target, cause }));
    assert!(start.elapsed().is_zero());
}

/// Asks another actor while it handles a message of its own.
#[derive(Actor)]
#[actor(messages(Total))]
struct Middle(ActorRef<Counter>);

impl Handler<Total> for Middle {
    async fn handle(&mut self, cx: &Context<Self>, Total(reply): Total) -> ActorResult {
        let total = self.0.ask(cx, Total).await?;
        cx.reply(reply, total + 1);
        Ok(())
    }
}

#[tokio::test]
async fn an_actor_asks_another_with_its_own_context() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let counter = proc.spawn("counter", Counter { total: 41 }).unwrap().bind();
    let middle = proc.spawn("middle", Middle(counter)).unwrap().bind();
    assert_eq!(soon(middle.ask(&main, Total)).await, Ok(42));
}

#[tokio::test]
async fn a_busy_actor_lets_its_neighbours_run() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    // Keeps itself busy for ever: each message posts the next.
    #[derive(Actor)]
    struct Busy;
    impl Handler<u64> for Busy {
        async fn handle(&mut self, cx: &Context<Self>, number: u64) -> ActorResult {
            cx.handle().post(cx, number + 1)?;
            Ok(())
        }
    }
    let busy = proc.spawn("busy", Busy).unwrap();
    busy.post(&main, 0_u64).unwrap();
    let counter = proc.spawn("counter", Counter::default()).unwrap().bind();
    counter.post(&main, Add(1));
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(1));
}

/// Too large to lie in the queue as it is, and of this process only.
struct Large(u64, [u8; 1_000]);

impl Handler<Large> for Recorder {
    async fn handle(&mut self, _cx: &Context<Self>, Large(number, bytes): Large) -> ActorResult {
        if bytes != [number as u8; 1_000] {
            return Err("the message has changed".into());
        }
        self.0.push(number);
        Ok(())
    }
}

#[tokio::test]
async fn long_rows_changing_types_and_large_messages_keep_their_order() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let handle = proc.spawn("recorder", Recorder::default()).unwrap();
    let recorder = handle.bind();
    let total = 2_000;
    for number in 0..total {
        match number {
            // One type for a long time, then two in turn, then rows of a few.
            0..500 => handle.post(&main, Add(number)).unwrap(),
            500..1_000 if number % 2 == 0 => recorder.post(&main, Add(number)),
            500..1_000 => handle
                .post(&main, Large(number, [number as u8; 1_000]))
                .unwrap(),
            _ if number % 7 < 3 => handle
                .post(&main, Large(number, [number as u8; 1_000]))
                .unwrap(),
            _ if number % 7 < 5 => recorder.port::<Add>().post(&main, Add(number)),
            _ => recorder.post(&main, Add(number)),
        }
    }
    let seen = soon(recorder.ask(&main, Seen)).await.unwrap();
    assert_eq!(seen, (0..total).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_an_actor_had_in_hand_and_in_its_queue_comes_back_in_order() {
    for is_aborted in [true, false] {
        let proc = Proc::isolated("p");
        let main = proc.client("main").unwrap();
        let (gated, gate, mut events) = Gated::new();
        let handle = proc.spawn("gated", gated).unwrap();
        let actor = handle.bind();
        for number in 0..300 {
            match number % 3 {
                0 => handle.post(&main, Add(number)).unwrap(),
                1 => actor.post(&main, Add(number)),
                _ => actor.port::<Add>().post(&main, Add(number)),
            }
        }
        // Into the second row of messages, with more of it behind.
        gate.add_permits(100);
        while soon(events.recv()).await != Some(Event::Handling(100)) {}
        if is_aborted {
            handle.abort();
        } else {
            handle.stop();
            gate.add_permits(1);
        }
        soon(handle.join()).await;
        for number in 101..300 {
            let report = soon(main.next_undeliverable()).await;
            assert_eq!(report.failure.code(), "actor-stopped");
            let of = report.envelope.dest().index();
            // What came through a handle has no encoding, and so no port.
            assert_eq!(of == 0, number % 3 == 0, "{number}");
            if of != 0 {
                let Add(back) = report.envelope.into_message().map_err(|(_, e)| e).unwrap();
                assert_eq!(back, number);
            }
        }
        assert!(main.try_next_undeliverable().is_none());
    }
}

#[test]
fn a_stream_of_messages_that_all_fail_leaves_others_their_turn() {
    let runtime = workers(1);
    let turn = runtime.block_on(async {
        let proc = Proc::isolated("p");
        let handle = proc.spawn("counter", Counter::default()).unwrap();
        let counter = handle.bind();
        handle.stop();
        soon(handle.join()).await;
        let (one, two) = (proc.client("one").unwrap(), proc.client("two").unwrap());
        let (running, ran) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            running.send(()).unwrap();
            loop {
                counter.feed(&one, Add(1)).await;
                // The queue is closed, which is known at once.
                drop(handle.feed(&two, Add(1)).await);
            }
        });
        ran.await.unwrap();
        tokio::time::timeout(crate::common::PATIENCE, tokio::spawn(async {})).await
    });
    // A task that never lets go would hold up an orderly end of the runtime.
    runtime.shutdown_background();
    assert!(turn.is_ok(), "another task never had its turn");
}
