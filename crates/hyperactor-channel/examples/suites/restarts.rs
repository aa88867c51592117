//! A receiver that restarts on the same address, again and again: each new life is usable at the first handshake, also
//! for a channel that knew the old one, and gets nothing that was meant for the old one.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyperactor_channel::{
    DialOptions, Outbound, Outcome, Reason, ServeError, ServeOptions, ServerHandle, Status,
    dial_tx, dial_with, serve_with,
};
use hyperactor_refs::{BindSpec, Incarnation};
use hyperactor_testkit::{Class, Stamped, SuiteReport};

use crate::support::net::{Kind, Place};
use crate::support::traffic::{Books, Line, Recording, Sender, codec, told};
use crate::support::{BUSY, Context, holds_within, runtime};

/// On each transport.
const RESTARTS: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(20);
const USABLE: Duration = Duration::from_millis(500);

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(transport(kind, context, report));
}

async fn transport(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let name = kind.name();
    let restarts = context.scaled(RESTARTS);
    // The first sender keeps its channel, the second dials anew in each life, the third means the life before.
    let books = Books::new(3);
    let place = Place::new(kind);
    let (mut bind, mut tx) = (place.bind.clone(), None::<Outbound<Stamped, Line>>);
    let (mut old, mut new) = (Sender::new(&books, 0), Sender::new(&books, 1));
    (old.awaited, new.awaited) = (true, true);
    let (mut times, mut handshakes, mut at_once, mut raced) = (Vec::new(), 0, 0, 0);
    let (mut stale, mut gave_up) = (0, 0);
    // No life is called 0, and the first has one before it too.
    for life in 2..restarts + 2 {
        let recording = Recording::new(&books, life);
        let server = serve(&bind, life, &recording).await;
        bind = server.addr().clone().into();
        let started = Instant::now();
        let kept = tx.get_or_insert_with(|| {
            let options = DialOptions::default();
            dial_with(server.addr().clone(), options, codec())
        });
        // What it sends to the end of the old life is nobody's fault: it has learnt of that end, or is here already.
        let learnt = holds_within(PATIENCE, || {
            let status = kept.status().borrow().clone();
            matches!(status, Status::Idle | Status::Closed(_))
                || recording.sessions.load(Ordering::Relaxed) != 0
        });
        assert!(learnt.await, "the end of life {} was not noticed", life - 1);
        if kept.is_closed() {
            // Nobody was at the address for so long that it gave up, which on a busy machine happens now and then.
            *kept = dial_with(server.addr().clone(), DialOptions::default(), codec());
            gave_up += 1;
        }
        let fresh = dial_with(server.addr().clone(), DialOptions::default(), codec());
        let keys = [
            old.post(kept, vec![1; 10]).await,
            new.post(&fresh, vec![2; 10]).await,
        ];
        let settled = holds_within(PATIENCE, || books.count(Class::Unresolved) == 0);
        assert!(settled.await, "stuck in life {life}");
        times.push(started.elapsed());
        let arrived = |sender: usize| {
            let verdict = books.of(sender).verdict();
            verdict.keys(Class::Delivered).contains(&keys[sender])
        };
        at_once += u64::from(arrived(0)) + u64::from(arrived(1));
        stale += u64::from(is_refused(&server, &books, life).await);
        handshakes += recording.sessions.load(Ordering::Relaxed);
        // Posted and not waited for: this one races with the end of the server.
        old.post(kept, vec![3; 10]).await;
        raced += 1;
        drop(server);
        fresh.close();
        fresh.closed().await;
    }
    if let Some(tx) = tx {
        tx.close();
        tx.closed().await;
    }
    books.judge(name, report);
    report.at_least(
        &format!("{name}: restarts"),
        restarts,
        context.scaled(RESTARTS),
    );
    report.at_least(
        &format!("{name}: messages that raced with an end"),
        raced,
        restarts,
    );
    report.check(
        &format!("{name}: the first message to each life was delivered, by both channels"),
        at_once == 2 * restarts,
        format!("{at_once} of {}", 2 * restarts),
    );
    report.at_least(
        &format!("{name}: messages to the life before, refused"),
        stale,
        restarts,
    );
    report.at_most(
        &format!("{name}: lives for which the kept channel gave up"),
        gave_up,
        restarts / 4,
    );
    report.at_most(
        &format!("{name}: sessions of all lives"),
        handshakes,
        2 * restarts,
    );
    report.times(&format!("{name}: time until usable"), &times, USABLE, BUSY);
}

/// A message that is meant for the life before this one comes back, and is never seen by this one.
async fn is_refused(server: &ServerHandle, books: &Books, life: u64) -> bool {
    let options = DialOptions {
        expect: Some(Incarnation::new(life - 1)),
        ..DialOptions::default()
    };
    let tx = dial_tx::<Stamped>(server.addr().clone(), options, codec());
    let message = books.of(2).post(2, 0, b"to the former".to_vec());
    let key = message.key();
    let outcome = tx.send(message).await;
    books.of(2).outcome(key, told(&outcome));
    outcome == Outcome::NotDelivered(Reason::PeerRestarted)
}

/// Serves the same address again: whoever had it before may need a moment to let go of it.
async fn serve(bind: &BindSpec, life: u64, recording: &Recording) -> ServerHandle {
    let started = Instant::now();
    loop {
        let options = ServeOptions {
            incarnation: Incarnation::new(life),
            ..ServeOptions::default()
        };
        match serve_with(bind.clone(), options, codec(), recording.clone()).await {
            Ok(server) => return server,
            Err(ServeError::AddrInUse { .. }) if started.elapsed() < Duration::from_secs(5) => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}
