#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod engine;
pub mod fault;
pub mod ledger;
mod log;
mod rng;
pub mod scenario;
mod seen;
mod shrink;

pub use crate::batch::{Batch, judge};
pub use crate::engine::{Outcome, run};
pub use crate::rng::Rng;
pub use crate::scenario::Scenario;
pub use crate::seen::Seen;
pub use crate::shrink::{Shrunk, shrink};
