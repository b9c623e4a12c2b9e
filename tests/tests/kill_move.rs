//! A chat that is moved to another compartment, by the real program, killed for real at whatever call that changes the file:
//! it is in one place afterwards, the next command finishes what was begun, and nothing that was said is lost.

use std::path::Path;

use lapwing_tests::{
    scenario::{Folder, Relay},
    trace::{
        Places, Subject, Sweep,
        sweep::{Leaves, Swept, probe},
    },
};

const PASSPHRASE: &str = "heron orbit velvet candle of bo";

/// Opens the source alone.
const SOURCE_ALONE: &str = "otter pebble lantern quilt";

/// Places of the command in a run of all tests; `LAPWING_EVERY_CALL=1` tries all.
const PLACES: usize = 8;

struct Vault {
    subject: Subject,
    _folder: Folder,
}

impl Vault {
    fn with(relay: &Relay) -> Self {
        let folder = Folder::new();
        let program = Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"));
        let vault =
            Self { subject: Subject::new(program, &folder.join("vault"), PASSPHRASE), _folder: folder };
        vault.subject.does(&["init", "--size", "8MiB"], "");
        vault.subject.does(&["relay", "add", &relay.access], "");
        vault
    }

    fn says(&self, words: &[&str]) -> String {
        self.subject.does(words, "").told()
    }
}

/// Compartment and state of each chat.
fn chats(lines: &str) -> Vec<(String, String)> {
    let records = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let all = records.filter(|record| record["type"] == "chats");
    all.flat_map(|record| record["chats"].as_array().cloned().unwrap_or_default())
        .map(|chat| {
            let text = |field: &str| chat[field].as_str().unwrap_or_default().to_owned();
            (text("compartment"), text("name"))
        })
        .collect()
}

#[test]
fn a_chat_that_is_moved_is_in_one_place_wherever_it_is_killed() {
    let folder = Folder::new();
    let relay = Relay::start(&folder.join("relay"));
    let (vault, ana) = (Vault::with(&relay), Vault::with(&relay));
    for compartment in ["home", "work"] {
        vault.says(&["compartment", "create", compartment]);
        vault.says(&["relay", "add", &relay.access, "--compartment", compartment]);
    }
    let made = vault.says(&["--json", "invite", "ana", "--compartment", "home"]);
    let ticket = made.lines().find_map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(record["ticket"].as_str()?.to_owned())
    });
    ana.says(&["join", &ticket.expect("a ticket"), "--name", "bo"]);
    for _ in 0..2 {
        vault.says(&["sync"]);
        ana.says(&["sync"]);
    }
    let add = ["passphrase", "add", "--name", "part", "--show", "home", "--new-passphrase-fd", "0"];
    vault.subject.does(&add, &format!("{SOURCE_ALONE}\n"));
    vault.says(&["send", "ana", "from the first"]);
    ana.says(&["send", "bo", "to the first"]);
    vault.says(&["--offline", "send", "ana", "this one waits"]);
    vault.says(&["--offline", "draft", "ana", "not finished"]);
    let list: &[&str] = &["--json", "--offline", "chat", "list"];
    let read: &[&str] = &["--json", "--offline", "read", "ana", "--last", "20"];
    let before = std::fs::read(&vault.subject.vault).expect("a vault");
    let sweep = Sweep {
        subject: &vault.subject,
        before: Some(before),
        words: &["--offline", "chat", "move", "ana", "work"],
        more: "",
        // Who opens the source first finds one place or the other, and nobody after him finds anything else.
        probes: &[(SOURCE_ALONE, list), (PASSPHRASE, list), (PASSPHRASE, read)],
        beside: None,
        power: true,
        leaves: Leaves::Nothing,
        tells_when_done: true,
        again: false,
        places: Places::asked(PLACES),
        seed: 8,
    };
    let Swept { changes, killed, cuts, states, ended } = sweep.sweep();
    println!(
        "{changes} changing calls; killed at {killed}: {} before, {} after; {cuts} power cuts",
        ended.0, ended.1
    );
    assert!(ended.0 > 0 && ended.1 > 0 && killed > 3, "{ended:?}");
    let place = |compartment: &str| vec![(compartment.to_owned(), "ana".to_owned())];
    assert_eq!((chats(&states.0[0].1), chats(&states.0[1].1)), (place("home"), place("home")));
    assert_eq!((chats(&states.1[0].1), chats(&states.1[1].1)), (vec![], place("work")));
    // What ana sent lies at the relay. Who opens the source alone takes it only where the chat is.
    let _ = probe(&vault.subject.typing(SOURCE_ALONE), &["sync"], "");
    // What was killed most often goes on, both ways.
    assert_eq!(
        probe(&vault.subject, &["chat", "move", "ana", "work"], "").0.map(|code| code != 70),
        Some(true)
    );
    vault.says(&["sync"]);
    ana.says(&["send", "bo", "to the second"]);
    vault.says(&["sync"]);
    vault.says(&["send", "ana", "from the second"]);
    let heard = ana.says(&["--json", "read", "bo", "--last", "20"]);
    for text in ["from the first", "this one waits", "from the second"] {
        assert!(heard.contains(text), "{text}: {heard}");
    }
    let heard = vault.says(&["--json", "read", "ana", "--last", "20"]);
    for text in ["to the first", "to the second", "this one waits"] {
        assert_eq!(heard.matches(text).count(), 1, "{text}: {heard}");
    }
}
