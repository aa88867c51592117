//! Rows through the host: the relay beside the direct route, and small messages beside a stream of large ones through the
//! same host.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyperactor::prelude::RoutePolicy;

use crate::compare::actors::Load;
use crate::compare::row::{Arm, Line, Metric, Row};
use crate::compare::rows::direct::{TRIP_BYTES, TRIPS, push_arm};
use crate::compare::rows::{MIB, Setting};
use crate::compare::world::{Pair, World};

fn trips(name: &'static str, pair: Pair, route: RoutePolicy) -> Arm {
    Arm::new(name, TRIPS, move |count| {
        let found = pair.round_trips(TRIP_BYTES, Duration::ZERO, count)?;
        pair.check_route(route)?;
        Ok(found)
    })
}

/// c1.
pub(crate) fn against_direct(_setting: &Setting) -> Result<Row> {
    const SMALL: (u64, u64) = (1_000, 2_000_000);
    const LARGE: (u64, u64) = (8, 2_000);
    let world = World::new(None)?;
    let mut arms = Vec::new();
    for (route, names) in [
        (
            RoutePolicy::Direct,
            ["direct, trips", "direct, small", "direct, 1 MiB"],
        ),
        (
            RoutePolicy::Relay,
            ["relay, trips", "relay, small", "relay, 1 MiB"],
        ),
    ] {
        let pair = world.pair(&route.to_string(), route)?;
        arms.push(trips(names[0], pair.clone(), route));
        arms.push(push_arm(names[1], pair.clone(), route, Load::Small, SMALL));
        arms.push(push_arm(
            names[2],
            pair,
            route,
            Load::Part(MIB as u64),
            LARGE,
        ));
    }
    Ok(Row {
        arms,
        lines: vec![
            Line::ratio(
                "ask, relay to direct",
                Metric::P50,
                "relay, trips",
                "direct, trips",
            )
            .at_most(2.2),
            Line::ratio(
                "ask, relay to direct",
                Metric::P99,
                "relay, trips",
                "direct, trips",
            ),
            Line::ratio(
                "small messages, relay to direct",
                Metric::Rate,
                "relay, small",
                "direct, small",
            )
            .at_least(0.8),
            Line::ratio(
                "1 MiB parts, relay to direct",
                Metric::Rate,
                "relay, 1 MiB",
                "direct, 1 MiB",
            )
            .at_least(0.5),
        ],
        placement: "free",
        is_counted: false,
    })
}

/// c2.
pub(crate) fn beside_large(setting: &Setting) -> Result<Row> {
    const FEW_TRIPS: (u64, u64) = (100, 5_000);
    let world = World::new(None)?;
    let quiet = world.pair("small", RoutePolicy::Relay)?;
    let large = world.pair("large", RoutePolicy::Relay)?;
    let size = setting.large() as u64;
    let loaded = quiet.clone();
    Ok(Row {
        arms: vec![
            Arm::new("quiet", FEW_TRIPS, move |count| {
                quiet.round_trips(TRIP_BYTES, Duration::ZERO, count)
            }),
            Arm::new("beside 64 MiB messages", FEW_TRIPS, move |count| {
                let (found, arrived) = large.streaming(size, || {
                    loaded.round_trips(TRIP_BYTES, Duration::ZERO, count)
                })?;
                ensure!(arrived > 0, "no large message passed meanwhile");
                loaded.check_route(RoutePolicy::Relay)?;
                large.check_route(RoutePolicy::Relay)?;
                Ok(found)
            }),
        ],
        lines: vec![
            Line::ratio(
                "ask beside a stream to quiet",
                Metric::P99,
                "beside 64 MiB messages",
                "quiet",
            )
            .at_most(3.0),
            Line::ratio(
                "ask beside a stream to quiet",
                Metric::P50,
                "beside 64 MiB messages",
                "quiet",
            ),
        ],
        placement: "free",
        is_counted: false,
    })
}
