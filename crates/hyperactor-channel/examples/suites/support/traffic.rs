//! Messages that are accounted for: posted through a channel with a completion that writes into a ledger, and written
//! down again where they arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyperactor_channel::{
    Accept, ChannelRx, Codec, Completion, Deliver, Failure, Ignore, Inbound, Outbound, Peer,
    Reason, Rejected, Ticket,
};
use hyperactor_protocol::Verdict;
use hyperactor_testkit::{Class, Key, Ledger, Outcome, Rng, Stamped, SuiteReport};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// One ledger a sender: the sender's number in a key is its place here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books(Arc<Vec<Ledger>>);

impl Books {
    pub(crate) fn new(senders: usize) -> Self {
        Self(Arc::new((0..senders).map(|_| Ledger::new()).collect()))
    }

    pub(crate) fn of(&self, sender: usize) -> &Ledger {
        &self.0[sender]
    }

    pub(crate) fn arrived(&self, incarnation: u64, message: &Stamped) {
        // A sender that nobody knows goes into the first ledger, which has not posted it.
        let at = usize::try_from(message.key().sender).unwrap_or(usize::MAX);
        let ledger = self.0.get(at).unwrap_or(&self.0[0]);
        ledger.arrived(incarnation, message);
    }

    pub(crate) fn posted(&self) -> u64 {
        self.0.iter().map(|ledger| ledger.posted() as u64).sum()
    }

    pub(crate) fn count(&self, class: Class) -> u64 {
        let verdicts = self.0.iter().map(Ledger::verdict);
        verdicts.map(|verdict| verdict.count(class) as u64).sum()
    }

    /// Judges every message, and prints how many are in each class.
    pub(crate) fn judge(&self, name: &str, report: &mut SuiteReport) {
        let verdicts: Vec<_> = self.0.iter().map(Ledger::verdict).collect();
        for class in Class::ALL {
            let count: usize = verdicts.iter().map(|verdict| verdict.count(class)).sum();
            if count != 0 || class.is_fault() {
                report.figure(&format!("{name}: {}", class.name()), count);
            }
        }
        let faulty: Vec<_> = verdicts
            .iter()
            .filter(|verdict| !verdict.is_clean())
            .map(ToString::to_string)
            .collect();
        let name = format!("{name}: no message was treated otherwise than promised");
        report.check(&name, faulty.is_empty(), faulty.join("\n"));
    }
}

/// When the outcomes of one sender came: the longest times without one.
#[derive(Debug)]
pub(crate) struct Pulse {
    last: Instant,
    pub(crate) gaps: Vec<Duration>,
}

impl Pulse {
    pub(crate) fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            last: Instant::now(),
            gaps: Vec::new(),
        }))
    }

    fn beat(&mut self) {
        let now = Instant::now();
        let gap = now - self.last;
        if gap > Duration::from_millis(1) {
            self.gaps.push(gap);
        }
        self.last = now;
    }
}

/// The completion of one message.
#[derive(Debug)]
pub(crate) struct Line {
    ledger: Ledger,
    key: Key,
    pulse: Option<Arc<Mutex<Pulse>>>,
    awaited: bool,
}

impl Line {
    fn tell(&self, outcome: Outcome) {
        self.ledger.outcome(self.key, outcome);
        if let Some(pulse) = &self.pulse {
            pulse.lock().beat();
        }
    }

    fn fail(&self, failure: &Failure) {
        self.tell(match failure {
            Failure::NotDelivered(_) => Outcome::NotDelivered,
            Failure::Unknown(_) => Outcome::Unknown,
        });
    }
}

impl Completion<Stamped> for Line {
    fn delivered(self) {
        self.tell(Outcome::Delivered);
    }

    fn undelivered(self, message: Stamped, failure: Failure) {
        // Another message than the one posted is a fault that the ledger names: its own stays without an outcome.
        if message.key() == self.key && message.is_intact() {
            self.fail(&failure);
        }
    }

    fn lost(self, failure: Failure) {
        self.fail(&failure);
    }

    fn wants_outcome(&self) -> bool {
        self.awaited
    }
}

/// One sender: posts messages into its ledger and into a channel.
pub(crate) struct Sender {
    pub(crate) books: Books,
    pub(crate) number: usize,
    pub(crate) pulse: Option<Arc<Mutex<Pulse>>>,
    pub(crate) awaited: bool,
    /// How often a post found the channel full.
    pub(crate) full: u64,
}

impl Sender {
    pub(crate) fn new(books: &Books, number: usize) -> Self {
        Self {
            books: books.clone(),
            number,
            pulse: None,
            awaited: false,
            full: 0,
        }
    }

    /// Posts one message; waits for room when there is none. A channel that has ended takes nothing: the ledger is told.
    pub(crate) async fn post(&mut self, to: &Outbound<Stamped, Line>, body: Vec<u8>) -> Key {
        let message = self.message(body);
        self.offer(to, message).await
    }

    /// The next message, entered as posted.
    pub(crate) fn message(&self, body: Vec<u8>) -> Stamped {
        let ledger = self.books.of(self.number);
        ledger.post(u32::try_from(self.number).unwrap(), 0, body)
    }

    /// Posts a message of this sender, once there is room.
    pub(crate) async fn offer(&mut self, to: &Outbound<Stamped, Line>, message: Stamped) -> Key {
        let ledger = self.books.of(self.number).clone();
        let key = message.key();
        let line = Line {
            ledger,
            key,
            pulse: self.pulse.clone(),
            awaited: self.awaited,
        };
        let mut next = (message, line);
        loop {
            match to.offer(next.0, next.1) {
                Ok(()) => return key,
                Err(Rejected {
                    message,
                    completion,
                    reason: Reason::Full,
                }) => {
                    self.full += 1;
                    next = (message, completion);
                    // Whether it ended meanwhile, the next offer says.
                    let _ended = to.ready().await;
                }
                Err(Rejected {
                    message,
                    completion,
                    reason,
                }) => {
                    completion.undelivered(message, Failure::NotDelivered(reason));
                    return key;
                }
            }
        }
    }
}

/// A body of some hundred bytes; one in fifty is a few thousand.
pub(crate) fn body(rng: &mut Rng) -> Vec<u8> {
    let most = if rng.chance(1, 50) { 5_000 } else { 200 };
    let length = rng.below(most);
    rng.bytes(usize::try_from(length).unwrap())
}

/// A receiver that writes down what arrives, until it is stopped.
pub(crate) struct Receiver {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Receiver {
    pub(crate) fn start(mut rx: ChannelRx<Stamped>, books: Books, incarnation: u64) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = rx.recv() => match message {
                        Some(message) => books.arrived(incarnation, &message),
                        None => return,
                    },
                    _ = &mut stopped => break,
                }
            }
            rx.close().await;
            while let Some(message) = rx.try_recv() {
                books.arrived(incarnation, &message);
            }
        });
        Self { stop, task }
    }

    /// Stops the server in order, and takes what is still in its queue.
    pub(crate) async fn stop(self) {
        // A receiver that has ended by itself needs no word.
        let _ended_already = self.stop.send(());
        self.task.await.unwrap();
    }
}

/// An outcome as a ledger knows it.
pub(crate) fn told(outcome: &hyperactor_channel::Outcome) -> Outcome {
    match outcome {
        hyperactor_channel::Outcome::Delivered => Outcome::Delivered,
        hyperactor_channel::Outcome::NotDelivered(_) => Outcome::NotDelivered,
        hyperactor_channel::Outcome::Unknown(_) => Outcome::Unknown,
    }
}

/// The codec of the suites' messages, as a value of one type.
pub(crate) fn codec() -> impl Codec<Stamped> {
    hyperactor_channel::Postcard
}

/// Writes down each message within the call that delivers it, so that nothing is lost when its server is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) books: Books,
    pub(crate) incarnation: u64,
    pub(crate) sessions: Arc<AtomicU64>,
}

impl Recording {
    pub(crate) fn new(books: &Books, incarnation: u64) -> Self {
        Self {
            books: books.clone(),
            incarnation,
            sessions: Arc::default(),
        }
    }
}

impl Accept<Stamped> for Recording {
    type Session = RecordingSession;
    type Completion = Ignore;

    fn open(
        &self,
        _peer: Peer,
        inbound: Inbound,
        _: Outbound<Stamped, Ignore>,
    ) -> RecordingSession {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        RecordingSession(self.clone(), inbound)
    }
}

/// One session of a [`Recording`].
#[derive(Debug)]
pub(crate) struct RecordingSession(Recording, Inbound);

impl Deliver<Stamped> for RecordingSession {
    fn deliver(&mut self, message: Stamped, ticket: Ticket) {
        self.0.books.arrived(self.0.incarnation, &message);
        self.1.settle(ticket, Verdict::Delivered);
        self.1.release(ticket);
    }
}
