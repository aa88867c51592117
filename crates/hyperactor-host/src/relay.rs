//! What is behind the entrances of a host, and behind its own proc: [`Relay`] knows every way that a message may take from
//! here, and asks nobody twice.

use std::sync::Arc;

use hyperactor_mailbox::{
    BoxFuture, FlushError, MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle,
    Undeliverable,
};
use hyperactor_router::DialMailboxRouter;

use crate::addrs::HostAddrs;
use crate::departed::Departed;

/// Moves the messages of a host. A clone is another handle of the same.
#[derive(Clone)]
pub(crate) struct Relay(Arc<Ways>);

struct Ways {
    addrs: HostAddrs,
    router: DialMailboxRouter,
    departed: Departed,
}

impl Relay {
    pub(crate) fn new(addrs: HostAddrs, router: DialMailboxRouter, departed: Departed) -> Self {
        Self(Arc::new(Ways {
            addrs,
            router,
            departed,
        }))
    }

    pub(crate) fn addrs(&self) -> &HostAddrs {
        &self.0.addrs
    }

    /// Moves an envelope on whose destination is spelt as the host spells it.
    pub(crate) fn post_to_own(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        match self.0.departed.find(envelope.dest().proc_id()) {
            None => self.0.router.post_unchecked(envelope, return_handle),
            Some(certificate) => {
                let proc_id = Arc::clone(&certificate.proc_id);
                let mut report = Undeliverable::new(envelope, NotDelivered::ProcGone { proc_id });
                report.certificate = Some(certificate);
                return_handle.report(report);
            }
        }
    }
}

impl MailboxSender for Relay {
    fn post_unchecked(&self, mut envelope: MessageEnvelope, return_handle: ReturnHandle) {
        if self.0.addrs.translate(&mut envelope) {
            self.post_to_own(envelope, return_handle);
        } else {
            self.0.router.post_unchecked(envelope, return_handle);
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        self.0.router.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyperactor_mailbox::MailboxSender;
    use hyperactor_proc::Registry;
    use hyperactor_refs::ChannelTransport;

    use crate::{Host, LocalProcManager};

    /// The router knows the host's own proc, and that proc's forwarder leads to the router.
    #[tokio::test]
    async fn a_flush_of_the_host_ends_wherever_it_begins() {
        let manager = LocalProcManager::new(Registry::new());
        let host = Host::new(manager, ChannelTransport::Local).await.unwrap();
        for _ in 0..2 {
            host.service_proc().flush().await.unwrap();
            host.router().flush().await.unwrap();
        }
        host.stop(Duration::from_secs(5)).await;
    }
}
