//! How children end: asked to, forced to, by themselves, and with their host.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyperactor_host::{End, EndedBy, ProcExit, RoutePolicy};
use hyperactor_testkit::{children_of, eventually, eventually_blocking, is_alive};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::actors::{Exit, Inspector, Sink, Sleep};
use crate::trial;
use crate::world::{Actor, LONG, TestResult, World, is_stopped, send_signal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_killed_host_leaves_no_process_and_no_socket", killed_host),
        trial(
            "a_proc_that_is_stopped_when_its_host_is_killed_ends_too",
            stopped_child,
        ),
        trial(
            "a_proc_that_is_stopped_at_its_start_when_its_host_is_killed_ends_too",
            stopped_start,
        ),
        trial(
            "a_host_killed_before_its_first_child_boots_leaves_nothing",
            killed_early,
        ),
        trial(
            "a_terminated_host_leaves_no_process_and_no_socket",
            terminated_host,
        ),
        trial(
            "a_host_dropped_at_the_end_of_main_leaves_nothing",
            careless_host,
        ),
        trial(
            "ctrl_c_reaches_the_host_which_ends_everything_in_order",
            ctrl_c,
        ),
        trial("a_dropped_host_ends_its_children", dropped_host),
        trial(
            "a_child_that_ends_by_itself_is_noticed_and_its_name_is_free",
            by_itself,
        ),
        trial("sigterm_and_sighup_end_a_child_in_order", by_signal),
        trial(
            "a_stopped_process_is_killed_after_its_deadline",
            frozen_child,
        ),
        trial(
            "an_actor_that_blocks_its_thread_does_not_hold_up_the_end",
            blocked_actor,
        ),
        trial("a_drain_handles_what_is_queued", drain),
        trial(
            "children_that_have_ended_leave_no_session_at_their_host",
            many_short_lives,
        ),
        trial(
            "the_socket_directory_of_an_ending_host_goes_before_its_last_child",
            directory_goes_first,
        ),
    ]
}

/// Everything that a host process told about itself is gone within two seconds.
fn assert_gone(pids: &[u32], dir: &Path) {
    let start = Instant::now();
    eventually_blocking(Duration::from_secs(2), || {
        !pids.iter().any(|pid| is_alive(*pid)) && !dir.exists()
    });
    eprintln!("everything was gone after {:?}", start.elapsed());
}

fn playing_host(role: &str) -> TestResult<(Actor, Vec<u32>, PathBuf)> {
    let mut host = Actor::play(role)?;
    let dir = PathBuf::from(host.says("DIR")?);
    let pids = host
        .says("PIDS")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<u32>, _>>()?;
    host.says("BUSY")?;
    Ok((host, pids, dir))
}

async fn killed_host() -> TestResult {
    let (mut host, pids, dir) = playing_host("busy-host")?;
    assert!(dir.exists());
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    host.signal(Signal::KILL)?;
    host.process.wait()?;
    assert_gone(&pids, &dir);
    Ok(())
}

/// Where orphans come to a process of the same session, as to the first one of a container, the kernel itself lets nobody go on
/// that is stopped.
async fn stopped_child() -> TestResult {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let (mut host, pids, dir) = playing_host("busy-host")?;
    for pid in &pids {
        send_signal(*pid, Signal::STOP)?;
    }
    host.signal(Signal::KILL)?;
    host.process.wait()?;
    let orphans = children_of(std::process::id());
    assert!(pids.iter().any(|pid| orphans.contains(pid)), "{orphans:?}");
    assert_gone(&pids, &dir);
    Ok(())
}

/// The child is stopped before its first statement: only the host can have seen to it.
async fn stopped_start() -> TestResult {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let (mut host, pids, dir) = playing_host("halting-host")?;
    let is_stopped_child = |pid: &u32| is_stopped(*pid) && is_alive(*pid);
    eventually(LONG, || pids.iter().all(is_stopped_child)).await;
    host.signal(Signal::KILL)?;
    host.process.wait()?;
    assert_eq!(children_of(std::process::id()), pids);
    assert_gone(&pids, &dir);
    Ok(())
}

/// The child comes to its boot when its host is dead: nobody but the child can remove what the host made.
async fn killed_early() -> TestResult {
    let mut host = Actor::play("impatient-host")?;
    let dir = PathBuf::from(host.says("DIR")?);
    host.says("BUSY")?;
    let mut pids = Vec::new();
    eventually(Duration::from_secs(10), || {
        pids = children_of(host.process.id());
        !pids.is_empty()
    })
    .await;
    assert!(dir.exists());
    host.signal(Signal::KILL)?;
    host.process.wait()?;
    assert_gone(&pids, &dir);
    Ok(())
}

async fn terminated_host() -> TestResult {
    // Not SIGSEGV: sent from outside, it meets the standard library's stack guard first, which lets it pass once.
    for signal in [Signal::TERM, Signal::ABORT, Signal::QUIT] {
        let (mut host, pids, dir) = playing_host("busy-host")?;
        host.signal(signal)?;
        host.process.wait()?;
        assert_gone(&pids, &dir);
    }
    Ok(())
}

async fn careless_host() -> TestResult {
    let (mut host, pids, dir) = playing_host("careless-host")?;
    host.process.wait()?;
    assert_gone(&pids, &dir);
    Ok(())
}

async fn ctrl_c() -> TestResult {
    let (mut host, pids, dir) = playing_host("polite-host")?;
    host.interrupt_group()?;
    assert_eq!(
        host.says("ALIVE")?,
        "[true, true]",
        "Ctrl-C must not reach the children"
    );
    host.says("ENDED")?;
    assert!(host.process.wait()?.success());
    assert_gone(&pids, &dir);
    Ok(())
}

async fn dropped_host() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let pids = [&pair.a, &pair.b].map(|hosted| hosted.info().pid.unwrap_or_default());
    let World { host, client, dir } = world;
    drop((host, client));
    // Reaped: not even a zombie is left.
    eventually(Duration::from_secs(2), || {
        pids.iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
    assert!(!pair.a.join().await.is_orderly());
    eventually(Duration::from_secs(2), || !dir.exists()).await;
    Ok(())
}

async fn by_itself() -> TestResult {
    let world = World::new().await?;
    let proc = world.spawn("a", RoutePolicy::Auto).await?;
    let inspector = proc
        .spawn::<Inspector>(&world.client, "inspector", ())
        .await?;
    inspector.post(&world.client, Exit(17));
    assert_eq!(proc.join().await, ProcExit::Exited(17));
    assert_eq!(proc.ended_by(), EndedBy::Itself);
    assert!(world.host.proc("a").is_none());
    assert!(
        !world
            .dir
            .join(hyperactor_bootstrap::socket_name("a"))
            .exists()
    );
    world.spawn("a", RoutePolicy::Auto).await?;
    world.end().await
}

async fn by_signal() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    for (proc, signal) in [(&pair.a, Signal::HUP), (&pair.b, Signal::TERM)] {
        send_signal(proc.info().pid.ok_or("no process")?, signal)?;
        assert_eq!(proc.join().await, ProcExit::Exited(128 + signal.as_raw()));
    }
    world.end().await
}

async fn frozen_child() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    send_signal(pair.b.info().pid.ok_or("no process")?, Signal::STOP)?;
    let start = Instant::now();
    let exit = pair
        .b
        .end(End::Drain {
            deadline: Duration::from_millis(100),
        })
        .await;
    assert_eq!(exit, ProcExit::Signalled(9));
    assert_eq!(pair.b.ended_by(), EndedBy::Caller);
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    world.end().await
}

async fn blocked_actor() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let sent = pair
        .sink
        .send(&world.client, Sleep(Duration::from_secs(600)))
        .await;
    assert!(sent.is_delivered(), "{sent}");
    let start = Instant::now();
    let exit = pair
        .b
        .end(End::Drain {
            deadline: Duration::from_millis(200),
        })
        .await;
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    eprintln!("b {exit} after {:?}", start.elapsed());
    world.end().await
}

async fn drain() -> TestResult {
    let world = World::new().await?;
    let proc = world.spawn("a", RoutePolicy::Auto).await?;
    let sink = proc.spawn::<Sink>(&world.client, "sink", ()).await?;
    // Two seconds of work in the queue, the first of it begun before the last is sent. At once: a handler that blocks its
    // thread may hold up what comes in.
    let start = Instant::now();
    let work = (0..20).map(|_| sink.send(&world.client, Sleep(Duration::from_millis(100))));
    for sent in join_all(work).await {
        assert!(sent.is_delivered(), "{sent}");
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "nothing was left to drain: {:?}",
        start.elapsed()
    );
    let exit = proc
        .end(End::Drain {
            deadline: Duration::from_secs(20),
        })
        .await;
    assert_eq!(exit, ProcExit::Exited(0));
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "it did not wait for the queue: {:?}",
        start.elapsed()
    );
    world.end().await
}

/// A host may be killed in the middle of its orderly end. As long as a child lives, it can tidy up; so nothing may be left
/// for a host without children to do.
async fn directory_goes_first() -> TestResult {
    let world = World::new().await?;
    let pair = world.pair(RoutePolicy::Auto).await?;
    let pids = [&pair.a, &pair.b].map(|hosted| hosted.info().pid.unwrap_or_default());
    let dir = world.dir.clone();
    let watcher = std::thread::spawn(move || {
        while pids.iter().any(|pid| is_alive(*pid)) {
            std::thread::yield_now();
        }
        dir.exists()
    });
    world.end().await?;
    let outlived = watcher.join().map_err(|_| "the watcher panicked")?;
    assert!(
        !outlived,
        "the directory was there when the last child had gone"
    );
    Ok(())
}

/// Each says something to its host, and ends in order.
async fn many_short_lives() -> TestResult {
    const LIVES: usize = 300;
    const AT_A_TIME: usize = 6;
    const DRAIN: End = End::Drain {
        deadline: Duration::from_secs(5),
    };
    let world = World::new().await?;
    let mut most = 0;
    let mut lived = 0;
    while lived < LIVES {
        let names: Vec<String> = (lived..LIVES.min(lived + AT_A_TIME))
            .map(|number| format!("short-{number}"))
            .collect();
        let lives = names.iter().map(async |name| -> TestResult {
            let proc = world.spawn(name, RoutePolicy::Auto).await?;
            // The answer comes by the backend.
            proc.spawn::<Sink>(&world.client, "sink", ()).await?;
            Ok(())
        });
        for life in join_all(lives).await {
            life?;
        }
        most = most.max(world.host.sessions());
        let ends = world.host.procs();
        let exits = join_all(ends.iter().map(|proc| proc.end(DRAIN))).await;
        assert!(exits.iter().all(ProcExit::is_orderly), "{exits:?}");
        lived += names.len();
    }
    assert!(most >= AT_A_TIME, "nobody came by the backend: {most}");
    // Fewer than the last ones: nobody's stays until it expires.
    eventually(Duration::from_secs(5), || world.host.sessions() == 0).await;
    world.host.stop(Duration::from_secs(5)).await;
    Ok(())
}
