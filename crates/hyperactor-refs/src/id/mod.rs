//! Ids: of procs, of actors in them, of ports of actors; and one life of a proc.

mod actor;
mod hash;
mod incarnation;
mod name;
mod parse;
mod port;
mod proc;
mod reference;

pub use actor::ActorId;
pub use hash::{BuildIdHasher, IdHasher};
pub use incarnation::Incarnation;
pub use name::{NameError, check_name};
pub use port::PortId;
pub use proc::ProcId;
pub(crate) use proc::{ProcKey, ProcLookup, hash_of_proc};
pub use reference::Reference;
