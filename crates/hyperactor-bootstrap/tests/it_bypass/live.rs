//! Siblings that live: which way messages to them go, and that nobody else sees these messages.

use hyperactor_host::RoutePolicy;
use libtest_mimic::Trial;

use crate::trial;
use crate::world::{TestResult, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "messages_between_children_go_straight_and_in_order",
        straight_and_in_order,
    )]
}

async fn straight_and_in_order() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let tally = world.flood(&pair.source, &pair.sink, 0, 5_000).await?;
    assert_eq!((tally.delivered, tally.doubled), (5_000, 0), "{tally:?}");
    assert_eq!(world.arrived(&pair.sink).await?, 5_000);
    let (direct, relay) = world.routes(&pair.source, "b").await?;
    // One that met a full queue was posted again, and counts twice.
    assert!(direct + relay >= 5_000, "{direct} and {relay}");
    assert!(
        direct >= 4_500,
        "only {direct} of 5000 messages went straight"
    );
    world.end().await
}
