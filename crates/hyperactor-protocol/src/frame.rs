//! The frames of a connection as values, and their bytes. Incremental reading stands in `decoder`, the hello in
//! `hello`; what a frame means is the session's matter.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::{
    CONTROL_FRAME_MAX, CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, DETAIL_MAX,
    FRAGMENT_TOTAL_BYTES, LABEL_NAME_MAX, LABELS_MAX, LENGTH_BYTES, RELEASED_ENTRIES_MAX,
    RELEASED_ENTRY_BYTES,
};
use crate::{Label, Refusal, Seq, Verdict, Violation};

/// The kind byte of each frame.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 1;
    pub(crate) const ACK: u8 = 2;
    pub(crate) const SETTLE: u8 = 3;
    pub(crate) const CREDIT: u8 = 4;
    pub(crate) const RESOLVED: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const PONG: u8 = 7;
    pub(crate) const GOODBYE: u8 = 8;
    pub(crate) const NAME: u8 = 9;
    pub(crate) const RELEASED: u8 = 10;
}

/// What the sender asks for with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DataFlags(u8);

impl DataFlags {
    /// Nothing in particular.
    pub const NONE: Self = Self(0);
    /// Someone waits for the outcome: it is acknowledged as soon as it is settled.
    pub const ACK_NOW: Self = Self(1);
    /// The first part of a message: the whole's size, then the beginning of its body.
    pub const FIRST: Self = Self(1 << 1);
    /// A part of a message that is neither the first nor the last.
    pub const MORE: Self = Self(1 << 2);
    /// The last part of a message.
    pub const LAST: Self = Self(1 << 3);
    /// No message: what came of one in parts to the same label is withdrawn. No body.
    pub const VOID: Self = Self(1 << 7);

    const PLACES: u8 = Self::FIRST.0 | Self::MORE.0 | Self::LAST.0 | Self::VOID.0;
    const KNOWN: u8 = Self::ACK_NOW.0 | Self::PLACES;

    /// The same with the bits of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What holds for the whole message, in whatever frames it goes.
    pub(crate) const fn of_message(self) -> Self {
        Self(self.0 & !Self::PLACES)
    }

    /// Whether it is all of its message.
    pub(crate) const fn is_whole(self) -> bool {
        self.0 & Self::PLACES == 0
    }

    /// Returns whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the byte on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        // A frame has one place in its message.
        if bits & !Self::KNOWN == 0 && (bits & Self::PLACES).count_ones() <= 1 {
            Some(Self(bits))
        } else {
            None
        }
    }
}

/// The end of a session, said in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The first number that the speaker never received, and now never will.
    pub received: Seq,
    /// Why: one of the constants here, or a [`Violation::code`].
    pub code: u16,
    /// More for people; at most [`DETAIL_MAX`] bytes.
    pub detail: Bytes,
}

impl Goodbye {
    /// Everything is done.
    pub const DONE: u16 = 0;
    /// The speaker gave up on the session.
    pub const ABANDONED: u16 = 1;
}

/// How much of what was sent to a label has left the receiver's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The label.
    pub label: Label,
    /// Messages in all, since the state began.
    pub messages: u64,
    /// Bytes of their bodies in all.
    pub bytes: u64,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Data {
        /// Its number.
        seq: Seq,
        /// What its sender asks for, and its place in a message of several parts.
        flags: DataFlags,
        /// Where it goes.
        to: Label,
        /// Whom it is from.
        from: Label,
        /// Its bytes: a slice of the read buffer.
        body: Bytes,
    },
    /// Everything below `received` has come; everything below `settled` has an outcome, delivered where no
    /// settlement said otherwise before.
    Ack {
        /// The next number expected.
        received: Seq,
        /// The first number without an outcome.
        settled: Seq,
    },
    /// The outcome of a range of messages.
    Settle {
        /// The first of them.
        first: Seq,
        /// How many.
        count: u32,
        /// Their outcome.
        verdict: Verdict,
    },
    /// How much may be sent in all, since the session began.
    Credit {
        /// Messages.
        messages: u64,
        /// Body bytes.
        bytes: u64,
        /// Bytes of messages in parts that may be begun, counted from where this connection goes on.
        large: u64,
    },
    /// From here on this connection's label stands for this name.
    Name {
        /// The label.
        label: Label,
        /// The name, 1 to [`LABEL_NAME_MAX`] bytes.
        name: Bytes,
    },
    /// How much has left the receiver's queues, by label.
    Released {
        /// 1 to [`RELEASED_ENTRIES_MAX`] of them.
        entries: Vec<Released>,
    },
    /// The speaker knows the outcome of everything below, so that its records can be forgotten.
    Resolved {
        /// The first number without a known outcome.
        below: Seq,
    },
    /// Are you there?
    Ping {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// The answer.
    Pong {
        /// From the question.
        nonce: u64,
    },
    /// The end of the session.
    Goodbye(Goodbye),
}

impl Frame {
    /// Whether it only says what became of messages that went the other way.
    #[inline]
    pub(crate) fn is_outcome(&self) -> bool {
        matches!(
            self,
            Self::Ack { .. } | Self::Settle { .. } | Self::Goodbye(_)
        )
    }

    /// Appends the frame's bytes. A detail beyond [`DETAIL_MAX`] is left out.
    ///
    /// Data goes through the outgoing log in practice; here it is copied, for tests and tools. A body that no
    /// length field can express (4 GiB) is cut off.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Data {
                seq,
                flags,
                to,
                from,
                body,
            } => {
                let most = u32::MAX as usize - DATA_OVERHEAD_BYTES;
                let body = body.get(..most).unwrap_or(body);
                out.put_slice(&data_header(*seq, *flags, (*to, *from), body.len()));
                out.put_slice(body);
            }
            Self::Ack { received, settled } => {
                control_header(out, kind::ACK, 16);
                out.put_u64_le(received.0);
                out.put_u64_le(settled.0);
            }
            Self::Settle {
                first,
                count,
                verdict,
            } => {
                let (word, code, detail) = match verdict {
                    Verdict::Delivered => (0, 0, &[][..]),
                    Verdict::NotDelivered(refusal) => (1, refusal.code, bounded(&refusal.detail)),
                    Verdict::Unknown(refusal) => (2, refusal.code, bounded(&refusal.detail)),
                };
                control_header(out, kind::SETTLE, 16 + detail.len());
                out.put_u64_le(first.0);
                out.put_u32_le(*count);
                out.put_u8(word);
                out.put_u8(0);
                out.put_u16_le(code);
                out.put_slice(detail);
            }
            Self::Credit {
                messages,
                bytes,
                large,
            } => {
                control_header(out, kind::CREDIT, 24);
                out.put_u64_le(*messages);
                out.put_u64_le(*bytes);
                out.put_u64_le(*large);
            }
            Self::Name { label, name } => encode_name(out, *label, name),
            Self::Released { entries } => {
                let entries = entries.get(..RELEASED_ENTRIES_MAX).unwrap_or(entries);
                control_header(out, kind::RELEASED, entries.len() * RELEASED_ENTRY_BYTES);
                for each in entries {
                    out.put_u32_le(each.label.number());
                    out.put_u64_le(each.messages);
                    out.put_u64_le(each.bytes);
                }
            }
            Self::Resolved { below } => one_word(out, kind::RESOLVED, below.0),
            Self::Ping { nonce } => one_word(out, kind::PING, *nonce),
            Self::Pong { nonce } => one_word(out, kind::PONG, *nonce),
            Self::Goodbye(goodbye) => {
                let detail = bounded(&goodbye.detail);
                control_header(out, kind::GOODBYE, 12 + detail.len());
                out.put_u64_le(goodbye.received.0);
                out.put_u16_le(goodbye.code);
                out.put_u16_le(0);
                out.put_slice(detail);
            }
        }
    }

    /// Returns a stable word for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Data { .. } => "data",
            Self::Ack { .. } => "ack",
            Self::Settle { .. } => "settle",
            Self::Credit { .. } => "credit",
            Self::Name { .. } => "name",
            Self::Released { .. } => "released",
            Self::Resolved { .. } => "resolved",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::Goodbye(_) => "goodbye",
        }
    }
}

/// W-03: the 24 bytes before a body. The caller has checked that the length fits its field.
pub(crate) fn data_header(
    seq: Seq,
    flags: DataFlags,
    (to, from): (Label, Label),
    body: usize,
) -> [u8; DATA_HEADER_BYTES] {
    let mut header = [0; DATA_HEADER_BYTES];
    header[..4].copy_from_slice(&((body + DATA_OVERHEAD_BYTES) as u32).to_le_bytes());
    header[4] = kind::DATA;
    header[5] = flags.bits();
    header[8..16].copy_from_slice(&seq.0.to_le_bytes());
    header[16..20].copy_from_slice(&to.number().to_le_bytes());
    header[20..].copy_from_slice(&from.number().to_le_bytes());
    header
}

/// What a data frame's header says behind its length and kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataHead {
    pub(crate) flags: DataFlags,
    pub(crate) seq: Seq,
    pub(crate) to: Label,
    pub(crate) from: Label,
}

/// Reads a header whose first eight bytes `check_head` has passed.
pub(crate) fn read_data_header(header: &[u8; DATA_HEADER_BYTES]) -> Option<DataHead> {
    let mut words = &header[8..];
    Some(DataHead {
        flags: DataFlags::from_bits(header[5])?,
        seq: Seq(words.get_u64_le()),
        to: Label::new(words.get_u32_le()),
        from: Label::new(words.get_u32_le()),
    })
}

/// Reads the header of a data frame that holds all of its message, with the size of the frame: the ordinary case of
/// `check_head` and `read_data_header`, in one look. `None` for all others, lawful or not.
#[inline]
pub(crate) fn read_whole_data(
    header: &[u8; DATA_HEADER_BYTES],
    max: u32,
) -> Option<(DataHead, usize)> {
    let (words, _) = header.as_chunks::<8>();
    let [first, seq, labels] = words else {
        return None;
    };
    let first = u64::from_le_bytes(*first);
    let labels = u64::from_le_bytes(*labels);
    // The narrowings take the fields apart.
    let (length, rest) = (first as u32, (first >> 32) as u32);
    let flags = DataFlags((rest >> 8) as u8);
    let is_ordinary = (flags == DataFlags::NONE || flags == DataFlags::ACK_NOW)
        && rest == u32::from(kind::DATA) | u32::from(flags.0) << 8;
    if !is_ordinary || length > max || (length as usize) < DATA_OVERHEAD_BYTES {
        return None;
    }
    let head = DataHead {
        flags,
        seq: Seq(u64::from_le_bytes(*seq)),
        to: Label::new(labels as u32),
        from: Label::new((labels >> 32) as u32),
    };
    Some((head, LENGTH_BYTES + length as usize))
}

/// Whether the frame with this header is one as [`read_whole_data`] reads them, without flags, that comes `after` frames later than
/// the one with the `first` header: with its labels, and the number that follows. Returns its size.
#[inline]
pub(crate) fn follows_whole_data(
    header: &[u8; DATA_HEADER_BYTES],
    first: &[u8; DATA_HEADER_BYTES],
    after: u64,
    max: u32,
) -> Option<usize> {
    let (words, _) = header.as_chunks::<8>();
    let (before, _) = first.as_chunks::<8>();
    let ([start, seq, labels], [_, seq_before, labels_before]) = (words, before) else {
        return None;
    };
    let start = u64::from_le_bytes(*start);
    // The narrowings take the fields apart.
    let (length, rest) = (start as u32, (start >> 32) as u32);
    let follows = rest == u32::from(kind::DATA)
        && u64::from_le_bytes(*seq).checked_sub(u64::from_le_bytes(*seq_before)) == Some(after)
        && labels == labels_before
        && (DATA_OVERHEAD_BYTES..=max as usize).contains(&(length as usize));
    follows.then_some(LENGTH_BYTES + length as usize)
}

/// Appends a name frame. The names of a session's own labels have a lawful length.
pub(crate) fn encode_name(out: &mut BytesMut, label: Label, name: &[u8]) {
    let name = name.get(..LABEL_NAME_MAX).unwrap_or(name);
    control_header(out, kind::NAME, 4 + name.len());
    out.put_u32_le(label.number());
    out.put_slice(name);
}

fn control_header(out: &mut BytesMut, kind: u8, payload: usize) {
    // Payloads of control frames are bounded by DETAIL_MAX, far below the field's range.
    out.put_u32_le((CONTROL_HEADER_BYTES - LENGTH_BYTES + payload) as u32);
    out.put_u8(kind);
    out.put_u8(0);
    out.put_u16_le(0);
}

fn one_word(out: &mut BytesMut, kind: u8, word: u64) {
    control_header(out, kind, 8);
    out.put_u64_le(word);
}

/// W-04: a detail that is too long is left out, not cut: half a detail would be read as a different one.
pub(crate) fn bounded(detail: &[u8]) -> &[u8] {
    if detail.len() > DETAIL_MAX {
        &[]
    } else {
        detail
    }
}

/// Checks what a frame's first eight bytes say, before the rest has come. W-10: flags that exclude each other are reserved.
pub(crate) fn check_head(head: &[u8; CONTROL_HEADER_BYTES], max: u32) -> Result<(), Violation> {
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let kind = head[4];
    let wrong_length = Violation::FrameLength {
        kind,
        length: length.into(),
    };
    let payload = (length as usize).wrapping_sub(CONTROL_HEADER_BYTES - LENGTH_BYTES);
    match kind {
        kind::DATA => {
            // W-05: a length above the limit ends the connection before any of the body is kept.
            if length > max {
                return Err(Violation::FrameTooLong {
                    claimed: length.into(),
                    max: max.into(),
                });
            }
            if (length as usize) < DATA_OVERHEAD_BYTES {
                return Err(wrong_length);
            }
            let Some(flags) = DataFlags::from_bits(head[5]) else {
                return Err(Violation::ReservedBits { kind });
            };
            let body = length as usize - DATA_OVERHEAD_BYTES;
            // W-12: what has a place in a message has something of it; a void has nothing.
            let lawful = if flags.contains(DataFlags::VOID) {
                body == 0
            } else if flags.contains(DataFlags::FIRST) {
                body > FRAGMENT_TOTAL_BYTES
            } else {
                body != 0 || flags.is_whole()
            };
            if !lawful {
                return Err(wrong_length);
            }
        }
        kind::ACK if payload != 16 => return Err(wrong_length),
        kind::CREDIT if payload != 24 => return Err(wrong_length),
        kind::NAME if !(5..=4 + LABEL_NAME_MAX).contains(&payload) => return Err(wrong_length),
        kind::RELEASED
            if !(1..=RELEASED_ENTRIES_MAX * RELEASED_ENTRY_BYTES).contains(&payload)
                || !payload.is_multiple_of(RELEASED_ENTRY_BYTES) =>
        {
            return Err(wrong_length);
        }
        kind::RESOLVED | kind::PING | kind::PONG if payload != 8 => return Err(wrong_length),
        kind::SETTLE if !(16..=16 + DETAIL_MAX).contains(&payload) => return Err(wrong_length),
        kind::GOODBYE if !(12..=12 + DETAIL_MAX).contains(&payload) => return Err(wrong_length),
        kind::ACK..=kind::RELEASED if head[5] != 0 => {
            return Err(Violation::ReservedBits { kind });
        }
        kind::ACK..=kind::RELEASED => {}
        _ if length as usize > CONTROL_FRAME_MAX && length > max => {
            return Err(Violation::FrameTooLong {
                claimed: length.into(),
                max: max.into(),
            });
        }
        _ => return Err(Violation::UnknownKind { kind }),
    }
    // W-02: a newer peer says what it means in the hello, not in bits that an older one would overlook.
    if head[6] != 0 || head[7] != 0 {
        return Err(Violation::ReservedBits { kind });
    }
    Ok(())
}

/// W-11: a name is given to a number from 1 on that a table has room for.
fn read_label(payload: &mut &[u8]) -> Option<Label> {
    let number = payload.get_u32_le();
    (1..=LABELS_MAX)
        .contains(&number)
        .then(|| Label::new(number))
}

/// Reads a whole control frame's payload; `check_head` has passed, so the length is right for the kind.
pub(crate) fn decode_control(kind: u8, mut payload: &[u8]) -> Result<Frame, Violation> {
    let range = Violation::FieldRange { kind };
    let frame = match kind {
        kind::ACK => Frame::Ack {
            received: Seq(payload.get_u64_le()),
            settled: Seq(payload.get_u64_le()),
        },
        kind::SETTLE => {
            let first = Seq(payload.get_u64_le());
            let count = payload.get_u32_le();
            let word = payload.get_u8();
            let pad = payload.get_u8();
            // Details are copied, so that a kept one does not hold the read buffer.
            let code = payload.get_u16_le();
            let refusal = Refusal {
                code,
                detail: Bytes::copy_from_slice(payload),
            };
            if pad != 0 {
                return Err(Violation::ReservedBits { kind });
            }
            if count == 0 || first.0.checked_add(count.into()).is_none() {
                return Err(range);
            }
            let verdict = match word {
                0 if refusal.code == 0 && refusal.detail.is_empty() => Verdict::Delivered,
                1 => Verdict::NotDelivered(refusal),
                2 => Verdict::Unknown(refusal),
                _ => return Err(range),
            };
            Frame::Settle {
                first,
                count,
                verdict,
            }
        }
        kind::CREDIT => Frame::Credit {
            messages: payload.get_u64_le(),
            bytes: payload.get_u64_le(),
            large: payload.get_u64_le(),
        },
        kind::NAME => {
            let label = read_label(&mut payload).ok_or(range)?;
            // Copied, because it is kept for as long as the connection lasts.
            let name = Bytes::copy_from_slice(payload);
            Frame::Name { label, name }
        }
        kind::RELEASED => {
            let mut entries = Vec::with_capacity(payload.len() / RELEASED_ENTRY_BYTES);
            while payload.has_remaining() {
                entries.push(Released {
                    label: read_label(&mut payload).ok_or(range)?,
                    messages: payload.get_u64_le(),
                    bytes: payload.get_u64_le(),
                });
            }
            Frame::Released { entries }
        }
        kind::RESOLVED => Frame::Resolved {
            below: Seq(payload.get_u64_le()),
        },
        kind::PING => Frame::Ping {
            nonce: payload.get_u64_le(),
        },
        kind::PONG => Frame::Pong {
            nonce: payload.get_u64_le(),
        },
        kind::GOODBYE => {
            let received = Seq(payload.get_u64_le());
            let code = payload.get_u16_le();
            if payload.get_u16_le() != 0 {
                return Err(Violation::ReservedBits { kind });
            }
            let detail = Bytes::copy_from_slice(payload);
            Frame::Goodbye(Goodbye {
                received,
                code,
                detail,
            })
        }
        kind => return Err(Violation::UnknownKind { kind }),
    };
    Ok(frame)
}
