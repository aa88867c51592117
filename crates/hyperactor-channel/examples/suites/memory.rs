//! A reader that never reads and a writer that tries 1 GiB, each in a process of its own: each stays within the bound that
//! is stated for it, a post says that the channel is full and gives the message back, and what was never sent comes back
//! as not delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyperactor_channel::{
    Completion, DialOptions, Failure, Outbound, Raw, Reason, Rejected, ServeOptions, dial_with,
    serve_queue,
};
use hyperactor_protocol::limits::{OUTBOX_BYTES, WINDOW_BYTES};

use crate::support::net::{Kind, Place};
use crate::support::process::{peak_kib, peak_kib_of, reset_peak, resident_kib, resident_kib_of};
use crate::support::served::{Served, questions};
use crate::support::{Context, holds_within, runtime};
use hyperactor_testkit::SuiteReport;

const TRIED: u64 = 1 << 30;
const MESSAGE: usize = 64 * 1024;
/// For everything that is neither a window nor a log: buffers of connections, the allocator, the runtime.
const REST: u64 = 16 << 20;
/// The writer holds what has no outcome, also while all of it comes back at once.
const WRITER_KIB: u64 = (OUTBOX_BYTES as u64 + REST) / 1024;
/// The reader holds what nobody took from its queue.
const READER_KIB: u64 = (WINDOW_BYTES + REST) / 1024;
const DELIVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Heard {
    delivered: AtomicU64,
    returned: AtomicU64,
    unknown: AtomicU64,
}

impl Heard {
    fn all(&self) -> u64 {
        [&self.delivered, &self.returned, &self.unknown]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }
}

#[derive(Debug)]
struct Line(Arc<Heard>);

impl Completion<Bytes> for Line {
    fn delivered(self) {
        self.0.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn undelivered(self, _message: Bytes, failure: Failure) {
        self.lost(failure);
    }

    fn lost(self, failure: Failure) {
        let count = match failure {
            Failure::NotDelivered(_) => &self.0.returned,
            Failure::Unknown(_) => &self.0.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The reader: takes nothing until it is asked how much there is.
pub(crate) fn serve(arguments: &[String]) {
    runtime().block_on(async {
        let place = Place::new(Kind::parse(&arguments[0]).unwrap());
        let options = ServeOptions::default();
        let mut rx = serve_queue::<Bytes>(place.bind.clone(), options, Raw)
            .await
            .unwrap();
        println!("{}", rx.addr());
        let mut asked = questions();
        while asked.recv().await.is_some() {
            let mut queued = 0;
            let patience = Duration::from_millis(500);
            while let Ok(Some(_)) = tokio::time::timeout(patience, rx.recv()).await {
                queued += 1;
            }
            println!("{queued}");
        }
    });
}

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(one(kind, context, report));
}

async fn one(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let mut reader = Served::start("memory", kind);
    let reader_before = resident_kib_of(reader.pid());
    let options = DialOptions {
        delivery_timeout: DELIVERY,
        ..DialOptions::default()
    };
    let tx = dial_with(reader.addr.clone(), options, Raw);
    let heard = Arc::new(Heard::default());
    reset_peak();
    let before = resident_kib();
    let tries = context.scaled(TRIED) / MESSAGE as u64;
    let posted = post(&tx, tries, &heard).await;
    let filled = peak_kib().saturating_sub(before);
    let resolved = holds_within(DELIVERY * 3, || heard.all() == posted.taken).await;
    let writer = peak_kib().saturating_sub(before);
    let read = peak_kib_of(reader.pid()).saturating_sub(reader_before);

    let delivered = heard.delivered.load(Ordering::Relaxed);
    let returned = heard.returned.load(Ordering::Relaxed);
    report.check(
        "every message that was taken has its outcome in time",
        resolved,
        format!("{} of {}", heard.all(), posted.taken),
    );
    report.at_least(
        "posts that were told that the channel is full",
        posted.full,
        tries / 2,
    );
    report.check(
        "each of them got its message back as it was",
        posted.damaged == 0,
        posted.damaged,
    );
    report.at_least(
        "messages delivered into the queue",
        delivered,
        WINDOW_BYTES / MESSAGE as u64 * context.scale.percent().min(100) / 100,
    );
    report.at_least(
        "messages that came back as not delivered",
        returned,
        u64::from(context.scale.percent() >= 100),
    );
    report.at_most(
        "messages of which nobody knows",
        heard.unknown.load(Ordering::Relaxed),
        0,
    );
    report.figure("KiB that the writer had when all was posted", filled);
    report.at_most("KiB of memory that it cost the writer", writer, WRITER_KIB);
    report.at_most("KiB of memory that it cost the reader", read, READER_KIB);
    let queued = reader.ask("how much?");
    report.check(
        "the queue holds what was reported delivered",
        queued == delivered.to_string(),
        format!("{queued} instead of {delivered}"),
    );
    report.check("the reader ended in order", reader.end(), "it did not");
}

struct Posted {
    taken: u64,
    full: u64,
    /// Messages that came back otherwise than they were posted.
    damaged: u64,
}

async fn post(tx: &Outbound<Bytes, Line>, tries: u64, heard: &Arc<Heard>) -> Posted {
    let (mut taken, mut full, mut damaged) = (0, 0, 0);
    for number in 0..tries {
        // Of its own each time: a shared body would cost nothing.
        let body = Bytes::from(vec![number as u8; MESSAGE]);
        match tx.offer(body, Line(Arc::clone(heard))) {
            Ok(()) => taken += 1,
            Err(Rejected {
                reason: Reason::Full,
                message,
                ..
            }) => {
                full += 1;
                let is_same = message.len() == MESSAGE && message[MESSAGE - 1] == number as u8;
                damaged += u64::from(!is_same);
            }
            Err(rejected) => panic!("{rejected:?}"),
        }
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Posted {
        taken,
        full,
        damaged,
    }
}
