#![no_main]
use hyperactor_refs::fuzzing::fuzz_port_id;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_port_id(data); });
