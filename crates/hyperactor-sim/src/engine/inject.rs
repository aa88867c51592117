//! The faults take effect here, and end here.

use bytes::Bytes;
use hyperactor_protocol::{
    Accept, Cause, DataFlags, Dump, Frame, Incarnation, Label, Life, Released, Seq,
};

use super::{Ev, Sim};
use crate::fault::{Lie, Nanos, Way, What};
use crate::ledger::FlawKind;

impl Sim<'_> {
    pub(super) fn inject(&mut self, at: usize) {
        // What was put off by a fault goes on when the faults end, not later.
        let rest = self.scenario.world.horizon - self.now;
        let what = self.scenario.faults[at].what.at_most(rest);
        self.log.line(self.now, 0, "fault", [at as u64, 0, 0]);
        self.reasons.silenced |= what.silences();
        if self.apply(what) {
            self.seen.faults += 1;
        }
    }

    /// Returns whether it had an effect; a cut counts when it happens.
    fn apply(&mut self, what: What) -> bool {
        match what {
            What::Cut {
                link,
                way,
                bytes,
                next,
            } => {
                if next {
                    self.links[link].cut_next[way.index()] = Some(bytes);
                } else if let Some(conn) = self.live_conn(link) {
                    let pipe = &mut self.conns[conn].ends[1 - way.index()].inbound;
                    pipe.cut_at = Some(pipe.written + bytes);
                }
                false
            }
            What::BlackHole { link, way } => self.live_conn(link).is_some_and(|conn| {
                self.blacken(conn, 1 - way.index(), false);
                true
            }),
            What::HalfOpen { link, way } => self.live_conn(link).is_some_and(|conn| {
                // What this side wrote still arrives; that it is gone is not told.
                self.blacken(conn, 1 - way.index(), true);
                self.blacken(conn, way.index(), false);
                self.hang_up(conn, way.index());
                true
            }),
            What::HalfClose { link, way } => self.live_conn(link).is_some_and(|conn| {
                self.finish_stream(conn, 1 - way.index());
                true
            }),
            What::DuplicateDial { link } => {
                let Some(half) = self.links[link].dialer else {
                    return false;
                };
                let busy = matches!(
                    self.halves[half].session.life(),
                    Life::Connected | Life::Handshaking
                );
                if busy {
                    self.dial_now(link, half);
                }
                busy
            }
            What::Delay {
                link,
                way,
                by,
                lasts,
            } => {
                self.links[link].extra[way.index()] = (by, self.now + lasts);
                true
            }
            What::Partition { link, way, lasts } => {
                for each in [Way::Up, Way::Down] {
                    if way.is_none_or(|way| way == each) {
                        let clear = &mut self.links[link].clear_at[each.index()];
                        *clear = (*clear).max(self.now + lasts);
                    }
                }
                true
            }
            What::Restart {
                node,
                lasts,
                silent,
            } => self.restart(node, lasts, silent),
            What::Forget { link } => self.forget(link),
            What::Abandon { link, way } => self.end_session(link, way, false),
            What::Close { link, way } => self.end_session(link, way, true),
            What::Freeze { node, lasts } => {
                self.nodes[node].frozen_until = self.now + lasts;
                true
            }
            What::Slow { node, lasts } => {
                self.nodes[node].slow_until = self.now + lasts;
                true
            }
            What::Stick {
                link,
                way,
                place,
                lasts,
            } => {
                let places = self.scenario.world.places;
                let node = self.links[link].ends[1 - way.index()];
                if places != 0 {
                    let place = 1 + place % places;
                    self.nodes[node].stuck.insert(place, self.now + lasts);
                }
                places != 0
            }
            What::Jump { node, by } => {
                self.nodes[node].jump(by);
                for half in 0..self.halves.len() {
                    if self.halves[half].node == node && !self.halves[half].gone {
                        self.push(self.now, Ev::Pump(half));
                    }
                }
                true
            }
            What::Lie { link, lie } => self.lie(link, lie),
        }
    }

    fn live_conn(&self, link: usize) -> Option<usize> {
        let conn = self.links[link].newest?;
        let open = self.conns[conn].ends.iter().any(|end| end.open);
        open.then_some(conn)
    }

    fn restart(&mut self, node: usize, lasts: Nanos, silent: bool) -> bool {
        if !self.nodes[node].up {
            return false;
        }
        self.reasons.restarted = true;
        self.end_process(node, silent);
        self.push(self.now + lasts, Ev::Up(node));
        true
    }

    fn end_process(&mut self, node: usize, silent: bool) {
        self.log.line(self.now, node, "down", [silent.into(), 0, 0]);
        self.nodes[node].up = false;
        self.nodes[node].frozen_until = 0;
        self.nodes[node].frozen.clear();
        self.ledger.forget(node);
        for half in 0..self.halves.len() {
            if self.halves[half].node == node && !self.halves[half].gone {
                self.halves[half].gone = true;
                self.halves[half].sent.clear();
            }
        }
        for link in 0..self.links.len() {
            let ends = self.links[link].ends;
            if ends[0] == node {
                self.links[link].dialer = None;
                self.links[link].backlog[0].clear();
            }
            if ends[1] == node {
                self.links[link].accepted.clear();
                self.links[link].backlog[1].clear();
            }
        }
        for conn in 0..self.conns.len() {
            let ends = self.links[self.conns[conn].link].ends;
            for (side, end) in ends.into_iter().enumerate() {
                if end == node && self.conns[conn].ends[side].open {
                    if silent {
                        self.blacken(conn, 1 - side, true);
                    } else {
                        self.lose_tail(conn, 1 - side);
                    }
                    self.blacken(conn, side, false);
                    self.hang_up(conn, side);
                }
            }
        }
    }

    pub(super) fn up(&mut self, node: usize) {
        if self.nodes[node].up || self.over {
            return;
        }
        self.lives += 1;
        self.nodes[node].up = true;
        self.nodes[node].incarnation = Incarnation::new(self.lives);
        self.log.line(self.now, node, "up", [self.lives, 0, 0]);
    }

    fn forget(&mut self, link: usize) -> bool {
        let Some(half) = self.links[link].accepted.last().copied() else {
            return false;
        };
        self.reasons.forgotten = true;
        self.drop_half(half);
        if let Some(conn) = self.halves[half].conn {
            self.lose_tail(conn, 0);
            self.hang_up(conn, 1);
        }
        true
    }

    fn end_session(&mut self, link: usize, way: Way, in_order: bool) -> bool {
        let half = match way {
            Way::Up => self.links[link].dialer,
            Way::Down => self.links[link].accepted.last().copied(),
        };
        let Some(half) = half else { return false };
        self.reasons.ended = true;
        let now = self.local(self.halves[half].node);
        let session = &mut self.halves[half].session;
        if in_order {
            session.close();
        } else {
            session.fail(Cause::Abandoned, now);
        }
        self.wake(half);
        true
    }

    /// The dialer hears something that no honest peer says, and must not believe it.
    fn lie(&mut self, link: usize, lie: Lie) -> bool {
        let Some(half) = self.links[link].dialer else {
            return false;
        };
        let session = &mut self.halves[half].session;
        let dump = session.dump();
        if dump.life != Life::Connected {
            return false;
        }
        let Some(frame) = lying_frame(lie, &dump) else {
            return false;
        };
        self.reasons.lied = true;
        let now = self.local(self.halves[half].node);
        let epoch = self.halves[half].session.epoch();
        let taken = self.halves[half].session.on_frame(epoch, frame, now);
        if taken == Ok(Accept::Fenced) {
            // The connection is dead by now, and nobody has looked yet.
            self.wake(half);
            return false;
        }
        // What came before is dropped, whatever it says now; everything else ends the session.
        let is_right = match lie {
            Lie::Repeat => taken == Ok(Accept::Duplicate),
            _ => taken.is_err(),
        };
        if !is_right {
            self.ledger
                .flaw(FlawKind::Unpunished, || format!("{lie:?}: {dump}"));
        }
        if lie == Lie::Repeat {
            self.seen.duplicates += 1;
        } else {
            self.seen.lies += 1;
        }
        self.wake(half);
        true
    }

    /// The faults end: whoever is away comes back, whoever stands still goes on, what was held arrives.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.log.line(self.now, 0, "heal", [0; 3]);
        for node in 0..self.nodes.len() {
            self.up(node);
            self.nodes[node].frozen_until = 0;
            self.nodes[node].slow_until = 0;
            self.nodes[node].stuck.clear();
        }
        for link in &mut self.links {
            link.clear_at = [0; 2];
            link.extra = [(0, 0); 2];
            link.cut_next = [None; 2];
            link.attempts = 0;
        }
        for conn in 0..self.conns.len() {
            for side in 0..2 {
                self.conns[conn].ends[side].inbound.cut_at = None;
                self.push(self.now, Ev::Read(conn, side));
            }
        }
    }

    /// Places that took nothing take what is in their queues, and whatever comes.
    pub(super) fn thaw(&mut self) {
        self.thawed = true;
        self.log.line(self.now, 0, "thaw", [0; 3]);
        for node in 0..self.nodes.len() {
            for (half, to, size) in std::mem::take(&mut self.nodes[node].frozen) {
                self.push(self.now, Ev::Release { half, to, size });
            }
        }
    }

    /// The senders' machines vanish for good.
    pub(super) fn end_senders(&mut self) {
        self.over = true;
        let first = 1 + usize::from(self.scenario.world.relay);
        for node in first..self.nodes.len() {
            self.end_process(node, true);
        }
        if self.scenario.world.relay {
            self.end_process(1, true);
        }
    }
}

/// What no honest peer says to a session that stands like this; `None` where it would be true.
fn lying_frame(lie: Lie, dump: &Dump) -> Option<Frame> {
    let data = |seq, to, flags| Frame::Data {
        seq,
        flags,
        to,
        from: Label::NONE,
        body: Bytes::from_static(b"a lie"),
    };
    // More than any world has.
    let unnamed = Label::new(16_000);
    match lie {
        Lie::AckOfUnsent => Some(Frame::Ack {
            received: Seq(dump.position.0 + 1),
            settled: Seq(dump.position.0 + 1),
        }),
        Lie::Credit => (dump.credit_messages != 0).then_some(Frame::Credit {
            messages: 0,
            bytes: 0,
            large: 0,
        }),
        Lie::Gap => {
            let seq = Seq(dump.next_expected.0 + 1);
            Some(data(seq, Label::NONE, DataFlags::NONE))
        }
        Lie::Resolved => Some(Frame::Resolved {
            below: Seq(dump.settled.0 + 1),
        }),
        Lie::Repeat => {
            let seq = Seq(dump.next_expected.0.checked_sub(1)?);
            Some(data(seq, Label::NONE, DataFlags::NONE))
        }
        Lie::Unnamed => Some(data(dump.next_expected, unnamed, DataFlags::NONE)),
        Lie::Released => Some(Frame::Released {
            entries: vec![Released {
                label: unnamed,
                messages: 1,
                bytes: 1,
            }],
        }),
        Lie::Part => {
            let part = data(dump.next_expected, Label::NONE, DataFlags::MORE);
            (dump.assemblies == 0).then_some(part)
        }
    }
}
