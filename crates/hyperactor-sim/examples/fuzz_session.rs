//! Runs changed sequences of operations on two ends of a session, against a model:
//!
//! `cargo run --release -p hyperactor-sim --example fuzz_session -- --execs 300000`

use std::path::Path;
use std::process::ExitCode;

use hyperactor_refs::fuzzing::{Family, Seen, run_program};
use hyperactor_sim::fuzzing::{fuzz_session, session_seeds};

/// Operations in a row that lead somewhere: dial and shake hands, a round of frames, a break, a long wait.
const PIECES: &[&[u8]] = &[
    &[4, 5, 6],
    &[0xf5, 0xf6],
    &[13, 4, 5, 6],
    &[29, 4, 5, 6, 0xf5],
    &[15, 4, 5, 6],
    &[79, 4, 5, 6],
    &[0xfe],
    &[1, 255, 0, 255],
    &[10, 64, 11, 64, 12],
];

fn main() -> ExitCode {
    run_program(&Family {
        name: "session",
        folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz"),
        targets: vec![("session", |data| Seen(fuzz_session(data)))],
        seeds: session_seeds(),
        pieces: PIECES.to_vec(),
    })
}
