//! Any bytes as payload, allocation unit, superblock and key-table unit.
//! `cargo fuzz run --sanitizer none decode`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lapwing_vault::testing::decode_everything(bytes));
