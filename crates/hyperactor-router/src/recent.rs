//! What a router found for the destinations that it saw last, so that a stream of envelopes does not look each of them up.
//! It holds no connection open, and nothing of it counts once the router's table has changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hyperactor_refs::PortId;
use parking_lot::Mutex;

use crate::limits::RECENT_DESTINATIONS;
use crate::slot::Slot;

/// A table with one place for each of a few values of a destination's hash: the last one that was found.
///
/// # Bounds
/// [`RECENT_DESTINATIONS`] entries.
pub(crate) struct Recent {
    /// Counts the changes of the router's table.
    age: Arc<AtomicU64>,
    entries: Box<[Mutex<Option<Entry>>]>,
}

struct Entry {
    dest: PortId,
    age: u64,
    slot: Weak<Slot>,
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
            entries: (0..RECENT_DESTINATIONS).map(|_| Mutex::default()).collect(),
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

    /// What was found, or the age of the table, to be read after this, with which what is found there is to be
    /// [kept](Self::keep).
    pub(crate) fn find(&self, dest: &PortId) -> Result<Arc<Slot>, u64> {
        let age = self.age.load(Ordering::Acquire);
        // Who would have to wait looks it up instead.
        let entry = self.entry(dest).try_lock().ok_or(age)?;
        match &*entry {
            Some(entry) if entry.age == age && entry.dest == *dest => {
                entry.slot.upgrade().ok_or(age)
            }
            _ => Err(age),
        }
    }

    pub(crate) fn keep(&self, dest: &PortId, age: u64, slot: &Arc<Slot>) {
        let found = Entry {
            dest: dest.clone(),
            age,
            slot: Arc::downgrade(slot),
        };
        if let Some(mut entry) = self.entry(dest).try_lock() {
            *entry = Some(found);
        }
    }

    fn entry(&self, dest: &PortId) -> &Mutex<Option<Entry>> {
        let hash = dest.actor_id().precomputed_hash() ^ dest.index();
        // The numbers of ports are hashes of types or count up, and an actor's hash is spread over all bits.
        &self.entries[(hash ^ (hash >> 32)) as usize % RECENT_DESTINATIONS]
    }
}

#[cfg(test)]
mod tests {
    use hyperactor_channel::DialOptions;
    use hyperactor_refs::{ActorId, ChannelAddr, ProcId};

    use super::*;

    fn dest(name: &str) -> PortId {
        let proc_id = ProcId::direct(ChannelAddr::local(7).unwrap(), "p").unwrap();
        PortId::new(ActorId::root(proc_id, name), 1)
    }

    fn slot() -> Arc<Slot> {
        Slot::new(
            ChannelAddr::local(7).unwrap(),
            Arc::new(DialOptions::default()),
        )
    }

    #[test]
    fn what_was_found_before_a_change_is_not_found_after_it() {
        let (recent, slot) = (Recent::new(), slot());
        let age = recent.find(&dest("a")).err().unwrap();
        recent.keep(&dest("a"), age, &slot);
        assert!(Arc::ptr_eq(&recent.find(&dest("a")).unwrap(), &slot));
        recent.forget();
        let newer = recent.find(&dest("a")).err().unwrap();
        // Looked up before the change, and kept after it.
        recent.keep(&dest("a"), age, &slot);
        assert_eq!(recent.find(&dest("a")).err().unwrap(), newer);
    }

    #[test]
    fn no_destination_is_taken_for_another() {
        let (recent, slot) = (Recent::new(), slot());
        // More than there are places, so some share one.
        let names: Vec<_> = (0..4 * RECENT_DESTINATIONS)
            .map(|at| format!("a{at}"))
            .collect();
        for name in &names {
            let age = recent.find(&dest(name)).err().unwrap();
            recent.keep(&dest(name), age, &slot);
        }
        let other = PortId::new(dest(&names[0]).actor_id().clone(), 2);
        assert!(recent.find(&other).is_err());
    }

    #[test]
    fn an_entry_keeps_no_slot_alive() {
        let (recent, slot) = (Recent::new(), slot());
        let age = recent.find(&dest("a")).err().unwrap();
        recent.keep(&dest("a"), age, &slot);
        drop(slot);
        assert!(recent.find(&dest("a")).is_err());
    }
}
