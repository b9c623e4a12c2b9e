//! A reader that shares no code with the program opens what the program made (`docs/vault-format.md`,
//! `docs/records-format.md`).

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::Path;

use lapwing_tests::{
    reader,
    scenario::{Pair, person::Person},
};
use serde_json::Value;

/// Who wrote what, as the program itself tells it.
fn told(person: &Person, chat: &str) -> Vec<(String, String)> {
    let messages = person.runs(&["read", chat, "--last", "1000"]).done().of("message");
    let text = |message: &Value, key: &str| message[key].as_str().unwrap_or_default().to_owned();
    let writer = |message: &Value| match text(message, "from").as_str() {
        "me" => "me".to_owned(),
        "lapwing" => "program".to_owned(),
        _ => "peer".to_owned(),
    };
    messages.iter().map(|message| (writer(message), text(message, "text"))).collect()
}

/// Without Python the comparison fails, unless somebody says that it is to be left out; then it says so.
#[test]
fn the_comparison_is_left_out_only_when_that_is_said_and_says_so() {
    let with = |said: &str| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_reader_written_from_the_documents_opens_a_vault_of_the_program",
                "--nocapture",
            ])
            .env(reader::LEAVE_OUT, said)
            .env("PATH", "")
            .env_remove("LAPWING_BIN")
            .env_remove("LAPWING_RELAY_BIN")
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).contains("LEFT OUT"))
    };
    assert_eq!((with("1"), with("0")), ((true, true), (false, false)));
}

#[test]
fn a_reader_written_from_the_documents_opens_a_vault_of_the_program() {
    if reader::left_out() {
        return;
    }
    let Pair { relay, ana, bo, folder: _folder } = Pair::meet();
    // Longer than a page of the database, and other scripts than Latin.
    let long = "Treffpunkt an der Furt, встреча у брода, 在渡口见面. ".repeat(150);
    let _ = ana.pipes(long.as_bytes(), &["send", "bo", "-"]).done();
    let _ = bo.pipes("understood \u{1f426}".as_bytes(), &["send", "ana", "-"]).done();
    let _ = bo.runs(&["compartment", "create", "work"]).done();
    let _ = bo.pipes(relay.access.as_bytes(), &["relay", "add", "-", "--compartment", "work"]).done();
    let ticket = ana.runs(&["invite", "bo at work"]).done().text("ticket", "ticket");
    let _ =
        bo.pipes(ticket.as_bytes(), &["join", "-", "--name", "ana (work)", "--compartment", "work"]).done();
    let _ = ana.runs(&["sync"]).done();
    let _ = ana.pipes(b"the ledger is with granny", &["send", "bo at work", "-"]).done();

    // Asked first: a command fetches what has come in the meantime.
    let chats = [
        (&bo, "main", "ana"),
        (&bo, "work", "ana (work)"),
        (&ana, "main", "bo"),
        (&ana, "main", "bo at work"),
    ];
    let expected = chats.map(|(person, _, chat)| told(person, chat));
    let bos = reader::read(&bo.vault, &bo.passphrase).unwrap();
    let anas = reader::read(&ana.vault, &ana.passphrase).unwrap();
    for ((person, compartment, chat), expected) in chats.into_iter().zip(expected) {
        let opened = if person.vault == bo.vault { &bos } else { &anas };
        assert!(!expected.is_empty(), "{chat}");
        assert_eq!(reader::texts(opened, compartment, chat), expected, "{chat}");
    }
    assert!(reader::texts(&bos, "main", "ana").contains(&("peer".to_owned(), long)), "{bos}");
    let before = bo.bytes();
    assert_eq!(reader::read(&bo.vault, "heron orbit velvet candle of anA"), None);
    assert!(bo.bytes() == before, "the reader only reads");
}

/// Number, name and fields of each kind of record, from the source.
fn records() -> Vec<(String, String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/src/store/rows");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for record in source.split("\nrow!(").skip(1) {
            let mut words = record.split(',').map(str::trim);
            let (number, name) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
            let begin = source.find(&format!("pub struct {name} {{")).unwrap();
            // A record without fields ends where it begins.
            let line = source[begin..].lines().next().unwrap();
            let length = if line.ends_with('}') { line.len() } else { source[begin..].find("\n}").unwrap() };
            let body = &source[begin..begin + length];
            let field = |line: &str| {
                let (name, _) = line.trim().strip_prefix("pub ")?.split_once(':')?;
                Some(name.to_owned())
            };
            found.push((number, name, body.lines().skip(1).filter_map(field).collect()));
        }
    }
    found
}

#[test]
fn the_document_names_every_record_and_every_field_of_it() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/records-format.md");
    let document = std::fs::read_to_string(document).unwrap();
    let records = records();
    assert!(records.len() >= 20, "{records:?}");
    for (number, name, fields) in records {
        let begin = format!("| `{number}` | `{name}` |");
        let row = document.lines().find(|line| line.starts_with(&begin));
        let row = row.unwrap_or_else(|| panic!("docs/records-format.md has no row that begins with {begin}"));
        for field in fields {
            assert!(
                row.contains(&format!("`{field}`")),
                "docs/records-format.md: {name} has a field {field}"
            );
        }
    }
}
