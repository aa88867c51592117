//! Waiting for the outcomes of what was posted, and what becomes of messages whose dialer goes away.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyperactor_bootstrap::socket_name;
use hyperactor_mailbox::{FlushError, MailboxSender};
use hyperactor_testkit::{Outcome, eventually};
use libtest_mimic::Trial;

use crate::rig::{Fate, Rig, pause, resume};
use crate::trial;
use crate::world::{LONG, TestResult};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_flush_waits_for_what_went_straight_and_for_what_went_by_the_backend",
            both_ways,
        ),
        trial(
            "a_flush_that_meets_its_deadline_gives_up_and_costs_no_message",
            deadline,
        ),
        trial("a_second_flush_joins_the_first", joined),
        trial(
            "a_dialer_dropped_with_a_thousand_messages_under_way_settles_each_truly",
            dropped_dialer,
        ),
        trial(
            "a_runtime_dropped_with_a_thousand_messages_under_way_settles_each_truly",
            dropped_runtime,
        ),
    ]
}

fn is_over(flush: &mut BoxFuture<'_, Result<(), FlushError>>) -> bool {
    flush.now_or_never().is_some()
}

async fn both_ways() -> TestResult {
    let rig = Rig::new().await?;
    let (b, straight) = rig.keeper("b").await?;
    let (_c, round) = rig.keeper("c").await?;
    rig.announce(&b);
    rig.post(&straight, 1);
    rig.posts.all_told(LONG).await;
    // One of the two is nowhere to be found.
    std::fs::remove_file(rig.world.dir.join(socket_name("c")))?;

    rig.backend.shut();
    rig.post(&straight, 50);
    rig.post(&round, 50);
    let mut flush = rig.dialer.flush().boxed();
    assert!(!is_over(&mut flush));
    // Everything on the straight way has its outcome, and that is not enough.
    eventually(LONG, || rig.posts.fates(1).len() == 50).await;
    assert!(!is_over(&mut flush));
    rig.backend.open();
    flush.await?;
    assert_eq!(rig.posts.fates(1).len(), 100);

    pause(&b)?;
    rig.post(&straight, 50);
    rig.post(&round, 50);
    let mut flush = rig.dialer.flush().boxed();
    // Now the other way round.
    eventually(LONG, || rig.posts.fates(101).len() == 50).await;
    assert!(!is_over(&mut flush));
    resume(&b)?;
    flush.await?;
    assert_eq!(rig.posts.fates(101).len(), 100);

    assert_eq!((rig.counts("b"), rig.counts("c")), ((101, 0), (0, 100)));
    assert_eq!(rig.read(&straight, 1).await?, 101);
    assert_eq!(rig.read(&round, 1).await?, 100);
    rig.end().await
}

async fn deadline() -> TestResult {
    const DEADLINE: Duration = Duration::from_millis(200);
    let rig = Rig::new().await?;
    let (b, keeper) = rig.keeper("b").await?;
    rig.announce(&b);
    rig.post(&keeper, 1);
    rig.dialer.flush().await?;
    pause(&b)?;
    rig.post(&keeper, 100);
    let start = Instant::now();
    let flushed = tokio::time::timeout(DEADLINE, rig.dialer.flush()).await;
    assert!(flushed.is_err(), "nobody was there to acknowledge anything");
    assert!(start.elapsed() < DEADLINE * 10, "{:?}", start.elapsed());
    resume(&b)?;
    rig.dialer.flush().await?;
    assert_eq!(rig.posts.fates(0).len(), 101);
    assert_eq!(rig.read(&keeper, 1).await?, 101);
    rig.end().await
}

async fn joined() -> TestResult {
    let rig = Rig::new().await?;
    let (_b, keeper) = rig.keeper("b").await?;
    std::fs::remove_file(rig.world.dir.join(socket_name("b")))?;
    rig.backend.shut();
    rig.post(&keeper, 10);
    let mut flushes: Vec<_> = (0..100).map(|_| rig.dialer.flush().boxed()).collect();
    assert!(!flushes.iter_mut().any(is_over));
    let earlier = rig.backend.take();
    rig.backend.shut();
    // Posted later: none of them waits for it, and one that is called now does.
    rig.post(&keeper, 1);
    let mut later = rig.dialer.flush().boxed();
    rig.backend.pass(earlier);
    eventually(LONG, || rig.posts.fates(0).len() == 10).await;
    for flush in flushes {
        flush.await?;
    }
    assert!(!is_over(&mut later));
    rig.backend.open();
    later.await?;
    // With nothing under way there is nothing to wait for.
    rig.dialer.flush().await?;
    assert_eq!(rig.read(&keeper, 1).await?, 11);
    rig.end().await
}

async fn dropped_dialer() -> TestResult {
    let rig = Rig::new().await?;
    let (b, straight) = rig.keeper("b").await?;
    let (_c, changing) = rig.keeper("c").await?;
    rig.announce(&b);
    rig.post(&straight, 1);
    rig.posts.all_told(LONG).await;
    pause(&b)?;
    rig.backend.shut();
    rig.post(&straight, 500);
    // These wait in every state there is: at the backend, and behind the fence of a change of route.
    // Not to be found before the backend has something for it.
    let socket = rig.world.dir.join(socket_name("c"));
    let aside = socket.with_extension("aside");
    std::fs::rename(&socket, &aside)?;
    rig.post(&changing, 100);
    std::fs::rename(&aside, &socket)?;
    eventually(LONG, || {
        rig.post(&changing, 1);
        rig.explain("c").held > 0
    })
    .await;
    let under_way = rig.posts.count() - 1;
    rig.post(&changing, 1_000_u64.saturating_sub(under_way as u64));
    assert!(rig.posts.count() > 1_000 && rig.posts.fates(1).is_empty());
    let Rig {
        world,
        dialer,
        backend,
        posts,
    } = rig;
    drop(dialer);
    backend.open();
    resume(&b)?;
    posts.all_told(LONG).await;
    let rig = Rig::resumed(world, backend, posts);
    rig.read(&straight, 1).await?;
    rig.read(&changing, 1).await?;
    for fate in rig.posts.fates(0) {
        assert_eq!(fate.outcome, Outcome::Delivered, "{fate:?}");
    }
    rig.end().await
}

async fn dropped_runtime() -> TestResult {
    let mut rig = Rig::new().await?;
    let (b, straight) = rig.keeper("b").await?;
    let (c, held) = rig.keeper("c").await?;
    let runtime = tokio::runtime::Runtime::new()?;
    {
        let _inside = runtime.enter();
        rig.dialer = rig.dialer_with(|dialer| dialer);
    }
    rig.announce(&b);
    rig.post(&straight, 1);
    rig.posts.all_told(LONG).await;
    for hosted in [&b, &c] {
        pause(hosted)?;
    }
    rig.post(&straight, 500);
    rig.post(&held, 500);
    let Rig {
        world,
        dialer,
        backend,
        posts,
    } = rig;
    runtime.shutdown_background();
    drop(dialer);
    let delivered = |fate: &Fate| fate.outcome == Outcome::Delivered;
    assert!(
        !posts.fates(1).iter().any(delivered),
        "nobody could acknowledge it"
    );
    // The way by the host has a runtime of its own, and goes on.
    for hosted in [&b, &c] {
        resume(hosted)?;
    }
    posts.all_told(LONG).await;
    let rig = Rig::resumed(world, backend, posts);
    rig.read(&straight, 1).await?;
    rig.read(&held, 1).await?;
    assert_eq!(rig.posts.fates(1).len(), 1_000);
    rig.end().await
}
