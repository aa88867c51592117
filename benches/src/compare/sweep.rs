//! Throughput and latency against the size of messages, for the plots: within a process, direct, relayed, and over plain
//! streams.

use std::time::Duration;

use anyhow::Result;
use hyperactor::prelude::RoutePolicy;
use serde::Serialize;

use crate::compare::actors::Load;
use crate::compare::raw::{Kind, Raw, Reads, Writes};
use crate::compare::row::Figures;
use crate::compare::run::Effort;
use crate::compare::stats::Quartiles;
use crate::compare::svg::{Chart, Series};
use crate::compare::world::{Pair, World};

const SIZES: [u64; 8] = [
    64,
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
];

/// Rounds; each measures every way at every size once.
const ROUNDS: usize = 3;

/// Bytes of one measurement of throughput at most, and messages at least and at most.
const BYTES: u64 = 64 << 20;
const MESSAGES: (u64, u64) = (64, 40_000);
const TRIPS: u64 = 300;

/// Medians by way and size.
#[derive(Debug, Serialize)]
pub(crate) struct Sweep {
    ways: Vec<Way>,
}

#[derive(Debug, Serialize)]
struct Way {
    name: &'static str,
    points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Point {
    size: u64,
    bytes_per_second: f64,
    round_trip_p50_us: f64,
}

/// Something that moves messages of any size.
enum Mover {
    Actors(Pair),
    Plain(Raw),
}

impl Mover {
    fn push(&mut self, size: u64, count: u64) -> Result<Figures> {
        match self {
            Self::Actors(pair) => pair.push(Load::Part(size), count),
            Self::Plain(raw) => {
                raw.push(usize::try_from(size)?, Writes::Each, Reads::Reused, count)
            }
        }
    }

    fn trips(&mut self, size: u64, count: u64) -> Result<Figures> {
        match self {
            Self::Actors(pair) => pair.round_trips(size, Duration::ZERO, count),
            Self::Plain(raw) => raw.round_trips(usize::try_from(size)?, Duration::ZERO, count),
        }
    }
}

pub(crate) fn run(effort: Effort) -> Result<Sweep> {
    eprintln!("throughput and latency against size …");
    let world = World::new(None)?;
    let direct = world.pair("direct", RoutePolicy::Direct)?;
    let mut movers = [
        (
            "in process",
            Mover::Actors(world.pair_of(&direct.from, &direct.from)?),
        ),
        ("direct", Mover::Actors(direct)),
        (
            "relay",
            Mover::Actors(world.pair("relay", RoutePolicy::Relay)?),
        ),
        ("plain Unix", Mover::Plain(Raw::new(Kind::Unix)?)),
        ("plain TCP", Mover::Plain(Raw::new(Kind::Tcp)?)),
    ];
    let divide = if effort.is_quick { 64 } else { 1 };
    let mut found: Vec<Vec<Vec<(f64, f64)>>> =
        vec![vec![Vec::with_capacity(ROUNDS); SIZES.len()]; movers.len()];
    for round in 0..ROUNDS {
        for (at, size) in SIZES.into_iter().enumerate() {
            let count = (BYTES / size).clamp(MESSAGES.0, MESSAGES.1) / divide;
            for turn in 0..movers.len() {
                let way = (turn + round) % movers.len();
                let mover = &mut movers[way].1;
                let pushed = mover.push(size, count.max(1))?;
                let trips = mover.trips(size, (TRIPS / divide).max(1))?;
                let rate = (pushed.count * size) as f64 / pushed.elapsed.as_secs_f64().max(1e-9);
                found[way][at].push((rate, trips.trips.p50 as f64 / 1e3));
            }
        }
    }
    let ways = movers.iter().zip(&found).map(|((name, _), sizes)| Way {
        name,
        points: SIZES
            .iter()
            .zip(sizes)
            .map(|(size, samples)| Point::of(*size, samples))
            .collect(),
    });
    Ok(Sweep {
        ways: ways.collect(),
    })
}

impl Point {
    fn of(size: u64, samples: &[(f64, f64)]) -> Self {
        let median = |of: fn(&(f64, f64)) -> f64| {
            let values: Vec<f64> = samples.iter().map(of).collect();
            Quartiles::of(&values).map_or(0.0, |q| q.median)
        };
        Self {
            size,
            bytes_per_second: median(|sample| sample.0),
            round_trip_p50_us: median(|sample| sample.1),
        }
    }
}

impl Sweep {
    /// Bytes a second against size. Within a process no byte moves, so it is left out.
    pub(crate) fn throughput(&self) -> Chart {
        let ways = self.ways.iter().filter(|way| way.name != "in process");
        Chart {
            title: "Throughput, one way".to_owned(),
            x: "bytes of a message".to_owned(),
            y: "MiB/s".to_owned(),
            series: ways
                .map(|way| way.series(|point| point.bytes_per_second / f64::from(1 << 20)))
                .collect(),
        }
    }

    pub(crate) fn latency(&self) -> Chart {
        Chart {
            title: "Round trip, median".to_owned(),
            x: "bytes of a message".to_owned(),
            y: "µs".to_owned(),
            series: self
                .ways
                .iter()
                .map(|way| way.series(|point| point.round_trip_p50_us))
                .collect(),
        }
    }
}

impl Way {
    fn series(&self, y: impl Fn(&Point) -> f64) -> Series {
        let points = self
            .points
            .iter()
            .map(|point| (point.size as f64, y(point)));
        Series {
            name: self.name.to_owned(),
            points: points.collect(),
        }
    }
}
