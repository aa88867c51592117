//! Channels over byte streams: sessions that survive their connections. The state of a session is
//! `hyperactor-protocol`'s; here it is given bytes, time, and people who wait.

pub(crate) mod acceptor;
pub(crate) mod admission;
mod alarm;
mod courtesy;
mod dialer;
mod ends;
mod handshake;
mod inbound;
mod labels;
pub(crate) mod link;
pub(crate) mod memory;
mod outcomes;
mod pump;
mod session;

#[cfg(test)]
mod pump_tests;
