//! A reference: the id of a proc, an actor or a port, where any of them can stand.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::actor::ActorId;
use super::parse::parse_reference;
use super::port::PortId;
use super::proc::{ProcId, hash_of_proc};
use crate::text::error::{ParseError, run};

/// The id of a proc, an actor or a port. A clone is one reference count.
///
/// # Ordering
///
/// By proc, actor name, actor index and port, where nothing comes before something. So everything that a reference is a
/// prefix of follows it without a gap.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// A proc.
    Proc(Arc<ProcId>),
    /// An actor.
    Actor(ActorId),
    /// A port.
    Port(PortId),
}

impl Reference {
    /// The proc that it is, or is in.
    pub fn proc_id(&self) -> &ProcId {
        match self {
            Self::Proc(proc) => proc,
            Self::Actor(actor) => actor.proc_id(),
            Self::Port(port) => port.proc_id(),
        }
    }

    /// The actor that it is, or is a port of.
    pub fn actor_id(&self) -> Option<&ActorId> {
        match self {
            Self::Proc(_) => None,
            Self::Actor(actor) => Some(actor),
            Self::Port(port) => Some(port.actor_id()),
        }
    }

    /// The port that it is.
    pub fn port_id(&self) -> Option<&PortId> {
        match self {
            Self::Proc(_) | Self::Actor(_) => None,
            Self::Port(port) => Some(port),
        }
    }

    /// Whether `other` is this, or in this: a proc is a prefix of itself, of its actors and of their ports.
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        match self {
            Self::Proc(proc) => **proc == *other.proc_id(),
            Self::Actor(actor) => other.actor_id() == Some(actor),
            Self::Port(port) => other.port_id() == Some(port),
        }
    }

    /// The next shorter reference: of a port its actor, of an actor its proc.
    pub fn parent(&self) -> Option<Self> {
        match self {
            Self::Proc(_) => None,
            Self::Actor(actor) => Some(Self::Proc(actor.proc().clone())),
            Self::Port(port) => Some(Self::Actor(port.actor_id().clone())),
        }
    }
}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Proc(proc) => state.write_u64(hash_of_proc(proc)),
            Self::Actor(actor) => actor.hash(state),
            Self::Port(port) => port.hash(state),
        }
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.actor_id(), other.actor_id()) {
            (Some(a), Some(b)) => a.cmp(b).then_with(|| {
                let (a, b) = (self.port_id(), other.port_id());
                a.map(PortId::index).cmp(&b.map(PortId::index))
            }),
            (a, b) => self
                .proc_id()
                .cmp(other.proc_id())
                .then_with(|| a.is_some().cmp(&b.is_some())),
        }
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<ProcId> for Reference {
    fn from(proc: ProcId) -> Self {
        Self::Proc(Arc::new(proc))
    }
}

impl From<Arc<ProcId>> for Reference {
    fn from(proc: Arc<ProcId>) -> Self {
        Self::Proc(proc)
    }
}

impl From<ActorId> for Reference {
    fn from(actor: ActorId) -> Self {
        Self::Actor(actor)
    }
}

impl From<PortId> for Reference {
    fn from(port: PortId) -> Self {
        Self::Port(port)
    }
}

impl fmt::Display for Reference {
    /// The text of the id that it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proc(proc) => proc.fmt(f),
            Self::Actor(actor) => actor.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    /// Reads the text of a proc, an actor or a port; which one, its commas and brackets tell.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        run("a reference", text, parse_reference)
    }
}

/// The body of the fuzz target for [`Reference`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_reference(data: &[u8]) -> crate::fuzzing::Seen {
    crate::fuzzing::check_text::<Reference>(data)
}
