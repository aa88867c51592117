//! The refusal codes that this crate uses between its two ends, above those of applications and below those of the
//! protocol, and their translation into a [`Reason`].

use hyperactor_protocol::{Refusal, Verdict};

use crate::limits::DETAIL_BYTES_MAX;
use crate::{Failure, Reason};

/// Refusal codes from here up belong to the channel and the protocol; an application uses lower ones.
pub const REFUSAL_RESERVED_FROM: u16 = 0xFE00;

/// The receiver could not decode the message; the detail is the text.
const REFUSAL_DECODE: u16 = 0xFE01;
/// Nobody receives any more on the other side.
const REFUSAL_CLOSED: u16 = 0xFE02;
/// The verdict on a message that does not decode.
pub(crate) fn undecodable(text: &str) -> Verdict {
    Verdict::NotDelivered(Refusal::new(REFUSAL_DECODE).with_detail(clip(text).as_bytes().to_vec()))
}

/// The verdict on a message that nobody receives.
pub(crate) fn nobody_receives() -> Verdict {
    Verdict::NotDelivered(Refusal::new(REFUSAL_CLOSED))
}

/// The first part of a text, cut at a character border.
pub(crate) fn clip(text: &str) -> &str {
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What a verdict of the receiver means to the sender; `None` is delivered.
pub(crate) fn verdict(verdict: Verdict) -> Option<Failure> {
    match verdict {
        Verdict::Delivered => None,
        Verdict::NotDelivered(refusal) => Some(Failure::NotDelivered(refused(refusal))),
        Verdict::Unknown(refusal) => Some(Failure::Unknown(refused(refusal))),
    }
}

/// What a refusal of the receiver means to the sender.
pub(crate) fn refused(refusal: Refusal) -> Reason {
    match refusal.code {
        REFUSAL_DECODE => Reason::Decode(String::from_utf8_lossy(&refusal.detail).into_owned()),
        REFUSAL_CLOSED | Refusal::CLOSING => Reason::PeerClosed,
        _ => Reason::Remote(refusal),
    }
}
