//! The outgoing log: messages are encoded once, into the bytes that are written and kept until their outcome is
//! known. Knows nothing of connections: where to go on and how far the credit reaches are arguments.

mod posts;
mod resolve;
mod segment;
mod take_back;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

pub(crate) use self::posts::Entry;
use self::posts::Posts;
use self::segment::{Place, Segment, step_over};
pub(crate) use self::take_back::TakenBack;
use crate::frame::data_header;
use crate::limits::{
    BUFFER_KEPT_BYTES, DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, LENGTH_BYTES, SEGMENT_BYTES,
    SEGMENT_ROOM_BYTES, SHARED_BODY_BYTES,
};
use crate::marks::Marks;
use crate::pieces::{Pieces, SharedParts, joined};
use crate::session::{Outgoing, PushError};
use crate::{DataFlags, Label, Seq};

/// Capacity of the first log buffer, bytes: an idle session stays small.
const FIRST_BUFFER_BYTES: usize = 2048;

/// How far the peer lets us send.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Credit {
    /// Messages below this number may be sent.
    pub(crate) messages: u64,
    /// A message may be sent when fewer body bytes than this come before it.
    pub(crate) bytes: u64,
}

/// The sizes that decide what becomes of a message, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// The largest body of a message in one frame; larger ones go in parts.
    pub(crate) fragment: u64,
    /// The largest part of a larger one, where nothing else waits.
    pub(crate) part: u64,
    /// The largest message.
    pub(crate) message: u64,
}

/// What became of a message that was encoded.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// It is in the log.
    Logged { seq: u64, size: u64 },
    /// It is too large for one frame: here it is.
    Large { body: Pieces },
}

#[derive(Debug)]
pub(crate) struct Outbox {
    max_span: u64,
    segments: VecDeque<Segment>,
    /// Segments dropped so far: the number of the oldest kept.
    dropped: u64,
    /// Frames being collected: the first `tail_len` bytes. What an encoder left behind when it panicked lies beyond.
    tail: BytesMut,
    tail_len: usize,
    tail_first: u64,
    tail_bytes_before: u64,
    next: u64,
    next_bytes_before: u64,
    resolved: u64,
    marks: Marks,
    held_bytes: usize,
    at: Place,
    /// The head of a frame was handed out, its shared rest comes next.
    mid_frame: bool,
    sent: u64,
    found: Option<Place>,
    /// Bytes of parts of messages that are still to be handed out on this connection.
    unwritten_parts: u64,
    /// The largest body of a frame since the log was last taken back, bytes.
    largest: u64,
    posts: Posts,
    spare: Vec<BytesMut>,
    step: usize,
}

/// Whether a header is what was written, but for its length, which is written later. Word by word, as it was written: a
/// processor that reads across two fresh writes waits for both to reach its cache.
#[inline]
fn is_intact(found: &[u8; DATA_HEADER_BYTES], written: &[u8; DATA_HEADER_BYTES]) -> bool {
    let (found, _) = found.as_chunks::<8>();
    let (written, _) = written.as_chunks::<8>();
    let ([head, seq, labels], [wrote, wrote_seq, wrote_labels]) = (found, written) else {
        return false;
    };
    let length = 8 * LENGTH_BYTES;
    u64::from_le_bytes(*head) >> length == u64::from_le_bytes(*wrote) >> length
        && u64::from_le_bytes(*seq) == u64::from_le_bytes(*wrote_seq)
        && u64::from_le_bytes(*labels) == u64::from_le_bytes(*wrote_labels)
}

/// As how many bytes of a shared end are to be copied: all or none.
#[inline]
fn copied_of(shared: usize) -> usize {
    if shared < SHARED_BODY_BYTES {
        shared
    } else {
        0
    }
}

impl Outbox {
    pub(crate) fn new(max_span: u64, first: u64) -> Self {
        Self {
            max_span,
            segments: VecDeque::new(),
            dropped: 0,
            tail: BytesMut::new(),
            tail_len: 0,
            tail_first: first,
            tail_bytes_before: 0,
            next: first,
            next_bytes_before: 0,
            resolved: first,
            marks: Marks::default(),
            held_bytes: 0,
            at: Place {
                seq: first,
                ..Place::default()
            },
            mid_frame: false,
            sent: first,
            found: None,
            unwritten_parts: 0,
            largest: 0,
            posts: Posts::default(),
            spare: Vec::new(),
            step: FIRST_BUFFER_BYTES,
        }
    }

    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn resolved(&self) -> u64 {
        self.resolved
    }

    /// The next number to transmit on this connection.
    pub(crate) fn position(&self) -> u64 {
        self.at.seq
    }

    /// Body bytes before the position.
    pub(crate) fn position_bytes(&self) -> u64 {
        self.at.bytes_before
    }

    /// Body bytes before the next number.
    #[inline]
    pub(crate) fn next_bytes(&self) -> u64 {
        self.next_bytes_before
    }

    /// Bytes of parts of messages in the log that are still to be handed out on this connection.
    pub(crate) fn unwritten_parts(&self) -> u64 {
        self.unwritten_parts
    }

    /// The largest body of a frame in the log, bytes, or a little more.
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether the next number is near enough to the oldest without an outcome.
    #[inline]
    pub(crate) fn has_span(&self) -> bool {
        self.next - self.resolved < self.max_span
    }

    /// How many numbers more are.
    pub(crate) fn span_left(&self) -> u64 {
        self.max_span.saturating_sub(self.next - self.resolved)
    }

    /// What a number stands for.
    pub(crate) fn entry(&self, seq: u64) -> Option<Entry> {
        self.posts.find(seq)
    }

    /// The number of a post in the log.
    pub(crate) fn number(&self, post: u64) -> Option<u64> {
        self.posts.number(post)
    }

    /// Appends a message: its header, what `encode` writes behind it, then what is shared. One that turns out to be
    /// too large for a frame is given back instead.
    #[inline]
    pub(crate) fn push<E, S: Into<SharedParts>>(
        &mut self,
        post: u64,
        outgoing: &mut Outgoing,
        sizes: Sizes,
        encode: impl FnOnce(&mut BytesMut) -> Result<S, E>,
    ) -> Result<Pushed, PushError<E>> {
        let shared = outgoing.shared.len();
        let room = outgoing.room.max(SEGMENT_ROOM_BYTES);
        self.make_room(DATA_HEADER_BYTES + copied_of(shared) + room);
        let start = self.tail_len;
        let labels = (outgoing.to, outgoing.from);
        let header = data_header(Seq(self.next), outgoing.flags, labels, 0);
        self.tail.extend_from_slice(&header);
        let encoded = encode(&mut self.tail);
        let found = self.tail.get(start..).and_then(|tail| tail.first_chunk());
        if !found.is_some_and(|found| is_intact(found, &header)) {
            self.lose_tail();
            return Err(PushError::Damaged);
        }
        let among: SharedParts = match encoded {
            Ok(among) => among.into(),
            Err(error) => {
                self.cut_back();
                return Err(PushError::Encode(error));
            }
        };
        let own = (self.tail.len() - start - DATA_HEADER_BYTES) as u64;
        let fits = own <= sizes.fragment && own <= sizes.message && own < SEGMENT_BYTES as u64;
        if !fits || shared != 0 || !among.is_empty() {
            return self.push_unusual(post, start, among, outgoing, sizes);
        }
        let seq = self.next;
        self.enter(start, Entry::Whole(post), Bytes::new());
        Ok(Pushed::Logged { seq, size: own })
    }

    /// Enters a message whose beginning an encoder wrote behind a header at `start`, and which is large or has shared bytes.
    #[inline(never)]
    fn push_unusual<E>(
        &mut self,
        post: u64,
        start: usize,
        among: SharedParts,
        outgoing: &mut Outgoing,
        sizes: Sizes,
    ) -> Result<Pushed, PushError<E>> {
        let shared = outgoing.shared.len();
        let size = self.tail.len() - start - DATA_HEADER_BYTES + shared + among.size();
        let size = size as u64;
        if size > sizes.message {
            self.cut_back();
            return Err(PushError::TooLarge {
                size,
                max: sizes.message,
            });
        }
        if size > sizes.fragment {
            let own = start + DATA_HEADER_BYTES;
            let head = self.part_with(own);
            let behind = std::mem::take(&mut outgoing.shared);
            let body = Pieces::of(head, own, among, behind);
            return Ok(Pushed::Large { body });
        }
        let (inline, shared) = if among.is_empty() {
            (copied_of(shared), shared)
        } else {
            self.settle_among(start + DATA_HEADER_BYTES, among, outgoing)
        };
        let start = if size as usize >= SEGMENT_BYTES && start != 0 {
            self.part_from(start);
            0
        } else {
            start
        };
        if inline != 0 {
            self.tail.extend_from_slice(&outgoing.shared);
        }
        let seq = self.next;
        let rest = if inline == shared {
            Bytes::new()
        } else {
            std::mem::take(&mut outgoing.shared)
        };
        self.enter(start, Entry::Whole(post), rest);
        Ok(Pushed::Logged { seq, size })
    }

    /// Brings what is shared among the bytes that an encoder wrote from `own` on to its place: behind them as it is, where
    /// it belongs there, else copied. Returns as how much of the shared end is to be copied, and its size.
    #[cold]
    fn settle_among(
        &mut self,
        own: usize,
        mut among: SharedParts,
        outgoing: &mut Outgoing,
    ) -> (usize, usize) {
        if outgoing.shared.is_empty()
            && let Some(tail) = among.take_tail(self.tail.len())
        {
            outgoing.shared = tail;
        } else {
            let written = Bytes::copy_from_slice(&self.tail[own..]);
            self.tail.truncate(own);
            for piece in among.pieces(&written, own) {
                self.tail.extend_from_slice(&piece);
            }
        }
        let shared = outgoing.shared.len();
        (copied_of(shared), shared)
    }

    /// Appends one part of a message, whose memory is counted elsewhere: what precedes it, a copied piece, a shared one.
    pub(crate) fn push_part(
        &mut self,
        entry: Entry,
        flags: DataFlags,
        labels: (Label, Label),
        pieces: [&[u8]; 2],
        rest: Bytes,
    ) -> u64 {
        let copied = pieces[0].len() + pieces[1].len();
        self.make_room(DATA_HEADER_BYTES + copied.max(SEGMENT_ROOM_BYTES));
        let start = self.tail_len;
        let seq = self.next;
        self.tail
            .extend_from_slice(&data_header(Seq(seq), flags, labels, 0));
        for piece in pieces {
            self.tail.extend_from_slice(piece);
        }
        self.enter(start, entry, rest);
        seq
    }

    /// Makes what the tail holds from `start` on a frame, whose body ends with `rest`.
    #[inline(always)]
    fn enter(&mut self, start: usize, entry: Entry, rest: Bytes) {
        let copied = self.tail.len() - start - DATA_HEADER_BYTES;
        let size = copied + rest.len();
        // A frame's limit is below the length field's range, so the narrowing loses nothing.
        let length = (size + DATA_OVERHEAD_BYTES) as u32;
        self.tail[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        let is_part = !matches!(entry, Entry::Whole(_));
        self.held_bytes += copied + DATA_HEADER_BYTES;
        if !is_part {
            self.held_bytes += rest.len();
        }
        self.tail_len = self.tail.len();
        self.posts.push(self.next, entry);
        self.next += 1;
        self.next_bytes_before += size as u64;
        self.largest = self.largest.max(size as u64);
        if !rest.is_empty() {
            self.seal_with(rest, is_part);
        } else if self.tail_len >= SEGMENT_BYTES {
            self.seal(Bytes::new());
        }
    }

    /// Takes what an encoder wrote from `body` on out of the tail, with the header before it.
    #[cold]
    fn part_with(&mut self, body: usize) -> Bytes {
        if self.tail.len() - body <= SHARED_BODY_BYTES {
            let copy = Bytes::copy_from_slice(&self.tail[body..]);
            self.tail.truncate(self.tail_len);
            return copy;
        }
        let mut large = std::mem::take(&mut self.tail);
        self.tail = BytesMut::from(&large[..self.tail_len]);
        large.split_off(body).freeze()
    }

    /// Makes `need` bytes free behind the tail's frames without moving more than a buffer's worth of them.
    #[inline]
    fn make_room(&mut self, need: usize) {
        if self.tail.len() != self.tail_len {
            // An encoder panicked here; what it had written belongs to no message.
            self.tail.truncate(self.tail_len);
        }
        if self.tail.capacity() - self.tail_len < need {
            self.make_new_room(need);
        }
    }

    #[cold]
    #[inline(never)]
    fn make_new_room(&mut self, need: usize) {
        self.seal(Bytes::new());
        // When every message of the buffer is resolved already, it is free again as a whole.
        if self.tail.try_reclaim(need) {
            return;
        }
        if let Some(at) = self.spare.iter().position(|spare| spare.capacity() >= need) {
            self.tail = self.spare.swap_remove(at);
            return;
        }
        self.tail = BytesMut::with_capacity(need.max(self.step));
        self.step = (self.step * 2).min(SEGMENT_BYTES);
    }

    /// Gives the frame at `start`, a large one, a segment of its own: small ones before it, which may wait for their
    /// outcome for long, would hold its memory.
    #[cold]
    fn part_from(&mut self, start: usize) {
        let mut large = std::mem::take(&mut self.tail);
        self.tail = BytesMut::from(&large[..start]);
        self.seal(Bytes::new());
        self.tail = large.split_off(start);
    }

    /// Takes back what an encoder wrote, and the memory if it was much.
    #[cold]
    fn cut_back(&mut self) {
        self.tail.truncate(self.tail_len);
        if self.tail.capacity() > BUFFER_KEPT_BYTES {
            self.tail = BytesMut::from(&self.tail[..]);
        }
    }

    fn seal(&mut self, rest: Bytes) {
        self.seal_with(rest, false);
    }

    /// Turns the tail into a segment whose last frame ends with `rest`.
    fn seal_with(&mut self, rest: Bytes, is_part: bool) {
        if self.tail_first == self.next {
            return;
        }
        self.tail.truncate(self.tail_len);
        let data = self.tail.split().freeze();
        if data.len() > BUFFER_KEPT_BYTES || self.tail.capacity() > BUFFER_KEPT_BYTES {
            // What is left of it would keep all of it, for as long as the session has only small messages.
            self.tail = BytesMut::new();
        }
        self.tail_len = 0;
        if is_part {
            self.unwritten_parts += rest.len() as u64;
        }
        self.segments.push_back(Segment {
            first: self.tail_first,
            // A segment ends at 64 KiB, so it holds far fewer than 2^32 frames of at least 24 bytes.
            count: (self.next - self.tail_first) as u32,
            marked: 0,
            data,
            rest,
            is_part,
            bytes_before: self.tail_bytes_before,
            body_bytes: self.next_bytes_before - self.tail_bytes_before,
        });
        self.tail_first = self.next;
        self.tail_bytes_before = self.next_bytes_before;
    }

    /// An encoder overwrote what it was to append to: the bodies of the tail's messages are gone.
    #[cold]
    fn lose_tail(&mut self) {
        self.held_bytes -= self.tail_len;
        self.tail = BytesMut::new();
        self.tail_len = 0;
        self.seal(Bytes::new());
    }

    /// Whether `take` would give something.
    #[inline]
    pub(crate) fn has_sendable(&self, credit: Credit) -> bool {
        self.mid_frame
            || (self.at.seq < self.next
                && self.at.seq < credit.messages
                && self.at.bytes_before < credit.bytes)
    }

    /// Whether the last bytes handed out end inside a frame.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.mid_frame
    }

    /// Hands out the next bytes to write: whole frames within the credit, about `max` bytes of them but one at least.
    pub(crate) fn take(&mut self, credit: Credit, max: usize) -> Option<Bytes> {
        if !self.has_sendable(credit) {
            return None;
        }
        if self.at.seq == self.tail_first && !self.mid_frame {
            self.seal(Bytes::new());
        }
        let index = self.index(self.at.segment)?;
        let segment = &self.segments[index];
        if self.mid_frame {
            self.mid_frame = false;
            self.at.segment += 1;
            self.at.offset = 0;
            self.unwritten_parts -= segment.part_bytes();
            return Some(segment.rest.clone());
        }
        let start = self.at.offset;
        let whole = segment.end() <= credit.messages
            && segment.bytes_before + segment.body_bytes <= credit.bytes
            && segment.data.len() - start <= max;
        if whole {
            self.at.offset = segment.data.len();
            self.at.seq = segment.end();
            self.at.bytes_before = segment.bytes_before + segment.body_bytes;
        } else {
            loop {
                step_over(segment, &mut self.at);
                let full = self.at.offset - start >= max;
                let blocked =
                    self.at.seq >= credit.messages || self.at.bytes_before >= credit.bytes;
                if full || blocked || self.at.seq == segment.end() {
                    break;
                }
            }
        }
        let bytes = segment.data.slice(start..self.at.offset);
        if self.at.seq == segment.end() {
            self.mid_frame = !segment.rest.is_empty();
            if !self.mid_frame {
                self.at.segment += 1;
                self.at.offset = 0;
            }
        }
        self.sent = self.sent.max(self.at.seq);
        Some(bytes)
    }

    fn index(&self, segment: u64) -> Option<usize> {
        let index = usize::try_from(segment.checked_sub(self.dropped)?).ok()?;
        (index < self.segments.len()).then_some(index)
    }

    /// Finds a message's frame; `None` for one that is not kept in a segment.
    fn locate(&self, seq: u64) -> Option<Place> {
        let index = self
            .segments
            .partition_point(|segment| segment.end() <= seq);
        let segment = self.segments.get(index)?;
        if seq < segment.first || segment.data.is_empty() {
            return None;
        }
        let number = self.dropped + index as u64;
        // Failures come in runs, so the last one found is usually just before this one.
        let mut place = match self.found {
            Some(found) if found.segment == number && found.seq <= seq => found,
            _ => Place {
                segment: number,
                seq: segment.first,
                offset: 0,
                bytes_before: segment.bytes_before,
            },
        };
        while place.seq < seq {
            step_over(segment, &mut place);
        }
        Some(place)
    }

    /// Gives a message's body back. Its bytes are shared, except that one with a shared end and a beginning of its own is
    /// put together.
    pub(crate) fn message(&mut self, seq: u64) -> Option<Bytes> {
        if seq >= self.tail_first {
            self.seal(Bytes::new());
        }
        let place = self.locate(seq)?;
        self.found = Some(place);
        let segment = &self.segments[self.index(place.segment)?];
        let body = place.offset + DATA_HEADER_BYTES;
        let mut after = place;
        step_over(segment, &mut after);
        let is_last = after.seq == segment.end();
        if is_last && !segment.rest.is_empty() {
            return Some(joined(segment.data.slice(body..), segment.rest.clone()));
        }
        Some(segment.data.slice(body..after.offset))
    }

    /// Goes on from `seq` on a new connection; returns whether that is possible.
    pub(crate) fn rewind(&mut self, seq: u64) -> bool {
        let place = if seq == self.tail_first {
            Some(Place {
                segment: self.dropped + self.segments.len() as u64,
                seq,
                offset: 0,
                bytes_before: self.tail_bytes_before,
            })
        } else {
            self.locate(seq)
        };
        if let Some(place) = place {
            self.at = place;
            self.mid_frame = false;
            self.unwritten_parts = self.count_unwritten_parts();
        }
        place.is_some()
    }

    fn count_unwritten_parts(&self) -> u64 {
        let first = self.at.segment.saturating_sub(self.dropped);
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let unwritten = self.segments.iter().skip(first);
        unwritten.map(Segment::part_bytes).sum()
    }

    /// Forgets everything: the session is over.
    pub(crate) fn clear(&mut self) {
        self.resolved = self.next;
        self.marks.clear();
        self.segments.clear();
        self.dropped = 0;
        self.tail = BytesMut::new();
        self.tail_len = 0;
        self.tail_first = self.next;
        self.tail_bytes_before = self.next_bytes_before;
        self.held_bytes = 0;
        self.at = Place {
            seq: self.next,
            bytes_before: self.next_bytes_before,
            ..Place::default()
        };
        self.mid_frame = false;
        self.unwritten_parts = 0;
        self.sent = self.next;
        self.found = None;
        self.posts.clear();
        self.spare.clear();
    }

    /// Asserts what must hold of our own state.
    pub(crate) fn check(&self) {
        assert!(self.resolved <= self.sent, "resolved beyond what was sent");
        assert!(self.at.seq <= self.sent && self.sent <= self.next);
        assert!(
            self.sent <= self.tail_first,
            "the tail holds only what was never sent"
        );
        assert!(
            self.at.segment >= self.dropped,
            "position in a dropped segment"
        );
        assert_eq!(self.unwritten_parts, self.count_unwritten_parts());
        let frozen: usize = self.segments.iter().map(Segment::held).sum();
        assert_eq!(
            self.held_bytes,
            frozen + self.tail_len,
            "bytes are counted wrongly"
        );
        let mut expected = self
            .segments
            .front()
            .map_or(self.tail_first, |segment| segment.first);
        for segment in &self.segments {
            assert_eq!(segment.first, expected, "segments have a gap");
            assert!(segment.marked <= segment.count);
            expected = segment.end();
        }
        assert_eq!(expected, self.tail_first);
        self.posts.check(self.resolved, self.next);
    }
}
