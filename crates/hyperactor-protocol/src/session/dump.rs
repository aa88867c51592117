//! A snapshot of a session for people: ids and sizes, never contents.

use std::fmt;

use hyperactor_refs::Incarnation;

use super::{Role, Session};
use crate::{ConnectionEpoch, Life, Seq, SessionId, Time};

/// How a session stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dump {
    /// The session.
    pub id: SessionId,
    /// Whether this end dials.
    pub is_dialer: bool,
    /// Where it stands with its connection.
    pub life: Life,
    /// Whether it takes no more messages.
    pub is_closing: bool,
    /// The newest connection.
    pub epoch: ConnectionEpoch,
    /// This end's life.
    pub local: Incarnation,
    /// The other end's, once known.
    pub peer: Option<Incarnation>,
    /// The first message without an outcome.
    pub oldest_unresolved: Seq,
    /// The next message to transmit on this connection.
    pub position: Seq,
    /// The number of the next message.
    pub next: Seq,
    /// Messages without an outcome.
    pub unresolved: u64,
    /// Bytes of messages that are held, in the log or on their way into it.
    pub held_bytes: usize,
    /// Messages that wait for their turn to enter the log, and their bytes; those without an outcome include them.
    pub waiting: u64,
    /// See above.
    pub waiting_bytes: u64,
    /// Labels of messages that go out.
    pub labels: usize,
    /// Labels that the peer has named on this connection.
    pub peer_labels: usize,
    /// Messages of which parts have come.
    pub assemblies: usize,
    /// Bytes that those parts take.
    pub assembly_bytes: u64,
    /// Frames that the peer lets us send in all.
    pub credit_messages: u64,
    /// The next message expected from the peer.
    pub next_expected: Seq,
    /// The peer's first message without an outcome.
    pub settled: Seq,
    /// The peer's messages without an outcome.
    pub unsettled: u64,
    /// Refusals kept until the peer knows them.
    pub records: usize,
    /// When the connection last showed life.
    pub heard: Time,
    /// Connections so far.
    pub connections: u64,
    /// Messages sent again after a reconnect.
    pub resent: u64,
    /// Messages that came more than once.
    pub duplicates: u64,
    /// Inputs ignored because a newer connection exists.
    pub fenced: u64,
    /// Settlements that meant nothing.
    pub strays: u64,
}

impl Session {
    /// Takes a snapshot for people.
    pub fn dump(&self) -> Dump {
        Dump {
            id: self.id,
            is_dialer: self.role == Role::Dialer,
            life: self.life,
            is_closing: self.closing,
            epoch: self.epoch,
            local: self.local,
            peer: self.peer,
            oldest_unresolved: Seq(self.outbox.resolved()),
            position: Seq(self.outbox.position()),
            next: Seq(self.outbox.next()),
            unresolved: self.open,
            held_bytes: self.held_bytes(),
            waiting: self.lanes.waiting().messages,
            waiting_bytes: self.lanes.waiting().bytes,
            labels: self.lanes.names().0,
            peer_labels: self.shares.names().0,
            assemblies: self.assemblies.held().0,
            assembly_bytes: self.assemblies.held().1,
            credit_messages: self.credit.messages,
            next_expected: Seq(self.inbox.next()),
            settled: Seq(self.inbox.settled()),
            unsettled: self.inbox.unsettled(),
            records: self.inbox.records(),
            heard: self.heard,
            connections: self.counters.connections,
            resent: self.counters.resent,
            duplicates: self.counters.duplicates,
            fenced: self.counters.fenced,
            strays: self.counters.strays,
        }
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = if self.is_dialer { "dialer" } else { "acceptor" };
        write!(
            f,
            "session {} {role} {} epoch {}",
            self.id, self.life, self.epoch
        )?;
        if self.is_closing {
            f.write_str(" closing")?;
        }
        write!(
            f,
            "; out: unresolved {} from {}, at {} of {}, credit to {}, {} bytes held",
            self.unresolved,
            self.oldest_unresolved,
            self.position,
            self.next,
            self.credit_messages,
            self.held_bytes
        )?;
        write!(
            f,
            "; {} waiting ({} bytes), {} labels",
            self.waiting, self.waiting_bytes, self.labels
        )?;
        write!(
            f,
            "; in: next {}, settled below {}, {} open, {} refusals kept",
            self.next_expected, self.settled, self.unsettled, self.records
        )?;
        write!(
            f,
            "; {} in parts ({} bytes), {} labels",
            self.assemblies, self.assembly_bytes, self.peer_labels
        )?;
        write!(
            f,
            "; connections {}, resent {}, duplicates {}, fenced {}, strays {}",
            self.connections, self.resent, self.duplicates, self.fenced, self.strays
        )
    }
}
