//! Makes the image of today's format: `tests/images/README.md` says when and how.
//!
//! A real relay, real people, real key derivations; then the parts of bo's vault that are in use, and a manifest with
//! what the program itself told of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a tool that cannot go on has failed, and says so"
)]

use lapwing_tests::{
    images::{Chat, Manifest, Opens, folder, kept, merged},
    reader,
    scenario::{Folder, Person, Relay, person::introduce},
};
use serde_json::Value;

const HIDE: &str = "seven quiet penguins ride north";
const DESTROY: &str = "granny bakes plum cake on sundays";
/// A seed is no secret, nor are these passphrases: nobody's vault is kept here.
const SEED: u64 = 1;

#[expect(clippy::disallowed_methods, reason = "files of the repository, nobody's secrets")]
fn main() {
    let format = std::env::args().nth(1).expect("the name of the format, such as format-1");
    let folder = folder(&format);
    assert!(!folder.exists(), "{} is there already, and frozen", folder.display());

    let place = Folder::new();
    let relay = Relay::start(&place.join("relay"));
    let (ana, bo) = (Person::at(&place, "ana", &relay), Person::at(&place, "bo", &relay));
    talk(&relay, &ana, &bo);
    plan(&bo, "border", "hide", HIDE);
    plan(&bo, "arrest", "destroy", DESTROY);

    let opens =
        [(bo.passphrase.as_str(), false), (HIDE, false), (DESTROY, true)].map(|(passphrase, destroys)| {
            // On a copy, each: what destroys must not be in the image.
            let copy = place.put("copy", &bo.bytes());
            let opens = told(&Person { vault: copy.clone(), passphrase: passphrase.to_owned() }, destroys);
            std::fs::remove_file(copy).unwrap();
            opens
        });
    let bytes = bo.bytes();
    let ranges = merged(reader::ranges(&bo.vault, &bo.passphrase));
    let kept = kept(&bytes, &ranges);
    eprintln!("{} bytes in {} parts", kept.len(), ranges.len());
    let manifest = Manifest { size: bytes.len(), seed: SEED, ranges, opens: opens.into() };
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("kept.bin"), kept).unwrap();
    std::fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// A compartment that stays hidden and one that is shown, a chat in each, a group.
fn talk(relay: &Relay, ana: &Person, bo: &Person) {
    let _ = bo.runs(&["compartment", "create", "family"]).done();
    let _ = bo.pipes(relay.access.as_bytes(), &["relay", "add", "-", "--compartment", "family"]).done();
    introduce(ana, "ana", bo, "bo");
    let ticket = ana.runs(&["invite", "cousin"]).done().text("ticket", "ticket");
    let _ = bo.pipes(ticket.as_bytes(), &["join", "-", "--name", "aunt", "--compartment", "family"]).done();
    let _ = ana.runs(&["sync"]).done();
    let _ = ana.runs(&["sync"]).done();

    // Longer than a page, other scripts, something that looks like a command of a terminal.
    let long = "Treffpunkt an der Furt, встреча у брода, 在渡口见面. ".repeat(120);
    for (from, chat, text) in [
        (ana, "bo", "the meeting is at the old mill at nine"),
        (ana, "bo", long.as_str()),
        (ana, "bo", "\u{1b}[31mred\u{202e} and \u{1f426}"),
        (ana, "cousin", "the cherries are ripe"),
    ] {
        let _ = from.pipes(text.as_bytes(), &["send", chat, "-"]).done();
    }
    let _ = bo.runs(&["sync"]).done();
    let _ = bo.pipes("i bring the maps".as_bytes(), &["send", "ana", "-"]).done();
    let _ = bo.pipes("then we make jam".as_bytes(), &["send", "aunt", "-"]).done();
    let _ = ana.runs(&["group", "create", "the mill", "--as", "ana"]).done();
    let _ = ana.runs(&["group", "invite", "the mill", "bo"]).done();
    let _ = bo.runs(&["sync"]).done();
    let _ = bo.runs(&["group", "approve", "the mill", "--as", "bo"]).done();
    let _ = ana.runs(&["sync"]).done();
    let _ = ana.pipes("bring torches".as_bytes(), &["send", "the mill", "-"]).done();
    let _ = bo.runs(&["sync"]).done();
    let _ = bo.pipes("and rope".as_bytes(), &["send", "the mill", "-"]).done();
    let _ = bo.runs(&["trust", "add", "ana"]).done();
    let _ = ana.runs(&["trust", "accept", "bo"]).done();
    let _ = bo.runs(&["sync"]).done();
}

fn plan(bo: &Person, name: &str, action: &str, passphrase: &str) {
    let show = ["sos", "add", "--name", name, "--show", "family", "--do", action, "--alert", "ana"];
    let tell =
        ["--text", "bo was forced to unlock", "--place", "the bridge", "--instructions", "call the lawyer"];
    let words: Vec<&str> = show.into_iter().chain(tell).chain(["--yes"]).collect();
    let _ = bo.sets(passphrase, &words).done();
}

/// What a passphrase opens, as the program tells it.
fn told(person: &Person, destroys: bool) -> Opens {
    let listed = person.runs(&["compartment", "list"]).done().one("compartments");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut compartments: Vec<String> =
        listed["compartments"].as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
    compartments.sort();
    let mut chats = Vec::new();
    for compartment in &compartments {
        let listed = person.runs(&["chat", "list", "--compartment", compartment]).done().one("chats");
        for chat in listed["chats"].as_array().unwrap() {
            let name = text(&chat["name"]);
            let words = ["read", &name, "--last", "1000", "--compartment", compartment];
            let messages = person.runs(&words).done().of("message");
            let messages = messages.iter().map(|one| (text(&one["from"]), text(&one["text"]))).collect();
            chats.push(Chat { compartment: compartment.clone(), name, messages });
        }
    }
    Opens { passphrase: person.passphrase.clone(), destroys, compartments, chats }
}
