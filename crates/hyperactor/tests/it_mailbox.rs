//! Mailboxes whose senders are in other processes, over real Unix sockets: who waits for a full one, what comes back, what
//! goes first, and how much memory a million messages take. The same in one proc is in the tests of `hyperactor-proc`.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers too: a test's panic is its report"
)]

mod sockets;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyperactor::Message;
use hyperactor::prelude::*;
use hyperactor::proc::{Overflow, SpawnOptions};
use serde::{Deserialize, Serialize};
use sockets::{AT_ONCE, Joined, PATIENCE, soon};
use tokio::sync::Semaphore;

#[derive(Clone, Debug, PartialEq, Eq, Message, Serialize, Deserialize)]
struct Number(u64);

/// Of class control.
#[derive(Message, Serialize, Deserialize)]
struct Steer(OncePortRef<u64>);

#[derive(Message, Serialize, Deserialize)]
struct Handled(OncePortRef<u64>);

/// Takes a permit for each number, and counts them.
#[derive(Actor)]
#[actor(messages(Number, Steer, Handled))]
struct Gated {
    gate: Arc<Semaphore>,
    handled: Arc<AtomicU64>,
}

impl Handler<Number> for Gated {
    async fn handle(&mut self, _cx: &Context<Self>, _: Number) -> ActorResult {
        self.gate.acquire().await?.forget();
        self.handled.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Handler<Steer> for Gated {
    async fn handle(&mut self, cx: &Context<Self>, Steer(reply): Steer) -> ActorResult {
        reply.post(cx, self.handled.load(Ordering::SeqCst));
        Ok(())
    }
}

impl Handler<Handled> for Gated {
    async fn handle(&mut self, cx: &Context<Self>, Handled(reply): Handled) -> ActorResult {
        reply.post(cx, self.handled.load(Ordering::SeqCst));
        Ok(())
    }
}

struct Bench {
    near: Joined,
    far: Joined,
    client: Client,
    handle: ActorHandle<Gated>,
    actor: ActorRef<Gated>,
    gate: Arc<Semaphore>,
    handled: Arc<AtomicU64>,
}

impl Bench {
    async fn new(options: SpawnOptions) -> Self {
        let (near, far) = (Joined::new("near").await, Joined::new("far").await);
        let gate = Arc::new(Semaphore::new(0));
        let handled = Arc::new(AtomicU64::new(0));
        let gated = Gated {
            gate: Arc::clone(&gate),
            handled: Arc::clone(&handled),
        };
        let handle = far.proc.spawn_with("gated", gated, &options).unwrap();
        Self {
            client: near.proc.client("main").unwrap(),
            actor: handle.bind(),
            handle,
            near,
            far,
            gate,
            handled,
        }
    }

    async fn send(&self, number: u64) {
        let outcome = soon(self.actor.send(&self.client, Number(number))).await;
        assert_eq!(outcome, Outcome::Delivered);
    }

    /// Number 0 is in hand, the next `count` are queued.
    async fn fill(&self, count: u64) {
        self.send(0).await;
        hyperactor_testkit::eventually(PATIENCE, || self.handle.queued() == 0).await;
        for number in 1..=count {
            self.send(number).await;
        }
    }
}

fn full(overflow: Overflow) -> SpawnOptions {
    SpawnOptions::default().queue_capacity(3).overflow(overflow)
}

fn number_of(report: Undeliverable) -> u64 {
    let Ok(Number(number)) = report.envelope.into_message() else {
        panic!("another message came back");
    };
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_nobody_empties_holds_back_its_own_senders_and_nobody_else() {
    let bench = Bench::new(SpawnOptions::default()).await;
    let (client, actor) = (
        bench.near.proc.client("flood").unwrap(),
        bench.actor.clone(),
    );
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let flood = tokio::spawn(async move {
        for number in 0.. {
            actor.feed(&client, Number(number)).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    // It comes to a halt: what is under way is bounded.
    let mut before = u64::MAX;
    hyperactor_testkit::eventually_some(PATIENCE, || {
        let now = sent.load(Ordering::SeqCst);
        let halted = now == before && now > 0;
        before = now;
        halted.then_some(())
    })
    .await;
    // Its neighbours in the same process, over the same connection, answer as ever.
    let gated = Gated {
        gate: Arc::new(Semaphore::new(0)),
        handled: Arc::default(),
    };
    let neighbour = bench.far.proc.spawn("neighbour", gated).unwrap().bind();
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(soon(neighbour.ask(&bench.client, Handled)).await, Ok(0));
    }
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    // Emptied a little, it takes as much again.
    bench.gate.add_permits(1_000_000);
    let more = sent.load(Ordering::SeqCst) + 10_000;
    hyperactor_testkit::eventually(PATIENCE, || sent.load(Ordering::SeqCst) > more).await;
    flood.abort();
    // Before the procs go: what is sent afterwards fails at once, again and again.
    assert!(soon(flood).await.unwrap_err().is_cancelled());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_fails_counts_messages_of_other_processes_and_refuses_them_by_name() {
    let bench = Bench::new(full(Overflow::Fail)).await;
    bench.fill(3).await;
    let Outcome::NotDelivered(reason) = soon(bench.actor.send(&bench.client, Number(4))).await
    else {
        panic!("delivered to a full queue");
    };
    assert_eq!(reason.code(), "queue-full");
    bench.actor.post(&bench.client, Number(5));
    let report = soon(bench.client.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "queue-full");
    assert_eq!(number_of(report), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_queue_drops_comes_back_over_the_socket_with_the_reason() {
    let bench = Bench::new(full(Overflow::DropOldest)).await;
    bench.fill(6).await;
    for number in 1..=3 {
        let report = soon(bench.client.next_undeliverable()).await;
        assert_eq!(report.failure.code(), "shed");
        assert!(report.failure.to_string().contains("its oldest message"));
        assert_eq!(number_of(report), number);
    }
    let bench = Bench::new(full(Overflow::DropNewest)).await;
    bench.fill(3).await;
    bench.actor.post(&bench.client, Number(4));
    let report = soon(bench.client.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "shed");
    assert_eq!(number_of(report), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_actor_leaves_unhandled_comes_back_to_senders_in_other_processes() {
    let bench = Bench::new(SpawnOptions::default()).await;
    bench.fill(20).await;
    bench.handle.abort();
    soon(bench.handle.join()).await;
    for number in 1..=20 {
        let report = soon(bench.client.next_undeliverable()).await;
        assert_eq!(report.failure.code(), "actor-stopped");
        assert_eq!(number_of(report), number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_message_and_a_stop_go_before_everything_that_other_processes_have_queued() {
    let options = SpawnOptions::default().control::<Steer>();
    let bench = Bench::new(options).await;
    // Fewer than one stuck actor may have of its connection.
    bench.fill(200).await;
    let steered = bench.actor.ask(&bench.client, Steer);
    tokio::pin!(steered);
    // The one in hand goes on once it may; then comes the control message, and then a stop.
    tokio::select! {
        biased;
        result = &mut steered => panic!("{result:?} while a message is in hand"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    bench.gate.add_permits(1);
    assert_eq!(soon(steered).await, Ok(1));
    bench.handle.stop();
    bench.gate.add_permits(1);
    soon(bench.handle.join()).await;
    assert_eq!(bench.handled.load(Ordering::SeqCst), 2);
}

/// Bytes of memory that the process has resident.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_messages_from_another_process_through_a_bounded_mailbox_keep_memory_flat() {
    const TOTAL: u64 = 1_000_000;
    const GROWTH_MAX: u64 = 16 * 1024 * 1024;
    let bench = Bench::new(SpawnOptions::default().queue_capacity(256)).await;
    bench.gate.add_permits(TOTAL as usize);
    let (mut first, mut most) = (0, 0);
    for number in 0..TOTAL {
        bench.actor.feed(&bench.client, Number(number)).await;
        if number % 10_000 == 0 {
            let now = resident();
            // The first tenth warms up: both ends of the session are in this process, each with its window.
            if number == TOTAL / 10 {
                first = now;
            }
            most = most.max(now);
        }
    }
    hyperactor_testkit::eventually(PATIENCE, || bench.handled.load(Ordering::SeqCst) == TOTAL)
        .await;
    println!("resident: {first} at the tenth, {most} at most");
    assert!(most <= first + GROWTH_MAX, "{first} grew to {most}");
    assert!(bench.client.try_next_undeliverable().is_none());
}
