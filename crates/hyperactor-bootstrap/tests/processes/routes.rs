//! Messages between children: which way they go, in which order, and what a child that dies does to them.

use std::time::{Duration, Instant};

use hyperactor_bootstrap::{ExplainRoute, RouteAgent, RouteRung};
use hyperactor_host::{End, RoutePolicy};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::actors::Arrived;
use crate::trial;
use crate::world::{TestResult, World, send_signal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_forced_relay_sends_nothing_straight", forced_relay),
        trial(
            "a_forced_direct_route_sends_nothing_by_the_host",
            forced_direct,
        ),
        trial(
            "a_child_says_which_way_its_messages_go_and_why_no_faster_one",
            explained,
        ),
        trial(
            "a_killed_child_ends_each_message_under_way_once",
            killed_child,
        ),
    ]
}

async fn forced_relay() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Relay).await?;
    let tally = world.flood(&pair.source, &pair.sink, 0, 2_000).await?;
    assert_eq!(tally.delivered, 2_000, "{tally:?}");
    assert_eq!(world.arrived(&pair.sink).await?, 2_000);
    let (direct, relay) = world.routes(&pair.source, "b").await?;
    assert!(direct == 0 && relay >= 2_000, "{direct} and {relay}");
    world.end().await
}

async fn forced_direct() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Direct).await?;
    let tally = world.flood(&pair.source, &pair.sink, 0, 2_000).await?;
    assert_eq!(tally.delivered, 2_000, "{tally:?}");
    assert_eq!(world.routes(&pair.source, "b").await?, (2_000, 0));

    pair.b.end(End::Kill).await;
    let tally = world.flood(&pair.source, &pair.sink, 2_000, 10).await?;
    assert_eq!(tally.delivered, 0, "{tally:?}");
    let (_, relay) = world.routes(&pair.source, "b").await?;
    assert_eq!(relay, 0, "what cannot go straight must come back");
    world.end().await
}

async fn explained() -> TestResult {
    for (policy, rung, code) in [
        (RoutePolicy::Auto, RouteRung::Direct, "not-built"),
        (RoutePolicy::Relay, RouteRung::Relay, "policy"),
    ] {
        let world = World::new().await?;
        let pair = world.pair(policy).await?;
        let tally = world.flood(&pair.source, &pair.sink, 0, 10).await?;
        assert_eq!(tally.delivered, 10, "{tally:?}");
        let to = pair.b.proc_id().clone();
        let report = RouteAgent::at(pair.a.proc_id())
            .ask(&world.client, |reply| ExplainRoute { to, reply })
            .await?;
        assert_eq!(report.now, Some(rung), "{report}");
        assert_eq!(
            report.refusals.last().expect("one at least").code,
            code,
            "{report}"
        );
        world.end().await?;
    }
    Ok(())
}

async fn killed_child() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let count = 60_000;
    let flood = world.flood(&pair.source, &pair.sink, 0, count);
    let kill = async {
        // Well under way.
        loop {
            let (arrived, _) = pair.sink.ask(&world.client, Arrived).await?;
            if arrived >= 1_000 {
                break;
            }
        }
        send_signal(pair.b.info().pid.ok_or("no process")?, Signal::KILL)?;
        Ok::<_, Box<dyn std::error::Error>>(Instant::now())
    };
    let (tally, killed) = tokio::join!(flood, kill);
    let tally = tally?;
    // What was under way ends at once, and so does each of the many that are still posted.
    assert!(killed?.elapsed() < Duration::from_secs(10), "{tally:?}");
    let total = tally.delivered + tally.not_delivered + tally.unknown;
    assert_eq!((total, tally.doubled), (count, 0), "{tally:?}");
    assert!(
        tally.delivered >= 1_000 && tally.not_delivered > 0,
        "{tally:?}"
    );
    assert_eq!(pair.b.join().await.to_string(), "was ended by signal 9");
    assert!(world.host.proc("b").is_none(), "its name is free");
    world.end().await
}
