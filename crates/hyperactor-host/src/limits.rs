//! Every limit of this crate: how many and how long. Each is a default that is used as it stands; none is read
//! from the environment.

use std::time::Duration;

/// How many procs one host has at most, counting those that are starting.
pub const PROCS_MAX: usize = 1_024;

/// How long the servers of a host may take to say goodbye when it stops.
pub const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(1);
