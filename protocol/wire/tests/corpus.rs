//! Replays the fuzz corpus.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "the targets are shared with the fuzzers")]

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::path::PathBuf;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        target(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 3, "the corpus of {name} is missing");
}

#[test]
fn frame_corpus() {
    replay("frame", targets::frame);
}

#[test]
fn text_corpus() {
    replay("text", targets::text);
}

#[test]
fn tripwire_corpus() {
    replay("tripwire", targets::tripwire);
}

#[test]
fn anchor_corpus() {
    replay("anchor", targets::anchor);
}
