//! Messages within one proc, beside tokio's unbounded channel in the same run: one way through a handle and through
//! a reference, and request with reply.

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use hyperactor_benches::{criterion, runtime, runtime_of_one_thread};
use hyperactor_proc::{
    Actor, ActorHandle, ActorRef, ActorResult, Client, Context, Handler, Message, OncePortRef, Proc,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Messages for one wait; fits into an actor's queue.
const BATCH: u64 = 1024;

#[derive(Message, Serialize, Deserialize)]
struct Item([u64; 8]);

impl Item {
    const fn new(number: u64) -> Self {
        Self([number; 8])
    }
}

#[derive(Message, Serialize, Deserialize)]
struct Sum(OncePortRef<u64>);

/// The end of a batch, for what stays in the process.
struct Flush(oneshot::Sender<u64>);

#[derive(Actor, Default)]
#[actor(messages(Item, Sum))]
struct Adder {
    sum: u64,
}

impl Handler<Item> for Adder {
    async fn handle(&mut self, _cx: &Context<Self>, Item(words): Item) -> ActorResult {
        self.sum = self.sum.wrapping_add(words[7]);
        Ok(())
    }
}

impl Handler<Sum> for Adder {
    async fn handle(&mut self, cx: &Context<Self>, Sum(reply): Sum) -> ActorResult {
        cx.reply(reply, self.sum);
        Ok(())
    }
}

impl Handler<Flush> for Adder {
    async fn handle(&mut self, _cx: &Context<Self>, Flush(reply): Flush) -> ActorResult {
        reply
            .send(self.sum)
            .map_err(|_| "the benchmark has ended")?;
        Ok(())
    }
}

/// What is measured on one runtime.
struct Bench {
    runtime: Runtime,
    client: Client,
    handle: ActorHandle<Adder>,
    adder: ActorRef<Adder>,
    // Owns the two above.
    _proc: Proc,
}

impl Bench {
    fn new(runtime: Runtime) -> Self {
        let proc = Proc::isolated("bench");
        let client = proc.client("client").expect("the name is free");
        let entered = runtime.enter();
        let handle = proc
            .spawn("adder", Adder::default())
            .expect("the name is free");
        drop(entered);
        let adder = handle.bind();
        Self {
            runtime,
            client,
            handle,
            adder,
            _proc: proc,
        }
    }

    async fn flush(&self) -> u64 {
        let (reply, sum) = oneshot::channel();
        self.handle
            .post(&self.client, Flush(reply))
            .expect("the queue has room");
        sum.await.expect("the actor lives")
    }

    fn one_way(&self, group: &mut BenchmarkGroup<'_, WallTime>, threads: &str) {
        group.throughput(Throughput::Elements(BATCH));
        group.bench_function(format!("handle/{threads}"), |bencher| {
            bencher.to_async(&self.runtime).iter(async || {
                for number in 0..BATCH {
                    self.handle
                        .post(&self.client, Item::new(number))
                        .expect("the queue has room");
                }
                self.flush().await
            });
        });
        group.bench_function(format!("reference/{threads}"), |bencher| {
            bencher.to_async(&self.runtime).iter(async || {
                for number in 0..BATCH {
                    self.adder.post(&self.client, Item::new(number));
                }
                self.flush().await
            });
        });
        let sender = tokio_adder(&self.runtime);
        group.bench_function(format!("tokio unbounded recv/{threads}"), |bencher| {
            bencher.to_async(&self.runtime).iter(async || {
                for number in 0..BATCH {
                    sender
                        .send(Plain::Item(Box::new(Item::new(number))))
                        .expect("the task lives");
                }
                ask_tokio(&sender).await
            });
        });
    }

    fn round_trip(&self, group: &mut BenchmarkGroup<'_, WallTime>, threads: &str) {
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("ask/{threads}"), |bencher| {
            bencher.to_async(&self.runtime).iter(async || {
                self.adder
                    .ask(&self.client, Sum)
                    .await
                    .expect("the actor lives")
            });
        });
        group.bench_function(format!("handle with oneshot/{threads}"), |bencher| {
            bencher
                .to_async(&self.runtime)
                .iter(async || self.flush().await);
        });
        let sender = tokio_adder(&self.runtime);
        group.bench_function(
            format!("tokio unbounded with oneshot/{threads}"),
            |bencher| {
                bencher
                    .to_async(&self.runtime)
                    .iter(async || ask_tokio(&sender).await);
            },
        );
    }
}

/// The same work by hand: a task, a channel, a boxed message.
enum Plain {
    Item(Box<Item>),
    Flush(oneshot::Sender<u64>),
}

fn tokio_adder(runtime: &Runtime) -> mpsc::UnboundedSender<Plain> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    runtime.spawn(async move {
        let mut sum = 0_u64;
        while let Some(message) = receiver.recv().await {
            match message {
                Plain::Item(item) => sum = sum.wrapping_add(item.0[7]),
                Plain::Flush(reply) => reply.send(sum).expect("the benchmark waits"),
            }
        }
    });
    sender
}

async fn ask_tokio(sender: &mpsc::UnboundedSender<Plain>) -> u64 {
    let (reply, sum) = oneshot::channel();
    sender.send(Plain::Flush(reply)).expect("the task lives");
    sum.await.expect("the task lives")
}

fn benches(criterion: &mut Criterion) {
    let runtimes = [
        ("one thread", Bench::new(runtime_of_one_thread())),
        ("threads", Bench::new(runtime())),
    ];
    let mut group = criterion.benchmark_group("proc/one way");
    for (threads, bench) in &runtimes {
        bench.one_way(&mut group, threads);
    }
    group.finish();
    let mut group = criterion.benchmark_group("proc/round trip");
    for (threads, bench) in &runtimes {
        bench.round_trip(&mut group, threads);
    }
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    benches(&mut criterion);
    criterion.final_summary();
}
