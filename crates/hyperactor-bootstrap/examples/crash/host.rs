//! A host comes to its end, by SIGKILL mostly and in every other way too, at any moment of its life: while it starts children,
//! while these talk, while they end. All children are gone within 2 s, with every socket, and nothing is left anywhere; where no
//! child lived that could tidy up, the next host does. Of half of the hosts, the threads that started the children have ended.

use std::path::PathBuf;
use std::time::Duration;

use hyperactor_bootstrap::SocketDir;
use hyperactor_host::{HostedProc, RoutePolicy};
use hyperactor_testkit::{Rng, SuiteReport, children_of, is_alive};

use crate::actors::ReceiverParams;
use crate::census::listing;
use crate::deeds::{self, Deed, Group};
use crate::lanes;
use crate::report::{BUSY, Context, Result};
use crate::world::{Batch, Role, World, gone_within};

/// How many hosts are killed.
const KILLS: u64 = 100;
/// How long what a host leaves may last.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// The latest moment of a kill, from the start of the host.
const LATEST_MS: u64 = 400;

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let shared_memory = listing("/dev/shm");
    let kills = context.scaled(KILLS);
    let mut all = Lane::default();
    let group = Group::new();
    if let Err(error) = &group {
        report.skip("hosts that the kernel ends for lack of memory", error);
    }
    let group = group.as_ref().ok();
    let lanes = lanes::run_blocking(|lane| {
        Lane::run(lanes::rng(context, lane), lanes::rounds(lane, kills), group)
    })?;
    for lane in lanes {
        report.add(lane.report.counts());
        all.times.extend(lane.times);
        all.with_children += lane.with_children;
        all.swept += lane.swept;
        all.started_by_threads += lane.started_by_threads;
        for (sum, count) in all.met.iter_mut().zip(lane.met) {
            *sum += count;
        }
        for (sum, count) in all.deeds.iter_mut().zip(lane.deeds) {
            *sum += count;
        }
    }
    report.figure("hosts killed", kills);
    report.figure("of which had children", all.with_children);
    report.figure("of which had nobody left and were swept", all.swept);
    report.figure(
        "killed early, in the middle, late",
        format!("{:?}", all.met),
    );
    report.figure("whose starting threads had ended", all.started_by_threads);
    for (deed, count) in Deed::ALL.iter().zip(all.deeds) {
        report.figure(&format!("by {deed:?}"), count);
        // Of very few hosts, not all can come in their turn.
        let is_due =
            kills >= 2 * Deed::ALL.len() as u64 && (*deed != Deed::Killed || group.is_some());
        let seen = format!("no host ended by {deed:?}");
        report.check("every way to end was seen", count > 0 || !is_due, seen);
    }
    report.times("everything is gone", &all.times, GONE_WITHIN, BUSY);
    let half = kills / 2;
    report.check(
        "kills met hosts with children",
        all.with_children >= half,
        format!("{} of {half}", all.with_children),
    );
    let quarter = kills / 4;
    report.check(
        "and some whose starting threads had ended",
        all.started_by_threads >= quarter,
        format!("{} of {quarter}", all.started_by_threads),
    );
    let now = listing("/dev/shm");
    report.check(
        "no shared memory is left",
        now == shared_memory,
        format!("{now:?}"),
    );
    Ok(())
}

/// One host after the other, and what was found.
#[derive(Default)]
struct Lane {
    report: SuiteReport,
    times: Vec<Duration>,
    with_children: u64,
    swept: u64,
    /// How many had children whose starting threads had ended.
    started_by_threads: u64,
    /// How many ended in each way, in the order of [`Deed::ALL`].
    deeds: [u64; Deed::ALL.len()],
    /// How many were killed in each third of the time.
    met: [u64; 3],
}

impl Lane {
    fn run(mut rng: Rng, rounds: impl Iterator<Item = u64>, group: Option<&Group>) -> Result<Self> {
        let mut lane = Self::default();
        for round in rounds {
            let moment = rng.below(LATEST_MS);
            // Each in its turn; SIGKILL as often as all others, and for what cannot be done here.
            let deed = Deed::ALL[(round / 2) as usize % Deed::ALL.len()];
            let is_kill = round.is_multiple_of(2) || (deed == Deed::Killed && group.is_none());
            let deed = if is_kill { Deed::ALL[0] } else { deed };
            lane.round(round, moment, deed, group)?;
        }
        Ok(lane)
    }

    fn round(&mut self, round: u64, moment: u64, deed: Deed, group: Option<&Group>) -> Result {
        let threads = !round.is_multiple_of(3);
        let how = if threads { "threads" } else { "runtime" };
        let mut host = Role::play("host", &[how])?;
        let dir = PathBuf::from(host.says("DIR")?);
        std::thread::sleep(Duration::from_millis(moment));
        let pids = children_of(host.process.id());
        self.with_children += u64::from(!pids.is_empty());
        self.started_by_threads += u64::from(!pids.is_empty() && threads);
        self.met[(moment * 3 / LATEST_MS) as usize] += 1;
        let ended_by = deed.bring_about(&mut host, group)?;
        self.report.check(
            "the host ended as it was to",
            ended_by == Some(deed.ends_by().as_raw()),
            format!("round {round}: {ended_by:?} instead of {deed:?}"),
        );
        if let Some(place) = Deed::ALL.iter().position(|one| *one == deed) {
            self.deeds[place] += 1;
        }
        // What it said last tells whether a child lived that could tidy up.
        let had_children = host.last_of(&["QUIET", "BUSY"])? == "BUSY";
        // Where nobody is left, nothing more will happen.
        let limit = GONE_WITHIN * if had_children { BUSY } else { 1 };
        let gone = gone_within(limit, &pids, &dir);
        self.times.extend(gone);
        let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        let seen = format!(
            "round {round}, {deed:?} after {moment} ms: processes {left:?}, folder {:?}",
            listing(&dir),
        );
        if had_children || gone.is_some() {
            self.report
                .check("everything goes with its host", gone.is_some(), seen);
        } else {
            // The next host does it, by the lock that nobody holds.
            drop(SocketDir::create()?);
            self.swept += 1;
            let is_gone = left.is_empty() && !dir.exists();
            self.report.check("the next host sweeps", is_gone, seen);
        }
        Ok(())
    }
}

/// Starts a proc from a thread that ends when it has.
async fn spawn_by_thread(world: &World, name: &str) -> Result<HostedProc> {
    let (done, proc) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let spawned = runtime.block_on(world.spawn(name, RoutePolicy::Auto));
            // Nobody waits where the host is about to end.
            drop(done.send(spawned.map_err(|error| error.to_string())));
        });
    });
    Ok(proc.await??)
}

/// The role of the host: starts children, has them talk, ends them, and begins again.
pub(crate) async fn play(arguments: &[String]) -> Result {
    deeds::obey();
    let by_threads = arguments == ["threads"];
    let world = World::new().await?;
    println!("DIR {}", world.dir.display());
    let folder = world.dir.clone();
    for life in 0.. {
        println!("QUIET");
        let spawns = ["a", "b", "c"].map(async |name| {
            if by_threads {
                spawn_by_thread(&world, name).await
            } else {
                world.spawn(name, RoutePolicy::Auto).await
            }
        });
        let [a, b, c] = futures_util::future::try_join_all(spawns)
            .await?
            .try_into()
            .map_err(|_| "three procs were asked for")?;
        println!("BUSY");
        let sender = world.sender(&a).await?;
        let params = |name: &str| ReceiverParams {
            // Nobody reads it. In the folder that has to go: what a proc puts there goes as well.
            journal: folder.join(format!("{name}.log")).display().to_string(),
            life,
            die_at: None,
        };
        let ports = [
            world.receiver(&b, params("b")).await?,
            world.receiver(&c, params("c")).await?,
        ];
        for round in 0..10 {
            for (stream, port) in ports.iter().enumerate() {
                let batch = Batch {
                    sender: 1,
                    stream: stream as u32,
                    first: round * 200,
                    count: 200,
                };
                world.send(&sender, port, batch).await?;
            }
        }
        println!("QUIET");
        let deadline = Duration::from_millis(200);
        let ends = [a, b, c]
            .map(|proc| async move { proc.end(hyperactor_host::End::Drain { deadline }).await });
        futures_util::future::join_all(ends).await;
    }
    Ok(())
}
