#![no_main]
use hyperactor_refs::fuzzing::fuzz_transport;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_transport(data); });
