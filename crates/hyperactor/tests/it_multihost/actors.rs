//! The actors in the machines' procs: a node that does what it is ordered and reports what it is told, a taker that writes
//! down what arrives, and a giver that keeps book of what it is told.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyperactor::mailbox::{
    MessageEnvelope, PortSink, ReturnHandle, ReturnSink, Token, Undeliverable,
};
use hyperactor::prelude::*;
use hyperactor::proc::spawn_remote;
use hyperactor_testkit::{Journal, Key, Stamped};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub(crate) fn registry() -> Registry {
    Registry::new()
        .with::<Node>()
        .with::<Taker>()
        .with::<Giver>()
}

/// What a node is told of an actor that it watches.
#[derive(Clone, Debug, PartialEq, Eq, Message, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) by: ActorId,
    pub(crate) of: ActorId,
    pub(crate) code: String,
    pub(crate) text: String,
}

#[derive(Actor)]
#[actor(hooks, messages(WhoAreYou, PassOn, SpawnAt, Watch))]
pub(crate) struct Node {
    notes: PortRef<Told>,
}

/// Asks a node for its id, and the process it is in.
#[derive(Clone, Message, Serialize, Deserialize)]
pub(crate) struct WhoAreYou(pub(crate) OncePortRef<(ActorId, u32)>);

/// Has a node pass a question on along the nodes: the last one answers, straight to whoever asked.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct PassOn {
    pub(crate) along: Vec<ActorRef<Node>>,
    pub(crate) visited: Vec<ActorId>,
    pub(crate) reply: OncePortRef<Vec<ActorId>>,
}

/// Has a node spawn another one in a proc, and ask it who it is.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct SpawnAt {
    pub(crate) place: ProcId,
    pub(crate) name: String,
    pub(crate) reply: OncePortRef<Result<(ActorRef<Node>, u32), String>>,
}

/// Has a node watch an actor.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Watch(pub(crate) ActorId, pub(crate) OncePortRef<()>);

impl RemoteSpawn for Node {
    type Params = PortRef<Told>;

    fn create(notes: PortRef<Told>) -> Result<Self, ActorError> {
        Ok(Self { notes })
    }
}

impl Actor for Node {
    async fn on_supervision(&mut self, cx: &Context<Self>, event: Event) -> ActorResult {
        let told = Told {
            by: cx.actor_id().clone(),
            of: event.actor_id.clone(),
            code: event.cause.code().to_owned(),
            text: event.to_string(),
        };
        self.notes.post(cx, told);
        Ok(())
    }
}

impl Handler<WhoAreYou> for Node {
    async fn handle(&mut self, cx: &Context<Self>, WhoAreYou(reply): WhoAreYou) -> ActorResult {
        cx.reply(reply, (cx.actor_id().clone(), std::process::id()));
        Ok(())
    }
}

impl Handler<PassOn> for Node {
    async fn handle(&mut self, cx: &Context<Self>, question: PassOn) -> ActorResult {
        let PassOn {
            mut along,
            mut visited,
            reply,
        } = question;
        visited.push(cx.actor_id().clone());
        if along.is_empty() {
            cx.reply(reply, visited);
            return Ok(());
        }
        let next = along.remove(0);
        let question = PassOn {
            along,
            visited,
            reply,
        };
        next.post(cx, question);
        Ok(())
    }
}

impl Handler<SpawnAt> for Node {
    async fn handle(&mut self, cx: &Context<Self>, order: SpawnAt) -> ActorResult {
        let SpawnAt { place, name, reply } = order;
        let spawned = match spawn_remote::<Self>(cx, &place, name, self.notes.clone()).await {
            Ok(node) => match node.ask(cx, WhoAreYou).await {
                Ok((_, pid)) => Ok((node, pid)),
                Err(error) => Err(error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        cx.reply(reply, spawned);
        Ok(())
    }
}

impl Handler<Watch> for Node {
    async fn handle(&mut self, cx: &Context<Self>, Watch(who, reply): Watch) -> ActorResult {
        // For as long as the node lives.
        cx.monitor(&who)?;
        cx.reply(reply, ());
        Ok(())
    }
}

/// One stamped message.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Item(pub(crate) Stamped);

/// The body of a message, the same wherever it is made.
pub(crate) fn body(number: u64) -> Vec<u8> {
    let length = 16 + number % 240;
    (0..length).map(|at| (at ^ number) as u8).collect()
}

/// Takes messages at a port, and writes each down as it is placed: before its sender can be told.
#[derive(Actor)]
#[actor(messages(Open, ReadTaken))]
pub(crate) struct Taker {
    params: TakerParams,
    taken: Arc<Taken>,
}

#[derive(Clone, Debug, Message, Serialize, Deserialize)]
pub(crate) struct TakerParams {
    /// The file in which arrivals are written down.
    pub(crate) journal: String,
    /// Which life this is.
    pub(crate) life: u64,
}

/// Asks a taker for its port.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Open(pub(crate) OncePortRef<PortRef<Item>>);

/// Asks a taker how much it took of each sender's stream: one past the last number.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct ReadTaken(pub(crate) OncePortRef<Vec<(u32, u64)>>);

#[derive(Default)]
struct Taken {
    next: Mutex<HashMap<u32, u64>>,
}

impl RemoteSpawn for Taker {
    type Params = TakerParams;

    fn create(params: TakerParams) -> Result<Self, ActorError> {
        Ok(Self {
            params,
            taken: Arc::default(),
        })
    }
}

/// The number of the port that takes messages.
const TAKER: u64 = 4_711;

impl Handler<Open> for Taker {
    async fn handle(&mut self, cx: &Context<Self>, Open(reply): Open) -> ActorResult {
        let port = Port {
            journal: Journal::open(&PathBuf::from(&self.params.journal), self.params.life)?,
            taken: Arc::clone(&self.taken),
        };
        let mailbox = cx.mailbox();
        mailbox.bind_sink(TAKER, Arc::new(port))?;
        cx.reply(
            reply,
            PortRef::attest(PortId::new(mailbox.actor_id().clone(), TAKER)),
        );
        Ok(())
    }
}

impl Handler<ReadTaken> for Taker {
    async fn handle(&mut self, cx: &Context<Self>, ReadTaken(reply): ReadTaken) -> ActorResult {
        let taken = self.taken.next.lock().clone();
        cx.reply(reply, taken.into_iter().collect());
        Ok(())
    }
}

/// What stands behind the port: an arrival is written down, then its sender is told.
struct Port {
    journal: Journal,
    taken: Arc<Taken>,
}

impl PortSink for Port {
    fn deliver(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let Item(message) = match envelope.into_message::<Item>() {
            Ok(item) => item,
            Err((envelope, error)) => {
                let error = error.to_string();
                return return_handle.undeliverable(envelope, NotDelivered::Decode { error });
            }
        };
        if let Err(error) = self.journal.arrived(&message) {
            // The ledger will miss it.
            eprintln!("an arrival is not written down: {error}");
        }
        let Key { sender, number, .. } = message.key();
        self.taken.next.lock().insert(sender, number + 1);
        drop(return_handle.delivered());
    }
}

/// Sends a steady stream and keeps book of what it is told.
#[derive(Actor, Default)]
#[actor(messages(Begin, Finish, ReadGiven))]
pub(crate) struct Giver {
    streams: HashMap<u32, Arc<Book>>,
}

/// Has a giver send numbered messages.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) to: PortRef<Item>,
    /// Who sends, and which of its streams it is.
    pub(crate) sender: u32,
    pub(crate) stream: u32,
    /// The pause between two messages.
    pub(crate) every: Duration,
    /// After how many it ends by itself.
    pub(crate) at_most: u64,
    pub(crate) reply: OncePortRef<()>,
}

/// Asks how many messages of a sender were posted, and how many have their outcome.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct ReadGiven(pub(crate) u32, pub(crate) OncePortRef<(u64, u64)>);

/// Ends a sender's stream. The answer comes when every message has its outcome.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Finish(pub(crate) u32, pub(crate) OncePortRef<Given>);

/// What became of the messages of a stream.
#[derive(Clone, Debug, Default, Message, Serialize, Deserialize)]
pub(crate) struct Given {
    /// The outcomes of each message, in their order: more than one is a fault.
    #[message(byte_by_byte)]
    pub(crate) outcomes: Vec<Vec<u8>>,
    /// The failures in words, without what differs from message to message; each once.
    pub(crate) failures: Vec<String>,
}

/// What became of a message, in a report.
pub(crate) const DELIVERED: u8 = 1;
pub(crate) const NOT_DELIVERED: u8 = 2;
pub(crate) const UNKNOWN: u8 = 3;

/// How many different failures are kept.
const FAILURES_KEPT: usize = 16;

#[derive(Default)]
struct Book {
    given: Mutex<Given>,
    told: AtomicU64,
    is_over: AtomicBool,
}

impl Book {
    fn posted(&self) -> u64 {
        self.given.lock().outcomes.len() as u64
    }

    fn note(&self, token: Token, outcome: u8, failure: Option<String>) {
        let mut given = self.given.lock();
        given.outcomes[token.id as usize].push(outcome);
        if given.outcomes[token.id as usize].len() == 1 {
            self.told.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(failure) = failure
            && given.failures.len() < FAILURES_KEPT
            && !given.failures.contains(&failure)
        {
            given.failures.push(failure);
        }
    }

    fn note_failure(&self, token: Token, failure: &Failure, text: String) {
        let outcome = match failure {
            Failure::NotDelivered(_) => NOT_DELIVERED,
            Failure::Unknown(_) => UNKNOWN,
        };
        self.note(token, outcome, Some(text));
    }
}

impl ReturnSink for Book {
    fn delivered(&self, token: Token) {
        self.note(token, DELIVERED, None);
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        self.note_failure(token, &report.failure, report.to_string());
    }

    fn abandoned(&self, token: Token) {
        self.note(token, UNKNOWN, Some("abandoned".to_owned()));
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.note_failure(token, &failure, failure.to_string());
    }
}

impl RemoteSpawn for Giver {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl Handler<Begin> for Giver {
    async fn handle(&mut self, cx: &Context<Self>, begin: Begin) -> ActorResult {
        let book = Arc::new(Book::default());
        self.streams.insert(begin.sender, Arc::clone(&book));
        cx.reply(begin.reply, ());
        let me = cx.delegate();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(begin.every.max(Duration::from_nanos(1)));
            for number in 0..begin.at_most {
                ticks.tick().await;
                if book.is_over.load(Ordering::Relaxed) {
                    break;
                }
                let key = Key {
                    sender: begin.sender,
                    stream: begin.stream,
                    number,
                };
                book.given.lock().outcomes.push(Vec::new());
                let item = Item(Stamped::new(key, body(number)));
                let dest = begin.to.port_id().clone();
                let envelope = MessageEnvelope::typed(me.actor_id().clone(), dest, item);
                let token = Token {
                    id: number,
                    size: 0,
                    to: 0,
                };
                me.post(envelope, ReturnHandle::new(book.clone(), token));
            }
            book.is_over.store(true, Ordering::Relaxed);
        });
        Ok(())
    }
}

impl Handler<ReadGiven> for Giver {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        ReadGiven(sender, reply): ReadGiven,
    ) -> ActorResult {
        let book = self.streams.get(&sender).ok_or("no such stream")?;
        cx.reply(reply, (book.posted(), book.told.load(Ordering::Relaxed)));
        Ok(())
    }
}

impl Handler<Finish> for Giver {
    async fn handle(&mut self, cx: &Context<Self>, Finish(sender, reply): Finish) -> ActorResult {
        let book = Arc::clone(self.streams.get(&sender).ok_or("no such stream")?);
        book.is_over.store(true, Ordering::Relaxed);
        let me = cx.delegate();
        tokio::spawn(async move {
            // Whoever asked has a deadline.
            while book.told.load(Ordering::Relaxed) < book.posted() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let given = book.given.lock().clone();
            reply.post(&me, given);
        });
        Ok(())
    }
}
