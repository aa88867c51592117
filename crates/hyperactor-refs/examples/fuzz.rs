//! Runs changed inputs through every parser of the crate, on any toolchain:
//!
//! `cargo run --release -p hyperactor-refs --features fuzzing --example fuzz -- --execs 20000000`

use std::path::Path;
use std::process::ExitCode;

use hyperactor_refs::fuzzing::{Family, TARGETS, address_pieces, run_program};

fn main() -> ExitCode {
    run_program(&Family {
        name: "refs",
        folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz"),
        targets: TARGETS.to_vec(),
        seeds: Vec::new(),
        pieces: address_pieces(),
    })
}
