//! Taking messages that were never sent out of the log: to a peer that starts anew they are numbered anew, so that what
//! is larger than its frames is cut, and what it does not take at all is not sent.

use bytes::Bytes;

use super::Outbox;
use super::posts::Entry;
use super::segment::{Place, step_over};
use crate::frame::read_data_header;
use crate::limits::DATA_HEADER_BYTES;
use crate::{DataFlags, Label};

/// A frame that was in the log.
#[derive(Debug)]
pub(crate) struct TakenBack {
    pub(crate) entry: Entry,
    pub(crate) flags: DataFlags,
    pub(crate) to: Label,
    pub(crate) from: Label,
    /// Its body: what was copied into the log, and what is shared with it.
    pub(crate) head: Bytes,
    pub(crate) rest: Bytes,
}

impl Outbox {
    /// Takes everything out that was never sent; the position is not behind it, and the numbers are given again.
    pub(crate) fn take_back(&mut self) -> Vec<TakenBack> {
        self.seal(Bytes::new());
        self.largest = 0;
        let mut taken = Vec::new();
        let Some(place) = self.locate(self.sent) else {
            return taken;
        };
        debug_assert_eq!(self.at.seq, self.sent, "what is sent has its outcome");
        let Some(index) = self.index(place.segment) else {
            return taken;
        };
        for at in index..self.segments.len() {
            let segment = &self.segments[at];
            let mut now = Place {
                segment: 0,
                seq: segment.first,
                offset: 0,
                bytes_before: segment.bytes_before,
            };
            if at == index {
                now = place;
            }
            while now.seq < segment.end() {
                let start = now;
                step_over(segment, &mut now);
                let is_last = now.seq == segment.end();
                let frame = segment.data.slice(start.offset..now.offset);
                let head = frame
                    .first_chunk::<DATA_HEADER_BYTES>()
                    .and_then(read_data_header);
                let (Some(head), Some(entry)) = (head, self.posts.find(start.seq)) else {
                    continue;
                };
                taken.push(TakenBack {
                    entry,
                    flags: head.flags,
                    to: head.to,
                    from: head.from,
                    head: frame.slice(DATA_HEADER_BYTES..),
                    rest: if is_last {
                        segment.rest.clone()
                    } else {
                        Bytes::new()
                    },
                });
            }
        }
        self.cut_at(index, place);
        taken
    }

    /// Ends the log at a place.
    fn cut_at(&mut self, index: usize, place: Place) {
        while self.segments.len() > index + 1 {
            if let Some(segment) = self.segments.pop_back() {
                self.held_bytes -= segment.held();
            }
        }
        if let Some(segment) = self.segments.back_mut() {
            self.held_bytes -= segment.held();
            segment.count = (place.seq - segment.first) as u32;
            segment.data.truncate(place.offset);
            segment.rest = Bytes::new();
            segment.body_bytes = place.bytes_before - segment.bytes_before;
            self.held_bytes += segment.held();
        }
        if place.offset == 0 {
            self.segments.pop_back();
        }
        self.next = place.seq;
        self.next_bytes_before = place.bytes_before;
        self.tail_first = place.seq;
        self.tail_bytes_before = place.bytes_before;
        self.posts.cut_from(place.seq);
        self.found = None;
        self.at = Place {
            segment: self.dropped + self.segments.len() as u64,
            seq: place.seq,
            offset: 0,
            bytes_before: place.bytes_before,
        };
        self.mid_frame = false;
        self.unwritten_parts = 0;
        self.drop_resolved();
    }
}
