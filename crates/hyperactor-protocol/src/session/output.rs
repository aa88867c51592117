//! What goes out: control frames at frame borders, then bytes of the log.

use bytes::{Bytes, BytesMut};

use super::Session;
use crate::life::Life;
use crate::limits::{CONTROL_BATCH_BYTES, RELEASED_ENTRIES_MAX};
use crate::{ConnectionEpoch, Frame, Goodbye, Seq, Time};

/// Capacity of a control buffer, bytes: many acknowledgements share one.
const CONTROL_BUFFER_BYTES: usize = 1024;

/// Bytes to be written next, in the order they were handed out, all of them or none after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The bytes: shared with the log, not copied.
    pub bytes: Bytes,
}

impl Session {
    /// Hands out the next bytes to write to the connection of `epoch`; `None` when there is nothing to write now.
    ///
    /// Each part is about `max_bytes` long at most, but never ends inside a small frame. Several parts may be taken
    /// and written together. What was handed out counts as sent. After the session is over there may be one last part.
    pub fn transmit(
        &mut self,
        epoch: ConnectionEpoch,
        now: Time,
        max_bytes: usize,
    ) -> Option<Transmit> {
        self.touch(now);
        if epoch != self.epoch {
            return None;
        }
        if self.life != Life::Connected {
            return self.farewell.take().map(|bytes| Transmit { bytes });
        }
        // W-07: control frames wait for the end of a frame whose head is out.
        if self.outbox.is_mid_frame() {
            return self.log_bytes(max_bytes);
        }
        let sendable = self.outbox.has_sendable(self.credit);
        // S-17: an acknowledgement that waits goes along with anything else that is written.
        if self.is_control_due() || (sendable && self.is_control_waiting()) {
            let bytes = self.control_bytes();
            if !bytes.is_empty() {
                return Some(Transmit { bytes });
            }
        }
        self.log_bytes(max_bytes)
    }

    /// Returns whether [`transmit`](Self::transmit) would hand out something on the current connection.
    pub fn has_output(&self) -> bool {
        match self.life {
            Life::Connected => self.is_control_due() || self.outbox.has_sendable(self.credit),
            Life::Closed => self.farewell.is_some(),
            Life::Detached | Life::Handshaking => false,
        }
    }

    fn log_bytes(&mut self, max_bytes: usize) -> Option<Transmit> {
        let bytes = self.outbox.take(self.credit, max_bytes)?;
        // S-34: what was handed out makes room in the log for the parts that wait.
        self.serve();
        Some(Transmit { bytes })
    }

    fn is_control_due(&self) -> bool {
        self.ack_due
            || self.credit_due
            || self.ping_due
            || self.pong_due.is_some()
            || self.goodbye_due
            || self.lanes.has_names()
    }

    fn is_control_waiting(&self) -> bool {
        self.ack_at.is_some()
    }

    /// Writes everything that waits, in the order that makes it true: outcomes, the acknowledgement over them, credit,
    /// then the rest, goodbye last.
    fn control_bytes(&mut self) -> Bytes {
        let mut out = std::mem::take(&mut self.control);
        if out.capacity() == 0 {
            out.reserve(CONTROL_BUFFER_BYTES);
        }
        if let Some(nonce) = self.pong_due.take() {
            Frame::Pong { nonce }.encode(&mut out);
        }
        if std::mem::take(&mut self.ping_due) {
            self.pings += 1;
            Frame::Ping { nonce: self.pings }.encode(&mut out);
        }
        // S-29: names before what uses them: the log has its turn when nothing of this is left.
        self.lanes.write_names(&mut out, CONTROL_BATCH_BYTES);
        let said = self.write_settlements(&mut out, CONTROL_BATCH_BYTES);
        if said {
            self.write_ack(&mut out);
            if self.goodbye_due {
                self.write_goodbye(&mut out, Goodbye::DONE);
                self.finish();
            }
        } else {
            // The rest follows in the next part, and the acknowledgement behind it.
            self.ack_due = true;
        }
        let bytes = out.split().freeze();
        self.control = out;
        bytes
    }

    /// S-20: refusals go out before any acknowledgement that covers them. Returns whether all of them are out.
    fn write_settlements(&mut self, out: &mut BytesMut, max: usize) -> bool {
        while out.len() < max {
            let Some((first, count, verdict)) = self.inbox.next_settlement() else {
                break;
            };
            Frame::Settle {
                first: Seq(first),
                count,
                verdict,
            }
            .encode(out);
        }
        !self.inbox.has_settlements()
    }

    fn write_ack(&mut self, out: &mut BytesMut) {
        let (received, mut settled) = (Seq(self.inbox.next()), Seq(self.inbox.settled()));
        // A deliberate fault for the test of the simulator's oracle: received counts as settled.
        if cfg!(planted = "P2") {
            settled = received;
        }
        Frame::Ack { received, settled }.encode(out);
        self.unacked = 0;
        self.ack_due = false;
        self.ack_at = None;
        self.credit_due = false;
        if self.inbox.has_credit() || self.assemblies.has_credit() {
            let (messages, bytes) = self.inbox.grant();
            let large = self.assemblies.grant();
            Frame::Credit {
                messages,
                bytes,
                large,
            }
            .encode(out);
        }
        while self.shares.has_untold() {
            let entries = self.shares.tell(RELEASED_ENTRIES_MAX);
            Frame::Released { entries }.encode(out);
        }
        if std::mem::take(&mut self.resolved_unsaid) {
            self.resolved_said = self.outbox.resolved();
            Frame::Resolved {
                below: Seq(self.resolved_said),
            }
            .encode(out);
        }
    }

    fn write_goodbye(&mut self, out: &mut BytesMut, code: u16) {
        let received = Seq(self.inbox.next());
        Frame::Goodbye(Goodbye {
            received,
            code,
            detail: Bytes::new(),
        })
        .encode(out);
    }

    /// What a session that fails still says: all outcomes it knows, then goodbye. Nothing inside a frame.
    pub(super) fn last_words(&mut self, code: u16) -> Option<Bytes> {
        if self.outbox.is_mid_frame() {
            return None;
        }
        let mut out = BytesMut::new();
        self.write_settlements(&mut out, usize::MAX);
        self.write_ack(&mut out);
        self.write_goodbye(&mut out, code);
        Some(out.freeze())
    }

    /// The transport of `epoch`, which was full, takes bytes again: what it took before has gone on.
    ///
    /// What a transport with room takes is not to be told: the buffer of a dead connection takes it as well.
    pub fn drained(&mut self, epoch: ConnectionEpoch, now: Time) {
        // S-25
        if epoch == self.epoch && self.life == Life::Connected {
            self.touch(now);
            self.drained = self.now;
            self.progress = self.now;
        }
    }
}
