//! The actors that the suites spawn in processes to be killed: a receiver that writes down what it takes before anybody is
//! told, a sender that keeps book of what it is told, and either can kill its own process at a chosen message.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyperactor_mailbox::{
    Capacity, Failure, MessageEnvelope, NotDelivered, PortRef, PortSink, ReturnHandle, ReturnSink,
    Token, Undeliverable,
};
use hyperactor_proc::{
    Actor, ActorError, ActorResult, Context, Handler, Message, OncePortRef, Outbox, Registry,
    RemoteSpawn,
};
use hyperactor_refs::{ActorId, PortId};
use hyperactor_testkit::{Journal, Key, Stamped};
use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock;

pub(crate) fn registry() -> Registry {
    Registry::new()
        .with::<Receiver>()
        .with::<Sender>()
        .with::<crate::breeder::Breeder>()
}

/// One stamped message: the encoded form of [`Stamped`].
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Item(pub(crate) Bytes);

/// The body of a message, the same wherever it is made.
pub(crate) fn body(number: u64) -> Vec<u8> {
    let length = 16 + number % 240;
    (0..length).map(|at| (at ^ number) as u8).collect()
}

/// What became of a message, in the report of a sender.
pub(crate) const DELIVERED: u8 = 1;
pub(crate) const NOT_DELIVERED: u8 = 2;
pub(crate) const UNKNOWN: u8 = 3;
/// It was told more than one outcome.
pub(crate) const TWICE: u8 = 4;

#[derive(Clone, Debug, Message, Serialize, Deserialize)]
pub(crate) struct ReceiverParams {
    /// The file in which arrivals are written down.
    pub(crate) journal: String,
    /// Which life this is.
    pub(crate) life: u64,
    /// At which arrival the process kills itself, and whether it writes that one down first.
    pub(crate) die_at: Option<(u64, bool)>,
}

/// Takes messages at a port, and writes each down as it is placed: before its sender can be told.
#[derive(Actor)]
#[actor(messages(Open))]
pub(crate) struct Receiver {
    params: ReceiverParams,
    port: Option<PortRef<Item>>,
}

/// Asks for the receiver's port.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Open(pub(crate) OncePortRef<Opened>);

#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Opened(pub(crate) PortRef<Item>);

impl RemoteSpawn for Receiver {
    type Params = ReceiverParams;

    fn create(params: ReceiverParams) -> Result<Self, ActorError> {
        Ok(Self { params, port: None })
    }
}

impl Handler<Open> for Receiver {
    async fn handle(&mut self, cx: &Context<Self>, Open(reply): Open) -> ActorResult {
        let port = match &self.port {
            Some(port) => port.clone(),
            None => self.open(cx)?,
        };
        cx.reply(reply, Opened(port));
        Ok(())
    }
}

impl Receiver {
    fn open(&mut self, cx: &Context<Self>) -> ActorResult<PortRef<Item>> {
        let ReceiverParams {
            journal: path,
            life,
            die_at,
        } = self.params.clone();
        let path = PathBuf::from(path);
        let taker = Taker {
            journal: Journal::open(&path, life)?,
            path,
            die_at,
            arrivals: AtomicU64::new(0),
        };
        let mailbox = cx.mailbox();
        // The same number in each life: a message for an earlier one would find it.
        mailbox.bind_sink(TAKER, Arc::new(taker))?;
        let port = PortRef::attest(PortId::new(mailbox.actor_id().clone(), TAKER));
        self.port = Some(port.clone());
        Ok(port)
    }
}

/// The number of the port that takes messages.
const TAKER: u64 = 4_711;

/// What stands behind the port: an arrival is written down, then its sender is told, and that is all of its handling.
struct Taker {
    journal: Journal,
    path: PathBuf,
    die_at: Option<(u64, bool)>,
    arrivals: AtomicU64,
}

impl PortSink for Taker {
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let last = self.die_at.filter(|(at, _)| *at == number);
        if last.is_some_and(|(_, writes)| !writes) {
            die(&self.path);
        }
        let Item(bytes) = match envelope.into_message::<Item>() {
            Ok(item) => item,
            Err((envelope, error)) => {
                let error = error.to_string();
                return return_handle.undeliverable(envelope, NotDelivered::Decode { error });
            }
        };
        let written = postcard::from_bytes::<Stamped>(&bytes)
            .map_err(std::io::Error::other)
            .and_then(|message| self.journal.arrived(&message));
        if let Err(error) = written {
            eprintln!("an arrival is not written down: {error}");
        }
        if last.is_some() {
            die(&self.path);
        }
        // Out of the queue as soon as it is in it.
        drop(return_handle.delivered());
    }
}

/// Kills this process, as from outside, and leaves a note of the time.
fn die(journal: &Path) {
    let note = clock::now().to_string();
    if let Err(error) = std::fs::write(died_at(journal), note) {
        eprintln!("no note of the time: {error}");
    }
    if let Err(error) = kill_process(getpid(), Signal::KILL) {
        eprintln!("not killed: {error}");
    }
}

/// The file with the time at which a process killed itself.
pub(crate) fn died_at(journal: &Path) -> PathBuf {
    journal.with_extension("died")
}

/// Sends messages and keeps book of what it is told.
#[derive(Actor, Default)]
#[actor(messages(Send, CountDescriptors))]
pub(crate) struct Sender;

#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Send {
    pub(crate) posts: Posts,
    pub(crate) reply: OncePortRef<Told>,
}

/// What is to be posted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Posts {
    pub(crate) to: PortRef<Item>,
    pub(crate) sender: u32,
    pub(crate) stream: u32,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Whether each message waits for the outcome of the one before.
    pub(crate) one_by_one: bool,
    /// After how many posts the process kills itself; its note is put beside this file.
    pub(crate) die_after: Option<(u64, String)>,
}

/// What a sender was told.
#[derive(Clone, Debug, Default, Message, Serialize, Deserialize)]
pub(crate) struct Told {
    /// One outcome for each message, in their order.
    #[serde(with = "hyperactor_proc::as_bytes")]
    pub(crate) outcomes: Vec<u8>,
    /// When the last one came.
    pub(crate) last_at: f64,
    /// What the first failure said.
    pub(crate) first_failure: Option<String>,
}

/// Asks how many descriptors the sender's process has open.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct CountDescriptors(pub(crate) OncePortRef<u64>);

impl RemoteSpawn for Sender {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        crate::race::pass("ready");
        Ok(Self)
    }
}

#[derive(Default)]
struct Book {
    told: Told,
    open: usize,
    full: Option<(MessageEnvelope, Capacity)>,
}

#[derive(Default)]
struct Outcomes {
    book: Mutex<Book>,
    changed: Notify,
    /// Somebody waits for each outcome.
    urgent: bool,
}

impl Outcomes {
    fn note(&self, token: Token, outcome: u8, failure: impl FnOnce() -> Option<String>) {
        let mut book = self.book.lock();
        let place = &mut book.told.outcomes[token.id as usize];
        if *place == 0 {
            *place = outcome;
            book.open -= 1;
        } else {
            *place = TWICE;
        }
        if outcome != DELIVERED && book.told.first_failure.is_none() {
            book.told.first_failure = failure();
        }
        if book.open == 0 {
            book.told.last_at = clock::now();
        }
        drop(book);
        self.changed.notify_one();
    }

    fn note_failure(&self, token: Token, failure: &Failure, text: impl FnOnce() -> String) {
        let outcome = match failure {
            Failure::NotDelivered(_) => NOT_DELIVERED,
            Failure::Unknown(_) => UNKNOWN,
        };
        self.note(token, outcome, || Some(text()));
    }

    async fn all_are_told(&self, up_to: u64) {
        let is_told = |outcome: &u8| *outcome != 0;
        while !self.book.lock().told.outcomes[..up_to as usize]
            .iter()
            .all(is_told)
        {
            self.changed.notified().await;
        }
    }
}

impl ReturnSink for Outcomes {
    fn delivered(&self, token: Token) {
        self.note(token, DELIVERED, || None);
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        let is_full = matches!(
            report.failure,
            Failure::NotDelivered(NotDelivered::QueueFull { .. })
        );
        match report.capacity {
            Some(capacity) if is_full => self.book.lock().full = Some((report.envelope, capacity)),
            _ => self.note_failure(token, &report.failure, || report.to_string()),
        }
    }

    fn abandoned(&self, token: Token) {
        self.note(token, UNKNOWN, || Some("abandoned".to_owned()));
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.note_failure(token, &failure, || failure.to_string());
    }

    fn wants_outcome(&self) -> bool {
        self.urgent
    }
}

impl Handler<Send> for Sender {
    async fn handle(&mut self, cx: &Context<Self>, send: Send) -> ActorResult {
        let post = |envelope, return_handle| cx.post(envelope, return_handle);
        let told = send.posts.carry_out(cx.actor_id(), post).await?;
        cx.reply(send.reply, told);
        Ok(())
    }
}

impl Posts {
    /// Posts everything, waits until all outcomes are there, and returns them.
    pub(crate) async fn carry_out(
        self,
        from: &ActorId,
        post: impl Fn(MessageEnvelope, ReturnHandle),
    ) -> ActorResult<Told> {
        let outcomes = Arc::new(Outcomes {
            urgent: self.one_by_one,
            ..Outcomes::default()
        });
        {
            let mut book = outcomes.book.lock();
            book.told.outcomes = vec![0; usize::try_from(self.count)?];
            book.open = book.told.outcomes.len();
        }
        for index in 0..self.count {
            if let Some((after, note)) = &self.die_after
                && *after == index
            {
                die(Path::new(note));
            }
            let key = Key {
                sender: self.sender,
                stream: self.stream,
                number: self.first + index,
            };
            let message = Stamped::new(key, body(key.number));
            let item = Item(postcard::to_allocvec(&message)?.into());
            let dest = self.to.port_id().clone();
            let mut next = Some(MessageEnvelope::typed(from.clone(), dest, item));
            while let Some(envelope) = next.take() {
                let token = Token {
                    id: index,
                    size: 0,
                    to: 0,
                };
                post(envelope, ReturnHandle::new(outcomes.clone(), token));
                let full = outcomes.book.lock().full.take();
                if let Some((envelope, capacity)) = full {
                    capacity.available().await;
                    next = Some(envelope);
                }
            }
            if self.one_by_one {
                outcomes.all_are_told(index + 1).await;
            }
        }
        outcomes.all_are_told(self.count).await;
        let told = outcomes.book.lock().told.clone();
        Ok(told)
    }
}

impl Handler<CountDescriptors> for Sender {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        CountDescriptors(reply): CountDescriptors,
    ) -> ActorResult {
        let count = std::fs::read_dir("/proc/self/fd")?.count();
        cx.reply(reply, count as u64);
        Ok(())
    }
}
