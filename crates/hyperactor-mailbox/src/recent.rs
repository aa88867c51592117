//! What was found for the ports that messages went to last, so that a stream of them does not look each of them up. It keeps
//! nothing alive. The tables in which the ports are looked up, and the count of their changes, are its owner's; that of the
//! muxers stands here.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hyperactor_refs::PortId;
use parking_lot::Mutex;

/// The highest bit of a port number: the ports that an actor exports have it, those that are opened at run time do not.
const EXPORTED: u64 = 1 << 63;

/// Counts the removals of everything that may be remembered, in all muxers of the process: they are rare beside messages.
static AGE: AtomicU64 = AtomicU64::new(0);

/// Whether a muxer may remember a port of this number. Those opened at run time come and go with each question.
#[inline]
pub(crate) fn is_kept(index: u64) -> bool {
    index & EXPORTED != 0
}

/// A port that a muxer may remember, or an actor, goes. Called under the lock of the table that it goes from, so that a look-up that
/// still finds it there has read the age before.
pub(crate) fn forget() {
    AGE.fetch_add(1, Ordering::AcqRel);
}

/// The age of all muxers.
#[inline]
pub(crate) fn age() -> u64 {
    AGE.load(Ordering::Acquire)
}

/// A table with one place for each of a few values of a port's hash: the last one that was looked for twice in a row.
///
/// Its owner counts the changes of what the ports are looked up in, and gives that count, the **age**, with each question, read
/// before anything is looked up: what was found at another age is not found here.
///
/// ```
/// use std::sync::Arc;
///
/// use hyperactor_mailbox::Recent;
/// use hyperactor_refs::{ActorId, ChannelAddr, PortId, ProcId};
///
/// let proc_id = ProcId::direct(ChannelAddr::local(7)?, "p")?;
/// let port_id = PortId::new(ActorId::root(proc_id, "a"), 1);
/// let recent = Recent::<str, 4>::new();
/// let found = Arc::from("what a look-up finds");
/// // Worth keeping the second time.
/// for _ in 0..2 {
///     let missed = recent.find(&port_id, 0).unwrap_err();
///     recent.keep(&port_id, missed, &found);
/// }
/// assert!(recent.find(&port_id, 0).is_ok());
/// assert!(recent.find(&port_id, 1).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Bounds
/// `PLACES` entries of a port's id and a weak reference. No method waits.
pub struct Recent<T: ?Sized, const PLACES: usize>([Place<T>; PLACES]);

struct Place<T: ?Sized> {
    /// The hash of the entry's port, so that others need no lock to see that it is not theirs.
    hash: AtomicU64,
    /// The hash of the port that was looked for in vain last. Where ports take turns none is worth keeping.
    missed: AtomicU64,
    entry: Mutex<Option<Entry<T>>>,
}

struct Entry<T: ?Sized> {
    port_id: PortId,
    age: u64,
    found: Weak<T>,
}

/// A port was looked for in vain: what is found elsewhere after this is [kept](Recent::keep) with it, if it is worth it.
// The age, in one word: with an option around it `find` would not answer in registers.
#[derive(Debug)]
pub struct Missed(u64);

impl Missed {
    /// An age that no count comes to.
    const IN_PASSING: Self = Self(u64::MAX);
}

impl<T: ?Sized, const PLACES: usize> Recent<T, PLACES> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self(std::array::from_fn(|_| Place {
            hash: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            entry: Mutex::new(None),
        }))
    }

    /// What was found for a port at this age.
    ///
    /// # Errors
    /// Nothing is remembered of it, or another thread is at its place.
    #[inline]
    pub fn find(&self, port_id: &PortId, age: u64) -> Result<Arc<T>, Missed> {
        let (place, hash) = self.place(port_id);
        if place.hash.load(Ordering::Relaxed) != hash {
            if place.missed.load(Ordering::Relaxed) == hash {
                return Err(Missed(age));
            }
            place.missed.store(hash, Ordering::Relaxed);
            return Err(Missed::IN_PASSING);
        }
        // Who would have to wait looks it up instead.
        let entry = place.entry.try_lock().ok_or(Missed::IN_PASSING)?;
        match &*entry {
            Some(entry) if entry.age == age && entry.port_id == *port_id => {
                entry.found.upgrade().ok_or(Missed(age))
            }
            _ => Err(Missed(age)),
        }
    }

    /// Remembers what was found, if it is worth it: unless the port was looked for in passing, or another thread is at its place.
    #[inline]
    pub fn keep(&self, port_id: &PortId, missed: Missed, found: &Arc<T>) {
        if missed.0 != Missed::IN_PASSING.0 {
            self.enter(port_id, missed, found);
        }
    }

    #[inline(never)]
    fn enter(&self, port_id: &PortId, Missed(age): Missed, found: &Arc<T>) {
        let (place, hash) = self.place(port_id);
        let found = Entry {
            port_id: port_id.clone(),
            age,
            found: Arc::downgrade(found),
        };
        if let Some(mut entry) = place.entry.try_lock() {
            place.hash.store(hash, Ordering::Relaxed);
            *entry = Some(found);
        }
    }

    #[inline]
    fn place(&self, port_id: &PortId) -> (&Place<T>, u64) {
        let hash = port_id.actor_id().precomputed_hash() ^ port_id.index();
        // The numbers of ports are hashes of types or count up, and an actor's hash is spread over all bits.
        let at = (hash ^ (hash >> 32)) as usize % PLACES;
        (&self.0[at], hash)
    }
}

impl<T: ?Sized, const PLACES: usize> Default for Recent<T, PLACES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: ?Sized, const PLACES: usize> fmt::Debug for Recent<T, PLACES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("places", &PLACES).finish()
    }
}

#[cfg(test)]
mod tests {
    use hyperactor_refs::{ActorId, ChannelAddr, ProcId};

    use super::*;

    const PLACES: usize = 16;

    fn port(name: &str) -> PortId {
        let proc_id = ProcId::direct(ChannelAddr::local(7).unwrap(), "p").unwrap();
        PortId::new(ActorId::root(proc_id, name), 1)
    }

    /// Looks a port up until it is worth keeping.
    fn missed(recent: &Recent<u64, PLACES>, port_id: &PortId) -> Missed {
        drop(recent.find(port_id, 0));
        recent.find(port_id, 0).unwrap_err()
    }

    #[test]
    fn what_was_found_at_another_age_is_not_found() {
        let (recent, found, a) = (Recent::new(), Arc::new(7), port("a"));
        let before = missed(&recent, &a);
        recent.keep(&a, missed(&recent, &a), &found);
        assert!(Arc::ptr_eq(&recent.find(&a, 0).unwrap(), &found));
        assert!(recent.find(&a, 1).is_err());
        // Looked up before the change, and kept after it.
        recent.keep(&a, before, &found);
        assert!(recent.find(&a, 1).is_err());
    }

    #[test]
    fn ports_that_take_turns_do_not_take_the_place_of_a_stream() {
        let (recent, found, a) = (Recent::new(), Arc::new(7), port("a"));
        recent.keep(&a, missed(&recent, &a), &found);
        let place = |port_id: &PortId| std::ptr::from_ref(recent.place(port_id).0);
        let others: Vec<_> = (0..)
            .map(|at| port(&format!("b{at}")))
            .filter(|other| place(other) == place(&a))
            .take(2)
            .collect();
        for other in others.iter().cycle().take(10) {
            let missed = recent.find(other, 0).unwrap_err();
            recent.keep(other, missed, &found);
        }
        assert!(recent.find(&a, 0).is_ok());
        // Until one of them is a stream itself.
        recent.keep(&others[0], missed(&recent, &others[0]), &found);
        assert!(recent.find(&a, 0).is_err());
    }

    #[test]
    fn no_port_is_taken_for_another() {
        let (recent, found) = (Recent::new(), Arc::new(7));
        // More than there are places, so some share one.
        let ports: Vec<_> = (0..4 * PLACES).map(|at| port(&format!("a{at}"))).collect();
        for port_id in &ports {
            recent.keep(port_id, missed(&recent, port_id), &found);
            assert!(recent.find(port_id, 0).is_ok());
            let other = PortId::new(port_id.actor_id().clone(), 2);
            assert!(recent.find(&other, 0).is_err());
        }
    }

    #[test]
    fn an_entry_keeps_nothing_alive_and_gives_its_place_up() {
        let (recent, found, a) = (Recent::new(), Arc::new(7), port("a"));
        recent.keep(&a, missed(&recent, &a), &found);
        drop(found);
        let missed = recent.find(&a, 0).unwrap_err();
        recent.keep(&a, missed, &Arc::new(8));
        assert!(recent.find(&a, 0).is_err());
    }
}
