//! Bytes as a sequence of operations on two ends of a session. The model is the ledger, which knows what happened to each
//! message, and the counts that the drivers keep: both ends have to agree with them after every operation.

use std::time::Duration;

use hyperactor_protocol::{Config, Life, Refusal, Verdict};

use super::{Bytewise, seen, size};
use crate::duo::{ACCEPTOR, Cut, DIALER, Duo, Letter};

/// The most operations of a sequence.
const OPERATIONS_MAX: usize = 200;
/// Rounds in which everything has to come to its end once nothing breaks any more.
const ROUNDS_MAX: usize = 4000;

/// Any bytes as operations.
pub fn fuzz_session(data: &[u8]) -> u64 {
    let mut data = Bytewise(data);
    let mut duo = Duo::new([config(&mut data), config(&mut data)]);
    let mut operations = 0;
    while !data.0.is_empty() && operations < OPERATIONS_MAX {
        operations += 1;
        operate(&mut duo, &mut data);
        duo.compare();
        if duo.ledger.is_flawed() {
            break;
        }
    }
    let unresolved = duo.ledger.open();
    finish(&mut duo);
    let (posted, facts) = (duo.ledger.next(), duo.seen);
    let lives = [DIALER, ACCEPTOR].map(|side| duo.session(side).map(|session| session.life()));
    let flaws = duo.ledger.judge();
    assert!(flaws.is_empty(), "{flaws:?}");
    seen(&[
        size(posted),
        size(unresolved),
        size(facts.fenced) << 4 | size(facts.refusals),
        size(facts.resumed) << 4 | size(facts.fresh),
        size(facts.unknown) << 4 | size(facts.full).min(15),
        u64::from(lives[0] == Some(Life::Connected)) | u64::from(lives[1].is_some()) << 1,
        size(facts.parts),
    ])
}

fn config(data: &mut Bytewise<'_>) -> Config {
    let silence = Duration::from_millis(300);
    Config {
        window_messages: 1 << data.below(7),
        window_bytes: 64 << data.below(12),
        outbox_messages: 2 << data.below(6),
        outbox_bytes: 256 << data.below(10),
        max_frame: 4096,
        max_message: 8192,
        fragment_bytes: 64 << data.below(6),
        part_bytes: 1024,
        ack_every: 1 << data.below(5),
        ack_delay: Duration::from_millis(5),
        handshake_timeout: silence / 2,
        keepalive_idle: silence / 3,
        silence_timeout: silence,
        delivery_timeout: silence * 3,
        session_ttl: silence * 6,
    }
}

fn operate(duo: &mut Duo, data: &mut Bytewise<'_>) {
    let first = data.byte();
    let (what, more) = (first % 16, first / 16);
    let side = usize::from(more % 2);
    let newest = duo.wires.len().checked_sub(1);
    match what {
        0..=3 => {
            let draw = data.byte();
            let size = match draw {
                0..=99 => 16,
                100..=219 => u32::from(draw),
                220..=249 => u32::from(draw) * 4,
                250..=254 => u32::from(draw) * 20,
                255 => 9000,
            };
            let letter = Letter {
                size,
                to: u64::from(what) * 2,
                from: u64::from(more / 4),
                urgent: more % 4 > 1,
            };
            duo.post(side, letter);
        }
        4 => {
            if duo.is_detached() || more == 0 {
                duo.dial();
            }
        }
        5..=8 => {
            if let Some(newest) = newest {
                for _ in 0..=more / 2 {
                    duo.deliver(newest, usize::from(what % 2));
                }
            }
        }
        9 => {
            let wire = usize::from(data.byte());
            if let Some(newest) = newest {
                duo.deliver(wire % (newest + 1), side);
            }
        }
        10 | 11 => {
            let draw = data.byte();
            let at = usize::from(draw) % duo.held(side).max(1);
            let verdict = match draw / 32 {
                0 => Verdict::NotDelivered(Refusal::new(7)),
                1 => Verdict::Unknown(Refusal::new(8)),
                _ => Verdict::Delivered,
            };
            duo.settle(side, at, verdict, what == 11);
        }
        12 => {
            duo.release(side);
        }
        13 => duo.cut(if side == 0 { Cut::Dialer } else { Cut::Both }),
        14 => {
            let wait = [1, 6, 40, 110, 160, 310, 950, 2000][usize::from(more / 2)];
            duo.wait(side, Duration::from_millis(wait));
        }
        _ => match more {
            0..=3 => duo.restart(side),
            4..=7 => duo.lose(side),
            8..=11 => duo.close(side),
            12 => duo.abandon(side),
            _ => {}
        },
    }
}

/// Nothing breaks any more: everything is delivered, settled and released until every message has its outcome.
fn finish(duo: &mut Duo) {
    for _ in 0..ROUNDS_MAX {
        if duo.ledger.open() == 0 || duo.ledger.is_flawed() {
            return;
        }
        if duo.is_detached() {
            duo.dial();
        }
        for wire in 0..duo.wires.len() {
            for side in [ACCEPTOR, DIALER] {
                while duo.deliver(wire, side) {}
            }
        }
        for side in [DIALER, ACCEPTOR] {
            while duo.held(side) != 0 {
                duo.settle(side, 0, Verdict::Delivered, false);
            }
            while duo.release(side) {}
            duo.wait(side, Duration::from_millis(5));
        }
    }
}

/// Inputs to begin from: ordinary traffic, with a break in each of the later ones.
pub fn session_seeds() -> Vec<Vec<u8>> {
    let ordinary = [
        3, 9, 4, 6, 2, 3, 3, 9, 4, 6, 2, 3, 0, 0, 1, 100, 2, 250, 4, 5, 6, 255, 254, 10, 64, 11,
        64, 12, 250,
    ];
    let breaks: [&[u8]; 7] = [&[], &[13], &[29], &[15], &[95], &[143], &[207]];
    let joined = |middle: &&[u8]| [&ordinary, *middle, &ordinary[12..]].concat();
    breaks.iter().map(joined).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_break_nothing() {
        for seed in session_seeds() {
            fuzz_session(&seed);
        }
    }

    #[test]
    fn drawn_operations_break_nothing_and_reach_much() {
        let mut rng = crate::Rng::new(1, 9);
        let mut all = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let input: Vec<u8> = (0..rng.small(20, 600))
                .map(|_| rng.next_u64() as u8)
                .collect();
            all.insert(fuzz_session(&input));
        }
        assert!(all.len() > 100, "only {} kinds of outcome", all.len());
    }
}
