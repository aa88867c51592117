#![doc = include_str!("../README.md")]

mod builder;
mod entrance;
mod error;
mod forwarding;
mod host;
mod hosted;
pub mod limits;
mod local;
mod manager;
mod spec;

pub use builder::HostBuilder;
pub use error::HostError;
pub use forwarding::{BackendForwarding, Forwarding};
pub use host::{Host, HostReport, SERVICE_PROC};
pub use hosted::HostedProc;
pub use hyperactor_mailbox::{DeathCertificate, OutOfMemory, ProcExit, ResourceUse};
pub use local::LocalProcManager;
pub use manager::{ProcHandle, ProcManager, ProcSpawnError};
pub use spec::{End, EndedBy, ProcConfig, ProcInfo, ProcSpec, RoutePolicy, UnknownRoutePolicy};
