//! Memory at rest: an idle actor, one that has talked to many, an idle direct connection on each side, a side of one where
//! many procs are connected in all pairs, an idle proc of the program `hyperactor`.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use hyperactor::host::HostedProc;
use hyperactor::prelude::RoutePolicy;

use crate::compare::actors::Load;
use crate::compare::helper::{Helper, Role};
use crate::compare::machine::memory;
use crate::compare::row::{Against, Arm, Figures, Line, Metric, Row};
use crate::compare::rows::{MIB, Setting};
use crate::compare::world::World;

const ACTORS: u64 = 100_000;
const TALKERS: u64 = 10_000;
const SIBLINGS: usize = 16;
const ALL_PAIRS: usize = 64;

/// How long a process gets to come to rest.
const REST: Duration = Duration::from_millis(500);

pub(crate) fn at_rest(setting: &Setting) -> Result<Row> {
    let actors = if setting.is_quick { 2_000 } else { ACTORS };
    let talkers = if setting.is_quick { 500 } else { TALKERS };
    let siblings = if setting.is_quick { 2 } else { SIBLINGS };
    let procs = if setting.is_quick { 3 } else { ALL_PAIRS };
    let (dialling, accepting) = connections(siblings)?;
    let mesh = mesh(procs)?;
    let mut row = Row {
        arms: vec![
            Arm::new("actor", (1, 1), move |_| {
                let helper = Helper::start(Role::Actors(actors))?;
                let each = helper.said.parse().context("the bytes of an actor")?;
                Ok(Figures::value(each))
            }),
            Arm::new("talker", (1, 1), move |_| {
                let helper = Helper::start(Role::Talkers(talkers))?;
                let each = helper.said.parse().context("the bytes of a talker")?;
                Ok(Figures::value(each))
            }),
            Arm::new("mesh", (1, 1), move |_| Ok(Figures::value(mesh))),
            Arm::new("connection, dialling", (1, 1), move |_| {
                Ok(Figures::value(dialling))
            }),
            Arm::new("connection, accepting", (1, 1), move |_| {
                Ok(Figures::value(accepting))
            }),
        ],
        lines: vec![
            Line::value("an idle actor", Metric::Bytes, "actor").at_most(1024.0),
            Line::value(
                "an idle actor that has talked to 100 others, with their references",
                Metric::Bytes,
                "talker",
            ),
            Line::value(
                "a side of a direct connection, many procs in all pairs",
                Metric::Bytes,
                "mesh",
            )
            .at_most(64.0 * 1024.0),
            Line::value(
                "an idle direct connection, dialling side",
                Metric::Bytes,
                "connection, dialling",
            )
            .at_most(64.0 * 1024.0),
            Line::value(
                "an idle direct connection, accepting side",
                Metric::Bytes,
                "connection, accepting",
            )
            .at_most(64.0 * 1024.0),
        ],
        placement: "free",
        is_counted: true,
    };
    let mut line = Line::value("an idle proc of `hyperactor`", Metric::Bytes, "proc");
    match setting.demo.clone() {
        Some(program) => row.arms.push(Arm::new("proc", (1, 1), move |_| {
            let world = World::new(Some(&program))?;
            let proc = world.child("idle", RoutePolicy::Auto)?;
            thread::sleep(REST);
            Ok(Figures::value(memory(pid(&proc)?, "VmRSS")? as f64))
        })),
        None => line.against = Against::Missing("needs `--demo` the program `hyperactor`"),
    }
    row.lines.push(line.at_most((10 * MIB) as f64));
    Ok(row)
}

fn pid(proc: &HostedProc) -> Result<u32> {
    proc.info().pid.context("a proc without a process")
}

/// Bytes of a connection on the side that dialled and on the one that accepted: what a process in the middle grows by when it
/// first talks to many, and what those grow by. All of them talked to another process before, so nothing else is new.
fn connections(siblings: usize) -> Result<(f64, f64)> {
    let world = World::new(None)?;
    let start = |name: &str| world.child(name, RoutePolicy::Direct);
    let (warm, middle) = (start("warm"), start("middle"));
    let (warm, middle) = (warm?, middle?);
    let around = (0..siblings)
        .map(|number| start(&format!("s{number}")))
        .collect::<Result<Vec<_>>>()?;
    let talk = |from: &HostedProc, to: &HostedProc| -> Result<()> {
        world.pair_of(from, to)?.push(Load::Small, 1)?;
        Ok(())
    };
    for proc in around.iter().chain([&middle]) {
        // Both sides, since a process dials and accepts by different code.
        talk(proc, &warm)?;
        talk(&warm, proc)?;
    }
    // Actors come first, so that they do not count.
    let pairs = around
        .iter()
        .map(|sibling| world.pair_of(&middle, sibling))
        .collect::<Result<Vec<_>>>()?;
    let read = || -> Result<(u64, u64)> {
        thread::sleep(REST);
        let mut others = 0;
        for proc in &around {
            others += memory(pid(proc)?, "RssAnon")?;
        }
        Ok((memory(pid(&middle)?, "RssAnon")?, others))
    };
    let before = read()?;
    for pair in &pairs {
        pair.push(Load::Small, 1)?;
    }
    let after = read()?;
    let each = |before: u64, after: u64| (after as f64 - before as f64) / siblings as f64;
    Ok((each(before.0, after.0), each(before.1, after.1)))
}

/// Bytes of a side of a connection, on average over both, where every proc has talked to every other.
fn mesh(procs: usize) -> Result<f64> {
    let world = World::new(None)?;
    let procs = (0..procs)
        .map(|number| world.child(&format!("m{number}"), RoutePolicy::Direct))
        .collect::<Result<Vec<_>>>()?;
    // Actors come first, so that they do not count.
    let mut pairs = Vec::new();
    for (at, from) in procs.iter().enumerate() {
        for to in &procs[at + 1..] {
            pairs.push(world.pair_of(from, to)?);
        }
    }
    let read = || -> Result<u64> {
        thread::sleep(REST);
        procs.iter().map(|proc| memory(pid(proc)?, "RssAnon")).sum()
    };
    let before = read()?;
    for pair in &pairs {
        pair.push(Load::Small, 1)?;
    }
    let sides = 2 * pairs.len();
    Ok((read()? as f64 - before as f64) / sides as f64)
}
