//! Every limit of this crate, by name.

/// Bytes of the reason and route of an undeliverable that travel back over a channel; beyond, the route is cut, then
/// the reason's details.
pub const REPORT_BYTES: usize = 1_000;

/// Hops of an undeliverable's route that travel back over a channel.
pub const REPORT_HOPS: usize = 16;

/// Addresses a dialling router keeps clients for. Beyond, those of idle clients are given up first.
pub const ADDRESSES: usize = 4_096;

/// Procs whose embedded address a dialling router remembers. Beyond, it forgets all of them and looks them up anew.
pub const LEARNED_PROCS: usize = 65_536;
