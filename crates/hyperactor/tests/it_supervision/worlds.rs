//! Where cases are played: in one proc, in two that are joined by Unix sockets, or in two processes of one host. All look the
//! same to a case: two places for nodes, and one from which they are watched.

use std::time::Duration;

use hyperactor::channel::ServeOptions;
use hyperactor::prelude::*;
use hyperactor::proc::{Monitor, ProcAgent};
use hyperactor::refs::BindSpec;
use hyperactor::router::{DialMailboxRouter, MailboxServer, MailboxServerHandle};
use hyperactor_testkit::TempSocketDir;

use crate::nodes::{Node, NodeParams, Note, Order, Ping, What};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Fails a test that waits for what does not come.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it did not happen in time")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OneProc,
    TwoProcs,
    TwoProcesses,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::OneProc, Self::TwoProcs, Self::TwoProcesses];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OneProc => "in_one_proc",
            Self::TwoProcs => "across_two_procs",
            Self::TwoProcesses => "across_two_processes",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    A,
    B,
}

pub(crate) struct World {
    pub(crate) kind: Kind,
    /// The proc of the observer.
    pub(crate) proc: Proc,
    pub(crate) client: Client,
    pub(crate) places: [ProcId; 2],
    parts: Parts,
    notes: PortReceiver<Note>,
    port: PortRef<Note>,
}

enum Parts {
    One,
    Two {
        _servers: Vec<MailboxServerHandle>,
        _b: Proc,
        _dir: TempSocketDir,
    },
    Processes(Host),
}

impl World {
    pub(crate) async fn new(kind: Kind) -> Self {
        match kind {
            Kind::OneProc => Self::one(),
            Kind::TwoProcs => Self::two().await,
            Kind::TwoProcesses => Self::processes().await,
        }
    }

    fn one() -> Self {
        let proc = Proc::isolated("p");
        ProcAgent::spawn_in(&proc, crate::nodes::registry()).unwrap();
        let id = proc.proc_id().clone();
        Self::with(Kind::OneProc, proc, [id.clone(), id], Parts::One)
    }

    async fn two() -> Self {
        let dir = TempSocketDir::new().unwrap();
        let (a, server_a) = socket_proc(&dir, "a").await;
        let (b, server_b) = socket_proc(&dir, "b").await;
        let places = [a.proc_id().clone(), b.proc_id().clone()];
        let parts = Parts::Two {
            _servers: vec![server_a, server_b],
            _b: b,
            _dir: dir,
        };
        Self::with(Kind::TwoProcs, a, places, parts)
    }

    async fn processes() -> Self {
        let manager = ProcessManager::new().unwrap();
        let host = Host::new(manager, ChannelTransport::Unix).await.unwrap();
        let (a, b) = tokio::join!(host.spawn_default("a"), host.spawn_default("b"));
        let places = [a.unwrap(), b.unwrap()].map(|hosted| hosted.proc_id().clone());
        let proc = host.service_proc().clone();
        Self::with(Kind::TwoProcesses, proc, places, Parts::Processes(host))
    }

    fn with(kind: Kind, proc: Proc, places: [ProcId; 2], parts: Parts) -> Self {
        let client = proc.client("observer").unwrap();
        let (handle, notes) = client.mailbox().open_port::<Note>();
        let port = handle.bind();
        Self {
            kind,
            proc,
            client,
            places,
            parts,
            notes,
            port,
        }
    }

    pub(crate) fn place(&self, place: Place) -> &ProcId {
        match place {
            Place::A => &self.places[0],
            Place::B => &self.places[1],
        }
    }

    pub(crate) fn params(&self, name: &str, traps: bool) -> NodeParams {
        NodeParams {
            name: name.to_owned(),
            notes: self.port.clone(),
            traps,
        }
    }

    /// Spawns a node and waits until it has started.
    pub(crate) async fn spawn(&mut self, place: Place, name: &str, traps: bool) -> ActorRef<Node> {
        let params = self.params(name, traps);
        let place = self.place(place).clone();
        let node = hyperactor::proc::spawn_remote::<Node>(&self.client, &place, name, params);
        let node = soon(node).await.unwrap();
        assert_eq!(self.next_note().await.what, What::Started);
        node
    }

    /// Has a node do something, and waits until it has.
    pub(crate) async fn order(&self, node: &ActorRef<Node>, order: Order) {
        node.post(&self.client, order);
        soon(node.ask(&self.client, Ping)).await.unwrap();
    }

    pub(crate) fn monitor(&self, actor_id: &ActorId) -> Monitor {
        self.proc.monitor(actor_id)
    }

    pub(crate) async fn next_note(&mut self) -> Note {
        soon(self.notes.recv()).await.unwrap()
    }

    /// The notes that are there already.
    pub(crate) fn notes_so_far(&mut self) -> Vec<Note> {
        std::iter::from_fn(|| self.notes.try_recv()).collect()
    }

    /// The host, where procs are processes.
    pub(crate) fn host(&self) -> Option<&Host> {
        match &self.parts {
            Parts::Processes(host) => Some(host),
            _ => None,
        }
    }

    pub(crate) async fn end(self) {
        if let Parts::Processes(host) = &self.parts {
            let report = soon(host.stop(Duration::from_secs(5))).await;
            assert!(report.left_behind.is_empty(), "{report:?}");
        }
    }
}

/// A proc that is served at a socket of its own, under its own address, with an agent.
async fn socket_proc(dir: &TempSocketDir, name: &str) -> (Proc, MailboxServerHandle) {
    let addr: ChannelAddr = dir.address(name).parse().unwrap();
    let router = DialMailboxRouter::new();
    let proc = Proc::new(
        ProcId::Direct(addr.clone(), name.to_owned()),
        router.into_boxed(),
    );
    let server = MailboxServer::serve(BindSpec::from(addr), proc.clone(), ServeOptions::default());
    let server = server.await.unwrap();
    ProcAgent::spawn_in(&proc, crate::nodes::registry()).unwrap();
    (proc, server)
}
