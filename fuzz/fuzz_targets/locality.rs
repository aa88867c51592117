#![no_main]
use hyperactor_refs::fuzzing::fuzz_locality;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_locality(data); });
