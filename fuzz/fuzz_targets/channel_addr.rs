#![no_main]
use hyperactor_refs::fuzzing::fuzz_channel_addr;
libfuzzer_sys::fuzz_target!(|data: &[u8]| { fuzz_channel_addr(data); });
