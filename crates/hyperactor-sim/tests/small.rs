//! The small worlds: every order, every number, and what follows a hole.

use hyperactor_sim::{HELD_MAX, HOLES, PAUSE_MAX, SMALL_WORLDS, SmallWorld, edge, explore, pass};

/// S-02, S-04, S-06, S-16, S-18 and S-28: what is said of messages near 0, 2^32 and 2^62.
#[test]
fn numbers_at_the_edges_of_their_ranges_are_lawful_or_end_the_session() {
    let all = edge();
    assert_eq!(all.flaws, []);
    assert!(all.cases > 4000 && all.lawful > 500, "{all:?}");
    for code in [261, 263, 265, 266, 267, 268, 269] {
        assert!(all.violations.contains_key(&code), "code {code} in {all:?}");
    }
    assert!(all.refusals.contains_key(&3) && all.refusals.contains_key(&7));
}

#[test]
fn every_order_of_a_small_world_keeps_the_promises() {
    let world = SmallWorld {
        messages: 1,
        cuts: 1,
        restarts: 1,
        window: 2,
        lanes: 1,
        parts: 2,
    };
    let all = explore(world);
    assert!(all.flaw.is_none(), "{:?}", all.flaw);
    assert!(
        all.orders > 1000 && all.fenced != 0 && all.unknown != 0,
        "{all:?}"
    );
    let again = explore(world);
    assert_eq!((all.orders, all.same), (again.orders, again.same));
}

#[test]
fn the_small_worlds_have_breaks_restarts_places_and_parts() {
    let any = |is: fn(&SmallWorld) -> bool| SMALL_WORLDS.iter().any(is);
    assert!(any(|world| world.cuts == 2) && any(|world| world.restarts == 1));
    assert!(any(|world| world.messages == 4) && any(|world| world.lanes == 2));
    assert!(any(|world| world.parts == 3));
}

#[test]
fn what_follows_a_hole_flows_and_nobody_gathers_it() {
    for hole in HOLES {
        let passed = pass(hole, 5_000);
        assert_eq!(passed.flaws, [], "{passed}");
        assert!(
            passed.held <= HELD_MAX && passed.pause <= PAUSE_MAX,
            "{passed}"
        );
    }
}
