//! One route alone, for whoever looks at it with a profiler or counts what a message costs: the messages of row b1, so many,
//! or parts of a given size as in row b7, from one process to another, and nothing measured beside them. Over the relay, this
//! process is the host that they pass.

use std::num::NonZeroU64;

use anyhow::{Context as _, Result};
use hyperactor::prelude::RoutePolicy;

use crate::compare::actors::Load;
use crate::compare::world::World;

/// The first word of a run over the direct route; the second is the number of messages.
pub(crate) const DIRECT: &str = "--stream-direct";

/// The same over the relay.
pub(crate) const RELAY: &str = "--stream-relay";

/// Sends so many messages, small ones or parts of so many bytes, and says how long they took.
pub(crate) fn run(messages: &str, bytes: Option<&str>, route: RoutePolicy) -> Result<()> {
    let messages: NonZeroU64 = messages.parse().context("how many messages?")?;
    let load = match bytes {
        Some(bytes) => Load::Part(bytes.parse().context("of how many bytes?")?),
        None => Load::Small,
    };
    let world = World::new(None)?;
    let pair = world.pair("stream", route)?;
    let found = pair.push(load, messages.get())?;
    pair.check_route(route)?;
    let nanos = found.elapsed.as_nanos() / u128::from(messages.get());
    println!("{messages} messages, {nanos} ns each");
    Ok(())
}
