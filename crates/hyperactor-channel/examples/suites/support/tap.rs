//! An observer between the proxy that breaks connections and the server: passes every byte, and counts from the hellos and
//! the frames that pass what really took place. It judges nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyperactor_protocol::limits::{
    CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, FRAME_MAX_DEFAULT, LENGTH_BYTES,
};
use hyperactor_protocol::{Frame, FrameDecoder, Hello, HelloKind};
use hyperactor_refs::ChannelAddr;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinHandle, JoinSet};

use super::net::{Kind, Listener, connect};

/// What took place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: u64,
    /// Connections that ended within the dialer's hello, within a frame's header, within its rest, between two frames.
    pub(crate) ends_in_hello: u64,
    pub(crate) ends_in_header: u64,
    pub(crate) ends_in_payload: u64,
    pub(crate) ends_between: u64,
    /// Hellos of a dialer that has messages without an outcome.
    pub(crate) hellos_with_unacked: u64,
    /// Answers that say that something arrived which the dialer has no outcome for.
    pub(crate) acks_lost: u64,
    /// Messages that used up the last of the credit that was granted.
    pub(crate) windows_closed: u64,
    /// Answers to a later connection of a session that the server no longer had.
    pub(crate) expired: u64,
    /// From a hello of a later connection to its answer.
    pub(crate) takeovers: Vec<Duration>,
}

/// The observer. Dropping it ends all connections.
pub(crate) struct Tap {
    pub(crate) addr: ChannelAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Tap {
    pub(crate) async fn start(kind: Kind, target: ChannelAddr, name: &str) -> Self {
        let (listener, addr) = Listener::new(kind, name).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => {
                        let dialer = accepted.unwrap();
                        let (target, seen) = (target.clone(), Arc::clone(&shared));
                        connections.spawn(async move {
                            if let Ok(server) = connect(&target).await {
                                seen.lock().connections += 1;
                                relay(dialer, server, &seen).await;
                            }
                        });
                    }
                }
            }
        });
        Self { addr, seen, task }
    }

    pub(crate) async fn stop(self) -> Seen {
        self.task.abort();
        // An aborted task has nothing to say.
        let _aborted = self.task.await;
        self.seen.lock().clone()
    }
}

impl Seen {
    fn answered(&mut self, hello: &Hello, answer: &Hello, took: Duration) {
        let is_resumed = answer.kind == HelloKind::AcceptedResumed;
        self.acks_lost += u64::from(is_resumed && answer.next_expected > hello.oldest_unresolved);
        if hello.epoch.0 > 1 {
            self.takeovers.push(took);
            self.expired += u64::from(answer.kind == HelloKind::AcceptedFresh);
        }
    }
}

/// What the two directions of a connection know of each other.
#[derive(Default)]
struct Opening {
    hello: Option<(Hello, Instant)>,
    /// Messages of the session that the server has granted so far.
    granted: u64,
}

async fn relay(dialer: impl Io2, server: impl Io2, seen: &Mutex<Seen>) {
    let (mut from_dialer, mut to_dialer) = tokio::io::split(dialer);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let opening = Mutex::new(Opening::default());
    let mut place = Place::default();
    let up = copy(&mut from_dialer, &mut to_server, |bytes| {
        let mut closed = 0;
        let hello = place.feed(bytes, &mut |seq| {
            closed += u64::from(seq + 1 == opening.lock().granted);
        });
        let mut seen = seen.lock();
        seen.windows_closed += closed;
        if let Some(hello) = hello {
            seen.hellos_with_unacked += u64::from(hello.oldest_unresolved < hello.next_unsent);
            opening.lock().hello = Some((hello, Instant::now()));
        }
    });
    let mut decoder = FrameDecoder::new(FRAME_MAX_DEFAULT);
    let mut is_answered = false;
    let down = copy(&mut from_server, &mut to_dialer, |bytes| {
        decoder.buffer().extend_from_slice(bytes);
        let mut opening = opening.lock();
        if !is_answered {
            let Ok(Some(answer)) = decoder.next_hello() else {
                return;
            };
            is_answered = true;
            opening.granted = answer.credit_messages;
            if let Some((hello, since)) = &opening.hello {
                seen.lock().answered(hello, &answer, since.elapsed());
            }
        }
        while let Ok(Some(frame)) = decoder.next_frame() {
            if let Frame::Credit { messages, .. } = frame {
                opening.granted = messages;
            }
        }
    });
    {
        tokio::pin!(up, down);
        tokio::select! {
            orderly = &mut up => if orderly { down.await; },
            orderly = &mut down => if orderly { up.await; },
        }
    }
    let mut seen = seen.lock();
    match place {
        Place::Hello(_) => seen.ends_in_hello += 1,
        Place::Header(header) if header.is_empty() => seen.ends_between += 1,
        Place::Header(_) => seen.ends_in_header += 1,
        Place::Body(_) => seen.ends_in_payload += 1,
    }
}

trait Io2: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Io2 for S {}

/// Passes bytes on; says whether the direction ended in order.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut look: impl FnMut(&[u8]),
) -> bool {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return to.shutdown().await.is_ok(),
            Ok(read) => {
                look(&buffer[..read]);
                if to.write_all(&buffer[..read]).await.is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

/// How far a direction has come.
enum Place {
    Hello(BytesMut),
    /// The part of a header that has come.
    Header(Vec<u8>),
    /// So many bytes of the frame are still to come.
    Body(usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::Hello(BytesMut::new())
    }
}

impl Place {
    /// Takes bytes in; gives the hello when it is complete, and tells the number of each message whose header is.
    fn feed(&mut self, mut bytes: &[u8], message: &mut dyn FnMut(u64)) -> Option<Hello> {
        let mut found = None;
        if let Self::Hello(buffer) = self {
            buffer.extend_from_slice(bytes);
            let Ok(Some(hello)) = Hello::decode(buffer) else {
                return None;
            };
            let rest = std::mem::take(buffer);
            found = Some(hello);
            *self = Self::Header(Vec::new());
            let nothing = self.feed(&rest, message);
            debug_assert!(nothing.is_none(), "there is one hello a direction");
            return found;
        }
        while !bytes.is_empty() {
            match self {
                Self::Hello(_) => return found,
                Self::Body(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        *self = Self::Header(Vec::new());
                    }
                }
                Self::Header(header) => {
                    header.push(bytes[0]);
                    bytes = &bytes[1..];
                    let is_data = header.get(LENGTH_BYTES) == Some(&1);
                    let whole = if is_data {
                        DATA_HEADER_BYTES
                    } else {
                        CONTROL_HEADER_BYTES
                    };
                    if header.len() == whole {
                        if is_data && let Some(seq) = header[CONTROL_HEADER_BYTES..].first_chunk() {
                            message(u64::from_le_bytes(*seq));
                        }
                        let length =
                            u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
                        let frame = LENGTH_BYTES + length as usize;
                        *self = match frame.saturating_sub(whole) {
                            0 => Self::Header(Vec::new()),
                            left => Self::Body(left),
                        };
                    }
                }
            }
        }
        found
    }
}
