//! What the suites of this crate share: the transports, messages with a number, a ledger of outcomes, waiting for a
//! condition. Nothing here knows how a channel works.
#![allow(dead_code, unreachable_pub, reason = "each suite uses a part of it")]

pub mod named;
pub mod proxy;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyperactor_channel::{
    Accept, Completion, Deliver, Failure, Ignore, Inbound, Outbound, Peer, Ticket, Verdict,
};
use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// The longest that anything in a test may take before it counts as stuck.
pub const STUCK: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Local,
    UnixPath,
    UnixAbstract,
    Tcp,
}

/// A place to bind, and the directory it may need.
pub struct Place {
    pub bind: BindSpec,
    _dir: Option<TempDir>,
}

impl Kind {
    pub fn is_stream(self) -> bool {
        self != Self::Local
    }

    pub fn place(self) -> Place {
        match self {
            Self::Local => Place {
                bind: ChannelTransport::Local.into(),
                _dir: None,
            },
            Self::UnixAbstract => Place {
                bind: ChannelTransport::Unix.into(),
                _dir: None,
            },
            Self::Tcp => Place {
                bind: ChannelTransport::Tcp.into(),
                _dir: None,
            },
            Self::UnixPath => {
                let dir = tempfile::tempdir().unwrap();
                let addr = ChannelAddr::unix_path(dir.path().join("s")).unwrap();
                Place {
                    bind: addr.into(),
                    _dir: Some(dir),
                }
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub id: u64,
    pub body: Bytes,
    pub poison: Poison,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {} bytes)", self.id, self.body.len())
    }
}

impl Message {
    pub fn new(id: u64) -> Self {
        Self {
            id,
            body: Bytes::new(),
            poison: Poison::None,
        }
    }

    pub fn sized(id: u64, bytes: usize) -> Self {
        // A pattern that depends on the place, so that a shifted copy is seen.
        let body: Vec<u8> = (0..bytes).map(|at| (at as u64 ^ id) as u8).collect();
        Self {
            id,
            body: body.into(),
            poison: Poison::None,
        }
    }

    pub fn poisoned(id: u64, poison: Poison) -> Self {
        Self {
            id,
            body: Bytes::new(),
            poison,
        }
    }
}

/// What a message does to whoever encodes or decodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    None,
    FailsToEncode,
    PanicsInEncode,
    FailsToDecode,
}

impl Serialize for Poison {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_u8(0),
            Self::FailsToDecode => serializer.serialize_u8(1),
            Self::FailsToEncode => Err(serde::ser::Error::custom("poison")),
            Self::PanicsInEncode => panic!("poison"),
        }
    }
}

impl<'de> Deserialize<'de> for Poison {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::None),
            _ => Err(serde::de::Error::custom("poison")),
        }
    }
}

/// What a ledger knows of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Posted,
    Delivered,
    /// A failure, and whether the message came back with it.
    Failed(Failure, bool),
    /// The completion was dropped without a call: never right.
    Forgotten,
    /// It was called more than once: never right.
    Twice,
}

/// Every message that was posted, and what its completion heard.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<u64, Entry>>>);

/// The completion of one message, writing into a ledger.
pub struct Line {
    id: u64,
    ledger: Ledger,
    called: bool,
    wants_outcome: bool,
}

impl Ledger {
    pub fn line(&self, id: u64) -> Line {
        assert!(
            self.0.lock().insert(id, Entry::Posted).is_none(),
            "{id} is used twice"
        );
        Line {
            id,
            ledger: self.clone(),
            called: false,
            wants_outcome: false,
        }
    }

    pub fn urgent(&self, id: u64) -> Line {
        let mut line = self.line(id);
        line.wants_outcome = true;
        line
    }

    pub fn of(&self, id: u64) -> Entry {
        self.0.lock()[&id].clone()
    }

    pub fn entries(&self) -> Vec<(u64, Entry)> {
        self.0
            .lock()
            .iter()
            .map(|(id, entry)| (*id, entry.clone()))
            .collect()
    }

    pub fn count(&self, test: impl Fn(&Entry) -> bool) -> usize {
        self.0.lock().values().filter(|entry| test(entry)).count()
    }

    pub fn open(&self) -> usize {
        self.count(|entry| *entry == Entry::Posted)
    }

    pub async fn all_settled(&self) {
        eventually("every message has an outcome", || self.open() == 0).await;
        assert_eq!(
            self.count(|entry| matches!(entry, Entry::Forgotten | Entry::Twice)),
            0
        );
    }

    fn write(&self, id: u64, entry: Entry) {
        let mut lines = self.0.lock();
        let line = lines.get_mut(&id).unwrap();
        *line = if *line == Entry::Posted {
            entry
        } else {
            Entry::Twice
        };
    }
}

impl Line {
    /// The message was not taken: the line is struck out.
    pub fn forget(mut self) {
        self.called = true;
        self.ledger.0.lock().remove(&self.id);
    }
}

impl Completion<Message> for Line {
    fn delivered(mut self) {
        self.called = true;
        self.ledger.write(self.id, Entry::Delivered);
    }

    fn undelivered(mut self, message: Message, failure: Failure) {
        self.called = true;
        assert_eq!(message.id, self.id, "another message came back");
        self.ledger.write(self.id, Entry::Failed(failure, true));
    }

    fn lost(mut self, failure: Failure) {
        self.called = true;
        self.ledger.write(self.id, Entry::Failed(failure, false));
    }

    fn wants_outcome(&self) -> bool {
        self.wants_outcome
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.called {
            self.ledger.write(self.id, Entry::Forgotten);
        }
    }
}

/// Waits until a condition holds, for as long as nothing else can tell.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(STUCK, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "stuck: {what}");
}

/// Runs a part of a test that must come to an end.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(STUCK, future).await {
        Ok(value) => value,
        Err(_) => panic!("stuck: {what}"),
    }
}

/// A receiver that keeps what it gets, and lets a test settle and release when it likes.
#[derive(Clone, Default)]
pub struct Keeper(Arc<Mutex<Kept>>);

#[derive(Default)]
pub struct Kept {
    pub messages: Vec<(Message, Ticket, Inbound)>,
    pub sessions: usize,
    pub closed: usize,
    pub peers: Vec<Peer>,
    /// Messages whose senders wait for the outcome.
    pub awaited: Vec<u64>,
}

impl Keeper {
    pub fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.0.lock())
    }

    pub fn len(&self) -> usize {
        self.with(|kept| kept.messages.len())
    }
}

impl Keeper {
    /// A session that this keeps the messages of.
    pub fn session(&self, peer: Peer, inbound: Inbound) -> KeeperSession {
        self.with(|kept| {
            kept.sessions += 1;
            kept.peers.push(peer);
        });
        KeeperSession {
            keeper: self.clone(),
            inbound,
        }
    }
}

impl Accept<Message> for Keeper {
    type Session = KeeperSession;
    type Completion = Ignore;

    fn open(&self, peer: Peer, inbound: Inbound, _: Outbound<Message, Ignore>) -> KeeperSession {
        self.session(peer, inbound)
    }
}

pub struct KeeperSession {
    keeper: Keeper,
    inbound: Inbound,
}

impl Deliver<Message> for KeeperSession {
    fn deliver(&mut self, message: Message, ticket: Ticket) {
        let inbound = self.inbound.clone();
        self.keeper
            .with(|kept| kept.messages.push((message, ticket, inbound)));
    }

    fn deliver_awaited(&mut self, message: Message, ticket: Ticket) {
        self.keeper.with(|kept| kept.awaited.push(message.id));
        self.deliver(message, ticket);
    }

    fn closed(&mut self) {
        self.keeper.with(|kept| kept.closed += 1);
    }
}

/// A receiver that places every message at once and never lets go of its credit until told.
pub fn settle_delivered(kept: &(Message, Ticket, Inbound)) {
    kept.2.settle(kept.1, Verdict::Delivered);
}
