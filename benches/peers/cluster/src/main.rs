//! ractor_cluster between two processes, over a Unix socket: an actor of one node that counts, a reference to it in another.
//! Messages are of protobuf, as its own protocol is and its documentation has it; the socket is handed to the node as a
//! transport of one's own, which its documentation has, too. One node knows the other's actor by the group it is in.
//!
//! `peers-cluster ractor_cluster` obeys the lines of its input, `peers-cluster serve-cluster PATH` is the other node.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use hyperactor_peers_orders::{
    Fields, Found, Peer, Server, TURN, appears, obey_or_serve, round_trips,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::{
    BoxRead, BoxWrite, ClusterBidiStream, NodeServer, NodeServerMessage, RactorClusterMessage,
};
use tokio::net::{UnixListener, UnixStream};

/// What both nodes know.
const COOKIE: &str = "cookie";

/// The group by which one node finds the other's actor.
const GROUP: &str = "counters";

/// What this program does as the other node.
const ROLE: &str = "serve-cluster";

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
        let Fields { at, name, body, .. } = Fields::of(id);
        Self { id, at, name, body }
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
        let server = Server::start(ROLE).await?;
        let node = node("client").await?;
        let stream = UnixStream::connect(&server.path).await?;
        ractor_cluster::client_connect_external(&node, Box::new(Socket(stream))).await?;
        let look = async || Ok(ractor::pg::get_members(&GROUP.to_owned()).pop());
        let found = appears("the other node's actor", Duration::from_millis(5), look).await?;
        let counter = found.into();
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
        Found::arrived(count, got, began)
    }

    async fn ask(&mut self, count: u64) -> Result<Found> {
        let counter = self.counter.clone();
        tokio::spawn(async move {
            round_trips!(count, |id| {
                let echo = ractor::call!(counter, Order::Echo, Small::new(id));
                let echo = echo.map_err(|error| anyhow!("{error}"))?;
                ensure!(echo.id == id, "the reply to another call");
                echo
            })
        })
        .await?
    }
}

fn main() -> Result<()> {
    obey_or_serve::<Cluster>("ractor_cluster", ROLE, serve)
}
