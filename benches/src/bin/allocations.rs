//! The program `compare-allocations`: prints allocations a message by way, as JSON. A program of its own, because its
//! allocator counts, which the measured programs' allocators should not. Its argument is the number of messages.

use anyhow::{Context, Result};
use hyperactor_benches::compare::count_allocations;

fn main() -> Result<()> {
    let messages = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "20000".to_owned());
    let messages = messages.parse().context("the number of messages")?;
    let found = count_allocations(messages, |work| {
        allocation_counter::measure(work).count_total
    })?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}
