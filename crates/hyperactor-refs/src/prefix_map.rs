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

    /// Whether a port has a value of its own. Where none has, all ports of an actor lead to the same.
    pub fn has_ports(&self) -> bool {
        !self.ports.is_empty()
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

/// The body of the fuzz target for [`PrefixMap`]: the first bytes are operations on few references, and after each the
/// map answers as a list that is searched from end to end.
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_prefix_map(data: &[u8]) -> crate::fuzzing::Seen {
    use crate::addr::ChannelAddr;
    use crate::fuzzing::{Parts, Seen};

    let mut parts = Parts(data);
    let mut map = PrefixMap::new();
    let mut model: Vec<(Reference, u8)> = Vec::new();
    let mut found = 0;
    for _ in 0..32 {
        if parts.0.is_empty() {
            break;
        }
        let (operation, place) = (parts.byte(), parts.byte());
        let addr = ChannelAddr::local(1 + u64::from(place & 1));
        let addr = addr.unwrap_or_else(|error| unreachable!("not 0: {error}"));
        let proc = ProcId::Direct(addr, ["p", "q"][usize::from(place >> 1 & 1)].to_owned());
        let actor = ActorId::new(
            proc.clone(),
            ["a", "b"][usize::from(place >> 2 & 1)],
            u64::from(place >> 3 & 1),
        );
        let port = PortId::new(actor.clone(), u64::from(place >> 4 & 1));
        let reference = match place >> 6 {
            0 => Reference::from(proc),
            1 => Reference::from(actor),
            _ => Reference::from(port.clone()),
        };
        let at = model.iter().position(|(known, _)| *known == reference);
        if operation % 4 == 0 {
            assert_eq!(map.remove(&reference), at.map(|at| model.swap_remove(at).1));
        } else if operation % 4 < 3 {
            let before = at.map(|at| model.swap_remove(at).1);
            model.push((reference.clone(), operation));
            assert_eq!(map.insert(reference.clone(), operation), before);
        }
        let target = Reference::from(port.clone());
        let longest = model
            .iter()
            .filter(|(known, _)| known.is_prefix_of(&target))
            .max();
        assert_eq!(
            map.lookup(&port),
            longest.map(|(_, value)| value),
            "{target} in {map:?}"
        );
        assert_eq!(map.len(), model.len());
        found |= 1 << longest.map_or(0, |(known, _)| 1 + u8::from(known.actor_id().is_some()));
    }
    Seen(1 << 32 | found << 8 | model.len() as u64)
}
