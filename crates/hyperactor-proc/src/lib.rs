#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

// The derives name this crate by its name, also within it.
extern crate self as hyperactor_proc;

mod actor;
mod actor_ref;
mod agent;
mod ask;
mod cell;
mod client;
mod context;
mod control;
mod error;
mod exit;
mod handle;
mod job;
mod panics;
mod proc;
mod registry;
mod remote_spawn;
mod reports;
mod residents;
mod run;
mod spawn;
mod stop;
mod time;

pub mod limits;

pub use actor::{Actor, Exports, Handler, Receives};
pub use actor_ref::ActorRef;
pub use agent::{
    AGENT_NAME, ActorList, EndActor, EndMode, ListActors, ListedActor, ProcAgent, ReadTraffic,
    SpawnActor,
};
pub use ask::AskError;
pub use cell::Ports;
pub use client::Client;
pub use context::Context;
pub use error::{ActorError, ActorResult};
pub use exit::{ActorExit, ActorStatus, ExitReason, PanicReport};
pub use handle::{ActorHandle, PostError};
pub use proc::{ActorInfo, Proc, Traffic};
pub use registry::{Registry, RemoteSpawn, SpawnRefusal};
pub use remote_spawn::{RemoteSpawnError, spawn_remote};
pub use spawn::{ProcGone, SpawnError, SpawnOptions};
pub use stop::StopReport;

// A trait and its derive go by one name, as with serde.
pub use hyperactor_macros::{Actor, Message};
pub use hyperactor_mailbox::{Message, OncePortRef, Outbox, Outcome, PortRef, Undeliverable};

/// What the derives name; not for people.
#[doc(hidden)]
pub mod __private {
    pub use crate::{Actor, Exports, Ports, Receives};
    pub use hyperactor_mailbox::__private::{Message, Opaque, Shape, combine, fold, type_hash};
    pub use serde::{Serialize, de::DeserializeOwned};
    pub use tokio;
}
