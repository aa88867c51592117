#![no_main]
use hyperactor_refs::fuzzing::fuzz_incarnation;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_incarnation(data); });
