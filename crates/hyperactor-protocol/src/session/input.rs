//! What comes in: frames of the current connection, each checked before anything changes.

use bytes::{Bytes, BytesMut};

use super::Session;
use crate::assembly::{Part, Piece, take_declared};
use crate::inbox::Arrival;
use crate::life::Life;
use crate::limits::FRAGMENT_TOTAL_BYTES;
use crate::{
    Cause, ConnectionEpoch, Cut, DataFlags, Frame, Label, Landed, Notice, PartHead, Refusal, Run,
    Seq, Time, Verdict, Violation,
};

/// What to do with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Place the message, then [`settle`](Session::settle) it and, when it leaves its queue,
    /// [`release`](Session::release) its size.
    Deliver {
        /// Its number.
        seq: Seq,
        /// Where it goes: a label that was [named](Self::Named) on this connection, or none.
        to: Label,
        /// Whom it is from, likewise.
        from: Label,
        /// Its bytes.
        body: Bytes,
        /// Its size in the count of the credit, bytes.
        size: u32,
        /// Whether its sender waits for the outcome.
        ack_now: bool,
    },
    /// From here on this connection's label stands for this name, in place of any that it had.
    Named {
        /// The label.
        label: Label,
        /// The name; not a slice of the read buffer.
        name: Bytes,
    },
    /// It came before; nothing to do.
    Duplicate,
    /// Done. There may be [events](Session::poll_event), and something to [write](Session::transmit).
    Handled,
    /// It came from a connection that is not the current one, or after a silence for which its peer may have given up
    /// what it sent, and was ignored. That connection can be closed.
    Fenced,
}

impl Session {
    /// Takes a frame that came over the connection of `epoch`.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol: the session has failed, every message has its outcome, and one last
    /// [`transmit`](Self::transmit) tells the peer why.
    pub fn on_frame(
        &mut self,
        epoch: ConnectionEpoch,
        frame: Frame,
        now: Time,
    ) -> Result<Accept, Violation> {
        if self.is_fenced(epoch) {
            return Ok(Accept::Fenced);
        }
        self.touch(now);
        if !self.hear() && !frame.is_outcome() {
            return Ok(Accept::Fenced);
        }
        self.take_frame(frame)
    }

    /// Takes frames that came over the connection of `epoch`, in their order, and leaves in `cuts` what the application is
    /// to act on: [`Frame::Data`], whole messages to be placed, [settled](Session::settle) and [released](Session::release)
    /// with the size of their body, whatever they came in; the same as [`Run`](crate::Run)s; and [`Frame::Name`].
    ///
    /// The same as [`on_frame`](Self::on_frame) for each of them, but what is left is not moved, and a run is looked at once.
    ///
    /// # Errors
    ///
    /// As [`on_frame`](Self::on_frame). What is left came before the frame that broke the protocol, and is still to be acted
    /// on.
    pub fn on_frames(
        &mut self,
        epoch: ConnectionEpoch,
        cuts: &mut Vec<Cut>,
        now: Time,
    ) -> Result<(), Violation> {
        let is_current = epoch == self.epoch && self.life == Life::Connected;
        // S-26. One moment for all of them, so once is enough.
        let is_heard = !cuts.is_empty() && is_current && {
            self.touch(now);
            self.hear()
        };
        let (mut at, mut kept) = (0, 0);
        let mut taken = Ok(());
        let next = self.inbox.next();
        while at < cuts.len() {
            let stays = match &mut cuts[at] {
                Cut::Run(run) => is_heard && self.take_run(run),
                Cut::Frame(frame) => match self.on_frame_in_place(epoch, frame, is_heard, now) {
                    Ok(stays) => stays,
                    Err(violation) => {
                        taken = Err(violation);
                        break;
                    }
                },
            };
            if !stays && let Some(run) = take_run_out(&mut cuts[at]) {
                // Not as a whole: one by one, each has what it would have had alone.
                cuts.splice(at..=at, run.frames().map(Cut::Frame));
                continue;
            }
            if stays {
                if kept != at {
                    cuts.swap(kept, at);
                }
                kept += 1;
            }
            at += 1;
        }
        cuts.truncate(kept);
        if self.inbox.next() != next && self.life == Life::Connected {
            self.note_shortage();
        }
        taken
    }

    /// Takes in messages that are all new and within the credit; `false`, and nothing taken, where they are not, or where
    /// each needs a look of its own.
    fn take_run(&mut self, run: &Run) -> bool {
        let (to, from) = run.labels();
        let is_lawful = self.life == Life::Connected
            && !self.closing
            && self.inbox.awaits(run)
            && self.shares.check_named(to).is_ok()
            && self.shares.check_named(from).is_ok()
            && !self.assemblies.is_open(to);
        if is_lawful {
            self.inbox.receive_run(run.count(), run.bytes());
            self.shares.deliver_run(to, run.count(), run.bytes());
        }
        is_lawful
    }

    /// As [`on_frame`](Self::on_frame); says whether the frame, or what was put in its place, is to be acted on.
    #[inline]
    fn on_frame_in_place(
        &mut self,
        epoch: ConnectionEpoch,
        frame: &mut Frame,
        is_heard: bool,
        now: Time,
    ) -> Result<bool, Violation> {
        // One before it may have ended the session.
        let is_open = is_heard && self.life == Life::Connected && !self.closing;
        if let Frame::Data {
            seq,
            flags,
            to,
            from,
            body,
        } = frame
            && is_open
            && flags.is_whole()
            && let Ok(Arrival::New) = self.judge_data(*seq, *flags, (*to, *from), PartSize::default)
        {
            self.enter_whole(*seq, *flags, *to, body.len());
            return Ok(true);
        }
        let whole = std::mem::replace(frame, Frame::Pong { nonce: 0 });
        *frame = match self.on_frame(epoch, whole, now)? {
            Accept::Deliver {
                seq,
                to,
                from,
                body,
                ack_now,
                ..
            } => Frame::Data {
                seq,
                flags: if ack_now {
                    DataFlags::ACK_NOW
                } else {
                    DataFlags::NONE
                },
                to,
                from,
                body,
            },
            Accept::Named { label, name } => Frame::Name { label, name },
            Accept::Duplicate | Accept::Handled | Accept::Fenced => return Ok(false),
        };
        Ok(true)
    }

    fn is_fenced(&mut self, epoch: ConnectionEpoch) -> bool {
        // S-08: nothing from an older connection counts, whatever it is.
        // P5 is a deliberate fault for the test of the simulator's oracle: no fence.
        let fenced = epoch != self.epoch && !cfg!(planted = "P5");
        if fenced || self.life != Life::Connected {
            self.counters.fenced += 1;
            self.notice(|| Notice::Fenced { epoch });
            return true;
        }
        false
    }

    /// Returns room for a part of a message whose head has come over the connection of `epoch`, and much of whose body
    /// has not: to be read into, and handed over with [`on_landed`](Self::on_landed). Nothing is taken by it, and what is
    /// dropped instead is lost with the connection. `None` where the part has to come as a frame: there is no room
    /// for it yet that W-13 lets it have, or it will be refused.
    pub fn land(&mut self, epoch: ConnectionEpoch, head: &PartHead) -> Option<BytesMut> {
        if epoch != self.epoch || self.life != Life::Connected || self.closing {
            return None;
        }
        match self.judge_data(head.seq, head.flags, (head.to, head.from), || head.size()) {
            Ok(Arrival::New) => self.assemblies.room(head),
            _ => None,
        }
    }

    /// Takes in a part of a message that was read into the room which [`land`](Self::land) gave for it, as
    /// [`on_frame`](Self::on_frame) takes in what came as a frame.
    ///
    /// # Errors
    ///
    /// As those of [`on_frame`](Self::on_frame).
    pub fn on_landed(
        &mut self,
        epoch: ConnectionEpoch,
        landed: Landed,
        now: Time,
    ) -> Result<Accept, Violation> {
        if self.is_fenced(epoch) {
            return Ok(Accept::Fenced);
        }
        self.touch(now);
        if !self.hear() {
            return Ok(Accept::Fenced);
        }
        let Landed { head, room } = landed;
        let (size, labels) = (head.size(), (head.to, head.from));
        let judged = self.judge_data(head.seq, head.flags, labels, || size);
        self.take_judged(judged, head.seq, |this| {
            this.take_part(head.seq, head.flags, labels, size, Piece::Landed(room))
        })
    }

    /// Takes a frame of the current connection.
    fn take_frame(&mut self, frame: Frame) -> Result<Accept, Violation> {
        let taken = match frame {
            Frame::Data {
                seq,
                flags,
                to,
                from,
                body,
            } => return self.on_data(seq, flags, (to, from), body),
            Frame::Ack { received, settled } => self.on_ack(received, settled),
            Frame::Settle {
                first,
                count,
                verdict,
            } => self.on_settle(first, count, &verdict),
            Frame::Credit {
                messages,
                bytes,
                large,
            } => self.on_credit(messages, bytes, large),
            Frame::Name { label, name } => self
                .shares
                .name(label, name.len())
                .map(|()| Accept::Named { label, name }),
            Frame::Released { entries } => self.on_released(&entries),
            Frame::Resolved { below } => self.on_resolved(below),
            Frame::Ping { nonce } => {
                self.pong_due = Some(nonce);
                Ok(Accept::Handled)
            }
            Frame::Pong { .. } => Ok(Accept::Handled),
            Frame::Goodbye(goodbye) => self.on_goodbye(goodbye),
        };
        if let Err(violation) = &taken {
            self.on_violation(*violation);
        }
        taken
    }

    /// The bytes that came over the connection of `epoch` were no frames: the session fails with `violation`.
    pub fn violated(&mut self, epoch: ConnectionEpoch, violation: Violation, now: Time) {
        if epoch == self.epoch && self.life == Life::Connected {
            self.touch(now);
            self.on_violation(violation);
        }
    }

    fn on_violation(&mut self, violation: Violation) {
        // S-28: what it says of our messages can no longer be believed.
        self.notice(|| Notice::Violated { violation });
        self.give_up(Cause::Violation(violation));
    }

    /// Bytes came over the connection of `epoch`, of a whole frame or not: it is alive.
    pub fn heard(&mut self, epoch: ConnectionEpoch, now: Time) {
        if epoch == self.epoch && self.life == Life::Connected {
            self.touch(now);
            self.hear();
        }
    }

    /// Something came over the current connection. Returns whether messages may be taken from it: what comes after a silence
    /// for which the connection counts as dead says what became of messages, and nothing else any more.
    fn hear(&mut self) -> bool {
        self.progress = self.now;
        // S-26
        self.is_late |= self.dead_at().is_some_and(|dead| dead <= self.now);
        if !self.is_late {
            self.heard = self.now;
        }
        !self.is_late
    }

    /// Checked first and taken then, so that nothing is built of a message before it is known to be one.
    fn on_data(
        &mut self,
        seq: Seq,
        flags: DataFlags,
        labels: (Label, Label),
        mut body: Bytes,
    ) -> Result<Accept, Violation> {
        if flags.is_whole() {
            let judged = self.judge_data(seq, flags, labels, PartSize::default);
            return self.take_judged(judged, seq, |this| {
                this.take_whole(seq, flags, labels, body)
            });
        }
        let frame = body.len() as u64;
        let declared = take_declared(flags, &mut body);
        let size = PartSize {
            declared,
            came: body.len() as u64,
            frame,
        };
        let judged = self.judge_data(seq, flags, labels, || size);
        self.take_judged(judged, seq, |this| {
            this.take_part(seq, flags, labels, size, Piece::Read(body))
        })
    }

    #[inline]
    fn take_judged(
        &mut self,
        judged: Result<Arrival, Violation>,
        seq: Seq,
        take: impl FnOnce(&mut Self) -> Accept,
    ) -> Result<Accept, Violation> {
        match judged {
            Ok(Arrival::New) => Ok(take(self)),
            Ok(Arrival::Duplicate) => {
                // S-16: dropped, and acknowledged again, because the acknowledgement may be what was lost.
                self.counters.duplicates += 1;
                self.notice(|| Notice::Duplicate { seq });
                let _timer_or_already_running = self.want_ack_soon();
                Ok(Accept::Duplicate)
            }
            Err(violation) => {
                self.on_violation(violation);
                Err(violation)
            }
        }
    }

    #[inline]
    fn judge_data(
        &self,
        seq: Seq,
        flags: DataFlags,
        (to, from): (Label, Label),
        size: impl FnOnce() -> PartSize,
    ) -> Result<Arrival, Violation> {
        if self.inbox.arrival(seq)? == Arrival::Duplicate {
            return Ok(Arrival::Duplicate);
        }
        self.shares.check_named(to)?;
        self.shares.check_named(from)?;
        if flags.is_whole() {
            if self.assemblies.is_open(to) {
                return Err(Violation::PartOutOfPlace { seq, label: to });
            }
        } else if !flags.contains(DataFlags::VOID) {
            let PartSize { declared, came, .. } = size();
            self.assemblies.check(seq, to, flags, declared, came)?;
        }
        Ok(Arrival::New)
    }

    /// A message in one frame.
    #[inline]
    fn take_whole(
        &mut self,
        seq: Seq,
        flags: DataFlags,
        (to, from): (Label, Label),
        body: Bytes,
    ) -> Accept {
        // The decoder's limit is below the range of 32 bits.
        let size = body.len() as u32;
        let ack_now = self.enter_whole(seq, flags, to, body.len());
        self.note_shortage();
        if self.closing {
            return self.refuse(seq, to, size);
        }
        Accept::Deliver {
            seq,
            to,
            from,
            body,
            size,
            ack_now,
        }
    }

    /// Counts a message in one frame. Says whether its sender waits for the outcome. To be followed by
    /// [`note_shortage`](Self::note_shortage), once for several.
    #[inline]
    fn enter_whole(&mut self, seq: Seq, flags: DataFlags, to: Label, size: usize) -> bool {
        let size = size as u64;
        self.inbox.receive(size);
        self.shares.deliver(to, size, false);
        self.note_arrival(seq, flags)
    }

    /// A frame that is not all of its message. S-33: what it takes of the window it gives back at once, because
    /// messages in parts have a room of their own.
    fn take_part(
        &mut self,
        seq: Seq,
        flags: DataFlags,
        (to, from): (Label, Label),
        size: PartSize,
        piece: Piece,
    ) -> Accept {
        let bytes = size.frame;
        if flags.contains(DataFlags::VOID) {
            self.inbox.receive(bytes);
            if let Some(size) = self.assemblies.withdraw(to) {
                self.shares.withdraw(to, size);
            }
            return self.settle_part(seq, bytes);
        }
        self.inbox.receive(bytes);
        let part = self
            .assemblies
            .take(to, flags, size.declared, piece, self.closing);
        let (body, size) = match part {
            Part::Kept => return self.settle_part(seq, bytes),
            Part::Whole(body) => {
                let size = body.len() as u64;
                (Some(body), size)
            }
            Part::Refused(size) => (None, size),
        };
        self.inbox.release(0, bytes);
        self.shares.deliver(to, size, true);
        let ack_now = self.note_arrival(seq, flags);
        self.note_shortage();
        // The limit of a message is within the range of 32 bits.
        let size = size as u32;
        match body {
            Some(body) => Accept::Deliver {
                seq,
                to,
                from,
                body,
                size,
                ack_now,
            },
            None => self.refuse(seq, to, size),
        }
    }

    /// A part has no outcome of its own.
    fn settle_part(&mut self, seq: Seq, bytes: u64) -> Accept {
        self.inbox.release(1, bytes);
        let settled = self.settle(seq, Verdict::Delivered);
        let _driver_transmits_after_input = settled.max(self.offer_credit());
        Accept::Handled
    }

    /// A message is here, all of it. Says whether its sender waits for the outcome.
    #[inline]
    fn note_arrival(&mut self, seq: Seq, flags: DataFlags) -> bool {
        let ack_now = flags.contains(DataFlags::ACK_NOW);
        if ack_now {
            self.urgent_below = seq.0 + 1;
        }
        ack_now
    }

    /// S-15: what was released while the sender had plenty may be what it waits for from now on.
    #[inline]
    fn note_shortage(&mut self) {
        if self.inbox.is_peer_short() && (self.inbox.has_credit() || self.shares.has_untold()) {
            let _timer_or_already_running = self.want_ack_soon();
        }
    }

    /// S-23: said rather than ignored, so that two sides that close at once both come to an end.
    #[cold]
    fn refuse(&mut self, seq: Seq, to: Label, size: u32) -> Accept {
        let verdict = Verdict::NotDelivered(Refusal::new(Refusal::CLOSING));
        let settled = self.settle(seq, verdict);
        let _driver_transmits_after_input = settled.max(self.release(to, size));
        Accept::Handled
    }
}

/// The run, if it is one; what is left in its place means nothing.
fn take_run_out(cut: &mut Cut) -> Option<Run> {
    if matches!(cut, Cut::Frame(_)) {
        return None;
    }
    match std::mem::replace(cut, Cut::Frame(Frame::Pong { nonce: 0 })) {
        Cut::Run(run) => Some(run),
        Cut::Frame(_) => None,
    }
}

/// How large a part is.
#[derive(Clone, Copy, Debug, Default)]
struct PartSize {
    /// The size of the whole message, in front of its first part.
    declared: Option<u64>,
    /// Bytes of the message.
    came: u64,
    /// Bytes of the frame's body.
    frame: u64,
}

impl PartHead {
    fn size(&self) -> PartSize {
        let came = self.bytes as u64;
        let before = self.declared.map_or(0, |_| FRAGMENT_TOTAL_BYTES as u64);
        PartSize {
            declared: self.declared,
            came,
            frame: came + before,
        }
    }
}
