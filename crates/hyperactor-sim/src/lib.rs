#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod duo;
mod edge;
mod engine;
pub mod fault;
pub mod fuzzing;
mod labels;
pub mod ledger;
mod log;
mod rng;
pub mod scenario;
mod seen;
mod shelf;
mod shrink;

pub use crate::batch::{Batch, judge};
pub use crate::duo::explore::{Explored, SMALL_WORLDS, SmallWorld, explore, explore_all};
pub use crate::duo::hole::{FOLLOWERS, HELD_MAX, HOLES, Hole, PAUSE_MAX, Passed, pass};
pub use crate::edge::{Edge, edge};
pub use crate::engine::{Outcome, run};
pub use crate::rng::Rng;
pub use crate::scenario::Scenario;
pub use crate::seen::Seen;
pub use crate::shrink::{Shrunk, shrink};
