//! Connections that stall in the middle of a frame for five times the delivery timeout: every post has its outcome in
//! time, also when it is the only message, what is said of a message stays true when the stall ends, and later traffic
//! flows.

use std::time::{Duration, Instant};

use hyperactor_channel::{
    DialOptions, Outbound, Outcome, ServeOptions, dial_tx, dial_with, serve_queue,
};
use hyperactor_protocol::limits::DATA_HEADER_BYTES;
use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{
    Act, ChaosProxy, Class, Direction, Ledger, Plan, Script, Seed, Stamped, SuiteReport,
};

use crate::support::net::{Kind, Place};
use crate::support::traffic::{Books, Line, Receiver, Sender, codec, told};
use crate::support::{BUSY, Context, HELLO_BYTES, runtime};

/// All transports together, all at once. Some of them may get no connection within the timeout on a busy machine: those
/// have an outcome as true as any, but no stall.
const CASES: usize = 60;
const STALLS: u64 = 50;
/// The delivery timeout, and how often the time fits into it that the same messages take without a stall: on a machine
/// so busy that they take longer, it is longer.
const DELIVERY: Duration = Duration::from_secs(1);
const DELIVERY_LONGEST: Duration = Duration::from_secs(5);
const DELIVERY_TIMES: u32 = 4;
/// No end takes the other for dead meanwhile.
const SILENCE: Duration = Duration::from_secs(60);
/// Delivery timeouts that a stall lasts: no outcome that comes with its end is taken for one that came in time.
const STALL: u32 = 5;
/// More than the kernel holds of one connection, proxy included.
const LARGE: usize = 2 << 20;
/// Delivery timeouts from the post of the last message to its outcome: the aim of [`SuiteReport::times`].
const RESOLVED: u32 = 2;
/// Until a message sent after the stall is delivered, likewise.
const RECOVERED: Duration = Duration::from_millis(500);

pub(crate) fn run(context: &Context, report: &mut SuiteReport) {
    runtime().block_on(cases(context, report));
}

async fn cases(context: &Context, report: &mut SuiteReport) {
    let cases = context.count(CASES);
    // Each has a second sender for what comes after the stall; and all of it happens once without one.
    let books = Books::new(4 * cases);
    let mut served = Vec::new();
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let options = ServeOptions {
            silence_timeout: SILENCE,
            ..ServeOptions::default()
        };
        let rx = serve_queue(place.bind.clone(), options, codec())
            .await
            .unwrap();
        let addr = rx.addr().clone();
        served.push((place, addr, Receiver::start(rx, books.clone(), 1)));
    }
    let addrs: Vec<_> = served.iter().map(|(_, addr, _)| addr.clone()).collect();
    let all = |first, delivery, stall| {
        let (books, addrs, seed) = (books.clone(), addrs.clone(), context.seed);
        async move {
            let mut works = Vec::new();
            for case in 0..cases {
                let plan = Stalling {
                    case,
                    first,
                    later: first + cases + case,
                    delivery,
                    stall,
                };
                let seed = seed.fork(&format!("stall/{case}"));
                let addr = &addrs[case % addrs.len()];
                works.push(Case::prepare(&books, plan, seed, addr).await);
            }
            // All is made ready before any of them begins: what that takes is no part of anybody's timeout.
            let began = Instant::now();
            let running: Vec<_> = works
                .into_iter()
                .map(|work| tokio::spawn(work.run()))
                .collect();
            let mut done = Vec::new();
            for case in running {
                done.push(case.await.unwrap());
            }
            (done, began.elapsed())
        }
    };
    let (_, took) = all(2 * cases, Duration::from_secs(30), Duration::ZERO).await;
    let delivery = (took * DELIVERY_TIMES).clamp(DELIVERY, DELIVERY_LONGEST);
    let stall = delivery * STALL;
    report.figure("delivery timeout", format!("{delivery:.1?}"));
    let before = undelivered(&books);
    let (running, _) = all(0, delivery, stall).await;
    let (mut resolved, mut recovered) = (Vec::new(), Vec::new());
    let (mut stalls, mut alone, mut blocked) = (0, 0, 0);
    for done in running {
        stalls += done.stalls;
        alone += u64::from(done.is_alone && done.stalls != 0);
        blocked += u64::from(done.is_blocked && done.stalls != 0);
        resolved.push(done.resolved);
        recovered.push(done.recovered);
    }
    for (_place, _addr, receiver) in served {
        receiver.stop().await;
    }
    books.judge("stall", report);
    let undone = undelivered(&books) - before;
    let least = context.scaled(STALLS);
    report.at_least("stalls", stalls, least);
    report.at_least(
        "messages that the stall left without delivery",
        undone,
        least,
    );
    report.at_least("stalls of the only message", alone, least / 4);
    report.at_least(
        "stalls with a window of 0: the kernel takes no more",
        blocked,
        least / 4,
    );
    let in_time = resolved.iter().filter(|took| **took < stall).count();
    report.at_least(
        "outcomes while the stall lasted",
        in_time as u64,
        cases as u64,
    );
    report.times("time to outcome", &resolved, delivery * RESOLVED, BUSY);
    report.times(
        "time to delivery after the stall",
        &recovered,
        RECOVERED,
        BUSY,
    );
}

fn undelivered(books: &Books) -> u64 {
    [Class::Returned, Class::Unknown, Class::Recovered]
        .map(|class| books.count(class))
        .iter()
        .sum()
}

/// What one connection is to do.
#[derive(Clone, Copy)]
struct Stalling {
    case: usize,
    /// The number of the first case's sender, and of this one's for what comes after the stall.
    first: usize,
    later: usize,
    delivery: Duration,
    /// None when it is zero.
    stall: Duration,
}

/// One connection that stalls in its first frame.
struct Case {
    books: Books,
    plan: Stalling,
    is_large: bool,
    proxy: ChaosProxy,
    addr: ChannelAddr,
    sender: Sender,
    messages: Vec<Stamped>,
}

struct Done {
    stalls: u64,
    is_alone: bool,
    is_blocked: bool,
    resolved: Duration,
    recovered: Duration,
}

impl Case {
    async fn prepare(books: &Books, plan: Stalling, seed: Seed, server: &ChannelAddr) -> Self {
        let mut rng = seed.rng();
        let case = plan.case;
        let messages = if case.is_multiple_of(2) { 1 } else { 2 };
        // Of a size that the kernel's buffers take or do not take.
        let is_large = case % 4 < 2;
        let size = if is_large { LARGE } else { 100 };
        let first_body = HELLO_BYTES + DATA_HEADER_BYTES;
        // In the middle of the first frame, whatever its size.
        let at = first_body as u64 + rng.below(if is_large { 60_000 } else { 80 });
        let mut script = Script::pass();
        if !plan.stall.is_zero() {
            let stalls = Act::Stall(plan.stall);
            script = script.then(Plan::pass().step(Direction::Up, at, stalls));
        }
        let proxy = ChaosProxy::start(server, script).await.unwrap();
        let sender = Sender::new(books, plan.first + case);
        Self {
            books: books.clone(),
            plan,
            is_large,
            addr: proxy.endpoint().to_string().parse().unwrap(),
            proxy,
            messages: (0..messages)
                .map(|_| sender.message(vec![7; size]))
                .collect(),
            sender,
        }
    }

    async fn run(mut self) -> Done {
        let options = DialOptions {
            delivery_timeout: self.plan.delivery,
            silence_timeout: SILENCE,
            ..DialOptions::default()
        };
        let tx: Outbound<Stamped, Line> = dial_with(self.addr.clone(), options, codec());
        let is_alone = self.messages.len() == 1;
        let started = Instant::now();
        for message in self.messages {
            self.sender.offer(&tx, message).await;
        }
        // All of it has its outcome when the flush ends, whichever way.
        let _each_has_its_outcome = tx.flush().await;
        let resolved = started.elapsed();
        tokio::time::sleep(self.plan.stall.saturating_sub(resolved)).await;
        let recovered = later(self.books.of(self.plan.later), self.plan.later, &self.addr).await;
        tx.close();
        let stalls = self.proxy.stop().await.stalls;
        Done {
            stalls,
            is_alone,
            is_blocked: self.is_large,
            resolved,
            recovered,
        }
    }
}

/// Sends one message the same way after the stall; how long its delivery takes.
async fn later(ledger: &Ledger, number: usize, addr: &ChannelAddr) -> Duration {
    let started = Instant::now();
    let tx = dial_tx::<Stamped>(addr.clone(), DialOptions::default(), codec());
    let message = ledger.post(u32::try_from(number).unwrap(), 0, b"later".to_vec());
    let key = message.key();
    let outcome = tx.send(message).await;
    ledger.outcome(key, told(&outcome));
    assert_eq!(outcome, Outcome::Delivered);
    started.elapsed()
}
