//! The messages of an in-process channel that wait to be handed over, by destination, and what each destination may hold.
//!
//! A destination may hold the free part of what is free, by the rule of sessions over a byte stream: one that is stuck
//! keeps 38 % of the window, and k of them leave about 1/(k+1) to those that take, in whatever order they got stuck. The
//! same rule bounds what may wait. Messages without a destination know no such share.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::Capacity;
use crate::limits::{LOCAL_DESTINATIONS_MAX, LOCAL_LANE_TURN_MESSAGES};

/// A message on its way, with its number and its destination's.
pub(super) struct Waiting<M> {
    pub(super) seq: u64,
    pub(super) to: u32,
    pub(super) message: M,
    pub(super) is_awaited: bool,
}

struct Lane<M, N> {
    name: Option<N>,
    queue: VecDeque<Waiting<M>>,
    /// Handed over and not released.
    outstanding: u64,
    capacity: Capacity,
    /// A message was refused since there was room last.
    is_refused: bool,
}

/// Whether this much is less than a share of `whole` while `free` of it is free.
fn is_share(held: u64, free: u64, whole: u64) -> bool {
    let free = u128::from(free);
    free > 0 && (held == 0 || u128::from(held) * u128::from(whole) < free * free)
}

impl<M, N> Lane<M, N> {
    fn new(name: Option<N>, capacity: Capacity) -> Self {
        Self {
            name,
            queue: VecDeque::new(),
            outstanding: 0,
            capacity,
            is_refused: false,
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.outstanding == 0 && !self.is_refused
    }
}

pub(super) struct Lanes<M, N> {
    /// By the number of the destination; the first is that of messages without one.
    lanes: Vec<Lane<M, N>>,
    numbers: HashMap<N, u32>,
    /// Numbers whose destination was forgotten.
    vacant: Vec<u32>,
    /// Lanes in which something waits, in the order of their turns.
    turns: VecDeque<u32>,
    refused: Vec<u32>,
    outstanding: u64,
    window: u64,
}

impl<M, N: Clone + Eq + Hash> Lanes<M, N> {
    /// `capacity` is that of messages without a destination.
    pub(super) fn new(capacity: Capacity) -> Self {
        Self {
            lanes: vec![Lane::new(None, capacity)],
            numbers: HashMap::new(),
            vacant: Vec::new(),
            turns: VecDeque::new(),
            refused: Vec::new(),
            outstanding: 0,
            window: 0,
        }
    }

    /// The number of a destination, given to it if it has none; none when all are in use.
    pub(super) fn number(&mut self, name: Option<&N>) -> Option<u32> {
        let Some(name) = name else { return Some(0) };
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        if self.numbers.len() >= LOCAL_DESTINATIONS_MAX {
            self.forget_idle();
        }
        let lane = Lane::new(Some(name.clone()), Capacity::new());
        let number = match self.vacant.pop() {
            Some(number) => {
                self.lanes[number as usize] = lane;
                number
            }
            None if self.numbers.len() >= LOCAL_DESTINATIONS_MAX => return None,
            None => {
                self.lanes.push(lane);
                u32::try_from(self.lanes.len() - 1).ok()?
            }
        };
        self.numbers.insert(name.clone(), number);
        Some(number)
    }

    fn forget_idle(&mut self) {
        let lanes = &mut self.lanes;
        let vacant = &mut self.vacant;
        self.numbers.retain(|_, number| {
            let lane = &mut lanes[*number as usize];
            let is_idle = lane.is_idle();
            if is_idle {
                lane.name = None;
                vacant.push(*number);
            }
            !is_idle
        });
    }

    /// Whether a message may wait here, with so much room of so much in all.
    pub(super) fn takes(&self, to: u32, room: usize, outbox: usize) -> bool {
        let waiting = self.lanes[to as usize].queue.len();
        room > 0 && (to == 0 || is_share(waiting as u64, room as u64, outbox as u64))
    }

    /// A message found no room: its sender is told when there is.
    pub(super) fn refuse(&mut self, to: u32) {
        let lane = &mut self.lanes[to as usize];
        lane.capacity.set(false);
        if !std::mem::replace(&mut lane.is_refused, true) {
            self.refused.push(to);
        }
    }

    pub(super) fn capacity(&self, to: u32) -> Capacity {
        self.lanes[to as usize].capacity.clone()
    }

    pub(super) fn push(&mut self, waiting: Waiting<M>) {
        let to = waiting.to;
        let lane = &mut self.lanes[to as usize];
        if lane.queue.is_empty() {
            self.turns.push_back(to);
        }
        lane.queue.push_back(waiting);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn may_hand(&self, to: u32) -> bool {
        let free = self.window.saturating_sub(self.outstanding);
        let held = self.lanes[to as usize].outstanding;
        free > 0 && (to == 0 || is_share(held, free, self.window))
    }

    /// Whether something can be handed over.
    pub(super) fn is_ready(&self) -> bool {
        self.outstanding < self.window && self.turns.iter().any(|to| self.may_hand(*to))
    }

    /// Takes out what is to be handed over next, each destination in its turn.
    pub(super) fn next(&mut self, max: usize) -> VecDeque<Waiting<M>> {
        let mut batch = VecDeque::new();
        let mut passed = 0;
        while batch.len() < max && passed < self.turns.len() {
            let Some(to) = self.turns.pop_front() else {
                break;
            };
            let before = batch.len();
            while batch.len() < max
                && batch.len() - before < LOCAL_LANE_TURN_MESSAGES
                && self.may_hand(to)
            {
                let lane = &mut self.lanes[to as usize];
                let Some(waiting) = lane.queue.pop_front() else {
                    break;
                };
                lane.outstanding += 1;
                self.outstanding += 1;
                batch.push_back(waiting);
            }
            passed = if batch.len() == before { passed + 1 } else { 0 };
            if !self.lanes[to as usize].queue.is_empty() {
                self.turns.push_back(to);
            }
        }
        batch
    }

    /// Messages for a destination left their queue.
    pub(super) fn release(&mut self, to: u32, messages: u64) {
        if let Some(lane) = self.lanes.get_mut(to as usize) {
            let released = lane.outstanding.min(messages);
            lane.outstanding -= released;
            self.outstanding -= released;
        }
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&mut self) -> Vec<Waiting<M>> {
        let mut all = Vec::new();
        for to in std::mem::take(&mut self.turns) {
            all.extend(self.lanes[to as usize].queue.drain(..));
        }
        // In the order posted, whomever they were for.
        all.sort_by_key(|waiting| waiting.seq);
        all
    }

    /// Another session begins: nothing is outstanding in it.
    pub(super) fn restart(&mut self, window: u64) {
        self.window = window;
        self.outstanding = 0;
        for lane in &mut self.lanes {
            lane.outstanding = 0;
        }
    }

    /// Tells those that were refused and would have room by now.
    pub(super) fn offer_room(&mut self, room: usize, outbox: usize) {
        let mut refused = std::mem::take(&mut self.refused);
        refused.retain(|to| {
            let lane = &mut self.lanes[*to as usize];
            // Not for the sake of a single message, if more is to come.
            let more = 2 * lane.queue.len() as u64;
            let is_ample = room > 0 && (*to == 0 || is_share(more, room as u64, outbox as u64));
            if is_ample {
                lane.is_refused = false;
                lane.capacity.set(true);
            }
            !is_ample
        });
        self.refused = refused;
    }

    /// Nothing is taken any more, and everybody who waits shall learn of it.
    pub(super) fn open_all(&mut self) {
        self.offer_room(usize::MAX, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(window: u64) -> Lanes<(), &'static str> {
        let mut lanes = Lanes::new(Capacity::new());
        lanes.restart(window);
        lanes
    }

    fn push(lanes: &mut Lanes<(), &'static str>, name: &'static str, seqs: std::ops::Range<u64>) {
        let to = lanes.number(Some(&name)).unwrap();
        for seq in seqs {
            lanes.push(Waiting {
                seq,
                to,
                message: (),
                is_awaited: false,
            });
        }
    }

    fn hand_all(lanes: &mut Lanes<(), &'static str>) -> Vec<u64> {
        let mut seqs = Vec::new();
        loop {
            let batch = lanes.next(64);
            if batch.is_empty() {
                return seqs;
            }
            seqs.extend(batch.into_iter().map(|waiting| waiting.seq));
        }
    }

    #[test]
    fn destinations_that_never_take_leave_the_window_to_those_that_do() {
        const STUCK: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        let mut lanes = lanes(1000);
        let mut held = 0;
        for (at, name) in STUCK.into_iter().enumerate() {
            push(&mut lanes, name, 0..1000);
            held += hand_all(&mut lanes).len();
            // One after the other: about 1/(k+1) is left.
            assert!(1000 - held >= 900 / (at + 2), "{at} of them hold {held}");
        }
        // The next one goes on as it takes.
        push(&mut lanes, "other", 200..400);
        let to = lanes.number(Some(&"other")).unwrap();
        let mut seen = 0;
        while seen < 200 {
            let handed = hand_all(&mut lanes);
            assert!(!handed.is_empty(), "stalled after {seen}");
            seen += handed.len();
            lanes.release(to, handed.len() as u64);
        }
    }

    #[test]
    fn what_waits_is_taken_in_turns_and_keeps_its_order() {
        let mut lanes = lanes(10_000);
        push(&mut lanes, "a", 0..100);
        push(&mut lanes, "b", 100..200);
        let handed = hand_all(&mut lanes);
        let of = |range: std::ops::Range<u64>| {
            let part: Vec<u64> = handed
                .iter()
                .copied()
                .filter(|seq| range.contains(seq))
                .collect();
            assert_eq!(part, range.collect::<Vec<_>>());
        };
        of(0..100);
        of(100..200);
        let first_b = handed.iter().position(|seq| *seq >= 100).unwrap();
        assert!(first_b <= LOCAL_LANE_TURN_MESSAGES);
    }

    #[test]
    fn a_full_lane_says_so_and_tells_when_it_has_room() {
        let mut lanes = lanes(100);
        push(&mut lanes, "a", 0..8);
        let to = lanes.number(Some(&"a")).unwrap();
        assert!(!lanes.takes(to, 8, 16));
        assert!(lanes.takes(0, 8, 16));
        lanes.refuse(to);
        let capacity = lanes.capacity(to);
        assert!(!capacity.has_room());
        hand_all(&mut lanes);
        lanes.offer_room(8, 16);
        assert!(capacity.has_room());
    }
}
