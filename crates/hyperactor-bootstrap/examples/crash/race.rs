//! A host is killed while a child of it is at each step of its start. The child ends, and whoever is the last to live removes
//! what the host had made.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use hyperactor_bootstrap::{ForkExec, LaunchOrder, Launcher, ProcessManager};
use hyperactor_host::RoutePolicy;
use rustix::process::Signal;

use crate::lanes;
use crate::report::{BUSY, Context, Result};
use crate::world::{Role, World, gone_within};
use hyperactor_testkit::{SuiteReport, children_of, is_alive};

/// How many hosts are killed.
const KILLS: u64 = 200;
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Where the child is when its host dies:
///
/// * `fork`: anywhere. The host is killed as soon as there is a child, which may be before that runs the program.
/// * `exec`: before it has become the program.
/// * `boot`: before the bootstrap call.
/// * `limits`: where it waits for its limits, which its host will never set.
/// * `start`: when its host has let it go, and nothing of it is made yet.
/// * `ready`: when it has reported ready, and its host is about to tell it of the others.
const STEPS: [&str; 6] = ["fork", "exec", "boot", "limits", "start", "ready"];

/// Tells a child at which step it is to wait, in which file it is to say that it does, and for whose death.
const BARRIER: &str = "CRASH_BARRIER";

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let kills = context.scaled(KILLS).max(STEPS.len() as u64);
    let lanes = lanes::run_blocking(|lane| {
        let mut report = SuiteReport::default();
        let mut times = Vec::new();
        for round in lanes::rounds(lane, kills) {
            let step = STEPS[round as usize % STEPS.len()];
            times.extend(kill_at(step, context, round, &mut report)?);
        }
        Ok((report, times))
    })?;
    let mut times = Vec::new();
    for (lane, took) in lanes {
        report.add(lane.counts());
        times.extend(took);
    }
    report.figure("hosts killed", kills);
    report.figure("steps, each in its turn", STEPS.join(", "));
    report.times("everything is gone", &times, GONE_WITHIN, BUSY);
    Ok(())
}

fn kill_at(
    step: &str,
    context: &Context,
    round: u64,
    report: &mut SuiteReport,
) -> Result<Option<Duration>> {
    let mark = context.folder.path().join(format!("mark-{round}"));
    let mut host = Role::play("race", &[step, &mark.display().to_string()])?;
    let dir = PathBuf::from(host.says("DIR")?);
    let start = Instant::now();
    let mut pids = Vec::new();
    // At the first step only a child is waited for, at the others what it says.
    while pids.is_empty() || (step != "fork" && !mark.exists()) {
        pids = children_of(host.process.id());
        if start.elapsed() > Duration::from_secs(20) {
            return Err(format!("no child comes to step `{step}`").into());
        }
        std::thread::yield_now();
    }
    host.end_by(Signal::KILL)?;
    let gone = gone_within(GONE_WITHIN * BUSY, &pids, &dir);
    let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
    let entries: Vec<_> = std::fs::read_dir(&dir)
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default();
    report.check(
        &format!("a child at step `{step}` leaves nothing"),
        gone.is_some(),
        format!("round {round}: processes {left:?}, {entries:?}"),
    );
    Ok(gone)
}

/// The role of the host: starts one child that stops at a step.
pub(crate) async fn play(arguments: &[String]) -> Result {
    let [step, mark] = arguments else {
        return Err("a step and a file are needed".into());
    };
    let barrier = format!("{step}:{}:{mark}", std::process::id());
    let manager = ProcessManager::new()?.with_env(BARRIER, barrier);
    let manager = match &**step {
        "exec" => manager.with_launcher(LateExec(mark.clone())),
        "limits" => manager.with_launcher(NoWord(mark.clone())),
        _ => manager,
    };
    let world = World::of(manager).await?;
    println!("DIR {}", world.dir.display());
    let proc = world.spawn("child", RoutePolicy::Auto).await?;
    world.sender(&proc).await?;
    std::future::pending().await
}

/// Starts a child that becomes the program when its host is dead.
struct LateExec(String);

impl Launcher for LateExec {
    fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
        // Not the order's program, which leads through the host.
        let program = std::env::current_exe()?;
        let script = "echo here > \"$1\"; while [ -e \"/proc/$2/exe\" ]; do :; done; exec \"$3\"";
        let mut command = order.into_command("sh");
        command.args(["-c", script, "sh", &self.0]);
        command.arg(std::process::id().to_string()).arg(program);
        command.spawn()
    }
}

/// Starts a child whose host never comes to set its limits.
struct NoWord(String);

impl Launcher for NoWord {
    fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
        let _child = ForkExec.launch(order)?;
        std::fs::write(&self.0, "here")?;
        loop {
            std::thread::park();
        }
    }
}

/// Waits for the host's death, if that is what this process is to do at this step.
pub(crate) fn pass(step: &str) {
    let Ok(barrier) = std::env::var(BARRIER) else {
        return;
    };
    let mut parts = barrier.splitn(3, ':');
    let (Some(at), Some(host), Some(mark)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    if at != step {
        return;
    }
    if let Err(error) = std::fs::write(mark, step) {
        eprintln!("cannot say where this child is: {error}");
    }
    let is_host = |pid: rustix::process::Pid| pid.to_string() == host;
    while rustix::process::getppid().is_some_and(is_host) {
        std::thread::sleep(Duration::from_millis(1));
    }
}
