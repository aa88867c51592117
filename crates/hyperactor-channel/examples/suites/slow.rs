//! A receiver whose queue is full because its consumer sleeps for five delivery timeouts. What is in the queue is
//! acknowledged meanwhile; what did not fit comes back; and nothing that came back arrives all the same.

use std::time::{Duration, Instant};

use hyperactor_channel::{DialOptions, ServeOptions, dial_with, serve_queue};
use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{Class, Seed, SuiteReport};

use crate::support::net::{Kind, Place};
use crate::support::traffic::{Books, Sender, codec};
use crate::support::{BUSY, Context, runtime};

/// All transports together, all at once.
const CASES: usize = 20;
const ASLEEP: Duration = Duration::from_secs(5);
const DELIVERY: Duration = Duration::from_secs(1);
/// Messages that a consumer's queue takes, and that each sender posts.
const WINDOW: u32 = 64;
const MESSAGES: u64 = 500;
/// Until everything that fits is acknowledged, and until everything has its outcome: the aims of [`SuiteReport::times`].
const ACKNOWLEDGED: Duration = Duration::from_millis(400);
const RESOLVED: Duration = Duration::from_secs(2);

pub(crate) fn run(context: &Context, report: &mut SuiteReport) {
    runtime().block_on(async {
        let cases = context.count(CASES);
        let books = Books::new(cases);
        let mut running = Vec::new();
        for case in 0..cases {
            let seed = context.seed.fork(&format!("slow/{case}"));
            running.push(tokio::spawn(one(books.clone(), case, seed)));
        }
        let (mut acknowledged, mut resolved) = (Vec::new(), Vec::new());
        let (mut queued, mut after) = (0, 0);
        for case in running {
            let done = case.await.unwrap();
            acknowledged.push(done.acknowledged);
            resolved.push(done.resolved);
            queued += done.queued;
            after += done.after;
        }
        books.judge("slow", report);
        let cases = cases as u64;
        report.at_least(
            "messages in the queues of sleeping consumers",
            queued,
            cases * u64::from(WINDOW),
        );
        let returned = books.count(Class::Returned);
        report.at_least(
            "messages that came back",
            returned,
            cases * (MESSAGES - 2 * u64::from(WINDOW)),
        );
        report.at_least("messages delivered once a consumer was awake", after, cases);
        for (name, times) in [
            ("acknowledged while the consumer slept", &acknowledged),
            ("resolved while the consumer slept", &resolved),
        ] {
            let in_time = times.iter().filter(|took| **took < ASLEEP).count();
            report.at_least(name, in_time as u64, cases);
        }
        report.times(
            "time to the last acknowledgement",
            &acknowledged,
            ACKNOWLEDGED,
            BUSY,
        );
        report.times("time to the last outcome", &resolved, RESOLVED, BUSY);
    });
}

struct Done {
    /// Until what fits into the queue was acknowledged.
    acknowledged: Duration,
    /// Until everything had its outcome.
    resolved: Duration,
    queued: u64,
    after: u64,
}

async fn one(books: Books, case: usize, seed: Seed) -> Done {
    let mut rng = seed.rng();
    let place = Place::new(Kind::of(case));
    let options = ServeOptions {
        window_messages: WINDOW,
        ..ServeOptions::default()
    };
    let mut rx = serve_queue(place.bind.clone(), options, codec())
        .await
        .unwrap();
    let addr: ChannelAddr = rx.addr().clone();
    let awake = Instant::now() + ASLEEP;

    let options = DialOptions {
        delivery_timeout: DELIVERY,
        ..DialOptions::default()
    };
    let tx = dial_with(addr.clone(), options, codec());
    let mut sender = Sender::new(&books, case);
    let started = Instant::now();
    for _ in 0..MESSAGES {
        let length = usize::try_from(rng.below(300)).unwrap();
        sender.post(&tx, rng.bytes(length)).await;
    }
    let mut acknowledged = None;
    let mut resolved = None;
    let ledger = books.of(case);
    while resolved.is_none() && started.elapsed() < ASLEEP {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let done = ledger.resolved() as u64;
        if done >= u64::from(WINDOW) {
            acknowledged.get_or_insert(started.elapsed());
        }
        if done == MESSAGES {
            resolved = Some(started.elapsed());
        }
    }
    tokio::time::sleep_until(awake.into()).await;
    // The consumer wakes: all that was reported delivered is here, and nothing else comes.
    let mut queued = 0;
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), rx.recv()).await
    {
        books.arrived(1, &message);
        queued += 1;
    }
    // A channel is of use again: the old one if it lives, else a new one.
    let fresh = if tx.is_closed() {
        dial_with(addr, DialOptions::default(), codec())
    } else {
        tx
    };
    sender.awaited = true;
    sender.post(&fresh, b"after".to_vec()).await;
    let message = rx.recv().await.unwrap();
    books.arrived(1, &message);
    fresh.flush().await.unwrap();
    Done {
        acknowledged: acknowledged.unwrap_or(ASLEEP),
        resolved: resolved.unwrap_or(ASLEEP),
        queued,
        after: u64::from(message.body() == b"after"),
    }
}
