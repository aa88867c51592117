//! Sessions that a server has given up while their dialer was away: the dialer's next connection begins anew, what it had
//! sent is reported as what it is, and nothing arrives twice.

use std::time::Duration;

use hyperactor_channel::{DialOptions, ServeOptions, dial_with, serve_queue};
use hyperactor_refs::ChannelAddr;
use hyperactor_testkit::{Act, ChaosProxy, Class, Direction, Plan, Script, Seed, SuiteReport};

use crate::support::net::{Kind, Place};
use crate::support::tap::Tap;
use crate::support::traffic::{Books, Receiver, Sender, body, codec};
use crate::support::{Context, HELLO_BYTES, runtime};

/// On each transport, all at once.
const CASES: usize = 20;
/// Messages of each before its connection is cut, and behind it.
const MESSAGES: u64 = 100;
/// How long the server keeps a session without a connection, and how long its dialer stays away.
const KEPT: Duration = Duration::from_millis(100);
const AWAY: Duration = Duration::from_millis(600);

pub(crate) fn run(kind: Kind, context: &Context, report: &mut SuiteReport) {
    runtime().block_on(transport(kind, context, report));
}

async fn transport(kind: Kind, context: &Context, report: &mut SuiteReport) {
    let cases = context.count(CASES);
    let books = Books::new(cases);
    let place = Place::new(kind);
    let options = ServeOptions {
        session_ttl: KEPT,
        ..ServeOptions::default()
    };
    let rx = serve_queue(place.bind.clone(), options, codec())
        .await
        .unwrap();
    let tap = Tap::start(kind, rx.addr().clone(), "expiry").await;
    let receiver = Receiver::start(rx, books.clone(), 1);
    let mut dialers = Vec::new();
    for case in 0..cases {
        let seed = context.seed.fork(&format!("{}/{case}", kind.name()));
        dialers.push(tokio::spawn(dialer(
            books.clone(),
            case,
            tap.addr.clone(),
            seed,
        )));
    }
    let mut delays = 0;
    for dialer in dialers {
        delays += dialer.await.unwrap();
    }
    let seen = tap.stop().await;
    receiver.stop().await;

    let name = kind.name();
    books.judge(name, report);
    let cases = cases as u64;
    report.at_least("dialers that stayed away", delays, cases);
    report.at_least(
        "sessions that the server had given up by then",
        seen.expired,
        cases,
    );
    report.at_least(
        "messages with any outcome",
        books.posted() - books.count(Class::Unresolved),
        cases * 2 * MESSAGES,
    );
    report.at_least(
        "messages delivered",
        books.count(Class::Delivered),
        cases * MESSAGES,
    );
}

/// One dialer whose first connection is cut, and whose second is held up before its hello; gives how often it was.
async fn dialer(books: Books, case: usize, addr: ChannelAddr, seed: Seed) -> u64 {
    let mut rng = seed.rng();
    let at = HELLO_BYTES as u64 + rng.below(8_000);
    let script = Script::pass()
        .then(Plan::pass().step(Direction::Up, at, Act::Cut))
        .then(Plan::pass().step(Direction::Up, 0, Act::Delay(AWAY)));
    let proxy = ChaosProxy::start(addr, script).await.unwrap();
    let addr = proxy.endpoint().to_string().parse().unwrap();
    let tx = dial_with(addr, DialOptions::default(), codec());
    let mut sender = Sender::new(&books, case);
    for _ in 0..MESSAGES {
        sender.post(&tx, body(&mut rng)).await;
    }
    // What it was told of the first of them, the ledger judges.
    let _whichever_outcomes = tx.flush().await;
    for _ in 0..MESSAGES {
        sender.post(&tx, body(&mut rng)).await;
    }
    tx.flush().await.unwrap();
    tx.close();
    tx.closed().await;
    proxy.stop().await.delays
}
