#![no_main]
use hyperactor_sim::fuzzing::fuzz_frames;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_frames(data); });
