//! Connections come and go: hellos made and judged, and where both halves go on.

use super::{Role, Session};
use crate::hello::{VERSION_MAX, VERSION_MIN};
use crate::lanes::Amount;
use crate::life::{Life, Step};
use crate::limits::{ASSUMED_BYTES, ASSUMED_MESSAGES, COUNT_MAX, FRAME_MAX_FLOOR, SILENCE_FLOOR};
use crate::outbox::Credit;
use crate::{
    Cause, ConnectionEpoch, Event, Extensions, Failure, Hello, HelloCode, HelloError, HelloKind,
    Notice, PostId, Seq, Time, Violation,
};

/// What a hello led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established {
    /// The connection's number: to be given with everything that comes from it.
    pub epoch: ConnectionEpoch,
    /// Whether the peer still had the session's state.
    pub resumed: bool,
}

impl Session {
    /// Makes the hello of this side. Dialer: for a new connection, which fences the one before. Acceptor: the answer
    /// to the hello that [`on_hello`](Self::on_hello) accepted last.
    ///
    /// A session that is over makes a hello that the peer will refuse; check [`is_closed`](Self::is_closed) first.
    pub fn hello(&mut self, now: Time) -> Hello {
        self.touch(now);
        let kind = match self.role {
            Role::Dialer => {
                if self.life != Life::Closed {
                    self.forget_connection();
                    self.step(Step::Dial);
                    self.since = self.now;
                }
                // S-07: every connection has a higher number than all before.
                self.epoch.0 += 1;
                HelloKind::Open
            }
            Role::Acceptor if self.life == Life::Closed => HelloKind::Refused(HelloCode::Ended),
            Role::Acceptor if self.was_resumed => HelloKind::AcceptedResumed,
            Role::Acceptor => HelloKind::AcceptedFresh,
        };
        let (credit_messages, credit_bytes) = self.inbox.grant();
        self.assemblies.resume();
        Hello {
            kind,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            incarnation: self.local,
            expected: match self.role {
                Role::Dialer => self.expected,
                Role::Acceptor => self.peer,
            },
            session: self.id,
            epoch: self.epoch,
            born: self.born,
            next_expected: Seq(self.inbox.next()),
            received_bytes: self.inbox.bytes(),
            oldest_unresolved: Seq(self.outbox.resolved()),
            next_unsent: Seq(self.outbox.sent()),
            credit_messages,
            credit_bytes,
            max_frame: self.config.max_frame,
            max_message: self.config.max_message,
            credit_large: self.assemblies.grant(),
            extensions: Extensions::of_silence(self.config.silence_timeout),
        }
    }

    /// Judges the peer's hello and, if it is accepted, goes on over the new connection.
    ///
    /// # Errors
    ///
    /// The connection is of no use. An acceptor's session is as it was before, except that
    /// [`HelloError::StaleState`] ends it; [`Hello::refusal`] with [`HelloError::code`] is the answer. A dialer's session waits for another connection
    /// if [`HelloError::is_retryable`], and has failed otherwise.
    pub fn on_hello(&mut self, theirs: &Hello, now: Time) -> Result<Established, HelloError> {
        self.touch(now);
        let judged = match self.role {
            Role::Acceptor => self.judge_open(theirs),
            Role::Dialer => self.judge_answer(theirs),
        };
        judged.inspect_err(|error| {
            self.notice(|| Notice::HelloFailed {
                error: error.clone(),
            });
        })
    }

    fn judge_open(&mut self, theirs: &Hello) -> Result<Established, HelloError> {
        if theirs.kind != HelloKind::Open {
            return Err(HelloError::Unexpected);
        }
        check_shape(theirs)?;
        if theirs.session != self.id {
            return Err(HelloError::Malformed { field: "session" });
        }
        self.check_lives(theirs)?;
        if self.life == Life::Closed {
            return Err(HelloError::Ended);
        }
        // S-08: only a higher number replaces a connection.
        if theirs.epoch <= self.epoch {
            return Err(HelloError::StaleEpoch {
                got: theirs.epoch,
                newest: self.epoch,
            });
        }
        // S-10: the dialer never took an answer of a state that it does not know, so nothing came into it. If the
        // numbers differ all the same, a hello that came late made this state, and what passed since is unknown here.
        let moved = theirs.next_unsent.0 != self.inbox.next()
            || theirs.next_expected.0 != self.acked_received;
        if theirs.born != self.born && moved {
            let (born, known) = (self.born, theirs.born);
            self.give_up(Cause::SessionLost);
            return Err(HelloError::StaleState { born, known });
        }
        let resumed = self.peer.is_some();
        self.go_on(theirs, resumed)?;
        Ok(self.connected(theirs, resumed))
    }

    fn judge_answer(&mut self, theirs: &Hello) -> Result<Established, HelloError> {
        if self.life != Life::Handshaking {
            return Err(HelloError::Unexpected);
        }
        if theirs.session != self.id || theirs.epoch != self.epoch {
            return Err(HelloError::StaleEpoch {
                got: theirs.epoch,
                newest: self.epoch,
            });
        }
        self.try_answer(theirs).inspect_err(|error| {
            if error.is_retryable() {
                self.lose();
            } else {
                self.give_up(match error {
                    HelloError::Violation(violation) => Cause::Violation(*violation),
                    error => Cause::HelloRefused(error.code()),
                });
            }
        })
    }

    fn try_answer(&mut self, theirs: &Hello) -> Result<Established, HelloError> {
        let says_fresh = match theirs.kind {
            HelloKind::Refused(code) => return Err(HelloError::Refused { code }),
            HelloKind::Open => return Err(HelloError::Unexpected),
            HelloKind::AcceptedFresh => true,
            HelloKind::AcceptedResumed => false,
        };
        check_shape(theirs)?;
        self.check_lives(theirs)?;
        let same_state = self.peer == Some(theirs.incarnation) && self.born == theirs.born;
        if says_fresh && same_state {
            return Err(HelloError::Malformed { field: "born" });
        }
        // S-10: an answer that says "resumed" may come from a state whose first answer was lost on the way. What the
        // state before it had received is unknown to it, so its birth decides.
        // P4 is a deliberate fault for the test of the simulator's oracle: a new life is taken for the old one.
        if !same_state && !cfg!(planted = "P4") {
            self.peer_is_new(theirs)?;
        }
        self.go_on(theirs, same_state)?;
        self.born = theirs.born;
        Ok(self.connected(theirs, same_state))
    }

    fn check_lives(&self, theirs: &Hello) -> Result<(), HelloError> {
        if let Some(expected) = theirs.expected
            && expected != self.local
        {
            return Err(HelloError::WrongIncarnation {
                expected,
                found: self.local,
            });
        }
        // S-09: an acceptor's session belongs to the life that opened it; a dialer may insist on one.
        let insisted = match self.role {
            Role::Acceptor => self.peer,
            Role::Dialer => self.expected,
        };
        match insisted {
            Some(expected) if expected != theirs.incarnation => Err(HelloError::WrongIncarnation {
                expected,
                found: theirs.incarnation,
            }),
            _ => Ok(()),
        }
    }

    /// S-11: what was sent to another life, or to a state that is forgotten, has no outcome that can be learned.
    fn peer_is_new(&mut self, theirs: &Hello) -> Result<(), HelloError> {
        let sent = self.outbox.sent();
        if theirs.next_expected.0 != sent {
            return Err(foreign(theirs.next_expected, sent, sent).into());
        }
        let cause = self.why_anew(theirs);
        let unknown = self.fail_sent(&Failure::Unknown(cause));
        if unknown != 0 {
            self.notice(|| Notice::PeerRestarted { unknown });
        }
        self.acked_received = sent;
        self.acked_settled = sent;
        self.inbox.forget();
        self.shares.forget();
        self.assemblies.forget();
        self.urgent_below = 0;
        self.resolved_unsaid = false;
        Ok(())
    }

    fn why_anew(&self, theirs: &Hello) -> Cause {
        if self.peer == Some(theirs.incarnation) {
            Cause::SessionLost
        } else {
            Cause::PeerRestarted
        }
    }

    fn fail_sent(&mut self, failure: &Failure) -> u64 {
        let (from, sent) = (self.outbox.resolved(), self.outbox.sent());
        let before = self.open;
        self.fail_range(from, sent, sent, failure.cause());
        self.outbox.rewind(sent);
        self.outbox.resolve_below(sent, |_, _| {});
        before - self.open
    }

    /// Checks where the peer's halves stand, and sets ours.
    fn go_on(&mut self, theirs: &Hello, resumed: bool) -> Result<(), Violation> {
        // Their sending half: it cannot have less sent than we received, nor know outcomes that we did not give.
        if theirs.next_unsent.0 < self.inbox.next() {
            return Err(foreign(theirs.next_unsent, self.inbox.next(), COUNT_MAX));
        }
        if theirs.oldest_unresolved.0 > self.inbox.settled() {
            let settled = Seq(self.inbox.settled());
            return Err(Violation::ResolvedUnsettled {
                below: theirs.oldest_unresolved,
                settled,
            });
        }
        // S-06: the receiver names the point where the sender goes on, and it lies within what was sent.
        let at = theirs.next_expected;
        let low = self.acked_received.max(self.outbox.resolved());
        let high = self.outbox.sent();
        if at.0 < low || at.0 > high || !self.outbox.rewind(at.0) {
            return Err(foreign(at, low, high));
        }
        let (theirs_base, ours_base) = self.bytes_base;
        let ours = self.outbox.position_bytes();
        if resumed
            && theirs.received_bytes.wrapping_sub(theirs_base) != ours.wrapping_sub(ours_base)
        {
            return Err(Violation::ForeignBytes {
                theirs: theirs.received_bytes,
                ours,
            });
        }
        let limits = (theirs.max_frame, theirs.max_message);
        if resumed && self.peer_limits.is_some_and(|known| known != limits) {
            return Err(Violation::LimitsChanged);
        }
        self.bytes_base = (theirs.received_bytes, ours);
        let granted = self.credit_from(theirs.credit_messages, theirs.credit_bytes);
        if resumed && (granted.messages < self.credit.messages || granted.bytes < self.credit.bytes)
        {
            return Err(Violation::CreditShrank);
        }
        self.inbox.resolved(theirs.oldest_unresolved)?;
        self.credit = granted;
        if at.0 > self.acked_received {
            // S-27: that the peer greets is no progress; that it has received more is.
            self.acked_received = at.0;
            self.progress = self.now;
        }
        self.peer_limits = Some(limits);
        // Both sides take the smaller limits.
        self.set_sizes(
            self.config.max_frame.min(theirs.max_frame),
            self.config.max_message.min(theirs.max_message),
        );
        let free = Amount {
            messages: granted.messages.saturating_sub(at.0),
            bytes: granted.bytes.saturating_sub(ours),
        };
        if !resumed {
            self.lanes.set_window(free);
            self.fit(free, &self.why_anew(theirs));
        }
        self.lanes.resume(at.0, theirs.credit_large);
        Ok(())
    }

    /// Makes what was never sent fit a peer whose state is new.
    fn fit(&mut self, free: Amount, cause: &Cause) {
        let Self {
            lanes,
            outbox,
            events,
            open,
            sizes,
            ..
        } = self;
        let limit = sizes.fragment.min(sizes.message);
        // S-30: what went into the log while a larger window was assumed has to find its share of this one.
        let is_narrow = free.messages < ASSUMED_MESSAGES || free.bytes < ASSUMED_BYTES;
        // A state before this one may have been known without anything being sent to it: what was cut for it is in the
        // log all the same.
        if self.peer.is_some() || outbox.largest() > limit || is_narrow {
            // S-36: of a message of which only parts were sent, the rest will never follow.
            lanes.begin_anew(outbox, |post, body| {
                *open -= 1;
                events.push_back(Event::Failed {
                    post: PostId(post),
                    failure: Failure::NotDelivered(cause.clone()),
                    body: Some(body),
                });
            });
        }
        // S-21: one that is too large for this peer fails alone.
        let max = sizes.message;
        lanes.withdraw_larger(max, |post, size, body| {
            *open -= 1;
            events.push_back(Event::Failed {
                post: PostId(post),
                failure: Failure::NotDelivered(Cause::TooLarge { size, max }),
                body: Some(body),
            });
        });
    }

    /// Brings a grant into our own count of bytes.
    pub(super) fn credit_from(&self, messages: u64, bytes: u64) -> Credit {
        let (theirs, ours) = self.bytes_base;
        Credit {
            messages,
            bytes: ours.saturating_add(bytes.saturating_sub(theirs)),
        }
    }

    fn connected(&mut self, theirs: &Hello, resumed: bool) -> Established {
        self.forget_connection();
        self.step(Step::Accept);
        self.epoch = theirs.epoch;
        self.peer = Some(theirs.incarnation);
        self.was_resumed = resumed;
        self.since = self.now;
        // S-26
        self.silence = theirs
            .silence()
            .map_or(self.config.silence_timeout, |said| said.max(SILENCE_FLOOR))
            .min(self.config.silence_timeout);
        self.heard = self.now;
        self.drained = self.now;
        self.pinged = self.now;
        self.greeted = self.now;
        // S-12: what the last connection may have lost is said again, settlements before the acknowledgement.
        self.inbox.repeat();
        self.shares.repeat();
        self.lanes.forget_announced(self.outbox.resolved());
        self.ack_due = true;
        // The hello has said what is resolved.
        self.resolved_unsaid = false;
        self.resolved_said = self.outbox.resolved();
        self.counters.connections += 1;
        let resend = self.outbox.sent() - self.outbox.position();
        self.counters.resent += resend;
        self.serve();
        self.finish_if_drained();
        self.notice(|| Notice::Connected {
            epoch: theirs.epoch,
            resumed,
            resend,
        });
        Established {
            epoch: self.epoch,
            resumed,
        }
    }

    /// Drops what belonged to the connection before.
    fn forget_connection(&mut self) {
        self.unacked = 0;
        self.ack_due = false;
        self.ack_at = None;
        self.credit_due = false;
        self.ping_due = false;
        self.pong_due = None;
        self.goodbye_due = false;
        self.is_late = false;
    }

    /// The connection of `epoch` is gone. An older connection's end means nothing.
    pub fn disconnected(&mut self, epoch: ConnectionEpoch, now: Time) {
        self.touch(now);
        self.farewell = None;
        if epoch == self.epoch && matches!(self.life, Life::Connected | Life::Handshaking) {
            self.lose();
        }
    }

    pub(super) fn lose(&mut self) {
        self.step(Step::Lose);
        self.forget_connection();
        self.since = self.now;
        let epoch = self.epoch;
        self.notice(|| Notice::Disconnected { epoch });
        self.finish_if_drained();
    }
}

fn check_shape(theirs: &Hello) -> Result<(), HelloError> {
    if theirs.common_version().is_none() {
        return Err(HelloError::Version {
            min: theirs.version_min,
            max: theirs.version_max,
        });
    }
    let counts = [
        theirs.next_expected.0,
        theirs.received_bytes,
        theirs.oldest_unresolved.0,
        theirs.next_unsent.0,
        theirs.credit_messages,
        theirs.credit_bytes,
        theirs.credit_large,
        theirs.epoch.0,
    ];
    // S-04: bounded once here, so that no later addition overflows.
    if counts.iter().any(|count| *count > COUNT_MAX) {
        return Err(HelloError::Malformed { field: "counts" });
    }
    if theirs.oldest_unresolved > theirs.next_unsent {
        return Err(HelloError::Malformed {
            field: "oldest_unresolved",
        });
    }
    if theirs.born > theirs.epoch {
        return Err(HelloError::Malformed { field: "born" });
    }
    if theirs.epoch.0 == 0 {
        return Err(HelloError::Malformed { field: "epoch" });
    }
    if theirs.max_frame < FRAME_MAX_FLOOR {
        return Err(HelloError::Malformed { field: "max_frame" });
    }
    // Whoever takes no message at all could be sent none, and every post to it would be refused as too large.
    if theirs.max_message == 0 {
        return Err(HelloError::Malformed {
            field: "max_message",
        });
    }
    Ok(())
}

fn foreign(at: Seq, low: u64, high: u64) -> Violation {
    Violation::ForeignResume {
        at,
        low: Seq(low),
        high: Seq(high),
    }
}
