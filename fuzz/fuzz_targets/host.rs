#![no_main]
use hyperactor_refs::fuzzing::fuzz_host;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_host(data); });
