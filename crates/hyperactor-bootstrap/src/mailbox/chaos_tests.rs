//! Routes to a sibling under everything that can happen to them, in any order: posts, outcomes, links that fail, that the sibling
//! dials and closes, lives that begin and end.

use hyperactor_refs::Incarnation;

use super::tests::{Way, World, closed, died, refused};
use super::*;

/// A splitmix64 step (Steele, Lea and Flood, 2014), so that a run can be repeated from its number.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[tokio::test]
async fn whatever_happens_order_is_kept_and_each_message_has_one_outcome() {
    let mut switches = 0;
    let mut adopted = 0;
    for seed in 0..400 {
        let (dialled, accepted) = chaos(seed).await;
        switches += dialled;
        adopted += accepted;
    }
    assert!(
        switches > 2_000 && adopted > 2_000,
        "only {switches} and {adopted} changes of route: the test tested nothing"
    );
}

async fn chaos(seed: u64) -> (usize, usize) {
    let mut state = seed;
    let mut world = World::new(RoutePolicy::Auto);
    let mut arrived = Vec::new();
    let mut life = 1;
    // The middle of the lives, so that either side's dial wins at times.
    *world.ways.own.lock() = Some(Incarnation::new(random(&mut state) % 8));
    let mut accepted: Vec<(Way, u64)> = Vec::new();
    for _ in 0..300 {
        let mut links: Vec<Way> = world.ways.direct.lock().clone();
        links.extend(accepted.iter().map(|(way, _)| way.clone()));
        let mut busy = links.iter().filter(|way| !way.numbers().is_empty());
        let under_way_direct = busy.clone().count();
        let under_way_relay = usize::from(!world.ways.relay.numbers().is_empty());
        assert!(
            under_way_direct + under_way_relay <= 1,
            "seed {seed}: messages under way on two routes at once"
        );
        let way = busy.next_back().unwrap_or(&world.ways.relay).clone();
        match random(&mut state) % 19 {
            0..=5 => {
                world.post();
            }
            6..=10 => arrived.extend(way.deliver()),
            11 if under_way_direct > 0 => {
                way.fail(died());
            }
            12 if under_way_direct > 0 => {
                // A link that fails gives back everything that it had not sent, in any order.
                while way.fail_any(refused(), random(&mut state)).is_some() {}
            }
            13 => {
                world.sibling.announce(Life::Up(Incarnation::new(life)));
            }
            14 => {
                world.sibling.announce(Life::Gone(Incarnation::new(life)));
                life += 1;
            }
            15 => {
                // The sibling dials, in the life that is up or in another.
                let dialled = Way::default();
                let link = Arc::new(dialled.clone());
                let number = world.sibling.adopt(Incarnation::new(life), link);
                accepted.extend(number.map(|number| (dialled, number)));
            }
            16 if !accepted.is_empty() => {
                // It closes what it dialled: what it had not taken comes back, before or after the end is told.
                let index = random(&mut state) % accepted.len() as u64;
                let (way, number) = accepted[index as usize].clone();
                if random(&mut state).is_multiple_of(2) {
                    world.sibling.core().ended(number);
                }
                while way.fail(closed()).is_some() {}
                world.sibling.core().ended(number);
            }
            17 => world.sibling.close_idle(),
            _ => tokio::task::yield_now().await,
        }
    }
    let flush = world.sibling.flush();
    loop {
        let mut links: Vec<Way> = world.ways.direct.lock().clone();
        links.extend(accepted.iter().map(|(way, _)| way.clone()));
        let before = arrived.len();
        arrived.extend(links.iter().flat_map(Way::deliver_all));
        arrived.extend(world.ways.relay.deliver_all());
        if arrived.len() == before {
            break;
        }
    }
    flush.await;
    assert!(
        arrived.is_sorted(),
        "seed {seed}: out of order: {arrived:?}"
    );
    let delivered: Vec<u64> = world
        .outcomes()
        .await
        .into_iter()
        .filter_map(|(number, outcome)| outcome.is_ok().then_some(number))
        .collect();
    assert_eq!(delivered, arrived, "seed {seed}: an outcome is false");
    (world.links(), accepted.len())
}
