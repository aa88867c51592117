//! What a session promises, one behaviour a test.

#[path = "../common/mod.rs"]
mod common;

mod acks;
mod assumed;
mod credit;
mod cuts;
mod ending;
mod labels;
mod landing;
mod log;
mod names;
mod parts;
mod progress;
mod resume;
mod room;
mod runs;
mod silence;
