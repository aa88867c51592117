//! Ids: of procs, of actors in them, of ports of actors; and one life of a proc.

mod actor;
mod hash;
mod incarnation;
mod name;
mod parse;
mod port;
mod proc;
mod reference;
mod short_name;

pub use actor::ActorId;
pub use hash::{BuildIdHasher, IdHasher};
pub use incarnation::Incarnation;
pub use name::{NameError, check_name};
pub use port::PortId;
pub use proc::ProcId;
pub(crate) use proc::{ProcKey, ProcLookup, hash_of_proc};
pub use reference::Reference;

#[cfg(any(feature = "fuzzing", test))]
pub(crate) use hash::hash_of;
#[cfg(any(feature = "fuzzing", test))]
pub use {
    actor::fuzz_actor_id, incarnation::fuzz_incarnation, name::fuzz_names, port::fuzz_port_id,
    proc::fuzz_proc_id, reference::fuzz_reference,
};
