//! Which of two links is used, and what becomes of the other: with ways that the test holds in its hand.

use std::time::Duration;

use hyperactor_refs::Incarnation;
use hyperactor_testkit::eventually;

use super::super::explain::LinkOrigin;
use super::tests::{Way, World, closed, refused};
use super::*;

const THEIRS: Incarnation = Incarnation::new(5);

/// A sibling of the life 5 that is up, for a proc of another life.
fn world(own: u64) -> World {
    let world = World::new(RoutePolicy::Auto);
    *world.ways.own.lock() = Some(Incarnation::new(own));
    world.sibling.announce(Life::Up(THEIRS));
    world
}

/// The sibling dials.
fn accept(world: &World) -> (Way, u64) {
    let way = Way::default();
    let number = world.sibling.adopt(THEIRS, Arc::new(way.clone()));
    (way, number.expect("it is of use"))
}

fn link(world: &World) -> Option<LinkOrigin> {
    world.sibling.standing().link
}

async fn all_delivered(world: &mut World) {
    for (number, outcome) in world.outcomes().await {
        assert!(outcome.is_ok(), "{number}: {outcome:?}");
    }
}

#[tokio::test]
async fn where_there_is_no_link_what_the_sibling_dialled_is_one() {
    let mut world = world(9);
    let (accepted, _) = accept(&world);
    assert_eq!(link(&world), Some(LinkOrigin::Accepted));
    world.post();
    assert_eq!(accepted.deliver_all(), [1]);
    assert_eq!(world.links(), 0, "nothing is dialled");
    all_delivered(&mut world).await;
}

#[tokio::test]
async fn a_link_that_comes_while_messages_are_relayed_waits_behind_the_fence() {
    let mut world = World::new(RoutePolicy::Auto);
    world.post();
    world.sibling.announce(Life::Up(THEIRS));
    let (accepted, _) = accept(&world);
    world.post();
    assert_eq!(accepted.numbers(), Vec::<u64>::new());
    assert_eq!(world.ways.relay.deliver_all(), [1]);
    assert_eq!(accepted.deliver_all(), [2]);
    all_delivered(&mut world).await;
}

#[tokio::test]
async fn of_two_dials_the_lower_incarnations_stands() {
    // Theirs is lower: this side changes over, behind the fence, and closes its own.
    let mut higher = world(9);
    higher.post();
    let dialled = higher.direct();
    let (accepted, _) = accept(&higher);
    higher.post();
    assert_eq!(
        accepted.numbers(),
        Vec::<u64>::new(),
        "the first has no outcome yet"
    );
    assert_eq!(dialled.deliver_all(), [1]);
    assert_eq!(accepted.deliver_all(), [2]);
    assert_eq!(link(&higher), Some(LinkOrigin::Accepted));
    let closed = || dialled.is_closed();
    eventually(Duration::from_secs(10), closed).await;
    all_delivered(&mut higher).await;

    // Nothing is under way: it changes over at once.
    let mut idle = world(9);
    idle.post();
    idle.direct().deliver_all();
    let (accepted, _) = accept(&idle);
    assert!(idle.direct().is_closed());
    idle.post();
    assert_eq!(accepted.deliver_all(), [2]);
    all_delivered(&mut idle).await;

    // Ours is lower: theirs is not used, and not closed by this side.
    let mut lower = world(3);
    lower.post();
    let (accepted, _) = accept(&lower);
    lower.post();
    assert_eq!(lower.direct().deliver_all(), [1, 2]);
    assert_eq!(accepted.numbers(), Vec::<u64>::new());
    assert!(!accepted.is_closed());
    assert_eq!(link(&lower), Some(LinkOrigin::Dialled));
    all_delivered(&mut lower).await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_nobody_takes_do_not_keep_others_waiting_for_a_change_of_links() {
    let mut world = world(9);
    world.post();
    let dialled = world.direct();
    let (accepted, _) = accept(&world);
    // The first is for somebody who takes nothing.
    for tries in 1..4 {
        world.post();
        world.post();
        assert_eq!(dialled.numbers().len(), 1, "held: the change is tried");
        eventually(Duration::from_secs(10), || dialled.numbers().len() == 3).await;
        assert_eq!(link(&world), Some(LinkOrigin::Dialled));
        assert_eq!(dialled.deliver_last_two(), [2 * tries, 2 * tries + 1]);
        // Until the next try nothing waits.
        world.sibling.close_idle();
        eventually(Duration::from_secs(10), || {
            link(&world) == Some(LinkOrigin::Accepted)
        })
        .await;
    }
    assert!(!dialled.is_closed());
    dialled.deliver_all();
    eventually(Duration::from_secs(10), || dialled.is_closed()).await;
    world.post();
    assert_eq!(accepted.deliver_all(), [8]);
    all_delivered(&mut world).await;
}

#[tokio::test]
async fn a_link_that_loses_is_there_when_the_other_fails() {
    let mut world = world(3);
    world.post();
    let (accepted, number) = accept(&world);
    world.direct().fail(refused());
    assert_eq!(accepted.deliver_all(), [1], "and not the host");
    world.post();
    assert_eq!(accepted.deliver_all(), [2]);
    world.sibling.core().ended(number);
    assert_eq!(link(&world), None);
    all_delivered(&mut world).await;
}

#[tokio::test]
async fn a_spare_that_is_over_is_not_fallen_back_on() {
    let mut world = world(3);
    world.post();
    let (accepted, number) = accept(&world);
    world.sibling.core().ended(number);
    world.direct().fail(refused());
    assert_eq!(accepted.numbers(), Vec::<u64>::new());
    assert_eq!(world.ways.relay.deliver_all(), [1]);
    all_delivered(&mut world).await;
}

#[tokio::test]
async fn a_link_that_its_dialer_closes_is_no_failure() {
    for policy in [RoutePolicy::Auto, RoutePolicy::Direct] {
        let mut world = World::new(policy);
        *world.ways.own.lock() = Some(Incarnation::new(9));
        world.sibling.announce(Life::Up(THEIRS));
        let (accepted, number) = accept(&world);
        world.post();
        world.post();
        world.post();
        accepted.deliver();
        // Two cross the goodbye; the first to come back tells.
        accepted.fail(closed());
        world.sibling.core().ended(number);
        world.post();
        accepted.fail(closed());
        assert_eq!(world.links(), 1, "another link is opened");
        assert_eq!(world.direct().deliver_all(), [2, 3, 4]);
        assert_eq!(world.ways.relay.numbers(), Vec::<u64>::new());
        let standing = world.sibling.standing();
        assert!(standing.fault.is_none() && standing.retry_at.is_none());
        all_delivered(&mut world).await;
    }
}

#[tokio::test]
async fn a_server_that_stops_fails_the_link_that_was_dialled() {
    let mut world = world(3);
    world.post();
    world.direct().fail(closed());
    assert_eq!(world.ways.relay.deliver_all(), [1]);
    assert!(world.sibling.standing().fault.is_some());
    all_delivered(&mut world).await;
}

#[tokio::test]
async fn only_who_dialled_closes_an_idle_link_and_only_when_nothing_came_either() {
    let mut higher = world(9);
    let (accepted, _) = accept(&higher);
    higher.post();
    accepted.deliver_all();
    for _ in 0..3 {
        higher.sibling.close_idle();
    }
    assert!(!accepted.is_closed());
    assert_eq!(link(&higher), Some(LinkOrigin::Accepted));

    let mut lower = world(3);
    lower.post();
    let dialled = lower.direct();
    dialled.deliver_all();
    for _ in 0..3 {
        dialled.receive();
        lower.sibling.close_idle();
        assert!(!dialled.is_closed(), "something came in");
    }
    lower.sibling.close_idle();
    assert!(dialled.is_closed());
    all_delivered(&mut higher).await;
    all_delivered(&mut lower).await;
}

#[tokio::test]
async fn what_another_life_dialled_is_not_sent_to() {
    let world = world(9);
    let stranger = Way::default();
    let link = Arc::new(stranger.clone());
    assert_eq!(world.sibling.adopt(Incarnation::new(6), link.clone()), None);
    world.sibling.announce(Life::Gone(THEIRS));
    assert_eq!(world.sibling.adopt(THEIRS, link), None);
    let relayed = World::new(RoutePolicy::Relay);
    relayed.sibling.announce(Life::Up(THEIRS));
    let link = Arc::new(stranger.clone());
    assert_eq!(
        relayed.sibling.adopt(THEIRS, link),
        None,
        "no link is to be used"
    );
    assert!(!stranger.is_closed(), "it is received from");
}

#[tokio::test]
async fn the_end_of_a_life_ends_every_link_to_it() {
    let mut world = world(3);
    world.post();
    let (accepted, _) = accept(&world);
    let dialled = world.direct();
    dialled.deliver_all();
    world.sibling.announce(Life::Gone(THEIRS));
    assert!(dialled.is_closed() && accepted.is_closed());
    world.post();
    assert_eq!(world.ways.relay.deliver_all(), [2]);
    all_delivered(&mut world).await;
}

#[tokio::test]
async fn links_that_are_ended_leave_the_host_as_the_way() {
    for policy in [RoutePolicy::Auto, RoutePolicy::Direct] {
        let mut world = World::new(policy);
        world.sibling.announce(Life::Up(THEIRS));
        world.post();
        let dialled = world.direct();
        dialled.deliver_all();
        assert_eq!(world.sibling.end_links().len(), 1);
        assert!(dialled.is_closed());
        world.post();
        assert_eq!(world.ways.relay.deliver_all(), [2]);
        all_delivered(&mut world).await;
    }
}
