//! A run of frames that no longer changes, and places in it.

use bytes::Bytes;

use crate::limits::{DATA_OVERHEAD_BYTES, LENGTH_BYTES};

/// A run of whole frames that no longer changes.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) count: u32,
    /// How many of them were resolved one by one, ahead of the rest.
    pub(super) marked: u32,
    pub(super) data: Bytes,
    /// The shared end of the last frame's body.
    pub(super) rest: Bytes,
    /// That end is a part of a message whose memory is counted where the whole of it is kept.
    pub(super) is_part: bool,
    /// Body bytes of the session before this segment.
    pub(super) bytes_before: u64,
    pub(super) body_bytes: u64,
}

impl Segment {
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// The bytes of a message's part at its end, if there is one.
    pub(super) fn part_bytes(&self) -> u64 {
        if self.is_part {
            self.rest.len() as u64
        } else {
            0
        }
    }

    /// The bytes that count as held by the log.
    pub(super) fn held(&self) -> usize {
        let rest = if self.is_part { 0 } else { self.rest.len() };
        self.data.len() + rest
    }
}

/// The frame at an offset of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Counted from the beginning of the session, not from the oldest kept.
    pub(super) segment: u64,
    pub(super) seq: u64,
    pub(super) offset: usize,
    pub(super) bytes_before: u64,
}

/// Moves over one frame; the last one's shared rest is not part of the offsets.
pub(super) fn step_over(segment: &Segment, place: &mut Place) {
    let head = segment.data[place.offset..].first_chunk::<LENGTH_BYTES>();
    let length = head.map_or(0, |head| u32::from_le_bytes(*head) as usize);
    place.seq += 1;
    place.bytes_before += (length - DATA_OVERHEAD_BYTES) as u64;
    place.offset = (place.offset + LENGTH_BYTES + length).min(segment.data.len());
}
