//! kameo's remote actors between two processes: an actor of one node that counts, a reference to it in another, which found it
//! in their registry. Each node is a swarm of libp2p's as its own documentation has it for production: TCP, noise, yamux, and the
//! other node dialled by its address, without discovery by multicast.
//!
//! `peers-kameo-remote "kameo remote"` obeys the lines of its input, `peers-kameo-remote serve-kameo PATH` is the other node: it
//! listens on loopback, at a port of the system's choice, and leaves its address at PATH.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use hyperactor_peers_orders::{Fields, Found, Peer, Server, appears, obey_or_serve, round_trips};
use kameo::prelude::*;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde::{Deserialize, Serialize};

/// The name by which one node finds the other's actor.
const NAME: &str = "counter";

/// What this program does as the other node.
const ROLE: &str = "serve-kameo";

/// A connection stays while other arms of the comparison have their turns.
const IDLE: Duration = Duration::from_secs(300);

/// Messages on the way at a time. Each is a stream of its own on the connection and is answered; a hundred may be open by default, and
/// what comes beyond them is dropped, so the sender has to wait for answers. 16 to 200, with more streams, were no faster or slower.
const WINDOW: usize = 64;

/// The fields of the small message of the comparison.
#[derive(Deserialize, Reply, Serialize)]
struct Small {
    id: u64,
    at: u64,
    name: String,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

impl Small {
    fn new(id: u64) -> Self {
        let Fields { at, name, body, .. } = Fields::of(id);
        Self { id, at, name, body }
    }
}

/// How many came since this was last asked?
#[derive(Deserialize, Serialize)]
struct Count;

/// A message that is to come back.
#[derive(Deserialize, Serialize)]
struct Echo(Small);

#[derive(Default, Actor, RemoteActor)]
struct Counter(u64);

#[remote_message]
impl Message<Small> for Counter {
    type Reply = ();

    async fn handle(&mut self, small: Small, _cx: &mut Context<Self, ()>) {
        std::hint::black_box(&small);
        self.0 += 1;
    }
}

#[remote_message]
impl Message<Count> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Count, _cx: &mut Context<Self, u64>) -> u64 {
        std::mem::take(&mut self.0)
    }
}

#[remote_message]
impl Message<Echo> for Counter {
    type Reply = Small;

    async fn handle(&mut self, Echo(small): Echo, _cx: &mut Context<Self, Small>) -> Small {
        small
    }
}

#[derive(NetworkBehaviour)]
struct Node {
    kameo: remote::Behaviour,
}

fn node() -> Result<Swarm<Node>> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(|key| {
            let config = remote::messaging::Config::default();
            let kameo = remote::Behaviour::new(key.public().to_peer_id(), config);
            Ok(Node { kameo })
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
        .build();
    swarm.behaviour().kameo.try_init_global()?;
    Ok(swarm)
}

/// Has a node do its work, for ever.
async fn drive(mut swarm: Swarm<Node>) {
    loop {
        swarm.select_next_some().await;
    }
}

async fn serve(path: &Path) -> Result<()> {
    let mut swarm = node()?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let listening = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let address = listening
        .with_p2p(*swarm.local_peer_id())
        .map_err(|address| anyhow!("{address} is another's"))?;
    let driven = tokio::spawn(drive(swarm));
    Counter::spawn(Counter::default()).register(NAME).await?;
    // Whole, since whoever waits for the file reads it as soon as it is there.
    let written = path.with_extension("new");
    std::fs::write(&written, address.to_string())?;
    std::fs::rename(&written, path)?;
    driven.await?;
    Ok(())
}

struct Remote {
    counter: RemoteActorRef<Counter>,
    _server: Server,
}

impl Peer for Remote {
    async fn start() -> Result<Self> {
        let server = Server::start(ROLE).await?;
        let address: Multiaddr = std::fs::read_to_string(&server.path)?.parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            bail!("{address} does not say whose it is");
        };
        let mut swarm = node()?;
        // What discovery does with what it found: the registry asks those of whom it was told.
        swarm.add_peer_address(peer, address.clone());
        swarm.dial(address)?;
        tokio::spawn(drive(swarm));
        let look = async || Ok(RemoteActorRef::lookup(NAME).await?);
        let counter = appears("the other node's actor", Duration::from_millis(50), look).await?;
        Ok(Self {
            counter,
            _server: server,
        })
    }

    async fn push(&mut self, count: u64) -> Result<Found> {
        let counter = self.counter.clone();
        let began = Instant::now();
        tokio::spawn(async move {
            let told = futures::stream::iter(0..count).map(|id| {
                let counter = &counter;
                async move { counter.tell(&Small::new(id)).send_ack().await }
            });
            let all = told.buffer_unordered(WINDOW).try_collect::<()>();
            all.await.map_err(|error| anyhow!("{error}"))
        })
        .await??;
        let got = self.counter.ask(&Count).await;
        let got = got.map_err(|error| anyhow!("{error}"))?;
        Found::arrived(count, got, began)
    }

    async fn ask(&mut self, count: u64) -> Result<Found> {
        let counter = self.counter.clone();
        tokio::spawn(async move {
            round_trips!(count, |id| {
                let echo = counter.ask(&Echo(Small::new(id))).await;
                let echo = echo.map_err(|error| anyhow!("{error}"))?;
                ensure!(echo.id == id, "the reply to another call");
                echo
            })
        })
        .await?
    }
}

fn main() -> Result<()> {
    obey_or_serve::<Remote>("kameo remote", ROLE, serve)
}
