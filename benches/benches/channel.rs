//! Channels: one way and there and back, over each transport, beside tokio's own queue between two tasks.
//!
//! Sender and receiver are two tasks of one runtime with as many threads as the machine has cores. `one_way` counts messages
//! from the first post until the last outcome; `send` is one message at a time, from the post to its outcome.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use hyperactor_benches::{criterion, payload, runtime};
use hyperactor_channel::{
    ChannelRx, ChannelTx, Codec, DialOptions, Postcard, Raw, Reason, ServeOptions, dial_tx,
    serve_queue,
};
use hyperactor_refs::ChannelTransport;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

const TRANSPORTS: [ChannelTransport; 3] = [
    ChannelTransport::Local,
    ChannelTransport::Unix,
    ChannelTransport::Tcp,
];

/// What one iteration moves at least, so that starting and ending do not show.
const SMALL_BATCH: u64 = 10_000;
const LARGE_BATCH: u64 = 64;

/// A channel whose receiving end counts what it takes.
struct Pair {
    tx: ChannelTx<Bytes>,
    taken: mpsc::UnboundedReceiver<u64>,
}

fn pair(
    runtime: &Runtime,
    transport: ChannelTransport,
    codec: impl Codec<Bytes> + Clone,
    report_every: u64,
) -> Pair {
    runtime.block_on(async {
        let serving = serve_queue(transport, ServeOptions::default(), codec.clone());
        let rx: ChannelRx<Bytes> = expect(serving.await, "serve");
        let tx = dial_tx(rx.addr().clone(), DialOptions::default(), codec);
        let (report, taken) = mpsc::unbounded_channel();
        tokio::spawn(count(rx, report, report_every));
        Pair { tx, taken }
    })
}

async fn count(mut rx: ChannelRx<Bytes>, report: mpsc::UnboundedSender<u64>, every: u64) {
    let mut taken = 0;
    while let Some(message) = rx.recv().await {
        black_box(message.len());
        taken += 1;
        if taken % every == 0 && report.send(taken).is_err() {
            return;
        }
    }
}

async fn post_all(tx: &ChannelTx<Bytes>, message: &Bytes, count: u64) {
    for _ in 0..count {
        let mut next = message.clone();
        while let Err((back, reason)) = tx.try_post(next) {
            assert_eq!(reason, Reason::Full);
            next = back;
            expect(tx.ready().await, "room");
        }
    }
}

/// Moves batches of messages, and gives the time of `iterations` of them.
fn one_way(
    runtime: &Runtime,
    pair: &mut Pair,
    message: &Bytes,
    batch: u64,
    iterations: u64,
) -> Duration {
    let batches = iterations.div_ceil(batch);
    let elapsed = runtime.block_on(async {
        let began = Instant::now();
        for _ in 0..batches {
            post_all(&pair.tx, message, batch).await;
        }
        for _ in 0..batches {
            assert!(pair.taken.recv().await.is_some(), "the receiver is gone");
        }
        expect(pair.tx.flush().await, "flush");
        began.elapsed()
    });
    elapsed.mul_f64(iterations as f64 / (batches * batch) as f64)
}

fn one_way_of(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    codec: &(impl Codec<Bytes> + Clone),
    name: &str,
    size: usize,
    batch: u64,
) {
    let message = Bytes::from(payload(size));
    for transport in TRANSPORTS {
        let mut pair = pair(runtime, transport, codec.clone(), batch);
        group.bench_function(format!("{transport}/{name}"), |bencher| {
            bencher
                .iter_custom(|iterations| one_way(runtime, &mut pair, &message, batch, iterations));
        });
    }
}

/// tokio's queue between two tasks, bounded as a channel's window is.
fn one_way_of_tokio(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    size: usize,
    batch: u64,
) {
    let message = Bytes::from(payload(size));
    let (tx, mut rx) = mpsc::channel::<Bytes>(4_096);
    let (report, mut taken) = mpsc::unbounded_channel();
    runtime.spawn(async move {
        let mut count = 0;
        while let Some(message) = rx.recv().await {
            black_box(message.len());
            count += 1;
            if count % batch == 0 && report.send(count).is_err() {
                return;
            }
        }
    });
    group.bench_function("tokio mpsc", |bencher| {
        bencher.iter_custom(|iterations| {
            let batches = iterations.div_ceil(batch);
            let elapsed = runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..batches * batch {
                    expect(tx.send(message.clone()).await, "send");
                }
                for _ in 0..batches {
                    assert!(taken.recv().await.is_some(), "the receiver is gone");
                }
                began.elapsed()
            });
            elapsed.mul_f64(iterations as f64 / (batches * batch) as f64)
        });
    });
}

fn small(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("channel/one_way/64B");
    group.throughput(Throughput::Elements(1));
    one_way_of_tokio(&mut group, &runtime, 64, SMALL_BATCH);
    one_way_of(&mut group, &runtime, &Postcard, "postcard", 64, SMALL_BATCH);
    group.finish();
}

fn large(criterion: &mut Criterion) {
    const SIZE: usize = 1024 * 1024;
    let runtime = runtime();
    let mut group = criterion.benchmark_group("channel/one_way/1MiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    one_way_of(
        &mut group,
        &runtime,
        &Postcard,
        "postcard",
        SIZE,
        LARGE_BATCH,
    );
    one_way_of(&mut group, &runtime, &Raw, "raw", SIZE, LARGE_BATCH);
    group.finish();
}

fn send(criterion: &mut Criterion) {
    let runtime = runtime();
    let message = Bytes::from(payload(64));
    let mut group = criterion.benchmark_group("channel/send/64B");
    for transport in TRANSPORTS {
        let pair = pair(&runtime, transport, Postcard, u64::MAX);
        group.bench_function(transport.to_string(), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                assert!(pair.tx.send(message.clone()).await.is_delivered());
            });
        });
    }
    let (tx, mut rx) = mpsc::channel::<(Bytes, oneshot::Sender<()>)>(4_096);
    runtime.spawn(async move {
        while let Some((message, outcome)) = rx.recv().await {
            black_box(message.len());
            // The bench ends while its last message is under way.
            let _bench_is_over = outcome.send(());
        }
    });
    group.bench_function("tokio mpsc and oneshot", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let (outcome, told) = oneshot::channel();
            expect(tx.send((message.clone(), outcome)).await, "send");
            expect(told.await, "outcome");
        });
    });
    group.finish();
}

fn expect<T, E: std::fmt::Debug>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

fn main() {
    let mut criterion = criterion();
    small(&mut criterion);
    large(&mut criterion);
    send(&mut criterion);
    criterion.final_summary();
}
