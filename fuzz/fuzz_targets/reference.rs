#![no_main]
use hyperactor_refs::fuzzing::fuzz_reference;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_reference(data); });
