//! The limits of the test tools. A test that meets one of them is wrong, and is told so by a panic.

use std::time::Duration;

/// How many values a [`Probe`](crate::Probe) holds that nobody has taken yet.
pub const PROBE_VALUES: usize = 1 << 20;

/// How often a condition is looked at by [`eventually`](crate::eventually) and its kin.
pub const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long a [`LeakGuard`](crate::LeakGuard) waits for what a test left behind to go by itself, unless
/// told otherwise.
pub const LEAK_DEADLINE: Duration = Duration::from_secs(2);

/// The most bytes that a [`ChaosProxy`](crate::ChaosProxy) holds of one direction of one connection. Over TCP it asks the
/// kernel to hold about as many before them; a Unix socket's own limit is of that size.
pub const PROXY_BUFFER_BYTES: usize = 64 * 1024;

/// The most connections that a [`ChaosProxy`](crate::ChaosProxy) carries at once; further ones wait in
/// the kernel's queue.
pub const PROXY_CONNECTIONS: usize = 1024;

/// The longest path that a Unix socket can have on Linux: 108 bytes with the closing NUL.
pub const SOCKET_PATH_BYTES: usize = 107;

/// The most bytes of the path of a [`TempSocketDir`](crate::TempSocketDir): what remains is for the
/// sockets in it.
pub const SOCKET_DIR_BYTES: usize = 40;

/// How many messages of each class a [`Verdict`](crate::Verdict) names when it is printed.
pub const VERDICT_SAMPLES: usize = 8;

/// How many failures a [`SuiteReport`](crate::SuiteReport) prints in full.
pub const FAILURES_TOLD: u64 = 20;
