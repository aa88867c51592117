//! What can be seen of a session from outside, and the invariants that always hold. Changes nothing.

use hyperactor_refs::Incarnation;

use super::Session;
use crate::life::Life;
use crate::{Config, ConnectionEpoch, SessionId};

impl Session {
    /// Returns the session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Returns where the session stands with its connection.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Returns the number of the newest connection.
    pub fn epoch(&self) -> ConnectionEpoch {
        self.epoch
    }

    /// Returns the peer's incarnation, once it is known.
    pub fn peer(&self) -> Option<Incarnation> {
        self.peer
    }

    /// Returns whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.life == Life::Closed
    }

    /// Returns whether [`close`](Self::close) was called.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Returns how many messages have no outcome yet, sent or not.
    pub fn unresolved(&self) -> u64 {
        self.open
    }

    /// Returns how many received messages the application has not settled yet.
    pub fn unsettled(&self) -> u64 {
        self.inbox.unsettled()
    }

    /// Returns the settings, brought into range.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Asserts what must hold of our own state, whatever the peer said. Costs time in proportion to the log; for
    /// tests and simulations.
    ///
    /// # Panics
    ///
    /// When an invariant is broken: a fault of this library.
    pub fn check(&self) {
        self.outbox.check();
        self.inbox.check();
        self.shares.check();
        self.assemblies.check_state();
        self.lanes.check(&self.gate(), &self.outbox);
        self.check_ahead();
        assert!(self.open <= self.next_post);
        assert!(self.acked_settled <= self.acked_received);
        assert!(self.acked_received <= self.outbox.sent());
        assert!(self.life != Life::Closed || self.open == 0);
    }
}
