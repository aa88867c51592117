//! What a run consists of: nodes, links between them, and the halves of sessions. Data and its small questions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hyperactor_protocol::{Incarnation, Label, Session, Time};

use crate::fault::Nanos;
use crate::labels::{Given, Named};
use crate::rng::Rng;

/// A process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) incarnation: Incarnation,
    pub(super) up: bool,
    pub(super) frozen_until: Nanos,
    pub(super) slow_until: Nanos,
    /// Until when places take nothing.
    pub(super) stuck: BTreeMap<u64, Nanos>,
    /// What frozen places have in their queues: session half, label, bytes.
    pub(super) frozen: Vec<(usize, Label, u32)>,
    drift_ppm: i64,
    offset: Nanos,
}

impl Node {
    pub(super) fn new(incarnation: Incarnation, drift_ppm: i64) -> Self {
        Self {
            incarnation,
            up: true,
            frozen_until: 0,
            slow_until: 0,
            stuck: BTreeMap::new(),
            frozen: Vec::new(),
            drift_ppm,
            offset: 0,
        }
    }

    pub(super) fn jump(&mut self, by: Nanos) {
        self.offset += by;
    }

    pub(super) fn local(&self, now: Nanos) -> Time {
        // At most some hundred seconds and some ten thousand millionths: far from any overflow.
        let skew = now as i64 / 1000 * self.drift_ppm / 1000;
        Time::from_duration(Duration::from_nanos(
            (now + self.offset).saturating_add_signed(skew),
        ))
    }

    /// The first moment at which the node's clock shows `local` or later.
    pub(super) fn moment(&self, local: Time) -> Nanos {
        let target = local.since_start().as_nanos() as u64;
        let near = target.saturating_sub(self.offset);
        let mut guess =
            (i128::from(near) * 1_000_000 / i128::from(1_000_000 + self.drift_ppm)) as u64;
        guess = guess.saturating_sub(2000);
        while self.local(guess) < local {
            guess += 1000;
        }
        guess
    }
}

/// A dialing node, an accepting node, and the way between them.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) ends: [usize; 2],
    pub(super) rng: Rng,
    /// The dialer's half of its session.
    pub(super) dialer: Option<usize>,
    /// The acceptor's states, newest last.
    pub(super) accepted: Vec<usize>,
    /// The newest connection.
    pub(super) newest: Option<usize>,
    pub(super) dial_planned: bool,
    pub(super) attempts: u32,
    /// Messages that found the log full, or no session.
    pub(super) backlog: [VecDeque<Waiting>; 2],
    /// Bytes take longer, by way: how much, and until when.
    pub(super) extra: [(Nanos, Nanos); 2],
    /// Nothing arrives before, by way.
    pub(super) clear_at: [Nanos; 2],
    /// The next connection is cut after so many bytes, by way.
    pub(super) cut_next: [Option<u64>; 2],
    pub(super) sessions: u64,
}

impl Link {
    pub(super) fn new(ends: (usize, usize), rng: Rng) -> Self {
        Self {
            ends: [ends.0, ends.1],
            rng,
            dialer: None,
            accepted: Vec::new(),
            newest: None,
            dial_planned: false,
            attempts: 0,
            backlog: [VecDeque::new(), VecDeque::new()],
            extra: [(0, 0); 2],
            clear_at: [0; 2],
            cut_next: [None; 2],
            sessions: 0,
        }
    }
}

/// A message that is to enter a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    /// A new one, by its place in the scenario.
    Post(usize),
    /// One that a relay passes on: its number, and where its outcome is owed.
    Relayed { id: u64, half: usize, seq: u64 },
}

/// A message in a session's log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) id: u64,
    /// The half and number to which a relay owes the outcome.
    pub(super) owed: Option<(usize, u64)>,
}

/// One end of a session, and what drives it.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) link: usize,
    /// 0 for the dialer, 1 for the acceptor.
    pub(super) side: usize,
    pub(super) node: usize,
    pub(super) session: Session,
    /// The connection it writes to.
    pub(super) conn: Option<usize>,
    /// The earliest timer that will go off.
    pub(super) armed: Nanos,
    /// Its process ended, or it is over and let go.
    pub(super) gone: bool,
    pub(super) lingers: bool,
    pub(super) sent: BTreeMap<u64, Sent>,
    /// Outcomes in order come no earlier than the last.
    pub(super) settle_after: Nanos,
    pub(super) was_blocked: bool,
    pub(super) given: Given,
    pub(super) named: Named,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_reaches_each_time_at_the_moment_it_says() {
        for drift in [-20_000, 0, 19_999] {
            let mut node = Node::new(Incarnation::new(1), drift);
            node.jump(123_456_789);
            for target in [200_000_000_u64, 3_333_333_333, 600_000_000_000] {
                let local = Time::from_duration(Duration::from_nanos(target));
                let at = node.moment(local);
                assert!(node.local(at) >= local);
                assert!(node.local(at.saturating_sub(5000)) < local);
            }
        }
    }
}
