//! See `targets::anchor`.
#![no_main]

#[path = "../src/targets.rs"]
#[expect(dead_code, reason = "one module holds the bodies of all targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::anchor(data));
