//! What is done to ids for every message costs no allocation and no formatting.

#![allow(clippy::unwrap_used)] // A test may unwrap: its panic is its report.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use hyperactor_refs::{
    ActorId, BindSpec, BuildIdHasher, ChannelAddr, PortId, PrefixMap, ProcId, Reference,
};

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

/// Two equal ids that share nothing, so that no comparison is cut short by a pointer.
fn twins() -> [PortId; 2] {
    let text = "unix:/run/app/with%2Ccomma.sock,a%20proc%2Cwith%5Bhostile%5D,an_actor[7][1234]";
    [text.parse().unwrap(), text.parse().unwrap()]
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1);
}

#[test]
fn a_clone_of_an_id_or_an_address_allocates_nothing() {
    let [port, _] = twins();
    let reference = Reference::from(port.clone());
    let addr = port.proc_id().addr().clone();
    let named: ChannelAddr = "tcp:db.example.com:80".parse().unwrap();
    let zoned: ChannelAddr = "tcp:[fe80::1%eth0]:80".parse().unwrap();
    let spec = BindSpec::from(&addr);
    assert_eq!(
        allocations(|| {
            drop(port.clone());
            drop(port.actor_id().clone());
            drop(reference.clone());
            drop(Arc::clone(port.actor_id().proc()));
            drop((addr.clone(), named.clone(), zoned.clone(), spec.clone()));
        }),
        0
    );
}

#[test]
fn a_clone_of_an_id_is_one_reference_count() {
    let [port, _] = twins();
    let proc = Arc::clone(port.actor_id().proc());
    let before = Arc::strong_count(&proc);
    let clones = (
        port.clone(),
        port.actor_id().clone(),
        Reference::from(port.clone()),
    );
    // The count of the proc stands where it was: what was counted is the id around it.
    assert_eq!(Arc::strong_count(&proc), before);
    drop(clones);
}

#[test]
fn hashing_and_comparing_allocate_nothing() {
    let [a, b] = twins();
    let (ra, rb) = (Reference::from(a.clone()), Reference::from(b.clone()));
    let (pa, pb) = (
        Reference::from(a.actor_id().proc().clone()),
        Reference::from(b.actor_id().proc().clone()),
    );
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut equal = false;
    assert_eq!(
        allocations(|| {
            equal = a == b
                && a.cmp(&b).is_eq()
                && ra == rb
                && ra.cmp(&rb).is_eq()
                && pa == pb
                && pa < ra
                && pa.is_prefix_of(&rb)
                && a.proc_id() == b.proc_id()
                && a.proc_id().cmp(b.proc_id()).is_eq()
                && a.proc_id().addr().is_local_to(b.proc_id().addr())
                && hasher.hash_one(&a) == hasher.hash_one(&b)
                && hasher.hash_one(&ra) == hasher.hash_one(&rb)
                && hasher.hash_one(&pa) == hasher.hash_one(&pb)
                && hasher.hash_one(a.proc_id()) == hasher.hash_one(b.proc_id());
        }),
        0
    );
    assert!(equal);
}

#[test]
fn a_lookup_allocates_nothing() {
    let [port, twin] = twins();
    let mut map = PrefixMap::new();
    map.insert(Reference::from(port.actor_id().proc().clone()), 1);
    map.insert(
        Reference::from(ActorId::root(port.actor_id().proc().clone(), "other")),
        2,
    );
    let by_actor: HashMap<ActorId, u8, BuildIdHasher> =
        [(port.actor_id().clone(), 3)].into_iter().collect();
    let proc = Reference::from(twin.actor_id().proc().clone());
    let mut found = (None, None, None);
    assert_eq!(
        allocations(|| {
            found = (
                map.lookup(&twin),
                map.get(&proc),
                by_actor.get(twin.actor_id()),
            );
        }),
        0
    );
    assert_eq!(found, (Some(&1), Some(&1), Some(&3)));
}

#[test]
fn parsing_an_address_allocates_what_it_keeps() {
    assert_eq!(
        allocations(|| drop("tcp:127.0.0.1:80".parse::<ChannelAddr>())),
        0
    );
    assert_eq!(
        allocations(|| drop("unix:@abc123".parse::<ChannelAddr>())),
        1
    );
    // The name, and the address's.
    assert_eq!(
        allocations(|| drop("unix:@abc123,service".parse::<ProcId>())),
        2
    );
}

#[test]
fn an_actor_id_is_one_allocation_unless_its_name_is_long() {
    let [port, _] = twins();
    let proc = Arc::clone(port.actor_id().proc());
    let made = |name: &str| allocations(|| drop(ActorId::root(Arc::clone(&proc), name)));
    assert_eq!(made("worker-1234567"), 1);
    assert_eq!(made("twenty-two letters, 22"), 1);
    assert_eq!(made("twenty-three letters 23"), 2);
    assert_eq!(allocations(|| drop(port.actor_id().sibling("other", 1))), 1);
}
