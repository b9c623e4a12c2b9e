//! See `targets::session_message`.
#![no_main]

#[path = "../src/targets.rs"]
#[expect(dead_code, reason = "one module holds the bodies of all targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::session_message(data));
