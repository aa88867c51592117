#![doc = include_str!("../README.md")]

mod above;
mod addrs;
mod agent;
mod builder;
mod config;
mod departed;
mod door;
mod entrance;
mod error;
mod events;
mod forwarding;
mod guest;
mod host;
mod hosted;
mod interfaces;
mod keeper;
pub mod limits;
mod local;
mod logs;
mod manager;
mod relay;
mod restart;
mod spec;
mod survivors;
mod visitors;

pub use addrs::HostAddrs;
pub use agent::{
    AttachedHost, DescribeHost, EndProc, HOST_AGENT, HostAgent, HostDescription, HostRefusal,
    ProcDescription, ProcEnd, ReadLogs, SpawnProc, StopHost,
};
pub use builder::HostBuilder;
pub use config::{
    OnHostLoss, OutputPolicy, ProcConfig, ProcLimits, RoutePolicy, UnknownRoutePolicy,
};
pub use door::GUEST_PREFIX;
pub use error::HostError;
pub use events::ProcEvent;
pub use forwarding::{BackendForwarding, Forwarding};
pub use guest::{Guest, GuestError};
pub use host::{Host, HostReport, SERVICE_PROC};
pub use hosted::HostedProc;
pub use hyperactor_mailbox::{DeathCertificate, OutOfMemory, ProcExit, ResourceUse};
pub use local::LocalProcManager;
pub use logs::{LogLine, LogTail, OutputStream, ProcLogs};
pub use manager::{ProcHandle, ProcManager, ProcSpawnError, Survivor};
pub use restart::{RestartPolicy, RestartWhen};
pub use spec::{End, EndedBy, ProcInfo, ProcSpec};
