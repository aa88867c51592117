//! Whose turn it is: the lanes that wait enter the log one message, or one part, after the other, in rings.

use super::{Amount, Lanes, Place, Waiting, free_of};
use crate::Label;
use crate::limits::{FRAGMENTS_AHEAD_BYTES, SHARED_BODY_BYTES};
use crate::outbox::{Credit, Entry, Outbox, TakenBack};
use crate::pieces::Pieces;

/// How far the peer and the connection let messages enter the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    pub(crate) credit: Credit,
    /// Parts enter only over a connection.
    pub(crate) is_connected: bool,
    /// The largest message in one frame, and the largest part of others that wait side by side, bytes.
    pub(crate) fragment: u64,
    /// The largest part of a message beside which nothing waits, bytes.
    pub(crate) part: u64,
}

impl Gate {
    /// S-34: parts enter the log only as fast as they are written, so that what comes behind them waits for little of
    /// them. Other messages do not count: a flood of those would keep parts out for ever.
    fn lets_parts(&self, outbox: &Outbox) -> bool {
        self.is_connected && outbox.unwritten_parts() < FRAGMENTS_AHEAD_BYTES
    }

    /// Whether a part as large as may be fits, of a message of which `rest` is left.
    fn has_large_room(&self, outbox: &Outbox, rest: u64) -> bool {
        let unwritten = outbox.unwritten_parts();
        unwritten == 0 || unwritten.saturating_add(self.part.min(rest)) <= FRAGMENTS_AHEAD_BYTES
    }

    /// S-34: how large the next part may be, so that no more of them wait than may.
    pub(super) fn part_bytes(&self, outbox: &Outbox, is_alone: bool) -> u64 {
        if !is_alone {
            return self.fragment;
        }
        let left = FRAGMENTS_AHEAD_BYTES.saturating_sub(outbox.unwritten_parts());
        self.part.min(left).max(self.fragment)
    }
}

impl Lanes {
    /// Brings into the log what may enter it.
    pub(crate) fn serve(&mut self, outbox: &mut Outbox, gate: &Gate) {
        self.wake_blocked(free_of(gate.credit, outbox));
        while !(self.small.is_empty() && self.large.is_empty()) {
            let free = free_of(gate.credit, outbox);
            if !free.is_open() || !outbox.has_span() {
                return;
            }
            let large_can = self.large_can(outbox, gate);
            // Turn by turn, so that neither kind starves the other of credit that comes in drops.
            if large_can && (self.large_turn || self.small.is_empty()) {
                self.large_turn = false;
                self.serve_large(outbox, gate);
            } else if !self.small.is_empty() {
                self.large_turn = true;
                self.serve_small(outbox, gate, free);
            } else {
                return;
            }
        }
    }

    /// Whether a part may enter now. Where nothing else waits it is not cut before there is room for a large one: cut to what was
    /// handed out just before, parts would stay as small as the first of them.
    fn large_can(&self, outbox: &Outbox, gate: &Gate) -> bool {
        let Some(number) = self.large.front() else {
            return false;
        };
        if !gate.lets_parts(outbox) {
            return false;
        }
        let is_alone = self.small.is_empty() && self.large.len() == 1;
        let begun = self.lanes[*number as usize].queue.front();
        let begun = begun.filter(|message| message.at != 0);
        match begun {
            Some(message) if is_alone => gate.has_large_room(outbox, message.size() - message.at),
            _ => true,
        }
    }

    /// Puts those back into the rings that have a share by now.
    fn wake_blocked(&mut self, free: Amount) {
        let (wake_at, window) = (self.wake, self.window);
        let worth = wake_at.messages == 0 || wake_at.is_share(free, window);
        let is_more = free.messages > self.looked.messages || free.bytes > self.looked.bytes;
        if self.blocked.is_empty() || !worth || !is_more {
            return;
        }
        self.wake = Amount::MOST;
        self.looked = free;
        let (lanes, small, wake) = (&mut self.lanes, &mut self.small, &mut self.wake);
        self.blocked.retain(|number| {
            let lane = &mut lanes[*number as usize];
            if lane.has_share(free, window) {
                lane.place = Place::Small;
                small.push_back(*number);
                return false;
            }
            wake.lower(lane.sent.minus(lane.released));
            true
        });
    }

    fn serve_small(&mut self, outbox: &mut Outbox, gate: &Gate, free: Amount) {
        let Some(number) = self.small.pop_front() else {
            return;
        };
        let to = Label::new(number);
        let lane = &mut self.lanes[to.index()];
        let is_large = lane
            .queue
            .front()
            .is_some_and(|message| message.size() > gate.fragment);
        if is_large {
            lane.place = Place::Large;
            self.large.push_back(number);
            return;
        }
        if !to.is_none() && !lane.has_share(free, self.window) {
            lane.place = Place::Blocked;
            self.wake.lower(lane.sent.minus(lane.released));
            self.looked.lower(free);
            self.blocked.insert(number);
            return;
        }
        if let Some(message) = self.pop(to) {
            self.enter(outbox, to, message);
        }
        self.go_on(to);
    }

    /// The lane waits on, or is done.
    pub(super) fn go_on(&mut self, to: Label) {
        let lane = &mut self.lanes[to.index()];
        if lane.queue.is_empty() {
            lane.place = Place::Idle;
        } else {
            lane.place = Place::Small;
            self.small.push_back(to.number());
        }
    }

    fn enter(&mut self, outbox: &mut Outbox, to: Label, message: Waiting) {
        let size = message.size();
        let Waiting {
            post,
            flags,
            from,
            body,
            ..
        } = message;
        let (mut head, mut shared) = body.into_two();
        if head.len() >= SHARED_BODY_BYTES && shared.is_empty() {
            std::mem::swap(&mut head, &mut shared);
        }
        let labels = (to, from);
        let entry = Entry::Whole(post);
        let seq = if shared.len() < SHARED_BODY_BYTES {
            outbox.push_part(entry, flags, labels, [&head, &shared], bytes::Bytes::new())
        } else {
            outbox.push_part(entry, flags, labels, [&head, &[]], shared)
        };
        self.logged(to, from, seq, size);
    }

    /// The peer's state is new: everything below `sent` has its outcome, and the rest begins anew in the order it was
    /// posted, under the new peer's limits. Messages of which a part was sent are given to `fail`: they never will be
    /// whole.
    pub(crate) fn begin_anew(
        &mut self,
        outbox: &mut Outbox,
        mut fail: impl FnMut(u64, bytes::Bytes),
    ) {
        let sent = outbox.sent();
        self.fail_torn(sent, &mut fail);
        let taken = outbox.take_back();
        for lane in &mut self.lanes {
            lane.sent = Amount::default();
            lane.released = Amount::default();
            if let Some(message) = lane.queue.front_mut() {
                message.at = 0;
            }
        }
        self.pool.begin_anew();
        for frame in taken.into_iter().rev() {
            self.give_back(frame);
        }
        self.begin_rounds();
    }

    /// Puts what a frame of the log stood for in front of its lane.
    fn give_back(&mut self, frame: TakenBack) {
        let TakenBack {
            flags,
            to,
            from,
            head,
            rest,
            entry,
        } = frame;
        let mut body = Pieces::new(head, rest);
        let post = match entry {
            Entry::Whole(post) => post,
            // One that is not kept any more was torn, and has its outcome.
            Entry::Last(post) => match self.take_whole(post) {
                Some(whole) => {
                    body = whole.body;
                    post
                }
                // P18 is a deliberate fault for the test of the simulator's oracle: its last part goes on alone.
                None if cfg!(planted = "P18") => post,
                None => return,
            },
            Entry::Part => return,
        };
        let message = Waiting {
            post,
            flags: flags.of_message(),
            from,
            body,
            at: 0,
            first: 0,
        };
        self.note_waiting(to, &message);
        self.lanes[to.index()].queue.push_front(message);
    }

    /// Gives every lane that waits a place in the rings.
    pub(super) fn begin_rounds(&mut self) {
        self.small.clear();
        self.large.clear();
        self.blocked.clear();
        self.pooled.clear();
        self.wake = Amount::MOST;
        for number in 0..self.lanes.len() as u32 {
            self.go_on(Label::new(number));
        }
    }

    /// Asserts that nothing waits that could go on.
    pub(super) fn check_served(&self, gate: &Gate, outbox: &Outbox) {
        let free = free_of(gate.credit, outbox);
        if !free.is_open() || !outbox.has_span() {
            return;
        }
        assert!(self.small.is_empty(), "lanes wait although there is credit");
        assert!(
            !self.large_can(outbox, gate),
            "parts wait although there is credit"
        );
        for number in &self.blocked {
            let lane = &self.lanes[*number as usize];
            assert!(
                !lane.has_share(free, self.window),
                "lane {number} waits although it has a share"
            );
        }
    }
}
