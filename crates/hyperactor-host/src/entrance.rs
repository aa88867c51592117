//! The senders at the edges of a host: what the frontend lets in, and the way to the host's own proc.

use std::sync::{Arc, OnceLock};

use hyperactor_mailbox::{
    BoxFuture, FlushError, MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle,
};
use hyperactor_proc::Proc;
use hyperactor_refs::ChannelAddr;

use crate::departed::Mourning;

/// What the frontend leads into: the procs of this host, and nothing beyond. A host is no relay for strangers, who
/// could reach through it what they cannot reach themselves.
#[derive(Clone)]
pub(crate) struct Entrance {
    router: Mourning,
    /// Set as soon as the address is known; nobody can have a name below it before.
    frontend: Arc<OnceLock<ChannelAddr>>,
}

impl Entrance {
    pub(crate) fn new(router: Mourning) -> Self {
        Self {
            router,
            frontend: Arc::default(),
        }
    }

    pub(crate) fn open(&self, frontend: ChannelAddr) {
        self.frontend.get_or_init(|| frontend);
    }
}

impl MailboxSender for Entrance {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let addr = envelope.dest().proc_id().addr();
        match self.frontend.get() {
            Some(frontend) if addr.is_local_to(frontend) => {
                self.router.post_unchecked(envelope, return_handle);
            }
            frontend => {
                let host = frontend.map(ToString::to_string).unwrap_or_default();
                let detail = format!("the host at {host} takes messages for its own procs only");
                let port_id = envelope.dest().clone();
                return_handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
            }
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        self.router.flush()
    }
}

/// The way to the host's own proc. Its flush has nothing to wait for: what is posted here is placed, or returned, before
/// the post returns. (The proc's own flush would ask the router, which asks this.)
pub(crate) struct OwnProc(pub(crate) Proc);

impl MailboxSender for OwnProc {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.0.post_unchecked(envelope, return_handle);
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
