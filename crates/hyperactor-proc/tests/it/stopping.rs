//! Stop, drain and abort, of an actor and of a proc, and what becomes of the messages that are then left.

use std::time::Duration;

use hyperactor_mailbox::Outcome;
use hyperactor_proc::{Actor, ActorResult, ActorStatus, Context, Handler, Proc, Undeliverable};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::common::{Add, Counter, Event, Forward, Gated, Total, soon, workers};

fn number(report: Undeliverable) -> u64 {
    match report.envelope.into_message() {
        Ok(Add(number)) => number,
        Err((_, error)) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_stop_goes_ahead_of_the_queue_and_what_was_queued_comes_back() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    let gated = handle.bind();
    gated.post(&main, Add(0));
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    for number in 1..=100 {
        gated.post(&main, Add(number));
    }
    handle.stop();
    gate.add_permits(1000);
    assert!(soon(handle.join()).await.is_orderly());

    // The message in hand was finished, none behind it was begun.
    assert_eq!(soon(events.recv()).await, Some(Event::Handled(0)));
    assert_eq!(soon(events.recv()).await, Some(Event::Dropped));
    for expected in 1..=100 {
        let report = main.try_next_undeliverable().unwrap();
        assert_eq!(report.failure.code(), "actor-stopped");
        assert_eq!(number(report), expected);
    }
    assert!(main.try_next_undeliverable().is_none());
    assert_eq!(proc.traffic().unhandled, 100);
}

#[tokio::test]
async fn an_actor_that_fails_while_it_ends_is_named_in_the_report() {
    #[derive(Actor)]
    struct Failing;
    impl Handler<u8> for Failing {
        async fn handle(&mut self, _cx: &Context<Self>, _: u8) -> ActorResult {
            Err("cannot".into())
        }
    }
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let handle = proc.spawn("failing", Failing).unwrap();
    handle.post(&main, 1_u8).unwrap();
    let report = soon(proc.stop(Duration::from_secs(5))).await;
    assert!(!report.is_clean());
    assert_eq!(report.failed[0].0, *handle.actor_id());
    assert_eq!(report.failed[0].1.to_string(), "failed: cannot");
}

#[tokio::test]
async fn what_was_queued_by_an_actor_comes_back_to_that_actor() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (slow, _gate, mut slow_events) = Gated::new();
    let slow = proc.spawn("slow", slow).unwrap();
    let (sender, gate, mut sender_events) = Gated::new();
    let sender = proc.spawn("sender", sender).unwrap();
    for number in 0..3 {
        let to = slow.bind().port();
        sender.post(&main, Forward { to, number }).unwrap();
    }
    assert_eq!(soon(slow_events.recv()).await, Some(Event::Handling(0)));
    // The sender has forwarded all three when it comes to this.
    sender.post(&main, Add(9)).unwrap();
    assert_eq!(soon(sender_events.recv()).await, Some(Event::Handling(9)));
    slow.abort();
    soon(slow.join()).await;
    gate.add_permits(1);
    assert_eq!(soon(sender_events.recv()).await, Some(Event::Handled(9)));
    assert_eq!(soon(sender_events.recv()).await, Some(Event::Returned(1)));
    assert_eq!(soon(sender_events.recv()).await, Some(Event::Returned(2)));
    assert_eq!(proc.traffic().unhandled, 2);
}

#[tokio::test]
async fn a_local_message_without_an_encoding_comes_back_as_its_type() {
    struct Opaque;
    impl Handler<Opaque> for Gated {
        async fn handle(&mut self, _cx: &Context<Self>, _: Opaque) -> ActorResult {
            Ok(())
        }
    }
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, _gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    handle.post(&main, Add(0)).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    assert!(handle.post(&main, Opaque).is_ok());
    handle.abort();
    soon(handle.join()).await;
    let report = soon(main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "actor-stopped");
    let payload = format!("{:?}", report.envelope.payload());
    assert!(payload.contains("Opaque"), "{payload}");
}

#[tokio::test]
async fn a_drain_handles_what_is_queued_and_refuses_what_comes_after() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    let gated = handle.bind();
    for number in 0..200 {
        gated.post(&main, Add(number));
    }
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    handle.drain();
    gate.add_permits(1);
    // Between two messages it has seen the wish.
    soon(
        handle
            .status()
            .wait_for(|status| matches!(status, ActorStatus::Ending)),
    )
    .await
    .unwrap();
    assert_eq!(
        handle.post(&main, Add(999)).unwrap_err().code(),
        "actor-stopped"
    );
    assert!(matches!(
        soon(gated.send(&main, Add(999))).await,
        Outcome::NotDelivered(_)
    ));
    gate.add_permits(1000);
    assert!(soon(handle.join()).await.is_orderly());
    let mut handled = Vec::new();
    while let Some(event) = soon(events.recv()).await {
        if let Event::Handled(number) = event {
            handled.push(number);
        }
    }
    assert_eq!(handled, (0..200).collect::<Vec<_>>());
    assert_eq!(proc.traffic().unhandled, 0);
}

#[tokio::test]
async fn a_drain_still_looks_at_what_came_back_of_the_last_message() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, _gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    let nobody = hyperactor_proc::ActorRef::<Counter>::attest(proc.actor_id("nobody"));
    let to = nobody.port();
    handle.post(&main, Forward { to, number: 5 }).unwrap();
    handle.drain();
    assert!(soon(handle.join()).await.is_orderly());
    assert_eq!(soon(events.recv()).await, Some(Event::Returned(5)));
}

#[tokio::test]
async fn a_stop_overrides_a_drain_and_an_abort_overrides_both() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, _gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    for number in 0..10 {
        handle.post(&main, Add(number)).unwrap();
    }
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    handle.drain();
    handle.stop();
    handle.abort();
    assert_eq!(soon(handle.join()).await.code(), "aborted");
    assert_eq!(soon(events.recv()).await, Some(Event::Dropped));
}

#[tokio::test]
async fn an_actor_stops_itself() {
    #[derive(Actor)]
    struct Once;
    impl Handler<u8> for Once {
        async fn handle(&mut self, cx: &Context<Self>, _: u8) -> ActorResult {
            cx.stop();
            Ok(())
        }
    }
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let handle = proc.spawn("once", Once).unwrap();
    handle.post(&main, 1_u8).unwrap();
    handle.post(&main, 2_u8).unwrap();
    assert!(soon(handle.join()).await.is_orderly());
    assert_eq!(proc.traffic().unhandled, 1);
}

#[tokio::test]
async fn a_proc_drains_its_actors_parents_first_and_reports_a_clean_end() {
    /// Hands every message to a child.
    #[derive(Actor)]
    #[actor(hooks)]
    struct Delegating {
        child: Option<hyperactor_proc::ActorHandle<Gated>>,
        actor: Option<Gated>,
    }
    impl Actor for Delegating {
        async fn init(&mut self, cx: &Context<Self>) -> ActorResult {
            self.child = self.actor.take().map(|actor| cx.spawn(actor)).transpose()?;
            Ok(())
        }
    }
    impl Handler<Add> for Delegating {
        async fn handle(&mut self, cx: &Context<Self>, message: Add) -> ActorResult {
            if let Some(child) = &self.child {
                child.feed(cx, message).await?;
            }
            Ok(())
        }
    }
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, gate, mut events) = Gated::new();
    gate.add_permits(1000);
    let delegating = Delegating {
        child: None,
        actor: Some(actor),
    };
    let handle = proc.spawn("delegating", delegating).unwrap();
    for number in 0..100 {
        handle.post(&main, Add(number)).unwrap();
    }
    // The child may be spawned only now: an actor may need one to handle what is in its queue.
    let report = soon(proc.stop(Duration::from_secs(30))).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.drained[0], *handle.actor_id());
    let mut handled = 0;
    while let Some(event) = soon(events.recv()).await {
        handled += u64::from(matches!(event, Event::Handled(_)));
    }
    assert_eq!(handled, 100);
    let error = proc.spawn("late", Counter::default()).unwrap_err();
    assert_eq!(error.code(), "proc-stopping");
}

/// Ends only in the way it was made for.
#[derive(Actor)]
struct Stubborn(mpsc::UnboundedSender<()>);

impl Handler<Duration> for Stubborn {
    async fn handle(&mut self, _cx: &Context<Self>, time: Duration) -> ActorResult {
        self.0.send(()).map_err(|_| "the test has ended")?;
        tokio::time::sleep(time).await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_proc_goes_from_drain_to_stop_to_abort_within_its_deadline() {
    let deadline = Duration::from_secs(10);
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (begun, mut beginning) = mpsc::unbounded_channel();
    // Two messages of four seconds: drained in the first half only up to one, stopped after it.
    for (name, time) in [("quick", 0), ("slow", 4), ("hung", 3600)] {
        let handle = proc.spawn(name, Stubborn(begun.clone())).unwrap();
        for _ in 0..2 {
            handle.post(&main, Duration::from_secs(time)).unwrap();
        }
        beginning.recv().await.unwrap();
    }
    let start = Instant::now();
    let report = proc.stop(deadline).await;
    assert_eq!(start.elapsed(), deadline);
    assert_eq!(report.drained, [proc.actor_id("quick")]);
    assert_eq!(report.stopped, [proc.actor_id("slow")]);
    assert_eq!(report.aborted, [proc.actor_id("hung")]);
    assert!(report.stuck.is_empty());
    assert_eq!(report.unhandled, 1);
    assert!(!report.is_clean());
    // A second call finds nothing to do.
    let again = proc.stop(deadline).await;
    assert!(again.drained.is_empty());
    assert_eq!(start.elapsed(), deadline);
}

#[test]
fn an_actor_that_blocks_its_thread_is_reported_as_stuck() {
    #[derive(Actor)]
    struct Blocking(std::sync::mpsc::Receiver<()>, mpsc::UnboundedSender<()>);
    impl Handler<()> for Blocking {
        async fn handle(&mut self, _cx: &Context<Self>, (): ()) -> ActorResult {
            self.1.send(()).map_err(|_| "the test has ended")?;
            Ok(self.0.recv()?)
        }
    }
    workers(2).block_on(async {
        let proc = Proc::isolated("p");
        let main = proc.client("main").unwrap();
        let (release, blocked) = std::sync::mpsc::channel();
        let (begun, mut beginning) = mpsc::unbounded_channel();
        let handle = proc.spawn("blocking", Blocking(blocked, begun)).unwrap();
        handle.post(&main, ()).unwrap();
        soon(beginning.recv()).await.unwrap();
        let report = soon(proc.stop(Duration::from_millis(20))).await;
        assert_eq!(report.stuck, [proc.actor_id("blocking")]);
        release.send(()).unwrap();
        soon(handle.join()).await;
    });
}

#[tokio::test]
async fn an_actor_is_stopped_while_it_has_a_million_messages() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (actor, gate, mut events) = Gated::new();
    let options = hyperactor_proc::SpawnOptions::default().queue_capacity(1_000_000);
    let handle = proc.spawn_with("gated", actor, &options).unwrap();
    handle.post(&main, Add(0)).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    for number in 1..=1_000_000 {
        handle.post(&main, Add(number)).unwrap();
    }
    drop(main);
    handle.stop();
    gate.add_permits(1);
    assert!(soon(handle.join()).await.is_orderly());
    assert_eq!(soon(events.recv()).await, Some(Event::Handled(0)));
    assert_eq!(soon(events.recv()).await, Some(Event::Dropped));
    assert_eq!(proc.traffic().unhandled, 1_000_000);
}

#[tokio::test]
async fn an_ask_after_the_stop_of_a_proc_is_refused() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let counter = proc.spawn("counter", Counter::default()).unwrap().bind();
    soon(proc.stop(Duration::from_secs(5))).await;
    let error = soon(counter.ask(&main, Total)).await.unwrap_err();
    assert_eq!(error.code(), "actor-stopped");
}

/// Counts what it handled.
#[derive(Actor)]
#[actor(messages(Add))]
struct Tally(std::sync::Arc<std::sync::Mutex<Vec<u64>>>);

impl Handler<Add> for Tally {
    async fn handle(&mut self, _cx: &Context<Self>, Add(number): Add) -> ActorResult {
        self.0.lock().unwrap().push(number);
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_to_an_actor_that_is_being_stopped_is_handled_or_comes_back_once() {
    const SENDERS: u64 = 4;
    const MESSAGES: u64 = 500;
    for round in 0..20 {
        let proc = Proc::isolated("p");
        let handled = std::sync::Arc::default();
        let handle = proc
            .spawn("tally", Tally(std::sync::Arc::clone(&handled)))
            .unwrap();
        let tally = handle.bind();
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (proc, tally, handle) = (proc.clone(), tally.clone(), handle.clone());
                tokio::spawn(async move {
                    let client = proc.client(&format!("client-{sender}")).unwrap();
                    let mut returned = Vec::new();
                    for message in 0..MESSAGES {
                        let id = sender * MESSAGES + message;
                        if message % 2 == 0 {
                            tally.post(&client, Add(id));
                        } else if let Err(error) = handle.post(&client, Add(id)) {
                            returned.push(error.into_message().0);
                        }
                        if message == 100 + 10 * round && sender == 0 {
                            handle.stop();
                        }
                        if message % 16 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    handle.join().await;
                    while let Some(report) = client.try_next_undeliverable() {
                        // A message through a handle comes back without an encoding of its own, as its value.
                        let (head, payload) = report.envelope.into_parts();
                        let hyperactor_mailbox::Payload::Typed(message) = payload else {
                            panic!("{} was encoded", head.dest());
                        };
                        returned.push(message.into_any().downcast::<Add>().unwrap().0);
                    }
                    returned
                })
            })
            .collect();
        let mut all = Vec::new();
        for sender in senders {
            all.extend(soon(sender).await.unwrap());
        }
        all.extend(handled.lock().unwrap().drain(..));
        all.sort_unstable();
        assert_eq!(
            all,
            (0..SENDERS * MESSAGES).collect::<Vec<_>>(),
            "round {round}"
        );
    }
}
