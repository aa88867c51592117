//! Real channels on real runtimes: a hot conversation is looked for, everything else is not. Counted, not timed; what is gained
//! is the comparison's matter. The counter is the process's, so that one test runs at a time.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use std::time::{Duration, Instant};

use hyperactor_channel::spin::{before_park, looks};
use hyperactor_channel::{
    ChannelRx, ChannelTx, DialOptions, Postcard, ServeOptions, Spin, dial_duplex, serve_duplex,
};
use hyperactor_refs::ChannelTransport;
use parking_lot::Mutex;
use support::STUCK;
use tokio::runtime::{Builder, Runtime};

static ALONE: Mutex<()> = Mutex::new(());

/// Far more than the warm-up.
const MANY: u64 = 1_000;

fn runtime(looks: bool) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    if looks {
        builder.on_thread_park(before_park);
    }
    builder.build().unwrap()
}

/// Two ends, each on its own runtime; the far one echoes.
struct Conversation {
    tx: ChannelTx<u64>,
    rx: ChannelRx<u64>,
    near: Runtime,
    _far: Runtime,
}

impl Conversation {
    fn new(transport: ChannelTransport, spin: Spin, with_hook: bool) -> Self {
        let (near, far) = (runtime(with_hook), runtime(with_hook));
        let serve = ServeOptions {
            spin,
            ..ServeOptions::default()
        };
        let mut listener = far
            .block_on(serve_duplex::<u64>(transport, serve, Postcard))
            .unwrap();
        let addr = listener.addr().clone();
        far.spawn(async move {
            let (tx, mut rx, _) = listener.accept().await.unwrap();
            while let Some(number) = rx.recv().await {
                tx.post(number);
            }
        });
        let dial = DialOptions {
            spin,
            ..DialOptions::default()
        };
        let (tx, rx) = near.block_on(async { dial_duplex(addr, dial, Postcard) });
        Self {
            tx,
            rx,
            near,
            _far: far,
        }
    }

    /// On a thread that the runtime parks, as an actor's messages are.
    fn trips(&mut self, count: u64) {
        let Self { tx, rx, near, .. } = self;
        near.block_on(async {
            for number in 0..count {
                tx.post(number);
                let echo = tokio::time::timeout(STUCK, rx.recv()).await;
                assert_eq!(echo.unwrap(), Some(number));
            }
        });
    }
}

#[test]
fn a_hot_conversation_is_looked_for_on_every_transport_with_a_descriptor() {
    let _alone = ALONE.lock();
    for transport in [ChannelTransport::Unix, ChannelTransport::Tcp] {
        let before = looks();
        let mut conversation = Conversation::new(transport, Spin::Adaptive, true);
        if std::thread::available_parallelism().unwrap().get() == 1 {
            conversation.trips(MANY);
            assert_eq!(looks(), before, "with one processor nobody looks");
            continue;
        }
        let began = Instant::now();
        while looks() == before {
            assert!(began.elapsed() < STUCK, "{transport:?}: nobody looked");
            conversation.trips(MANY);
        }
    }
}

#[test]
fn nobody_looks_where_it_is_not_wanted_or_the_runtime_does_not_ask() {
    let _alone = ALONE.lock();
    let before = looks();
    Conversation::new(ChannelTransport::Unix, Spin::Never, true).trips(MANY);
    Conversation::new(ChannelTransport::Unix, Spin::Adaptive, false).trips(MANY);
    assert_eq!(looks(), before);
}

#[test]
fn an_idle_connection_is_not_looked_for_however_often_its_thread_sleeps() {
    let _alone = ALONE.lock();
    let mut conversation = Conversation::new(ChannelTransport::Unix, Spin::Adaptive, true);
    conversation.trips(2);
    let before = looks();
    let near = &conversation.near;
    let sleeps = || near.metrics().worker_park_count(0);
    let slept = sleeps();
    near.block_on(near.spawn(async {
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }))
    .unwrap();
    assert!(sleeps() >= slept + 100, "the thread did not sleep");
    assert_eq!(looks(), before);
}
