//! Runs changed bytes through everything that reads the wire: frames, hellos, control frames, envelopes.
//!
//! `cargo run --release -p hyperactor-sim --example fuzz_frames -- --execs 20000000`

use std::path::Path;
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use hyperactor_mailbox::{MessageEnvelope, Payload};
use hyperactor_refs::fuzzing::{Family, Seen, run_program};
use hyperactor_sim::fuzzing::{fuzz_control, fuzz_frames, fuzz_hello, wire_seeds};

/// Fields that mean something: kinds with their lengths, numbers at edges, the beginning of a hello.
const PIECES: &[&[u8]] = &[
    b"\x89HYP\r\n\x1a\n",
    &[1, 0, 1, 0],
    &[2, 0, 9, 0],
    &[0; 8],
    &[0xff; 8],
    &[0xff; 4],
    &[0, 0, 0, 0, 0, 0, 0, 0x40],
    &[20, 0, 0, 0, 1, 0, 0, 0],
    &[25, 0, 0, 0, 1, 2, 0, 0],
    &[21, 0, 0, 0, 1, 4, 0, 0],
    &[21, 0, 0, 0, 1, 8, 0, 0],
    &[20, 0, 0, 0, 1, 0x80, 0, 0],
    &[20, 0, 0, 0, 2, 0, 0, 0],
    &[20, 0, 0, 0, 3, 0, 0, 0],
    &[28, 0, 0, 0, 4, 0, 0, 0],
    &[12, 0, 0, 0, 5, 0, 0, 0],
    &[12, 0, 0, 0, 6, 0, 0, 0],
    &[16, 0, 0, 0, 8, 0, 0, 0],
    &[9, 0, 0, 0, 9, 0, 0, 0],
    &[24, 0, 0, 0, 10, 0, 0, 0],
    &[1, 9],
    &[8, 0],
    &[0xff, 0xff],
];

fn main() -> ExitCode {
    let mut seeds = wire_seeds();
    seeds.push(envelope());
    run_program(&Family {
        name: "frames",
        folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz"),
        targets: vec![
            ("frames", |data| Seen(fuzz_frames(data))),
            ("hello", |data| Seen(fuzz_hello(data))),
            ("control", |data| Seen(fuzz_control(data))),
            ("envelope", |data| Seen(fuzz_envelope(data))),
        ],
        seeds,
        pieces: PIECES.to_vec(),
    })
}

/// Any bytes as an envelope: one that is read is written as it was, and its payload is a slice of the input.
fn fuzz_envelope(data: &[u8]) -> u64 {
    let bytes = Bytes::copy_from_slice(data);
    let within = bytes.as_ptr_range();
    let envelope = match MessageEnvelope::decode(bytes) {
        Ok(envelope) => envelope,
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 1024, "the input shows through in {text}");
            return 2 << 32 | text.len() as u64;
        }
    };
    let mut written = BytesMut::new();
    assert!(
        envelope.encode(&mut written).is_ok(),
        "read, and not written"
    );
    let again = MessageEnvelope::decode(written.freeze());
    let again = again.expect("what was written is read");
    assert_eq!(
        (again.sender(), again.dest(), again.ttl(), again.headers()),
        (
            envelope.sender(),
            envelope.dest(),
            envelope.ttl(),
            envelope.headers()
        )
    );
    let Payload::Encoded { bytes: payload, .. } = envelope.payload() else {
        panic!("a payload was decoded without anyone asking");
    };
    assert!(
        payload.is_empty() || within.contains(&payload.as_ptr()),
        "copied"
    );
    let count = envelope.headers().len() as u64;
    // E-03, E-04: payloads of types with counts that cannot be neither take memory nor panic.
    let decoded = envelope.into_message::<Vec<Vec<String>>>().is_ok();
    1 << 32 | count << 1 | u64::from(decoded)
}

/// The envelope of the specification.
fn envelope() -> Vec<u8> {
    let hex = "01093862ebd4ecb3b45834120000000000000800040168017101640008000401680170017302010500000001007602\
               6869";
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(byte).collect()
}
