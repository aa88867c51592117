//! The actors that the tests spawn in child processes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperactor_mailbox::{
    Capacity, Failure, MessageEnvelope, NotDelivered, ReturnHandle, ReturnSink, Token,
    Undeliverable,
};
use hyperactor_proc::{
    Actor, ActorError, ActorRef, ActorResult, Context, Handler, Message, OncePortRef, Outbox,
    Registry, RemoteSpawn,
};
use hyperactor_refs::{ActorId, PortId, ProcId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(crate) fn registry() -> Registry {
    Registry::new()
        .with::<Source>()
        .with::<Sink>()
        .with::<Inspector>()
        .with::<crate::worker::Worker>()
}

/// Counts what arrives, and whether each source's items come in order and once.
#[derive(Actor, Default)]
#[actor(messages(Item, Arrived, Sleep))]
pub(crate) struct Sink {
    next: HashMap<u64, u64>,
    count: u64,
    disorder: Option<String>,
}

#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) source: u64,
    pub(crate) number: u64,
    pub(crate) body: Bytes,
}

/// Asks a sink for the number of items so far, and the first thing that was wrong with their order.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Arrived(pub(crate) OncePortRef<(u64, Option<String>)>);

/// Blocks the actor's thread, as careless user code does.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Sleep(pub(crate) Duration);

impl RemoteSpawn for Sink {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl Handler<Item> for Sink {
    async fn handle(&mut self, _: &Context<Self>, item: Item) -> ActorResult {
        let next = self.next.entry(item.source).or_default();
        // A gap is what a failed item leaves; going back is not allowed.
        if item.number < *next {
            self.disorder
                .get_or_insert(format!("{} came when {next} was next", item.number));
        }
        *next = item.number + 1;
        self.count += 1;
        Ok(())
    }
}

impl Handler<Arrived> for Sink {
    async fn handle(&mut self, cx: &Context<Self>, Arrived(reply): Arrived) -> ActorResult {
        cx.reply(reply, (self.count, self.disorder.clone()));
        Ok(())
    }
}

impl Handler<Sleep> for Sink {
    async fn handle(&mut self, _: &Context<Self>, Sleep(time): Sleep) -> ActorResult {
        std::thread::sleep(time);
        Ok(())
    }
}

/// Sends items and keeps book of their outcomes.
#[derive(Actor, Default)]
#[actor(messages(Flood, Stray, ReadRoutes))]
pub(crate) struct Source;

#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Flood {
    pub(crate) to: ActorRef<Sink>,
    pub(crate) source: u64,
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) size: usize,
    pub(crate) reply: OncePortRef<Tally>,
}

/// Sends items to as many actors of a proc, by the port that this sink has for them.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Stray {
    pub(crate) to: ProcId,
    pub(crate) like: ActorRef<Sink>,
    pub(crate) count: u64,
    pub(crate) reply: OncePortRef<Tally>,
}

/// What became of the items of one flood.
#[derive(Clone, Debug, Default, PartialEq, Message, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) not_delivered: u64,
    pub(crate) unknown: u64,
    /// Items with more than one outcome.
    pub(crate) doubled: u64,
    pub(crate) first_failure: Option<String>,
    /// How many failed for each reason, by its code.
    pub(crate) codes: BTreeMap<String, u64>,
    /// From the post of an item to its outcome: half of them, and the slowest.
    pub(crate) median: Duration,
    pub(crate) slowest: Duration,
}

/// Asks for the messages by route: name of the proc, direct, relay.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct ReadRoutes(pub(crate) OncePortRef<Vec<(String, u64, u64)>>);

impl RemoteSpawn for Source {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

#[derive(Default)]
struct Book {
    settled: Vec<bool>,
    posted: Vec<Instant>,
    took: Vec<Duration>,
    tally: Tally,
    full: Option<(MessageEnvelope, Capacity)>,
}

impl Book {
    /// An item is posted, perhaps once more because a queue was full.
    fn post_at(&mut self, index: usize) {
        let now = Instant::now();
        self.posted.resize(index + 1, now);
        self.posted[index] = now;
    }

    fn close(&mut self) -> Tally {
        self.took.sort_unstable();
        self.tally.median = self
            .took
            .get(self.took.len() / 2)
            .copied()
            .unwrap_or_default();
        self.tally.slowest = self.took.last().copied().unwrap_or_default();
        self.tally.clone()
    }
}

#[derive(Default)]
struct Outcomes {
    book: Mutex<Book>,
    changed: Notify,
}

impl Outcomes {
    fn note(&self, token: Token, count: impl FnOnce(&mut Tally)) {
        let mut book = self.book.lock();
        if std::mem::replace(&mut book.settled[token.id as usize], true) {
            book.tally.doubled += 1;
        } else {
            let took = book.posted[token.id as usize].elapsed();
            book.took.push(took);
            count(&mut book.tally);
        }
        drop(book);
        self.changed.notify_one();
    }

    fn note_failure(&self, token: Token, failure: &Failure, text: String) {
        self.note(token, |tally| {
            match failure {
                Failure::NotDelivered(_) => tally.not_delivered += 1,
                Failure::Unknown(_) => tally.unknown += 1,
            }
            tally.first_failure.get_or_insert(text);
            *tally.codes.entry(failure.code().to_owned()).or_default() += 1;
        });
    }
}

impl ReturnSink for Outcomes {
    fn delivered(&self, token: Token) {
        self.note(token, |tally| tally.delivered += 1);
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        let is_full = matches!(
            report.failure,
            Failure::NotDelivered(NotDelivered::QueueFull { .. })
        );
        match report.capacity {
            Some(capacity) if is_full => self.book.lock().full = Some((report.envelope, capacity)),
            _ => self.note_failure(token, &report.failure, report.to_string()),
        }
    }

    fn abandoned(&self, token: Token) {
        self.note(token, |tally| tally.unknown += 1);
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.note_failure(token, &failure, failure.to_string());
    }
}

/// How many are posted before others have their turn.
const POSTED_AT_ONCE: u64 = 256;

/// Posts so many items, each to where it says, and returns what became of them.
async fn send_all(cx: &Context<Source>, count: u64, item: impl Fn(u64) -> (PortId, Item)) -> Tally {
    let outcomes = Arc::new(Outcomes::default());
    outcomes.book.lock().settled = vec![false; count as usize];
    for index in 0..count {
        // What was posted may wait for this very thread, to be written by it.
        if index % POSTED_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
        let (dest, item) = item(index);
        let mut next = Some(MessageEnvelope::typed(cx.actor_id().clone(), dest, item));
        while let Some(envelope) = next.take() {
            let token = Token {
                id: index,
                size: 0,
                to: 0,
            };
            outcomes.book.lock().post_at(index as usize);
            cx.post(envelope, ReturnHandle::new(outcomes.clone(), token));
            let full = outcomes.book.lock().full.take();
            if let Some((envelope, capacity)) = full {
                capacity.available().await;
                next = Some(envelope);
            }
        }
    }
    while !outcomes.book.lock().settled.iter().all(|settled| *settled) {
        outcomes.changed.notified().await;
    }
    outcomes.book.lock().close()
}

impl Handler<Flood> for Source {
    async fn handle(&mut self, cx: &Context<Self>, flood: Flood) -> ActorResult {
        let body = Bytes::from(vec![7u8; flood.size]);
        let port = flood.to.port::<Item>();
        let item = |index| {
            let item = Item {
                source: flood.source,
                number: flood.first + index,
                body: body.clone(),
            };
            (port.port_id().clone(), item)
        };
        let tally = send_all(cx, flood.count, item).await;
        cx.reply(flood.reply, tally);
        Ok(())
    }
}

impl Handler<Stray> for Source {
    async fn handle(&mut self, cx: &Context<Self>, stray: Stray) -> ActorResult {
        let port = stray.like.port::<Item>().port_id().index();
        let item = |index| {
            let nobody = ActorId::root(stray.to.clone(), format!("stray-{index}"));
            let item = Item {
                source: 1,
                number: index,
                body: Bytes::new(),
            };
            (PortId::new(nobody, port), item)
        };
        let tally = send_all(cx, stray.count, item).await;
        cx.reply(stray.reply, tally);
        Ok(())
    }
}

impl Handler<ReadRoutes> for Source {
    async fn handle(&mut self, cx: &Context<Self>, ReadRoutes(reply): ReadRoutes) -> ActorResult {
        let counts = hyperactor_bootstrap::route_counts();
        let counts = counts
            .into_iter()
            .map(|count| (count.proc_id.name().to_owned(), count.direct, count.relay))
            .collect::<Vec<_>>();
        cx.reply(reply, counts);
        Ok(())
    }
}

/// Looks around in its process.
#[derive(Actor, Default)]
#[actor(messages(Look, Exit, Touch))]
pub(crate) struct Inspector;

/// Asks for open descriptors (number and target), then the bootstrap variable if it is set.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Look(pub(crate) OncePortRef<Vec<(u32, String)>>);

/// Ends the process without a word, with this status.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Exit(pub(crate) i32);

/// Looks for a file, so that whoever traces the process sees when.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Touch {
    pub(crate) path: String,
    pub(crate) reply: OncePortRef<bool>,
}

impl RemoteSpawn for Inspector {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<Look> for Inspector {
    async fn handle(&mut self, cx: &Context<Self>, Look(reply): Look) -> ActorResult {
        let mut seen = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            let number = entry.file_name().to_string_lossy().parse()?;
            if let Ok(target) = std::fs::read_link(entry.path()) {
                seen.push((number, target.to_string_lossy().into_owned()));
            }
        }
        if let Ok(value) = std::env::var("HYPERACTOR_BOOTSTRAP") {
            seen.push((u32::MAX, value));
        }
        cx.reply(reply, seen);
        Ok(())
    }
}

impl Handler<Touch> for Inspector {
    async fn handle(&mut self, cx: &Context<Self>, Touch { path, reply }: Touch) -> ActorResult {
        cx.reply(reply, std::path::Path::new(&path).exists());
        Ok(())
    }
}

impl Handler<Exit> for Inspector {
    async fn handle(&mut self, _: &Context<Self>, Exit(status): Exit) -> ActorResult {
        std::process::exit(status);
    }
}
