//! What children are bounded by and started with: limits, environment, launchers, and how many start at a time.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use hyperactor_bootstrap::{LaunchOrder, Launcher, ProcessManager, SystemdScope};
use hyperactor_host::{Host, OutOfMemory, ProcConfig, ProcExit, ProcLimits, RoutePolicy};
use hyperactor_refs::ChannelTransport;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::roles::SLOW_START;
use crate::trial;
use crate::worker::{Eat, Facts, Tell, Worker};
use crate::world::{ROLE, TestResult, World, send_signal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("limits_hold_for_every_thread_of_a_child", limited),
        trial(
            "limits_that_cannot_be_set_are_a_reason_not_to_start",
            impossible,
        ),
        trial(
            "a_program_that_a_child_starts_gets_no_instructions",
            environment,
        ),
        trial("a_launcher_of_the_users_own_starts_children", own_launcher),
        // Counted as skipped where there is no systemd to ask.
        trial("children_start_in_scopes_of_systemd", scoped).with_ignored_flag(systemd().is_none()),
        // Counted as skipped where no group of processes can be made: without root, or with its files read-only.
        trial(
            "a_child_that_the_kernel_ends_for_its_memory_is_certified",
            oom,
        )
        .with_ignored_flag(Group::make("probe").is_err()),
        trial(
            "thirty_two_children_start_in_the_time_of_the_slowest",
            many_at_once,
        ),
    ]
}

async fn facts(world: &World, config: ProcConfig) -> TestResult<Facts> {
    let proc = world.host.spawn("a", config).await?;
    let worker = proc.spawn::<Worker>(&world.client, "worker", ()).await?;
    Ok(worker.ask(&world.client, Tell).await?)
}

async fn limited() -> TestResult {
    let world = World::new().await?;
    let limits = ProcLimits::new()
        .with_cpus([0])
        .with_descriptors(77)
        .with_memory(3 << 30);
    let facts = facts(&world, ProcConfig::new().with_limits(limits)).await?;
    assert!(facts.cpus.len() > 1, "{facts:?}");
    assert!(facts.cpus.iter().all(|list| list == "0"), "{facts:?}");
    for (limit, value) in [
        ("Max open files", "77"),
        ("Max address space", "3221225472"),
    ] {
        let line = facts.limits.lines().find(|line| line.starts_with(limit));
        let line = line.ok_or(limit)?;
        assert_eq!(line.matches(value).count(), 2, "soft and hard: {line}");
    }
    world.end().await
}

async fn impossible() -> TestResult {
    let world = World::new().await?;
    for (cpu, says) in [(1_023, "processors [1023]"), (1 << 20, "no processor")] {
        let config = ProcConfig::new().with_limits(ProcLimits::new().with_cpus([cpu]));
        let error = world.host.spawn("a", config).await.expect_err("it started");
        assert_eq!(error.code(), "refused");
        assert!(error.to_string().contains(says), "{error}");
    }
    // Nothing is left of them, and the name is free.
    world.spawn("a", RoutePolicy::Auto).await?;
    world.end().await
}

async fn environment() -> TestResult {
    let world = World::new().await?;
    let facts = facts(&world, ProcConfig::new()).await?;
    let told: Vec<_> = facts
        .environment
        .iter()
        .filter(|line| line.starts_with("HYPERACTOR_BOOTSTRAP"))
        .collect();
    assert!(!facts.environment.is_empty());
    assert_eq!(told, Vec::<&String>::new());
    let dir = world.dir.to_string_lossy();
    assert!(
        facts.environment.iter().all(|line| !line.contains(&*dir)),
        "{:?}",
        facts.environment
    );
    world.end().await
}

/// Starts everything with a lower priority.
struct Nice;

impl Launcher for Nice {
    fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
        let program = order.program();
        let mut command = order.into_command("nice");
        command.args(["-n", "5"]).arg(program).spawn()
    }
}

async fn launched_by(launcher: impl Launcher) -> TestResult<World> {
    of_manager(ProcessManager::new()?.with_launcher(launcher)).await
}

async fn of_manager(manager: ProcessManager) -> TestResult<World> {
    let dir = manager.socket_dir().to_path_buf();
    let host = Host::new(manager, ChannelTransport::Unix).await?;
    let client = host.service_proc().client("test")?;
    Ok(World { host, client, dir })
}

async fn own_launcher() -> TestResult {
    let here = facts(&World::new().await?, ProcConfig::new()).await?.nice;
    let world = launched_by(Nice).await?;
    let facts = facts(&world, ProcConfig::new()).await?;
    assert_eq!(facts.nice, (here + 5).min(19));
    world.end().await
}

fn systemd() -> Option<SystemdScope> {
    [SystemdScope::user(), SystemdScope::system()]
        .into_iter()
        .find(|scope| scope.check().is_ok())
}

async fn scoped() -> TestResult {
    let scope = systemd().ok_or("no systemd")?;
    let world = launched_by(scope).await?;
    let config = ProcConfig::new().with_limits(ProcLimits::new().with_memory(1 << 30));
    let proc = world.host.spawn("a", config).await?;
    let pid = proc.info().pid.ok_or("no process")?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let unit = format!("hyperactor-{}-", std::process::id());
    assert!(groups.contains(&unit), "{groups}");
    world.end().await
}

/// Each child sleeps before it boots, so that what is measured is whether they do so at the same time.
async fn many_at_once() -> TestResult {
    let world = of_manager(ProcessManager::new()?.with_env(ROLE, "slow")).await?;
    let names: Vec<String> = (0..32).map(|number| format!("worker-{number}")).collect();
    let start = Instant::now();
    let spawns = names.iter().map(|name| async {
        let start = Instant::now();
        world.spawn(name, RoutePolicy::Auto).await?;
        TestResult::Ok(start.elapsed())
    });
    let each = futures_util::future::try_join_all(spawns).await?;
    let all = start.elapsed();
    let slowest = each.iter().max().copied().unwrap_or_default();
    eprintln!("32 children took {all:?}, the slowest of them {slowest:?}");
    assert!(all < slowest + Duration::from_secs(1), "{all:?}");
    assert!(
        all < SLOW_START * 16,
        "{all:?}: they started one after the other"
    );
    world.end().await
}

/// A group of processes whose memory is bounded, below the one that this process is in; for the first version of the
/// interface.
struct Group(PathBuf);

impl Group {
    fn make(name: &str) -> TestResult<Self> {
        let groups = std::fs::read_to_string("/proc/self/cgroup")?;
        let own = groups
            .lines()
            .find_map(|line| line.split_once(":memory:"))
            .ok_or("no group of the first version")?
            .1;
        let base = Path::new("/sys/fs/cgroup/memory").join(own.trim_start_matches('/'));
        let path = base.join(format!("hyperactor-{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let group = Self(path);
        std::fs::write(group.0.join("memory.limit_in_bytes"), "67108864")?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// Starts children in a group, as a launcher of the user's own may.
struct InGroup(PathBuf);

impl Launcher for InGroup {
    fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
        let program = order.program();
        let mut command = order.into_command("sh");
        let script = "echo $$ > \"$0\" && exec \"$1\"";
        command
            .args(["-c", script])
            .arg(self.0.join("cgroup.procs"));
        command.arg(program).spawn()
    }
}

async fn oom() -> TestResult {
    let group = Group::make("oom")?;
    let world = launched_by(InGroup(group.0.clone())).await?;
    let proc = world.host.spawn("a", ProcConfig::new()).await?;
    let worker = proc.spawn::<Worker>(&world.client, "worker", ()).await?;
    worker.post(&world.client, Eat(512 << 20));
    assert_eq!(proc.join().await, ProcExit::Signalled(9));
    let certificate = proc.certificate().ok_or("no certificate")?;
    assert_eq!(certificate.out_of_memory, OutOfMemory::Yes);
    // The next death in the same group has another cause.
    let proc = world.host.spawn("a", ProcConfig::new()).await?;
    send_signal(proc.info().pid.ok_or("no process")?, Signal::KILL)?;
    assert_eq!(proc.join().await, ProcExit::Signalled(9));
    let certificate = proc.certificate().ok_or("no certificate")?;
    assert_eq!(certificate.out_of_memory, OutOfMemory::No);
    world.end().await
}
