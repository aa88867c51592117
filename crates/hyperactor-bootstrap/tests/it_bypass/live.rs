//! Procs that live: which way messages to them go, and that nobody else sees these messages.

use std::time::{Duration, Instant};

use hyperactor_bootstrap::{ExplainRoute, RouteAgent, RouteRung, socket_name};
use hyperactor_host::{HostedProc, RoutePolicy};
use hyperactor_mailbox::{Failure, NotDelivered, RouteKind};
use hyperactor_proc::ActorRef;
use hyperactor_refs::ActorId;
use hyperactor_router::MailboxClient;
use hyperactor_testkit::eventually;
use libtest_mimic::Trial;

use crate::actors::{Inspector, Item, Look, Sink, Source};
use crate::events::Events;
use crate::keeper::Keeper;
use crate::rig::{Backend, Rig};
use crate::trial;
use crate::world::{LONG, TestResult, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("messages_to_a_proc_itself_touch_no_socket", own_proc),
        trial(
            "a_dialer_without_a_proc_hands_its_own_messages_to_whom_it_was_told",
            own_messages,
        ),
        trial(
            "messages_between_children_go_straight_and_in_order",
            straight_and_in_order,
        ),
        trial(
            "of_messages_that_go_straight_the_backend_sees_none",
            none_by_the_backend,
        ),
        trial(
            "a_sibling_that_has_not_bound_yet_is_relayed_to_and_the_switch_comes_once",
            not_bound_yet,
        ),
        trial("messages_to_the_service_proc_go_by_the_backend", service),
        trial(
            "an_unknown_proc_comes_back_at_once_with_the_names_there_are",
            unknown_proc,
        ),
    ]
}

async fn own_proc() -> TestResult {
    let world = World::new().await?;
    let a = world.spawn("a", RoutePolicy::Auto).await?;
    let source = a.spawn::<Source>(&world.client, "source", ()).await?;
    let sink = a.spawn::<Sink>(&world.client, "sink", ()).await?;
    let inspector = a.spawn::<Inspector>(&world.client, "inspector", ()).await?;
    let sockets = || async {
        let mut seen = inspector.ask(&world.client, Look).await?;
        seen.retain(|(_, target)| target.starts_with("socket:"));
        Ok::<_, Box<dyn std::error::Error>>(seen)
    };
    let before = sockets().await?;
    let tally = world.flood(&source, &sink, 0, 5_000).await?;
    assert_eq!((tally.delivered, tally.doubled), (5_000, 0), "{tally:?}");
    assert_eq!(world.arrived(&sink).await?, 5_000);
    assert_eq!(sockets().await?, before);
    assert_eq!(world.routes(&source, "a").await?, (0, 0));
    world.end().await
}

async fn own_messages() -> TestResult {
    let world = World::new().await?;
    let own = Backend::new(MailboxClient::dial(world.host.backend_addr().clone()));
    own.shut();
    let tester = world.host.proc_id("tester")?;
    let to = own.clone();
    let rig = Rig::with(world, |dialer| dialer.with_local(tester.clone(), to))?;
    let itself: ActorRef<Keeper> = ActorRef::attest(ActorId::root(tester, "keeper"));
    rig.post(&itself, 100);
    for (_, handle) in own.take() {
        drop(handle.delivered());
    }
    rig.posts.all_told(LONG).await;
    assert_eq!((own.count(), rig.backend.count()), (100, 0));
    assert_eq!(rig.dialer.counts(), []);
    rig.world.end().await
}

/// What a child has against the straight way to another, as a code; nothing while it takes that way.
pub(crate) async fn refusal_of(
    world: &World,
    from: &HostedProc,
    to: &HostedProc,
) -> TestResult<Option<String>> {
    let to = to.proc_id().clone();
    let report = RouteAgent::at(from.proc_id())
        .ask(&world.client, |reply| ExplainRoute { to, reply })
        .await?;
    let refused = report
        .refusals
        .into_iter()
        .find(|refusal| refusal.rung == RouteRung::Direct);
    Ok(refused.map(|refusal| refusal.code))
}

/// Waits until a child has heard from its host that another is up.
pub(crate) async fn has_heard_of(world: &World, from: &HostedProc, of: &HostedProc) -> TestResult {
    let start = Instant::now();
    while refusal_of(world, from, of).await?.as_deref() == Some("unknown") {
        assert!(start.elapsed() < LONG, "nobody announced it");
    }
    Ok(())
}

async fn straight_and_in_order() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    has_heard_of(&world, &pair.a, &pair.b).await?;
    let tally = world.flood(&pair.source, &pair.sink, 0, 5_000).await?;
    assert_eq!((tally.delivered, tally.doubled), (5_000, 0), "{tally:?}");
    assert_eq!(world.arrived(&pair.sink).await?, 5_000);
    // One that met a full queue was posted again, and counts twice.
    let (direct, relay) = world.routes(&pair.source, "b").await?;
    assert!(direct >= 5_000, "only {direct} of 5000 went straight");
    assert_eq!(relay, 0);
    world.end().await
}

async fn none_by_the_backend() -> TestResult {
    let rig = Rig::new().await?;
    let (b, keeper) = rig.keeper("b").await?;
    rig.announce(&b);
    rig.post(&keeper, 5_000);
    rig.posts.all_told(LONG).await;
    assert_eq!(rig.counts("b"), (5_000, 0));
    assert_eq!(rig.backend.count(), 0);
    assert_eq!(rig.read(&keeper, 1).await?, 5_000);
    rig.end().await
}

async fn not_bound_yet() -> TestResult {
    let rig = Rig::new().await?;
    let events = Events::watch();
    let (b, keeper) = rig.keeper("b").await?;
    let (socket, aside) = (
        rig.world.dir.join(socket_name("b")),
        rig.world.dir.join("aside"),
    );
    std::fs::rename(&socket, &aside)?;
    for _ in 0..20 {
        rig.post(&keeper, 1);
        rig.posts.all_told(LONG).await;
    }
    assert_eq!((rig.counts("b"), rig.backend.count()), ((0, 20), 20));

    // The fence: as long as the backend has messages without an outcome, nothing goes straight, and what comes is held.
    rig.backend.shut();
    rig.post(&keeper, 5);
    std::fs::rename(&aside, &socket)?;
    eventually(LONG, || {
        rig.post(&keeper, 1);
        rig.explain("b").held > 0
    })
    .await;
    let report = rig.explain("b");
    assert_eq!(
        (report.now, report.next, report.direct),
        (None, Some(RouteRung::Direct), 0),
        "{report}"
    );
    rig.post(&keeper, 100);
    assert!(rig.explain("b").held >= 101 && rig.counts("b").0 == 0);
    let relayed = rig.backend.count();
    rig.backend.open();
    rig.posts.all_told(LONG).await;
    rig.post(&keeper, 2_000);
    rig.posts.all_told(LONG).await;
    assert_eq!(rig.backend.count(), relayed, "it changed back");
    let posted = rig.posts.count();
    assert_eq!(rig.counts("b"), (posted as u64 - relayed, relayed));
    let switches = events.named("route.direct", &b.proc_id().to_string());
    assert_eq!(switches.len(), 1, "{switches:?}");
    assert_eq!(rig.read(&keeper, 1).await?, posted);
    rig.end().await
}

async fn service() -> TestResult {
    let rig = Rig::new().await?;
    let keeper = Keeper::default();
    let keeper = rig.world.host.service_proc().spawn("keeper", keeper)?;
    let keeper: ActorRef<Keeper> = keeper.bind();
    rig.post(&keeper, 100);
    rig.posts.all_told(LONG).await;
    assert_eq!(rig.read(&keeper, 1).await?, 100);
    assert_eq!(
        (rig.counts("service"), rig.backend.count()),
        ((0, 100), 100)
    );
    rig.end().await
}

async fn unknown_proc() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let nobody = world.host.proc_id("nobody")?;
    let nowhere: ActorRef<Sink> = ActorRef::attest(ActorId::root(nobody, "sink"));

    // From the host's own client.
    let start = Instant::now();
    nowhere.post(
        &world.client,
        Item {
            source: 0,
            number: 0,
            body: Default::default(),
        },
    );
    let report = world.client.next_undeliverable().await;
    let Failure::NotDelivered(NotDelivered::UnknownProc { host, known, .. }) = &report.failure
    else {
        panic!("{report}");
    };
    assert_eq!(host, world.host.addr());
    assert_eq!(*known, ["a", "b", "service"]);
    assert!(start.elapsed() < Duration::from_secs(1));

    // From a child, by way of the host.
    let tally = world.flood(&pair.source, &nowhere, 0, 3).await?;
    assert_eq!(tally.not_delivered, 3, "{tally:?}");
    let text = tally.first_failure.ok_or("no failure was noted")?;
    assert!(text.contains("a, b, service"), "{text}");
    assert!(text.contains(&RouteKind::Relay.to_string()), "{text}");
    world.end().await
}
