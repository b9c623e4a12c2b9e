//! See `messages::envelope`.
#![no_main]

#[path = "../src/messages.rs"]
#[expect(dead_code, reason = "one module holds the bodies of all targets")]
mod messages;

libfuzzer_sys::fuzz_target!(|data: &[u8]| messages::envelope(data));
