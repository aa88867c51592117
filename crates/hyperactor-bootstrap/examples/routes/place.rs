//! Where the messages go: a backend like a host's, and the lives of procs with a socket for the backend and one to be reached
//! straight, which comes and goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyperactor_bootstrap::SocketDir;
use hyperactor_bootstrap::mailbox::LocalProcDialer;
use hyperactor_channel::{DialOptions, ServeError, ServeOptions};
use hyperactor_mailbox::{MailboxSender, MessageEnvelope, NotDelivered, PortSink, ReturnHandle};
use hyperactor_proc::{Client, Proc};
use hyperactor_refs::{ActorId, ChannelAddr, Incarnation, PortId, ProcId};
use hyperactor_router::{MailboxClient, MailboxRouter, MailboxServer, MailboxServerHandle};
use hyperactor_testkit::{Ledger, Rng, Stamped};

use crate::context::{Result, another};
use crate::gate::{Keeper, gate};
use crate::oracle::{FromSocket, IntoRelay, Oracle, Oracles};
use crate::traffic::Item;

/// Actors of each proc that take messages, and ports of each of them.
const ACTORS: u64 = 3;
const PORTS: u64 = 2;
/// The number of an actor's first such port.
const FIRST_PORT: u64 = 4_711;

/// How long the address of a server that ended may be taken.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);

/// A folder of sockets, and the backend in it.
pub(crate) struct Place {
    pub(crate) dir: SocketDir,
    pub(crate) frontend: ChannelAddr,
    router: MailboxRouter,
    backend: MailboxServerHandle,
}

impl Place {
    pub(crate) async fn new(rng: Rng) -> Result<Self> {
        let dir = SocketDir::create()?;
        let frontend = ChannelAddr::unix_path(dir.path().join("frontend"))?;
        let router = MailboxRouter::new();
        let (gate, _goes_on) = gate(router.clone(), rng);
        let backend = ChannelAddr::unix_path(dir.backend_path())?;
        let backend = MailboxServer::serve(backend, gate, ServeOptions::default()).await?;
        Ok(Self {
            dir,
            frontend,
            router,
            backend,
        })
    }

    pub(crate) fn proc_id(&self, name: &str) -> ProcId {
        ProcId::Direct(self.frontend.clone(), name.to_owned())
    }

    /// Begins a life of a proc; the backend leads to it from now on.
    pub(crate) async fn begin(&self, birth: Birth<'_>) -> Result<Life> {
        let Birth {
            name,
            number,
            incarnation,
            is_duplex,
            link_idle,
            oracle,
            ledger,
        } = birth;
        let proc_id = self.proc_id(name);
        let relay = IntoRelay {
            inner: MailboxClient::dial(self.backend.addr().clone()),
            oracle,
        };
        let mut dialer = LocalProcDialer::new(self.frontend.clone(), self.dir.path(), relay);
        if let Some(idle) = link_idle {
            dialer = dialer.with_link_idle(idle);
        }
        let proc = Proc::with_incarnation(proc_id.clone(), incarnation, dialer.boxed());
        let mut takers = Vec::new();
        for actor in 0..ACTORS {
            let client = proc.client(&format!("taker-{actor}"))?;
            for port in 0..PORTS {
                let taker = Taker {
                    ledger: ledger.clone(),
                    life: number,
                };
                client
                    .mailbox()
                    .bind_sink(FIRST_PORT + port, Arc::new(taker))?;
            }
            takers.push(client);
        }
        let addr = ChannelAddr::unix_path(self.dir.path().join(format!("{name}-{number}")))?;
        let options = ServeOptions {
            incarnation,
            ..ServeOptions::default()
        };
        let served = MailboxServer::serve(addr.clone(), proc.clone(), options).await?;
        let expect = DialOptions {
            expect: Some(incarnation),
            ..DialOptions::default()
        };
        self.router
            .bind(proc_id, MailboxClient::dial_with(addr, expect));
        Ok(Life {
            name: name.to_owned(),
            incarnation,
            is_duplex,
            proc,
            dialer,
            relayed: served,
            straight: None,
            _takers: takers,
        })
    }

    /// The ports of a proc that take messages, in whichever life.
    pub(crate) fn ports(&self, name: &str) -> Vec<PortId> {
        let proc_id = Arc::new(self.proc_id(name));
        let actors =
            (0..ACTORS).map(|actor| ActorId::root(Arc::clone(&proc_id), format!("taker-{actor}")));
        actors
            .flat_map(|actor| {
                (0..PORTS).map(move |port| PortId::new(actor.clone(), FIRST_PORT + port))
            })
            .collect()
    }

    /// Ends the backend; the folder goes with the last of its owners.
    pub(crate) async fn end(self) {
        self.backend.stop().await;
    }
}

/// What a life begins with.
pub(crate) struct Birth<'a> {
    pub(crate) name: &'a str,
    pub(crate) number: u64,
    pub(crate) incarnation: Incarnation,
    /// Whether one connection serves both directions.
    pub(crate) is_duplex: bool,
    pub(crate) link_idle: Option<Duration>,
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) ledger: &'a Ledger,
}

/// One life of a proc.
pub(crate) struct Life {
    pub(crate) name: String,
    pub(crate) incarnation: Incarnation,
    is_duplex: bool,
    pub(crate) proc: Proc,
    pub(crate) dialer: LocalProcDialer,
    /// Where the backend reaches it.
    relayed: MailboxServerHandle,
    /// Where its siblings reach it, while there is such a socket.
    straight: Option<Straight>,
    _takers: Vec<Client>,
}

struct Straight {
    server: MailboxServerHandle,
    /// `None` when nothing that arrives is placed any more.
    keeper: Option<Keeper>,
}

/// How a socket, or a life, comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What was taken is settled, and whoever is connected is told goodbye.
    Orderly,
    /// At once; what was taken and not placed is gone.
    Sudden,
}

impl Life {
    /// Opens the socket at which siblings reach it, as this life or, to be refused, as another one.
    pub(crate) async fn appear(
        &mut self,
        place: &Place,
        oracles: Oracles,
        incarnation: Incarnation,
        rng: &mut Rng,
    ) -> Result {
        let (gate, keeper) = gate(self.proc.clone(), another(rng));
        // Counted in front of the gate: what waits there is under way.
        let from_socket = FromSocket { gate, oracles };
        let addr = ChannelAddr::unix_path(place.dir.socket_path(&self.name))?;
        let windows = [16, 256, ServeOptions::default().window_messages];
        let options = ServeOptions {
            incarnation,
            window_messages: *rng.pick(&windows).unwrap_or(&windows[0]),
            ..ServeOptions::default()
        };
        let began = Instant::now();
        let server = loop {
            let (addr, sender) = (addr.clone(), from_socket.clone());
            let served = if self.is_duplex {
                let sessions = self.dialer.sessions_of(incarnation, sender);
                MailboxServer::serve_duplex(addr, options.clone(), sessions).await
            } else {
                MailboxServer::serve(addr, sender, options.clone()).await
            };
            match served {
                Ok(server) => break server,
                // The task of a server that ended suddenly has its turn later.
                Err(ServeError::AddrInUse { .. }) if began.elapsed() < RELEASED_WITHIN => {
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.straight = Some(Straight {
            server,
            keeper: Some(keeper),
        });
        Ok(())
    }

    pub(crate) fn has_socket(&self) -> bool {
        self.straight.is_some()
    }

    /// Places nothing any more that comes straight. What waits at the gate must not arrive after its sender was told that nobody
    /// knows.
    pub(crate) async fn discard(&mut self) {
        let straight = self.straight.as_mut();
        if let Some(keeper) = straight.and_then(|straight| straight.keeper.take()) {
            keeper.discard().await;
        }
    }

    /// Closes the socket at which siblings reach it.
    pub(crate) async fn vanish(&mut self, how: Ending) {
        if how == Ending::Sudden {
            self.discard().await;
        }
        let Some(Straight { server, .. }) = self.straight.take() else {
            return;
        };
        match how {
            Ending::Orderly => server.stop().await,
            Ending::Sudden => drop(server),
        }
    }

    /// Ends this life: nothing comes to it any more. What it has sent still gets its outcome.
    pub(crate) async fn end(mut self, place: &Place, how: Ending) {
        self.vanish(how).await;
        // What it dialled leads to it as well, where siblings send back over that.
        self.dialer.close().await;
        place.router.unbind(&self.proc.proc_id().clone().into());
        match how {
            Ending::Orderly => self.relayed.stop().await,
            Ending::Sudden => drop(self.relayed),
        }
    }
}

/// Takes the messages of one port.
struct Taker {
    ledger: Ledger,
    life: u64,
}

impl PortSink for Taker {
    fn deliver(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        match envelope.into_message::<Item>() {
            Ok(Item(bytes)) => match postcard::from_bytes::<Stamped>(&bytes) {
                Ok(message) => self.ledger.arrived(self.life, &message),
                // The ledger misses it.
                Err(error) => println!("  an arrival is no message: {error}"),
            },
            Err((envelope, error)) => {
                let error = error.to_string();
                return handle.undeliverable(envelope, NotDelivered::Decode { error });
            }
        }
        // Out of the queue as soon as it is in it.
        drop(handle.delivered());
    }
}
