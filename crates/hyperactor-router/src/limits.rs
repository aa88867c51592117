//! Every limit of this crate, by name.

use std::time::Duration;

/// Bytes of the reason and route of an undeliverable that travel back over a channel; beyond, the route is cut, then
/// the reason's details.
pub const REPORT_BYTES: usize = 1_000;

/// Hops of an undeliverable's route that travel back over a channel.
pub const REPORT_HOPS: usize = 16;

/// Addresses a dialling router keeps clients for. Beyond, those of idle clients are given up first.
pub const ADDRESSES: usize = 4_096;

/// Procs whose embedded address a dialling router remembers. Beyond, it forgets all of them and looks them up anew.
pub const LEARNED_PROCS: usize = 65_536;

/// How long an address whose peer speaks no common version is not dialled again, from the first post that finds it so. What is
/// posted meanwhile comes back at once.
pub const REFUSED_HOLD: Duration = Duration::from_secs(30);

/// Destinations whose way a router remembers from one envelope to the next.
pub const RECENT_DESTINATIONS: usize = 64;

/// Pairs of actors whose envelopes one session passes on undecoded at a time.
pub const PASSAGES: usize = 64;

/// Envelopes of a session that are decoded without asking whether they could pass, after that was asked in vain, or what was found
/// took the place of another pair's.
pub const PASSAGE_REST: u32 = 4;

/// Envelopes that are passed on together: the first of them waits for so many at most, and only for those that came with it.
pub const PASSED_TOGETHER: usize = 64;
