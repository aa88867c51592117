//! What arrives: hellos are judged, frames are handed to their session, ends of streams are noticed.

use hyperactor_protocol::{
    Accept, ConnectionEpoch, Cut, Frame, Hello, HelloError, Life, Run, Session, Time, Violation,
};

use super::{Ev, Sim};
use crate::ledger::FlawKind;

impl Sim<'_> {
    pub(super) fn read(&mut self, conn: usize, side: usize) {
        let link = self.conns[conn].link;
        // A partition holds everything back, the end of the stream too.
        let clear_at = self.links[link].clear_at[1 - side];
        if clear_at > self.now {
            self.push(clear_at, Ev::Read(conn, side));
            return;
        }
        let (count, ended) = self.receive(conn, side);
        if !self.conns[conn].ends[side].open {
            return;
        }
        let node = self.links[link].ends[side];
        if !self.nodes[node].up {
            self.hang_up(conn, side);
            return;
        }
        if count != 0 {
            self.take_bytes(conn, side);
            self.wake_writer(conn, 1 - side);
        }
        if ended && self.conns[conn].ends[side].open {
            self.note_cut(conn, side);
            self.hang_up(conn, side);
        }
        if let Some(half) = self.conns[conn].ends[side].half {
            self.wake(half);
        }
    }

    /// The other side may write again, once it learns that there is room.
    fn wake_writer(&mut self, conn: usize, side: usize) {
        let Some(half) = self.conns[conn].ends[side].half else {
            return;
        };
        if self.halves[half].was_blocked && self.halves[half].conn == Some(conn) {
            let at = self.now + self.latency(self.conns[conn].link);
            self.push(at, Ev::Pump(half));
        }
    }

    fn note_cut(&mut self, conn: usize, side: usize) {
        let end = &self.conns[conn].ends[side];
        match (end.hello_taken, end.decoder.pending_bytes()) {
            (_, 0) => {}
            (false, _) => self.seen.cut_hello += 1,
            (true, 1..16) => self.seen.cut_header += 1,
            (true, _) => self.seen.cut_payload += 1,
        }
    }

    fn take_bytes(&mut self, conn: usize, side: usize) {
        let node = self.links[self.conns[conn].link].ends[side];
        let now = self.local(node);
        let end = &mut self.conns[conn].ends[side];
        if let (Some(half), Some(epoch)) = (end.half, end.epoch)
            && !self.halves[half].gone
        {
            self.halves[half].session.heard(epoch, now);
        }
        if !end.hello_taken {
            let hello = match end.decoder.next_hello() {
                Ok(Some(hello)) => hello,
                Ok(None) => return,
                Err(error) => {
                    self.ledger.flaw(FlawKind::Corrupt, || error.to_string());
                    return;
                }
            };
            end.hello_taken = true;
            let accepted = if side == 0 {
                self.take_answer(conn, &hello)
            } else {
                self.take_open(conn, &hello)
            };
            if !accepted {
                self.hang_up(conn, side);
                return;
            }
        }
        while self.conns[conn].ends[side].open {
            let end = &mut self.conns[conn].ends[side];
            let (Some(half), Some(epoch)) = (end.half, end.epoch) else {
                return;
            };
            if let Some(landed) = end.decoder.take_landed() {
                self.seen.landed += 1;
                self.take(conn, side, half, |session, now| {
                    session.on_landed(epoch, landed, now)
                });
                continue;
            }
            match end.decoder.next_cut() {
                Ok(Some(Cut::Frame(frame))) => self.take_frame(conn, side, half, epoch, frame),
                Ok(Some(Cut::Run(run))) => self.take_run(conn, side, half, epoch, run),
                Ok(None) => {
                    // The session may have gone on without this connection: then there is no room.
                    if let Some(head) = end.decoder.part_head()
                        && let Some(room) = self.halves[half].session.land(epoch, &head)
                    {
                        end.decoder.land(head, room);
                    }
                    return;
                }
                Err(violation) => {
                    self.ledger
                        .flaw(FlawKind::Corrupt, || violation.to_string());
                    return;
                }
            }
        }
    }

    fn take_answer(&mut self, conn: usize, hello: &Hello) -> bool {
        let Some(half) = self.conns[conn].ends[0]
            .half
            .filter(|half| !self.halves[*half].gone)
        else {
            return false;
        };
        let (node, link) = (self.halves[half].node, self.halves[half].link);
        let now = self.local(node);
        let settled = self.halves[half]
            .sent
            .values()
            .filter(|sent| {
                self.ledger
                    .entry(sent.id)
                    .is_some_and(|entry| entry.answered)
            })
            .count();
        let waiting = self.halves[half].session.unresolved() != 0
            && self.halves[half].session.peer().is_some();
        match self.halves[half].session.on_hello(hello, now) {
            Ok(established) => {
                self.links[link].attempts = 0;
                self.halves[half].named.clear();
                self.log.line(
                    self.now,
                    node,
                    "connected",
                    [conn as u64, established.epoch.0, established.resumed.into()],
                );
                self.seen.resumed += u64::from(established.resumed && waiting);
                if established.resumed && settled != 0 {
                    self.seen.ack_lost += 1;
                }
                self.take_events(half);
                self.feed(half);
                true
            }
            Err(error) => {
                self.note_refusal(node, &error);
                false
            }
        }
    }

    fn take_open(&mut self, conn: usize, hello: &Hello) -> bool {
        let link = self.conns[conn].link;
        let node = self.links[link].ends[1];
        let now = self.local(node);
        let known = self.links[link]
            .accepted
            .iter()
            .copied()
            .find(|half| self.halves[*half].session.id() == hello.session);
        let half = known.unwrap_or_else(|| {
            let incarnation = self.nodes[node].incarnation;
            let session = Session::acceptor(self.config(node), incarnation, hello, now);
            self.add_half(link, 1, session)
        });
        match self.halves[half].session.on_hello(hello, now) {
            Ok(established) => {
                if known.is_none() {
                    self.links[link].accepted.push(half);
                }
                let answer = self.halves[half].session.hello(now);
                self.halves[half].named.clear();
                let end = &mut self.conns[conn].ends[1];
                end.half = Some(half);
                end.epoch = Some(established.epoch);
                end.out = answer.to_bytes();
                end.hello_left = end.out.len();
                self.halves[half].conn = Some(conn);
                self.log.line(
                    self.now,
                    node,
                    "accepted",
                    [conn as u64, established.epoch.0, established.resumed.into()],
                );
                true
            }
            Err(error) => {
                self.note_refusal(node, &error);
                if known.is_none() {
                    self.halves[half].gone = true;
                }
                let refusal = Hello::refusal(hello, self.nodes[node].incarnation, error.code());
                let end = &mut self.conns[conn].ends[1];
                end.out = refusal.to_bytes();
                end.hello_left = end.out.len();
                self.write(conn, 1);
                false
            }
        }
    }

    /// Honest peers are refused only for reasons that the run gave.
    fn note_refusal(&mut self, node: usize, error: &HelloError) {
        self.log.line(
            self.now,
            node,
            "refused",
            [error.code().number().into(), 0, 0],
        );
        let lawful = match error {
            HelloError::StaleEpoch { .. } => {
                self.seen.stale_epoch += 1;
                true
            }
            HelloError::WrongIncarnation { .. } => {
                self.seen.stale_incarnation += 1;
                self.scenario.world.pinned
            }
            HelloError::StaleState { .. } => {
                self.seen.stale_state += 1;
                true
            }
            // The acceptor's state ended while the hello was on its way.
            HelloError::Ended => true,
            HelloError::Unexpected => true,
            HelloError::Refused { code } => {
                let code = *code;
                code.is_retryable()
                    || self.scenario.world.pinned
                    || code == hyperactor_protocol::HelloCode::Ended
            }
            _ => false,
        };
        if !lawful {
            self.ledger.flaw(FlawKind::Unwarranted, || {
                format!("node {node} refused a hello: {error}")
            });
        }
    }

    pub(super) fn take_frame(
        &mut self,
        conn: usize,
        side: usize,
        half: usize,
        epoch: ConnectionEpoch,
        frame: Frame,
    ) {
        self.take(conn, side, half, |session, now| {
            session.on_frame(epoch, frame, now)
        });
    }

    /// Takes messages together, where the session does; the others one by one.
    fn take_run(
        &mut self,
        conn: usize,
        side: usize,
        half: usize,
        epoch: ConnectionEpoch,
        run: Run,
    ) {
        let this = &self.halves[half];
        let is_lawful = !this.gone && this.session.life() == Life::Connected;
        if !is_lawful || this.session.epoch() != epoch || this.conn != Some(conn) {
            for frame in run.frames() {
                self.take_frame(conn, side, half, epoch, frame);
            }
            return;
        }
        let now = self.local(this.node);
        let mut cuts = vec![Cut::Run(run.clone())];
        let taken = self.halves[half].session.on_frames(epoch, &mut cuts, now);
        if let Err(violation) = taken {
            self.ledger.flaw(FlawKind::Unwarranted, || {
                format!("a run breaks the protocol: {violation}")
            });
            return;
        }
        self.seen.runs += u64::from(matches!(&cuts[..], [Cut::Run(_)]));
        let (to, from) = run.labels();
        let mut missing = run.count();
        let messages = cuts.into_iter().flat_map(|cut| match cut {
            Cut::Run(run) => run.messages().collect(),
            Cut::Frame(Frame::Data { seq, body, .. }) => vec![(seq, body)],
            Cut::Frame(_) => Vec::new(),
        });
        for (seq, body) in messages {
            missing -= 1;
            self.arrived(half, (seq.0, to, body.len() as u32), from, &body);
        }
        self.seen.duplicates += missing;
    }

    fn take(
        &mut self,
        conn: usize,
        side: usize,
        half: usize,
        take: impl FnOnce(&mut Session, Time) -> Result<Accept, Violation>,
    ) {
        if self.halves[half].gone {
            self.hang_up(conn, side);
            return;
        }
        let node = self.halves[half].node;
        let now = self.local(node);
        match take(&mut self.halves[half].session, now) {
            Ok(Accept::Deliver {
                seq,
                to,
                from,
                body,
                size,
                ..
            }) => self.arrived(half, (seq.0, to, size), from, &body),
            Ok(Accept::Named { label, name }) => {
                self.seen.named += 1;
                if !self.halves[half].named.name(label, &name) {
                    self.ledger.flaw(FlawKind::Corrupt, || {
                        format!("label {label} has a name that nobody gave")
                    });
                }
            }
            Ok(Accept::Duplicate) => self.seen.duplicates += 1,
            Ok(Accept::Fenced) => {
                if self.halves[half].session.life() != Life::Closed {
                    self.seen.fenced += 1;
                }
                // A connection that a newer one replaced is closed at its next frame.
                if self.halves[half].conn != Some(conn) {
                    self.hang_up(conn, side);
                }
            }
            Ok(Accept::Handled) => {}
            Err(violation) => {
                let dump = self.halves[half].session.dump().to_string();
                self.ledger.flaw(FlawKind::Unwarranted, || {
                    format!("node {node} sees a violation: {violation}: {dump}")
                });
            }
        }
    }
}
