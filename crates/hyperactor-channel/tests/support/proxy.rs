//! A small relay of bytes between a dialer and a server, over TCP, that can cut its connections at a chosen byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperactor_refs::ChannelAddr;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// After so many bytes from the dialer to the server.
    pub up: u64,
    /// After so many bytes from the server to the dialer.
    pub down: u64,
    /// Whether both ends are left open and silent then, instead of being closed.
    pub is_silent: bool,
}

impl Cut {
    pub const NEVER: Self = Self {
        up: u64::MAX,
        down: u64::MAX,
        is_silent: false,
    };
}

/// Relays every connection, each with its own cut.
pub struct Proxy {
    pub addr: ChannelAddr,
    pub connections: Arc<AtomicU64>,
    pub cuts: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Begins to relay to `target`; `next` gives the cut of each connection.
    pub async fn start(target: ChannelAddr, next: impl FnMut(u64) -> Cut + Send + 'static) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let addr = ChannelAddr::tcp(listener.local_addr().unwrap()).unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let cuts = Arc::new(AtomicU64::new(0));
        let next = Mutex::new(next);
        let (counted, cut) = (Arc::clone(&connections), Arc::clone(&cuts));
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            loop {
                let (dialer, _) = listener.accept().await.unwrap();
                let plan = next.lock()(counted.fetch_add(1, Ordering::Relaxed));
                let (target, cut) = (target.clone(), Arc::clone(&cut));
                relays.spawn(async move {
                    if relay(dialer, &target, plan).await {
                        cut.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self {
            addr,
            connections,
            cuts,
            task,
        }
    }
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Both for S {}

/// Says whether it ended by the cut.
async fn relay(dialer: TcpStream, target: &ChannelAddr, plan: Cut) -> bool {
    let server: Box<dyn Both> = match target {
        ChannelAddr::Unix(unix) => match unix.as_path() {
            Some(path) => Box::new(UnixStream::connect(path).await.unwrap()),
            None => panic!("the proxy reaches Unix sockets by path"),
        },
        _ => {
            let at = target
                .host_port()
                .and_then(|host| host.socket_addr())
                .unwrap();
            Box::new(TcpStream::connect(at).await.unwrap())
        }
    };
    let (mut dialer_read, mut dialer_write) = tokio::io::split(dialer);
    let (mut server_read, mut server_write) = tokio::io::split(server);
    // Whichever direction ends first takes the other with it, in the middle of whatever it carries.
    let is_cut = tokio::select! {
        is_cut = copy(&mut dialer_read, &mut server_write, plan.up) => is_cut,
        is_cut = copy(&mut server_read, &mut dialer_write, plan.down) => is_cut,
    };
    if is_cut && plan.is_silent {
        std::future::pending::<()>().await;
    }
    is_cut
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    limit: u64,
) -> bool {
    let mut left = limit;
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return false;
                }
                left -= read as u64;
            }
        }
    }
    true
}

/// Numbers that look random and are the same in every run of a seed (splitmix64).
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
