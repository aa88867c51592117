//! The actors of the comparison, written as a user would write them: a driver that sends and keeps time, a sink that counts
//! and answers, and a group of actors that do nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperactor::prelude::*;
use hyperactor::proc::Registry;
use serde::{Deserialize, Serialize};

use crate::compare::row::{Trips, nanos, nanos_since};

/// How long a sink may take to confirm what was sent to it.
const STALL: Duration = Duration::from_secs(60);

/// A small message as programs have them: two numbers, a short name and a few bytes.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Small {
    pub(crate) id: u64,
    pub(crate) at: u64,
    pub(crate) name: String,
    #[serde(with = "hyperactor::as_bytes")]
    pub(crate) body: Vec<u8>,
}

impl Small {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id,
            at: id.wrapping_mul(0x9e37_79b9),
            name: "sixteen letters!".to_owned(),
            body: vec![0xa5; 32],
        }
    }
}

/// A message of bytes that are shared on their way.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Shared {
    pub(crate) part: Part,
}

/// A message of bytes as `Bytes` has them: copied once on each side.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Copied {
    pub(crate) bytes: Bytes,
}

/// To a sink: how many messages came since this was last asked?
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Confirm {
    pub(crate) reply: OncePortRef<u64>,
}

/// To a sink: send this back.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Echo {
    bytes: Bytes,
    reply: OncePortRef<Bytes>,
}

/// What a driver sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Load {
    Small,
    /// Bytes, so many, as a `Part`.
    Part(u64),
    /// The same as `Bytes`.
    Bytes(u64),
}

/// To a driver: send so many, and tell the nanoseconds until the sink confirmed them.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Push {
    pub(crate) sink: ActorRef<Sink>,
    pub(crate) load: Load,
    pub(crate) count: u64,
    pub(crate) reply: OncePortRef<Result<u64, String>>,
}

/// To a driver: time so many round trips, each after a pause.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct RoundTrips {
    pub(crate) sink: ActorRef<Sink>,
    pub(crate) size: u64,
    pub(crate) count: u64,
    pub(crate) pause_us: u64,
    pub(crate) reply: OncePortRef<Result<Timed, String>>,
}

/// What [`RoundTrips`] found, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Message)]
pub(crate) struct Timed {
    pub(crate) elapsed: u64,
    p50: u64,
    p99: u64,
    mean: u64,
}

impl Timed {
    pub(crate) fn trips(&self) -> Trips {
        Trips {
            p50: self.p50,
            p99: self.p99,
            mean: self.mean,
        }
    }
}

/// To a driver: send bytes of this size until told to stop.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct StartStream {
    pub(crate) sink: ActorRef<Sink>,
    pub(crate) size: u64,
    pub(crate) reply: OncePortRef<()>,
}

/// To a driver: stop sending, and tell how many messages the sink got.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct StopStream {
    pub(crate) reply: OncePortRef<Result<u64, String>>,
}

/// To a driver: how many of its messages to other processes went directly, and how many through the host?
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Routes {
    pub(crate) reply: OncePortRef<(u64, u64)>,
}

/// Counts messages and answers echoes.
#[derive(Default, Actor)]
#[actor(messages(Small, Shared, Copied, Confirm, Echo))]
pub(crate) struct Sink {
    count: u64,
}

/// Sends and keeps time.
#[derive(Default, Actor)]
#[actor(hooks, messages(Push, RoundTrips, StartStream, StopStream, Routes))]
pub(crate) struct Driver {
    first_loss: Option<String>,
    stream: Option<Streaming>,
}

/// A task that sends.
struct Streaming {
    over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
    sink: ActorRef<Sink>,
}

/// One of many that talk to each other.
#[derive(Actor)]
#[actor(messages(Hello))]
pub(crate) struct Talker {
    peers: Vec<ActorRef<Talker>>,
    /// What all of them heard.
    heard: Arc<AtomicU64>,
}

/// To a talker, from another.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Hello;

/// To a talker, within its process: these are the others; greet each of them.
pub(crate) struct Meet(pub(crate) Vec<ActorRef<Talker>>);

impl Talker {
    pub(crate) fn new(heard: &Arc<AtomicU64>) -> Self {
        Self {
            peers: Vec::new(),
            heard: Arc::clone(heard),
        }
    }
}

impl Handler<Meet> for Talker {
    async fn handle(&mut self, cx: &Context<Self>, Meet(peers): Meet) -> ActorResult {
        self.peers = peers;
        for peer in &self.peers {
            peer.feed(cx, Hello).await;
        }
        Ok(())
    }
}

impl Handler<Hello> for Talker {
    async fn handle(&mut self, _cx: &Context<Self>, Hello: Hello) -> ActorResult {
        self.heard.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What can be spawned in the comparison's processes.
pub(crate) fn registry() -> Registry {
    Registry::new().with::<Driver>().with::<Sink>()
}

impl RemoteSpawn for Sink {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl RemoteSpawn for Driver {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl Handler<Small> for Sink {
    async fn handle(&mut self, _cx: &Context<Self>, small: Small) -> ActorResult {
        std::hint::black_box(&small);
        self.count += 1;
        Ok(())
    }
}

impl Handler<Shared> for Sink {
    async fn handle(&mut self, _cx: &Context<Self>, shared: Shared) -> ActorResult {
        std::hint::black_box(&shared.part);
        self.count += 1;
        Ok(())
    }
}

impl Handler<Copied> for Sink {
    async fn handle(&mut self, _cx: &Context<Self>, copied: Copied) -> ActorResult {
        std::hint::black_box(&copied.bytes);
        self.count += 1;
        Ok(())
    }
}

impl Handler<Confirm> for Sink {
    async fn handle(&mut self, cx: &Context<Self>, Confirm { reply }: Confirm) -> ActorResult {
        reply.post(cx, std::mem::take(&mut self.count));
        Ok(())
    }
}

impl Handler<Echo> for Sink {
    async fn handle(&mut self, cx: &Context<Self>, Echo { bytes, reply }: Echo) -> ActorResult {
        reply.post(cx, bytes);
        Ok(())
    }
}

impl Actor for Driver {
    async fn on_undeliverable(
        &mut self,
        _cx: &Context<Self>,
        report: Undeliverable,
    ) -> ActorResult {
        self.first_loss.get_or_insert_with(|| report.to_string());
        Ok(())
    }
}

impl Handler<Push> for Driver {
    async fn handle(&mut self, cx: &Context<Self>, push: Push) -> ActorResult {
        let Push {
            sink,
            load,
            count,
            reply,
        } = push;
        let bytes = filled(load);
        let started = Instant::now();
        match load {
            Load::Small => {
                for id in 0..count {
                    sink.feed(cx, Small::new(id)).await;
                }
            }
            Load::Part(_) => {
                for _ in 0..count {
                    let part = bytes.clone().into();
                    sink.feed(cx, Shared { part }).await;
                }
            }
            Load::Bytes(_) => {
                for _ in 0..count {
                    let bytes = bytes.clone();
                    sink.feed(cx, Copied { bytes }).await;
                }
            }
        }
        // Asked behind the last message, so the answer counts them all.
        let confirmed = sink.ask_within(cx, STALL, |reply| Confirm { reply }).await;
        let elapsed = nanos_since(started);
        let result = match confirmed {
            Ok(got) if got == count => Ok(elapsed),
            Ok(got) => Err(self.explain(&format!("{count} were sent and {got} arrived"))),
            Err(error) => Err(self.explain(&format!("the sink did not confirm: {error}"))),
        };
        reply.post(cx, result);
        Ok(())
    }
}

impl Handler<RoundTrips> for Driver {
    async fn handle(&mut self, cx: &Context<Self>, order: RoundTrips) -> ActorResult {
        let result = round_trips(cx, &order).await;
        order.reply.post(cx, result);
        Ok(())
    }
}

async fn round_trips(cx: &Context<Driver>, order: &RoundTrips) -> Result<Timed, String> {
    let bytes = filled(Load::Part(order.size));
    let mut times = Vec::with_capacity(usize::try_from(order.count).unwrap_or(0));
    let began = Instant::now();
    for _ in 0..order.count {
        if order.pause_us > 0 {
            tokio::time::sleep(Duration::from_micros(order.pause_us)).await;
        }
        let bytes = bytes.clone();
        let started = Instant::now();
        let answer = order.sink.ask(cx, |reply| Echo { bytes, reply }).await;
        times.push(nanos_since(started));
        let got = answer.map_err(|error| error.to_string())?.len() as u64;
        if got != order.size {
            return Err(format!("{got} bytes came back instead of {}", order.size));
        }
    }
    let elapsed = nanos(began.elapsed());
    let Trips { p50, p99, mean } = Trips::of(times);
    Ok(Timed {
        elapsed,
        p50,
        p99,
        mean,
    })
}

impl Handler<StartStream> for Driver {
    async fn handle(&mut self, cx: &Context<Self>, order: StartStream) -> ActorResult {
        let StartStream { sink, size, reply } = order;
        let over = Arc::new(AtomicBool::new(false));
        let bytes = filled(Load::Part(size));
        let (outbox, to, ended) = (cx.delegate(), sink.clone(), Arc::clone(&over));
        let task = tokio::spawn(async move {
            let mut sent = 0;
            while !ended.load(Ordering::Relaxed) {
                let part = bytes.clone().into();
                to.feed(&outbox, Shared { part }).await;
                sent += 1;
            }
            sent
        });
        self.stream = Some(Streaming { over, task, sink });
        reply.post(cx, ());
        Ok(())
    }
}

impl Handler<StopStream> for Driver {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        StopStream { reply }: StopStream,
    ) -> ActorResult {
        let result = match self.stream.take() {
            None => Err("nothing streams".to_owned()),
            Some(Streaming { over, task, sink }) => {
                over.store(true, Ordering::Relaxed);
                let sent = task.await;
                let got = sink.ask_within(cx, STALL, |reply| Confirm { reply }).await;
                match (sent, got) {
                    (Ok(sent), Ok(got)) if sent == got => Ok(got),
                    (sent, got) => Err(self.explain(&format!("sent {sent:?}, arrived {got:?}"))),
                }
            }
        };
        reply.post(cx, result);
        Ok(())
    }
}

impl Handler<Routes> for Driver {
    async fn handle(&mut self, cx: &Context<Self>, Routes { reply }: Routes) -> ActorResult {
        let siblings = hyperactor::bootstrap::route_counts()
            .into_iter()
            .filter(|count| count.proc_id.name() != hyperactor::host::SERVICE_PROC);
        let (direct, relay) = siblings.fold((0, 0), |(direct, relay), count| {
            (direct + count.direct, relay + count.relay)
        });
        reply.post(cx, (direct, relay));
        Ok(())
    }
}

impl Driver {
    fn explain(&self, what: &str) -> String {
        match &self.first_loss {
            Some(loss) => format!("{what}; the first that came back: {loss}"),
            None => what.to_owned(),
        }
    }
}

fn filled(load: Load) -> Bytes {
    match load {
        Load::Small => Bytes::new(),
        Load::Part(size) | Load::Bytes(size) => {
            Bytes::from(vec![0xa5; usize::try_from(size).unwrap_or(0)])
        }
    }
}
