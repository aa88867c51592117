//! Several data frames as one: messages of one stream follow each other with the same labels and consecutive numbers, and are
//! judged and counted together. What a frame is stands in `frame`, which of them are a run is found by the `decoder`.

use bytes::Bytes;

use crate::frame::{follows_whole_data, read_whole_data};
use crate::limits::{DATA_HEADER_BYTES, LENGTH_BYTES, RUN_MESSAGES_MAX};
use crate::{DataFlags, Frame, Label, Seq};

/// What was cut out of the bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// One frame.
    Frame(Frame),
    /// Several.
    Run(Run),
}

/// Two or more messages, each whole in one frame, with consecutive numbers, the same labels, and no flags.
///
/// As [`Frame::Data`] for each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    first: Seq,
    count: u64,
    to: Label,
    from: Label,
    /// Whole frames, and nothing else.
    frames: Bytes,
    /// The size of the last body.
    last: u64,
}

impl Run {
    /// Takes those at the front of whole frames; `None`, and nothing taken, where there are not two.
    #[inline]
    pub(crate) fn cut(frames: &mut Bytes, max_frame: u32) -> Option<Self> {
        let front = frames.first_chunk::<DATA_HEADER_BYTES>()?;
        let (head, mut end) = read_whole_data(front, max_frame)?;
        if head.flags != DataFlags::NONE {
            return None;
        }
        let (mut count, mut size) = (1, end);
        while count < RUN_MESSAGES_MAX
            && let Some(next) = frames.get(end..).and_then(|rest| rest.first_chunk())
            && let Some(total) = follows_whole_data(next, front, count, max_frame)
            && frames.len() - end >= total
        {
            end += total;
            size = total;
            count += 1;
        }
        if count == 1 {
            return None;
        }
        let (to, from) = (head.to, head.from);
        let frames = if end == frames.len() {
            // An empty rest would keep the buffer from being used again.
            std::mem::take(frames)
        } else {
            frames.split_to(end)
        };
        Some(Self {
            first: head.seq,
            count,
            to,
            from,
            frames,
            last: (size - DATA_HEADER_BYTES) as u64,
        })
    }

    /// Returns the number of the first.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// Returns how many there are, two at least.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns where they go, and whom they are from.
    pub fn labels(&self) -> (Label, Label) {
        (self.to, self.from)
    }

    /// Returns the size of their bodies, bytes.
    pub fn bytes(&self) -> u64 {
        self.frames.len() as u64 - self.count * DATA_HEADER_BYTES as u64
    }

    /// Body bytes before the last of them.
    pub(crate) fn bytes_before_last(&self) -> u64 {
        self.bytes() - self.last
    }

    /// Returns them one by one, each with its number and its body: a slice of the read buffer.
    pub fn messages(self) -> Messages {
        Messages {
            next: self.first,
            frames: self.frames,
            at: 0,
        }
    }

    /// The frames that it stands for.
    pub fn frames(self) -> impl Iterator<Item = Frame> {
        let (to, from) = self.labels();
        self.messages().map(move |(seq, body)| Frame::Data {
            seq,
            flags: DataFlags::NONE,
            to,
            from,
            body,
        })
    }
}

/// The messages of a [`Run`], each with its number.
#[derive(Clone, Debug)]
pub struct Messages {
    next: Seq,
    frames: Bytes,
    /// Where the next frame begins.
    at: usize,
}

impl Iterator for Messages {
    type Item = (Seq, Bytes);

    #[inline]
    fn next(&mut self) -> Option<(Seq, Bytes)> {
        let rest = self.frames.get(self.at..)?;
        let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
        let end = self.at + LENGTH_BYTES + length;
        // In range: a run is of whole frames, each of which has a header.
        let body = self.frames.slice(self.at + DATA_HEADER_BYTES..end);
        let seq = self.next;
        self.at = end;
        self.next = Seq(seq.0 + 1);
        Some((seq, body))
    }
}
