//! Anybody is killed at any moment, one or many, at once or one after the other: hosts, procs, and the programs that procs
//! started, of all kinds. Whoever is left goes on; what belonged to the dead goes with them; and in the end there is nothing
//! that was not there before: no process, zombie, descriptor, socket, folder or segment of memory.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyperactor_bootstrap::SocketDir;
use hyperactor_host::{HostedProc, RoutePolicy};
use hyperactor_testkit::{Rng, Seed, SuiteReport, children_of};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::actors::ReceiverParams;
use crate::breeder::{Breed, Breeder, Kind};
use crate::census::{self, Things, bound, described, listing, marked, named, parent_of};
use crate::lanes;
use crate::report::{BUSY, Context, Result};
use crate::world::{Batch, ROLE, Role, World, signal};

/// How many rounds there are.
const ROUNDS: u64 = 200;
/// How many of them go on at the same time: most of each is waiting.
const LANES: u64 = 6;
/// How long what the dead had may last. What is inside of it (a host with procs of its own) begins to end when it has ended.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// How long a host may live that is killed before it has come to work.
const EARLY_MS: u64 = 60;
/// How long one works until the first is killed.
const LATE_MS: u64 = 40;
/// Longest pause between two kills, in microseconds.
const GAP_US: u64 = 20_000;

/// What a round is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// The host is killed before it has come to work, and with it whoever is there.
    Early,
    /// The host is among those who are killed, at any place in their order.
    Host,
    /// The host lives on, and ends in order when the others are dead.
    Others,
}

/// What was done, in all rounds: a suite that did too little of one of these has shown nothing.
#[derive(Debug, Default)]
struct Done {
    hosts: u64,
    procs: u64,
    programs: u64,
    stopped: u64,
    procs_stopped: u64,
    at_once: u64,
    early: u64,
    survived: u64,
    swept: u64,
    times: Vec<Duration>,
}

/// The hosts of all lanes, for whom their lanes wait.
#[derive(Default)]
struct Hosts(Mutex<BTreeSet<u32>>);

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    // Whoever loses its parent comes here: that none is left can be seen, and the dead are reaped.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let base = context.folder.path();
    let before = Things::look(base);
    let rounds = context.scaled(ROUNDS);
    let hosts = Hosts::default();
    let lanes = lanes::run_blocking_in(LANES, |lane| {
        let mut found = Lane {
            report: SuiteReport::default(),
            done: Done::default(),
            base: base.join(format!("{lane}")),
            hosts: &hosts,
        };
        std::fs::create_dir(&found.base)?;
        for round in (lane..rounds).step_by(LANES as usize) {
            found.round(round, context.seed.fork(&format!("round {round}")))?;
        }
        std::fs::remove_dir(&found.base)?;
        Ok((found.report, found.done))
    })?;
    let mut all = Done::default();
    for (lane, done) in lanes {
        report.add(lane.counts());
        all.add(&done);
    }
    census::reap_orphans(&BTreeSet::new());
    let left = children_of(std::process::id());
    let left: Vec<_> = left.into_iter().map(named).collect();
    report.check(
        "no process is left, dead or alive",
        left.is_empty(),
        format!("{left:?}"),
    );
    let after = Things::look(base);
    let left = after.beyond(&before);
    report.check(
        "nothing else is left",
        left.is_empty(),
        format!("{left:#?}"),
    );
    all.tell(rounds, report);
    Ok(())
}

impl Done {
    fn add(&mut self, other: &Self) {
        self.hosts += other.hosts;
        self.procs += other.procs;
        self.programs += other.programs;
        self.stopped += other.stopped;
        self.procs_stopped += other.procs_stopped;
        self.at_once += other.at_once;
        self.early += other.early;
        self.survived += other.survived;
        self.swept += other.swept;
        self.times.extend(&other.times);
    }

    fn tell(&self, rounds: u64, report: &mut SuiteReport) {
        report.figure("rounds", rounds);
        report.times("everything is gone", &self.times, GONE_WITHIN, BUSY);
        report.figure("folders that the next host swept", self.swept);
        for (what, count) in [
            ("hosts killed", self.hosts),
            ("procs killed", self.procs),
            ("programs of procs killed", self.programs),
            ("programs stopped before", self.stopped),
            ("procs stopped before", self.procs_stopped),
            ("rounds in which all were killed at once", self.at_once),
            ("hosts killed before they worked", self.early),
            ("hosts that lived on and ended in order", self.survived),
        ] {
            report.figure(what, count);
            let least = rounds / 20;
            report.check(what, count >= least, format!("{count} of {least}"));
        }
    }
}

struct Lane<'a> {
    report: SuiteReport,
    done: Done,
    /// Where the hosts of this lane make their folders.
    base: PathBuf,
    hosts: &'a Hosts,
}

/// One host, and those around it who are to be killed.
struct Victims {
    host: u32,
    procs: BTreeSet<u32>,
    all: BTreeSet<u32>,
}

/// Who was killed.
#[derive(Default)]
struct Killed {
    pids: BTreeSet<u32>,
    /// Whether a proc was when its host was dead.
    procs_after_the_host: bool,
}

impl Lane<'_> {
    fn round(&mut self, round: u64, seed: Seed) -> Result {
        let mut rng = seed.rng();
        let plan = match rng.below(10) {
            0 | 1 => Plan::Early,
            2..=6 => Plan::Host,
            _ => Plan::Others,
        };
        let mark = format!("{}-{round}", std::process::id());
        let base = self.base.display().to_string();
        let seed = seed.to_string();
        let variables = [(census::MARK, &*mark), ("XDG_RUNTIME_DIR", &*base)];
        let mut role = Role::play_with("random", &[&seed], &variables)?;
        self.hosts.0.lock().insert(role.process.id());
        let outcome = self.play(round, plan, &mark, &mut role, &mut rng);
        drop(role.process.kill());
        role.process.wait()?;
        self.hosts.0.lock().remove(&role.process.id());
        outcome
    }

    fn play(
        &mut self,
        round: u64,
        plan: Plan,
        mark: &str,
        role: &mut Role,
        rng: &mut Rng,
    ) -> Result {
        let host = role.process.id();
        let mut procs = BTreeSet::new();
        let (mut frontend, mut folder) = (None, None);
        if plan == Plan::Early {
            std::thread::sleep(Duration::from_millis(rng.below(EARLY_MS)));
        } else {
            let dir = role.says("DIR")?;
            folder = dir.rsplit('/').next().map(str::to_owned);
            frontend = Some(role.says("FRONTEND")?);
            procs = role
                .says("PROCS")?
                .split_whitespace()
                .map(str::parse)
                .collect::<std::result::Result<_, _>>()?;
            role.says("BUSY")?;
            std::thread::sleep(Duration::from_millis(rng.below(LATE_MS)));
        }
        let all = marked(mark);
        let victims = Victims { host, procs, all };
        let Killed {
            pids: killed,
            procs_after_the_host,
        } = self.kill(plan, mark, &victims, rng);
        let start = Instant::now();
        let told = format!("round {round}, {plan:?}");
        if plan == Plan::Others {
            self.live_on(&told, role, &victims, &killed)?;
        } else {
            role.process.wait()?;
        }
        // A proc that leaves while another lives leaves the folder to that one.
        let survivors: Vec<_> = victims.procs.difference(&killed).copied().collect();
        let has_heirs = !survivors.is_empty() && !procs_after_the_host;
        let folder = folder.filter(|_| has_heirs);
        let told = format!("{told}, {killed:?} killed, {survivors:?} not");
        self.settle(&told, start, mark, folder.as_deref())?;
        if let Some(frontend) = frontend {
            let name = frontend.trim_start_matches("unix:");
            let left = bound(name);
            let seen = format!("{told}: {left:?}");
            self.report
                .check("no socket is bound any more", left.is_empty(), seen);
        }
        Ok(())
    }

    /// Kills whom the plan and the seed choose. Returns whom.
    fn kill(&mut self, plan: Plan, mark: &str, victims: &Victims, rng: &mut Rng) -> Killed {
        let others: Vec<u32> = victims
            .all
            .iter()
            .copied()
            .filter(|pid| *pid != victims.host)
            .collect();
        let mut order = Vec::new();
        match rng.below(4) {
            // All of them, or all procs.
            0 => order.extend(&others),
            1 => order.extend(&victims.procs),
            _ => {
                let count = 1 + rng.below(3);
                order.extend((0..count).filter_map(|_| rng.pick(&others)));
            }
        }
        if plan != Plan::Others {
            order.push(victims.host);
        }
        rng.shuffle(&mut order);
        self.stop_some(plan, mark, victims, rng);
        let at_once = rng.chance(1, 2);
        let mut killed = Killed::default();
        for pid in order {
            // Not one that has ended by itself: its number may soon be another's. The host's is its own until it is waited for.
            let lives = pid == victims.host || census::is_marked(pid, mark);
            if !lives || signal(pid, Signal::KILL).is_err() || !killed.pids.insert(pid) {
                continue;
            }
            if pid == victims.host {
                self.done.hosts += 1;
                self.done.early += u64::from(plan == Plan::Early);
            } else if victims.procs.contains(&pid) {
                self.done.procs += 1;
                killed.procs_after_the_host |= killed.pids.contains(&victims.host);
            } else {
                self.done.programs += 1;
            }
            if !at_once {
                std::thread::sleep(Duration::from_micros(rng.below(GAP_US)));
            }
        }
        self.done.at_once += u64::from(at_once && killed.pids.len() > 1);
        killed
    }

    /// Some stand still before anybody dies: programs, and procs that are ready and whose host is among those who will die.
    /// What is just becoming a proc is spared: nobody lets it go on before it has come to its first statement.
    fn stop_some(&mut self, plan: Plan, mark: &str, victims: &Victims, rng: &mut Rng) {
        for pid in victims.all.iter().filter(|pid| **pid != victims.host) {
            let is_ready_proc = victims.procs.contains(pid);
            let is_chosen = if is_ready_proc {
                rng.chance(1, 4) && plan == Plan::Host
            } else {
                rng.chance(1, 12) && is_program(*pid)
            };
            // Not one that has ended by itself: its number may soon be another's.
            let lives = is_chosen && census::is_marked(*pid, mark);
            if lives && signal(*pid, Signal::STOP).is_ok() {
                if is_ready_proc {
                    self.done.procs_stopped += 1;
                } else {
                    self.done.stopped += 1;
                }
            }
        }
    }

    /// The host goes on: it reaps the dead procs, keeps the others, and ends in order.
    fn live_on(
        &mut self,
        told: &str,
        role: &mut Role,
        victims: &Victims,
        killed: &BTreeSet<u32>,
    ) -> Result {
        let living: BTreeSet<u32> = victims.procs.difference(killed).copied().collect();
        let start = Instant::now();
        let children = || -> BTreeSet<u32> { children_of(victims.host).into_iter().collect() };
        while children() != living && start.elapsed() < GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(1));
        }
        let now = children();
        self.report.check(
            "the host has reaped the dead and keeps the others",
            now == living,
            format!("{told}: {now:?} instead of {living:?}"),
        );
        role.tell("END")?;
        let left = role.says("ENDED")?;
        self.report.check(
            "the host ends in order",
            left == "[]" && role.process.wait()?.success(),
            format!("{told}: {left}"),
        );
        self.done.survived += 1;
        Ok(())
    }

    /// Waits until nothing is left of the round. An inherited folder is one that somebody was left to remove; other folders may
    /// be left for the next host.
    fn settle(
        &mut self,
        told: &str,
        start: Instant,
        mark: &str,
        inherited: Option<&str>,
    ) -> Result {
        // When nobody lives any more, nothing more will happen.
        while !marked(mark).is_empty() && start.elapsed() < GONE_WITHIN * BUSY {
            census::reap_orphans(&self.hosts.0.lock());
            std::thread::sleep(Duration::from_millis(4));
        }
        let took = start.elapsed();
        let left: Vec<_> = marked(mark).into_iter().map(described).collect();
        self.report.check(
            "every process ends with those it belongs to",
            left.is_empty(),
            format!("{told}: {left:#?}"),
        );
        let folders = listing(&self.base);
        if folders.is_empty() {
            self.done.times.push(took);
            return Ok(());
        }
        let is_left = inherited.is_some_and(|folder| folders.contains(folder));
        self.report.check(
            "whoever outlives the host removes its folder",
            !is_left,
            format!("{told}: {folders:?}"),
        );
        drop(SocketDir::create_in(&self.base)?);
        self.done.swept += 1;
        let folders = listing(&self.base);
        self.report.check(
            "the next host sweeps",
            folders.is_empty(),
            format!("{told}: {folders:?}"),
        );
        Ok(())
    }
}

/// Whether a process is what a proc started, and no host that a suite started, no proc, and none that is becoming one. That is
/// told by its parent, which is a host: its own name is still its parent's for a while.
fn is_program(pid: u32) -> bool {
    let is_proc = |pid| named(pid).contains("hyperactor proc");
    let is_child_of_host = || parent_of(pid).is_none_or(|parent| named(parent).contains(ROLE));
    !is_proc(pid) && !is_child_of_host()
}

/// The role of a host: has procs, which start programs and talk, until it is told to end.
pub(crate) async fn play(arguments: &[String]) -> Result {
    let [seed] = arguments else {
        return Err("a seed is needed".into());
    };
    let mut rng = seed.parse::<Seed>()?.fork("world").rng();
    let world = World::new().await?;
    println!("DIR {}", world.dir.display());
    println!("FRONTEND {}", world.host.addr());
    let names: Vec<_> = (0..2 + rng.below(3)).map(|n| format!("proc-{n}")).collect();
    let spawns = names
        .iter()
        .map(|name| world.spawn(name, RoutePolicy::Auto));
    let procs = futures_util::future::try_join_all(spawns).await?;
    let pids = procs
        .iter()
        .filter_map(|proc| Some(proc.info().pid?.to_string()));
    println!("PROCS {}", pids.collect::<Vec<_>>().join(" "));
    for proc in &procs {
        let breeder = proc.spawn::<Breeder>(&world.client, "breeder", ()).await?;
        let kinds: Vec<_> = Kind::ALL
            .into_iter()
            .filter(|kind| rng.chance(1, if *kind == Kind::Host { 8 } else { 3 }))
            .collect();
        breeder
            .ask(&world.client, |reply| Breed { kinds, reply })
            .await?;
    }
    let talk = talk(&world, &procs).await?;
    println!("BUSY");
    let told = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    tokio::select! {
        talked = talk => talked?,
        line = told => {
            if line??.trim() != "END" {
                // The suite is gone.
                return Ok(());
            }
        }
    }
    let report = world.host.stop(Duration::from_secs(5)).await;
    println!("ENDED {:?}", report.left_behind);
    Ok(())
}

/// The procs of a host send each other messages, for as long as this is polled.
async fn talk<'a>(
    world: &'a World,
    procs: &[HostedProc],
) -> Result<impl Future<Output = Result> + use<'a>> {
    let mut ways = Vec::new();
    for (index, proc) in procs.iter().enumerate() {
        let params = ReceiverParams {
            // Beside its socket: what a proc puts there goes as well.
            journal: world.dir.join(format!("{index}.log")).display().to_string(),
            life: 1,
            die_at: None,
        };
        let port = world.receiver(proc, params).await?;
        ways.push((world.sender(proc).await?, port));
    }
    let all = (0..ways.len()).map(move |index| {
        let (sender, _) = ways[index].clone();
        let (_, port) = ways[(index + 1) % ways.len()].clone();
        async move {
            for first in (0..).step_by(100) {
                let batch = Batch {
                    sender: index as u32,
                    stream: 1,
                    first,
                    count: 100,
                };
                // The one or the other may be dead.
                if world.send(&sender, &port, batch).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let all = futures_util::future::join_all(all);
    Ok(async move {
        all.await;
        std::future::pending().await
    })
}

/// The role of a host that is itself a program that a proc started: has a proc, until it is ended.
pub(crate) async fn play_inner() -> Result {
    let world = World::new().await?;
    world.spawn("inner", RoutePolicy::Auto).await?;
    std::future::pending().await
}
