//! What is true of the routing table, whatever is in it.

use std::collections::BTreeMap;

use hyperactor_refs::strategies::{nearly_a_reference, nearly_an_address, spelling_of};
use hyperactor_refs::{ActorId, ChannelAddr, PortId, Reference};
use property_test_a_router::{Fault, Routes};
use proptest::collection::btree_map;
use proptest::prelude::*;

/// Every type of `hyperactor-refs` is `Arbitrary`: any table is as easy to have as this.
fn any_routes() -> impl Strategy<Value = BTreeMap<Reference, ChannelAddr>> {
    btree_map(any::<Reference>(), any::<ChannelAddr>(), 0..8)
}

fn build(routes: &BTreeMap<Reference, ChannelAddr>) -> Routes {
    let mut table = Routes::default();
    for (destination, place) in routes {
        table.add(destination.clone(), place.clone());
    }
    table
}

/// A port that is a stranger to the table, or one that an entry of it is about: two values drawn on their own seldom meet,
/// so the second kind is made from the table itself.
fn routes_and_port() -> impl Strategy<Value = (BTreeMap<Reference, ChannelAddr>, PortId)> {
    (
        any_routes(),
        any::<PortId>(),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(routes, port, index, is_stranger)| {
            if is_stranger || routes.is_empty() {
                return (routes, port);
            }
            let entry = index.get(&routes.keys().collect::<Vec<_>>()).to_owned();
            let port = match entry {
                Reference::Proc(proc) => PortId::new(
                    ActorId::new(proc.clone(), port.actor_id().name(), 0),
                    port.index(),
                ),
                Reference::Actor(actor) => PortId::new(actor.clone(), port.index()),
                Reference::Port(port) => port.clone(),
                _ => port,
            };
            (routes, port)
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(routes in any_routes()) {
        let written = build(&routes).to_string();
        let read = Routes::read(&written)?;
        prop_assert_eq!(read.to_string(), written);
    }

    #[test]
    fn the_most_specific_route_wins((routes, port) in routes_and_port()) {
        let target = Reference::from(port.clone());
        // The definition, written out: of all prefixes of the port, the longest. Prefixes sort by their length.
        let expected = routes.iter().filter(|(route, _)| route.is_prefix_of(&target)).max();
        let expected = expected.map_or(port.proc_id().addr(), |(_, place)| place);
        let table = build(&routes);
        prop_assert_eq!(table.place_of(&port), expected);
    }

    #[test]
    fn the_spelling_of_a_place_does_not_matter(
        port: PortId,
        (addr, spelling) in any::<ChannelAddr>().prop_flat_map(|addr| (Just(addr.clone()), spelling_of(&addr))),
    ) {
        let routes = Routes::read(&format!("# one route\n\n{} -> {spelling}\n", port.actor_id()))?;
        prop_assert_eq!(routes.place_of(&port), &addr);
    }

    #[test]
    fn a_line_that_is_nearly_right_is_read_as_it_stands_or_refused(
        destination in nearly_a_reference(),
        place in nearly_an_address(),
    ) {
        prop_assume!(!destination.contains(['\n', '\r']) && !place.contains(['\n', '\r']));
        match Routes::read(&format!("local:1,a -> local:1\n{destination} -> {place}")) {
            // It was right after all: then it holds exactly this route beside the first.
            Ok(routes) => {
                let mut expected = Routes::default();
                expected.add("local:1,a".parse()?, ChannelAddr::local(1)?);
                // An empty line and a comment are no routes.
                if let (Ok(destination), Ok(place)) = (destination.parse(), place.parse()) {
                    expected.add(destination, place);
                }
                prop_assert_eq!(routes.to_string(), expected.to_string());
            }
            Err(error) => {
                prop_assert_eq!(error.line, 2);
                let is_twice = destination.parse::<Reference>() == "local:1,a".parse();
                prop_assert!(is_twice || !matches!(error.fault, Fault::Twice));
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }

    #[test]
    fn a_destination_stands_in_one_line_only(destination: Reference, places in any::<[ChannelAddr; 2]>()) {
        let [a, b] = places;
        let error = Routes::read(&format!("{destination} -> {a}\n{destination} -> {b}\n")).unwrap_err();
        prop_assert!(matches!(error.fault, Fault::Twice) && error.line == 2);
    }
}
