//! What a router found for the destinations that it saw last, so that a stream of envelopes does not look each of them up.
//! It holds no connection open, and nothing of it counts once the router's table has changed. How it is remembered is the
//! mailboxes' matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperactor_mailbox::Missed;
use hyperactor_refs::PortId;

use crate::limits::RECENT_DESTINATIONS;
use crate::slot::Slot;

/// The slots of the destinations that were looked for twice in a row.
///
/// # Bounds
/// [`RECENT_DESTINATIONS`] entries.
pub(crate) struct Recent {
    /// Counts the changes of the router's table.
    age: Arc<AtomicU64>,
    slots: Box<hyperactor_mailbox::Recent<Slot, RECENT_DESTINATIONS>>,
}

/// When something was found.
pub(crate) struct Age {
    seen: u64,
    now: Arc<AtomicU64>,
}

impl Age {
    /// Whether nothing has changed since.
    pub(crate) fn is_present(&self) -> bool {
        self.now.load(Ordering::Acquire) == self.seen
    }
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self {
            age: Arc::default(),
            slots: Box::default(),
        }
    }

    /// The router's table is about to change. Called under its lock for writing.
    pub(crate) fn forget(&self) {
        self.age.fetch_add(1, Ordering::AcqRel);
    }

    /// The age of the table, to be read before something is looked up there that is to be remembered.
    pub(crate) fn age(&self) -> Age {
        Age {
            seen: self.age.load(Ordering::Acquire),
            now: Arc::clone(&self.age),
        }
    }

    /// What was found. If nothing is remembered, that with which what is found in the table after this is to be
    /// [kept](Self::keep).
    #[inline]
    pub(crate) fn find(&self, dest: &PortId) -> Result<Arc<Slot>, Missed> {
        self.slots.find(dest, self.age.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn keep(&self, dest: &PortId, missed: Missed, slot: &Arc<Slot>) {
        self.slots.keep(dest, missed, slot);
    }
}

#[cfg(test)]
mod tests {
    use hyperactor_channel::DialOptions;
    use hyperactor_refs::{ActorId, ChannelAddr, ProcId};

    use super::*;

    #[test]
    fn what_was_found_before_a_change_is_not_found_after_it() {
        let addr = ChannelAddr::local(7).unwrap();
        let proc_id = ProcId::direct(addr.clone(), "p").unwrap();
        let dest = PortId::new(ActorId::root(proc_id, "a"), 1);
        let slot = Slot::new(addr, Arc::new(DialOptions::default()));
        let recent = Recent::new();
        let missed = || recent.find(&dest).err().unwrap();
        recent.keep(&dest, missed(), &slot);
        let early = missed();
        recent.keep(&dest, missed(), &slot);
        let age = recent.age();
        assert!(Arc::ptr_eq(&recent.find(&dest).ok().unwrap(), &slot));
        assert!(age.is_present());
        recent.forget();
        assert!(!age.is_present());
        assert!(recent.find(&dest).is_err());
        // Looked up before the change, and kept after it.
        recent.keep(&dest, early, &slot);
        assert!(recent.find(&dest).is_err());
    }
}
