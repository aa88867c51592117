//! The control stream between a host and one child: what is said on it and how it is framed. The stream itself is
//! one end of a Unix socket pair each; that it ends is a message too: the other side is gone.
//!
//! A frame is a length (four bytes, little-endian) and that many bytes of postcard.

use std::sync::Arc;
use std::time::Duration;

use hyperactor_host::DeathCertificate;
use hyperactor_refs::{ChannelAddr, Incarnation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits;

const LENGTH_BYTES: usize = 4;

/// What a host says to a child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToChild {
    /// The child's limits are set: it may run. The first frame of all.
    Go,
    /// These procs of the host are up and can be dialled.
    Up(Vec<Sibling>),
    /// This life of a proc is over.
    Gone(Arc<DeathCertificate>),
    /// The host is about to end everything: the last child to go takes the socket directory along.
    Closing,
    /// End, letting the actors empty their mailboxes first.
    Drain { deadline: Duration },
    /// End now, in order.
    Stop,
    /// The proc is this host's again. With it come the descriptors to which the process writes from now on, if its output is
    /// read.
    Welcome,
    /// The proc is not this host's, which has no place for it: it ends.
    Refused { reason: String },
}

/// One life of a proc on the same host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sibling {
    pub(crate) name: String,
    pub(crate) incarnation: Incarnation,
}

/// What a child says to its host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromChild {
    /// The proc's socket is served and its agent runs.
    Ready { addr: ChannelAddr },
    /// The proc cannot start; the process ends.
    Failed { code: String, reason: String },
    /// The proc has ended and the process is about to, with this status.
    Ending { flushed: bool, status: i32 },
    /// This is the proc of an earlier life of the host.
    Claim {
        name: String,
        incarnation: Incarnation,
    },
    /// The welcome was heard: the proc obeys this host.
    Back,
}

/// Why the other side's bytes were refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("a control frame of {length} bytes is longer than {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("a control frame does not decode: {0}")]
    Decode(postcard::Error),
}

/// Writes one frame.
pub(crate) fn encode(frame: &impl Serialize) -> Result<Vec<u8>, ControlError> {
    let mut bytes =
        postcard::to_extend(frame, vec![0; LENGTH_BYTES]).map_err(ControlError::Decode)?;
    let length = bytes.len() - LENGTH_BYTES;
    let limit = limits::CONTROL_FRAME_BYTES_MAX;
    let prefix = u32::try_from(length).ok().filter(|_| length <= limit);
    let prefix = prefix.ok_or(ControlError::TooLong { length, limit })?;
    bytes[..LENGTH_BYTES].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes)
}

/// Takes frames out of a stream of bytes, however it is cut. Never holds more than one frame and one read.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pending: Vec<u8>,
}

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, or `None` when more bytes are needed.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let Some((prefix, rest)) = self.pending.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        let limit = limits::CONTROL_FRAME_BYTES_MAX;
        if length > limit {
            return Err(ControlError::TooLong { length, limit });
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = postcard::from_bytes(body).map_err(ControlError::Decode)?;
        self.pending.drain(..LENGTH_BYTES + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<ToChild> {
        let sibling = |name: &str| Sibling {
            name: name.to_owned(),
            incarnation: Incarnation::new(7),
        };
        vec![
            ToChild::Up(vec![sibling("a"), sibling("b")]),
            ToChild::Go,
            ToChild::Gone(Arc::new(DeathCertificate::new(
                Arc::new(hyperactor_refs::ProcId::Direct(
                    "unix:@h".parse().unwrap(),
                    "a".to_owned(),
                )),
                Incarnation::new(7),
                hyperactor_host::ProcExit::Signalled(9),
            ))),
            ToChild::Drain {
                deadline: Duration::from_millis(1500),
            },
            ToChild::Closing,
            ToChild::Stop,
        ]
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        let bytes: Vec<u8> = frames()
            .iter()
            .flat_map(|frame| encode(frame).unwrap())
            .collect();
        for size in 1..=bytes.len() {
            let mut reader = Frames::default();
            let mut out = Vec::new();
            for chunk in bytes.chunks(size) {
                reader.push(chunk);
                while let Some(frame) = reader.next::<ToChild>().unwrap() {
                    out.push(frame);
                }
            }
            assert_eq!(out, frames(), "cut into chunks of {size}");
        }
    }

    #[test]
    fn a_claimed_length_above_the_limit_is_refused_before_its_bytes_arrive() {
        let mut reader = Frames::default();
        reader.push(&u32::MAX.to_le_bytes());
        assert!(matches!(
            reader.next::<ToChild>(),
            Err(ControlError::TooLong { .. })
        ));
    }

    #[test]
    fn bytes_that_are_no_frame_are_an_error_and_not_a_panic() {
        let mut reader = Frames::default();
        reader.push(&[2, 0, 0, 0, 0xff, 0xff]);
        assert!(matches!(
            reader.next::<ToChild>(),
            Err(ControlError::Decode(_))
        ));
    }
}
