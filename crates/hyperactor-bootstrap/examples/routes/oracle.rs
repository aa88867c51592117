//! The oracle of one sender's messages to one sibling: it stands where they enter the relay and where they arrive straight,
//! and sees that at no moment both ways have some without an outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperactor_mailbox::{
    BoxFuture, Failure, FlushError, Lease, MailboxSender, MessageEnvelope, ReturnHandle,
    ReturnSink, Token, Undeliverable,
};
use parking_lot::Mutex;

use crate::gate::Gate;

/// A way from one proc to its sibling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Relay,
    Straight,
}

/// Messages of one direction: how many were posted, and how many of them have an outcome.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) posted: AtomicU64,
    pub(crate) resolved: AtomicU64,
}

impl Tally {
    pub(crate) fn under_way(&self) -> u64 {
        let resolved = self.resolved.load(Ordering::Relaxed);
        self.posted.load(Ordering::Relaxed).saturating_sub(resolved)
    }
}

/// What one direction's oracles saw, summed over the lives of its sender.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Changes of the way with other messages under way.
    pub(crate) to_straight: u64,
    pub(crate) to_relay: u64,
    /// Changes without.
    pub(crate) quiet: u64,
    pub(crate) relayed: u64,
    pub(crate) straight: u64,
    pub(crate) violations: u64,
}

/// Watches the messages of one life of a proc to one sibling.
#[derive(Debug)]
pub(crate) struct Oracle {
    name: String,
    tally: Arc<Tally>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Handed to the host, and the forwarder was not told what became of them.
    in_relay: u64,
    /// Arrived straight, and not settled there yet.
    in_straight: u64,
    last: Option<Way>,
    seen: Seen,
}

impl Oracle {
    pub(crate) fn new(name: String, tally: Arc<Tally>) -> Arc<Self> {
        Arc::new(Self {
            name,
            tally,
            state: Mutex::default(),
        })
    }

    /// The way on which a message was seen last.
    pub(crate) fn last(&self) -> Option<Way> {
        self.state.lock().last
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state.lock().seen
    }

    /// Messages without an outcome, as far as they are seen here.
    pub(crate) fn open(&self) -> u64 {
        let state = self.state.lock();
        state.in_relay + state.in_straight
    }

    /// Notes a message on one way; there must be none on the other.
    fn enters(self: &Arc<Self>, way: Way, handle: ReturnHandle) -> ReturnHandle {
        let under_way = self.tally.under_way();
        let mut state = self.state.lock();
        let State {
            in_relay,
            in_straight,
            last,
            seen,
        } = &mut *state;
        let (here, other, count) = match way {
            Way::Relay => (in_relay, &*in_straight, &mut seen.relayed),
            Way::Straight => (in_straight, &*in_relay, &mut seen.straight),
        };
        *here += 1;
        *count += 1;
        if *other > 0 {
            seen.violations += 1;
            if seen.violations <= 3 {
                println!(
                    "  {}: a message on the way {way:?} while {other} on the other one have no outcome",
                    self.name
                );
            }
        }
        if last.replace(way).is_some_and(|last| last != way) {
            let changes = match way {
                // The message that is seen here is one of those under way.
                _ if under_way < 2 => &mut seen.quiet,
                Way::Relay => &mut seen.to_relay,
                Way::Straight => &mut seen.to_straight,
            };
            *changes += 1;
        }
        drop(state);
        let counted = Counted {
            oracle: Arc::clone(self),
            way,
            is_leased: handle.is_leased(),
            is_awaited: handle.wants_outcome(),
            handle: Mutex::new(Some(handle)),
            lease: Mutex::new(None),
        };
        ReturnHandle::new(Arc::new(counted), Token::default())
    }

    fn leaves(&self, way: Way) {
        let mut state = self.state.lock();
        match way {
            Way::Relay => state.in_relay -= 1,
            Way::Straight => state.in_straight -= 1,
        }
    }
}

/// Tells the oracle of an outcome before whoever decides about routes hears of it.
struct Counted {
    oracle: Arc<Oracle>,
    way: Way,
    is_leased: bool,
    is_awaited: bool,
    handle: Mutex<Option<ReturnHandle>>,
    lease: Mutex<Option<Lease>>,
}

impl Counted {
    fn settle(&self) -> Option<ReturnHandle> {
        self.oracle.leaves(self.way);
        self.handle.lock().take()
    }
}

impl ReturnSink for Counted {
    fn delivered(&self, _: Token) {
        let lease = self.settle().map(ReturnHandle::delivered);
        *self.lease.lock() = lease;
    }

    fn undelivered(&self, _: Token, report: Undeliverable) {
        if let Some(handle) = self.settle() {
            handle.report(report);
        }
    }

    fn abandoned(&self, _: Token) {
        drop(self.settle());
    }

    fn lost(&self, _: Token, failure: Failure) {
        if let Some(handle) = self.settle() {
            handle.lost(failure);
        }
    }

    fn released(&self, _: Token) {
        let lease = self.lease.lock().take();
        drop(lease);
    }

    fn wants_release(&self) -> bool {
        self.is_leased
    }

    fn wants_outcome(&self) -> bool {
        self.is_awaited
    }
}

/// The backend sender of a forwarder, under the oracle's eyes.
#[derive(Clone)]
pub(crate) struct IntoRelay<S> {
    pub(crate) inner: S,
    pub(crate) oracle: Arc<Oracle>,
}

impl<S: MailboxSender> MailboxSender for IntoRelay<S> {
    fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        let handle = self.oracle.enters(Way::Relay, handle);
        self.inner.post_unchecked(envelope, handle);
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        self.inner.flush()
    }
}

/// What stands behind a socket that is reached straight: finds the oracle of each message's sender, by its life.
#[derive(Clone)]
pub(crate) struct FromSocket {
    pub(crate) gate: Gate,
    pub(crate) oracles: Oracles,
}

impl MailboxSender for FromSocket {
    fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        if self.gate.is_closed() {
            // Read after the end: it will not be placed, and the dropped handle says that nobody knows.
            return drop(handle);
        }
        let oracle = self.oracles.of(envelope.sender().name());
        let handle = oracle.enters(Way::Straight, handle);
        self.gate.post_unchecked(envelope, handle);
    }
}

/// The oracles of one direction, one for each life of the sending proc. The names of its senders begin with the life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracles(Arc<Mutex<Vec<Arc<Oracle>>>>);

impl Oracles {
    /// Takes in the next life's.
    pub(crate) fn add(&self, oracle: Arc<Oracle>) {
        self.0.lock().push(oracle);
    }

    pub(crate) fn present(&self) -> Arc<Oracle> {
        let oracles = self.0.lock();
        Arc::clone(oracles.last().expect("a life has begun"))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Oracle>> {
        self.0.lock().clone()
    }

    fn of(&self, sender: &str) -> Arc<Oracle> {
        let life = sender.split('-').find_map(|part| part.parse().ok());
        let oracles = self.0.lock();
        let oracle = life.and_then(|life: usize| oracles.get(life));
        Arc::clone(oracle.expect("senders are named by their life"))
    }
}
