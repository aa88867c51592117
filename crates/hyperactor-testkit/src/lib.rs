#![doc = include_str!("../README.md")]

mod chaos;
mod hash;
mod isolated;
mod leak;
mod ledger;
pub mod limits;
mod probe;
mod process;
mod scale;
mod seed;
mod socket_dir;
mod suite;
mod wait;

pub use chaos::{
    Act, ChaosProxy, Direction, Endpoint, EndpointError, Faults, Plan, Report, Script, ScriptError,
    Step,
};
pub use isolated::isolated;
pub use leak::{LeakGuard, Leaks};
pub use ledger::{Class, Journal, Key, Ledger, Outcome, Stamped, Verdict};
pub use probe::{Probe, Recorder};
pub use process::{children_of, is_alive};
pub use scale::{Scale, ScaleError};
pub use seed::{Rng, Seed, SeedError};
pub use socket_dir::TempSocketDir;
pub use suite::{SuiteCounts, SuiteCountsError, SuiteReport, run_suite};
pub use wait::{eventually, eventually_blocking, eventually_some};
