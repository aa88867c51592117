//! The sending half's labels: numbers that stand for names, told once on each connection, given to another name when
//! nothing refers to them any more.

use bytes::{Bytes, BytesMut};

use super::{Lane, Lanes};
use crate::Label;
use crate::frame::encode_name;
use crate::limits::{LABEL_BYTES_MAX, LABEL_NAME_MAX, LABELS_MAX};

impl Lanes {
    /// Returns whether the number stands for a name, or for none.
    #[inline]
    pub(crate) fn knows(&self, label: Label) -> bool {
        label.index() < self.lanes.len()
    }

    /// How many names there are, and their bytes.
    pub(crate) fn names(&self) -> (usize, usize) {
        (self.lanes.len() - 1, self.name_bytes)
    }

    /// Gives a name a number; everything below `resolved` has its outcome.
    pub(crate) fn add_label(&mut self, name: Bytes, resolved: u64) -> Option<Label> {
        if name.is_empty() || name.len() > LABEL_NAME_MAX {
            return None;
        }
        let number = self.lanes.len() as u32;
        if number <= LABELS_MAX && self.name_bytes + name.len() <= LABEL_BYTES_MAX {
            self.name_bytes += name.len();
            self.lanes.push(Lane {
                name,
                recent: true,
                ..Lane::default()
            });
            return Some(Label::new(number));
        }
        let now = (resolved, self.releases);
        if self.exhausted == Some(now) {
            return None;
        }
        if self.untold_bytes > LABEL_BYTES_MAX || self.untold.len() > LABELS_MAX as usize {
            // Names that change faster than they are told would take more and more memory.
            return None;
        }
        let found = self.idle_label(name.len(), resolved);
        let Some(number) = found else {
            self.exhausted = Some(now);
            return None;
        };
        let lane = &mut self.lanes[number];
        self.name_bytes = self.name_bytes - lane.name.len() + name.len();
        lane.name = name;
        lane.recent = true;
        let label = Label::new(number as u32);
        // S-29: a number that has a name at the peer gets its new one there in the order in which it did here, also a
        // name that it does not keep: so the names there are never more than the names were here.
        if lane.announced {
            self.announce(label.number());
        }
        Some(label)
    }

    /// Looks for a label that nothing refers to, and that was not used since the last time it was looked at.
    fn idle_label(&mut self, length: usize, resolved: u64) -> Option<usize> {
        let count = self.lanes.len();
        for _ in 0..2 * count {
            self.hand = self.hand % count + 1;
            if self.hand == count {
                continue;
            }
            let lane = &mut self.lanes[self.hand];
            let is_idle =
                lane.referred <= resolved && lane.waiting_refs == 0 && lane.sent == lane.released;
            let fits = self.name_bytes - lane.name.len() + length <= LABEL_BYTES_MAX;
            if is_idle && fits && !std::mem::take(&mut lane.recent) {
                return Some(self.hand);
            }
        }
        None
    }

    /// The name must be told before what uses it.
    pub(super) fn announce(&mut self, number: u32) {
        let lane = &mut self.lanes[number as usize];
        lane.announced = true;
        self.untold_bytes += lane.name.len();
        self.untold
            .push_back((Label::new(number), lane.name.clone()));
    }

    /// A new connection knows no names: those that something refers to are told again.
    pub(crate) fn forget_announced(&mut self, resolved: u64) {
        self.untold.clear();
        self.untold_bytes = 0;
        for number in 1..self.lanes.len() as u32 {
            let lane = &mut self.lanes[number as usize];
            lane.announced = false;
            if lane.referred > resolved || lane.waiting_refs != 0 {
                self.announce(number);
            }
        }
    }

    pub(crate) fn has_names(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Writes names until `out` has `max` bytes.
    pub(crate) fn write_names(&mut self, out: &mut BytesMut, max: usize) {
        while out.len() < max
            && let Some((label, name)) = self.untold.pop_front()
        {
            self.untold_bytes -= name.len();
            encode_name(out, label, &name);
        }
    }
}
