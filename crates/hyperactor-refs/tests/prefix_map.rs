//! The longest prefix is found whatever stands beside it.

#![allow(clippy::unwrap_used)] // A test may unwrap: its panic is its report.

use hyperactor_refs::{PortId, PrefixMap, Reference};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn port(text: &str) -> PortId {
    text.parse().unwrap()
}

fn map(entries: &[&'static str]) -> PrefixMap<&'static str> {
    entries
        .iter()
        .map(|text| (reference(text), *text))
        .collect()
}

#[test]
fn a_more_specific_sibling_does_not_hide_the_proc() {
    // In an ordered map, the greatest key that is not beyond the target is the sibling `a`, which is no prefix of it.
    let map = map(&[
        "local:1,p",
        "local:1,p,a[0]",
        "local:1,p,a[0][7]",
        "local:1,o",
        "local:1,q",
    ]);
    assert_eq!(map.lookup(&port("local:1,p,b[0][7]")), Some(&"local:1,p"));
    assert_eq!(map.lookup(&port("local:1,p,a[1][7]")), Some(&"local:1,p"));
    assert_eq!(
        map.lookup(&port("local:1,p,a[0][8]")),
        Some(&"local:1,p,a[0]")
    );
    assert_eq!(
        map.lookup(&port("local:1,p,a[0][7]")),
        Some(&"local:1,p,a[0][7]")
    );
}

#[test]
fn a_name_that_begins_like_another_is_another() {
    let map = map(&["local:1,worker", "local:1,worker-1,a[0]"]);
    assert_eq!(map.lookup(&port("local:1,worker-1,b[0][7]")), None);
    assert_eq!(
        map.lookup(&port("local:1,worker-1,a[0][7]")),
        Some(&"local:1,worker-1,a[0]")
    );
    assert_eq!(map.lookup(&port("local:11,worker,a[0][7]")), None);
}

#[test]
fn what_is_taken_out_gives_way_to_the_shorter_one() {
    let mut map = map(&["local:1,p", "local:1,p,a[0]"]);
    assert_eq!(
        map.remove(&reference("local:1,p,a[0]")),
        Some("local:1,p,a[0]")
    );
    assert_eq!(map.remove(&reference("local:1,p,a[0]")), None);
    assert_eq!(map.lookup(&port("local:1,p,a[0][7]")), Some(&"local:1,p"));
    assert_eq!(map.remove(&reference("local:1,p")), Some("local:1,p"));
    assert_eq!(map.lookup(&port("local:1,p,a[0][7]")), None);
    assert!(map.is_empty());
}

#[test]
fn an_entry_is_replaced_and_given_back() {
    let mut map = PrefixMap::new();
    assert_eq!(map.insert(reference("tcp:127.0.0.1:80,p"), 1), None);
    // The same place in another spelling is the same key.
    assert_eq!(map.insert(reference("tcp://127.1:080,%70"), 2), Some(1));
    *map.get_mut(&reference("tcp:127.0.0.1:80,p")).unwrap() += 1;
    assert_eq!(map.get(&reference("tcp:127.0.0.1:80,p")), Some(&3));
    assert_eq!(map.len(), 1);
}

#[test]
fn everything_in_it_can_be_seen_kept_and_cleared() {
    let texts = [
        "local:1,p",
        "local:1,p,a[0]",
        "local:1,p,a[0][7]",
        "local:1,q",
    ];
    let mut map = map(&texts);
    let mut seen: Vec<_> = map
        .iter()
        .map(|(reference, _)| reference.to_string())
        .collect();
    seen.sort();
    assert_eq!(seen, texts);
    assert_eq!(
        format!("{map:?}"),
        "{Reference(local:1,p): \"local:1,p\", Reference(local:1,p,a[0]): \"local:1,p,a[0]\", \
         Reference(local:1,p,a[0][7]): \"local:1,p,a[0][7]\", Reference(local:1,q): \"local:1,q\"}"
    );
    let proc = reference("local:1,p");
    map.retain(|reference, _| !proc.is_prefix_of(&reference));
    assert_eq!(map.len(), 1);
    map.clear();
    assert!(map.is_empty());
}
