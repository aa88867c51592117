#![doc = include_str!("../README.md")]

mod child;
mod control;
mod error;
mod instructions;
mod launch;
pub mod limits;
pub mod mailbox;
mod manager;
mod pulse;
mod record;
mod socket_dir;
mod startup;

pub use child::{Bootstrap, boot, route_counts};
pub use error::{BootError, ManagerError};
pub use launch::{ForkExec, LaunchOrder, Launcher, SystemdScope};
pub use mailbox::{
    ExplainRoute, LinkOrigin, ROUTE_AGENT, RouteAgent, RouteCount, RouteReport, RouteRung,
    RungRefusal,
};
pub use manager::ProcessManager;
pub use socket_dir::{SOCKET_NAME_BYTES, SocketDir, SocketDirError, socket_name};
