//! Links over which nothing goes any more: closed when asked from time to time, opened again by the next message.

use super::super::words::Way;
use super::tests::{World, refused};
use super::*;

#[tokio::test]
async fn a_link_is_closed_when_nothing_went_over_it_since_it_was_asked_last() {
    let mut world = World::new(RoutePolicy::Auto);
    world.announce();
    world.post();
    let first = world.direct();
    first.deliver_all();
    world.sibling.close_idle();
    assert!(!first.is_closed(), "it was used since the last time");
    world.sibling.close_idle();
    assert!(first.is_closed());
    assert!(world.sibling.is_idle());

    world.post();
    assert_eq!(world.links(), 2, "the next message opens another");
    assert_eq!(world.direct().deliver_all(), [2]);
    assert_eq!(world.ways.relay.numbers(), Vec::<u64>::new());
    let outcomes = world.outcomes().await;
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
}

#[tokio::test]
async fn a_link_with_a_message_under_way_is_not_idle() {
    let mut world = World::new(RoutePolicy::Direct);
    world.announce();
    world.post();
    world.sibling.close_idle();
    world.sibling.close_idle();
    let link = world.direct();
    assert!(!link.is_closed());
    link.deliver_all();
    world.sibling.close_idle();
    assert!(link.is_closed());
    world.post();
    assert_eq!(
        world.direct().deliver_all(),
        [2],
        "also where the host is not to be used"
    );
}

#[tokio::test]
async fn what_stands_against_the_straight_way_is_known() {
    let mut world = World::new(RoutePolicy::Auto);
    assert_eq!(world.sibling.standing().way, Way::Relay);
    world.announce();
    world.post();
    assert_eq!(world.sibling.standing().way, Way::Direct);
    world.direct().fail(refused());
    let standing = world.sibling.standing();
    let (_, why) = standing.fault.expect("the fault is kept");
    assert!(why.contains("refused"), "{why}");
    world.ways.relay.deliver_all();
    world.outcomes().await;
}
