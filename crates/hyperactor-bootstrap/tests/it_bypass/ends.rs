//! Siblings that end, pause and come back: how soon senders know, and that nothing dead is dialled or kept.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use hyperactor_bootstrap::mailbox::LocalProcDialer;
use hyperactor_bootstrap::socket_name;
use hyperactor_channel::DialOptions;
use hyperactor_host::{End, HostedProc, RoutePolicy};
use hyperactor_testkit::{Class, Outcome, eventually};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::actors::Sink;
use crate::live::refusal_of;
use crate::rig::{Fate, Rig, pause, resume};
use crate::trial;
use crate::world::{LONG, TestResult, World, send_signal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "messages_to_a_sibling_that_the_host_said_is_gone_end_at_once_and_dial_nothing",
            said_to_be_gone,
        ),
        trial(
            "messages_to_a_sibling_that_died_unannounced_end_within_a_second",
            died_unannounced,
        ),
        trial(
            "a_sibling_that_was_paused_is_usable_soon_after_and_no_outcome_is_false",
            paused,
        ),
        trial(
            "a_restarted_name_is_reached_in_its_new_life",
            restarted_name,
        ),
        trial(
            "what_an_ended_life_had_not_acknowledged_is_not_for_the_next_one",
            unacknowledged,
        ),
    ]
}

/// The aim for half of the messages; the slowest has ten times that, for a machine that does something else.
const AT_ONCE: Duration = Duration::from_millis(100);

async fn said_to_be_gone() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let tally = world.flood(&pair.source, &pair.sink, 0, 1_000).await?;
    assert_eq!(tally.delivered, 1_000, "{tally:?}");
    kill(&pair.b).await?;
    let start = Instant::now();
    while refusal_of(&world, &pair.a, &pair.b).await?.as_deref() != Some("gone") {
        assert!(start.elapsed() < LONG, "nobody said that it is gone");
    }
    // Whoever dials it now is seen here.
    let socket = world.dir.join(socket_name("b"));
    let listener = UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    // A connection that broke at the death may be looked for again for a moment; what is posted from here on is not.
    tokio::time::sleep(Duration::from_secs(1)).await;
    while listener.accept().is_ok() {}
    let routes = world.routes(&pair.source, "b").await?;
    let tally = world.flood(&pair.source, &pair.sink, 1_000, 200).await?;
    let codes = BTreeMap::from([("proc-gone".to_owned(), 200)]);
    assert_eq!(
        (tally.not_delivered, &tally.codes),
        (200, &codes),
        "{tally:?}"
    );
    assert!(
        tally.median < AT_ONCE && tally.slowest < AT_ONCE * 10,
        "half within {:?}, all within {:?}",
        tally.median,
        tally.slowest
    );
    let (direct, relay) = world.routes(&pair.source, "b").await?;
    assert_eq!((direct, relay), (routes.0, routes.1 + 200));
    let came = listener.accept();
    assert!(came.is_err(), "somebody dialled the dead proc's socket");
    std::fs::remove_file(&socket)?;
    world.end().await
}

/// Kills a child and waits until its host knows.
async fn kill(hosted: &HostedProc) -> TestResult {
    send_signal(hosted.info().pid.ok_or("no process")?, Signal::KILL)?;
    hosted.join().await;
    Ok(())
}

async fn died_unannounced() -> TestResult {
    let rig = Rig::new().await?;
    let (b, keeper) = rig.keeper("b").await?;
    let direct = rig.dialer_with(|dialer| dialer.with_policy(RoutePolicy::Direct));
    // Both have a connection to it when it dies.
    rig.post_until_straight(&keeper, LONG).await;
    rig.posts.post(&direct, &keeper);
    rig.posts.all_told(LONG).await;
    let alive = rig.posts.count();
    assert_eq!(rig.read(&keeper, 1).await?, alive);
    kill(&b).await?;

    let told = |from: usize| {
        let fates = rig.posts.fates(from);
        assert_eq!(fates.len(), 100);
        for fate in &fates {
            assert_ne!(fate.outcome, Outcome::Delivered, "nobody was there");
            assert!(fate.took < Duration::from_secs(1), "{fate:?}");
        }
        codes(&fates)
    };
    let mut from = alive;
    let mut post = async |dialer: &LocalProcDialer| {
        (0..100).for_each(|_| rig.posts.post(dialer, &keeper));
        rig.posts.all_told(LONG).await;
        let codes = told(from);
        from += 100;
        codes
    };
    let gone = BTreeMap::from([("proc-gone", 100)]);
    // The connection broke: what never left goes to the host, which knows; there is no other way for the other.
    assert_eq!(post(&rig.dialer).await, gone);
    let broken = post(&direct).await;
    assert!(broken.keys().all(|code| *code == "connect"), "{broken:?}");
    // What a killed process leaves where nobody tidies up: a socket that refuses.
    let socket = rig.world.dir.join(socket_name("b"));
    drop(UnixListener::bind(&socket)?);
    let new = rig.dialer_with(|dialer| dialer);
    assert_eq!(post(&new).await, gone);
    new.announce("b", b.info().incarnation);
    assert_eq!(post(&new).await, gone);
    let refused = post(&direct).await;
    assert_eq!(refused, BTreeMap::from([("connect", 100)]));
    std::fs::remove_file(&socket)?;
    rig.end().await
}

fn codes(fates: &[Fate]) -> BTreeMap<&'static str, usize> {
    fates.iter().fold(BTreeMap::new(), |mut codes, fate| {
        *codes.entry(fate.code).or_default() += 1;
        codes
    })
}

async fn paused() -> TestResult {
    const TIMEOUT: Duration = Duration::from_millis(1_500);
    let impatient = |dialer: LocalProcDialer| {
        dialer.with_dial_options(DialOptions {
            delivery_timeout: TIMEOUT,
            silence_timeout: TIMEOUT / 2,
            ..DialOptions::default()
        })
    };
    let rig = Rig::with(World::new().await?, impatient)?;
    let (b, keeper) = rig.keeper("b").await?;
    let direct = rig.dialer_with(|dialer| impatient(dialer).with_policy(RoutePolicy::Direct));
    // Two senders with a way each: what one way has in store says nothing of the order on the other.
    let senders = [(&rig.dialer, rig.posts.clone()), (&direct, rig.posts.of(2))];
    let post = |count: usize| {
        for (dialer, posts) in &senders {
            (0..count).for_each(|_| posts.post(*dialer, &keeper));
        }
    };
    rig.announce(&b);
    post(10);
    rig.posts.all_told(LONG).await;
    let before = rig.posts.count();

    pause(&b)?;
    let start = Instant::now();
    post(50);
    // Later messages, which the system still takes, keep those before them waiting no longer.
    while rig.posts.fates(before).len() < 100 {
        assert!(start.elapsed() < TIMEOUT * 4, "{:?}", start.elapsed());
        post(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let during = rig.posts.fates(before);
    let count = |outcome| during.iter().filter(|fate| fate.outcome == outcome).count();
    assert_eq!(count(Outcome::Delivered), 0, "{:?}", codes(&during));
    assert!(count(Outcome::Unknown) > 0, "{:?}", codes(&during));
    // Those of the second way never leave; those of the first wait at the host, whose patience is longer.
    post(50);
    tokio::time::sleep(TIMEOUT).await;
    resume(&b)?;
    let back = Instant::now();
    for (dialer, posts) in &senders {
        let from = posts.count();
        posts.post(*dialer, &keeper);
        eventually(LONG, || !posts.fates(from).is_empty()).await;
        let fate = &posts.fates(from)[0];
        assert_eq!(fate.outcome, Outcome::Delivered, "{fate:?}");
    }
    assert!(
        back.elapsed() < Duration::from_secs(5),
        "usable after {:?}",
        back.elapsed()
    );
    rig.posts.all_told(LONG).await;
    // No entry is poisoned: messages go straight again.
    rig.post_until_straight(&keeper, Duration::from_secs(5))
        .await;
    rig.read(&keeper, 1).await?;
    let verdict = rig.posts.ledger().verdict();
    for class in Class::ALL.into_iter().filter(|class| class.is_fault()) {
        let keys = verdict.keys(class);
        assert!(keys.is_empty(), "{}: {keys:?}", class.name());
    }
    rig.world.end().await
}

async fn unacknowledged() -> TestResult {
    let rig = Rig::new().await?;
    let (old, keeper) = rig.keeper("b").await?;
    rig.announce(&old);
    rig.post(&keeper, 10);
    rig.posts.all_told(LONG).await;
    assert_eq!(rig.read(&keeper, 1).await?, 10);
    pause(&old)?;
    rig.post(&keeper, 100);
    kill(&old).await?;
    rig.dialer.announce_gone("b", old.info().incarnation);
    // Known as such before its next life begins, and by nobody's retry.
    rig.posts.all_told(LONG).await;
    let fates = rig.posts.fates(10);
    let unknown = |fate: &&Fate| fate.outcome == Outcome::Unknown;
    assert_eq!(fates.iter().filter(unknown).count(), 100, "{fates:?}");

    let (new, keeper) = rig.keeper("b").await?;
    assert_ne!(new.info().incarnation, old.info().incarnation);
    rig.announce(&new);
    let (before, relayed) = rig.counts("b");
    rig.post(&keeper, 100);
    rig.posts.all_told(LONG).await;
    assert_eq!(rig.counts("b"), (before + 100, relayed));
    assert_eq!(rig.read(&keeper, 2).await?, 100, "more than was for it");
    rig.end().await
}

async fn restarted_name() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    assert_eq!(
        world
            .flood(&pair.source, &pair.sink, 0, 100)
            .await?
            .delivered,
        100
    );
    for round in 1..=3 {
        let old = world.host.proc("b").ok_or("b does not run")?;
        let how = if round == 2 {
            End::Kill
        } else {
            End::Drain {
                deadline: Duration::from_secs(5),
            }
        };
        old.end(how).await;
        let new = world.spawn("b", RoutePolicy::Auto).await?;
        assert_ne!(new.info().incarnation, old.info().incarnation);
        assert_ne!(new.info().pid, old.info().pid);
        let sink = new.spawn::<Sink>(&world.client, "sink", ()).await?;
        let (before, _) = world.routes(&pair.source, "b").await?;
        let tally = world.flood(&pair.source, &sink, 0, 1_000).await?;
        assert_eq!(tally.delivered, 1_000, "round {round}: {tally:?}");
        assert_eq!(world.arrived(&sink).await?, 1_000, "round {round}");
        // The announcement of the new life may still have been on its way.
        let mut next = 1_000;
        while world.routes(&pair.source, "b").await?.0 <= before {
            assert!(
                next < 100_000,
                "round {round}: the new life was never reached straight"
            );
            assert_eq!(
                world.flood(&pair.source, &sink, next, 100).await?.delivered,
                100
            );
            next += 100;
        }
    }
    world.end().await
}
