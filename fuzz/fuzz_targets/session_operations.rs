#![no_main]
use hyperactor_sim::fuzzing::fuzz_session;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_session(data); });
