//! Properties of every value and every text, at 4,096 cases each. The examples stand in `docs/spec/address.md`, and the
//! tests that read them in `tests/`.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::RandomState;

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::fuzzing::{Text, check_text, check_value};
use crate::id::hash_of;
use crate::strategies::*;
use crate::{
    ActorId, BindSpec, ChannelAddr, ChannelTransport, Host, HostName, HostPort, Incarnation,
    Locality, PortId, PrefixMap, ProcId, Reference, UnixAddr, Zone,
};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 4096,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Equal in text, in value, in hash and in order: all or none.
fn check_pair<T: Text>(a: &T, b: &T) {
    let same = a == b;
    assert_eq!(same, a.to_string() == b.to_string(), "{a} and {b}");
    assert_eq!(same, a.cmp(b).is_eq(), "{a} and {b}");
    assert_eq!(a.cmp(b), b.cmp(a).reverse(), "{a} and {b}");
    assert!(!same || hash_of(a) == hash_of(b), "{a} and {b}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_address_prints_what_parses_to_it(addr: ChannelAddr, spec: BindSpec) {
        check_value(&addr);
        check_value(&spec);
    }

    #[test]
    fn every_id_prints_what_parses_to_it(
        proc: ProcId, actor: ActorId, port: PortId, reference: Reference, incarnation: Incarnation,
    ) {
        check_value(&proc);
        check_value(&actor);
        check_value(&port);
        check_value(&reference);
        check_value(&incarnation);
    }

    #[test]
    fn ordinary_names_print_as_they_are(name in ordinary_name()) {
        let proc = ProcId::Direct(ChannelAddr::local(1)?, name.clone());
        prop_assert_eq!(proc.to_string(), format!("local:1,{name}"));
    }

    #[test]
    fn every_spelling_of_an_address_is_that_address(
        (addr, spelling) in any_channel_addr().prop_flat_map(|addr| (Just(addr.clone()), spelling_of(&addr))),
    ) {
        prop_assert_eq!(spelling.parse::<ChannelAddr>()?, addr.clone());
        prop_assert!(spelling.parse::<ChannelAddr>()?.is_local_to(&addr));
        prop_assert_eq!(spelling.parse::<BindSpec>()?, BindSpec::Addr(addr));
    }

    #[test]
    fn no_text_breaks_a_parser(text in prop_oneof![nearly_an_address(), nearly_a_reference(), hostile_name()]) {
        let data = text.as_bytes();
        check_text::<ChannelAddr>(data);
        check_text::<BindSpec>(data);
        check_text::<ChannelTransport>(data);
        check_text::<ProcId>(data);
        check_text::<ActorId>(data);
        check_text::<PortId>(data);
        check_text::<Reference>(data);
        check_text::<Incarnation>(data);
    }

    #[test]
    fn a_reference_is_read_as_the_id_that_it_is(reference: Reference) {
        let text = reference.to_string();
        let proc = text.parse::<ProcId>().map(Reference::from);
        let actor = text.parse::<ActorId>().map(Reference::from);
        let port = text.parse::<PortId>().map(Reference::from);
        let readings: Vec<_> = [proc, actor, port].into_iter().flatten().collect();
        prop_assert_eq!(readings, vec![reference]);
    }

    #[test]
    fn text_order_hash_and_equality_agree(
        (a, b) in (any_reference(), any_reference()),
        (addr_a, addr_b) in (any_channel_addr(), any_channel_addr()),
        (spec_a, spec_b) in (any_bind_spec(), any_bind_spec()),
    ) {
        check_pair(&a, &b);
        check_pair(&addr_a, &addr_b);
        check_pair(&spec_a, &spec_b);
    }

    #[test]
    fn the_order_is_total_and_prefixes_come_first(mut references in proptest::collection::vec(near(), 3..12)) {
        references.sort();
        for pair in references.windows(2) {
            prop_assert!(pair[0] <= pair[1]);
        }
        for (at, reference) in references.iter().enumerate() {
            let after = &references[at..];
            let inside = after.iter().take_while(|other| reference.is_prefix_of(other)).count();
            // Everything that it is a prefix of follows it without a gap, and nothing of it stands before.
            prop_assert!(after[inside..].iter().all(|other| !reference.is_prefix_of(other)));
            prop_assert!(references[..at].iter().all(|other| !reference.is_prefix_of(other) || other == reference));
        }
    }

    #[test]
    fn a_lookup_finds_the_longest_prefix(
        entries in proptest::collection::vec(near(), 0..12),
        targets in proptest::collection::vec(near(), 1..8),
    ) {
        let map: PrefixMap<Reference> = entries.iter().map(|entry| (entry.clone(), entry.clone())).collect();
        let distinct: HashSet<_, RandomState> = entries.iter().cloned().collect();
        prop_assert_eq!(map.len(), distinct.len());
        for target in targets {
            let longest = entries.iter().filter(|entry| entry.is_prefix_of(&target)).max();
            prop_assert_eq!(map.lookup_reference(&target), longest);
            prop_assert_eq!(map.contains(&target), distinct.contains(&target));
        }
    }

    #[test]
    fn locality_is_the_same_from_both_sides(a in nearby_addr(), b in nearby_addr()) {
        prop_assert_eq!(a.locality(&b), b.locality(&a));
        prop_assert_eq!(a.locality(&a), Locality::Here);
        if a.transport() != b.transport() {
            prop_assert_eq!(a.locality(&b), Locality::Elsewhere);
        }
    }

    #[test]
    fn socket_addresses_come_back_as_they_were(addr: std::net::SocketAddr) {
        let spec = BindSpec::tcp(addr);
        match ChannelAddr::tcp(addr) {
            Ok(tcp) => {
                let back = tcp.host_port().and_then(HostPort::socket_addr);
                prop_assert_eq!(back.map(|back| (back.ip().to_canonical(), back.port())),
                    Some((addr.ip().to_canonical(), addr.port())));
                prop_assert_eq!(spec, BindSpec::Addr(tcp));
            }
            Err(_) => prop_assert!(addr.port() == 0 || addr.ip().to_canonical().is_unspecified()),
        }
    }
}

#[cfg(feature = "serde")]
proptest! {
    #![proptest_config(config())]

    #[test]
    fn both_forms_of_serde_give_the_value_back(
        reference: Reference, spec: BindSpec, incarnation: Incarnation, transport: ChannelTransport,
    ) {
        let value = (reference, spec, incarnation, transport);
        let json = serde_json::to_string(&value)?;
        let quoted = format!("\"{}\"", value.0);
        prop_assert!(json.contains(&quoted), "{} is not the text in {}", quoted, json);
        prop_assert_eq!(&serde_json::from_str::<(Reference, BindSpec, Incarnation, ChannelTransport)>(&json)?, &value);
        let bytes = postcard::to_allocvec(&value)?;
        prop_assert_eq!(&postcard::from_bytes::<(Reference, BindSpec, Incarnation, ChannelTransport)>(&bytes)?, &value);
    }

    #[test]
    fn no_bytes_break_the_compact_form(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        crate::wire::fuzz_compact(&bytes);
    }
}

/// References of which many are prefixes of each other.
fn near() -> impl Strategy<Value = Reference> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("")];
    (1..=2u64, name(), name(), 0..=1u64, 0..=1u64, 0..=2u8).prop_map(
        |(host, proc, actor, index, port, len)| {
            let addr = ChannelAddr::local(host).unwrap();
            let actor = ActorId::new(ProcId::Direct(addr, proc.to_owned()), actor, index);
            match len {
                0 => Reference::from(actor.proc().clone()),
                1 => Reference::from(actor),
                _ => Reference::from(PortId::new(actor, port)),
            }
        },
    )
}

/// Addresses of which many are one place or nearly.
fn nearby_addr() -> impl Strategy<Value = ChannelAddr> {
    let near = prop_oneof![
        Just("tcp:127.0.0.1:80"),
        Just("tcp:localhost:80"),
        Just("tcp:db.localhost:80"),
        Just("tcp:[::1]:80"),
        Just("tcp:127.0.0.2:80"),
        Just("tcp:example.com:80"),
        Just("tls:localhost:80"),
        Just("tcp:localhost:81"),
    ];
    prop_oneof![
        near.prop_map(|text| text.parse().unwrap()),
        any_channel_addr()
    ]
}

/// The value that a strategy shrinks to when every value fails.
fn simplest<S: Strategy>(strategy: S) -> S::Value
where
    S::Value: Debug,
{
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..config()
    });
    match runner.run(&strategy, |_| Err(TestCaseError::fail("each value fails"))) {
        Err(TestError::Fail(_, value)) => value,
        other => panic!("the strategy made no value: {other:?}"),
    }
}

fn check_simplest<S: Strategy>(strategy: S, text: &str)
where
    S::Value: std::fmt::Display + Debug,
{
    // More than once: where it starts from is random.
    let all: HashSet<String, RandomState> =
        (0..32).map(|_| simplest(&strategy).to_string()).collect();
    assert_eq!(all, HashSet::from_iter([text.to_owned()]));
}

#[test]
fn strategies_shrink_to_the_simplest_form() {
    check_simplest(any_channel_addr(), "local:1");
    check_simplest(local_addr(), "local:1");
    check_simplest(unix_addr(), "unix:a");
    check_simplest(tcp_addr(), "tcp:127.0.0.1:1");
    check_simplest(tls_addr(), "tls:127.0.0.1:1");
    check_simplest(any_bind_spec(), "local:");
    check_simplest(any_host_name(), "localhost");
    check_simplest(any_zone(), "1");
    check_simplest(any_transport(), "local");
    check_simplest(any_incarnation(), "0000000000000000");
    check_simplest(ordinary_name(), "a");
    check_simplest(hostile_name(), "a");
    check_simplest(any_name(), "a");
    check_simplest(nearly_an_address(), "local:1");
    check_simplest(nearly_a_reference(), "local:1,a");
    check_simplest(any_proc_id(), "local:1,a");
    check_simplest(any_actor_id(), "local:1,a,a[0]");
    check_simplest(any_port_id(), "local:1,a,a[0][0]");
    check_simplest(any_reference(), "local:1,a");
}

#[test]
fn every_type_is_arbitrary() {
    fn is_arbitrary<T: Arbitrary + Clone + PartialEq>() {}
    is_arbitrary::<ChannelAddr>();
    is_arbitrary::<ChannelTransport>();
    is_arbitrary::<BindSpec>();
    is_arbitrary::<UnixAddr>();
    is_arbitrary::<HostPort>();
    is_arbitrary::<Host>();
    is_arbitrary::<HostName>();
    is_arbitrary::<Zone>();
    is_arbitrary::<ProcId>();
    is_arbitrary::<ActorId>();
    is_arbitrary::<PortId>();
    is_arbitrary::<Reference>();
    is_arbitrary::<Incarnation>();
}
