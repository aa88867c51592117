//! What procs and actors promise, in a proc and across two, on real runtimes.

// The panic of a test is its report.
#![allow(clippy::unwrap_used)]

mod asks;
mod blocking;
mod common;
mod deadlocks;
mod derives;
mod lifecycle;
mod logs;
mod mailboxes;
mod messages;
mod methods;
mod names;
mod remote;
mod resting;
mod scheduled;
mod schema;
mod seeing;
mod stopping;
mod streams;
mod supervision;
mod supervisors;
mod testing;
mod two_procs;
mod watching;
