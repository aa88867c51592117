//! Rows between two child processes on the direct route, beside the same actors in one process and beside plain Unix streams
//! between two processes.

use std::time::Duration;

use anyhow::Result;
use hyperactor::prelude::RoutePolicy;

use crate::compare::actors::Load;
use crate::compare::machine::{Hog, on_core, pin_process};
use crate::compare::raw::{Kind, Raw, Reads, Writes};
use crate::compare::row::{Arm, Line, Metric, Row};
use crate::compare::rows::{MIB, Setting};
use crate::compare::world::{Pair, World};

/// Bytes of a round trip's message, each way.
pub(crate) const TRIP_BYTES: u64 = 64;

/// A pause after which nobody expects the next message any more: far above any budget for spinning.
const IDLE: Duration = Duration::from_millis(2);

/// Round trips of one measurement.
pub(crate) const TRIPS: (u64, u64) = (100, 200_000);

/// How an arm of round trips is placed.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// Wherever the system puts them.
    Free,
    /// Each process on its core.
    Apart,
    /// Both on one core.
    Together,
}

impl Place {
    fn cores(self, setting: &Setting) -> Option<(usize, usize)> {
        match self {
            Self::Free => None,
            Self::Apart => Some(setting.cores),
            Self::Together => Some((setting.cores.0, setting.cores.0)),
        }
    }
}

/// Two processes at their places.
pub(crate) fn placed(setting: &Setting, pair: Pair, place: Place) -> Result<Pair> {
    if let Some((here, there)) = place.cores(setting) {
        let (from, to) = pair.pids()?;
        pin_process(from, &[here])?;
        pin_process(to, &[there])?;
    }
    Ok(pair)
}

pub(crate) fn actors_arm(
    name: &'static str,
    pair: Pair,
    pause: Duration,
    bounds: (u64, u64),
) -> Arm {
    Arm::new(name, bounds, move |count| {
        let found = pair.round_trips(TRIP_BYTES, pause, count)?;
        pair.check_route(RoutePolicy::Direct)?;
        Ok(found)
    })
}

/// Round trips over a plain stream, from this process to another.
pub(crate) fn raw_arm(
    setting: &Setting,
    name: &'static str,
    kind: Kind,
    place: Place,
    pause: Duration,
    bounds: (u64, u64),
) -> Result<Arm> {
    let mut raw = Raw::new(kind)?;
    let cores = place.cores(setting);
    if let Some((_, there)) = cores {
        pin_process(raw.pid(), &[there])?;
    }
    Ok(Arm::new(name, bounds, move |count| match cores {
        Some((here, _)) => on_core(here, || raw.round_trips(TRIP_BYTES as usize, pause, count)),
        None => raw.round_trips(TRIP_BYTES as usize, pause, count),
    }))
}

pub(crate) fn push_arm(
    name: &'static str,
    pair: Pair,
    route: RoutePolicy,
    load: Load,
    bounds: (u64, u64),
) -> Arm {
    Arm::new(name, bounds, move |count| {
        let found = pair.push(load, count)?;
        pair.check_route(route)?;
        Ok(found)
    })
}

pub(crate) fn raw_push_arm(
    name: &'static str,
    kind: Kind,
    size: usize,
    reads: Reads,
    bounds: (u64, u64),
) -> Result<Arm> {
    let mut raw = Raw::new(kind)?;
    Ok(Arm::new(name, bounds, move |count| {
        raw.push(size, Writes::Each, reads, count)
    }))
}

/// b1.
pub(crate) fn small(_setting: &Setting) -> Result<Row> {
    const BOUNDS: (u64, u64) = (1_000, 5_000_000);
    let world = World::new(None)?;
    let a = world.child("a", RoutePolicy::Direct)?;
    let b = world.child("b", RoutePolicy::Direct)?;
    let (local, direct) = (world.pair_of(&a, &a)?, world.pair_of(&a, &b)?);
    Ok(Row {
        arms: vec![
            Arm::new("in one process", BOUNDS, move |count| {
                local.push(Load::Small, count)
            }),
            push_arm("direct", direct, RoutePolicy::Direct, Load::Small, BOUNDS),
        ],
        lines: vec![
            Line::ratio(
                "direct to in one process",
                Metric::Rate,
                "direct",
                "in one process",
            )
            .at_least(0.2),
        ],
        placement: "free",
        is_counted: false,
    })
}

/// b3.
pub(crate) fn idle(setting: &Setting) -> Result<Row> {
    const BOUNDS: (u64, u64) = (40, 400);
    let pair = World::new(None)?.pair("idle", RoutePolicy::Direct)?;
    let pair = placed(setting, pair, Place::Apart)?;
    Ok(Row {
        arms: vec![
            raw_arm(setting, "plain", Kind::Unix, Place::Apart, IDLE, BOUNDS)?,
            actors_arm("direct", pair, IDLE, BOUNDS),
        ],
        lines: vec![
            Line::ratio("ask to plain Unix stream", Metric::P50, "direct", "plain").at_most(1.3),
            Line::ratio("ask to plain Unix stream", Metric::P99, "direct", "plain"),
        ],
        placement: "two cores, a process each",
        is_counted: false,
    })
}

/// b4.
pub(crate) fn hot(setting: &Setting) -> Result<Row> {
    let world = World::new(None)?;
    let apart = placed(
        setting,
        world.pair("apart", RoutePolicy::Direct)?,
        Place::Apart,
    )?;
    let free = world.pair("free", RoutePolicy::Direct)?;
    let none = Duration::ZERO;
    Ok(Row {
        arms: vec![
            raw_arm(setting, "plain", Kind::Unix, Place::Apart, none, TRIPS)?,
            actors_arm("direct", apart, none, TRIPS),
            raw_arm(setting, "plain, free", Kind::Unix, Place::Free, none, TRIPS)?,
            actors_arm("direct, free", free, none, TRIPS),
        ],
        lines: vec![
            Line::ratio("ask to plain Unix stream", Metric::P50, "direct", "plain").at_most(0.3),
            Line::ratio("ask to plain Unix stream", Metric::P99, "direct", "plain"),
            Line::ratio(
                "ask to plain Unix stream, free",
                Metric::P50,
                "direct, free",
                "plain, free",
            ),
            Line::ratio(
                "ask to plain Unix stream, free",
                Metric::P99,
                "direct, free",
                "plain, free",
            ),
        ],
        placement: "two cores, a process each; and free",
        is_counted: false,
    })
}

/// With a busy loop beside it.
fn beside_a_hog(mut arm: Arm) -> Arm {
    Arm::new(arm.name, arm.bounds, move |count| {
        let _hog = Hog::start()?;
        (arm.measure)(count)
    })
}

/// b5.
pub(crate) fn crowded(setting: &Setting) -> Result<Row> {
    let none = Duration::ZERO;
    let world = World::new(None)?;
    let adaptive =
        |name: &str, place| placed(setting, world.pair(name, RoutePolicy::Direct)?, place);
    let never = |name: &str, place| placed(setting, world.pair_without_spin(name)?, place);
    let plain = |name, place| raw_arm(setting, name, Kind::Unix, place, none, TRIPS);
    let actors = |name, pair| actors_arm(name, pair, none, TRIPS);
    let mut arms = vec![
        beside_a_hog(plain("plain, busy loop", Place::Free)?),
        beside_a_hog(actors("busy loop", adaptive("hog", Place::Free)?)),
        beside_a_hog(actors("busy loop, no spin", never("hog-no", Place::Free)?)),
        plain("plain, one core", Place::Together)?,
        actors("one core", adaptive("one", Place::Together)?),
        actors("one core, no spin", never("one-no", Place::Together)?),
        // In the hope of a free core; what spinning is for.
        actors("apart", adaptive("apart", Place::Apart)?),
        actors("apart, no spin", never("apart-no", Place::Apart)?),
    ];
    let mean = |what, subject, baseline| Line::ratio(what, Metric::Mean, subject, baseline);
    let mut lines = vec![
        mean("busy loop, to no spin", "busy loop", "busy loop, no spin").at_most(1.3),
        mean("one core, to no spin", "one core", "one core, no spin").at_most(1.8),
        mean("a core each, to no spin", "apart", "apart, no spin"),
        mean(
            "busy loop, ask to plain Unix stream",
            "busy loop",
            "plain, busy loop",
        ),
        mean(
            "one core, ask to plain Unix stream",
            "one core",
            "plain, one core",
        ),
        Line::ratio(
            "one core, ask to plain Unix stream",
            Metric::P99,
            "one core",
            "plain, one core",
        ),
    ];
    if let Some(program) = &setting.against {
        let other = World::new(Some(program))?;
        let pair =
            |name: &str, place| placed(setting, other.pair(name, RoutePolicy::Direct)?, place);
        arms.push(beside_a_hog(actors(
            "other build, busy loop",
            pair("hog", Place::Free)?,
        )));
        arms.push(actors(
            "other build, one core",
            pair("one", Place::Together)?,
        ));
        lines.push(mean(
            "busy loop, to another build",
            "busy loop",
            "other build, busy loop",
        ));
        lines.push(mean(
            "one core, to another build",
            "one core",
            "other build, one core",
        ));
    }
    Ok(Row {
        arms,
        lines,
        placement: "free beside a busy loop; both on one core; a core each",
        is_counted: false,
    })
}

/// b7.
pub(crate) fn large(setting: &Setting) -> Result<Row> {
    const BOUNDS: (u64, u64) = (8, 4_000);
    const FEW: (u64, u64) = (1, 8);
    let large = setting.large();
    let pair = World::new(None)?.pair("parts", RoutePolicy::Direct)?;
    let direct =
        |name, load, bounds| push_arm(name, pair.clone(), RoutePolicy::Direct, load, bounds);
    Ok(Row {
        arms: vec![
            raw_push_arm("plain, 1 MiB", Kind::Unix, MIB, Reads::Reused, BOUNDS)?,
            direct("direct, 1 MiB", Load::Part(MIB as u64), BOUNDS),
            direct("direct, 1 MiB, copied", Load::Bytes(MIB as u64), BOUNDS),
            raw_push_arm(
                "plain, 64 MiB, fresh buffers",
                Kind::Unix,
                large,
                Reads::Fresh,
                FEW,
            )?,
            direct("direct, 64 MiB", Load::Part(large as u64), FEW),
            direct("direct, 64 MiB, copied", Load::Bytes(large as u64), FEW),
        ],
        lines: vec![
            Line::ratio(
                "1 MiB parts to plain Unix stream",
                Metric::Rate,
                "direct, 1 MiB",
                "plain, 1 MiB",
            )
            .at_least(0.9),
            Line::ratio(
                "64 MiB parts to plain Unix stream into fresh buffers",
                Metric::Rate,
                "direct, 64 MiB",
                "plain, 64 MiB, fresh buffers",
            )
            .at_least(2.5),
            Line::ratio(
                "1 MiB of `Bytes` to plain Unix stream",
                Metric::Rate,
                "direct, 1 MiB, copied",
                "plain, 1 MiB",
            ),
            Line::ratio(
                "64 MiB of `Bytes` to plain Unix stream into fresh buffers",
                Metric::Rate,
                "direct, 64 MiB, copied",
                "plain, 64 MiB, fresh buffers",
            ),
        ],
        placement: "free",
        is_counted: false,
    })
}
