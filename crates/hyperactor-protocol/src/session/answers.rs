//! What the peer says of messages that went to it: acknowledgements, outcomes, credit, its goodbye. Each is checked against what
//! was sent before anything changes. What comes in of its own stands in `input`.

use bytes::Bytes;

use super::Session;
use crate::lanes::{Amount, Whole, free_of};
use crate::life::Step;
use crate::outbox::Entry;
use crate::{
    Accept, Cause, Event, Failure, Goodbye, Notice, PostId, Refusal, Released, Seq, Verdict,
    Violation,
};

impl Session {
    pub(super) fn on_ack(&mut self, received: Seq, settled: Seq) -> Result<Accept, Violation> {
        // S-18: what a peer says of our messages is believed only within what was sent on this connection.
        let sent = self.outbox.position();
        // P7 is a deliberate fault for the test of the simulator's oracle: any acknowledgement is believed.
        if received.0 > sent && !cfg!(planted = "P7") {
            return Err(Violation::AckOfUnsent {
                seq: received,
                sent: Seq(sent),
            });
        }
        if settled > received {
            return Err(Violation::SettledBeyondReceived { settled, received });
        }
        if received.0 < self.acked_received {
            return Err(Violation::AckWentBack {
                from: Seq(self.acked_received),
                to: received,
            });
        }
        if settled.0 < self.acked_settled {
            return Err(Violation::AckWentBack {
                from: Seq(self.acked_settled),
                to: settled,
            });
        }
        self.acked_received = received.0;
        self.acked_settled = settled.0;
        let Self {
            events,
            outbox,
            lanes,
            open,
            ..
        } = self;
        outbox.resolve_below(settled.0, |entry, count| {
            let first = match entry {
                Entry::Part => return,
                Entry::Whole(first) => first,
                Entry::Last(post) => {
                    lanes.take_whole(post);
                    post
                }
            };
            *open -= count;
            push_resolved(events, first, count);
        });
        self.after_outcomes();
        Ok(Accept::Handled)
    }

    pub(super) fn on_settle(
        &mut self,
        first: Seq,
        count: u32,
        verdict: &Verdict,
    ) -> Result<Accept, Violation> {
        let sent = self.outbox.position();
        let end = first.0.saturating_add(count.into());
        if end > sent {
            return Err(Violation::AckOfUnsent {
                seq: Seq(end),
                sent: Seq(sent),
            });
        }
        // What is settled was received.
        self.acked_received = self.acked_received.max(end);
        let failure = match verdict {
            Verdict::Delivered => None,
            Verdict::NotDelivered(refusal) => Some(Failure::NotDelivered(cause(refusal))),
            Verdict::Unknown(refusal) => Some(Failure::Unknown(cause(refusal))),
        };
        // S-19: an outcome that is known stays; the settlement of a message that has one is ignored.
        let mut next = first.0;
        loop {
            // What is resolved is stepped over, not looked at: the same can be said again and again.
            let seq = self.outbox.first_unresolved(next);
            if seq >= end {
                break;
            }
            next = seq + 1;
            // The outcome of a part means nothing: that of the last is the message's.
            if let Some((post, body)) = self.take_body(seq, failure.is_some()) {
                self.open -= 1;
                match &failure {
                    None => push_resolved(&mut self.events, post, 1),
                    Some(failure) => {
                        let (post, failure) = (PostId(post), failure.clone());
                        self.events.push_back(Event::Failed {
                            post,
                            failure,
                            body,
                        });
                    }
                }
            }
            self.outbox.resolve_one(seq);
        }
        if failure.is_some() {
            self.refused_below = self.refused_below.max(end);
        }
        self.after_outcomes();
        Ok(Accept::Handled)
    }

    fn after_outcomes(&mut self) {
        // S-20: a refusal that came ahead of its turn is let go of once everything before it is resolved, also when
        // we have said in between how far that was.
        let resolved = self.outbox.resolved().min(self.refused_below);
        if resolved > self.resolved_said && !self.resolved_unsaid {
            self.resolved_unsaid = true;
            let _timer_or_already_running = self.want_ack_soon();
        }
        self.serve();
        self.finish_if_drained();
    }

    /// What a number in the log stands for, with its body if it is wanted; none for a part. The body of a message in
    /// parts is let go of.
    pub(super) fn take_body(&mut self, seq: u64, wanted: bool) -> Option<(u64, Option<Bytes>)> {
        match self.outbox.entry(seq)? {
            Entry::Part => None,
            Entry::Whole(post) if wanted => Some((post, self.outbox.message(seq))),
            Entry::Whole(post) => Some((post, None)),
            Entry::Last(post) => {
                let whole = self.lanes.take_whole(post);
                Some((post, whole.filter(|_| wanted).map(Whole::body)))
            }
        }
    }

    pub(super) fn on_credit(
        &mut self,
        messages: u64,
        bytes: u64,
        large: u64,
    ) -> Result<Accept, Violation> {
        let granted = self.credit_from(messages, bytes);
        if granted.messages < self.credit.messages || granted.bytes < self.credit.bytes {
            return Err(Violation::CreditShrank);
        }
        self.lanes.grant_large(large)?;
        self.credit = granted;
        self.lanes.note_free(free_of(granted, &self.outbox));
        self.serve();
        Ok(Accept::Handled)
    }

    pub(super) fn on_released(&mut self, entries: &[Released]) -> Result<Accept, Violation> {
        for each in entries {
            let now = Amount {
                messages: each.messages,
                bytes: each.bytes,
            };
            self.lanes.released(each.label, now)?;
        }
        self.serve();
        Ok(Accept::Handled)
    }

    pub(super) fn on_resolved(&mut self, below: Seq) -> Result<Accept, Violation> {
        self.inbox.resolved(below)?;
        let _driver_transmits_after_input = self.offer_credit();
        Ok(Accept::Handled)
    }

    pub(super) fn on_goodbye(&mut self, goodbye: Goodbye) -> Result<Accept, Violation> {
        let sent = self.outbox.position();
        if goodbye.received.0 > sent {
            return Err(Violation::AckOfUnsent {
                seq: goodbye.received,
                sent: Seq(sent),
            });
        }
        if goodbye.received.0 < self.acked_received {
            let from = Seq(self.acked_received);
            return Err(Violation::AckWentBack {
                from,
                to: goodbye.received,
            });
        }
        // S-22: what the peer never received it never will; what it received and did not settle nobody knows.
        let reached = goodbye.received.0;
        self.fail_messages(reached, &Cause::PeerClosed { code: goodbye.code });
        self.step(Step::Goodbye);
        self.events.push_back(Event::PeerGoodbye(goodbye));
        self.notice(|| Notice::Ended { cause: None });
        Ok(Accept::Handled)
    }
}

/// Reserved codes are the protocol's, the rest the application's.
fn cause(refusal: &Refusal) -> Cause {
    if refusal.code == Refusal::CLOSING {
        Cause::PeerClosed {
            code: Goodbye::DONE,
        }
    } else {
        Cause::Refused(refusal.clone())
    }
}

/// Joins a run to the one before where they touch.
fn push_resolved(events: &mut std::collections::VecDeque<Event>, first: u64, run: u64) {
    if let Some(Event::Resolved {
        first: start,
        count,
    }) = events.back_mut()
        && start.0 + *count == first
    {
        *count += run;
        return;
    }
    events.push_back(Event::Resolved {
        first: PostId(first),
        count: run,
    });
}
