//! The oracle: what really became of each message, and what its sender was told. Knows nothing of sessions.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::rng::mix;

/// What a message's sender was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is there.
    Delivered,
    /// It never will be.
    NotDelivered,
    /// Nobody knows.
    Unknown,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Which promise.
    pub kind: FlawKind,
    /// Where and how, for people.
    pub detail: String,
}

/// The promises, by how they are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlawKind {
    /// Told delivered, and not there.
    Lost,
    /// It came twice.
    Duplicated,
    /// It came before an earlier one of its sender.
    Reordered,
    /// Nobody sent it.
    Unexpected,
    /// It came with other bytes.
    Corrupt,
    /// It has no outcome.
    Unresolved,
    /// Told not delivered, and there; or a second outcome.
    FalseOutcome,
    /// An outcome or an end that nothing in the run gave reason for.
    Unwarranted,
    /// More was held than the limit says.
    Unbounded,
    /// A state that nobody resumes stays.
    Leftover,
    /// A lie was believed.
    Unpunished,
    /// Events without end.
    Livelock,
    /// The code under test panicked.
    Panic,
    /// The same seed took two courses.
    Nondeterministic,
}

impl fmt::Display for FlawKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Unexpected => "unexpected",
            Self::Corrupt => "corrupt",
            Self::Unresolved => "unresolved",
            Self::FalseOutcome => "false outcome",
            Self::Unwarranted => "unwarranted",
            Self::Unbounded => "unbounded",
            Self::Leftover => "leftover",
            Self::Unpunished => "unpunished",
            Self::Livelock => "livelock",
            Self::Panic => "panic",
            Self::Nondeterministic => "nondeterministic",
        })
    }
}

/// What is known of one message.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The node that posted it.
    pub origin: usize,
    size: u32,
    /// Where it goes: order is promised along one of these. Whom it is from.
    pub lane: u64,
    from: u64,
    /// Which session carried it first, and which state of a relay took it.
    pub first: u64,
    /// The relay's state, 0 without one.
    pub relay: u64,
    /// Its final receiver has answered for it.
    pub answered: bool,
    arrivals: u32,
    placed: bool,
    told: Option<Told>,
    /// Its sender's process ended before the outcome came.
    forgotten: bool,
}

impl Entry {
    /// Returns the bytes that were asked for.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Returns whom it is from.
    pub fn from(&self) -> u64 {
        self.from
    }
}

/// The messages of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    last: BTreeMap<(u64, u64, u64, u64), u64>,
    open: u64,
    /// Places that others must not wait for, and how many messages to them are open.
    apart: Vec<u64>,
    open_apart: u64,
    flaws: Vec<Flaw>,
}

/// How many flaws are kept: the first ones tell.
const FLAWS_MAX: usize = 20;
/// The least bytes of a body: the number and its check.
pub const BODY_MIN: usize = 16;

/// The bytes of a message.
pub fn body(id: u64, size: u32) -> Bytes {
    let size = (size as usize).max(BODY_MIN);
    let mut out = BytesMut::with_capacity(size);
    out.put_u64_le(id);
    out.put_u64_le(mix(id ^ size as u64));
    out.resize(size, id as u8);
    out.freeze()
}

/// The number in a message's bytes, if they are those of a message.
pub fn number(body: &[u8]) -> Option<u64> {
    let (id, rest) = body.split_first_chunk()?;
    let (check, rest) = rest.split_first_chunk()?;
    let id = u64::from_le_bytes(*id);
    let whole = u64::from_le_bytes(*check) == mix(id ^ body.len() as u64);
    (whole && rest.iter().all(|byte| *byte == id as u8)).then_some(id)
}

impl Ledger {
    /// Enters a message that was taken; its bytes are [`body`] of the number returned by [`next`](Self::next).
    pub fn post(&mut self, origin: usize, size: u32, first: u64) {
        self.post_to(origin, size, first, (0, 0));
    }

    /// The same for a message that goes to one of several places, from somebody.
    pub fn post_to(&mut self, origin: usize, size: u32, first: u64, (lane, from): (u64, u64)) {
        self.open += 1;
        self.open_apart += u64::from(self.apart.contains(&lane));
        self.entries.push(Entry {
            origin,
            size,
            lane,
            from,
            first,
            ..Entry::default()
        });
    }

    /// Returns the number of the next message.
    pub fn next(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Returns how many messages have no outcome and a sender that waits for it.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Names the places that others must not wait for. Before the first message.
    pub fn set_apart(&mut self, lanes: Vec<u64>) {
        self.apart = lanes;
    }

    /// Returns how many messages to all other places have no outcome.
    pub fn open_elsewhere(&self) -> u64 {
        self.open - self.open_apart
    }

    fn close(&mut self, lane: u64) {
        self.open -= 1;
        self.open_apart -= u64::from(self.apart.contains(&lane));
    }

    /// Returns how many messages to a place have no outcome; looks at every message.
    pub fn waiting(&self, lane: u64) -> u64 {
        let waits = |entry: &&Entry| entry.lane == lane && entry.told.is_none() && !entry.forgotten;
        self.entries.iter().filter(waits).count() as u64
    }

    /// Returns what is known of a message.
    pub fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)
    }

    /// A body came out of session state `at` at `node`; returns its number. Final or at a relay.
    pub fn arrive(&mut self, node: usize, at: u64, body: &[u8], is_final: bool) -> Option<u64> {
        let Some(id) = number(body) else {
            self.flaw(FlawKind::Corrupt, || {
                format!("{} bytes at node {node} are no message's", body.len())
            });
            return None;
        };
        let Some(entry) = self.entries.get_mut(id as usize) else {
            self.flaw(FlawKind::Unexpected, || {
                format!("message {id} at node {node}")
            });
            return None;
        };
        if entry.size.max(BODY_MIN as u32) != body.len() as u32 {
            let text = format!("message {id} came with {} bytes", body.len());
            self.flaw(FlawKind::Corrupt, || text);
            return None;
        }
        if is_final {
            entry.arrivals += 1;
        } else {
            entry.relay = at;
        }
        let again = entry.arrivals > 1;
        let relay = if is_final { entry.relay } else { 0 };
        let key = (at, entry.first, relay, entry.lane);
        if again {
            self.flaw(FlawKind::Duplicated, || {
                format!("message {id} at node {node}")
            });
        }
        // Order holds to one place along one chain of sessions; a session that failed is over, the next one is another.
        let before = self.last.insert(key, id);
        if let Some(before) = before.filter(|before| *before >= id) {
            self.flaw(FlawKind::Reordered, || {
                format!("message {id} at node {node} after {before}")
            });
        }
        Some(id)
    }

    /// A message came under the name of a place, or under a label without a name.
    pub fn is_for(&mut self, id: u64, lane: Option<u64>, from: Option<u64>) {
        let entry = self.entries.get(id as usize);
        let expected = entry.map(|entry| (Some(entry.lane), Some(entry.from)));
        if expected != Some((lane, from)) {
            self.flaw(FlawKind::Corrupt, || {
                format!(
                    "message {id} has {expected:?} as places, and came with {lane:?} and {from:?}"
                )
            });
        }
    }

    /// The final receiver put a message where it belongs.
    pub fn place(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.placed = true;
        }
    }

    /// The sender was told.
    pub fn tell(&mut self, id: u64, told: Told) {
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        let before = entry.told.replace(told);
        let (lane, waited) = (entry.lane, before.is_none() && !entry.forgotten);
        if waited {
            self.close(lane);
        }
        if let Some(before) = before {
            self.flaw(FlawKind::FalseOutcome, || {
                format!("message {id} was told {before:?}, then {told:?}")
            });
        }
    }

    /// A process ended: nobody waits any more for what it posted.
    pub fn forget(&mut self, origin: usize) {
        for id in 0..self.next() {
            if self.entries[id as usize].origin == origin {
                self.forget_one(id);
            }
        }
    }

    /// One message is forgotten with the state that held it.
    pub fn forget_one(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(id as usize)
            && entry.told.is_none()
            && !entry.forgotten
        {
            entry.forgotten = true;
            let lane = entry.lane;
            self.close(lane);
        }
    }

    /// Notes a broken promise.
    pub fn flaw(&mut self, kind: FlawKind, detail: impl FnOnce() -> String) {
        if self.flaws.len() < FLAWS_MAX {
            let detail = detail();
            self.flaws.push(Flaw { kind, detail });
        }
    }

    /// Returns whether a promise was broken so far.
    pub fn is_flawed(&self) -> bool {
        !self.flaws.is_empty()
    }

    /// Compares what was told with what is true, and returns every flaw.
    pub fn judge(mut self) -> Vec<Flaw> {
        let mut found = Vec::new();
        for (id, entry) in self.entries.iter().enumerate() {
            let (kind, what) = match (entry.told, entry.placed) {
                (None, _) if entry.forgotten => continue,
                (None, _) => (FlawKind::Unresolved, "has no outcome"),
                (Some(Told::Delivered), false) => (FlawKind::Lost, "was told delivered"),
                (Some(Told::NotDelivered), true) => {
                    (FlawKind::FalseOutcome, "was told not delivered")
                }
                _ => continue,
            };
            found.push((
                kind,
                format!("message {id} of node {} {what}", entry.origin),
            ));
        }
        for (kind, text) in found {
            self.flaw(kind, || text);
        }
        self.flaws
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.post(2, 20, 1);
        ledger.post(2, 20, 1);
        ledger
    }

    fn kinds(ledger: Ledger) -> Vec<FlawKind> {
        ledger.judge().iter().map(|flaw| flaw.kind).collect()
    }

    #[test]
    fn each_lie_has_its_name() {
        let mut lost = one();
        lost.tell(0, Told::Delivered);
        lost.place(1);
        lost.tell(1, Told::NotDelivered);
        assert_eq!(kinds(lost), [FlawKind::Lost, FlawKind::FalseOutcome]);

        let mut order = one();
        assert_eq!(order.arrive(0, 9, &body(1, 20), true), Some(1));
        assert_eq!(order.arrive(0, 9, &body(0, 20), true), Some(0));
        assert_eq!(order.arrive(0, 8, &body(0, 20), true), Some(0));
        order.arrive(0, 8, &body(7, 20), true);
        order.arrive(0, 8, b"anything", true);
        order.forget(2);
        assert_eq!(
            kinds(order),
            [
                FlawKind::Reordered,
                FlawKind::Duplicated,
                FlawKind::Unexpected,
                FlawKind::Corrupt
            ]
        );
        assert_eq!(kinds(one()), [FlawKind::Unresolved; 2]);
    }

    #[test]
    fn a_truthful_run_has_no_flaw() {
        let mut ledger = one();
        assert_eq!(ledger.arrive(0, 9, &body(0, 20), true), Some(0));
        ledger.place(0);
        ledger.tell(0, Told::Delivered);
        ledger.tell(1, Told::Unknown);
        assert_eq!(ledger.open(), 0);
        assert_eq!(kinds(ledger), []);
    }
}
