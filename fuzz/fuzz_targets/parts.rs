#![no_main]
use hyperactor_refs::fuzzing::fuzz_parts;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_parts(data); });
