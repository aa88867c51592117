//! The actors that the suites spawn in processes to be killed: a receiver that writes down what it takes before anybody is
//! told, a sender that keeps book of what it is told, and either can kill its own process at a chosen message.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyperactor_mailbox::{
    Capacity, Failure, MessageEnvelope, NotDelivered, PortRef, ReturnHandle, ReturnSink, Token,
    Undeliverable,
};
use hyperactor_proc::{
    Actor, ActorError, ActorResult, Context, Handler, Message, OncePortRef, Outbox, Registry,
    RemoteSpawn,
};
use hyperactor_testkit::{Journal, Key, Stamped};
use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock;

pub(crate) fn registry() -> Registry {
    Registry::new().with::<Receiver>().with::<Sender>()
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

/// Takes messages at a port, and writes each down on its way into the queue: before its sender can be told.
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
        let journal = Journal::open(&path, life)?;
        let (handle, mut receiver) = cx.mailbox().open_port::<()>();
        let arrivals = AtomicU64::new(0);
        let port = handle
            .contramap(move |Item(bytes): Item| {
                let number = arrivals.fetch_add(1, Ordering::Relaxed);
                let last = die_at.filter(|(at, _)| *at == number);
                if last.is_some_and(|(_, writes)| !writes) {
                    die(&path);
                }
                match postcard::from_bytes::<Stamped>(&bytes) {
                    Ok(message) => {
                        if let Err(error) = journal.arrived(&message) {
                            eprintln!("an arrival is not written down: {error}");
                        }
                    }
                    Err(error) => eprintln!("what arrived is no message: {error}"),
                }
                if last.is_some() {
                    die(&path);
                }
            })
            .bind();
        // The end of the queue is the end of the actor.
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        self.port = Some(port.clone());
        Ok(port)
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
    pub(crate) to: PortRef<Item>,
    pub(crate) sender: u32,
    pub(crate) stream: u32,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Whether each message waits for the outcome of the one before.
    pub(crate) one_by_one: bool,
    /// After how many posts the process kills itself; its note is put beside this file.
    pub(crate) die_after: Option<(u64, String)>,
    pub(crate) reply: OncePortRef<Told>,
}

/// What a sender was told.
#[derive(Clone, Debug, Default, Message, Serialize, Deserialize)]
pub(crate) struct Told {
    /// One outcome for each message, in their order.
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
}

impl Handler<Send> for Sender {
    async fn handle(&mut self, cx: &Context<Self>, send: Send) -> ActorResult {
        let outcomes = Arc::new(Outcomes::default());
        {
            let mut book = outcomes.book.lock();
            book.told.outcomes = vec![0; usize::try_from(send.count)?];
            book.open = book.told.outcomes.len();
        }
        for index in 0..send.count {
            if let Some((after, note)) = &send.die_after
                && *after == index
            {
                die(Path::new(note));
            }
            let key = Key {
                sender: send.sender,
                stream: send.stream,
                number: send.first + index,
            };
            let message = Stamped::new(key, body(key.number));
            let item = Item(postcard::to_allocvec(&message)?.into());
            let dest = send.to.port_id().clone();
            let mut next = Some(MessageEnvelope::typed(cx.actor_id().clone(), dest, item));
            while let Some(envelope) = next.take() {
                let token = Token { id: index, size: 0 };
                cx.post(envelope, ReturnHandle::new(outcomes.clone(), token));
                let full = outcomes.book.lock().full.take();
                if let Some((envelope, capacity)) = full {
                    capacity.available().await;
                    next = Some(envelope);
                }
            }
            if send.one_by_one {
                outcomes.all_are_told(index + 1).await;
            }
        }
        outcomes.all_are_told(send.count).await;
        let told = outcomes.book.lock().told.clone();
        cx.reply(send.reply, told);
        Ok(())
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
