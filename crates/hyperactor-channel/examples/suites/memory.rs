//! A reader that never reads and a writer that tries 1 GiB: memory stays within the windows of both ends, a post says
//! that the channel is full, and what was never sent comes back as not delivered.

use std::time::Duration;

use bytes::Bytes;
use hyperactor_channel::{
    Completion, DialOptions, Failure, Raw, Reason, Rejected, ServeOptions, dial_with, serve_queue,
};
use hyperactor_protocol::limits::{OUTBOX_BYTES, WINDOW_BYTES};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::net::{Kind, Place};
use crate::support::process::resident_kib;
use crate::support::{Context, Report, holds_within, runtime};

const TRIED: u64 = 1 << 30;
const MESSAGE: usize = 64 * 1024;
/// What a receiver's window and a sender's log hold by their limits, and 16 MiB for everything else.
const MEMORY_KIB: u64 = (2 * WINDOW_BYTES + OUTBOX_BYTES as u64 + (16 << 20)) / 1024;
const DELIVERY: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Heard {
    delivered: AtomicU64,
    returned: AtomicU64,
    unknown: AtomicU64,
}

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

pub(crate) fn run(context: &Context, report: &mut Report) {
    for kind in Kind::ALL {
        report.figure("transport", kind.name());
        runtime().block_on(one(kind, context, report));
    }
}

async fn one(kind: Kind, context: &Context, report: &mut Report) {
    let place = Place::new(kind);
    let options = ServeOptions::default();
    let mut rx = serve_queue::<Bytes>(place.bind.clone(), options, Raw)
        .await
        .unwrap();
    let options = DialOptions {
        delivery_timeout: DELIVERY,
        ..DialOptions::default()
    };
    let tx = dial_with(rx.addr().clone(), options, Raw);
    let heard = Arc::new(Heard::default());
    let before = resident_kib();
    let (mut taken, mut full, mut grown) = (0_u64, 0_u64, 0);
    let tries = context.scaled(TRIED) / MESSAGE as u64;
    for number in 0..tries {
        // Of its own each time: a shared body would cost nothing.
        let body = Bytes::from(vec![number as u8; MESSAGE]);
        match tx.offer(body, Line(Arc::clone(&heard))) {
            Ok(()) => taken += 1,
            Err(Rejected {
                reason: Reason::Full,
                ..
            }) => full += 1,
            Err(rejected) => panic!("{rejected:?}"),
        }
        if number % 64 == 0 {
            grown = grown.max(resident_kib().saturating_sub(before));
            tokio::task::yield_now().await;
        }
    }
    let resolved = holds_within(DELIVERY * 3, || {
        let heard = [&heard.delivered, &heard.returned, &heard.unknown];
        heard
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum::<u64>()
            == taken
    });
    report.check(
        "every message that was taken has its outcome in time",
        resolved.await,
        "some have none",
    );
    grown = grown.max(resident_kib().saturating_sub(before));
    let delivered = heard.delivered.load(Ordering::Relaxed);
    let returned = heard.returned.load(Ordering::Relaxed);
    report.at_least(
        "posts that were told that the channel is full",
        full,
        tries / 2,
    );
    report.at_least(
        "messages delivered into the queue",
        delivered,
        WINDOW_BYTES / MESSAGE as u64 * context.scale.min(100) / 100,
    );
    report.at_least(
        "messages that came back as not delivered",
        returned,
        u64::from(context.scale >= 100),
    );
    report.at_most(
        "messages of which nobody knows",
        heard.unknown.load(Ordering::Relaxed),
        0,
    );
    report.at_most("KiB of memory that it cost", grown, MEMORY_KIB);
    let mut queued = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(200), rx.recv()).await {
        queued += 1;
    }
    report.check(
        "the queue holds what was reported delivered",
        queued == delivered,
        format!("{queued} instead of {delivered}"),
    );
}
