//! Messages in parts: how many bytes of them may be under way, and where they are cut.

use bytes::Bytes;

use super::{Gate, Lanes, Place, Waiting, is_share};
use crate::limits::{ASSEMBLIES_MAX, FRAGMENT_TOTAL_BYTES};
use crate::outbox::{Entry, Outbox};
use crate::pieces::Pieces;
use crate::{DataFlags, Label, Violation};

/// A message whose parts are all in the log: kept whole until it has its outcome.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) body: Pieces,
    first: u64,
    last: u64,
}

impl Whole {
    pub(crate) fn size(&self) -> u64 {
        self.body.size()
    }

    pub(crate) fn body(self) -> Bytes {
        self.body.joined()
    }
}

/// S-33: the bytes of messages in parts that the peer has room for.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Begun since the peer's state did; and where the connection went on.
    begun: u64,
    base: u64,
    granted: u64,
    /// The most that was ever free.
    whole: u64,
    /// Messages of which a part is in the log and the last is not.
    open: usize,
}

impl Pool {
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }

    fn free(&self) -> u64 {
        self.granted.saturating_sub(self.begun)
    }
}

impl Lanes {
    /// A connection goes on from `position`, with so much granted from there.
    pub(crate) fn resume(&mut self, position: u64, large: u64) {
        let cut = self.lanes.iter().filter_map(|lane| lane.queue.front());
        let cut = cut.filter(|message| message.at != 0);
        let cut = cut.map(|message| (message.first, message.size()));
        let wholes = self
            .wholes
            .values()
            .map(|whole| (whole.first, whole.size()));
        let behind = cut.chain(wholes).filter(|(first, _)| *first >= position);
        let behind: u64 = behind.map(|(_, size)| size).sum();
        self.pool.base = self.pool.begun.saturating_sub(behind);
        self.pool.granted = self.pool.base.saturating_add(large);
        self.pool.whole = self.pool.whole.max(large);
        self.begin_rounds();
    }

    /// The peer grants more on this connection.
    pub(crate) fn grant_large(&mut self, large: u64) -> Result<(), Violation> {
        let granted = self.pool.base.saturating_add(large);
        if granted < self.pool.granted {
            return Err(Violation::CreditShrank);
        }
        if granted > self.pool.granted {
            self.pool.granted = granted;
            self.wake_pooled();
        }
        Ok(())
    }

    fn wake_pooled(&mut self) {
        for number in std::mem::take(&mut self.pooled) {
            self.lanes[number as usize].place = Place::Large;
            self.large.push_back(number);
        }
    }

    /// Brings the next part of the next large message into the log.
    pub(super) fn serve_large(&mut self, outbox: &mut Outbox, gate: &Gate) {
        let Some(number) = self.large.pop_front() else {
            return;
        };
        let to = Label::new(number);
        let lane = &mut self.lanes[to.index()];
        let Some(message) = lane.queue.front_mut() else {
            return;
        };
        let total = message.size();
        if message.at == 0 {
            let out = lane.sent.minus(lane.released);
            let pool = &mut self.pool;
            let has_share =
                to.is_none() || out.messages == 0 || is_share(out.bytes, pool.free(), pool.whole);
            if total > pool.free() || pool.open >= ASSEMBLIES_MAX || !has_share {
                lane.place = Place::Pooled;
                self.pooled.insert(number);
                return;
            }
            pool.begun += total;
            pool.open += 1;
            message.first = outbox.next();
            if !to.is_none() {
                lane.sent.add(1, total);
            }
        }
        let Some(message) = lane.queue.front_mut() else {
            return;
        };
        let from = message.from;
        // The first part is small, so that there always is a second.
        let is_alone = message.at != 0 && self.small.is_empty() && self.large.is_empty();
        let most = gate.part_bytes(outbox, is_alone);
        let (seq, is_last) = cut(outbox, to, message, most);
        self.refer(to, seq);
        self.refer(from, seq);
        if !is_last {
            self.large.push_back(number);
            return;
        }
        self.pool.open -= 1;
        if let Some(message) = self.pop(to) {
            self.whole_bytes += message.size();
            self.spare(message.post, message.size());
            let whole = Whole {
                body: message.body,
                first: message.first,
                last: seq,
            };
            self.wholes.insert(message.post, whole);
        }
        self.go_on(to);
        self.wake_pooled();
    }

    /// Gives those to `fail` of which the peer's last state got a part, and not the last.
    pub(super) fn fail_torn(&mut self, sent: u64, fail: &mut impl FnMut(u64, Bytes)) {
        let wholes = self.wholes.iter();
        let torn: Vec<u64> = wholes
            .filter(|(_, whole)| whole.first < sent && whole.last >= sent)
            .map(|(post, _)| *post)
            .collect();
        for post in torn {
            if let Some(whole) = self.take_whole(post) {
                fail(post, whole.body());
            }
        }
        for number in 0..self.lanes.len() as u32 {
            let front = self.lanes[number as usize].queue.front();
            if front.is_some_and(|message| message.at != 0 && message.first < sent)
                && let Some(message) = self.pop(Label::new(number))
            {
                fail(message.post, message.body());
            }
        }
    }

    /// Takes those out that the peer does not take for their size: S-21.
    pub(crate) fn withdraw_larger(&mut self, max: u64, mut report: impl FnMut(u64, u64, Bytes)) {
        for number in 0..self.lanes.len() as u32 {
            let queue = &self.lanes[number as usize].queue;
            if queue.iter().all(|message| message.size() <= max) {
                continue;
            }
            let to = Label::new(number);
            let mut kept = Vec::new();
            while let Some(message) = self.pop(to) {
                if message.size() > max {
                    report(message.post, message.size(), message.body());
                } else {
                    kept.push(message);
                }
            }
            for message in kept {
                self.note_waiting(to, &message);
                self.lanes[to.index()].queue.push_back(message);
            }
        }
        self.begin_rounds();
    }

    pub(super) fn check_large(&self) {
        let open = self.lanes.iter().filter_map(|lane| lane.queue.front());
        let open = open.filter(|message| message.at != 0).count();
        assert_eq!(open, self.pool.open);
        assert!(open <= ASSEMBLIES_MAX);
        let later = self.lanes.iter().flat_map(|lane| lane.queue.iter().skip(1));
        assert!(later.into_iter().all(|message| message.at == 0));
        assert!(self.wholes.values().all(|whole| whole.first < whole.last));
    }
}

/// Cuts the next part off; returns its number and whether it is the last.
fn cut(outbox: &mut Outbox, to: Label, message: &mut Waiting, fragment: u64) -> (u64, bool) {
    let total = message.size();
    let is_first = message.at == 0;
    let total_bytes = total.to_le_bytes();
    let (before, place) = if is_first {
        (&total_bytes[..], DataFlags::FIRST)
    } else {
        (&[][..], DataFlags::MORE)
    };
    debug_assert_eq!(total_bytes.len(), FRAGMENT_TOTAL_BYTES);
    let most = (fragment as usize - before.len()).min((total - message.at) as usize);
    // Bodies that are in memory fit its addresses. Nothing is copied: a part ends where a piece of the body does.
    let rest = message.body.slice(message.at as usize, most);
    let size = rest.len() as u64;
    let is_last = message.at + size == total;
    let labels = (to, message.from);
    let (entry, flags) = if is_last {
        (
            Entry::Last(message.post),
            message.flags.with(DataFlags::LAST),
        )
    } else {
        (Entry::Part, place)
    };
    let seq = outbox.push_part(entry, flags, labels, [before, &[]], rest);
    message.at += size;
    (seq, is_last)
}
