#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

// The derives name this crate by its name, also within it.
extern crate self as hyperactor_proc;

mod actor;
mod actor_ref;
mod agent;
mod ask;
mod batch;
mod blocking;
mod cell;
mod claim;
mod client;
mod collect;
mod context;
mod control;
mod counters;
mod delegate;
mod error;
mod exit;
mod flush;
mod groups;
mod handle;
mod inbox;
mod linked;
mod names;
mod near;
mod panics;
mod proc;
mod registry;
mod remote_spawn;
mod reports;
mod residents;
mod restricted;
mod run;
mod runs;
mod scheduled;
mod snapshot;
mod spawn;
mod status;
mod stop;
mod stream;
mod supervision;
mod system;
mod time;
mod trace;
mod typed;
mod waits;
mod watch;

pub mod limits;
pub mod testing;

/// What a message's field of bytes is made of, and what stands for it where the field is to stay a `Vec<u8>`.
pub use hyperactor_mailbox::{Bytes, as_bytes};

pub use actor::{Actor, Exports, Handler, Receives};
pub use actor_ref::ActorRef;
pub use agent::{
    AGENT_NAME, ActorList, EndActor, EndMode, ListActors, ListedActor, ProcAgent, ReadTraffic,
    SpawnActor,
};
pub use ask::AskError;
pub use cell::Ports;
pub use client::Client;
pub use collect::{Collect, Collected, Incomplete};
pub use context::Context;
pub use delegate::Delegate;
pub use error::{ActorError, ActorResult};
pub use exit::{ActorExit, ActorStatus, ExitReason, PanicReport, PanicTrace};
pub use groups::{Group, JoinError};
pub use handle::{ActorHandle, PostError};
pub use names::{Names, RegisterError, lookup_name};
pub use proc::{ActorInfo, Proc, Traffic};
pub use registry::{Registry, RemoteSpawn, SpawnRefusal};
pub use remote_spawn::{RemoteSpawnError, spawn_remote};
pub use restricted::{Facade, FacadeOf, Includes, RestrictedRef};
pub use scheduled::{Scheduled, TooManyTasks};
pub use snapshot::{ActorSnapshot, ProcSnapshot, read_snapshot};
pub use spawn::{ProcGone, SpawnError, SpawnOptions};
pub use stop::StopReport;
pub use stream::{NoDelegate, Stream, StreamClosed, StreamError, StreamRef, StreamWriter};
pub use supervision::{
    Backoff, Cause, ChildInfo, ChildSpec, Earlier, Escalation, Event, ListChildren, Monitor,
    MonitorId, Relation, Restart, StartChild, StopChild, Strategy, Supervisor,
};
pub use system::SYSTEM_NAME;
pub use trace::{BadTrace, TraceContext};
pub use typed::{Accepts, Ask, Request, Tell};
pub use watch::{ProcLoss, ProcWatch};

// A trait and its derive go by one name, as with serde.
pub use hyperactor_macros::{Actor, Facade, Message, actor};
pub use hyperactor_mailbox::{
    Message, OncePortRef, Outbox, Outcome, Overflow, PortRef, Undeliverable,
};

/// What the derives name; not for people.
#[doc(hidden)]
pub mod __private {
    pub use crate::__link as link;
    pub use crate::actor::NoMethods;
    #[cfg(feature = "link-registration")]
    pub use crate::linked::Linked;
    pub use crate::typed::{answer, ask, tell};
    pub use crate::{
        Accepts, Actor, ActorHandle, ActorRef, ActorResult, Ask, Context, Exports, Facade,
        FacadeOf, Handler, Includes, Message, OncePortRef, Outbox, Ports, Receives, RemoteSpawn,
        Request, RestrictedRef, Tell,
    };
    pub use hyperactor_mailbox::__private::{Opaque, Shape, combine, fold, type_hash};
    #[cfg(feature = "link-registration")]
    pub use inventory;
    pub use serde;
    pub use tokio;
}
