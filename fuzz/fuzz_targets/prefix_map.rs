#![no_main]
use hyperactor_refs::fuzzing::fuzz_prefix_map;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_prefix_map(data); });
