#![no_main]
use hyperactor_refs::fuzzing::fuzz_bind_spec;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_bind_spec(data); });
