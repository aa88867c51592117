//! What is behind the entrances of a host, and behind its own proc: [`Relay`] knows every way that a message may take from
//! here, and asks nobody twice.

use std::sync::Arc;

use hyperactor_mailbox::{
    BoxFuture, FlushError, MailboxSender, MessageEnvelope, NotDelivered, Passage, ReturnHandle,
    Undeliverable,
};
use hyperactor_refs::{Incarnation, ProcId};
use hyperactor_router::DialMailboxRouter;

use crate::above::Above;
use crate::addrs::{HostAddrs, readdressed};
use crate::departed::Departed;
use crate::door::{self, Floor};
use crate::visitors::Visitors;

/// Moves the messages of a host. A clone is another handle of the same.
#[derive(Clone)]
pub(crate) struct Relay(Arc<Ways>);

pub(crate) struct Ways {
    pub(crate) incarnation: Incarnation,
    /// The host's own proc.
    pub(crate) service: Arc<ProcId>,
    pub(crate) addrs: HostAddrs,
    pub(crate) router: DialMailboxRouter,
    pub(crate) departed: Departed,
    pub(crate) visitors: Visitors,
    pub(crate) above: Above,
}

/// How far a message from outside may go through this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To this host and those behind it.
    Below,
    /// To those before it, too.
    Around,
}

impl Relay {
    pub(crate) fn new(ways: Ways) -> Self {
        Self(Arc::new(ways))
    }

    pub(crate) fn addrs(&self) -> &HostAddrs {
        &self.0.addrs
    }

    pub(crate) fn service(&self) -> &Arc<ProcId> {
        &self.0.service
    }

    pub(crate) fn visitors(&self) -> &Visitors {
        &self.0.visitors
    }

    pub(crate) fn above(&self) -> &Above {
        &self.0.above
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// This host, and those that it stands behind.
    pub(crate) fn floors(&self) -> Vec<Floor> {
        let own = Floor {
            incarnation: self.0.incarnation,
            addrs: self.0.addrs.clone(),
        };
        std::iter::once(own).chain(self.0.above.floors()).collect()
    }

    /// Moves an envelope on that came in by a frontend, or from the host that this one stands behind.
    pub(crate) fn post_from_outside(
        &self,
        mut envelope: MessageEnvelope,
        return_handle: ReturnHandle,
        reach: Reach,
    ) {
        let ways = &self.0;
        if ways.addrs.translate(&mut envelope) {
            return self.post_to_own(envelope, return_handle);
        }
        let addr = envelope.dest().proc_id().addr();
        let way = ways.visitors.way(addr).or_else(|| match reach {
            Reach::Below => None,
            Reach::Around => ways.above.way(addr),
        });
        match way {
            // Spends a step: it may lead back here.
            Some(way) => way.post(envelope, return_handle),
            None => {
                let detail = format!(
                    "the host at {} takes messages for its own procs only, and for those of hosts behind it",
                    ways.addrs.canonical()
                );
                let port_id = envelope.dest().clone();
                return_handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
            }
        }
    }

    /// Moves an envelope on whose destination is spelt as the host spells it.
    fn post_to_own(&self, mut envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let ways = &self.0;
        let proc_id = envelope.dest().proc_id();
        if door::is_guest(proc_id.name())
            && let Some(guest) = ways.visitors.guest(proc_id.name())
        {
            if *guest.proc_id != *proc_id {
                let dest = readdressed(envelope.dest(), guest.proc_id);
                envelope.set_dest(dest);
            }
            return guest.back.post(envelope, return_handle);
        }
        match ways.departed.find(proc_id) {
            None => ways.router.post_unchecked(envelope, return_handle),
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
        let ways = &self.0;
        if ways.addrs.translate(&mut envelope) {
            return self.post_to_own(envelope, return_handle);
        }
        let addr = envelope.dest().proc_id().addr();
        let way = ways.visitors.way(addr).or_else(|| ways.above.way(addr));
        match way {
            Some(way) => way.post(envelope, return_handle),
            None => ways.router.post_unchecked(envelope, return_handle),
        }
    }

    fn passage(&self, envelope: &MessageEnvelope) -> Option<Passage> {
        let ways = &self.0;
        let proc_id = envelope.dest().proc_id();
        // One that ends is taken out of the router after it is entered among the departed, so the router's word is enough
        // from here on.
        let is_plain = proc_id.addr() == ways.addrs.canonical()
            && !door::is_guest(proc_id.name())
            && ways.departed.find(proc_id).is_none();
        if is_plain {
            ways.router.passage(envelope)
        } else {
            None
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        let ways = &self.0;
        Box::pin(async {
            let visitors = ways.visitors.flush().await;
            let above = ways.above.flush().await;
            ways.router.flush().await.and(visitors).and(above)
        })
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
