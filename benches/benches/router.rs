//! Envelopes between two servers of this process over a Unix socket: straight, and through a relay.
//!
//! One-way figures are for messages that were placed and acknowledged; a round trip is one message and its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use hyperactor_benches::{criterion, payload, runtime};
use hyperactor_mailbox::{
    BoxedMailboxSender, Mailbox, MailboxMuxer, MailboxSender, Message, MessageEnvelope, Outbox,
    PortReceiver, PortRef, ReturnHandle, ReturnSink, Token, Undeliverable,
};
use hyperactor_refs::{ActorId, ChannelTransport, ProcId};
use hyperactor_router::{
    DialMailboxRouter, MailboxClient, MailboxServer, MailboxServerHandle, ServeOptions,
};

/// Messages of one one-way measurement.
const BATCH: u64 = 10_000;

/// Counts deliveries, and wants to hear of nothing else.
#[derive(Default)]
struct Heard(AtomicU64);

impl ReturnSink for Heard {
    fn delivered(&self, _: Token) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn undelivered(&self, _: Token, report: Undeliverable) {
        panic!("{report}");
    }

    fn abandoned(&self, _: Token) {
        panic!("dropped");
    }
}

/// Somebody who sends through a sender.
struct Cx {
    mailbox: Mailbox,
    through: BoxedMailboxSender,
    heard: Arc<Heard>,
}

impl Outbox for Cx {
    fn actor_id(&self) -> &ActorId {
        self.mailbox.actor_id()
    }

    fn return_handle(&self) -> ReturnHandle {
        ReturnHandle::new(self.heard.clone(), Token::default())
    }

    fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.through.post(envelope, return_handle);
    }

    fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

/// A proc at a Unix socket, and a relay in front of it.
struct Place {
    relayed: Cx,
    direct: Cx,
    proc_id: ProcId,
    muxer: MailboxMuxer,
    _servers: [MailboxServerHandle; 2],
}

async fn serve(sender: impl MailboxSender + Clone) -> MailboxServerHandle {
    match MailboxServer::serve(ChannelTransport::Unix, sender, ServeOptions::default()).await {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    }
}

async fn place() -> Place {
    let muxer = MailboxMuxer::new();
    let far = serve(muxer.clone()).await;
    let router = DialMailboxRouter::new();
    let relay = serve(router.clone()).await;
    let proc_id = ProcId::Direct(relay.addr().clone(), "far".to_owned());
    assert!(router.bind(proc_id.clone(), far.addr().clone()).is_ok());
    let cx = |addr: &hyperactor_refs::ChannelAddr| Cx {
        mailbox: Mailbox::new(ActorId::root(proc_id.clone(), "sender")),
        through: MailboxClient::dial(addr.clone()).into_boxed(),
        heard: Arc::default(),
    };
    let (relayed, direct) = (cx(relay.addr()), cx(far.addr()));
    Place {
        relayed,
        direct,
        proc_id,
        muxer,
        _servers: [far, relay],
    }
}

impl Place {
    fn open<M: Message>(&self, name: &str) -> (PortRef<M>, PortReceiver<M>) {
        let mailbox = Mailbox::new(ActorId::root(self.proc_id.clone(), name));
        let (port, receiver) = mailbox.open_port();
        assert!(self.muxer.bind(mailbox).is_ok());
        (port.bind(), receiver)
    }
}

/// Feeds `messages` as fast as they are taken, until all are acknowledged.
async fn one_way(
    cx: &Cx,
    port: &PortRef<Vec<u8>>,
    receiver: &mut PortReceiver<Vec<u8>>,
    body: &[u8],
    messages: u64,
) -> Duration {
    let start = Instant::now();
    let feeding = async {
        for _ in 0..messages {
            port.feed(cx, body.to_vec()).await;
        }
        assert_eq!(cx.through.flush().await, Ok(()));
    };
    let taking = async {
        for _ in 0..messages {
            assert!(receiver.recv().await.is_some());
        }
    };
    tokio::join!(feeding, taking);
    start.elapsed()
}

fn main() {
    let runtime = runtime();
    let place = runtime.block_on(place());
    let mut criterion = criterion();
    routes(&mut criterion, &runtime, &place);
    criterion.final_summary();
}

fn routes(criterion: &mut Criterion, runtime: &tokio::runtime::Runtime, place: &Place) {
    let (port, mut receiver) = place.open::<Vec<u8>>("receiver");
    let body = payload(64);
    let ways = [("direct", &place.direct), ("relay", &place.relayed)];
    let mut group = criterion.benchmark_group("router one way 64 B");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(BATCH));
    for (name, cx) in ways {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let all = one_way(cx, &port, &mut receiver, &body, rounds * BATCH);
                runtime.block_on(all)
            });
        });
    }
    group.finish();
    let (port, mut receiver) = place.open::<u64>("echo");
    let mut group = criterion.benchmark_group("router send to outcome");
    for (name, cx) in ways {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                runtime.block_on(async {
                    let start = Instant::now();
                    for number in 0..rounds {
                        assert!(port.send(cx, number).await.is_delivered());
                        assert_eq!(receiver.try_recv(), Some(number));
                    }
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
}
