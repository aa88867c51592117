//! A map from references to values that is asked for the longest prefix of an id.
//!
//! It is three hash tables, one a length, asked from the longest to the shortest: a lookup costs at most three probes
//! with hashes that the id brings along, however many entries there are. An ordered map does not do: its greatest key
//! that is not beyond the target may be a sibling of it, which hides the shorter prefix.

use std::collections::HashMap;
use std::fmt;

use crate::id::{ActorId, BuildIdHasher, PortId, ProcId, ProcKey, Reference};
use crate::id::{ProcLookup, hash_of_proc};

/// A map whose lookup finds the entry of the longest prefix.
///
/// ```
/// use hyperactor_refs::{ActorId, PortId, PrefixMap, ProcId, Reference};
///
/// let proc: ProcId = "unix:@abc123,worker".parse()?;
/// let mut routes = PrefixMap::new();
/// routes.insert(Reference::from(proc.clone()), "the proc");
/// routes.insert(Reference::from(ActorId::root(proc.clone(), "a")), "actor a");
///
/// let to = |name| PortId::new(ActorId::root(proc.clone(), name), 7);
/// assert_eq!(routes.lookup(&to("a")), Some(&"actor a"));
/// assert_eq!(routes.lookup(&to("b")), Some(&"the proc"));
/// # Ok::<(), hyperactor_refs::ParseError>(())
/// ```
#[derive(Clone)]
pub struct PrefixMap<V> {
    procs: HashMap<ProcKey, V, BuildIdHasher>,
    actors: HashMap<ActorId, V, BuildIdHasher>,
    ports: HashMap<PortId, V, BuildIdHasher>,
}

impl<V> PrefixMap<V> {
    /// An empty map, which allocates nothing.
    pub const fn new() -> Self {
        Self {
            procs: HashMap::with_hasher(BuildIdHasher),
            actors: HashMap::with_hasher(BuildIdHasher),
            ports: HashMap::with_hasher(BuildIdHasher),
        }
    }

    /// Enters a value and gives back the one that was there.
    pub fn insert(&mut self, reference: Reference, value: V) -> Option<V> {
        match reference {
            Reference::Proc(proc) => self.procs.insert(ProcKey::new(proc), value),
            Reference::Actor(actor) => self.actors.insert(actor, value),
            Reference::Port(port) => self.ports.insert(port, value),
        }
    }

    /// Takes out the value of exactly this reference.
    pub fn remove(&mut self, reference: &Reference) -> Option<V> {
        match reference {
            Reference::Proc(proc) => self.procs.remove(&proc_view(proc) as &dyn ProcLookup),
            Reference::Actor(actor) => self.actors.remove(actor),
            Reference::Port(port) => self.ports.remove(port),
        }
    }

    /// The value of exactly this reference.
    pub fn get(&self, reference: &Reference) -> Option<&V> {
        match reference {
            Reference::Proc(proc) => self.procs.get(&proc_view(proc) as &dyn ProcLookup),
            Reference::Actor(actor) => self.actors.get(actor),
            Reference::Port(port) => self.ports.get(port),
        }
    }

    /// The value of exactly this reference, to change.
    pub fn get_mut(&mut self, reference: &Reference) -> Option<&mut V> {
        match reference {
            Reference::Proc(proc) => self.procs.get_mut(&proc_view(proc) as &dyn ProcLookup),
            Reference::Actor(actor) => self.actors.get_mut(actor),
            Reference::Port(port) => self.ports.get_mut(port),
        }
    }

    /// Whether exactly this reference has a value.
    pub fn contains(&self, reference: &Reference) -> bool {
        self.get(reference).is_some()
    }

    /// The value of the longest prefix of a port: of the port itself, else of its actor, else of its proc.
    pub fn lookup(&self, port: &PortId) -> Option<&V> {
        self.at_port(port)
            .or_else(|| self.lookup_actor(port.actor_id()))
    }

    /// The value of the longest prefix of an actor: of the actor itself, else of its proc.
    pub fn lookup_actor(&self, actor: &ActorId) -> Option<&V> {
        self.at_actor(actor)
            .or_else(|| self.at_proc(actor.proc_id(), actor.proc_key().hash))
    }

    /// The value of the longest prefix of a reference.
    pub fn lookup_reference(&self, reference: &Reference) -> Option<&V> {
        match reference {
            Reference::Proc(_) => self.get(reference),
            Reference::Actor(actor) => self.lookup_actor(actor),
            Reference::Port(port) => self.lookup(port),
        }
    }

    /// How many references have a value.
    pub fn len(&self) -> usize {
        self.procs.len() + self.actors.len() + self.ports.len()
    }

    /// Whether no reference has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.procs.clear();
        self.actors.clear();
        self.ports.clear();
    }

    /// Every reference and its value, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Reference, &V)> {
        let procs = self
            .procs
            .iter()
            .map(|(key, v)| (Reference::Proc(key.proc.clone()), v));
        let actors = self
            .actors
            .iter()
            .map(|(actor, v)| (Reference::Actor(actor.clone()), v));
        let ports = self
            .ports
            .iter()
            .map(|(port, v)| (Reference::Port(port.clone()), v));
        procs.chain(actors).chain(ports)
    }

    /// Keeps the entries for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Reference, &mut V) -> bool) {
        self.procs
            .retain(|key, v| keep(Reference::Proc(key.proc.clone()), v));
        self.actors
            .retain(|actor, v| keep(Reference::Actor(actor.clone()), v));
        self.ports
            .retain(|port, v| keep(Reference::Port(port.clone()), v));
    }

    // An empty table of a length costs a comparison and no probe.

    fn at_port(&self, port: &PortId) -> Option<&V> {
        if self.ports.is_empty() {
            None
        } else {
            self.ports.get(port)
        }
    }

    fn at_actor(&self, actor: &ActorId) -> Option<&V> {
        if self.actors.is_empty() {
            None
        } else {
            self.actors.get(actor)
        }
    }

    fn at_proc(&self, proc: &ProcId, hash: u64) -> Option<&V> {
        if self.procs.is_empty() {
            None
        } else {
            self.procs.get(&(proc, hash) as &dyn ProcLookup)
        }
    }
}

fn proc_view(proc: &ProcId) -> (&ProcId, u64) {
    (proc, hash_of_proc(proc))
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Extend<(Reference, V)> for PrefixMap<V> {
    fn extend<I: IntoIterator<Item = (Reference, V)>>(&mut self, entries: I) {
        for (reference, value) in entries {
            self.insert(reference, value);
        }
    }
}

impl<V> FromIterator<(Reference, V)> for PrefixMap<V> {
    fn from_iter<I: IntoIterator<Item = (Reference, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<V: fmt::Debug> fmt::Debug for PrefixMap<V> {
    /// In the order of the references, so that two dumps can be compared.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entries: Vec<_> = self.iter().collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        f.debug_map().entries(entries).finish()
    }
}
