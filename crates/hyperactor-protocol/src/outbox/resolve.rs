//! Outcomes come in: in order, which costs next to nothing, or one by one. Memory goes back as soon as it can.

use bytes::Bytes;

use super::Outbox;
use super::posts::Entry;
use crate::limits::{SEGMENT_BYTES, SPARE_BUFFERS};

impl Outbox {
    /// Returns whether the message still waits for its outcome.
    pub(crate) fn is_unresolved(&self, seq: u64) -> bool {
        seq >= self.resolved && seq < self.next && !self.marks.contains(seq)
    }

    /// The first number from `seq` on that waits for its outcome, or was not given yet.
    pub(crate) fn first_unresolved(&self, seq: u64) -> u64 {
        self.marks.first_absent(seq.max(self.resolved))
    }

    /// Resolves everything below `below`, and reports what was unresolved, run by run.
    pub(crate) fn resolve_below(&mut self, below: u64, mut report: impl FnMut(Entry, u64)) {
        let mut at = self.resolved;
        while at < below {
            let end = self.marks.first_present(at, below);
            self.posts.each(at, end, &mut report);
            at = self.marks.first_absent(end);
        }
        if below > self.resolved {
            self.resolved = self.marks.first_absent(below);
            self.marks.forget_below(self.resolved);
            self.posts.forget_below(self.resolved);
            self.drop_resolved();
        }
    }

    /// Resolves one message, which is unresolved.
    pub(crate) fn resolve_one(&mut self, seq: u64) {
        if seq == self.resolved {
            self.resolve_below(seq + 1, |_, _| {});
            return;
        }
        if !self.marks.insert(seq) {
            return;
        }
        let index = self
            .segments
            .partition_point(|segment| segment.end() <= seq);
        if let Some(segment) = self.segments.get_mut(index)
            && segment.first <= seq
        {
            segment.marked += 1;
            if segment.marked == segment.count && self.dropped + (index as u64) < self.at.segment {
                self.held_bytes -= segment.held();
                let data = std::mem::take(&mut segment.data);
                segment.rest = Bytes::new();
                self.recycle(data);
            }
        }
    }

    pub(super) fn drop_resolved(&mut self) {
        while let Some(segment) = self.segments.front()
            && segment.end() <= self.resolved
            && self.dropped < self.at.segment
            && let Some(segment) = self.segments.pop_front()
        {
            self.held_bytes -= segment.held();
            self.dropped += 1;
            self.recycle(segment.data);
        }
    }

    /// Keeps the buffer of the last segment cut from it.
    fn recycle(&mut self, data: Bytes) {
        if self.spare.len() >= SPARE_BUFFERS {
            return;
        }
        let Ok(mut buffer) = data.try_into_mut() else {
            return;
        };
        buffer.clear();
        // A small buffer is not worth keeping, and one that grew for a large message not worth its memory.
        if buffer.try_reclaim(SEGMENT_BYTES) && buffer.capacity() <= 2 * SEGMENT_BYTES {
            self.spare.push(buffer);
        }
    }
}
