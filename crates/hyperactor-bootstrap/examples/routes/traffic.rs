//! Who sends: each sender streams to the ports of a sibling, several messages under way, and tells the ledger what it is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyperactor_mailbox::{
    Capacity, Failure, MessageEnvelope, NotDelivered, ReturnHandle, ReturnSink, Token,
    Undeliverable,
};
use hyperactor_proc::{Client, Message, Outbox, Proc};
use hyperactor_refs::PortId;
use hyperactor_testkit::{Key, Ledger, Outcome, Rng};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::context::{Result, another};
use crate::oracle::Tally;

/// Senders of each life of a proc: every other one is a thread of its own, the rest are tasks.
pub(crate) const SENDERS: u64 = 4;
/// The most messages that one sender has under way.
const WINDOW_MAX: u64 = 96;
/// One body of so many is large.
const LARGE_ONE_OF: u64 = 64;
const LARGE_BYTES: u64 = 48 * 1024;
const SMALL_BYTES: u64 = 256;

/// One stamped message: the encoded form of [`hyperactor_testkit::Stamped`].
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Item(pub(crate) Bytes);

/// The senders of one life of a proc.
pub(crate) struct Traffic {
    /// How many messages they may still post.
    budget: Arc<Semaphore>,
    senders: Vec<JoinHandle<()>>,
    /// Its clients do not keep it.
    _proc: Proc,
}

impl Traffic {
    /// Starts them, without a budget. `number` is the first of the ledger's senders that they are.
    pub(crate) fn start(
        proc: &Proc,
        life: u64,
        number: u64,
        ports: &[PortId],
        books: &Books,
        rng: &mut Rng,
    ) -> Result<Self> {
        let budget = Arc::new(Semaphore::new(0));
        let mut senders = Vec::new();
        for index in 0..SENDERS {
            let sender = Sender {
                // The oracles find the life in the name.
                client: proc.client(&format!("sender-{life}-{index}"))?,
                number: u32::try_from(number + index)?,
                ports: ports.to_vec(),
                window: u32::try_from(rng.range(1..WINDOW_MAX + 1))?,
                is_urgent: rng.chance(1, 2),
                budget: Arc::clone(&budget),
                books: books.clone(),
                rng: another(rng),
            };
            senders.push(if index % 2 == 0 {
                tokio::spawn(sender.run())
            } else {
                let runtime = Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(sender.run()))
            });
        }
        Ok(Self {
            budget,
            senders,
            _proc: proc.clone(),
        })
    }

    /// Lets them post more messages.
    pub(crate) fn grant(&self, messages: u64) {
        self.budget.add_permits(messages as usize);
    }

    /// What they may still post.
    pub(crate) fn left(&self) -> usize {
        self.budget.available_permits()
    }

    /// Lets them post nothing more.
    pub(crate) fn close(&self) {
        self.budget.close();
    }

    /// Waits until each of their messages has its outcome. To be closed before.
    pub(crate) async fn join(mut self) -> Result {
        for sender in std::mem::take(&mut self.senders) {
            sender.await?;
        }
        Ok(())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // Threads that wait for a budget would wait for ever.
        self.close();
    }
}

/// Where senders keep book.
#[derive(Clone)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    pub(crate) tally: Arc<Tally>,
}

struct Sender {
    client: Client,
    number: u32,
    ports: Vec<PortId>,
    window: u32,
    is_urgent: bool,
    budget: Arc<Semaphore>,
    books: Books,
    rng: Rng,
}

impl Sender {
    async fn run(mut self) {
        let window = Arc::new(Semaphore::new(self.window as usize));
        let budgets = Arc::clone(&self.budget);
        while let Ok(budget) = budgets.acquire().await {
            budget.forget();
            // Nobody closes it.
            let Ok(place) = Arc::clone(&window).acquire_owned().await else {
                return;
            };
            self.post_one(place).await;
        }
        drop(window.acquire_many(self.window).await);
    }

    async fn post_one(&mut self, place: OwnedSemaphorePermit) {
        let port = self.rng.below(self.ports.len() as u64) as usize;
        let length = if self.rng.chance(1, LARGE_ONE_OF) {
            self.rng.below(LARGE_BYTES)
        } else {
            self.rng.below(SMALL_BYTES)
        };
        let body = self.rng.bytes(length as usize);
        let message = self.books.ledger.post(self.number, port as u32, body);
        let item = Item(postcard::to_allocvec(&message).unwrap().into());
        let told = Arc::new(Told {
            key: message.key(),
            books: self.books.clone(),
            is_urgent: self.is_urgent,
            state: Mutex::new(Posting {
                is_on: true,
                full: None,
                place: Some(place),
            }),
        });
        self.books.tally.posted.fetch_add(1, Ordering::Relaxed);
        let dest = self.ports[port].clone();
        let mut envelope = MessageEnvelope::typed(self.client.actor_id().clone(), dest, item);
        let ttl = envelope.ttl();
        loop {
            let handle = ReturnHandle::new(told.clone(), Token::default());
            self.client.post(envelope, handle);
            let full = {
                let mut state = told.state.lock();
                state.is_on = false;
                state.full.take()
            };
            let Some((returned, capacity)) = full else {
                return;
            };
            capacity.available().await;
            told.state.lock().is_on = true;
            envelope = returned;
            envelope.set_ttl(ttl);
        }
    }
}

/// Enters what became of one message.
struct Told {
    key: Key,
    books: Books,
    is_urgent: bool,
    state: Mutex<Posting>,
}

/// What the post of a message met.
struct Posting {
    /// Whether it has not returned yet.
    is_on: bool,
    /// What it found full: the message is posted again.
    full: Option<(MessageEnvelope, Capacity)>,
    /// Its place among those that its sender has under way.
    place: Option<OwnedSemaphorePermit>,
}

impl Told {
    fn tell(&self, outcome: Outcome) {
        self.books.ledger.outcome(self.key, outcome);
        self.books.tally.resolved.fetch_add(1, Ordering::Relaxed);
        let place = self.state.lock().place.take();
        drop(place);
    }

    fn tell_failure(&self, failure: &Failure) {
        self.tell(match failure {
            Failure::NotDelivered(_) => Outcome::NotDelivered,
            Failure::Unknown(_) => Outcome::Unknown,
        });
    }
}

impl ReturnSink for Told {
    fn delivered(&self, _: Token) {
        self.tell(Outcome::Delivered);
    }

    fn undelivered(&self, _: Token, report: Undeliverable) {
        let is_full = matches!(
            report.failure,
            Failure::NotDelivered(NotDelivered::QueueFull { .. })
        );
        {
            let mut state = self.state.lock();
            if state.is_on
                && is_full
                && let Some(capacity) = report.capacity
            {
                state.full = Some((report.envelope, capacity));
                return;
            }
        }
        self.tell_failure(&report.failure);
    }

    fn abandoned(&self, _: Token) {
        self.tell(Outcome::Unknown);
    }

    fn lost(&self, _: Token, failure: Failure) {
        self.tell_failure(&failure);
    }

    fn wants_outcome(&self) -> bool {
        self.is_urgent
    }
}
