#![no_main]
use hyperactor_refs::fuzzing::fuzz_names;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_names(data); });
