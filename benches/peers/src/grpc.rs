//! tonic over a Unix socket between two processes: unary calls, and a stream of the client's. The message has the fields of
//! the small one of the comparison.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use hyper_util::rt::TokioIo;
use hyperactor_peers_orders::{Fields, round_trips};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{StreamExt, iter};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status, Streaming};

use crate::{Found, Peer, Server};

mod generated {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/peers.Sink.rs"));
}

use generated::sink_client::SinkClient;
use generated::sink_server::{Sink, SinkServer};

#[derive(Clone, PartialEq, prost::Message)]
pub struct Small {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub at: u64,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(bytes = "vec", tag = "4")]
    pub body: Vec<u8>,
}

impl Small {
    fn new(id: u64) -> Self {
        let Fields { at, name, body, .. } = Fields::of(id);
        Self { id, at, name, body }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Count {
    #[prost(uint64, tag = "1")]
    pub count: u64,
}

struct Counting;

#[tonic::async_trait]
impl Sink for Counting {
    async fn echo(&self, request: Request<Small>) -> Result<Response<Small>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn push(&self, request: Request<Streaming<Small>>) -> Result<Response<Count>, Status> {
        let mut stream = request.into_inner();
        let mut count = 0;
        while let Some(small) = stream.next().await {
            std::hint::black_box(small?);
            count += 1;
        }
        Ok(Response::new(Count { count }))
    }
}

pub async fn serve(path: &Path) -> Result<()> {
    let incoming = UnixListenerStream::new(UnixListener::bind(path)?);
    tonic::transport::Server::builder()
        .add_service(SinkServer::new(Counting))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

pub struct Tonic {
    client: SinkClient<Channel>,
    _server: Server,
}

impl Peer for Tonic {
    async fn start() -> Result<Self> {
        let server = Server::start("serve-tonic").await?;
        let path = server.path.clone();
        // The address is not used: the connector knows the path.
        let channel = Endpoint::try_from("http://[::]:50051")?
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await?;
        Ok(Self {
            client: SinkClient::new(channel),
            _server: server,
        })
    }

    async fn push(&mut self, count: u64) -> Result<Found> {
        let began = Instant::now();
        let got = self.client.push(iter((0..count).map(Small::new))).await?;
        Found::arrived(count, got.into_inner().count, began)
    }

    async fn ask(&mut self, count: u64) -> Result<Found> {
        round_trips!(count, |id| self.client.echo(Small::new(id)).await?)
    }
}
