//! The id of a port: an actor, and a number among its ports.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::actor::ActorId;
use super::hash::join;
use super::parse::parse_port_id;
use super::proc::ProcId;
use crate::text::error::{ParseError, run};

/// The id of a port of an actor.
///
/// Its text is the actor's and the number in brackets: `unix:@abc123,service,counter[0][1234]`.
/// A clone is one reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortId {
    actor_id: ActorId,
    index: u64,
}

impl PortId {
    /// The id of a port of an actor.
    pub const fn new(actor_id: ActorId, index: u64) -> Self {
        Self { actor_id, index }
    }

    /// The id of its actor.
    pub const fn actor_id(&self) -> &ActorId {
        &self.actor_id
    }

    /// The id of its actor, which this one becomes.
    pub fn into_actor_id(self) -> ActorId {
        self.actor_id
    }

    /// The id of its actor's proc.
    pub fn proc_id(&self) -> &ProcId {
        self.actor_id.proc_id()
    }

    /// The number of the port.
    pub const fn index(&self) -> u64 {
        self.index
    }
}

impl Hash for PortId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(join(self.actor_id.precomputed_hash(), self.index));
    }
}

impl fmt::Display for PortId {
    /// The canonical text, which parses back to an equal id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.actor_id, self.index)
    }
}

impl fmt::Debug for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortId({self})")
    }
}

impl FromStr for PortId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        run("a port id", text, parse_port_id)
    }
}

/// The body of the fuzz target for [`PortId`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_port_id(data: &[u8]) -> crate::fuzzing::Seen {
    crate::fuzzing::check_text::<PortId>(data)
}
