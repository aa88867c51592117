//! Frames out of a byte stream that arrives in pieces. Bodies are slices of the read buffer; nothing is copied, and
//! memory follows what has arrived, never what a peer claims. The part of a message can be read past that buffer, into
//! room that the session has for it.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{DataHead, check_head, decode_control, kind, read_data_header, read_whole_data};
use crate::hello::{Hello, MAGIC};
use crate::landing::{Landed, PartHead};
use crate::limits::{
    CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, FRAGMENT_TOTAL_BYTES, FRAME_MAX_CEILING,
    FRAME_MAX_FLOOR, LANDING_BYTES, LENGTH_BYTES, READ_STEP_BYTES,
};
use crate::{Cut, DataFlags, Frame, HelloError, Run, Violation};

/// Capacity of the first read buffer, bytes: an idle connection stays small.
const FIRST_READ_BYTES: usize = 4096;

/// Cuts a connection's bytes into a hello and frames.
///
/// Read into [`buffer`](Self::buffer), then take [`next_frame`](Self::next_frame) until it has none.
///
/// Parts of messages need not pass through that buffer. Whoever wants them to be read where they stay reads into
/// [`space`](Self::space) instead (or calls [`feed`](Self::feed)), takes what has [landed](Self::take_landed) before the
/// frames, and, when there is no frame, asks the session for room for the [part at the front](Self::part_head) and
/// [lands](Self::land) it there.
///
/// # Bounds
///
/// The buffer grows to twice what has arrived of the frame at its front, by at most
/// [`READ_STEP_BYTES`](crate::limits::READ_STEP_BYTES) ahead of the bytes when the frame is small, and never beyond
/// the frame limit and one such step.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    /// Whole frames, cut from the buffer together: a body is one reference more to them, which costs less than to cut each
    /// from the buffer.
    run: Bytes,
    /// Capacity for the next buffer: doubles while reads fill it, up to the step.
    step: usize,
    max_frame: u32,
    /// A part on its way past the buffer.
    landing: Option<Landed>,
    /// Parts of which fewer bytes are missing come through the buffer.
    landing_bytes: usize,
    /// A part has landed just now, and likely another follows: the next read takes little besides its head, which
    /// would have to be copied to where it belongs.
    is_peeking: bool,
    /// Set once a violation was returned: what follows it has no frame borders.
    broken: Option<Violation>,
}

impl FrameDecoder {
    /// Makes a decoder that accepts data frames up to `max_frame` (the value of their length field), which is
    /// brought into [`FRAME_MAX_FLOOR`]`..=`[`FRAME_MAX_CEILING`].
    pub fn new(max_frame: u32) -> Self {
        Self {
            buffer: BytesMut::new(),
            run: Bytes::new(),
            step: FIRST_READ_BYTES,
            max_frame: max_frame.clamp(FRAME_MAX_FLOOR, FRAME_MAX_CEILING),
            landing: None,
            landing_bytes: LANDING_BYTES,
            is_peeking: false,
            broken: None,
        }
    }

    /// The same, with room asked for where at least so many bytes of a part are missing. For tests: what is copied
    /// costs less than a read of its own up to some size.
    #[must_use]
    pub fn landing_from(mut self, bytes: usize) -> Self {
        self.landing_bytes = bytes.max(1);
        self
    }

    /// Returns the buffer to read into, with free capacity at its end. Append only.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let held = self.buffer.len();
        let free = self.buffer.capacity() - held;
        let large = self
            .claimed()
            .filter(|claimed| *claimed > READ_STEP_BYTES && held < *claimed);
        if let Some(claimed) = large {
            if free < FIRST_READ_BYTES.min(claimed - held) {
                self.grow_for(claimed);
            }
        } else if free < self.step / 8 || free == 0 {
            // In steady state the bodies cut from this buffer are gone by now, and it is reused in place.
            self.buffer
                .reserve(self.step.saturating_sub(held).max(self.step / 4));
            self.step = (self.step * 2).min(READ_STEP_BYTES);
        }
        &mut self.buffer
    }

    /// Returns where the next read goes: the rest of a part that lands, or the buffer. Append only, once.
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        if self.landing.as_ref().is_none_or(|part| part.rest() == 0) {
            let most = if self.is_peeking && self.buffer.is_empty() {
                FIRST_READ_BYTES
            } else {
                usize::MAX
            };
            let buffer = self.buffer();
            let free = buffer.capacity() - buffer.len();
            return buffer.limit(free.min(most));
        }
        match &mut self.landing {
            Some(part) => {
                let rest = part.rest();
                (&mut part.room).limit(rest)
            }
            // One that lands was found above, so this arm is never taken; it is written without a panic.
            None => (&mut self.buffer).limit(FIRST_READ_BYTES),
        }
    }

    /// Takes in bytes that have been read already.
    pub fn feed(&mut self, bytes: &[u8]) {
        let landing = self.landing.as_mut();
        let here = landing.map_or(bytes, |part| {
            let (there, here) = bytes.split_at(part.rest().min(bytes.len()));
            part.room.extend_from_slice(there);
            here
        });
        if !here.is_empty() {
            self.buffer().extend_from_slice(here);
        }
    }

    /// Returns the head of the part of a message at the front, where much of its body has not arrived and it may be
    /// read elsewhere. Ask when [`next_frame`](Self::next_frame) has none.
    pub fn part_head(&self) -> Option<PartHead> {
        if self.landing.is_some() || self.broken.is_some() || !self.run.is_empty() {
            return None;
        }
        let head = self.buffer.first_chunk::<DATA_HEADER_BYTES>()?;
        // What cannot be is said by whoever cuts the frame.
        let (length, kind) = head.split_at(LENGTH_BYTES);
        let length = u32::from_le_bytes(length.first_chunk().copied()?);
        if kind.first() != Some(&kind::DATA) || length > self.max_frame {
            return None;
        }
        let DataHead {
            flags,
            seq,
            to,
            from,
        } = read_data_header(head)?;
        let is_first = flags.contains(DataFlags::FIRST);
        if flags.is_whole() || flags.contains(DataFlags::VOID) {
            return None;
        }
        let total = LENGTH_BYTES + length as usize;
        let front = DATA_HEADER_BYTES + if is_first { FRAGMENT_TOTAL_BYTES } else { 0 };
        let missing = total.checked_sub(self.buffer.len())?;
        if self.buffer.len() < front || missing < self.landing_bytes {
            return None;
        }
        let declared = if is_first {
            let total = self.buffer.get(DATA_HEADER_BYTES..)?.first_chunk()?;
            Some(u64::from_le_bytes(*total))
        } else {
            None
        };
        Some(PartHead {
            seq,
            flags,
            to,
            from,
            declared,
            bytes: total.checked_sub(front)?,
        })
    }

    /// Reads the rest of the part at the front into `room`, which the session had for that `head`. It must be empty and
    /// have capacity for all of the part.
    pub fn land(&mut self, head: PartHead, mut room: BytesMut) {
        debug_assert!(room.is_empty() && room.capacity() >= head.bytes);
        let front = DATA_HEADER_BYTES + head.declared.map_or(0, |_| FRAGMENT_TOTAL_BYTES);
        self.buffer.advance(front.min(self.buffer.len()));
        let come = self.buffer.len().min(head.bytes);
        room.extend_from_slice(&self.buffer[..come]);
        self.buffer.advance(come);
        self.landing = Some(Landed { head, room });
    }

    /// Takes the part that has landed, once all of it is there. It came before every frame that follows.
    pub fn take_landed(&mut self) -> Option<Landed> {
        let landed = self.landing.take_if(|part| part.rest() == 0)?;
        self.is_peeking = true;
        Some(landed)
    }

    /// W-06: a large frame gets room as it arrives: as much again as is there, one step at least.
    fn grow_for(&mut self, claimed: usize) {
        let held = self.buffer.len();
        let more = (claimed - held).min(held.max(READ_STEP_BYTES));
        if held <= READ_STEP_BYTES {
            // The frame moves to a buffer of its own while it is small: growing that one needs no other copy than
            // the allocator's, and the small messages before it do not keep it alive.
            let mut own = BytesMut::with_capacity(held + more);
            own.extend_from_slice(&self.buffer);
            self.buffer = own;
        } else {
            // Exactly: what follows the frame is read into a buffer that the frame's body does not keep alive.
            let mut bytes = Vec::from(std::mem::take(&mut self.buffer));
            bytes.reserve_exact(more);
            self.buffer = BytesMut::from(Bytes::from(bytes));
        }
    }

    /// The whole size of the frame at the front, where its length has arrived.
    fn claimed(&self) -> Option<usize> {
        let length = self.buffer.first_chunk::<LENGTH_BYTES>()?;
        Some(LENGTH_BYTES + u32::from_le_bytes(*length).min(self.max_frame) as usize)
    }

    /// Takes the hello that a connection begins with; `None` until all of it has arrived.
    ///
    /// # Errors
    ///
    /// The bytes are no hello. The connection is of no use.
    pub fn next_hello(&mut self) -> Result<Option<Hello>, HelloError> {
        Hello::decode(&mut self.buffer)
    }

    /// Takes the next frame; `None` until all of it has arrived.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol; every later call says the same.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Violation> {
        if let Some(violation) = self.broken {
            return Err(violation);
        }
        if self.landing.is_some() {
            return Ok(None);
        }
        let cut = self.cut();
        match &cut {
            Ok(Some(_)) => self.is_peeking = false,
            Ok(None) => {}
            Err(violation) => self.broken = Some(*violation),
        }
        cut
    }

    /// As [`next_frame`](Self::next_frame), with messages that follow each other as one [`Run`]. What is cut is the same in the same
    /// order, however the calls of both are mixed.
    ///
    /// # Errors
    ///
    /// As [`next_frame`](Self::next_frame).
    pub fn next_cut(&mut self) -> Result<Option<Cut>, Violation> {
        if let Some(violation) = self.broken {
            return Err(violation);
        }
        if self.landing.is_some() {
            return Ok(None);
        }
        if self.run.is_empty() {
            match self.cut_run() {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(violation) => {
                    self.broken = Some(violation);
                    return Err(violation);
                }
            }
        }
        if let Some(run) = Run::cut(&mut self.run, self.max_frame) {
            self.is_peeking = false;
            return Ok(Some(Cut::Run(run)));
        }
        let frame = self.next_frame()?;
        Ok(frame.map(Cut::Frame))
    }

    fn cut(&mut self) -> Result<Option<Frame>, Violation> {
        if self.run.is_empty() && !self.cut_run()? {
            return Ok(None);
        }
        if let Some(head) = self.run.first_chunk::<DATA_HEADER_BYTES>()
            && let Some((head, total)) = read_whole_data(head, self.max_frame)
        {
            let body = self.cut_body(total);
            return Ok(Some(data_frame(head, body)));
        }
        // A run ends where a frame does.
        let Some(head) = self.run.first_chunk::<CONTROL_HEADER_BYTES>() else {
            return Ok(None);
        };
        judge_head(head, self.max_frame)?;
        let kind = head[4];
        let total = whole_bytes(head);
        if kind == kind::DATA {
            let head = self
                .run
                .first_chunk::<DATA_HEADER_BYTES>()
                .and_then(read_data_header)
                .ok_or(Violation::ReservedBits { kind })?;
            let body = self.cut_body(total);
            return Ok(Some(data_frame(head, body)));
        }
        let frame = decode_control(kind, &self.run[CONTROL_HEADER_BYTES..total])?;
        self.run.advance(total);
        // An empty rest would keep the buffer from being used again.
        if self.run.is_empty() {
            self.run = Bytes::new();
        }
        Ok(Some(frame))
    }

    /// Takes the data frame of this size at the front of the run, and gives its body.
    #[inline]
    fn cut_body(&mut self, total: usize) -> Bytes {
        // An empty rest would keep the buffer from being used again.
        let mut body = if total == self.run.len() {
            std::mem::take(&mut self.run)
        } else {
            self.run.split_to(total)
        };
        body.advance(DATA_HEADER_BYTES);
        body
    }

    /// Cuts the whole frames at the front of the buffer off; `false` when there is none.
    fn cut_run(&mut self) -> Result<bool, Violation> {
        let Some(head) = self.buffer.first_chunk::<CONTROL_HEADER_BYTES>() else {
            return Ok(false);
        };
        // Said before the rest of the frame has come. Those behind it are judged when it is their turn.
        judge_head(head, self.max_frame)?;
        let mut end = 0;
        while let Some(head) = self.buffer[end..].first_chunk::<CONTROL_HEADER_BYTES>() {
            let total = whole_bytes(head);
            if total < CONTROL_HEADER_BYTES || self.buffer.len() - end < total {
                break;
            }
            end += total;
        }
        if end == 0 {
            return Ok(false);
        }
        self.run = self.buffer.split_to(end).freeze();
        Ok(true)
    }

    /// Returns how many bytes have arrived and not been taken.
    pub fn pending_bytes(&self) -> usize {
        let landed = self.landing.as_ref().map_or(0, |part| part.room.len());
        self.run.len() + self.buffer.len() + landed
    }

    /// Returns how many bytes of memory the buffer holds, without the room of a part that lands.
    pub fn capacity_bytes(&self) -> usize {
        self.buffer.capacity()
    }
}

#[inline]
fn data_frame(head: DataHead, body: Bytes) -> Frame {
    Frame::Data {
        seq: head.seq,
        flags: head.flags,
        to: head.to,
        from: head.from,
        body,
    }
}

/// What a frame that begins with these bytes takes, bytes.
#[inline]
fn whole_bytes(head: &[u8; CONTROL_HEADER_BYTES]) -> usize {
    LENGTH_BYTES + u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize
}

/// W-08: no frame begins as a hello does.
#[inline]
fn judge_head(head: &[u8; CONTROL_HEADER_BYTES], max_frame: u32) -> Result<(), Violation> {
    check_head(head, max_frame).map_err(|violation| {
        if *head == MAGIC {
            Violation::SecondHello
        } else {
            violation
        }
    })
}
