//! What a message costs within a process, and what its envelope costs towards another one.
//!
//! Each figure is for one message, posted and taken by the same thread: no wake-up and no second core is in it.

use std::hint::black_box;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use hyperactor::Message;
use hyperactor_benches::{SIZES, criterion, payload};
use hyperactor_mailbox::{
    Lease, Mailbox, MailboxMuxer, MailboxSender, MessageEnvelope, Payload, Queue, ReturnHandle,
    ReturnSink, Token, Undeliverable,
};
use hyperactor_refs::{ActorId, PortId, ProcId};
use serde::{Deserialize, Serialize};

/// Messages that are posted before they are taken.
const BATCH: u64 = 1_000;

/// Hears of deliveries, as an actor does, and wants to hear of nothing else.
struct Heard;

impl ReturnSink for Heard {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        panic!("{report}");
    }

    fn abandoned(&self, _: Token) {
        panic!("dropped");
    }
}

fn proc_id() -> ProcId {
    match "unix:@bench,proc".parse() {
        Ok(proc_id) => proc_id,
        Err(error) => panic!("{error}"),
    }
}

fn place(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(BATCH));
    let muxer = MailboxMuxer::new();
    let proc_id = Arc::new(proc_id());
    for number in 0..100 {
        let other = Mailbox::new(ActorId::root(proc_id.clone(), format!("other-{number}")));
        assert!(muxer.bind(other).is_ok());
    }
    let mailbox = Mailbox::new(ActorId::root(proc_id.clone(), "receiver"));
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    assert!(muxer.bind(mailbox).is_ok());
    let sender = ActorId::root(proc_id, "sender");
    let sink: Arc<dyn ReturnSink> = Arc::new(Heard);

    group.bench_function("envelope through the muxer", |bencher| {
        bencher.iter(|| {
            for number in 0..BATCH {
                let envelope = MessageEnvelope::typed(sender.clone(), dest.clone(), number);
                muxer.post(envelope, ReturnHandle::new(sink.clone(), Token::default()));
            }
            for _ in 0..BATCH {
                black_box(receiver.try_recv());
            }
        });
    });
    group.bench_function("value through a port handle", |bencher| {
        bencher.iter(|| {
            for number in 0..BATCH {
                assert!(port.post(number).is_ok());
            }
            for _ in 0..BATCH {
                black_box(receiver.try_recv());
            }
        });
    });
    let queue = Queue::new(BATCH as usize);
    let mut out = Vec::new();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    group.bench_function("queue alone", |bencher| {
        bencher.iter(|| {
            for number in 0..BATCH {
                assert!(queue.try_push(number, Lease::none()).is_ok());
            }
            while queue.poll_recv_many(&mut cx, &mut out, 64).is_ready() {
                black_box(out.drain(..).count());
            }
        });
    });
    group.finish();
}

fn bytes_of_an_envelope(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope");
    let proc_id = Arc::new(proc_id());
    let sender = ActorId::root(proc_id.clone(), "sender");
    let dest = PortId::new(ActorId::root(proc_id, "receiver"), 1_024);
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let text = String::from_utf8_lossy(&payload(size)).into_owned();
        let envelope = MessageEnvelope::typed(sender.clone(), dest.clone(), text);
        let mut out = BytesMut::new();
        group.bench_function(BenchmarkId::new("encode", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                assert!(envelope.encode(&mut out).is_ok());
            });
        });
        let bytes = out.split().freeze();
        group.bench_function(BenchmarkId::new("decode", size), |bencher| {
            bencher.iter_batched(
                || bytes.clone(),
                |bytes| match MessageEnvelope::decode(bytes) {
                    Ok(envelope) => {
                        assert!(matches!(envelope.payload(), Payload::Encoded { .. }));
                        envelope
                    }
                    Err(error) => panic!("{error}"),
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Bytes as serde takes a `Vec<u8>`: one by one.
#[derive(Clone, Serialize, Deserialize, Message)]
struct OneByOne {
    #[message(byte_by_byte)]
    bytes: Vec<u8>,
}

/// The same type, as a whole.
#[derive(Clone, Serialize, Deserialize, Message)]
struct Whole {
    #[serde(with = "hyperactor::as_bytes")]
    bytes: Vec<u8>,
}

#[derive(Clone, Serialize, Deserialize, Message)]
struct Shared {
    bytes: Bytes,
}

fn field_of_bytes(c: &mut Criterion) {
    let mut group = c.benchmark_group("field of bytes");
    for size in SIZES {
        let bytes = payload(size);
        let shared = Bytes::from(bytes.clone());
        let whole = bytes.clone();
        there_and_back(&mut group, "Vec", size, OneByOne { bytes });
        there_and_back(&mut group, "Vec as_bytes", size, Whole { bytes: whole });
        there_and_back(&mut group, "Bytes", size, Shared { bytes: shared });
    }
    group.finish();
}

/// A message encoded with its envelope, and decoded.
fn there_and_back<M: Message + Clone>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    size: usize,
    message: M,
) {
    let proc_id = Arc::new(proc_id());
    let sender = ActorId::root(proc_id.clone(), "sender");
    let receiver = ActorId::root(proc_id, "receiver");
    let dest = PortId::new(receiver.clone(), M::port());
    let envelope = MessageEnvelope::typed(sender.clone(), dest, message);
    let mut out = BytesMut::new();
    group.throughput(Throughput::Bytes(size as u64));
    group.bench_function(
        BenchmarkId::new(format!("{name}, encode"), size),
        |bencher| {
            bencher.iter(|| {
                out.clear();
                assert!(envelope.encode_unnamed(&mut out).is_ok());
            });
        },
    );
    let bytes = out.split().freeze();
    group.bench_function(
        BenchmarkId::new(format!("{name}, decode"), size),
        |bencher| {
            bencher.iter(|| {
                let (to, from) = (receiver.clone(), sender.clone());
                match MessageEnvelope::decode_unnamed(bytes.clone(), to, from) {
                    Ok(envelope) => assert!(black_box(envelope.into_message::<M>()).is_ok()),
                    Err(error) => panic!("{error}"),
                }
            });
        },
    );
}

fn main() {
    let mut criterion = criterion();
    place(&mut criterion);
    field_of_bytes(&mut criterion);
    bytes_of_an_envelope(&mut criterion);
    criterion.final_summary();
}
