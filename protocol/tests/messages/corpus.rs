//! Replays the checked-in corpus through the fuzz targets.

use std::{collections::BTreeMap, fs, path::Path};

use proptest::test_runner::{Config as ProptestConfig, TestRunner};

#[path = "../../fuzz/src/messages.rs"]
mod messages;

/// One fuzz target: the name of its folder, and what it does with an input.
struct Target(&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    Target("envelope", messages::envelope),
    Target("ticket", messages::ticket),
    Target("content", messages::content),
    Target("alert", messages::alert),
    Target("group_chain", messages::group_chain),
    Target("group_log", messages::group_log),
];

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    });
    files.collect()
}

#[test]
fn the_corpus_is_replayed() {
    for Target(target, run) in TARGETS {
        let inputs = corpus(target);
        assert!(inputs.len() >= 3, "the corpus of {target} has only {} inputs", inputs.len());
        for (_, input) in inputs {
            run(&input);
        }
    }
}

/// Every input of the corpus with one byte changed, thousands of times: the deep ends of the decoders.
#[test]
fn changed_inputs_of_the_corpus_do_no_harm() {
    use proptest::prelude::{Just, any};
    use proptest::strategy::Strategy as _;

    for Target(target, run) in TARGETS {
        let inputs: Vec<Vec<u8>> =
            corpus(target).into_iter().map(|(_, input)| input).filter(|input| !input.is_empty()).collect();
        let changed = proptest::sample::select(inputs).prop_flat_map(|input| {
            let at = 0..input.len();
            (Just(input), at, any::<u8>())
        });
        let config = ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() };
        let outcome = TestRunner::new(config).run(&changed, |(mut input, at, byte)| {
            input[at] = byte;
            run(&input);
            Ok(())
        });
        outcome.unwrap();
    }
}

/// The corpus means something only while its good inputs are good: they are the frozen vectors.
#[test]
fn the_corpus_holds_the_frozen_vectors() {
    let frozen: BTreeMap<String, String> =
        serde_json::from_str(include_str!("../vectors/messages.json")).unwrap();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    for (target, file, vector) in [
        ("envelope", "good", "envelope"),
        ("ticket", "good", "ticket"),
        ("ticket", "route", "route"),
        ("content", "group_welcome", "content group_welcome"),
        ("content", "hello", "content hello"),
        ("content", "file", "content file"),
        ("content", "voices", "content voices"),
        ("alert", "sealed", "alert"),
        ("group_chain", "commit_add", "commit add"),
        ("group_chain", "group_state", "group state"),
        ("group_chain", "fork_proof", "fork proof"),
        ("group_log", "entry_message", "entry message"),
        ("group_log", "group_content", "group content"),
    ] {
        let (_, input) = corpus(target).into_iter().find(|(name, _)| name == file).unwrap();
        assert_eq!(hex(&input), frozen[vector], "{target}/{file}");
    }
}
