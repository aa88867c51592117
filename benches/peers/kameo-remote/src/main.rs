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
use hyperactor_peers_orders::{Found, Peer, Server, nanos_since, obey_on, serve_on, threads};
use kameo::prelude::*;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde::{Deserialize, Serialize};

/// The name by which one node finds the other's actor.
const NAME: &str = "counter";

/// The time that two nodes get to know each other.
const PATIENCE: Duration = Duration::from_secs(10);

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
        Self {
            id,
            at: id.wrapping_mul(0x9e37_79b9),
            name: "sixteen letters!".to_owned(),
            body: vec![0xa5; 32],
        }
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
        let server = Server::start("serve-kameo").await?;
        let address: Multiaddr = std::fs::read_to_string(&server.path)?.parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            bail!("{address} does not say whose it is");
        };
        let mut swarm = node()?;
        // What discovery does with what it found: the registry asks those of whom it was told.
        swarm.add_peer_address(peer, address.clone());
        swarm.dial(address)?;
        tokio::spawn(drive(swarm));
        let patience = Instant::now();
        let counter = loop {
            match RemoteActorRef::lookup(NAME).await? {
                Some(counter) => break counter,
                None if patience.elapsed() > PATIENCE => bail!("the actor was not found"),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
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
        let elapsed = began.elapsed();
        ensure!(got == count, "{count} were sent and {got} arrived");
        Ok(Found::throughput(count, elapsed))
    }

    async fn ask(&mut self, count: u64) -> Result<Found> {
        let counter = self.counter.clone();
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(usize::try_from(count)?);
            let began = Instant::now();
            for id in 0..count {
                let started = Instant::now();
                let echo = counter.ask(&Echo(Small::new(id))).await;
                let echo = echo.map_err(|error| anyhow!("{error}"))?;
                times.push(nanos_since(started));
                ensure!(echo.id == id, "the reply to another call");
            }
            Ok(Found::round_trips(times, began.elapsed()))
        })
        .await?
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["kameo remote"] => obey_on(threads()?, Remote::start),
        ["serve-kameo", path] => serve_on(threads()?, serve(Path::new(path))),
        _ => bail!("no peer {words:?}"),
    }
}
