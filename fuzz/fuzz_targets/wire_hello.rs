#![no_main]
use hyperactor_sim::fuzzing::fuzz_hello;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_hello(data); });
