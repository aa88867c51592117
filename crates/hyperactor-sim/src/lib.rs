#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod engine;
pub mod fault;
pub mod ledger;
mod log;
mod rng;
pub mod scenario;
mod seen;

pub use crate::engine::{Outcome, run};
pub use crate::rng::Rng;
pub use crate::scenario::Scenario;
pub use crate::seen::Seen;
