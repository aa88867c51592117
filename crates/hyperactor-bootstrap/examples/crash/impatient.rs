//! The second half of the pauses: processes that call a connection dead after 2 s, and give a message up after as many, one of
//! each pair stopped for 10 s. Messages do time out here; what is told of them is true, and the way is open again soon.
//!
//! No host is in it: a server and a client with timeouts of their own, each in its process.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyperactor_channel::{DialOptions, ServeOptions};
use hyperactor_mailbox::{MailboxSender, MessageEnvelope, PortRef, ReturnHandle};
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, PortId, ProcId};
use hyperactor_router::{MailboxClient, MailboxServer};
use hyperactor_testkit::{Journal, Ledger, Stamped, SuiteReport};
use rustix::process::Signal;

use crate::actors::{DELIVERED, Item, Posts, Told};
use crate::report::{self, Context, Result};
use crate::world::{Role, signal};

/// How many processes are stopped, half of them receivers, half senders.
const PAUSES: u64 = 30;
const PAUSE: Duration = Duration::from_secs(10);
/// How long a connection may be silent, and a message be under way.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How many messages meet each pause.
const MESSAGES: u64 = 500;
/// How many have to arrive once it is over, and how soon.
const AFTERWARDS: u64 = 20;
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// One sender and one receiver, of whom one is stopped.
struct Pair {
    number: u64,
    from: Role,
    to: Role,
    journal: PathBuf,
    ledger: Ledger,
    next: u64,
}

/// What came of one pair.
#[derive(Default)]
struct Found {
    report: SuiteReport,
    timed_out: u64,
    slowest: Duration,
}

/// Blocks for as long as the pause and what follows it.
pub(crate) fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let pairs = context.scaled(PAUSES).max(2);
    let lanes = crate::lanes::run_blocking_in(pairs, |number| {
        let mut pair = Pair::start(context, number)?;
        let mut rng = context.seed.fork(&format!("impatient {number}")).rng();
        pair.pause(Duration::from_micros(rng.below(2_000)))
    })?;
    let mut all = Found::default();
    for found in lanes {
        report.add(found.report.counts());
        all.timed_out += found.timed_out;
        all.slowest = all.slowest.max(found.slowest);
    }
    report.figure("processes with short timeouts stopped", pairs);
    report.figure("messages that were given up", all.timed_out);
    report.figure(
        "slowest way to be open again",
        format!("{:.1?}", all.slowest),
    );
    report.check(
        "pauses met messages that were given up",
        all.timed_out >= pairs,
        all.timed_out,
    );
    Ok(())
}

impl Pair {
    fn start(context: &Context, number: u64) -> Result<Self> {
        let journal = context.folder.path().join(format!("impatient-{number}"));
        let addr = format!(
            "unix:{}",
            context.folder.socket(&number.to_string()).display()
        );
        let mut to = Role::play("taker", &[&addr, &journal.display().to_string()])?;
        to.says("READY")?;
        Ok(Self {
            number,
            from: Role::play("teller", &[&addr])?,
            to,
            journal,
            ledger: Ledger::new(),
            next: 0,
        })
    }

    fn pause(&mut self, under_way: Duration) -> Result<Found> {
        let mut found = Found::default();
        let told = self.send(AFTERWARDS, || Ok(()))?;
        found.report.check(
            "the way is open before the pause",
            all_delivered(&told),
            self.number,
        );
        let receives = self.number.is_multiple_of(2);
        let stopped = if receives { &self.to } else { &self.from };
        let stopped = stopped.process.id();
        if receives {
            signal(stopped, Signal::STOP)?;
        }
        let told = self.send(MESSAGES, || {
            if !receives {
                // With messages under way.
                std::thread::sleep(under_way);
                signal(stopped, Signal::STOP)?;
            }
            std::thread::sleep(PAUSE);
            signal(stopped, Signal::CONT)
        })?;
        let continued = Instant::now();
        let lost = told.iter().filter(|outcome| **outcome != DELIVERED);
        found.timed_out += lost.count() as u64;
        // What is posted at once may still meet the end of the old connection.
        loop {
            let told = self.send(AFTERWARDS, || Ok(()))?;
            let is_open = all_delivered(&told);
            let took = continued.elapsed();
            if is_open || took > OPEN_WITHIN {
                found.slowest = took;
                found.report.check(
                    "the way is open again within 5 s",
                    is_open,
                    format!("pair {}: {took:.1?}", self.number),
                );
                break;
            }
        }
        report::read(&self.ledger, &self.journal)?;
        found.report.judge("every outcome is true", &self.ledger);
        Ok(found)
    }

    /// Has the sender post, does something meanwhile, and takes down what the sender was told.
    fn send(&mut self, count: u64, meanwhile: impl FnOnce() -> Result) -> Result<Vec<u8>> {
        let first = self.next;
        self.next += count;
        self.from.tell(&format!("{first} {count}"))?;
        meanwhile()?;
        let outcomes: Vec<u8> = self
            .from
            .says("TOLD")?
            .bytes()
            .map(|digit| digit - b'0')
            .collect();
        let told = Told {
            outcomes,
            ..Told::default()
        };
        report::book(&self.ledger, 1, 1, first, &told);
        Ok(told.outcomes)
    }
}

fn all_delivered(outcomes: &[u8]) -> bool {
    outcomes.iter().all(|outcome| *outcome == DELIVERED)
}

/// The role of the receiver: writes down what comes and then tells the sender, until its input ends.
pub(crate) async fn take(arguments: &[String]) -> Result {
    let [addr, journal] = arguments else {
        return Err("an address and a file are needed".into());
    };
    let addr: ChannelAddr = addr.parse()?;
    let options = ServeOptions {
        silence_timeout: TIMEOUT,
        delivery_timeout: TIMEOUT,
        ..ServeOptions::default()
    };
    let taker = Arc::new(Taker(Journal::open(Path::new(journal), 1)?));
    let _server = MailboxServer::serve(BindSpec::from(addr), taker, options).await?;
    println!("READY");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

struct Taker(Journal);

impl MailboxSender for Taker {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let message = envelope.into_message::<Item>().ok();
        let message = message.and_then(|Item(bytes)| postcard::from_bytes::<Stamped>(&bytes).ok());
        match message.map(|message| self.0.arrived(&message)) {
            Some(Ok(())) => drop(return_handle.delivered()),
            // Dropped unsettled, it tells that nobody knows.
            other => eprintln!("an arrival is not written down: {other:?}"),
        }
    }
}

/// The role of the sender: for each line with a number and a count, posts so many, and says what it was told of each.
pub(crate) async fn tell(arguments: &[String]) -> Result {
    let [addr] = arguments else {
        return Err("an address is needed".into());
    };
    let addr: ChannelAddr = addr.parse()?;
    let options = DialOptions {
        silence_timeout: TIMEOUT,
        delivery_timeout: TIMEOUT,
        ..DialOptions::default()
    };
    let proc_id = Arc::new(ProcId::Direct(addr.clone(), "taker".to_owned()));
    let to: PortRef<Item> =
        PortRef::attest(PortId::new(ActorId::root(Arc::clone(&proc_id), "taker"), 1));
    let from = ActorId::root(proc_id, "teller");
    let mut client = MailboxClient::dial_with(addr.clone(), options.clone());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (first, count) = line.split_once(' ').ok_or("a number and a count")?;
        if client.is_closed() {
            client = MailboxClient::dial_with(addr.clone(), options.clone());
        }
        let posts = Posts {
            to: to.clone(),
            sender: 1,
            stream: 1,
            first: first.parse()?,
            count: count.parse()?,
            one_by_one: false,
            die_after: None,
        };
        let post = |envelope, return_handle| client.post(envelope, return_handle);
        let told = posts.carry_out(&from, post).await;
        let told = told.map_err(|error| error.to_string())?;
        let digits: String = told.outcomes.iter().map(u8::to_string).collect();
        println!("TOLD {digits}");
    }
    Ok(())
}
