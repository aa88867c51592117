//! ractor_cluster between two processes, over a Unix socket: an actor of one node that counts, a reference to it in another.
//! Messages are of protobuf, as its own protocol is and its documentation has it; the socket is handed to the node as a
//! transport of one's own, which its documentation has, too. One node knows the other's actor by the group it is in.
//!
//! `peers-cluster ractor_cluster` obeys the lines of its input, `peers-cluster serve-cluster PATH` is the other node.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use hyperactor_peers_orders::{Found, Peer, Server, TURN, nanos_since, obey_on, serve_on, threads};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::{
    BoxRead, BoxWrite, ClusterBidiStream, NodeServer, NodeServerMessage, RactorClusterMessage,
};
use tokio::net::{UnixListener, UnixStream};

/// What both nodes know.
const COOKIE: &str = "cookie";

/// The group by which one node finds the other's actor.
const GROUP: &str = "counters";

/// The time that two nodes get to know each other.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fields of the small message of the comparison.
#[derive(Clone, PartialEq, prost::Message)]
struct Small {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(bytes = "vec", tag = "4")]
    body: Vec<u8>,
}

ractor_cluster::derive_serialization_for_prost_type! {Small}

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

#[derive(RactorClusterMessage)]
enum Order {
    Item(Small),
    #[rpc]
    Count(RpcReplyPort<u64>),
    #[rpc]
    Echo(Small, RpcReplyPort<Small>),
}

struct Counter;

impl Actor for Counter {
    type Msg = Order;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Order>,
        order: Order,
        count: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Item(small) => {
                std::hint::black_box(&small);
                *count += 1;
            }
            Order::Count(reply) => reply.send(std::mem::take(count))?,
            Order::Echo(small, reply) => reply.send(small)?,
        }
        Ok(())
    }
}

struct Socket(UnixStream);

impl ClusterBidiStream for Socket {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (read, write) = self.0.into_split();
        (Box::new(read), Box::new(write))
    }
}

/// A node. It listens at a TCP port of its own choice besides, which nobody dials.
async fn node(name: &str) -> Result<ActorRef<NodeServerMessage>> {
    let server = NodeServer::new(
        0,
        COOKIE.to_owned(),
        name.to_owned(),
        "localhost".to_owned(),
        None,
        None,
    )
    .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let (node, _task) = Actor::spawn(None, server, ()).await?;
    Ok(node)
}

async fn serve(path: &Path) -> Result<()> {
    let node = node("server").await?;
    let (counter, _task) = Actor::spawn(None, Counter, ()).await?;
    ractor::pg::join(GROUP.to_owned(), vec![counter.get_cell()]);
    let listener = UnixListener::bind(path)?;
    loop {
        let (stream, _) = listener.accept().await?;
        node.cast(NodeServerMessage::ConnectionOpenedExternal {
            stream: Box::new(Socket(stream)),
            is_server: true,
        })?;
    }
}

struct Cluster {
    counter: ActorRef<Order>,
    _server: Server,
}

impl Peer for Cluster {
    async fn start() -> Result<Self> {
        let server = Server::start("serve-cluster").await?;
        let node = node("client").await?;
        let stream = UnixStream::connect(&server.path).await?;
        ractor_cluster::client_connect_external(&node, Box::new(Socket(stream))).await?;
        let patience = Instant::now();
        let counter = loop {
            if let Some(cell) = ractor::pg::get_members(&GROUP.to_owned()).pop() {
                break cell.into();
            }
            if patience.elapsed() > PATIENCE {
                bail!("the other node's actor did not appear");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
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
            for id in 0..count {
                counter.cast(Order::Item(Small::new(id)))?;
                if id % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
            }
            anyhow::Ok(())
        })
        .await??;
        let got = ractor::call!(self.counter, Order::Count).map_err(|error| anyhow!("{error}"))?;
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
                let echo = ractor::call!(counter, Order::Echo, Small::new(id));
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
        ["ractor_cluster"] => obey_on(threads()?, Cluster::start),
        ["serve-cluster", path] => serve_on(threads()?, serve(Path::new(path))),
        _ => bail!("no peer {words:?}"),
    }
}
