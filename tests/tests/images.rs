//! A vault of each released format opens for ever: with today's program and with the independent reader.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use lapwing_tests::{
    images::{Opens, folder, vault},
    reader,
    scenario::{Folder, Person},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Formats, and the SHA-256 of their kept parts and of their manifests.
const FORMATS: [(&str, &str, &str); 1] = [(
    "format-1",
    "368039277b139ab76e694d52ae51cf3047acbdaf429c7d716ed7566003743ebc",
    "0ea27ae1732f59b8407ca22944486ba3c0e69327cc57461336982b042583681a",
)];

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(list: &Value, key: &str) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

/// Everything that the passphrase opened when the image was made is there, and nothing else.
fn opens_as_ever(person: &Person, expected: &Opens) {
    let listed = person.runs(&["--offline", "compartment", "list"]).done().one("compartments");
    assert_eq!(texts(&listed["compartments"], "name"), expected.compartments.iter().cloned().collect());
    let listed = person.runs(&["--offline", "chat", "list"]).done().one("chats");
    let names = expected.chats.iter().map(|chat| chat.name.clone()).collect();
    assert_eq!(texts(&listed["chats"], "name"), names);
    for chat in &expected.chats {
        let read = person.runs(&["--offline", "read", &chat.name, "--last", "1000"]).done().of("message");
        let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
        let read: Vec<_> = read.iter().map(|one| (text(one, "from"), text(one, "text"))).collect();
        assert_eq!(read, chat.messages, "{} in {}", chat.name, chat.compartment);
    }
}

#[test]
fn images_of_released_formats_are_frozen() {
    for (format, parts, manifest) in FORMATS {
        let read = |name: &str| std::fs::read(folder(format).join(name)).unwrap();
        let found = (hash(&read("kept.bin")), hash(&read("manifest.json")));
        assert_eq!(found, (parts.to_owned(), manifest.to_owned()), "{format} was changed");
    }
}

#[test]
fn a_vault_of_every_released_format_opens_with_every_passphrase_it_had() {
    for (format, ..) in FORMATS {
        let place = Folder::new();
        let (manifest, bytes) = vault(format);
        let person =
            |opens: &Opens| Person { vault: place.join("vault"), passphrase: opens.passphrase.clone() };
        place.put("vault", &bytes);
        let (last, first) = manifest.opens.split_last().unwrap();
        assert!(last.destroys && first.len() == 2 && !first.iter().any(|opens| opens.destroys));
        for opens in first {
            opens_as_ever(&person(opens), opens);
        }
        opens_as_ever(&person(last), last);
        for opens in first {
            assert_eq!(person(opens).runs(&["--offline", "chat", "list"]).failed(3), "not_unlocked");
        }
    }
}

#[test]
fn the_independent_reader_opens_every_released_format() {
    if reader::left_out() {
        return;
    }
    for (format, ..) in FORMATS {
        let place = Folder::new();
        let (manifest, bytes) = vault(format);
        let path = place.put("vault", &bytes);
        for expected in &manifest.opens {
            let opened = reader::read(&path, &expected.passphrase).unwrap();
            assert_eq!(
                texts(&opened["compartments"], "name"),
                expected.compartments.iter().cloned().collect()
            );
            for chat in &expected.chats {
                let found = reader::texts(&opened, &chat.compartment, &chat.name);
                // As the program shows what a terminal would obey.
                let shown = |text: String| text.replace('\u{1b}', "\\u{1b}").replace('\u{202e}', "\\u{202e}");
                let found: Vec<String> = found.into_iter().map(|(_, text)| shown(text)).collect();
                let told: Vec<&String> = chat.messages.iter().map(|(_, text)| text).collect();
                assert_eq!(found.iter().collect::<Vec<_>>(), told, "{} in {}", chat.name, chat.compartment);
            }
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "the reader only reads");
    }
}
