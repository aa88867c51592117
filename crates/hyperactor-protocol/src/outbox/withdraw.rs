//! Taking messages out of the log that the peer turns out not to accept. Their numbers stay: a void frame fills each
//! place, so that the messages behind it keep theirs.

use bytes::{Buf, Bytes, BytesMut};

use super::Outbox;
use super::segment::{Place, Segment, step_over};
use crate::DataFlags;
use crate::Seq;
use crate::frame::data_header;
use crate::limits::DATA_HEADER_BYTES;

impl Outbox {
    /// Withdraws what was never sent and has a body above `max_body`; reports number, size and body of each.
    ///
    /// Costs nothing unless such a message was pushed; then the segments that hold one are rebuilt.
    pub(crate) fn withdraw_larger(
        &mut self,
        max_body: u64,
        mut report: impl FnMut(u64, u64, Option<Bytes>),
    ) {
        if self.largest <= max_body {
            return;
        }
        self.largest = max_body;
        let sent = self.sent;
        let oversize: Vec<(u64, u64)> = {
            self.seal(Bytes::new());
            let unsent = self.segments.iter().filter(|segment| segment.end() > sent);
            unsent
                .flat_map(bodies)
                .filter(|(seq, size)| *seq >= sent && *size > max_body)
                .collect()
        };
        for (seq, size) in &oversize {
            report(*seq, *size, self.message(*seq));
            self.voids.insert(*seq);
        }
        self.found = None;
        let mut removed = 0;
        for segment in &mut self.segments {
            segment.bytes_before -= removed;
            let first = oversize.partition_point(|(seq, _)| *seq < segment.first);
            let end = oversize.partition_point(|(seq, _)| *seq < segment.end());
            if first < end {
                let before = segment.size();
                removed += rebuild(segment, &oversize[first..end]);
                self.held_bytes -= before - segment.size();
            }
        }
        self.tail_bytes_before -= removed;
        self.next_bytes_before -= removed;
    }
}

/// The number and body size of each message of a segment.
fn bodies(segment: &Segment) -> Vec<(u64, u64)> {
    let mut place = Place {
        segment: 0,
        seq: segment.first,
        offset: 0,
        bytes_before: segment.bytes_before,
    };
    let mut sizes = Vec::new();
    while place.seq < segment.end() && !segment.data.is_empty() {
        let before = place;
        step_over(segment, &mut place);
        sizes.push((before.seq, place.bytes_before - before.bytes_before));
    }
    sizes
}

/// Puts void frames where the oversize ones were; returns how many body bytes that took away.
fn rebuild(segment: &mut Segment, oversize: &[(u64, u64)]) -> u64 {
    let mut out = BytesMut::with_capacity(segment.data.len());
    let mut data = segment.data.clone();
    let mut removed = 0;
    for (seq, size) in bodies(segment) {
        // The last frame of a segment may end in its shared rest.
        let length = (DATA_HEADER_BYTES + size as usize).min(data.len());
        if oversize.iter().any(|(each, _)| *each == seq) {
            out.extend_from_slice(&data_header(Seq(seq), DataFlags::VOID, 0));
            removed += size;
            if seq + 1 == segment.end() {
                segment.rest = Bytes::new();
            }
        } else {
            out.extend_from_slice(&data[..length]);
        }
        data.advance(length);
    }
    segment.data = out.freeze();
    segment.body_bytes -= removed;
    removed
}
