//! Destinations that take nothing, beside others on the same channel: only those who send to them are told to wait. The
//! neighbours go on as if they were alone, and once the stuck ones wake up, all that was taken for them arrives in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyperactor_channel::{
    Accept, Completion, Deliver, DialOptions, Failure, Ignore, Inbound, Outbound, Peer, Reason,
    Rejected, ServeOptions, Ticket, Verdict, dial_with, serve_with,
};
use hyperactor_testkit::{Class, Key, Ledger, Outcome, Stamped, SuiteReport};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::support::named::{ByName, Named};
use crate::support::net::{Kind, Place};
use crate::support::traffic::Books;
use crate::support::{Context, holds_within, quantile, runtime};

/// Destinations of one channel, and how many of them are stuck.
const DESTINATIONS: u32 = 16;
const STUCK: u32 = 8;
/// Messages to each of the others while those are stuck.
const MESSAGES: u64 = 5_000;
/// Of half of these messages, from its post to its outcome, and of each: the stuck ones would have it wait for ever.
const OUTCOME: Duration = Duration::from_millis(50);
const OUTCOME_LONGEST: Duration = Duration::from_secs(5);
const WINDOW: u32 = 512;
const BODY: usize = 100;
/// A destination for which no room came in so long is full for good.
const STUCK_FOR: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

/// A receiver whose stuck destinations keep what they get until they wake up.
#[derive(Clone, Debug)]
struct Mailboxes {
    books: Books,
    awake: Arc<AtomicBool>,
    kept: Arc<Mutex<Vec<Ticket>>>,
    inbound: Arc<Mutex<Option<Inbound>>>,
}

impl Accept<Named<Stamped>> for Mailboxes {
    type Session = Self;
    type Completion = Ignore;

    fn open(&self, _: Peer, inbound: Inbound, _: Outbound<Named<Stamped>, Ignore>) -> Self {
        *self.inbound.lock() = Some(inbound);
        self.clone()
    }
}

impl Deliver<Named<Stamped>> for Mailboxes {
    fn deliver(&mut self, message: Named<Stamped>, ticket: Ticket) {
        let inbound = self.inbound.lock().clone().unwrap();
        if message.to != message.message.key().stream {
            // Someone else's name: the ledger misses it.
            inbound.settle(ticket, Verdict::Delivered);
            return inbound.release(ticket);
        }
        self.books.arrived(1, &message.message);
        inbound.settle(ticket, Verdict::Delivered);
        let mut kept = self.kept.lock();
        if message.to < STUCK && !self.awake.load(Ordering::Relaxed) {
            kept.push(ticket);
            return;
        }
        drop(kept);
        inbound.release(ticket);
    }
}

impl Mailboxes {
    fn wake(&self) {
        let kept = {
            let mut kept = self.kept.lock();
            self.awake.store(true, Ordering::Relaxed);
            std::mem::take(&mut *kept)
        };
        let inbound = self.inbound.lock().clone().unwrap();
        for ticket in kept {
            inbound.release(ticket);
        }
    }
}

/// Tells the ledger of one message, and whoever waits for it.
#[derive(Debug)]
struct Told {
    ledger: Ledger,
    key: Key,
    waiter: Option<oneshot::Sender<()>>,
}

impl Told {
    fn tell(self, outcome: Outcome) {
        self.ledger.outcome(self.key, outcome);
        if let Some(waiter) = self.waiter {
            // The neighbour that waits is there until it is told.
            let _told = waiter.send(());
        }
    }
}

impl Completion<Named<Stamped>> for Told {
    fn delivered(self) {
        self.tell(Outcome::Delivered);
    }

    fn undelivered(self, _message: Named<Stamped>, failure: Failure) {
        Completion::<Named<Stamped>>::lost(self, failure);
    }

    fn lost(self, failure: Failure) {
        self.tell(match failure {
            Failure::NotDelivered(_) => Outcome::NotDelivered,
            Failure::Unknown(_) => Outcome::Unknown,
        });
    }

    fn wants_outcome(&self) -> bool {
        self.waiter.is_some()
    }
}

type Channel = Outbound<Named<Stamped>, Told>;

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(transport(kind, context, report));
}

async fn transport(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let books = Books::new(DESTINATIONS as usize);
    let mailboxes = Mailboxes {
        books: books.clone(),
        awake: Arc::default(),
        kept: Arc::default(),
        inbound: Arc::default(),
    };
    let place = Place::new(kind);
    let options = ServeOptions {
        window_messages: WINDOW,
        ..ServeOptions::default()
    };
    let server = serve_with(place.bind.clone(), options, ByName, mailboxes.clone())
        .await
        .unwrap();
    let tx: Channel = dial_with(server.addr().clone(), DialOptions::default(), ByName);

    // Those who send to the stuck ones are told that there is no room, each by itself.
    let filling: Vec<_> = (0..STUCK)
        .map(|to| tokio::spawn(fill(tx.clone(), books.clone(), to)))
        .collect();
    let (mut taken, mut rests) = (Vec::new(), Vec::new());
    for filling in filling {
        let filled = filling.await.unwrap();
        taken.push(filled.taken);
        rests.push(filled.rest);
    }
    report.check(
        "each stuck destination took some",
        taken.iter().all(|taken| *taken > 0),
        format!("{taken:?}"),
    );
    report.figure("messages taken for each of them", format!("{taken:?}"));

    // The others go on, all at once, each waiting for every outcome.
    let messages = context.scaled(MESSAGES);
    let started = Instant::now();
    let running: Vec<_> = (STUCK..DESTINATIONS)
        .map(|to| tokio::spawn(neighbour(tx.clone(), books.clone(), to, messages)))
        .collect();
    let (mut times, mut full) = (Vec::new(), 0);
    for neighbour in running {
        let done = neighbour.await.unwrap();
        times.extend(done.times);
        full += done.full;
    }
    let delivered_meanwhile = (STUCK..DESTINATIONS)
        .map(|to| books.of(to as usize).verdict().count(Class::Delivered) as u64)
        .sum();
    report.at_least(
        "messages delivered to the others meanwhile",
        delivered_meanwhile,
        messages * u64::from(DESTINATIONS - STUCK),
    );
    report.at_most("of their posts that found no room", full, 0);
    for (share, which, limit) in [
        (500, "half of the others' outcomes", OUTCOME),
        (1000, "all of them", OUTCOME_LONGEST),
    ] {
        report.within(
            &format!("time to {which}"),
            quantile(&mut times, share),
            limit,
        );
    }
    report.figure("seconds that took", started.elapsed().as_secs_f32());
    let waiting = books.count(Class::Unresolved);
    report.at_least(
        "messages to the stuck ones that wait on this side",
        waiting,
        u64::from(STUCK),
    );
    let kept = mailboxes.kept.lock().len() as u64;
    report.at_least("messages that they keep", kept, u64::from(STUCK));
    report.at_most("of the window, less than all", kept, u64::from(WINDOW) - 1);

    mailboxes.wake();
    for rest in rests {
        offer(&tx, rest).await;
    }
    let drained = holds_within(PATIENCE, || books.count(Class::Unresolved) == 0).await;
    report.check("the stuck ones got theirs once awake", drained, waiting);
    tx.close();
    tx.closed().await;
    drop(server);
    books.judge(kind.name(), report);
    let (posted, delivered) = (books.posted(), books.count(Class::Delivered));
    report.check(
        "every message that was taken was delivered",
        posted == delivered,
        format!("{delivered} of {posted}"),
    );
}

/// The next message to a destination, entered as posted, and what tells of it.
fn message(books: &Books, to: u32, waiter: Option<oneshot::Sender<()>>) -> (Named<Stamped>, Told) {
    let ledger = books.of(to as usize).clone();
    let message = ledger.post(to, to, vec![1; BODY]);
    let key = message.key();
    let told = Told {
        ledger,
        key,
        waiter,
    };
    (Named::of(message), told)
}

/// What a stuck destination was sent.
struct Filled {
    taken: u64,
    /// The first for which there was no room.
    rest: (Named<Stamped>, Told),
}

/// Posts to a stuck destination until there is no room for it, and does not come to be.
async fn fill(tx: Channel, books: Books, to: u32) -> Filled {
    let mut taken = 0;
    loop {
        let (message, told) = message(&books, to, None);
        let room = tx.capacity_for(&message);
        match tx.offer(message, told) {
            Ok(()) => taken += 1,
            Err(Rejected {
                message,
                completion,
                reason: Reason::Full,
            }) => {
                // Room comes as long as acknowledgements do. A stuck destination soon has none.
                let came = tokio::time::timeout(STUCK_FOR, room.available()).await;
                let rest = (message, completion);
                if came.is_err() {
                    return Filled { taken, rest };
                }
                match tx.offer(rest.0, rest.1) {
                    Ok(()) => taken += 1,
                    Err(Rejected {
                        message,
                        completion,
                        ..
                    }) => {
                        let rest = (message, completion);
                        return Filled { taken, rest };
                    }
                }
            }
            Err(rejected) => panic!("{rejected:?}"),
        }
    }
}

/// Posts a message once there is room for it; gives how often there was none.
async fn offer(tx: &Channel, mut next: (Named<Stamped>, Told)) -> u64 {
    let mut full = 0;
    while let Err(rejected) = tx.offer(next.0, next.1) {
        assert_eq!(rejected.reason, Reason::Full, "{rejected:?}");
        full += 1;
        let room = tx.capacity_for(&rejected.message);
        next = (rejected.message, rejected.completion);
        room.available().await;
    }
    full
}

struct Done {
    times: Vec<Duration>,
    full: u64,
}

/// Sends to a destination that takes everything, one message after the other.
async fn neighbour(tx: Channel, books: Books, to: u32, messages: u64) -> Done {
    let mut done = Done {
        times: Vec::new(),
        full: 0,
    };
    for _ in 0..messages {
        let (waiter, outcome) = oneshot::channel();
        let next = message(&books, to, Some(waiter));
        let started = Instant::now();
        done.full += offer(&tx, next).await;
        outcome.await.unwrap();
        done.times.push(started.elapsed());
    }
    done
}
