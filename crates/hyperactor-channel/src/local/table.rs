//! Which `local:` address of this process serves what: the table of in-process servers, and the life of one.
//! How messages move is in `link`.

use std::any::{Any, type_name};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyperactor_refs::{ChannelAddr, Incarnation};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits::STOP_GRACE;
use crate::local::link::{Back, LocalLink, absent, is_expected};
use crate::local::session::Half;
use crate::serve::{Ending, Phase, ending};
use crate::{Accept, Codec, Deliver, Inbound, Outbound, Peer, Reason, ServeError, ServeOptions};

static TABLE: Mutex<Table> = Mutex::new(Table {
    servers: BTreeMap::new(),
    next: FIRST_FREE,
});

/// Where the search for a free number starts, far above the numbers that people choose.
const FIRST_FREE: u64 = 1 << 32;

struct Table {
    servers: BTreeMap<u64, Entry>,
    next: u64,
}

struct Entry {
    /// An `Arc<Server<M>>`.
    server: Arc<dyn Any + Send + Sync>,
    message: &'static str,
}

/// One session of a server, as the server sees it.
pub(crate) trait Served: Send + Sync {
    /// Closes the session in order, from the server's side.
    fn close(&self);
    /// Whether it goes on.
    fn is_open(&self) -> bool;
    /// The server ended.
    fn ended(&self, orderly: bool);
}

type Open<M> = Box<
    dyn Fn(ChannelAddr, Peer, Inbound, Back<M>) -> (Box<dyn Deliver<M>>, Arc<dyn Half>)
        + Send
        + Sync,
>;

pub(crate) struct Server<M: 'static> {
    open: Open<M>,
    incarnation: Incarnation,
    window: u64,
    state: Mutex<ServerState>,
}

#[derive(Default)]
struct ServerState {
    closed: bool,
    sessions: Vec<Weak<dyn Served>>,
}

/// Who wants a session, and its first direction.
pub(crate) struct Dialer<'a> {
    pub(super) addr: &'a ChannelAddr,
    pub(super) number: u64,
    pub(super) incarnation: Incarnation,
    pub(super) expect: Option<Incarnation>,
    pub(super) receives: bool,
    pub(super) inbound: Inbound,
    pub(super) served: Arc<dyn Served>,
}

/// What a dialer gets.
pub(crate) struct Opened<M> {
    pub(super) deliver: Box<dyn Deliver<M>>,
    pub(super) window: u64,
    pub(super) back: Arc<dyn Half>,
}

/// Opens a session with the server of a number.
pub(crate) fn open<M: Send + 'static>(
    dialer: Dialer<'_>,
    back: Back<M>,
) -> Result<Opened<M>, Reason> {
    let addr = dialer.addr;
    let found = TABLE
        .lock()
        .servers
        .get(&dialer.number)
        .map(|entry| (entry.server.clone(), entry.message));
    let (server, message) = found.ok_or_else(|| absent(addr))?;
    let server = server
        .downcast::<Server<M>>()
        .map_err(|_| Reason::Connect {
            addr: addr.clone(),
            error: format!("it serves {message} and not {}", type_name::<M>()),
            errno: None,
        })?;
    if !is_expected(dialer.expect, server.incarnation) {
        return Err(Reason::PeerRestarted);
    }
    {
        let mut state = server.state.lock();
        if state.closed {
            return Err(absent(addr));
        }
        // The table of sessions is swept as it doubles, so that it stays in proportion to those alive.
        if state.sessions.len() == state.sessions.capacity() {
            state.sessions.retain(|session| session.strong_count() > 0);
        }
        state.sessions.push(Arc::downgrade(&dialer.served));
    }
    let peer = Peer {
        addr: None,
        uid: Some(rustix::process::geteuid().as_raw()),
        pid: Some(std::process::id()),
        incarnation: dialer.incarnation,
        receives: dialer.receives,
    };
    let (deliver, back) = (server.open)(addr.clone(), peer, dialer.inbound, back);
    Ok(Opened {
        deliver,
        window: server.window,
        back,
    })
}

/// A server in the table; dropping it takes it out and ends its sessions.
pub(crate) struct Registration<M: Send + 'static> {
    number: u64,
    server: Arc<Server<M>>,
}

impl<M: Send + 'static> Registration<M> {
    /// Serves a number, or any free one.
    pub(crate) fn new<A: Accept<M>, C: Codec<M>>(
        number: Option<u64>,
        options: &ServeOptions,
        codec: C,
        acceptor: A,
    ) -> Result<(ChannelAddr, Self), ServeError> {
        let codec = Arc::new(codec);
        let outbox_messages = options.outbox_messages;
        let open: Open<M> = Box::new(move |addr, peer, inbound, back| {
            let (link, half) = LocalLink::<M, A::Completion, C>::accepted(
                addr,
                outbox_messages,
                codec.clone(),
                back,
            );
            let outbound = Outbound::accepted(Arc::new(link));
            let opened = || Box::new(acceptor.open(peer, inbound, outbound)) as Box<_>;
            match catch_unwind(AssertUnwindSafe(opened)) {
                Ok(deliver) => (deliver, half),
                Err(panic) => {
                    // What it may have posted by then has its outcome; the dialer learns of the rest.
                    half.end(Reason::Dropped);
                    resume_unwind(panic)
                }
            }
        });
        let server = Arc::new(Server {
            open,
            incarnation: options.incarnation,
            window: options.window_messages.max(1).into(),
            state: Mutex::default(),
        });
        let entry = Entry {
            server: server.clone(),
            message: type_name::<M>(),
        };
        let mut table = TABLE.lock();
        let number = number.unwrap_or_else(|| {
            while table.servers.contains_key(&table.next) {
                table.next += 1;
            }
            table.next += 1;
            table.next - 1
        });
        let addr = ChannelAddr::local(number).map_err(|error| ServeError::Bind {
            addr: format!("local:{number}"),
            error: std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
        })?;
        match table.servers.entry(number) {
            Slot::Occupied(_) => Err(ServeError::AddrInUse { addr }),
            Slot::Vacant(slot) => {
                slot.insert(entry);
                Ok((addr, Self { number, server }))
            }
        }
    }

    /// Serves until told to end.
    pub(crate) async fn run(self, mut control: watch::Receiver<Phase>) {
        if ending(&mut control).await == Ending::AtOnce {
            return;
        }
        let sessions = self.leave();
        for session in &sessions {
            session.close();
        }
        let deadline = Instant::now() + STOP_GRACE;
        let mut pause = Duration::from_millis(1);
        while sessions.iter().any(|session| session.is_open())
            && Instant::now() < deadline
            && control.has_changed().is_ok()
        {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        for session in sessions {
            session.ended(true);
        }
    }

    /// Takes the server out of the table; nothing new can be opened.
    fn leave(&self) -> Vec<Arc<dyn Served>> {
        let entry = {
            let mut table = TABLE.lock();
            let ours = table.servers.get(&self.number).is_some_and(|entry| {
                std::ptr::addr_eq(Arc::as_ptr(&entry.server), Arc::as_ptr(&self.server))
            });
            if ours {
                table.servers.remove(&self.number)
            } else {
                None
            }
        };
        drop(entry);
        let mut state = self.server.state.lock();
        state.closed = true;
        std::mem::take(&mut state.sessions)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

impl<M: Send + 'static> Drop for Registration<M> {
    fn drop(&mut self) {
        for session in self.leave() {
            session.ended(false);
        }
    }
}
