//! Many procs that start at the same time.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyperactor_bootstrap::ProcessManager;
use hyperactor_host::RoutePolicy;
use hyperactor_refs::ChannelTransport;
use libtest_mimic::Trial;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use crate::trial;
use crate::world::{LONG, TestResult, World};

/// The variable that names the socket at which a child waits to be let on.
const BARRIER: &str = "HYPERACTOR_TEST_BARRIER";

const PROCS: usize = 32;

/// How much longer than one the many may take: a second, and four for a machine that does something else.
const MORE: Duration = Duration::from_secs(5);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "thirty_two_procs_start_in_the_time_of_the_slowest_and_a_slow_one_delays_nobody",
        thirty_two,
    )]
}

/// In each child, before its proc starts: waits until the test lets it on, where the test has a barrier.
pub(crate) fn wait_at_the_barrier() {
    let Some(place) = std::env::var_os(BARRIER) else {
        return;
    };
    let let_on = UnixStream::connect(place).and_then(|mut stream| stream.read_exact(&mut [0]));
    if let Err(error) = let_on {
        panic!("nobody lets this child on: {error}");
    }
}

async fn thirty_two() -> TestResult {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("barrier.sock");
    let barrier = UnixListener::bind(&place)?;
    let manager = ProcessManager::new()?.with_env(BARRIER, &place);
    let world = World::of(manager, ChannelTransport::Unix).await?;
    let arrive = async |count: usize| {
        let mut waiting = Vec::new();
        while waiting.len() < count {
            waiting.push(tokio::time::timeout(LONG, barrier.accept()).await??.0);
        }
        Ok::<_, Box<dyn std::error::Error>>(waiting)
    };
    let let_on = async |waiting: Vec<tokio::net::UnixStream>| {
        for mut stream in waiting {
            stream.write_all(&[1]).await?;
        }
        Ok::<_, std::io::Error>(Instant::now())
    };

    // One alone, from the moment it is let on.
    let one = world.spawn("one", RoutePolicy::Auto);
    let alone = async { Ok::<_, Box<dyn std::error::Error>>(let_on(arrive(1).await?).await?) };
    let (one, since) = tokio::join!(async { (one.await, Instant::now()) }, alone);
    let (one, ready) = one;
    drop(one?);
    let alone = ready - since?;

    // All are before the barrier at the same time: had one to wait for another, this would not end.
    let names: Vec<String> = (0..PROCS)
        .map(|number| format!("worker-{number}"))
        .collect();
    let mut spawns: FuturesUnordered<_> = names
        .iter()
        .map(|name| world.spawn(name, RoutePolicy::Auto))
        .collect();
    let arrived = arrive(PROCS);
    let mut arrived = std::pin::pin!(arrived);
    let mut waiting = tokio::select! {
        waiting = &mut arrived => waiting?,
        spawned = spawns.next() => return Err(format!("{spawned:?} was not held").into()),
    };
    // The slowest is still held when all others are ready.
    let slowest = waiting.split_off(PROCS - 1);
    let since = let_on(waiting).await?;
    let mut procs = Vec::new();
    while procs.len() < PROCS - 1 {
        procs.push(spawns.next().await.ok_or("too few procs")??);
    }
    let others = since.elapsed();
    assert!(others < alone + MORE, "{others:?}, and one alone {alone:?}");
    let since = let_on(slowest).await?;
    procs.push(spawns.next().await.ok_or("too few procs")??);
    let last = since.elapsed();
    assert!(last < alone + MORE, "{last:?}, and one alone {alone:?}");
    println!("one alone {alone:.0?}, the others {others:.0?}, the slowest {last:.0?}");
    assert_eq!(world.host.procs().len(), PROCS + 1);
    drop(spawns);
    world.end().await
}
