//! What a session promises, one behaviour a test.

#[path = "../common/mod.rs"]
mod common;

mod acks;
mod credit;
mod ending;
mod log;
mod resume;
mod silence;
