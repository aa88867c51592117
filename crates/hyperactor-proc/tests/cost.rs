//! What a message within a proc costs: allocations, counted, and memory, measured. A test binary of its own, because
//! its allocator counts.

// The panic of a test is its report.
#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use allocation_counter::AllocationInfo;
use hyperactor_proc::{
    Actor, ActorHandle, ActorResult, ActorStatus, Client, Context, Handler, Message, OncePortRef,
    Proc, SpawnOptions,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Message, Serialize, Deserialize)]
struct Add([u64; 4]);

#[derive(Message, Serialize, Deserialize)]
struct Subtract([u64; 4]);

#[derive(Message, Serialize, Deserialize)]
struct Total(OncePortRef<u64>);

#[derive(Actor)]
#[actor(messages(Add, Subtract, Total))]
struct Counter(Arc<AtomicU64>);

impl Handler<Add> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, Add(amounts): Add) -> ActorResult {
        self.0.fetch_add(amounts[0], Ordering::SeqCst);
        Ok(())
    }
}

impl Handler<Subtract> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, Subtract(amounts): Subtract) -> ActorResult {
        self.0.fetch_sub(amounts[0], Ordering::SeqCst);
        Ok(())
    }
}

impl Handler<Total> for Counter {
    async fn handle(&mut self, cx: &Context<Self>, Total(reply): Total) -> ActorResult {
        cx.reply(reply, self.0.load(Ordering::SeqCst));
        Ok(())
    }
}

const MESSAGES: u64 = 10_000;

struct Bench {
    main: Client,
    counter: ActorHandle<Counter>,
    total: Arc<AtomicU64>,
    proc: Proc,
}

impl Bench {
    fn new() -> Self {
        let proc = Proc::isolated("p");
        let total = Arc::new(AtomicU64::new(0));
        let options = SpawnOptions::default().queue_capacity(256);
        let counter = Counter(Arc::clone(&total));
        Self {
            main: proc.client("main").unwrap(),
            counter: proc.spawn_with("counter", counter, &options).unwrap(),
            total,
            proc,
        }
    }

    async fn handled(&self, total: u64) {
        while self.total.load(Ordering::SeqCst) != total {
            tokio::task::yield_now().await;
        }
    }
}

/// Counts on the one thread of the runtime; what is counted runs once before, so that tables and queues have grown.
fn count<F: Future<Output = ()>>(run: impl Fn(Bench) -> F) -> AllocationInfo {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async { run(Bench::new()).await });
    let bench = runtime.block_on(async { Bench::new() });
    allocation_counter::measure(|| runtime.block_on(run(bench)))
}

/// At most `each` a message, and one for ten: queues grow with a burst and give back what it took.
fn costs(name: &str, info: &AllocationInfo, each: u64) {
    let most = MESSAGES * each + MESSAGES / 10;
    println!(
        "{name}: {} allocations for {MESSAGES} messages",
        info.count_total
    );
    assert!(
        info.count_total <= most,
        "{name}: {} allocations for {MESSAGES} messages, at most {most} are allowed",
        info.count_total
    );
}

#[test]
fn a_message_through_a_handle_costs_no_allocation_whether_its_actor_is_busy_or_at_rest() {
    let busy = count(|bench| async move {
        for round in 0..MESSAGES / 100 {
            for _ in 0..100 {
                bench.counter.post(&bench.main, Add([1; 4])).unwrap();
            }
            bench.handled((round + 1) * 100).await;
        }
    });
    costs("handle, busy", &busy, 0);
    let at_rest = count(|bench| async move {
        for number in 0..MESSAGES {
            bench.counter.post(&bench.main, Add([1; 4])).unwrap();
            bench.handled(number + 1).await;
        }
    });
    costs("handle, at rest", &at_rest, 0);
}

#[test]
fn a_message_through_a_reference_of_the_same_proc_costs_no_allocation_and_through_a_port_one() {
    let info = count(|bench| async move {
        let counter = bench.counter.bind();
        for number in 0..MESSAGES {
            counter.post(&bench.main, Add([1; 4]));
            bench.handled(number + 1).await;
        }
        assert_eq!(bench.proc.traffic().in_process, MESSAGES);
    });
    costs("reference", &info, 0);
    let info = count(|bench| async move {
        let port = bench.counter.bind().port::<Add>();
        for number in 0..MESSAGES {
            port.post(&bench.main, Add([1; 4]));
            bench.handled(number + 1).await;
        }
    });
    costs("port", &info, 1);
}

/// The port for the reply, and what lies in the queue beside a request.
#[test]
fn a_question_within_a_proc_and_its_answer_cost_two_allocations() {
    let info = count(|bench| async move {
        let counter = bench.counter.bind();
        for _ in 0..MESSAGES {
            assert_eq!(counter.ask(&bench.main, Total).await.unwrap(), 0);
        }
        assert_eq!(bench.proc.traffic().in_process, 2 * MESSAGES);
    });
    costs("ask", &info, 2);
}

/// Each change of type costs the handler's future.
#[test]
fn messages_of_changing_types_cost_one_allocation_each() {
    let info = count(|bench| async move {
        for _ in 0..MESSAGES / 2 {
            bench.counter.post(&bench.main, Add([1; 4])).unwrap();
            bench.counter.post(&bench.main, Subtract([1; 4])).unwrap();
            while bench.counter.queued() > 0 {
                tokio::task::yield_now().await;
            }
        }
        bench.handled(0).await;
    });
    costs("changing types", &info, 1);
}

/// Waits in its handler until it may go on.
#[derive(Actor)]
#[actor(messages(Pause, Add))]
struct Busy {
    /// How often its task was polled meanwhile.
    polls: Arc<AtomicU64>,
    go_on: Arc<Notify>,
    total: Arc<AtomicU64>,
}

#[derive(Message, Serialize, Deserialize)]
struct Pause;

impl Handler<Pause> for Busy {
    async fn handle(&mut self, _cx: &Context<Self>, _: Pause) -> ActorResult {
        let mut go_on = pin!(self.go_on.notified());
        poll_fn(|task| {
            self.polls.fetch_add(1, Ordering::SeqCst);
            go_on.as_mut().poll(task)
        })
        .await;
        Ok(())
    }
}

impl Handler<Add> for Busy {
    async fn handle(&mut self, _cx: &Context<Self>, Add(amounts): Add) -> ActorResult {
        self.total.fetch_add(amounts[0], Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn messages_for_a_busy_actor_do_not_wake_its_task() {
    const ROUNDS: u64 = 300;
    let (polls, go_on) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let total = Arc::new(AtomicU64::new(0));
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let busy = Busy {
        polls: Arc::clone(&polls),
        go_on: Arc::clone(&go_on),
        total: Arc::clone(&total),
    };
    let handle = proc.spawn("busy", busy).unwrap();
    let reference = handle.bind();
    let port = reference.port::<Add>();
    handle.post(&main, Pause).unwrap();
    let until = async |counter: &AtomicU64, count| {
        while counter.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    };
    until(&polls, 1).await;
    for _ in 0..ROUNDS {
        handle.post(&main, Add([1; 4])).unwrap();
        reference.post(&main, Add([1; 4]));
        port.post(&main, Add([1; 4]));
        // A task that was woken would have its turn here.
        tokio::task::yield_now().await;
    }
    assert_eq!(polls.load(Ordering::SeqCst), 1, "polls while it was busy");
    go_on.notify_one();
    until(&total, 3 * ROUNDS).await;
    assert_eq!(polls.load(Ordering::SeqCst), 2, "polls in all");
}

#[test]
fn an_actor_at_rest_has_given_back_what_a_burst_of_messages_took() {
    let kept = count(|bench| async move {
        for _ in 0..200 {
            bench.counter.post(&bench.main, Add([1; 4])).unwrap();
        }
        bench.handled(200).await;
        // Until the actor's task has gone to sleep.
        tokio::task::yield_now().await;
        std::mem::forget(bench);
    });
    println!("kept after a burst: {} bytes", kept.bytes_current);
    assert!(kept.bytes_max > 200 * 32, "the burst took memory");
    assert!(
        kept.bytes_current < 2_048,
        "{} bytes are kept",
        kept.bytes_current
    );
}

/// What every further actor takes that has never had a message, as the allocator counts it: its cell with what its handles
/// share and its queue, its mailbox, its id, its task, and its places in the tables of its proc. A fifth allocation is given
/// back when it has been initialised.
#[test]
fn an_actor_at_rest_takes_less_than_a_kibibyte_and_a_spawn_five_allocations() {
    const ACTORS: usize = 1_000;
    const BYTES_MAX: i64 = 912;
    const ALLOCATIONS: u64 = 5;
    /// What an allocator may add to one allocation, for its own books and by rounding up.
    const ROUNDING: i64 = 16;
    const { assert!(BYTES_MAX + ALLOCATIONS as i64 * ROUNDING <= 1024) }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let proc = Proc::isolated("p");
    let total = Arc::new(AtomicU64::new(0));
    let names: Vec<_> = (0..2 * ACTORS).map(|at| format!("idle-{at}")).collect();
    let mut actors = Vec::with_capacity(names.len());
    let mut spawn = |names: &[String]| {
        runtime.block_on(async {
            for name in names {
                let actor = Counter(Arc::clone(&total));
                actors.push(proc.spawn(name, actor).unwrap());
            }
            let mut last = actors.last().unwrap().status();
            last.wait_for(|status| matches!(status, ActorStatus::Running))
                .await
                .unwrap();
        });
    };
    // Tables and queues grow by doubling; the second half finds them grown, or pays for the doubling.
    let (warm, more) = names.split_at(ACTORS);
    spawn(warm);
    let info = allocation_counter::measure(|| spawn(more));
    let each = info.bytes_current / ACTORS as i64;
    let allocations = info.count_total / ACTORS as u64;
    println!("an actor at rest: {each} bytes, spawned with {allocations} allocations");
    assert!(each <= BYTES_MAX, "an actor at rest takes {each} bytes");
    assert_eq!(allocations, ALLOCATIONS, "allocations a spawn");
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

#[test]
fn a_million_messages_through_a_bounded_mailbox_keep_memory_flat() {
    const TOTAL: u64 = 1_000_000;
    const GROWTH_MAX: u64 = 4 * 1024 * 1024;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let bench = Bench::new();
        let counter = bench.counter.bind();
        let (mut first, mut most) = (0, 0);
        for number in 0..TOTAL {
            // By handle and by reference in turn; each waits while the queue is full.
            if number % 2 == 0 {
                bench.counter.feed(&bench.main, Add([1; 4])).await.unwrap();
            } else {
                counter.feed(&bench.main, Add([1; 4])).await;
            }
            if number % 10_000 == 0 {
                let now = resident();
                // The first twentieth warms up.
                if number == TOTAL / 20 {
                    first = now;
                }
                most = most.max(now);
            }
        }
        bench.handled(TOTAL).await;
        let last = resident();
        println!("resident: {first} at the twentieth, {most} at most, {last} at last");
        assert!(
            most.max(last) <= first + GROWTH_MAX,
            "{first} grew to {most}"
        );
        assert!(bench.main.try_next_undeliverable().is_none());
    });
}
