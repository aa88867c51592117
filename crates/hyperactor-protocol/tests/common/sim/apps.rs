//! The applications of the simulation: what they settle, release and are told, and the judgement over all of it.

use super::*;

impl Sim {
    pub(super) fn settle_some(&mut self, side: Side, at_most: usize) {
        let node = &mut self.nodes[side as usize];
        let Some(session) = &mut node.session else {
            return;
        };
        for _ in 0..node.unsettled.len().min(at_most) {
            // Mostly the oldest, sometimes another: out of order.
            let at = if self.rng.chance(3) {
                self.rng.below(node.unsettled.len() as u64)
            } else {
                0
            };
            let (seq, id) = node.unsettled.remove(at as usize);
            let verdict = match self.rng.below(12) {
                0 => Verdict::NotDelivered(Refusal::new(7).with_detail(id.to_string())),
                1 => Verdict::Unknown(Refusal::new(8)),
                _ => Verdict::Delivered,
            };
            self.ledger[side.other() as usize][id as usize].said = Some(verdict.clone());
            let _ = session.settle(seq, verdict);
        }
    }

    pub(super) fn release_some(&mut self, side: Side, at_most: usize) {
        let node = &mut self.nodes[side as usize];
        let Some(session) = &mut node.session else {
            return;
        };
        if node.queue.len() >= self.config.window_messages as usize {
            self.seen.blocked += 1;
        }
        for (to, size) in node.queue.drain(..at_most.min(node.queue.len())) {
            let _ = session.release(to, size);
        }
    }

    pub(super) fn take_events(&mut self, side: Side) {
        let node = &mut self.nodes[side as usize];
        let Some(session) = &mut node.session else {
            return;
        };
        let id = session.id();
        while let Some(event) = session.poll_event() {
            let ledger = &mut self.ledger[side as usize];
            record(ledger, &mut self.seen, &node.posted, id, event, self.seed);
        }
    }

    /// Every message has one outcome, and it is true.
    pub(super) fn judge(&mut self) {
        for side in [Side::Dialer, Side::Acceptor] {
            for (id, entry) in self.ledger[side as usize].iter().enumerate() {
                let seed = self.seed;
                let context = format_args!("seed {seed}, {side:?}'s message {id}: {entry:?}");
                assert_eq!(entry.told.len(), 1, "not one outcome: {context}");
                match (&entry.told[0], &entry.said) {
                    (Ok(()), said) => assert_eq!(*said, Some(Verdict::Delivered), "{context}"),
                    (Err(Failure::NotDelivered(cause)), Some(Verdict::NotDelivered(refusal))) => {
                        assert_eq!(
                            *cause,
                            hyperactor_protocol::Cause::Refused(refusal.clone()),
                            "{context}"
                        );
                        assert_eq!(refusal.detail, id.to_string(), "{context}");
                    }
                    (Err(Failure::NotDelivered(_)), said) => {
                        assert_eq!((entry.placed, said), (0, &None), "{context}");
                    }
                    (Err(Failure::Unknown(_)), _) => {}
                }
            }
        }
    }
}
