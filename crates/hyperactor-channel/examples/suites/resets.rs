//! Connections cut at seeded bytes: within a hello, a header, a payload, just before an acknowledgement. Whatever is cut,
//! every message arrives once, in order, and its sender hears so.

use std::time::Duration;

use hyperactor_channel::{DialOptions, ServeOptions, dial_with, serve_queue};
use hyperactor_protocol::limits::CONTROL_HEADER_BYTES;
use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{
    Act, ChaosProxy, Class, Direction, LeakGuard, Plan, Rng, Script, Seed, SuiteReport,
};

use crate::support::net::{Kind, Place};
use crate::support::tap::{Seen, Tap};
use crate::support::traffic::{Books, Pulse, Receiver, Sender, body, codec};
use crate::support::{Context, HELLO_BYTES, runtime};

/// On each transport.
const CUTS: u64 = 2_000;
const MESSAGES: u64 = 200_000;
/// They share the cuts and the messages, each over connections of its own.
const SENDERS: usize = 10;

/// Half of the cuts keep outcomes from coming for no longer than this, however busy the machine is; 99 of 100 for no
/// longer than ten times that, which on a machine that has nothing else to do is the time that 99 of 100 take.
const RECOVERY: Duration = Duration::from_millis(100);
/// Of the server: so small that senders meet its end.
const WINDOW: u32 = 128;
const TIME: Duration = Duration::from_secs(60);

pub(crate) fn run(context: &Context, report: &mut SuiteReport) {
    for kind in Kind::ALL {
        let started = std::time::Instant::now();
        runtime().block_on(transport(kind, context, report));
        report.within(&format!("{}: time", kind.name()), started.elapsed(), TIME);
    }
}

async fn transport(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let guard = LeakGuard::new().within(Duration::from_secs(10));
    let cuts = context.scaled(CUTS / SENDERS as u64);
    let messages = context.scaled(MESSAGES / SENDERS as u64);
    let books = Books::new(SENDERS);
    let place = Place::new(kind);
    let options = ServeOptions {
        window_messages: WINDOW,
        ..ServeOptions::default()
    };
    let rx = serve_queue(place.bind.clone(), options, codec())
        .await
        .unwrap();
    let tap = Tap::start(kind, rx.addr().clone(), "resets").await;
    let receiver = Receiver::start(rx, books.clone(), 1);

    let mut senders = Vec::new();
    for number in 0..SENDERS {
        let work = Work {
            books: books.clone(),
            number,
            cuts,
            messages,
            seed: context.seed.fork(&format!("{}/{number}", kind.name())),
            addr: tap.addr.clone(),
        };
        senders.push(tokio::spawn(work.run()));
    }
    let (mut done, mut dials, mut full, mut gaps) = (0, 0, 0, Vec::new());
    for sender in senders {
        let ended = sender.await.unwrap();
        done += ended.cuts;
        dials += ended.dials;
        full += ended.full;
        gaps.extend(ended.gaps);
    }
    let seen = tap.stop().await;
    receiver.stop().await;
    drop(place);

    let name = kind.name();
    books.judge(name, report);
    let (posted, delivered) = (books.posted(), books.count(Class::Delivered));
    report.check(
        &format!("{name}: every message was delivered, and its sender heard so"),
        posted == delivered,
        format!("{delivered} of {posted}"),
    );
    report.at_least(
        &format!("{name}: messages"),
        posted,
        messages * SENDERS as u64,
    );
    vacuity(name, context, report, done, full, &seen);
    report.at_most(
        &format!("{name}: dials, one for each cut and each sender"),
        dials,
        done + SENDERS as u64,
    );
    // Each cut makes at most one gap, so the longest hundredth of the cuts is at most the longest gaps.
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let longer_than = |share: u64| {
        let at = usize::try_from(done / share).unwrap_or(0);
        gaps.get(at).copied().unwrap_or_default()
    };
    report.figure(
        &format!("{name}: longest recovery"),
        format!("{:.1?}", longer_than(u64::MAX)),
    );
    report.within(
        &format!("{name}: recovery, half of the cuts"),
        longer_than(2),
        RECOVERY,
    );
    report.within(
        &format!("{name}: recovery, 99 of 100 cuts"),
        longer_than(100),
        RECOVERY * 10,
    );
    guard.assert_settled().await;
    report.check(
        &format!("{name}: tasks, descriptors and files are back"),
        true,
        "",
    );
}

fn vacuity(
    name: &str,
    context: &Context,
    report: &mut SuiteReport,
    cuts: u64,
    full: u64,
    seen: &Seen,
) {
    report.at_least(
        &format!("{name}: cuts"),
        cuts,
        context.scaled(CUTS / SENDERS as u64) * SENDERS as u64,
    );
    report.figure(&format!("{name}: connections"), seen.connections);
    report.figure(
        &format!("{name}: ends between two frames"),
        seen.ends_between,
    );
    for (what, seen, minimum) in [
        (
            "reconnects with messages without an outcome",
            seen.hellos_with_unacked,
            1_000,
        ),
        (
            "acknowledgements lost for what had arrived",
            seen.acks_lost,
            200,
        ),
        ("ends within a hello", seen.ends_in_hello, 50),
        ("ends within a header", seen.ends_in_header, 200),
        ("ends within a payload", seen.ends_in_payload, 200),
        ("posts that found the channel full", full, 100),
        ("messages that closed the window", seen.windows_closed, 500),
    ] {
        report.at_least(&format!("{name}: {what}"), seen, context.scaled(minimum));
    }
}

struct Work {
    books: Books,
    number: usize,
    cuts: u64,
    messages: u64,
    seed: Seed,
    addr: ChannelAddr,
}

struct Ended {
    cuts: u64,
    dials: u64,
    full: u64,
    gaps: Vec<Duration>,
}

impl Work {
    async fn run(self) -> Ended {
        let mut rng = self.seed.rng();
        let script = (0..self.cuts).fold(Script::pass(), |script, _| script.then(cut(&mut rng)));
        let proxy = ChaosProxy::start(&self.addr, script).await.unwrap();
        let options = DialOptions {
            outbox_messages: u32::try_from(rng.range(100..2_000)).unwrap(),
            ..DialOptions::default()
        };
        let addr = proxy.endpoint().to_string().parse().unwrap();
        let tx = dial_with(addr, options, codec());
        let pulse = Pulse::new();
        let mut sender = Sender::new(&self.books, self.number);
        sender.pulse = Some(pulse.clone());
        let mut posted = 0;
        while posted < self.messages || proxy.report().cuts < self.cuts {
            sender.post(&tx, body(&mut rng)).await;
            posted += 1;
        }
        tx.flush().await.unwrap();
        tx.close();
        tx.closed().await;
        let report = proxy.stop().await;
        let gaps = std::mem::take(&mut pulse.lock().gaps);
        Ended {
            cuts: report.cuts,
            dials: report.connections,
            full: sender.full,
            gaps,
        }
    }
}

/// Where a connection breaks: on the way up anywhere in the hello or the messages behind it, on the way down anywhere in
/// the answer or the acknowledgements behind it.
fn cut(rng: &mut Rng) -> Plan {
    let hello = HELLO_BYTES as u64;
    let in_hello = rng.chance(1, 12);
    let (direction, behind) = if rng.chance(1, 3) {
        (Direction::Down, rng.below(70))
    } else if rng.chance(1, 4) {
        // Within the header of the first frame, whichever kind it has.
        (Direction::Up, rng.range(1..CONTROL_HEADER_BYTES as u64))
    } else {
        // Within some hundred messages.
        (Direction::Up, rng.below(40_000))
    };
    let at = if in_hello {
        rng.below(hello)
    } else {
        hello + behind
    };
    Plan::pass().step(direction, at, Act::Cut)
}
