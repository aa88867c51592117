//! What a full queue does, by the policy of its actor, and which messages go first.

use crate::common::{Add, Wire, polled_once, soon};
use hyperactor_mailbox::{Outcome, limits as mailbox_limits};
use hyperactor_proc::{
    Actor, ActorHandle, ActorRef, ActorResult, Client, Context, Handler, Message, OncePortRef,
    Overflow, Proc, SpawnOptions, Undeliverable,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Handles one message a permit, and tells its number.
#[derive(Actor)]
#[actor(messages(Add, Steer, Question))]
struct Slow {
    gate: Arc<Semaphore>,
    handled: mpsc::UnboundedSender<u64>,
}

impl Slow {
    async fn pass(&self, number: u64) -> ActorResult {
        self.gate.acquire().await?.forget();
        self.handled.send(number)?;
        Ok(())
    }
}

impl Handler<Add> for Slow {
    async fn handle(&mut self, _cx: &Context<Self>, Add(number): Add) -> ActorResult {
        self.pass(number).await
    }
}

/// Of class `Control` where a test says so.
#[derive(Message, Serialize, Deserialize)]
struct Steer(u64);

impl Handler<Steer> for Slow {
    async fn handle(&mut self, _cx: &Context<Self>, Steer(number): Steer) -> ActorResult {
        self.pass(number).await
    }
}

#[derive(Message, Serialize, Deserialize)]
struct Question(u64, OncePortRef<u64>);

impl Handler<Question> for Slow {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        Question(number, reply): Question,
    ) -> ActorResult {
        self.pass(number).await?;
        cx.reply(reply, number);
        Ok(())
    }
}

struct Bench {
    proc: Proc,
    main: Client,
    handle: ActorHandle<Slow>,
    actor: ActorRef<Slow>,
    gate: Arc<Semaphore>,
    handled: mpsc::UnboundedReceiver<u64>,
}

impl Bench {
    fn new(options: &SpawnOptions) -> Self {
        Self::in_proc(Proc::isolated("p"), options)
    }

    fn in_proc(proc: Proc, options: &SpawnOptions) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let (tell, handled) = mpsc::unbounded_channel();
        let slow = Slow {
            gate: Arc::clone(&gate),
            handled: tell,
        };
        let handle = proc.spawn_with("slow", slow, options).unwrap();
        Self {
            main: proc.client("main").unwrap(),
            actor: handle.bind(),
            proc,
            handle,
            gate,
            handled,
        }
    }

    /// Message 0 is in hand, and the queue is empty.
    async fn begun(options: &SpawnOptions) -> Self {
        let bench = Self::new(options);
        bench.handle.post(&bench.main, Add(0)).unwrap();
        bench.begin().await;
        bench
    }

    async fn begin(&self) {
        // The handler waits at the gate once the queue is empty: it is the only message.
        while self.handle.queued() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Lets everything pass, and gives what was handled.
    async fn rest(mut self) -> Vec<u64> {
        self.gate.add_permits(1_000);
        self.handle.drain();
        soon(self.handle.join()).await;
        let mut handled = Vec::new();
        while let Ok(number) = self.handled.try_recv() {
            handled.push(number);
        }
        handled
    }
}

fn full(overflow: Overflow) -> SpawnOptions {
    SpawnOptions::default().queue_capacity(3).overflow(overflow)
}

fn number_of(report: Undeliverable) -> u64 {
    let Ok(Add(number)) = report.envelope.into_message() else {
        panic!("what came back is another message");
    };
    number
}

#[tokio::test]
async fn by_default_a_full_queue_lets_those_wait_that_can_and_refuses_a_post() {
    let bench = Bench::begun(&full(Overflow::default())).await;
    for number in 1..=3 {
        bench.handle.post(&bench.main, Add(number)).unwrap();
    }
    assert!(bench.handle.post(&bench.main, Add(4)).is_err());
    {
        let mut sent = Box::pin(bench.actor.send(&bench.main, Add(5)));
        assert!(polled_once(sent.as_mut()).await.is_pending());
        bench.gate.add_permits(1);
        assert_eq!(soon(sent).await, Outcome::Delivered);
    }
    assert_eq!(bench.rest().await, [0, 1, 2, 3, 5]);
}

#[tokio::test]
async fn a_queue_that_fails_refuses_at_once_also_those_that_could_wait() {
    let bench = Bench::begun(&full(Overflow::Fail)).await;
    for number in 1..=3 {
        bench.actor.post(&bench.main, Add(number));
    }
    let error = bench.handle.post(&bench.main, Add(4)).unwrap_err();
    assert!(error.is_full() && error.capacity().is_none());
    let error = soon(bench.handle.feed(&bench.main, Add(5)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "queue-full");
    let Outcome::NotDelivered(reason) = soon(bench.actor.send(&bench.main, Add(6))).await else {
        panic!("delivered to a full queue");
    };
    assert_eq!(reason.code(), "queue-full");
    let asked = bench.actor.ask(&bench.main, |reply| Question(7, reply));
    assert_eq!(soon(asked).await.unwrap_err().code(), "queue-full");
    soon(bench.actor.feed(&bench.main, Add(8))).await;
    let report = soon(bench.main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "queue-full");
    assert_eq!(number_of(report), 8);
    assert_eq!(bench.rest().await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_queue_that_drops_its_oldest_gives_each_back_to_its_sender_with_the_reason() {
    let bench = Bench::begun(&full(Overflow::DropOldest)).await;
    let other = bench.proc.client("other").unwrap();
    bench.handle.post(&other, Add(1)).unwrap();
    bench.actor.post(&bench.main, Add(2));
    bench.handle.post(&bench.main, Add(3)).unwrap();
    // Full: one goes for each that comes, however it comes.
    bench.handle.post(&bench.main, Add(4)).unwrap();
    assert_eq!(
        soon(bench.actor.send(&bench.main, Add(5))).await,
        Outcome::Delivered
    );
    bench.actor.post(&bench.main, Add(6));
    let report = soon(other.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "shed");
    assert!(report.failure.to_string().contains("its oldest message"));
    let report = soon(bench.main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "shed");
    assert_eq!(number_of(report), 2);
    let report = soon(bench.main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "shed");
    assert_eq!(bench.rest().await, [0, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_dropped_from_a_full_queue_ends_at_once() {
    let bench = Bench::begun(&full(Overflow::DropOldest)).await;
    let start = tokio::time::Instant::now();
    {
        let mut asked = Box::pin(bench.actor.ask(&bench.main, |reply| Question(1, reply)));
        assert!(polled_once(asked.as_mut()).await.is_pending());
        for number in 2..=4 {
            bench.actor.post(&bench.main, Add(number));
        }
        assert_eq!(asked.await.unwrap_err().code(), "shed");
    }
    assert!(start.elapsed().is_zero());
    assert_eq!(bench.rest().await, [0, 2, 3, 4]);
}

#[tokio::test]
async fn a_queue_that_drops_the_newest_gives_it_back_and_refuses_no_call() {
    let bench = Bench::begun(&full(Overflow::DropNewest)).await;
    for number in 1..=3 {
        bench.handle.post(&bench.main, Add(number)).unwrap();
    }
    bench.handle.post(&bench.main, Add(4)).unwrap();
    let report = soon(bench.main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "shed");
    bench.actor.post(&bench.main, Add(5));
    let report = soon(bench.main.next_undeliverable()).await;
    assert!(report.failure.to_string().contains("the newest message"));
    assert_eq!(number_of(report), 5);
    let outcome = soon(bench.actor.send(&bench.main, Add(6))).await;
    let Outcome::NotDelivered(reason) = outcome else {
        panic!("{outcome}");
    };
    assert_eq!(reason.code(), "shed");
    assert_eq!(bench.rest().await, [0, 1, 2, 3]);
}

///
#[tokio::test]
async fn what_is_dropped_of_a_sender_in_another_proc_comes_back_to_it() {
    let wire = Wire::default();
    let far = wire.proc("far");
    let bench = Bench::in_proc(wire.proc("near"), &full(Overflow::DropOldest));
    let away = far.client("away").unwrap();
    bench.handle.post(&bench.main, Add(0)).unwrap();
    bench.begin().await;
    for number in 1..=5 {
        bench.actor.post(&away, Add(number));
    }
    for number in 1..=2 {
        let report = soon(away.next_undeliverable()).await;
        assert_eq!(report.failure.code(), "shed");
        assert_eq!(number_of(report), number);
    }
    // Also what is left when the actor ends.
    bench.handle.abort();
    soon(bench.handle.join()).await;
    for number in 3..=5 {
        let report = soon(away.next_undeliverable()).await;
        assert_eq!(report.failure.code(), "actor-stopped");
        assert_eq!(number_of(report), number);
    }
}

#[tokio::test]
async fn messages_of_class_control_go_before_all_others_and_keep_their_order() {
    let options = SpawnOptions::default().control::<Steer>();
    let bench = Bench::begun(&options).await;
    for number in 1..=100 {
        bench.handle.post(&bench.main, Add(number)).unwrap();
    }
    // Into the batch that the actor has taken out already, and into its queue; by handle and by reference.
    for number in 1_001..=1_005 {
        bench.handle.post(&bench.main, Steer(number)).unwrap();
        bench.actor.post(&bench.main, Steer(number + 100));
    }
    let mut expected = vec![0];
    expected.extend((1_001..=1_005).flat_map(|number| [number, number + 100]));
    expected.extend(1..=100);
    assert_eq!(bench.rest().await, expected);
}

#[tokio::test]
async fn a_control_message_goes_before_the_rest_of_a_batch_that_was_taken_already() {
    let options = SpawnOptions::default().control::<Steer>();
    let mut bench = Bench::begun(&options).await;
    for number in 1..=50 {
        bench.handle.post(&bench.main, Add(number)).unwrap();
    }
    // The actor takes its next batch, and handles the first of it.
    bench.gate.add_permits(2);
    assert_eq!(soon(bench.handled.recv()).await, Some(0));
    assert_eq!(soon(bench.handled.recv()).await, Some(1));
    bench.handle.post(&bench.main, Steer(1_000)).unwrap();
    bench.handle.post(&bench.main, Steer(1_001)).unwrap();
    let handled = bench.rest().await;
    // The second of the batch was in hand when they came.
    assert_eq!(handled[..4], [2, 1_000, 1_001, 3]);
    assert_eq!(handled.len(), 51);
}

#[tokio::test]
async fn the_lane_for_control_is_bounded_and_can_be_waited_for() {
    let options = SpawnOptions::default().queue_capacity(1).control::<Steer>();
    let bench = Bench::begun(&options).await;
    bench.handle.post(&bench.main, Add(1)).unwrap();
    let count = mailbox_limits::CONTROL_CAPACITY as u64;
    for number in 0..count {
        bench
            .handle
            .post(&bench.main, Steer(1_000 + number))
            .unwrap();
    }
    let error = bench.handle.post(&bench.main, Steer(1)).unwrap_err();
    assert!(error.is_full());
    {
        let mut fed = Box::pin(bench.handle.feed(&bench.main, Steer(5_000)));
        assert!(polled_once(fed.as_mut()).await.is_pending());
        bench.gate.add_permits(2);
        soon(fed).await.unwrap();
    }
    let handled = bench.rest().await;
    assert_eq!(handled.len() as u64, count + 3);
    assert_eq!(handled[handled.len() - 2..], [5_000, 1]);
}

#[tokio::test]
async fn a_stop_and_a_control_message_are_handled_with_a_million_messages_queued() {
    const QUEUED: u64 = 1_000_000;
    let options = SpawnOptions::default()
        .queue_capacity(QUEUED as usize)
        .control::<Steer>();
    let mut bench = Bench::begun(&options).await;
    for number in 1..=QUEUED {
        bench.handle.post(&bench.main, Add(number)).unwrap();
    }
    bench.handle.post(&bench.main, Steer(7)).unwrap();
    bench.gate.add_permits(2);
    assert_eq!(soon(bench.handled.recv()).await, Some(0));
    assert_eq!(soon(bench.handled.recv()).await, Some(7));
    bench.handle.stop();
    bench.gate.add_permits(1);
    soon(bench.handle.join()).await;
    // One more was in hand when the stop came, and not one of the others was handled.
    let mut handled = 0;
    while bench.handled.try_recv().is_ok() {
        handled += 1;
    }
    assert_eq!(handled, 1);
    assert_eq!(bench.proc.traffic().unhandled, QUEUED - 1);
}
