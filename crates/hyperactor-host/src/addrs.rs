//! Which addresses are one host's: [`HostAddrs`]. Finding those of a wildcard is in `interfaces`; nothing here asks the
//! system for anything.

use std::sync::Arc;

use hyperactor_mailbox::MessageEnvelope;
use hyperactor_refs::{ActorId, ChannelAddr, PortId, ProcId};
use serde::{Deserialize, Serialize};

use crate::limits;

/// The addresses of one host: the one that stands in the ids of its procs, and all others under which it is known.
///
/// An id with one of the others means the same proc. [`translate`](Self::translate) rewrites it, so that behind a host's
/// entrances every proc has one id.
///
/// ```
/// use hyperactor_host::HostAddrs;
/// use hyperactor_refs::ChannelAddr;
///
/// let addr = |text: &str| text.parse::<ChannelAddr>();
/// let addrs = HostAddrs::new(addr("unix:@host")?).with(addr("tcp:127.0.0.1:7000")?);
/// assert!(addrs.contains(&addr("tcp:localhost:7000")?));
/// assert!(!addrs.contains(&addr("tcp:127.0.0.1:7001")?));
/// # Ok::<(), hyperactor_refs::ParseError>(())
/// ```
///
/// # Bounds
/// At most [`limits::ADDRS_MAX`] addresses; more are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAddrs {
    canonical: ChannelAddr,
    others: Vec<ChannelAddr>,
}

impl HostAddrs {
    /// A host with one address, that of its procs' ids.
    #[must_use]
    pub fn new(canonical: ChannelAddr) -> Self {
        Self {
            canonical,
            others: Vec::new(),
        }
    }

    /// The same host, known by another address as well.
    #[must_use]
    pub fn with(mut self, addr: ChannelAddr) -> Self {
        self.add(addr);
        self
    }

    /// As [`with`](Self::with), for several.
    #[must_use]
    pub fn with_all(mut self, addrs: impl IntoIterator<Item = ChannelAddr>) -> Self {
        for addr in addrs {
            self.add(addr);
        }
        self
    }

    fn add(&mut self, addr: ChannelAddr) {
        if self.contains(&addr) {
            return;
        }
        if self.others.len() + 1 >= limits::ADDRS_MAX {
            tracing::warn!(target: "hyperactor::host", %addr, max = limits::ADDRS_MAX, "the host has too many addresses, and is not known by this one");
            return;
        }
        self.others.push(addr);
    }

    /// The address in the ids of the host's procs.
    #[must_use]
    pub fn canonical(&self) -> &ChannelAddr {
        &self.canonical
    }

    /// The others.
    #[must_use]
    pub fn others(&self) -> &[ChannelAddr] {
        &self.others
    }

    /// All of them, the canonical one first.
    pub fn iter(&self) -> impl Iterator<Item = &ChannelAddr> {
        std::iter::once(&self.canonical).chain(&self.others)
    }

    /// Whether an address is one of the host's, in any spelling.
    #[must_use]
    pub fn contains(&self, addr: &ChannelAddr) -> bool {
        self.iter().any(|own| addr.is_local_to(own))
    }

    /// Whether both have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.iter().any(|own| other.contains(own))
    }

    /// Says whether an envelope is for a proc of this host. If it is, its destination is spelt as the proc's id is, from
    /// here on.
    ///
    /// Costs a comparison of addresses for one that is spelt so already.
    pub fn translate(&self, envelope: &mut MessageEnvelope) -> bool {
        let dest = envelope.dest();
        let addr = dest.proc_id().addr();
        if *addr == self.canonical {
            return true;
        }
        if !self.contains(addr) {
            return false;
        }
        let name = dest.proc_id().name().to_owned();
        let proc_id = Arc::new(ProcId::Direct(self.canonical.clone(), name));
        let dest = readdressed(dest, proc_id);
        envelope.set_dest(dest);
        true
    }
}

/// The same port of the same actor, in a proc of another id.
pub(crate) fn readdressed(dest: &PortId, proc_id: Arc<ProcId>) -> PortId {
    let actor_id = dest.actor_id();
    let actor_id = ActorId::new(proc_id, actor_id.name(), actor_id.index());
    PortId::new(actor_id, dest.index())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> ChannelAddr {
        text.parse().unwrap()
    }

    fn envelope(to: &str) -> MessageEnvelope {
        let sender: ActorId = "unix:@x,sender,s[0]".parse().unwrap();
        MessageEnvelope::typed(sender, to.parse().unwrap(), 7u64)
    }

    #[test]
    fn an_id_in_any_spelling_becomes_the_one_of_the_proc() {
        let addrs = HostAddrs::new(addr("tcp:127.0.0.1:7000")).with(addr("unix:@host"));
        for to in [
            "tcp:127.0.0.1:7000,w,a[1][2]",
            "tcp:localhost:7000,w,a[1][2]",
            "unix:@host,w,a[1][2]",
        ] {
            let mut envelope = envelope(to);
            assert!(addrs.translate(&mut envelope), "{to}");
            let dest = envelope.dest().to_string();
            assert_eq!(dest, "tcp:127.0.0.1:7000,w,a[1][2]");
        }
        for to in ["tcp:127.0.0.1:7001,w,a[0][1]", "unix:@hosts,w,a[0][1]"] {
            let mut envelope = envelope(to);
            assert!(!addrs.translate(&mut envelope), "{to}");
            assert_eq!(envelope.dest().to_string(), to);
        }
    }

    #[test]
    fn an_address_counts_once_and_their_number_is_bounded() {
        let many = (1..=2 * limits::ADDRS_MAX as u64).map(|n| ChannelAddr::local(n).unwrap());
        let addrs = HostAddrs::new(addr("tcp:127.0.0.1:7000"))
            .with(addr("tcp:localhost:7000"))
            .with_all(many);
        assert_eq!(addrs.iter().count(), limits::ADDRS_MAX);
        assert_eq!(addrs.others()[0], addr("local:1"));
    }
}
