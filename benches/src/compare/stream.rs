//! One route alone, for whoever looks at it with a profiler or counts what a message costs: the messages of row b1, so many,
//! from one process to another, and nothing measured beside them. Over the relay, this process is the host that they pass.

use std::num::NonZeroU64;

use anyhow::{Context as _, Result};
use hyperactor::prelude::RoutePolicy;

use crate::compare::actors::Load;
use crate::compare::world::World;

/// The first word of a run over the direct route; the second is the number of messages.
pub(crate) const DIRECT: &str = "--stream-direct";

/// The same over the relay.
pub(crate) const RELAY: &str = "--stream-relay";

/// Sends so many messages, and says how long they took.
pub(crate) fn run(messages: &str, route: RoutePolicy) -> Result<()> {
    let messages: NonZeroU64 = messages.parse().context("how many messages?")?;
    let world = World::new(None)?;
    let pair = world.pair("stream", route)?;
    let found = pair.push(Load::Small, messages.get())?;
    pair.check_route(route)?;
    let nanos = found.elapsed.as_nanos() / u128::from(messages.get());
    println!("{messages} messages, {nanos} ns each");
    Ok(())
}
