#![no_main]
use hyperactor_refs::fuzzing::fuzz_proc_id;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_proc_id(data); });
