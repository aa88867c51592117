//! What almost every program needs, for `use hyperactor::prelude::*`. Traits and their derives go by one name.

pub use hyperactor_bootstrap::ProcessManager;
pub use hyperactor_host::{Host, HostedProc, ProcConfig, RoutePolicy};
pub use hyperactor_mailbox::{
    Bytes, Failure, MailboxSender, NotDelivered, OncePortRef, Outbox, Outcome, Part, PortReceiver,
    PortRef, Undeliverable,
};
pub use hyperactor_proc::{
    Actor, ActorError, ActorExit, ActorHandle, ActorRef, ActorResult, Ask, AskError, ChildSpec,
    Client, Context, Event, ExitReason, Exports, Facade, Handler, Message, Proc, Receives,
    Registry, RemoteSpawn, RestrictedRef, Strategy, Supervisor, Tell, actor,
};
pub use hyperactor_refs::{ActorId, ChannelAddr, ChannelTransport, PortId, ProcId};
