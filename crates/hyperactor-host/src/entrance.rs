//! What the frontends of a host let in.

use std::sync::{Arc, OnceLock};

use hyperactor_mailbox::{
    BoxFuture, FlushError, MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle,
};

use crate::relay::Relay;

/// What a frontend leads into: the procs of this host, and nothing beyond. A host is no relay for strangers, who
/// could reach through it what they cannot reach themselves.
#[derive(Clone, Default)]
pub(crate) struct Entrance {
    /// Set as soon as all addresses are known; nobody can have a name below them before.
    relay: Arc<OnceLock<Relay>>,
}

impl Entrance {
    pub(crate) fn open(&self, relay: Relay) {
        self.relay.get_or_init(|| relay);
    }
}

impl MailboxSender for Entrance {
    fn post_unchecked(&self, mut envelope: MessageEnvelope, return_handle: ReturnHandle) {
        match self.relay.get() {
            Some(relay) if relay.addrs().translate(&mut envelope) => {
                relay.post_to_own(envelope, return_handle);
            }
            relay => {
                let detail = match relay {
                    Some(relay) => format!(
                        "the host at {} takes messages for its own procs only",
                        relay.addrs().canonical()
                    ),
                    None => "the host is still starting".to_owned(),
                };
                let port_id = envelope.dest().clone();
                return_handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
            }
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        match self.relay.get() {
            Some(relay) => relay.flush(),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}
