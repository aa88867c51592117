#![no_main]
use hyperactor_refs::fuzzing::fuzz_actor_id;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_actor_id(data); });
