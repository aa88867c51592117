//! How children start, what they inherit, and what is said to programs that do it wrong.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hyperactor_bootstrap::ProcessManager;
use hyperactor_host::{End, Host, HostError, ProcConfig, ProcSpawnError, RoutePolicy};
use hyperactor_refs::ChannelTransport;
use libtest_mimic::Trial;

use crate::actors::{Inspector, Look};
use crate::trial;
use crate::world::{Actor, ROLE, TestResult, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("eight_children_start_at_the_same_time", eight_at_once),
        trial(
            "a_child_inherits_no_descriptor_and_no_instructions",
            clean_child,
        ),
        trial(
            "a_name_in_use_is_refused_and_free_after_the_exit",
            name_in_use,
        ),
        trial(
            "a_program_that_forgot_the_call_is_told_before_it_starts_anything",
            forgotten_in_parent,
        ),
        trial(
            "a_child_that_ends_instead_of_booting_is_reported",
            ends_instead,
        ),
        trial(
            "a_child_that_never_boots_is_ended_at_the_deadline",
            never_boots,
        ),
        trial("a_child_that_boots_too_late_says_so", boots_late),
        trial("a_program_that_does_not_exist_is_a_start_error", no_program),
        trial("a_dropped_spawn_leaves_no_process", dropped_spawn),
        trial(
            "instructions_set_by_hand_are_refused_with_the_reason",
            set_by_hand,
        ),
        trial(
            "a_runtime_directory_that_will_not_do_is_passed_over",
            runtime_dir,
        ),
    ]
}

async fn eight_at_once() -> TestResult {
    let world = World::new().await?;
    let names: Vec<String> = (0..8).map(|i| format!("worker-{i}")).collect();
    let spawns = names
        .iter()
        .map(|name| world.spawn(name, RoutePolicy::Auto));
    let procs = futures_util::future::try_join_all(spawns).await?;
    let pids: HashSet<_> = procs
        .iter()
        .filter_map(|hosted| hosted.info().pid)
        .collect();
    assert_eq!(pids.len(), 8);
    let running: Vec<String> = world
        .host
        .procs()
        .iter()
        .map(|hosted| hosted.name().to_owned())
        .collect();
    assert_eq!(running, names);
    world.end().await
}

async fn clean_child() -> TestResult {
    // A descriptor that an exec does not close, as careless C code leaves them.
    let leaky = rustix::pipe::pipe()?;
    let flags = rustix::io::fcntl_getfd(leaky.0.as_fd())?;
    assert!(
        !flags.contains(rustix::io::FdFlags::CLOEXEC),
        "the test needs a leaky descriptor"
    );
    let pipe = format!("pipe:[{}]", rustix::fs::fstat(&leaky.0)?.st_ino);

    let world = World::new().await?;
    let proc = world.spawn("a", RoutePolicy::Auto).await?;
    let inspector = proc
        .spawn::<Inspector>(&world.client, "inspector", ())
        .await?;
    let seen = inspector.ask(&world.client, Look).await?;
    assert!(
        seen.iter()
            .any(|(fd, target)| *fd == 0 && target == "/dev/null"),
        "{seen:?}"
    );
    assert!(
        seen.iter().all(|(_, target)| *target != pipe),
        "the child has {pipe}: {seen:?}"
    );
    assert!(
        seen.iter().all(|(fd, _)| *fd != u32::MAX),
        "the instructions are still there"
    );
    world.end().await
}

async fn name_in_use() -> TestResult {
    let world = World::new().await?;
    let first = world.spawn("a", RoutePolicy::Auto).await?;
    let error = world
        .host
        .spawn("a", ProcConfig::new())
        .await
        .expect_err("it was started");
    assert!(
        matches!(&error, HostError::NameInUse { name } if name == "a"),
        "{error}"
    );
    first
        .end(End::Drain {
            deadline: Duration::from_secs(5),
        })
        .await;
    world.spawn("a", RoutePolicy::Auto).await?;
    world.end().await
}

async fn forgotten_in_parent() -> TestResult {
    let mut program = Actor::play("forgets")?;
    let said = program.says("MANAGER")?;
    assert!(said.starts_with("bootstrap_missing"), "{said}");
    assert!(said.contains("hyperactor::boot"), "{said}");
    assert!(program.process.wait()?.success());
    Ok(())
}

/// A host whose children play a role instead of booting.
async fn host_of(role: &str, ready: Duration) -> TestResult<Host> {
    let manager = ProcessManager::with_program(std::env::current_exe()?)?
        .with_env(ROLE, role)
        .with_ready_timeout(ready);
    Ok(Host::new(manager, ChannelTransport::Unix).await?)
}

async fn spawn_error(role: &str, ready: Duration) -> TestResult<ProcSpawnError> {
    let host = host_of(role, ready).await?;
    let error = match host.spawn("a", ProcConfig::new()).await {
        Err(HostError::Spawn(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(host.proc("a").is_none());
    let report = host.stop(Duration::from_secs(1)).await;
    assert!(report.is_clean(), "{report:?}");
    Ok(error)
}

async fn ends_instead() -> TestResult {
    let error = spawn_error("ends", Duration::from_secs(20)).await?;
    assert_eq!(error.code(), "exited-before-ready");
    assert!(
        error
            .to_string()
            .contains("does its main call hyperactor::boot first?"),
        "{error}"
    );
    let error = spawn_error("ends-badly", Duration::from_secs(20)).await?;
    assert!(error.to_string().contains("status 3"), "{error}");
    // A child that starts a host of its own would do so for ever: it is stopped at the first step.
    let error = spawn_error("forgets", Duration::from_secs(20)).await?;
    assert_eq!(error.code(), "exited-before-ready");
    Ok(())
}

async fn never_boots() -> TestResult {
    let start = Instant::now();
    let error = spawn_error("wanders", Duration::from_millis(300)).await?;
    assert_eq!(error.code(), "never-ready");
    assert!(
        error
            .to_string()
            .contains("does its main call hyperactor::boot first?"),
        "{error}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}

async fn boots_late() -> TestResult {
    let error = spawn_error("late", Duration::from_secs(20)).await?;
    let ProcSpawnError::Refused { code, reason, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(code, "too_late");
    assert!(reason.contains("#[hyperactor::main]"), "{reason}");
    Ok(())
}

async fn no_program() -> TestResult {
    let manager = ProcessManager::with_program("/nonexistent/program")?;
    let host = Host::new(manager, ChannelTransport::Unix).await?;
    let error = host
        .spawn("a", ProcConfig::new())
        .await
        .expect_err("it was started");
    assert_eq!(error.code(), "start");
    assert!(
        error.to_string().contains("/nonexistent/program"),
        "{error}"
    );
    assert!(host.stop(Duration::from_secs(1)).await.is_clean());
    Ok(())
}

async fn dropped_spawn() -> TestResult {
    let host = host_of("wanders", Duration::from_secs(60)).await?;
    let spawn = host.spawn("a", ProcConfig::new());
    assert!(
        tokio::time::timeout(Duration::from_millis(200), spawn)
            .await
            .is_err()
    );
    assert!(host.proc("a").is_none());
    // Waits for all children to be reaped.
    let report = host.stop(Duration::from_secs(1)).await;
    assert!(report.is_clean(), "{report:?}");
    Ok(())
}

async fn set_by_hand() -> TestResult {
    let output = Command::new(std::env::current_exe()?)
        .env("HYPERACTOR_BOOTSTRAP", "{}")
        .stdin(Stdio::null())
        .output()?;
    assert_eq!(output.status.code(), Some(70));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("HYPERACTOR_BOOTSTRAP") && said.contains("by hand"),
        "{said}"
    );
    assert_eq!(output.stdout, b"", "no test may run in a child");
    Ok(())
}

async fn runtime_dir() -> TestResult {
    let base = tempfile::tempdir()?;
    let long = base.path().join("x".repeat(100));
    std::fs::create_dir(&long)?;
    let open = base.path().join("open");
    std::fs::create_dir(&open)?;
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777))?;
    let good = base.path().join("good");
    std::fs::create_dir(&good)?;
    for (dir, is_taken) in [(&long, false), (&open, false), (&good, true)] {
        let output = Command::new(std::env::current_exe()?)
            .env(ROLE, "where")
            .env("XDG_RUNTIME_DIR", dir)
            .output()?;
        let made = String::from_utf8(output.stdout)?;
        let made = made.lines().find_map(|line| line.strip_prefix("DIR "));
        let made = Path::new(made.ok_or("no directory was made")?);
        assert_eq!(
            made.starts_with(dir),
            is_taken,
            "{} for {}",
            made.display(),
            dir.display()
        );
        assert!(!made.exists(), "it was not removed");
    }
    Ok(())
}
