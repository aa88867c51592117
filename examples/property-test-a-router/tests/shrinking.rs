//! What one gets to see of a fault. The router here cuts ids at their commas and brackets without undoing the escapes, and
//! compares prefixes as texts; both are faults that real routers have had. The test asks proptest for the smallest example of
//! each.

use hyperactor_refs::{PortId, ProcId, Reference};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

/// Takes the name of a proc out of a port's text: right for ordinary names, wrong where one has an escape.
fn name_by_cutting(port: &PortId) -> String {
    let text = port.to_string();
    text.split(',').nth(1).unwrap_or_default().to_owned()
}

/// Compares texts: right, but for `a` and `ab`, or `x[1]` and `x[1][2]`.
fn is_prefix_by_text(prefix: &Reference, other: &Reference) -> bool {
    other.to_string().starts_with(&prefix.to_string())
}

/// The smallest input for which `is_right` is false.
fn smallest<S: Strategy<Value: Clone>>(
    strategy: S,
    is_right: impl Fn(&S::Value) -> bool,
) -> S::Value {
    let config = Config {
        cases: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&strategy, |value| {
        if is_right(&value) {
            Ok(())
        } else {
            Err(TestCaseError::fail("wrong"))
        }
    });
    match result {
        Err(TestError::Fail(_, value)) => value,
        other => panic!("no input was found on which it fails: {other:?}"),
    }
}

#[test]
fn cutting_texts_fails_on_a_name_that_is_escaped() {
    let port = smallest(any::<PortId>(), |port| {
        name_by_cutting(port) == port.proc_id().name()
    });
    // Everything but the name shrank to the simplest there is: the name is what matters.
    assert_eq!(port.to_string().split(',').next(), Some("local:1"));
    assert_eq!((port.actor_id().index(), port.index()), (0, 0));
    assert!(port.to_string().contains('%'), "{port}");
}

#[test]
fn comparing_texts_fails_on_a_name_that_begins_like_another() {
    // Names that are near each other, as those of one program are.
    let names = ("[ab]{1,3}", "[ab]{1,3}").prop_map(|names: (String, String)| {
        let proc = |name| Reference::from(ProcId::Direct(addr(), name));
        (proc(names.0), proc(names.1))
    });
    let (prefix, other) = smallest(names, |(prefix, other)| {
        is_prefix_by_text(prefix, other) == prefix.is_prefix_of(other)
    });
    assert!(is_prefix_by_text(&prefix, &other) && !prefix.is_prefix_of(&other));
    assert_eq!(
        prefix.to_string().len() + 1,
        other.to_string().len(),
        "{prefix} and {other}"
    );
}

fn addr() -> hyperactor_refs::ChannelAddr {
    match hyperactor_refs::ChannelAddr::local(1) {
        Ok(addr) => addr,
        Err(error) => panic!("{error}"),
    }
}
