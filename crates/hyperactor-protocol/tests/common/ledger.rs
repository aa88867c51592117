//! What became of each message, and what its sender was told.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use hyperactor_protocol::{Event, Failure, SessionId, Verdict};

/// What the ledger knows of one message.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub size: usize,
    /// Where it goes; 0 for nowhere in particular.
    pub lane: u32,
    /// How often it was placed, and what its receiver said.
    pub placed: u32,
    pub said: Option<Verdict>,
    /// What its sender was told.
    pub told: Vec<Result<(), Failure>>,
}

/// How often each thing that must be seen was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub posted: u64,
    pub delivered: u64,
    pub not_delivered: u64,
    pub unknown: u64,
    pub resumed_with_unresolved: u64,
    pub fresh: u64,
    pub duplicates: u64,
    pub fenced: u64,
    pub cut_in_hello: u64,
    pub cut_in_frame: u64,
    pub stale_hello: u64,
    pub full: u64,
    pub blocked: u64,
    pub expired: u64,
    pub lane_full: u64,
    pub waiting: u64,
    pub assembling: u64,
    pub resumed_in_parts: u64,
    pub fresh_in_parts: u64,
    pub renamed: u64,
}

pub fn body(id: u64, size: usize) -> Bytes {
    // A copy of a part of something longer: made byte by byte it costs more than all that is tested with it.
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..128 * 1024).map(|at| at as u8).collect());
    let mut bytes = id.to_le_bytes().to_vec();
    let from = id as usize % 256;
    bytes.extend_from_slice(&PATTERN[from + 8..from + size.max(8)]);
    bytes.into()
}

pub fn record(
    ledger: &mut [Entry],
    seen: &mut Seen,
    posted: &BTreeMap<(SessionId, u64), u64>,
    session: SessionId,
    event: Event,
    seed: u64,
) {
    match event {
        Event::Resolved { first, count } => {
            for seq in first.0..first.0 + count {
                ledger[posted[&(session, seq)] as usize].told.push(Ok(()));
            }
            seen.delivered += count;
        }
        Event::Failed {
            post: seq,
            failure,
            body,
        } => {
            let id = posted[&(session, seq.0)];
            let entry = &mut ledger[id as usize];
            assert_eq!(
                body,
                Some(self::body(id, entry.size)),
                "seed {seed}: the body came back changed"
            );
            if failure.is_certain() {
                seen.not_delivered += 1;
            } else {
                seen.unknown += 1;
            }
            entry.told.push(Err(failure));
        }
        _ => {}
    }
}
