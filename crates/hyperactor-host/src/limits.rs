//! Every limit of this crate: how many and how long. Each is a default that is used as it stands; none is read
//! from the environment.

use std::time::Duration;

/// How many procs one host has at most, counting those that are starting.
pub const PROCS_MAX: usize = 1_024;

/// How long the servers of a host may take to say goodbye when it stops.
pub const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes of a process's last lines are kept.
pub const LOG_BYTES: usize = 64 * 1024;

/// How many bytes a kept line counts beside its text, so that empty lines are bounded, too.
pub const LOG_LINE_OVERHEAD: usize = 32;

/// How many restarts of one proc there may be within [`RESTART_WINDOW`], unless its policy says otherwise.
pub const RESTARTS_MAX: u32 = 5;

/// How far back restarts count, unless the policy says otherwise.
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// The longest pause before a first restart, unless the policy says otherwise.
pub const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest pause before any restart, unless the policy says otherwise.
pub const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How many events a receiver of [`Host::events`](crate::Host::events) may be behind before it misses the oldest.
pub const EVENTS_MAX: usize = 1_024;

/// How long a drain that another process asks for may last at most.
pub const END_DEADLINE_MAX: Duration = Duration::from_secs(3_600);

/// How many names of procs a refusal lists.
pub const NAMES_IN_REFUSAL_MAX: usize = 8;

/// How many procs that have ended are remembered, so that who sends to them is told how they ended.
pub const DEPARTED_MAX: usize = 1_024;

/// How many addresses one host has, counting those that a wildcard stands for.
pub const ADDRS_MAX: usize = 64;

/// How many frontends a host serves at most.
pub const FRONTENDS_MAX: usize = 16;

/// How many guests a host has at most.
pub const GUESTS_MAX: usize = 1_024;

/// How many hosts stand directly behind one at most.
pub const ATTACHED_MAX: usize = 64;

/// How many addresses a host behind another claims at most, counting those of the hosts behind itself.
pub const CLAIM_ADDRS_MAX: usize = 256;

/// How many hosts stand in a row behind each other at most.
pub const FLOORS_MAX: usize = 16;

/// How long a host may take to say who it is.
pub const DOOR_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a guest, or a host behind this one, may be without a connection before it is given up. Longer than it takes to
/// notice that a connection is dead, so that a short fault of the network costs nobody a place.
pub const VISITOR_ABSENT_MAX: Duration = Duration::from_secs(15);

/// How long a host that starts tries to get behind another.
pub const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a host tells the one before it which addresses it has: the longest time for which one of the two may be
/// mistaken about the other.
pub const ATTACH_REFRESH: Duration = Duration::from_secs(2);

/// The first pause before a host tries again to get behind another.
pub const ATTACH_BACKOFF_MIN: Duration = Duration::from_millis(10);

/// The longest such pause.
pub const ATTACH_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How many messages wait at the frontends of a host that is not ready yet. More come back.
pub const HELD_MAX: usize = 4_096;
