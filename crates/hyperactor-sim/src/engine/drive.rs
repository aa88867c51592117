//! What drives a session, as a channel does: it dials, writes, watches deadlines, and lets go of what is over.

use bytes::Bytes;
use hyperactor_protocol::{
    Cause, Config, Event, Failure, HelloCode, Life, Session, SessionId, Timeout, Verdict,
};

use super::state::Half;
use super::{CHECK_EVERY, Ev, Sim};
use crate::fault::{MILLI, Nanos};
use crate::labels::{Given, Named};
use crate::ledger::{FlawKind, Told};

/// The most bytes taken from a session at once.
const TRANSMIT_BYTES: usize = 16 * 1024;
/// The longest pause between two attempts to connect.
const BACKOFF_MAX: Nanos = 1000 * MILLI;
/// The refusal by which a relay passes on that a message ended further along.
pub(super) const RELAYED: u16 = 90;

impl Sim<'_> {
    pub(super) fn config(&self, node: usize) -> Config {
        Config {
            max_frame: self.scenario.world.max_frame[node],
            max_message: self.scenario.world.max_message[node],
            ..self.scenario.world.config.clone()
        }
    }

    /// The dialer's half, made if there is none.
    pub(super) fn dialing_half(&mut self, link: usize) -> Option<usize> {
        if let Some(half) = self.links[link].dialer {
            return Some(half);
        }
        let [node, target] = self.links[link].ends;
        if !self.nodes[node].up || self.over {
            return None;
        }
        self.links[link].sessions += 1;
        let id = SessionId(
            u128::from(self.nodes[node].incarnation.get()) << 64
                | u128::from(self.links[link].sessions) << 16
                | link as u128,
        );
        let mut session = Session::dialer(
            self.config(node),
            id,
            self.nodes[node].incarnation,
            self.local(node),
        );
        if self.scenario.world.pinned {
            session = session.expecting(Some(self.nodes[target].incarnation));
        }
        let half = self.add_half(link, 0, session);
        self.links[link].dialer = Some(half);
        Some(half)
    }

    pub(super) fn add_half(&mut self, link: usize, side: usize, session: Session) -> usize {
        let session = session.with_buffers(self.memory.clone());
        let at = self.halves.len();
        self.halves.push(Half {
            link,
            side,
            node: self.links[link].ends[side],
            session,
            conn: None,
            armed: Nanos::MAX,
            gone: false,
            lingers: false,
            sent: std::collections::BTreeMap::new(),
            settle_after: 0,
            was_blocked: false,
            given: Given::default(),
            named: Named::default(),
        });
        at
    }

    /// Everything that has to follow a change of a session.
    pub(super) fn wake(&mut self, half: usize) {
        if self.halves[half].gone {
            return;
        }
        self.take_events(half);
        self.pump(half);
        self.take_events(half);
        if self.events.is_multiple_of(CHECK_EVERY) {
            self.halves[half].session.check();
            self.look(half);
        }
        if self.halves[half].session.is_closed() {
            self.let_go(half);
        } else {
            self.plan_dial(half);
            self.arm(half);
        }
    }

    fn look(&mut self, half: usize) {
        let dump = self.halves[half].session.dump();
        let config = self.halves[half].session.config();
        if dump.life == Life::Connected
            && dump.position < dump.next
            && dump.credit_messages <= dump.position.0
        {
            self.seen.window_closed += 1;
        }
        // One message may begin below the limit and end above, and one more counts as half of it; parts have headers of
        // their own.
        let bytes = config.outbox_bytes + 2 * config.max_message as usize;
        let header = hyperactor_protocol::limits::DATA_HEADER_BYTES;
        let bytes = bytes + bytes / config.fragment_bytes as usize * header + 2 * header;
        if dump.unresolved > u64::from(config.outbox_messages) || dump.held_bytes > bytes {
            self.ledger.flaw(FlawKind::Unbounded, || dump.to_string());
        }
    }

    fn pump(&mut self, half: usize) {
        let Some(conn) = self.halves[half].conn else {
            return;
        };
        let (side, node) = (self.halves[half].side, self.halves[half].node);
        let now = self.local(node);
        loop {
            let end = &mut self.conns[conn].ends[side];
            let (true, Some(epoch)) = (end.open, end.epoch) else {
                return;
            };
            if end.out.is_empty() {
                match self.halves[half]
                    .session
                    .transmit(epoch, now, TRANSMIT_BYTES)
                {
                    Some(part) => end.out = part.bytes,
                    None => break,
                }
            }
            let (written, blocked) = self.write(conn, side);
            let was_full = std::mem::replace(&mut self.conns[conn].ends[side].is_full, blocked);
            if was_full && written != 0 {
                self.halves[half].session.drained(epoch, now);
            }
            if blocked {
                if !std::mem::replace(&mut self.halves[half].was_blocked, true) {
                    self.seen.blocked += 1;
                }
                return;
            }
        }
        self.halves[half].was_blocked = false;
    }

    pub(super) fn take_events(&mut self, half: usize) {
        while let Some(event) = self.halves[half].session.poll_event() {
            match event {
                Event::Resolved { first, count } => {
                    for post in first.0..first.0 + count {
                        self.outcome(half, post, Told::Delivered);
                    }
                }
                Event::Failed {
                    post,
                    failure,
                    body,
                } => {
                    self.weigh(&failure);
                    self.check_returned(half, post.0, body);
                    let told = if failure.is_certain() {
                        Told::NotDelivered
                    } else {
                        Told::Unknown
                    };
                    self.outcome(half, post.0, told);
                }
                Event::Room { .. } => self.feed(half),
                Event::PeerGoodbye(_) | Event::Drained => self.seen.goodbye += 1,
                Event::Closed(cause) => {
                    let node = self.halves[half].node;
                    self.log.line(self.now, node, "closed", [half as u64, 0, 0]);
                    let reason = match cause {
                        Cause::Damaged => false,
                        Cause::Violation(_) => self.reasons.lied,
                        _ => true,
                    };
                    if !reason {
                        self.ledger.flaw(FlawKind::Unwarranted, || {
                            format!("node {node} ended a session: {cause}")
                        });
                    }
                }
                _ => {}
            }
        }
    }

    fn check_returned(&mut self, half: usize, post: u64, body: Option<Bytes>) {
        let expected = self.halves[half].sent.get(&post).map(|sent| sent.id);
        let got = body.and_then(|body| crate::ledger::number(&body));
        if got != expected {
            self.ledger.flaw(FlawKind::Corrupt, || {
                format!("post {post} came back as {got:?} instead of {expected:?}")
            });
        }
    }

    /// An outcome that is not "delivered" must have a reason in what happened.
    fn weigh(&mut self, failure: &Failure) {
        let reasons = self.reasons;
        let warranted = match failure.cause() {
            Cause::Refused(refusal) => {
                self.seen.refused += 1;
                self.scenario.world.refusals || refusal.code == RELAYED
            }
            Cause::PeerClosed { .. } => {
                self.seen.peer_closed += 1;
                reasons.ended || reasons.lied || reasons.silenced
            }
            Cause::PeerRestarted => {
                self.seen.peer_restarted += 1;
                reasons.restarted
            }
            Cause::SessionLost => {
                self.seen.session_lost += 1;
                reasons.forgotten || reasons.silenced || reasons.ended || reasons.lied
            }
            Cause::TimedOut => {
                self.seen.timed_out += 1;
                reasons.silenced || reasons.ended || reasons.lied
            }
            Cause::TooLarge { .. } => {
                self.seen.too_large += 1;
                true
            }
            Cause::HelloRefused(HelloCode::Ended) => {
                reasons.silenced || reasons.ended || reasons.lied
            }
            Cause::HelloRefused(_) => {
                self.seen.hello_refused += 1;
                reasons.restarted && self.scenario.world.pinned
            }
            Cause::Violation(_) => {
                self.seen.violated += 1;
                reasons.lied
            }
            Cause::Abandoned => {
                self.seen.abandoned += 1;
                reasons.ended
            }
            _ => false,
        };
        if !warranted {
            self.ledger
                .flaw(FlawKind::Unwarranted, || failure.to_string());
        }
    }

    /// A session's sender learns what became of a message; a relay passes it on.
    pub(super) fn outcome(&mut self, half: usize, seq: u64, told: Told) {
        let node = self.halves[half].node;
        let Some(sent) = self.halves[half].sent.remove(&seq) else {
            self.ledger.flaw(FlawKind::FalseOutcome, || {
                format!("node {node} was told {told:?} of number {seq}, which has its outcome")
            });
            return;
        };
        self.log
            .line(self.now, node, "told", [sent.id, seq, told as u64]);
        match sent.owed {
            Some((upstream, seq)) => {
                let verdict = match told {
                    Told::Delivered => Verdict::Delivered,
                    Told::NotDelivered => Verdict::NotDelivered(refusal(RELAYED)),
                    Told::Unknown => Verdict::Unknown(refusal(RELAYED)),
                };
                self.answer(upstream, seq, verdict);
            }
            None => {
                match told {
                    Told::Delivered => self.seen.delivered += 1,
                    Told::NotDelivered => self.seen.not_delivered += 1,
                    Told::Unknown => self.seen.unknown += 1,
                }
                self.ledger.tell(sent.id, told);
                if self.healed {
                    self.quiet = self.quiet.max(self.now - self.told_at);
                    self.told_at = self.now;
                }
            }
        }
    }

    /// Gives a verdict to a half that may be gone, and writes what follows from it.
    pub(super) fn answer(&mut self, half: usize, seq: u64, verdict: Verdict) {
        if !self.halves[half].gone {
            let _written_below = self.halves[half].session.settle(seq.into(), verdict);
            let at = self.now;
            self.push(at, Ev::Pump(half));
        }
    }

    pub(super) fn timer(&mut self, half: usize) {
        if self.halves[half].gone || self.halves[half].armed > self.now {
            return;
        }
        self.halves[half].armed = Nanos::MAX;
        let node = self.halves[half].node;
        let now = self.local(node);
        for asked in 0.. {
            let Some(timeout) = self.halves[half].session.on_timeout(now) else {
                break;
            };
            if asked > 10 {
                self.ledger.flaw(FlawKind::Livelock, || {
                    format!("deadline without end: {timeout:?}")
                });
                break;
            }
            match timeout {
                Timeout::Dead { .. } => {
                    self.seen.dead += 1;
                    self.log.line(self.now, node, "dead", [half as u64, 0, 0]);
                    if let Some(conn) = self.halves[half].conn {
                        let side = self.halves[half].side;
                        self.hang_up(conn, side);
                    }
                }
                Timeout::Expired => {
                    self.seen.expired += 1;
                    self.log
                        .line(self.now, node, "expired", [half as u64, 0, 0]);
                }
                _ => {}
            }
        }
        self.wake(half);
    }

    fn arm(&mut self, half: usize) {
        let this = &self.halves[half];
        let Some(at) = this.session.next_timeout() else {
            return;
        };
        let at = self.nodes[this.node].moment(at).max(self.now);
        if at < this.armed {
            self.halves[half].armed = at;
            self.push(at, Ev::Timer(half));
        }
    }

    fn plan_dial(&mut self, half: usize) {
        let this = &self.halves[half];
        let link = this.link;
        if this.side == 0
            && this.session.life() == Life::Detached
            && !self.links[link].dial_planned
            && !self.over
        {
            let link_state = &mut self.links[link];
            link_state.dial_planned = true;
            // Full jitter, from nothing up to the limit.
            let most = ((10 * MILLI) << link_state.attempts.min(7)).min(BACKOFF_MAX);
            let pause = if link_state.attempts == 0 {
                0
            } else {
                link_state.rng.below(most)
            };
            link_state.attempts += 1;
            self.push(self.now + pause, Ev::Dial(link));
        }
    }

    pub(super) fn dial(&mut self, link: usize) {
        self.links[link].dial_planned = false;
        let Some(half) = self.links[link].dialer else {
            return;
        };
        if self.halves[half].session.life() == Life::Detached {
            self.dial_now(link, half);
        }
    }

    /// Opens a connection; an older one is left to itself.
    pub(super) fn dial_now(&mut self, link: usize, half: usize) {
        let node = self.halves[half].node;
        let now = self.local(node);
        let hello = self.halves[half].session.hello(now);
        let conn = self.open_conn(link);
        let end = &mut self.conns[conn].ends[0];
        end.half = Some(half);
        end.epoch = Some(hello.epoch);
        end.out = hello.to_bytes();
        end.hello_left = end.out.len();
        self.halves[half].conn = Some(conn);
        self.log.line(
            self.now,
            node,
            "dial",
            [link as u64, conn as u64, hello.epoch.0],
        );
        self.wake(half);
    }

    /// This side is done with a connection, or learned that it is gone.
    pub(super) fn hang_up(&mut self, conn: usize, side: usize) {
        let end = &mut self.conns[conn].ends[side];
        if !std::mem::replace(&mut end.open, false) {
            return;
        }
        end.out = Bytes::new();
        let (half, epoch) = (end.half, end.epoch);
        self.finish_stream(conn, 1 - side);
        let Some(half) = half.filter(|half| !self.halves[*half].gone) else {
            return;
        };
        let now = self.local(self.halves[half].node);
        if self.halves[half].conn == Some(conn) {
            self.halves[half].conn = None;
        }
        if let Some(epoch) = epoch {
            self.halves[half].session.disconnected(epoch, now);
        }
        self.log.line(
            self.now,
            self.halves[half].node,
            "hangup",
            [conn as u64, side as u64, 0],
        );
        let at = self.now;
        self.push(at, Ev::Pump(half));
    }

    /// A session that is over says its last words, then its half goes.
    fn let_go(&mut self, half: usize) {
        let side = self.halves[half].side;
        if let Some(conn) = self.halves[half].conn
            && self.conns[conn].ends[side].open
            && (!self.conns[conn].ends[side].out.is_empty()
                || self.halves[half].session.has_output())
        {
            // The stream is full. Nobody waits for ever.
            if !std::mem::replace(&mut self.halves[half].lingers, true) {
                self.push(self.now + self.scenario.world.patience(), Ev::Linger(half));
            }
            return;
        }
        self.release_half(half);
    }

    pub(super) fn linger(&mut self, half: usize) {
        if !self.halves[half].gone {
            self.release_half(half);
        }
    }

    fn release_half(&mut self, half: usize) {
        let (side, link) = (self.halves[half].side, self.halves[half].link);
        if let Some(conn) = self.halves[half].conn {
            self.hang_up(conn, side);
        }
        self.halves[half].gone = true;
        if side == 0 {
            if self.links[link].dialer == Some(half) {
                self.links[link].dialer = None;
            }
            // What waited for it goes to the next session.
            if !self.links[link].backlog[0].is_empty()
                && let Some(next) = self.dialing_half(link)
            {
                self.feed(next);
                self.wake(next);
            }
        } else {
            self.links[link].accepted.retain(|each| *each != half);
        }
    }
}

pub(super) fn refusal(code: u16) -> hyperactor_protocol::Refusal {
    hyperactor_protocol::Refusal::new(code)
}
