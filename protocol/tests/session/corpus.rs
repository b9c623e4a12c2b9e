//! Replays the checked-in corpus through the fuzz targets.

use std::{fs, path::Path};

use proptest::test_runner::{Config as ProptestConfig, TestRunner};

#[path = "../../fuzz/src/targets.rs"]
mod targets;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 4, "the corpus of {target} has only {inputs} inputs");
}

#[test]
fn session_message_corpus() {
    replay("session_message", targets::session_message);
}

#[test]
fn bundle_corpus() {
    replay("bundle", targets::bundle);
}

#[test]
fn sender_key_corpus() {
    replay("sender_key", targets::sender_key);
}

#[test]
fn stored_state_corpus() {
    replay("stored_state", targets::stored_state);
}

#[test]
fn interaction_corpus() {
    replay("interaction", targets::interaction);
}

#[test]
fn ses_07_any_order_of_events_leaves_both_ends_able_to_talk() {
    let events = proptest::collection::vec(proptest::num::u8::ANY, 1..200);
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&events, |events| {
        targets::interaction(&events);
        Ok(())
    });
    outcome.unwrap();
}

/// The corpus means something only while its good inputs are good.
#[test]
fn the_corpus_holds_what_the_fixed_world_makes() {
    let world = targets::world();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (file, bytes) in [
        ("session_message/first", &world.first),
        ("session_message/next", &world.next),
        ("bundle/good", &world.bundle),
        ("sender_key/message", &world.group_message),
        ("sender_key/distribution", &world.distribution),
        ("stored_state/identity", &world.bob),
        ("stored_state/session", &world.bob_session),
        ("stored_state/own_key", &world.own_key),
        ("stored_state/peer_key", &world.peer_key),
    ] {
        assert!(fs::read(folder.join(file)).unwrap() == *bytes, "{file} is not what the fixed world makes");
    }
}
