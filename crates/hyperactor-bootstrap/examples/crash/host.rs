//! A host is killed, by SIGKILL mostly and by other signals too, at any moment of its life: while it starts children, while
//! these talk, while they end. All children are gone within 2 s, with every socket, and nothing is left anywhere; where no child
//! lived that could tidy up, the next host does.

use std::path::PathBuf;
use std::time::Duration;

use hyperactor_bootstrap::SocketDir;
use hyperactor_host::RoutePolicy;
use hyperactor_testkit::{Rng, children_of, is_alive};
use rustix::process::Signal;

use crate::actors::ReceiverParams;
use crate::census::listing;
use crate::lanes;
use crate::report::{Context, Report, Result};
use crate::world::{Batch, Role, World, gone_within};

/// How many hosts are killed.
const KILLS: u64 = 100;
/// How long what a host leaves may last.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// What ends a host. Not SIGQUIT, which a shell has its background jobs ignore, and not SIGSEGV: sent from outside, it
/// meets the standard library's stack guard first, which lets it pass once.
const SIGNALS: [Signal; 6] = [
    Signal::KILL,
    Signal::KILL,
    Signal::KILL,
    Signal::TERM,
    Signal::ABORT,
    Signal::ABORT,
];
/// The latest moment of a kill, from the start of the host.
const LATEST_MS: u64 = 400;

pub(crate) async fn run(context: &Context, report: &mut Report) -> Result {
    let shared_memory = listing("/dev/shm");
    let kills = context.scaled(KILLS);
    let mut all = Lane::default();
    let lanes = lanes::run_blocking(|lane| {
        Lane::run(lanes::rng(context, lane), lanes::rounds(lane, kills))
    })?;
    for lane in lanes {
        report.add(&lane.report);
        all.slowest = all.slowest.max(lane.slowest);
        all.with_children += lane.with_children;
        all.swept += lane.swept;
        for (sum, count) in all.met.iter_mut().zip(lane.met) {
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
    report.figure("slowest to leave nothing", format!("{:.0?}", all.slowest));
    report.check(
        "kills met hosts with children",
        all.with_children > 0,
        "none",
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
    report: Report,
    slowest: Duration,
    with_children: u64,
    swept: u64,
    /// How many were killed in each third of the time.
    met: [u64; 3],
}

impl Lane {
    fn run(mut rng: Rng, rounds: impl Iterator<Item = u64>) -> Result<Self> {
        let mut lane = Self::default();
        for round in rounds {
            let moment = rng.below(LATEST_MS);
            let signal = rng.pick(&SIGNALS).copied().ok_or("no signal")?;
            lane.round(round, moment, signal)?;
        }
        Ok(lane)
    }

    fn round(&mut self, round: u64, moment: u64, signal: Signal) -> Result {
        let mut host = Role::play("host", &[])?;
        let dir = PathBuf::from(host.says("DIR")?);
        std::thread::sleep(Duration::from_millis(moment));
        let pids = children_of(host.process.id());
        self.with_children += u64::from(!pids.is_empty());
        self.met[(moment * 3 / LATEST_MS) as usize] += 1;
        host.end_by(signal)?;
        // What it said last tells whether a child lived that could tidy up.
        let had_children = host.last_of(&["QUIET", "BUSY"])? == "BUSY";
        let gone = gone_within(GONE_WITHIN, &pids, &dir);
        self.slowest = self.slowest.max(gone.unwrap_or_default());
        let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        let seen = format!(
            "round {round}, signal {signal:?} after {moment} ms: processes {left:?}, folder {:?}",
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

/// The role of the host: starts children, has them talk, ends them, and begins again.
pub(crate) async fn play() -> Result {
    let world = World::new().await?;
    println!("DIR {}", world.dir.display());
    let folder = world.dir.clone();
    for life in 0.. {
        println!("QUIET");
        let spawns = ["a", "b", "c"].map(|name| world.spawn(name, RoutePolicy::Auto));
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
