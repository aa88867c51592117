//! A sibling that is a process of its own, killed with messages under way and started again under its name: the way to it leads
//! through the host until its socket is found, and again when it is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_bootstrap::mailbox::LocalProcDialer;
use hyperactor_bootstrap::{ProcessManager, RouteReport};
use hyperactor_host::{End, Host, OutputPolicy, ProcConfig};
use hyperactor_mailbox::{MailboxSender, MessageEnvelope, NotDelivered, PortSink, ReturnHandle};
use hyperactor_proc::{
    Actor, ActorError, ActorResult, Client, Handler, Message, OncePortRef, Proc, Registry,
    RemoteSpawn,
};
use hyperactor_refs::{ActorId, ChannelTransport, Incarnation, PortId, ProcId};
use hyperactor_router::MailboxClient;
use hyperactor_testkit::{Journal, Ledger, Stamped, TempSocketDir};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use crate::context::{Context, Result, another};
use crate::found::Found;
use crate::oracle::Tally;
use crate::traffic::{Books, Item, Traffic};

/// How many lives the process has, and about how many messages are posted in each.
const LIVES: u64 = 20;
const MESSAGES: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(60);
/// The receiver's ports.
const PORTS: u64 = 4;
const FIRST_PORT: u64 = 4_711;
const NAME: &str = "far";

pub(crate) fn registry() -> Registry {
    Registry::new().with::<Receiver>()
}

pub(crate) async fn run(context: &Context) -> Result<Found> {
    let mut rng = context.seed.fork("far").rng();
    let folder = TempSocketDir::new()?;
    let journal = folder.path().join("journal");
    let manager = ProcessManager::new()?;
    let dir = manager.socket_dir().to_path_buf();
    let host = Host::new(manager, ChannelTransport::Unix).await?;
    let backend = MailboxClient::dial(host.backend_addr().clone());
    let dialer = LocalProcDialer::new(host.addr().clone(), &dir, backend);
    let sender = ProcId::Direct(host.addr().clone(), "near".to_owned());
    let proc = Proc::with_incarnation(sender, Incarnation::new(1), dialer.boxed());
    let books = Books {
        ledger: Ledger::new(),
        tally: Arc::new(Tally::default()),
    };
    let to = Arc::new(ProcId::Direct(host.addr().clone(), NAME.to_owned()));
    let receiver = ActorId::root(Arc::clone(&to), "receiver");
    let ports: Vec<_> = (0..PORTS)
        .map(|port| PortId::new(receiver.clone(), FIRST_PORT + port))
        .collect();
    let mut far = Far {
        client: host.service_proc().client("suite")?,
        traffic: Traffic::start(&proc, 0, 0, &ports, &books, &mut rng)?,
        rng: another(&mut rng),
        is_announced: rng.chance(1, 2),
        host,
        dialer,
        to,
        journal,
        found: Found::default(),
    };
    for life in 0..context.scaled(LIVES) {
        far.life(life, &books.tally).await?;
    }
    far.traffic.close();
    let joined = timeout(PATIENCE, far.traffic.join()).await;
    let mut found = far.found;
    let left = books.tally.under_way();
    found
        .report
        .check("every message gets its outcome", joined.is_ok(), left);
    joined.unwrap_or(Ok(()))?;
    if far.journal.exists() {
        books.ledger.read_journal(&far.journal)?;
    }
    found.judge(&books.ledger);
    let report = far.host.stop(Duration::from_secs(5)).await;
    let is_clean = report.left_behind.is_empty() && !dir.exists();
    found
        .report
        .check("nothing is left", is_clean, format!("{report:?}"));
    Ok(found)
}

struct Far {
    rng: hyperactor_testkit::Rng,
    host: Host,
    client: Client,
    dialer: LocalProcDialer,
    is_announced: bool,
    to: Arc<ProcId>,
    traffic: Traffic,
    journal: PathBuf,
    found: Found,
}

impl Far {
    /// One life: found, streamed to, killed.
    async fn life(&mut self, number: u64, tally: &Tally) -> Result {
        let before = self.report();
        let config = ProcConfig::new().with_output(OutputPolicy::Kept);
        let proc = self.host.spawn(NAME, config).await?;
        let params = Params {
            journal: self.journal.display().to_string(),
            life: number,
        };
        let receiver = proc
            .spawn::<Receiver>(&self.client, "receiver", params)
            .await?;
        let Opened = receiver.ask(&self.client, Open).await?;
        if self.is_announced {
            self.dialer.announce(NAME, proc.info().incarnation);
        }
        self.traffic.grant(MESSAGES / 2);
        self.wait_for("a life is reached straight", |now| {
            now.direct > before.direct
        })
        .await;
        self.found.seen.to_straight += u64::from(tally.under_way() > 1);

        self.traffic.grant(MESSAGES / 2);
        let left = self.rng.below(MESSAGES / 4) as usize;
        let deadline = Instant::now() + PATIENCE;
        while self.traffic.left() > left && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let before = self.report();
        let under_way = tally.under_way();
        proc.end(End::Kill).await;
        if self.is_announced {
            self.dialer.announce_gone(NAME, proc.info().incarnation);
        }
        self.wait_for("after its end the host is asked", |now| {
            now.relay > before.relay
        })
        .await;
        self.found.seen.to_relay += u64::from(under_way > 0);
        self.found.lives += 1;
        self.found.sudden += 1;
        Ok(())
    }

    fn report(&self) -> RouteReport {
        self.dialer.explain(&self.to)
    }

    /// Waits, with a little traffic, for what the forwarder reports.
    async fn wait_for(&mut self, what: &str, is_there: impl Fn(&RouteReport) -> bool) {
        let began = Instant::now();
        let mut held = 0;
        let mut report = self.report();
        while !is_there(&report) && began.elapsed() < PATIENCE {
            if self.traffic.left() == 0 {
                self.traffic.grant(4);
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
            report = self.report();
            held = report.held.max(held);
        }
        self.found.held += held;
        self.found.slowest = self.found.slowest.max(began.elapsed());
        let holds = is_there(&report);
        self.found.report.check(what, holds, format!("{report:?}"));
    }
}

#[derive(Clone, Debug, Message, Serialize, Deserialize)]
struct Params {
    journal: String,
    life: u64,
}

/// Takes messages at its ports, and writes each down before its sender can be told.
#[derive(Actor)]
#[actor(messages(Open))]
struct Receiver(Params);

/// Has it open its ports.
#[derive(Message, Serialize, Deserialize)]
struct Open(OncePortRef<Opened>);

#[derive(Message, Serialize, Deserialize)]
struct Opened;

impl RemoteSpawn for Receiver {
    type Params = Params;

    fn create(params: Params) -> std::result::Result<Self, ActorError> {
        Ok(Self(params))
    }
}

impl Handler<Open> for Receiver {
    async fn handle(
        &mut self,
        cx: &hyperactor_proc::Context<Self>,
        Open(reply): Open,
    ) -> ActorResult {
        let journal = Journal::open(self.0.journal.as_ref(), self.0.life)?;
        let taker = Arc::new(Taker(journal));
        for port in 0..PORTS {
            cx.mailbox().bind_sink(FIRST_PORT + port, taker.clone())?;
        }
        cx.reply(reply, Opened);
        Ok(())
    }
}

struct Taker(Journal);

impl PortSink for Taker {
    fn deliver(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        match envelope.into_message::<Item>() {
            Ok(Item(bytes)) => {
                let written = postcard::from_bytes::<Stamped>(&bytes)
                    .map_err(std::io::Error::other)
                    .and_then(|message| self.0.arrived(&message));
                if let Err(error) = written {
                    eprintln!("an arrival is not written down: {error}");
                }
            }
            Err((envelope, error)) => {
                let error = error.to_string();
                return handle.undeliverable(envelope, NotDelivered::Decode { error });
            }
        }
        drop(handle.delivered());
    }
}
