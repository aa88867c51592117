//! Streams that a host passes on for its children while what it knows of them changes: its connections with them are lost, and
//! the numbers that stand for actors on them become those of others. What the host remembers of one actor must never serve
//! another, and nobody may be able to tell.

use std::os::fd::{AsFd, OwnedFd};

use hyperactor_host::{HostedProc, RoutePolicy};
use hyperactor_proc::ActorRef;
use libtest_mimic::Trial;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_peercred};
use rustix::net::{AddressFamily, Shutdown, shutdown};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::actors::{Arrived, Sink, Source, Stray};
use crate::trial;
use crate::world::{LONG, TestResult, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "streams_that_pass_a_host_stay_whole_when_its_connections_are_cut",
            cut_connections,
        ),
        trial(
            "what_is_for_nobody_goes_to_nobody_when_it_has_the_number_of_a_stream_that_passed_before",
            used_numbers,
        ),
    ]
}

/// Cuts every connection that this process, which is the host, has with a child; says how many those were.
fn cut(child: &HostedProc) -> TestResult<usize> {
    let child = child.info().pid.ok_or("no process")?;
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut cut = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        // Meanwhile it may have been closed.
        let Ok(found) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        if is_connected_with(&found, child) {
            shutdown(&found, Shutdown::Both)?;
            cut += 1;
        }
    }
    Ok(cut)
}

fn is_connected_with(found: &OwnedFd, child: u32) -> bool {
    let found = found.as_fd();
    socket_domain(found) == Ok(AddressFamily::UNIX)
        && socket_acceptconn(found) == Ok(false)
        && socket_peercred(found)
            .is_ok_and(|peer| peer.pid.as_raw_nonzero().get().unsigned_abs() == child)
}

async fn cut_connections() -> TestResult {
    /// Of each stream, with one cut between its first message and its last.
    const ROUND: u64 = 4_000;
    const CUTS: usize = 5;
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Relay).await?;
    // A second stream beside the first: each has its own numbers, and may only ever have those.
    let source = pair.a.spawn::<Source>(&world.client, "other", ()).await?;
    let sink = pair.b.spawn::<Sink>(&world.client, "other", ()).await?;

    let (mut sent, mut cuts) = (0, Vec::new());
    while cuts.len() < CUTS {
        let floods = async {
            tokio::try_join!(
                world.flood(&pair.source, &pair.sink, sent, ROUND),
                world.flood(&source, &sink, sent, ROUND),
            )
        };
        let cut = async {
            // Something came by the connections that there are now.
            while arrived(&world, &sink).await? <= sent {}
            let cut = (
                cut_when_connected(&world, &sink, &pair.a).await?,
                cut_when_connected(&world, &sink, &pair.b).await?,
            );
            Ok((arrived(&world, &sink).await?, cut))
        };
        let (tallies, (came, cut)) = tokio::try_join!(floods, cut)?;
        sent += ROUND;
        for tally in [tallies.0, tallies.1] {
            assert_eq!((tally.delivered, tally.doubled), (ROUND, 0), "{tally:?}");
        }
        // A stream that was faster than the knife counts for nothing.
        if came < sent {
            cuts.push((came, cut));
        }
        assert!(sent < 100 * ROUND, "cut in time, of so many: {cuts:?}");
    }
    eprintln!("so many had come just after so many connections of each were cut: {cuts:?}");
    assert_eq!(world.arrived(&pair.sink).await?, sent);
    assert_eq!(world.arrived(&sink).await?, sent);
    world.end().await
}

/// Cuts as [`cut`] does, as soon as there is a connection: after the cut before, the next may still be on its way.
async fn cut_when_connected(
    world: &World,
    sink: &ActorRef<Sink>,
    child: &HostedProc,
) -> TestResult<usize> {
    loop {
        match cut(child)? {
            0 => arrived(world, sink).await?,
            cut => return Ok(cut),
        };
    }
}

async fn arrived(world: &World, sink: &ActorRef<Sink>) -> TestResult<u64> {
    let (count, disorder) = sink.ask_within(&world.client, LONG, Arrived).await?;
    assert_eq!(disorder, None);
    Ok(count)
}

async fn used_numbers() -> TestResult {
    // More names than a connection has numbers, which is 16,384.
    let count = 18_000;
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Relay).await?;
    let tally = world.flood(&pair.source, &pair.sink, 0, 1_000).await?;
    assert_eq!(tally.delivered, 1_000, "{tally:?}");

    // Each may have any number, that of the stream among them, which nobody uses meanwhile.
    let nobody = world.host.proc_id("nobody")?;
    let strays = |reply| Stray {
        to: nobody,
        like: pair.sink.clone(),
        count,
        reply,
    };
    let tally = pair.source.ask_within(&world.client, LONG, strays).await?;
    assert_eq!(
        (tally.not_delivered, tally.doubled),
        (count, 0),
        "{tally:?}"
    );
    assert_eq!(world.arrived(&pair.sink).await?, 1_000);

    // The stream goes on, by other numbers.
    let tally = world.flood(&pair.source, &pair.sink, 1_000, 1_000).await?;
    assert_eq!(tally.delivered, 1_000, "{tally:?}");
    assert_eq!(world.arrived(&pair.sink).await?, 2_000);
    world.end().await
}
