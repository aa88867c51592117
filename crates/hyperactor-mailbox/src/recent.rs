//! What a muxer found for the ports that messages went to last, so that a stream of them does not look each of them up. It keeps
//! nothing alive, and nothing of it counts once a port or an actor has gone. What a router found is remembered in its own crate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hyperactor_refs::PortId;
use parking_lot::Mutex;

use crate::limits::RECENT_PORTS;
use crate::mailbox::PortSink;

/// The highest bit of a port number: the ports that an actor exports have it, those that are opened at run time do not.
const EXPORTED: u64 = 1 << 63;

/// Counts the removals of everything that may be remembered, in all muxers of the process: they are rare beside messages.
static AGE: AtomicU64 = AtomicU64::new(0);

/// Whether a port of this number may be remembered. Those opened at run time come and go with each question.
#[inline]
pub(crate) fn is_kept(index: u64) -> bool {
    index & EXPORTED != 0
}

/// A port that may be remembered, or an actor, goes. Called under the lock of the table that it goes from, so that a look-up that
/// still finds it there has read the age before.
pub(crate) fn forget() {
    AGE.fetch_add(1, Ordering::AcqRel);
}

/// When something was looked for in vain: what is found elsewhere after this is [kept](Recent::keep) with it.
pub(crate) struct Age(u64);

/// A table with one place for each of a few values of a port's hash: the last one that was found twice in a row.
///
/// # Bounds
/// [`RECENT_PORTS`] entries.
#[derive(Default)]
pub(crate) struct Recent([Place; RECENT_PORTS]);

#[derive(Default)]
struct Place {
    /// The hash of the entry's port, so that others need no lock to see that it is not theirs.
    hash: AtomicU64,
    /// The hash of the port that was looked for in vain last. Where ports take turns none is worth keeping.
    missed: AtomicU64,
    entry: Mutex<Option<Entry>>,
}

struct Entry {
    port_id: PortId,
    age: u64,
    sink: Weak<dyn PortSink>,
}

impl Recent {
    /// What was found for a port. If nothing is remembered of it, perhaps an age, with which what is found now is to be kept.
    #[inline]
    pub(crate) fn find(&self, port_id: &PortId) -> Result<Arc<dyn PortSink>, Option<Age>> {
        let age = AGE.load(Ordering::Acquire);
        let (place, hash) = self.place(port_id);
        if place.hash.load(Ordering::Relaxed) != hash {
            let is_second = place.missed.load(Ordering::Relaxed) == hash;
            if !is_second {
                place.missed.store(hash, Ordering::Relaxed);
            }
            return Err(is_second.then_some(Age(age)));
        }
        // Who would have to wait looks it up instead.
        let entry = place.entry.try_lock().ok_or(None)?;
        match &*entry {
            Some(entry) if entry.age == age && entry.port_id == *port_id => {
                entry.sink.upgrade().ok_or(None)
            }
            _ => Err(Some(Age(age))),
        }
    }

    /// Remembers what was found.
    pub(crate) fn keep(&self, port_id: &PortId, Age(age): Age, sink: &Arc<dyn PortSink>) {
        let (place, hash) = self.place(port_id);
        let found = Entry {
            port_id: port_id.clone(),
            age,
            sink: Arc::downgrade(sink),
        };
        if let Some(mut entry) = place.entry.try_lock() {
            place.hash.store(hash, Ordering::Relaxed);
            *entry = Some(found);
        }
    }

    #[inline]
    fn place(&self, port_id: &PortId) -> (&Place, u64) {
        let hash = port_id.actor_id().precomputed_hash() ^ port_id.index();
        // The numbers of exported ports are hashes of types, and an actor's hash is spread over all bits.
        let at = (hash ^ (hash >> 32)) as usize % RECENT_PORTS;
        (&self.0[at], hash)
    }
}
