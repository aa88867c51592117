//! A `LocalProcDialer` in this process, as the forwarder of a proc that is not there, beside a real host with real children:
//! what it hands to the backend passes under the test's eyes, and every message is in a ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyperactor_bootstrap::RouteReport;
use hyperactor_bootstrap::mailbox::LocalProcDialer;
use hyperactor_host::{HostedProc, RoutePolicy};
use hyperactor_mailbox::{
    BoxFuture, Failure, FlushError, MailboxSender, MessageEnvelope, ReturnHandle, ReturnSink,
    Token, Undeliverable,
};
use hyperactor_proc::ActorRef;
use hyperactor_refs::{ActorId, ProcId};
use hyperactor_router::MailboxClient;
use hyperactor_testkit::{Key, Ledger, Outcome, Stamped, eventually};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::keeper::{Keeper, Note, Notes};
use crate::world::{LONG, TestResult, World, send_signal};

pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) dialer: LocalProcDialer,
    pub(crate) backend: Backend,
    pub(crate) posts: Posts,
}

impl Rig {
    pub(crate) async fn new() -> TestResult<Self> {
        Self::with(World::new().await?, |dialer| dialer)
    }

    pub(crate) fn with(
        world: World,
        change: impl FnOnce(LocalProcDialer) -> LocalProcDialer,
    ) -> TestResult<Self> {
        let client = MailboxClient::dial(world.host.backend_addr().clone());
        let backend = Backend::new(client);
        Ok(Self {
            dialer: change(dialer(&world, &backend)),
            backend,
            posts: Posts::new(&world.host.proc_id("tester")?),
            world,
        })
    }

    /// What is left of a rig, with a new dialer.
    pub(crate) fn resumed(world: World, backend: Backend, posts: Posts) -> Self {
        Self {
            dialer: dialer(&world, &backend),
            world,
            backend,
            posts,
        }
    }

    /// Another dialer beside the first.
    pub(crate) fn dialer_with(
        &self,
        change: impl FnOnce(LocalProcDialer) -> LocalProcDialer,
    ) -> LocalProcDialer {
        change(dialer(&self.world, &self.backend))
    }

    /// A child with a keeper, which nobody has announced to the dialer.
    pub(crate) async fn keeper(&self, name: &str) -> TestResult<(HostedProc, ActorRef<Keeper>)> {
        let hosted = self.world.spawn(name, RoutePolicy::Auto).await?;
        let keeper = hosted
            .spawn::<Keeper>(&self.world.client, "keeper", ())
            .await?;
        Ok((hosted, keeper))
    }

    /// As the host does with its children.
    pub(crate) fn announce(&self, hosted: &HostedProc) {
        self.dialer
            .announce(hosted.name(), hosted.info().incarnation);
    }

    /// Posts some notes, one after the other.
    pub(crate) fn post(&self, to: &ActorRef<Keeper>, count: u64) {
        for _ in 0..count {
            self.posts.post(&self.dialer, to);
        }
    }

    /// Posts notes until one has gone straight; each has its outcome before the next.
    pub(crate) async fn post_until_straight(&self, to: &ActorRef<Keeper>, within: Duration) {
        let name = to.actor_id().proc_id().name().to_owned();
        let (before, _) = self.counts(&name);
        let start = Instant::now();
        while self.counts(&name).0 == before {
            assert!(
                start.elapsed() < within,
                "nothing goes straight: {}",
                self.explain(&name)
            );
            self.post(to, 1);
            self.posts.all_told(LONG).await;
        }
    }

    /// Messages to a proc that went straight, and by the backend.
    pub(crate) fn counts(&self, name: &str) -> (u64, u64) {
        let counts = self.dialer.counts();
        let found = counts.iter().find(|count| count.proc_id.name() == name);
        found
            .map(|count| (count.direct, count.relay))
            .unwrap_or_default()
    }

    pub(crate) fn explain(&self, name: &str) -> RouteReport {
        let addr = self.world.host.addr().clone();
        self.dialer.explain(&ProcId::Direct(addr, name.to_owned()))
    }

    /// Enters into the ledger what a keeper has, and returns how much that is.
    pub(crate) async fn read(&self, from: &ActorRef<Keeper>, life: u64) -> TestResult<usize> {
        let notes = from.ask_within(&self.world.client, LONG, Notes).await?;
        for note in &notes {
            let stamped: Stamped = postcard::from_bytes(note)?;
            self.posts.ledger().arrived(life, &stamped);
        }
        Ok(notes.len())
    }

    /// Ends the host; the ledger must be clean then.
    pub(crate) async fn end(self) -> TestResult {
        self.posts.ledger().verdict().assert_clean();
        self.world.end().await
    }
}

/// Stops a child, and returns when none of its threads runs any more.
pub(crate) fn pause(hosted: &HostedProc) -> TestResult {
    let pid = hosted.info().pid.ok_or("no process")?;
    Ok(send_signal(pid, Signal::STOP)?)
}

/// Lets a child go on that was stopped.
pub(crate) fn resume(hosted: &HostedProc) -> TestResult {
    let pid = hosted.info().pid.ok_or("no process")?;
    Ok(send_signal(pid, Signal::CONT)?)
}

fn dialer(world: &World, backend: &Backend) -> LocalProcDialer {
    let frontend = world.host.addr().clone();
    LocalProcDialer::new(frontend, world.dir.clone(), backend.clone())
}

/// The backend sender of a dialer: the real one, with a count, a look at each message, and a gate.
#[derive(Clone)]
pub(crate) struct Backend(Arc<BackendInner>);

struct BackendInner {
    client: MailboxClient,
    count: AtomicU64,
    /// What waits at the gate while it is shut.
    gate: Mutex<Option<Vec<(MessageEnvelope, ReturnHandle)>>>,
    /// The bytes of each message, where somebody asked for them.
    recorded: Mutex<Option<Vec<BytesMut>>>,
}

impl Backend {
    pub(crate) fn new(client: MailboxClient) -> Self {
        Self(Arc::new(BackendInner {
            client,
            count: AtomicU64::new(0),
            gate: Mutex::default(),
            recorded: Mutex::default(),
        }))
    }

    /// How many messages were handed to it.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Keeps what comes from here on.
    pub(crate) fn shut(&self) {
        self.0.gate.lock().get_or_insert_default();
    }

    /// Lets go what was kept, in order. Nothing may be posted meanwhile.
    pub(crate) fn open(&self) {
        let kept = self.take();
        self.pass(kept);
    }

    /// Lets go what was taken out.
    pub(crate) fn pass(&self, kept: Vec<(MessageEnvelope, ReturnHandle)>) {
        for (envelope, handle) in kept {
            self.0.client.post_unchecked(envelope, handle);
        }
    }

    /// Opens the gate and gives out what was kept.
    pub(crate) fn take(&self) -> Vec<(MessageEnvelope, ReturnHandle)> {
        self.0.gate.lock().take().unwrap_or_default()
    }

    /// Keeps the bytes of each message from here on.
    pub(crate) fn record(&self) {
        self.0.recorded.lock().get_or_insert_default();
    }

    pub(crate) fn recorded(&self) -> Vec<BytesMut> {
        self.0.recorded.lock().take().unwrap_or_default()
    }
}

impl MailboxSender for Backend {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        if let Some(recorded) = &mut *self.0.recorded.lock() {
            recorded.push(encoded(&envelope));
        }
        let mut gate = self.0.gate.lock();
        if let Some(kept) = &mut *gate {
            return kept.push((envelope, return_handle));
        }
        drop(gate);
        self.0.client.post_unchecked(envelope, return_handle);
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        self.0.client.flush()
    }
}

/// The whole envelope as it is written to a wire.
fn encoded(envelope: &MessageEnvelope) -> BytesMut {
    let mut bytes = BytesMut::new();
    if let Err(error) = envelope.encode(&mut bytes) {
        panic!("an envelope does not encode: {error}");
    }
    bytes
}

/// What was posted, and what became of it.
#[derive(Clone)]
pub(crate) struct Posts {
    sender: ActorId,
    number: u32,
    book: Arc<Book>,
}

struct Book {
    ledger: Ledger,
    rows: Mutex<Vec<Row>>,
}

struct Row {
    key: Key,
    posted: Instant,
    fate: Option<Fate>,
}

/// What became of one message.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) outcome: Outcome,
    /// The code of the failure; empty when it was delivered.
    pub(crate) code: &'static str,
    /// What the failure said.
    pub(crate) text: String,
    /// From the post to the outcome.
    pub(crate) took: Duration,
}

impl Posts {
    fn new(proc_id: &ProcId) -> Self {
        Self {
            sender: ActorId::root(proc_id.clone(), "tester"),
            number: 1,
            book: Arc::new(Book {
                ledger: Ledger::new(),
                rows: Mutex::default(),
            }),
        }
    }

    /// Another sender in the same books.
    pub(crate) fn of(&self, number: u32) -> Self {
        Self {
            number,
            ..self.clone()
        }
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.book.ledger
    }

    /// Posts one note; each destination is a stream of its own.
    pub(crate) fn post(&self, by: &impl MailboxSender, to: &ActorRef<Keeper>) {
        let (envelope, handle) = self.note(to);
        by.post(envelope, handle);
    }

    /// As [`post`](Self::post), with a header, and without spending a step of the time to live. Returns the envelope's bytes.
    pub(crate) fn post_recorded(
        &self,
        by: &impl MailboxSender,
        to: &ActorRef<Keeper>,
    ) -> TestResult<BytesMut> {
        let (mut envelope, handle) = self.note(to);
        envelope.headers_mut().set(4_711, &b"a header"[..])?;
        let bytes = encoded(&envelope);
        by.post_unchecked(envelope, handle);
        Ok(bytes)
    }

    fn note(&self, to: &ActorRef<Keeper>) -> (MessageEnvelope, ReturnHandle) {
        let stamped = self.book.ledger.post(self.number, stream(to), vec![7; 48]);
        let key = stamped.key();
        let note = Note(postcard::to_allocvec(&stamped).unwrap_or_default().into());
        let dest = to.port::<Note>().port_id().clone();
        let envelope = MessageEnvelope::typed(self.sender.clone(), dest, note);
        let mut rows = self.book.rows.lock();
        let id = rows.len() as u64;
        rows.push(Row {
            key,
            posted: Instant::now(),
            fate: None,
        });
        let token = Token { id, size: 0, to: 0 };
        (envelope, ReturnHandle::new(self.book.clone(), token))
    }

    /// How many messages were posted.
    pub(crate) fn count(&self) -> usize {
        self.book.rows.lock().len()
    }

    /// Waits until every message has an outcome.
    #[track_caller]
    pub(crate) fn all_told(&self, within: Duration) -> impl Future<Output = ()> {
        let book = Arc::clone(&self.book);
        eventually(within, move || {
            book.rows.lock().iter().all(|row| row.fate.is_some())
        })
    }

    /// What became of the messages from a number on, in the order posted; those without an outcome are left out.
    pub(crate) fn fates(&self, from: usize) -> Vec<Fate> {
        let rows = self.book.rows.lock();
        rows[from..]
            .iter()
            .filter_map(|row| row.fate.clone())
            .collect()
    }
}

/// The stream of a destination: its name, hashed as `java.lang.String` is.
fn stream(to: &ActorRef<Keeper>) -> u32 {
    let name = to.actor_id().proc_id().name();
    name.bytes().fold(0, |sum: u32, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    })
}

impl Book {
    fn note(&self, token: Token, outcome: Outcome, code: &'static str, text: String) {
        let mut rows = self.rows.lock();
        let row = &mut rows[token.id as usize];
        self.ledger.outcome(row.key, outcome);
        row.fate.get_or_insert(Fate {
            outcome,
            code,
            text,
            took: row.posted.elapsed(),
        });
    }

    fn note_failure(&self, token: Token, failure: &Failure, text: String) {
        let outcome = match failure {
            Failure::NotDelivered(_) => Outcome::NotDelivered,
            Failure::Unknown(_) => Outcome::Unknown,
        };
        self.note(token, outcome, failure.code(), text);
    }
}

impl ReturnSink for Book {
    fn delivered(&self, token: Token) {
        self.note(token, Outcome::Delivered, "", String::new());
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        self.note_failure(token, &report.failure, report.to_string());
    }

    fn abandoned(&self, token: Token) {
        self.note(token, Outcome::Unknown, "abandoned", String::new());
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.note_failure(token, &failure, failure.to_string());
    }
}
