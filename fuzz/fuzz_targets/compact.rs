#![no_main]
use hyperactor_refs::fuzzing::fuzz_compact;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_compact(data); });
