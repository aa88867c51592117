#![doc = include_str!("../README.md")]

pub mod limits;

mod client;
mod codec;
mod completion;
mod dial_router;
mod onward;
mod overflow;
mod prefix_router;
mod reasons;
mod recent;
mod redialer;
mod server;
mod session;
mod slot;

pub use client::MailboxClient;
pub use codec::EnvelopeCodec;
pub use dial_router::{BookFull, DialMailboxRouter};
pub use hyperactor_channel::{DialOptions, Peer, ServeError, ServeOptions, Status};
pub use prefix_router::MailboxRouter;
pub use redialer::MailboxRedialer;
pub use server::{AcceptSession, MailboxServer, MailboxServerHandle, MailboxSession};
