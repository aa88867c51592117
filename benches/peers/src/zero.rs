//! zeromq over a Unix socket between two processes: a pipeline of 64-byte frames, and requests with replies.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use hyperactor_peers_orders::round_trips;
use zeromq::{
    PullSocket, PushSocket, RepSocket, ReqSocket, Socket, SocketRecv, SocketSend, ZmqMessage,
};

use crate::{Found, Peer, Server};

const FRAME: [u8; 64] = [0xa5; 64];

/// Sends requests back, and answers one that is a number when so many frames came through the pipeline.
pub async fn serve(path: &str) -> Result<()> {
    let (mut pull, mut replies) = (PullSocket::new(), RepSocket::new());
    pull.bind(&format!("ipc://{path}.pipe")).await?;
    // Last, since whoever waits for it takes it for the whole server.
    replies.bind(&format!("ipc://{path}")).await?;
    loop {
        let request = replies.recv().await?;
        let first = request.get(0).context("an empty request")?;
        if first.len() == size_of::<u64>() {
            let mut count = [0; size_of::<u64>()];
            count.copy_from_slice(first);
            for _ in 0..u64::from_le_bytes(count) {
                std::hint::black_box(pull.recv().await?);
            }
        }
        replies.send(request).await?;
    }
}

pub struct Zero {
    push: PushSocket,
    requests: ReqSocket,
    server: Server,
}

impl Drop for Zero {
    fn drop(&mut self) {
        let pipe = format!("{}.pipe", self.server.path.display());
        if let Err(error) = std::fs::remove_file(pipe) {
            eprintln!("peers: a socket is left over: {error}");
        }
    }
}

impl Peer for Zero {
    async fn start() -> Result<Self> {
        let server = Server::start("serve-zeromq").await?;
        let path = server.path.display();
        let (mut push, mut requests) = (PushSocket::new(), ReqSocket::new());
        requests.connect(&format!("ipc://{path}")).await?;
        push.connect(&format!("ipc://{path}.pipe")).await?;
        Ok(Self {
            push,
            requests,
            server,
        })
    }

    async fn push(&mut self, count: u64) -> Result<Found> {
        let began = Instant::now();
        let counting = ZmqMessage::from(count.to_le_bytes().to_vec());
        self.requests.send(counting).await?;
        for _ in 0..count {
            let frame = ZmqMessage::from(FRAME.to_vec());
            self.push.send(frame).await?;
        }
        if self.requests.recv().await?.is_empty() {
            bail!("an empty reply");
        }
        Ok(Found::throughput(count, began.elapsed()))
    }

    async fn ask(&mut self, count: u64) -> Result<Found> {
        round_trips!(count, |_| {
            self.requests.send(ZmqMessage::from(FRAME.to_vec())).await?;
            let reply = self.requests.recv().await?;
            ensure!(!reply.is_empty(), "an empty reply");
            reply
        })
    }
}
