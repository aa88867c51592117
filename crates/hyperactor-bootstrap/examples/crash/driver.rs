//! What pumps a connection fails with 1,000 messages under way: its runtime is shut down, or what it calls panics. Every
//! message is told one outcome, and none is called delivered that is not there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyperactor_channel::ServeOptions;
use hyperactor_mailbox::{
    Failure, MailboxSender, MessageEnvelope, ReturnHandle, ReturnSink, Token, Undeliverable,
};
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, PortId, ProcId};
use hyperactor_router::{MailboxClient, MailboxServer};
use hyperactor_testkit::{Class, Journal, Ledger, Outcome, Stamped, SuiteReport};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::actors::{Item, body};
use crate::report::{self, Context, Result};

/// How often the pump fails.
const ROUNDS: u64 = 50;
/// How many messages are under way then.
const MESSAGES: u64 = 1_000;
/// How soon everybody has to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The runtime of the sending side is shut down.
    SendingRuntime,
    /// The runtime of the receiving side is shut down.
    ReceivingRuntime,
    /// What takes the messages panics at one of them.
    Receiver,
    /// What is told the outcomes panics at one of them.
    Teller,
}

const FAULTS: [Fault; 4] = [
    Fault::SendingRuntime,
    Fault::ReceivingRuntime,
    Fault::Receiver,
    Fault::Teller,
];

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    // The panics are meant.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_meant = panic.payload_as_str() == Some(MEANT);
        if !is_meant {
            hook(panic);
        }
    }));
    let mut rng = context.seed.rng();
    let mut slowest = Duration::ZERO;
    let mut counts = [0; 4];
    for round in 0..context.scaled(ROUNDS) {
        let fault = FAULTS[round as usize % FAULTS.len()];
        let at = rng.below(MESSAGES);
        let journal = context.folder.path().join(format!("driver-{round}"));
        // In a thread of its own: the runtimes of a round may not be dropped in another one.
        let path = journal.clone();
        let round =
            std::thread::spawn(move || fail(fault, at, &path).map_err(|error| error.to_string()));
        let (ledger, told) = round.join().unwrap()?;
        match told {
            Some(took) => slowest = slowest.max(took),
            None => {
                let open = ledger.posted() - ledger.resolved();
                let seen = format!("{fault:?} at {at}: {open} messages wait");
                report.check("everybody is told", false, seen);
            }
        }
        report::read(&ledger, &journal)?;
        report.judge("every outcome is true", &ledger);
        let verdict = ledger.verdict();
        for (sum, class) in counts.iter_mut().zip([
            Class::Delivered,
            Class::Returned,
            Class::Unknown,
            Class::Recovered,
        ]) {
            *sum += verdict.count(class);
        }
        if fault == Fault::SendingRuntime {
            // Nothing had been acknowledged, so nothing may be called delivered.
            let delivered = verdict.count(Class::Delivered);
            report.check("none is called delivered", delivered == 0, delivered);
        }
    }
    let [delivered, returned, unknown, recovered] = counts;
    report.figure("failures", context.scaled(ROUNDS));
    report.figure("messages delivered", delivered);
    report.figure("returned, and never there", returned);
    report.figure("unknown, and not there", unknown);
    report.figure("unknown, and there all the same", recovered);
    report.figure("slowest last outcome", format!("{slowest:.1?}"));
    report.check(
        "failures met messages under way",
        unknown + recovered > 0,
        "none",
    );
    Ok(())
}

const MEANT: &str = "a panic that the suite wants";

/// Posts 1,000 messages, lets something fail, and waits until all have an outcome. Returns how long that took.
fn fail(fault: Fault, at: u64, path: &Path) -> Result<(Ledger, Option<Duration>)> {
    let addr: ChannelAddr = format!("unix:@crash-driver-{}-{at}", std::process::id()).parse()?;
    let (sending, receiving) = (Runtime::new()?, Runtime::new()?);
    let ledger = Ledger::new();
    let taker = Taker {
        journal: Journal::open(path, 1)?,
        kept: Arc::default(),
        // A round that shuts the sending side down has nothing acknowledged.
        holds: fault == Fault::SendingRuntime,
        panics_at: (fault == Fault::Receiver).then_some(at),
        arrivals: AtomicU64::new(0),
    };
    let kept = Arc::clone(&taker.kept);
    let server = receiving.block_on(MailboxServer::serve(
        BindSpec::from(addr.clone()),
        Arc::new(taker),
        ServeOptions::default(),
    ))?;
    let client = {
        let _inside = sending.enter();
        MailboxClient::dial(addr.clone())
    };
    let teller = Arc::new(Teller {
        ledger: ledger.clone(),
        panics_at: (fault == Fault::Teller).then_some(at),
    });
    let proc_id = Arc::new(ProcId::Direct(addr, "taker".to_owned()));
    let dest = PortId::new(ActorId::root(Arc::clone(&proc_id), "taker"), 1);
    let from = ActorId::root(proc_id, "teller");
    for number in 0..MESSAGES {
        let message = ledger.post(1, 1, body(number));
        let item = Item(postcard::to_allocvec(&message)?.into());
        let envelope = MessageEnvelope::typed(from.clone(), dest.clone(), item);
        let token = Token {
            id: number,
            ..Token::default()
        };
        client.post(envelope, ReturnHandle::new(teller.clone(), token));
    }
    match fault {
        Fault::SendingRuntime => {
            // Some are there, none is acknowledged.
            while kept.lock().is_empty() {
                std::thread::yield_now();
            }
            sending.shutdown_background();
        }
        Fault::ReceivingRuntime => receiving.shutdown_background(),
        Fault::Receiver | Fault::Teller => {}
    }
    let start = Instant::now();
    while ledger.resolved() < ledger.posted() && start.elapsed() < TOLD_WITHIN {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = (ledger.resolved() == ledger.posted()).then(|| start.elapsed());
    drop((client, server));
    for handle in kept.lock().drain(..) {
        drop(handle.delivered());
    }
    Ok((ledger, took))
}

/// Takes messages: writes each down, and then tells its sender, or keeps the telling for later.
struct Taker {
    journal: Journal,
    kept: Arc<Mutex<Vec<ReturnHandle>>>,
    holds: bool,
    panics_at: Option<u64>,
    arrivals: AtomicU64,
}

impl MailboxSender for Taker {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed);
        if self.panics_at == Some(number) {
            std::panic::panic_any(MEANT);
        }
        let message = envelope.into_message::<Item>().ok();
        let message = message.and_then(|Item(bytes)| postcard::from_bytes::<Stamped>(&bytes).ok());
        match message.map(|message| self.journal.arrived(&message)) {
            Some(Ok(())) if self.holds => self.kept.lock().push(return_handle),
            Some(Ok(())) => drop(return_handle.delivered()),
            // Dropped unsettled, it tells that nobody knows.
            other => eprintln!("an arrival is not written down: {other:?}"),
        }
    }
}

/// Is told what became of the messages.
struct Teller {
    ledger: Ledger,
    panics_at: Option<u64>,
}

impl Teller {
    fn note(&self, token: Token, outcome: Outcome) {
        let key = hyperactor_testkit::Key {
            sender: 1,
            stream: 1,
            number: token.id,
        };
        self.ledger.outcome(key, outcome);
        if self.panics_at == Some(token.id) {
            std::panic::panic_any(MEANT);
        }
    }
}

impl ReturnSink for Teller {
    fn delivered(&self, token: Token) {
        self.note(token, Outcome::Delivered);
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        self.lost(token, report.failure);
    }

    fn abandoned(&self, token: Token) {
        self.note(token, Outcome::Unknown);
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.note(
            token,
            match failure {
                Failure::NotDelivered(_) => Outcome::NotDelivered,
                Failure::Unknown(_) => Outcome::Unknown,
            },
        );
    }
}
