//! The frames of a connection as values, and their bytes. Incremental reading stands in `decoder`, the hello in
//! `hello`; what a frame means is the session's matter.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::{
    CONTROL_FRAME_MAX, CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, DETAIL_MAX,
    LENGTH_BYTES,
};
use crate::{Refusal, Seq, Verdict, Violation};

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
}

/// What the sender asks for with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DataFlags(u8);

impl DataFlags {
    /// Nothing in particular.
    pub const NONE: Self = Self(0);
    /// Someone waits for the outcome: it is acknowledged as soon as it is settled.
    pub const ACK_NOW: Self = Self(1);
    /// The place of a message that its sender withdrew before it was sent: no body, nothing to deliver.
    pub const VOID: Self = Self(1 << 7);

    const KNOWN: u8 = Self::ACK_NOW.0 | Self::VOID.0;

    /// Returns whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the byte on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::KNOWN == 0 {
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

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Data {
        /// Its number.
        seq: Seq,
        /// What its sender asks for.
        flags: DataFlags,
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
    /// Appends the frame's bytes. A detail beyond [`DETAIL_MAX`] is left out.
    ///
    /// Data goes through the outgoing log in practice; here it is copied, for tests and tools. A body that no
    /// length field can express (4 GiB) is cut off.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Data { seq, flags, body } => {
                let most = u32::MAX as usize - DATA_OVERHEAD_BYTES;
                let body = body.get(..most).unwrap_or(body);
                out.put_slice(&data_header(*seq, *flags, body.len()));
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
            Self::Credit { messages, bytes } => {
                control_header(out, kind::CREDIT, 16);
                out.put_u64_le(*messages);
                out.put_u64_le(*bytes);
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
            Self::Resolved { .. } => "resolved",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::Goodbye(_) => "goodbye",
        }
    }
}

/// W-03: the 16 bytes before a body. The caller has checked that the length fits its field.
pub(crate) fn data_header(seq: Seq, flags: DataFlags, body: usize) -> [u8; DATA_HEADER_BYTES] {
    let mut header = [0; DATA_HEADER_BYTES];
    header[..4].copy_from_slice(&((body + DATA_OVERHEAD_BYTES) as u32).to_le_bytes());
    header[4] = kind::DATA;
    header[5] = flags.bits();
    header[8..].copy_from_slice(&seq.0.to_le_bytes());
    header
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

/// Checks what a frame's first eight bytes say, before the rest has come.
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
            if flags.contains(DataFlags::VOID) && length as usize != DATA_OVERHEAD_BYTES {
                return Err(wrong_length);
            }
        }
        kind::ACK | kind::CREDIT if payload != 16 => return Err(wrong_length),
        kind::RESOLVED | kind::PING | kind::PONG if payload != 8 => return Err(wrong_length),
        kind::SETTLE if !(16..=16 + DETAIL_MAX).contains(&payload) => return Err(wrong_length),
        kind::GOODBYE if !(12..=12 + DETAIL_MAX).contains(&payload) => return Err(wrong_length),
        kind::ACK..=kind::GOODBYE if head[5] != 0 => return Err(Violation::ReservedBits { kind }),
        kind::ACK..=kind::GOODBYE => {}
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
        },
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
