//! The processes that a proc's actors start: they end when the proc does, however that went and whoever else died with it.

use std::path::Path;
use std::time::Duration;

use hyperactor_host::{End, HostedProc, ProcExit, RoutePolicy};
use hyperactor_testkit::{eventually_blocking, is_alive};
use libtest_mimic::Trial;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::actors::{Exit, Inspector};
use crate::trial;
use crate::worker::{Launch, Worker};
use crate::world::{Actor, TestResult, World, send_signal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "what_a_proc_started_ends_with_it_when_it_is_killed",
            killed_proc,
        ),
        trial(
            "what_a_proc_started_ends_with_it_when_it_ends_in_order",
            orderly_proc,
        ),
        trial(
            "an_exit_status_is_kept_when_the_group_ends_with_the_proc",
            exit_status,
        ),
        trial("what_a_proc_started_ends_with_the_host", killed_host),
        trial(
            "what_a_proc_started_ends_when_proc_and_host_are_killed_at_once",
            killed_at_once,
        ),
        trial(
            "a_proc_lives_on_when_what_it_started_ends",
            killed_grandchild,
        ),
        trial("what_leaves_the_group_is_left_alone", daemon),
        trial(
            "a_proc_is_the_leader_of_a_group_of_its_own_whoever_launches_it",
            own_group,
        ),
    ]
}

/// Programs of all kinds, each of which says its number and those of what it starts itself.
const SCRIPTS: [(&str, bool); 5] = [
    ("exec sleep 600", true),
    // Started like the libraries of other languages do: with no descriptor but the standard ones.
    ("exec sleep 600", false),
    // Deaf to every signal that can be ignored.
    (
        "trap '' TERM HUP INT QUIT; while :; do sleep 600; done",
        true,
    ),
    // A process of a process, whose own parent has ended; and its output is the proc's.
    (
        "(sleep 600 & sleep 600) & sleep 0.05; (sleep 600 &); exec sleep 600",
        false,
    ),
    // Always another one: whoever kills what it saw is late.
    ("while :; do sleep 0.002; done", true),
];

/// Has a proc start programs of all kinds. Their numbers, as far as they are known.
async fn launch_all(world: &World, proc: &HostedProc) -> TestResult<Vec<u32>> {
    let worker = proc.spawn::<Worker>(&world.client, "worker", ()).await?;
    let mut pids = Vec::new();
    for (script, inherits) in SCRIPTS {
        let launch = |reply| Launch {
            script: script.to_owned(),
            inherits,
            reply,
        };
        pids.push(worker.ask(&world.client, launch).await?);
    }
    // One of them stopped.
    send_signal(pids[0], Signal::STOP)?;
    Ok(pids)
}

/// Every living process of a group.
fn members(group: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let is_alive = !matches!(fields.next(), None | Some("Z" | "X"));
        is_alive && fields.nth(1).and_then(|field| field.parse().ok()) == Some(group)
    })
    .collect()
}

fn pid_of(proc: &HostedProc) -> TestResult<u32> {
    Ok(proc.info().pid.ok_or("no process")?)
}

/// A proc with programs of all kinds, all of them in its group.
async fn fertile(world: &World, name: &str) -> TestResult<(HostedProc, u32)> {
    let proc = world.spawn(name, RoutePolicy::Auto).await?;
    let pid = pid_of(&proc)?;
    let launched = launch_all(world, &proc).await?;
    let group = members(pid);
    assert!(
        launched.iter().all(|pid| group.contains(pid)),
        "{launched:?} in {group:?}"
    );
    Ok((proc, pid))
}

fn assert_gone(group: u32, within: Duration) {
    eventually_blocking(within, || members(group).is_empty());
}

/// What the kernel or the host does takes no grace.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn killed_proc() -> TestResult {
    let world = World::new().await?;
    let (proc, pid) = fertile(&world, "a").await?;
    let (other, untouched) = fertile(&world, "b").await?;
    send_signal(pid, Signal::KILL)?;
    assert_eq!(proc.join().await, ProcExit::Signalled(9));
    assert_gone(pid, AT_ONCE);
    assert!(members(untouched).len() > SCRIPTS.len());
    drop(other);
    world.end().await?;
    assert_gone(untouched, AT_ONCE);
    Ok(())
}

async fn orderly_proc() -> TestResult {
    let world = World::new().await?;
    let (proc, pid) = fertile(&world, "a").await?;
    let deadline = Duration::from_secs(5);
    let exit = proc.end(End::Drain { deadline }).await;
    assert_eq!(exit, ProcExit::Exited(0));
    assert_gone(pid, AT_ONCE);
    world.end().await
}

async fn exit_status() -> TestResult {
    let world = World::new().await?;
    let (proc, pid) = fertile(&world, "a").await?;
    let inspector = proc
        .spawn::<Inspector>(&world.client, "inspector", ())
        .await?;
    inspector.post(&world.client, Exit(17));
    assert_eq!(proc.join().await, ProcExit::Exited(17));
    assert_gone(pid, AT_ONCE);
    world.end().await
}

/// The role of a host whose procs start programs.
pub(crate) async fn fertile_host(world: World) -> TestResult {
    let (one, two) = (fertile(&world, "a").await?, fertile(&world, "b").await?);
    println!("DIR {}", world.dir.display());
    println!("PIDS {} {}", one.1, two.1);
    std::future::pending().await
}

fn playing_host() -> TestResult<(Actor, String, [u32; 2])> {
    let mut host = Actor::play("fertile-host")?;
    let dir = host.says("DIR")?;
    let pids = host.says("PIDS")?;
    let (one, two) = pids.split_once(' ').ok_or("two procs")?;
    Ok((host, dir, [one.parse()?, two.parse()?]))
}

async fn killed_host() -> TestResult {
    let (mut host, dir, pids) = playing_host()?;
    host.signal(Signal::KILL)?;
    host.process.wait()?;
    for pid in pids {
        assert_gone(pid, Duration::from_secs(2));
    }
    eventually_blocking(Duration::from_secs(2), || !Path::new(&dir).exists());
    Ok(())
}

async fn killed_at_once() -> TestResult {
    let (mut host, dir, [one, two]) = playing_host()?;
    // All stopped, so that none can do anything before it is killed.
    for pid in [host.process.id(), one, two] {
        send_signal(pid, Signal::STOP)?;
    }
    for pid in [host.process.id(), one, two] {
        send_signal(pid, Signal::KILL)?;
    }
    host.process.wait()?;
    for pid in [one, two] {
        assert_gone(pid, AT_ONCE);
    }
    // Nobody was left to remove it: the next host does.
    drop(hyperactor_bootstrap::SocketDir::create()?);
    assert!(!Path::new(&dir).exists());
    Ok(())
}

async fn killed_grandchild() -> TestResult {
    let world = World::new().await?;
    let (proc, pid) = fertile(&world, "a").await?;
    // What one of them started in the moment before it was killed is there after that.
    eventually_blocking(AT_ONCE, || {
        let others: Vec<u32> = members(pid).into_iter().filter(|one| *one != pid).collect();
        for other in &others {
            match send_signal(*other, Signal::KILL) {
                // One of those that come and go may have gone.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => panic!("{error}"),
            }
        }
        others.is_empty()
    });
    let again = proc.spawn::<Worker>(&world.client, "again", ()).await?;
    let launch = |reply| Launch {
        script: "exec sleep 600".to_owned(),
        inherits: true,
        reply,
    };
    again.ask(&world.client, launch).await?;
    assert!(proc.exited().borrow().is_none());
    world.end().await?;
    assert_gone(pid, AT_ONCE);
    Ok(())
}

async fn daemon() -> TestResult {
    let world = World::new().await?;
    let proc = world.spawn("a", RoutePolicy::Auto).await?;
    let worker = proc.spawn::<Worker>(&world.client, "worker", ()).await?;
    let launch = |reply| Launch {
        script: "exec setsid sleep 600".to_owned(),
        inherits: true,
        reply,
    };
    let daemon = worker.ask(&world.client, launch).await?;
    eventually_blocking(AT_ONCE, || members(daemon) == [daemon]);
    proc.end(End::Kill).await;
    world.end().await?;
    assert!(is_alive(daemon), "it has left its proc's group to stay");
    send_signal(daemon, Signal::KILL)?;
    Ok(())
}

/// Without a group of its own a proc would take along whoever shares it: its host.
async fn own_group() -> TestResult {
    use hyperactor_bootstrap::{LaunchOrder, Launcher, ProcessManager};
    use hyperactor_host::{Host, ProcConfig};
    use std::os::unix::process::CommandExt;

    /// Starts procs in the group of the host.
    struct SameGroup;

    impl Launcher for SameGroup {
        fn launch(&self, order: LaunchOrder) -> std::io::Result<std::process::Child> {
            let program = order.program();
            let group = rustix::process::getpgrp().as_raw_nonzero().get();
            order.into_command(program).process_group(group).spawn()
        }
    }

    let manager = ProcessManager::new()?.with_launcher(SameGroup);
    let host = Host::new(manager, hyperactor_refs::ChannelTransport::Unix).await?;
    let proc = host.spawn("a", ProcConfig::new()).await?;
    let pid = pid_of(&proc)?;
    assert_eq!(members(pid), [pid]);
    proc.end(End::Kill).await;
    assert!(host.stop(Duration::from_secs(5)).await.is_clean());
    Ok(())
}
