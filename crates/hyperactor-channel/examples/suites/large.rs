//! A message of 1 GiB beside small ones on the same channel, each end in a process of its own: the small ones go between
//! its pieces, control is heard in time, a broken connection goes on where it was, and each end holds the message once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperactor_channel::{
    Accept, Deliver, DialOptions, Ignore, Inbound, Outbound, Outcome, Peer, ServeOptions, Status,
    Ticket, Verdict, dial_tx, serve_with,
};
use hyperactor_protocol::limits::{OUTBOX_BYTES, WINDOW_BYTES};
use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{Act, ChaosProxy, Direction, Plan, Script, SuiteReport};

use crate::support::named::{ByName, Named};
use crate::support::net::{Kind, Place};
use crate::support::process::{peak_kib, peak_kib_of, reset_peak, resident_kib, resident_kib_of};
use crate::support::served::{Served, questions};
use crate::support::{Context, quantile, runtime};

const SIZE: usize = 1 << 30;
/// The largest message that both ends allow.
const MESSAGE_MAX: usize = SIZE + 1024;
/// For everything that is no message, window or log.
const REST: u64 = 16 << 20;
/// Of half of the small messages while the large one is under way.
const OUTCOME: Duration = Duration::from_millis(100);
/// None waits for more than this part of the time that the large one takes: on a busy machine that is long, too.
const PART: u32 = 3;
const PART_LEAST: Duration = Duration::from_millis(500);
const SMALL: u32 = 8;
/// Shorter than the large message takes: an end that heard nothing for so long would give the connection up.
const SILENCE: Duration = Duration::from_secs(2);

/// Counts what comes, and keeps nothing.
#[derive(Debug)]
struct Counting {
    inbound: Option<Inbound>,
    counts: tokio::sync::watch::Sender<(u64, u64)>,
}

impl Accept<Named<Bytes>> for Counting {
    type Session = Self;
    type Completion = Ignore;

    fn open(&self, _: Peer, inbound: Inbound, _: Outbound<Named<Bytes>, Ignore>) -> Self {
        Self {
            inbound: Some(inbound),
            counts: self.counts.clone(),
        }
    }
}

impl Deliver<Named<Bytes>> for Counting {
    fn deliver(&mut self, message: Named<Bytes>, ticket: Ticket) {
        let size = message.message.len() as u64;
        // The pattern that the sender wrote, at a page here and there.
        let is_intact = (0..message.message.len())
            .step_by(4099)
            .all(|at| message.message[at] == pattern(at));
        self.counts.send_modify(|(messages, bytes)| {
            *messages += u64::from(is_intact);
            *bytes += size;
        });
        drop(message);
        let inbound = self.inbound.as_ref().unwrap();
        inbound.settle(ticket, Verdict::Delivered);
        inbound.release(ticket);
    }
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

fn body(size: usize) -> Bytes {
    (0..size).map(pattern).collect::<Vec<u8>>().into()
}

/// The receiver: tells how much came, and what it held at most.
pub(crate) fn serve(arguments: &[String]) {
    runtime().block_on(async {
        let place = Place::new(Kind::parse(&arguments[0]).unwrap());
        let options = ServeOptions {
            max_message_bytes: MESSAGE_MAX,
            silence_timeout: SILENCE,
            ..ServeOptions::default()
        };
        let (counts, _) = tokio::sync::watch::channel((0, 0));
        let counting = Counting {
            inbound: None,
            counts: counts.clone(),
        };
        let server = serve_with(place.bind.clone(), options, ByName, counting)
            .await
            .unwrap();
        println!("{}", server.addr());
        let mut asked = questions();
        while asked.recv().await.is_some() {
            let (messages, bytes) = *counts.borrow();
            println!("{messages} {bytes}");
        }
    });
}

pub(crate) fn run(context: &Context, report: &mut SuiteReport) {
    // One after the other: two processes with 1 GiB each are enough at a time.
    for kind in Kind::ALL {
        runtime().block_on(one(kind, context, report));
    }
}

async fn one(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let name = kind.name();
    let size = context.count(SIZE);
    let mut server = Served::start("large", kind);
    // Passes everything, and breaks once in the middle of the large message.
    let middle = size as u64 / 2;
    let script = Script::pass().then(Plan::pass().step(Direction::Up, middle, Act::Cut));
    let proxy = ChaosProxy::start(&server.addr, script).await.unwrap();
    let addr: ChannelAddr = proxy.endpoint().to_string().parse().unwrap();
    let options = DialOptions {
        max_message_bytes: MESSAGE_MAX,
        // Room for one of them beside the others: a message counts until it has its outcome.
        outbox_bytes: MESSAGE_MAX + OUTBOX_BYTES,
        silence_timeout: SILENCE,
        ..DialOptions::default()
    };
    let tx = dial_tx::<Named<Bytes>>(addr, options, ByName);
    let small = |to: u32| Named {
        to,
        from: 1,
        message: body(100),
    };
    assert_eq!(tx.send(small(1)).await, Outcome::Delivered);

    let large = Named {
        to: 100,
        from: 1,
        message: body(size),
    };
    reset_peak();
    let (before, server_before) = (resident_kib(), resident_kib_of(server.pid()));
    let started = Instant::now();
    let under_way = {
        let tx = tx.clone();
        tokio::spawn(async move { tx.send(large).await })
    };
    let mut running = Vec::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for to in 1..=SMALL {
        let (tx, stopped) = (tx.clone(), stopped.clone());
        running.push(tokio::spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0);
            while !*stopped.borrow() {
                let started = Instant::now();
                failed += u64::from(tx.send(small(to)).await != Outcome::Delivered);
                times.push(started.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (times, failed)
        }));
    }
    let outcome = under_way.await.unwrap();
    let took = started.elapsed();
    stop.send_replace(true);
    let (mut times, mut failed) = (Vec::new(), 0);
    for running in running {
        let done = running.await.unwrap();
        times.extend(done.0);
        failed += done.1;
    }
    let sender_kib = peak_kib().saturating_sub(before);
    let receiver_kib = peak_kib_of(server.pid()).saturating_sub(server_before);

    report.check(
        &format!("{name}: the large message was delivered"),
        outcome == Outcome::Delivered,
        format!("{outcome:?}"),
    );
    report.figure(
        &format!("{name}: MiB a second"),
        (size >> 20) as u64 * 1000 / u64::try_from(took.as_millis()).unwrap().max(1),
    );
    report.at_least(
        &format!("{name}: small messages during it"),
        times.len() as u64,
        context.scaled(500),
    );
    report.at_most(&format!("{name}: of these not delivered"), failed, 0);
    for (share, which, limit) in [
        (500, "half of their outcomes", OUTCOME),
        (1000, "all of them", (took / PART).max(PART_LEAST)),
    ] {
        report.within(
            &format!("{name}: time to {which}"),
            quantile(&mut times, share),
            limit,
        );
    }
    let is_open = !matches!(&*tx.status().borrow(), Status::Closed(_));
    report.check(&format!("{name}: the channel goes on"), is_open, "it ended");
    report.at_most(
        &format!("{name}: KiB that it cost the sender beside the message"),
        sender_kib,
        (OUTBOX_BYTES as u64 + REST) / 1024,
    );
    report.at_most(
        &format!("{name}: KiB that the receiver held"),
        receiver_kib,
        (size as u64 + WINDOW_BYTES + REST) / 1024,
    );
    let arrived = server.ask("how much?");
    let count = times.len() as u64 + 2;
    report.check(
        &format!("{name}: everything arrived once and as it was"),
        arrived == format!("{count} {}", size as u64 + 100 * (count - 1)),
        arrived,
    );
    tx.close();
    tx.closed().await;
    let passed = proxy.stop().await;
    report.at_least(&format!("{name}: cuts in the middle of it"), passed.cuts, 1);
    report.at_most(
        &format!("{name}: connections, none given up for silence"),
        passed.connections,
        2,
    );
    report.at_most(
        &format!("{name}: KiB passed, little of it twice"),
        passed.bytes_up / 1024,
        size as u64 / 1024 * 11 / 10 + 8 * 1024,
    );
    report.check(
        &format!("{name}: the receiver ended in order"),
        server.end(),
        "it did not",
    );
}
