//! The end of a session: closed in order, given up, or finished. Each message gets its outcome here, once.

use super::{Ahead, Session};
use crate::life::{Life, Step};
use crate::{Cause, Event, Failure, Goodbye, Notice, PostId, Time};

impl Session {
    /// Takes no more messages and ends the session when everything has its outcome, both ways. Messages that still
    /// come in are refused with [`Refusal::CLOSING`](crate::Refusal::CLOSING).
    pub fn close(&mut self) {
        if !self.closing && self.life != Life::Closed {
            self.closing = true;
            self.ahead = Ahead::default();
            self.finish_if_drained();
        }
    }

    /// Ends the session now: every message gets its outcome, sent ones as unknown.
    pub fn fail(&mut self, cause: Cause, now: Time) {
        self.touch(now);
        self.give_up(cause);
    }

    pub(super) fn give_up(&mut self, cause: Cause) {
        if self.life == Life::Closed {
            return;
        }
        if self.life == Life::Connected {
            let code = match &cause {
                Cause::Violation(violation) => violation.code(),
                _ => Goodbye::ABANDONED,
            };
            self.farewell = self.last_words(code);
        }
        let sent = self.outbox.sent();
        self.fail_messages(sent, &cause);
        self.step(Step::Fail);
        self.events.push_back(Event::Closed(cause.clone()));
        self.notice(|| Notice::Ended { cause: Some(cause) });
    }

    /// Fails what is unresolved: below `reached` nobody can know, from there on it is certain.
    pub(super) fn fail_messages(&mut self, reached: u64, cause: &Cause) {
        self.fail_range(self.outbox.resolved(), self.outbox.next(), reached, cause);
        // S-36: what waits was never sent, also where parts of it were: its last was not.
        let Self {
            lanes,
            events,
            open,
            ..
        } = self;
        lanes.drain(|post, body| {
            *open -= 1;
            events.push_back(Event::Failed {
                post: PostId(post),
                failure: Failure::NotDelivered(cause.clone()),
                body: Some(body),
            });
        });
        self.outbox.clear();
    }

    pub(super) fn fail_range(&mut self, from: u64, to: u64, reached: u64, cause: &Cause) {
        for seq in from..to {
            if self.outbox.is_unresolved(seq) {
                let failure = if seq < reached {
                    Failure::Unknown(cause.clone())
                } else {
                    Failure::NotDelivered(cause.clone())
                };
                // A deliberate fault for the test of the simulator's oracle: what is dropped counts as delivered.
                let Some((post, body)) = self.take_body(seq, true) else {
                    continue;
                };
                self.open -= 1;
                if cfg!(planted = "P1") && seq < reached {
                    let (first, count) = (PostId(post), 1);
                    self.events.push_back(Event::Resolved { first, count });
                    continue;
                }
                self.events.push_back(Event::Failed {
                    post: PostId(post),
                    failure,
                    body,
                });
            }
        }
    }

    pub(super) fn finish_if_drained(&mut self) {
        if !self.closing || self.open != 0 || !self.inbox.is_settled() {
            return;
        }
        match self.life {
            Life::Connected => self.goodbye_due = true,
            // S-24: nobody to say goodbye to, and nothing left to say; the peer's end expires.
            Life::Detached | Life::Handshaking => self.finish(),
            Life::Closed => {}
        }
    }

    pub(super) fn finish(&mut self) {
        self.step(Step::Finish);
        self.outbox.clear();
        self.events.push_back(Event::Drained);
        self.notice(|| Notice::Ended { cause: None });
    }
}
