//! Messages between children: which way they go, in which order, and what a child that dies does to them.

use std::time::{Duration, Instant};

use hyperactor_bootstrap::{ExplainRoute, RouteAgent, RouteRung};
use hyperactor_host::{End, RoutePolicy};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::actors::Source;
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
    // More than may be under way at a time.
    const COUNT: u64 = 20_000;
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    // The first one is busy as long as its items are.
    let reader = pair.a.spawn::<Source>(&world.client, "reader", ()).await?;
    // Until there is a link, over which something was acknowledged.
    let mut first = 0;
    let straight = loop {
        let tally = world.flood(&pair.source, &pair.sink, first, 100).await?;
        assert_eq!(tally.delivered, 100, "{tally:?}");
        first += 100;
        let (direct, _) = world.routes(&reader, "b").await?;
        if direct > 0 {
            break direct;
        }
    };

    let pid = pair.b.info().pid.ok_or("no process")?;
    // From here on it acknowledges nothing: whatever is sent is under way when it is killed.
    send_signal(pid, Signal::STOP)?;
    let flood = world.flood(&pair.source, &pair.sink, first, COUNT);
    let kill = async {
        while world.routes(&reader, "b").await?.0 < straight + 1_000 {}
        send_signal(pid, Signal::KILL)?;
        Ok::<_, Box<dyn std::error::Error>>(Instant::now())
    };
    let (tally, killed) = tokio::join!(flood, kill);
    let tally = tally?;
    // What was under way ends at once, and so does each of the many that are still posted.
    assert!(killed?.elapsed() < Duration::from_secs(10), "{tally:?}");
    let total = tally.not_delivered + tally.unknown;
    assert_eq!(
        (total, tally.delivered, tally.doubled),
        (COUNT, 0, 0),
        "{tally:?}"
    );
    assert!(tally.unknown > 0 && tally.not_delivered > 0, "{tally:?}");
    assert_eq!(pair.b.join().await.to_string(), "was ended by signal 9");
    assert!(world.host.proc("b").is_none(), "its name is free");
    world.end().await
}
