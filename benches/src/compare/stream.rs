//! The direct path alone, for whoever looks at it with a profiler or counts what a message costs: the messages of row b1, so many,
//! from one process to another, and nothing measured beside them.

use std::num::NonZeroU64;

use anyhow::{Context as _, Result};
use hyperactor::prelude::RoutePolicy;

use crate::compare::actors::Load;
use crate::compare::world::World;

/// The first word of such a run; the second is the number of messages.
pub(crate) const STREAM: &str = "--stream-direct";

/// Sends so many messages, and says how long they took.
pub(crate) fn run(messages: &str) -> Result<()> {
    let messages: NonZeroU64 = messages.parse().context("how many messages?")?;
    let world = World::new(None)?;
    let pair = world.pair("stream", RoutePolicy::Direct)?;
    let found = pair.push(Load::Small, messages.get())?;
    pair.check_route(RoutePolicy::Direct)?;
    let nanos = found.elapsed.as_nanos() / u128::from(messages.get());
    println!("{messages} messages, {nanos} ns each");
    Ok(())
}
