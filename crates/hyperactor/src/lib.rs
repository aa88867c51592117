#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

// The derives name this crate by its name, also within it.
extern crate self as hyperactor;

pub mod prelude;

/// Procs as operating-system processes: the call at the top of `main`, starting and ending children, and the direct
/// way between them.
pub use hyperactor_bootstrap as bootstrap;
/// Channels: typed messages over Unix sockets, TCP and within a process. Knows nothing of actors.
pub use hyperactor_channel as channel;
/// Hosts: frontend and backend, the service proc, and the border to whatever makes procs real.
pub use hyperactor_host as host;
/// Envelopes, ports and mailboxes, and what becomes of a message.
pub use hyperactor_mailbox as mailbox;
/// Procs, actors and their handlers.
pub use hyperactor_proc as proc;
/// The session between two processes, as a state machine without input or output.
pub use hyperactor_protocol as protocol;
/// Ids and addresses, as values.
pub use hyperactor_refs as refs;
/// Envelopes over channels: clients, servers and routers.
pub use hyperactor_router as router;

pub use hyperactor_bootstrap::boot;
pub use hyperactor_macros::main;
pub use hyperactor_proc::{Actor, Bytes, Facade, Message, actor, as_bytes};

/// What the derives name; not for people.
#[doc(hidden)]
pub mod __private {
    pub use hyperactor_proc::__private::*;
    pub use tokio;
}

/// The pages of the book whose programs are compiled and run as tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/seed.md")]
    struct Seed;
    #[doc = include_str!("../../../README.md")]
    struct Readme;
}
