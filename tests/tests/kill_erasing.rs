//! A command that erases, killed at whatever call that changes a file: before, or finished by the next command.

use std::path::Path;

use lapwing_tests::trace::{
    scene::{CHATS, Killed, REAL, Scene},
    sweep::put,
};
use serde_json::Value;

const READ: &[&str] = &["--json", "--offline", "read", "ana", "--last", "50"];

fn cheap() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"))
}

/// Numbers of the messages that `ana`'s chat shows.
fn numbers(scene: &Scene) -> Vec<String> {
    let told =
        scene.subject.does(&["--json", "--offline", "read", "ana", "--last", "50", "--numbers"], "").told();
    let number = |line: &str| {
        let record: Value = serde_json::from_str(line).ok()?;
        Some(record["order"].as_u64()?.to_string())
    };
    told.lines().filter_map(number).collect()
}

#[test]
fn what_is_erased_cleared_or_deleted_is_whole_or_gone() {
    let texts = ["under the bridge", "at the ford", "behind the mill", "by the old kiln"];
    let (scene, _relay, ana) = Scene::with_messages(cheap(), &texts);
    scene.subject.does(&["--offline", "draft", "ana", "-"], "perhaps tomorrow");
    let before = scene.image().unwrap();
    let probes: &[(&str, &[&str])] = &[(REAL, READ), (REAL, CHATS)];

    let numbers = numbers(&scene);
    assert_eq!(numbers.len(), texts.len());
    let erase = ["--offline", "chat", "erase", "ana", &numbers[1], &numbers[2]];
    let swept = scene.killed(&Killed::new(&erase, probes));
    let (was, is) = (&swept.states.0[0].1, &swept.states.1[0].1);
    assert!(was.contains(texts[1]) && !is.contains(texts[1]) && is.contains(texts[3]), "{is}");

    put(&scene.subject.vault, &before);
    let swept = scene.killed(&Killed::new(&["--offline", "chat", "clear", "ana", "--yes"], probes));
    assert!(!texts.iter().any(|text| swept.states.1[0].1.contains(text)));

    put(&scene.subject.vault, &before);
    let swept = scene.killed(&Killed::new(&["--offline", "chat", "delete", "ana", "--yes"], probes));
    assert_ne!(swept.states.1[0].0, Some(0), "there is no such chat any more");

    // What was killed most often still sends what it has, and what was erased does not leave.
    put(&scene.subject.vault, &before);
    scene.subject.does(&erase, "");
    scene.subject.does(&["sync"], "");
    let got = ana.subject.does(&["--json", "read", "bo"], "").told();
    assert!(got.contains(texts[0]) && got.contains(texts[3]), "{got}");
    assert!(!got.contains(texts[1]) && !got.contains(texts[2]), "{got}");
}

/// Much is deleted by one command, so that most of its calls are those of the scrubbing at lock.
#[test]
fn a_scrubbing_that_was_cut_off_loses_nothing_and_is_finished_by_the_next_command() {
    let long = "the plums are ripe again ".repeat(600);
    let keep = "and this one stays";
    let (scene, _relay, _ana) = Scene::with_messages(cheap(), &[&long, &long, &long, &long, &long, keep]);
    let numbers = numbers(&scene);
    let mut erase = vec!["--offline", "chat", "erase", "ana"];
    erase.extend(numbers[..5].iter().map(String::as_str));
    let swept = scene.killed(&Killed::new(&erase, &[(REAL, READ), (REAL, CHATS)]));
    assert!(swept.changes > 60, "{}", swept.changes);
    assert!(swept.ended.1 > 0, "most of it comes after the messages are gone");
    assert!(swept.states.1[0].1.contains(keep) && !swept.states.1[0].1.contains("plums"));
}
