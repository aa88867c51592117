#![no_main]
use hyperactor_sim::fuzzing::fuzz_control;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_control(data); });
