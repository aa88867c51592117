//! d1: between two hosts over loopback TCP, one hop, beside the direct route and a plain TCP stream.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hyperactor::prelude::{ActorRef, ChannelTransport, RoutePolicy};

use crate::compare::actors::{Driver, Load, Sink};
use crate::compare::helper::{Helper, Role};
use crate::compare::raw::{Kind, Reads};
use crate::compare::row::{Arm, Figures, Line, Metric, Row};
use crate::compare::rows::direct::{Place, TRIP_BYTES, TRIPS, push_arm, raw_arm, raw_push_arm};
use crate::compare::rows::{MIB, Setting};
use crate::compare::world::World;

/// A driver in this process's host, and a sink in a host of its own.
struct Hosts {
    world: World,
    driver: ActorRef<Driver>,
    sink: ActorRef<Sink>,
    _helper: Helper,
}

impl Hosts {
    fn new() -> Result<Self> {
        let world = World::reached_by(ChannelTransport::Tcp, None)?;
        let helper = Helper::start(Role::TcpHost)?;
        let sink = helper
            .said
            .parse()
            .with_context(|| format!("`{}` is no actor", helper.said))?;
        Ok(Self {
            driver: world.host_driver("driver")?,
            world,
            sink,
            _helper: helper,
        })
    }

    fn push(&self, load: Load, count: u64) -> Result<Figures> {
        self.world.push(&self.driver, &self.sink, load, count)
    }
}

pub(crate) fn against_direct(setting: &Setting) -> Result<Row> {
    const SMALL: (u64, u64) = (1_000, 2_000_000);
    const LARGE: (u64, u64) = (8, 2_000);
    let hosts = std::rc::Rc::new(Hosts::new()?);
    let direct = World::new(None)?.pair("direct", RoutePolicy::Direct)?;
    let (small, large, trips) = (hosts.clone(), hosts.clone(), hosts);
    Ok(Row {
        arms: vec![
            push_arm(
                "direct, small",
                direct,
                RoutePolicy::Direct,
                Load::Small,
                SMALL,
            ),
            Arm::new("TCP, small", SMALL, move |count| {
                small.push(Load::Small, count)
            }),
            raw_push_arm("plain, 1 MiB", Kind::Tcp, MIB, Reads::Reused, LARGE)?,
            Arm::new("TCP, 1 MiB", LARGE, move |count| {
                large.push(Load::Part(MIB as u64), count)
            }),
            raw_arm(
                setting,
                "plain, trips",
                Kind::Tcp,
                Place::Free,
                Duration::ZERO,
                TRIPS,
            )?,
            Arm::new("TCP, trips", TRIPS, move |count| {
                trips.world.round_trips(
                    &trips.driver,
                    &trips.sink,
                    TRIP_BYTES,
                    Duration::ZERO,
                    count,
                )
            }),
        ],
        lines: vec![
            Line::ratio(
                "small messages to the direct route",
                Metric::Rate,
                "TCP, small",
                "direct, small",
            )
            .at_least(0.7),
            Line::ratio(
                "1 MiB parts to plain TCP stream",
                Metric::Rate,
                "TCP, 1 MiB",
                "plain, 1 MiB",
            )
            .at_least(0.65),
            Line::ratio(
                "ask to plain TCP stream",
                Metric::P50,
                "TCP, trips",
                "plain, trips",
            ),
            Line::ratio(
                "ask to plain TCP stream",
                Metric::P99,
                "TCP, trips",
                "plain, trips",
            ),
        ],
        placement: "free",
        is_counted: false,
    })
}
