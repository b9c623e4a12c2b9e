//! What an operator does to a relay, seen by the people who use it: it begins, changes its key, comes back from a backup,
//! runs full.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails where there is none; the relay's own files are changed on purpose"
)]

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use lapwing_tests::scenario::{Folder, Pair, Person, Relay, relay::free_port, wait::timed};

/// As the operator's page promises.
const THREE_MINUTES: Duration = Duration::from_secs(180);

/// The commands of the page's first section, as they are written there.
fn three_commands() -> Vec<String> {
    let page = include_str!("../../docs/relay-operation.md");
    let (_, section) = page.split_once("\n## Three minutes\n").expect("the section");
    let (_, block) = section.split_once("```sh\n").expect("the commands");
    let (block, _) = block.split_once("```").expect("their end");
    block.lines().map(str::to_owned).collect()
}

#[test]
fn three_commands_and_three_minutes_lead_from_nothing_to_an_invitation() {
    let commands = three_commands();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let folder = Folder::new();
    let port = free_port().to_string();
    let (took, (ana, relay, heard)) = timed(|| {
        let mut relay = Relay::nowhere(&folder.join("relay"));
        let mut access = String::new();
        for command in &commands {
            let mut words: Vec<&str> = command.split_whitespace().collect();
            assert_eq!(words.remove(0), "lapwing-relay", "{command}");
            // The page's name and port are its reader's own.
            for word in &mut words {
                match *word {
                    "relay.example.org" => *word = "localhost",
                    "443" => *word = &port,
                    _ => {}
                }
            }
            if words == ["serve"] {
                relay.serve();
            } else {
                let done = relay.runs(&words).done();
                access = done.records()[0]["access_ticket"].as_str().expect("a ticket").to_owned();
            }
        }
        let ana = Person::named(&folder, "ana");
        let _ = ana.init().done();
        let _ = ana.runs(&["relay", "add", &access]).done();
        let ticket = ana.runs(&["invite", "bo"]).done().text("ticket", "ticket");
        // It works: somebody takes it, and is heard.
        let bo = Person::named(&folder, "bo");
        let _ = bo.init().done();
        let _ = bo.runs(&["relay", "add", &access]).done();
        let _ = bo.runs(&["join", "--name", "ana", &ticket]).done();
        let _ = bo.runs(&["send", "ana", "here"]).done();
        let heard = ana.runs(&["read", "bo"]).done().messages_from("bo");
        (ana, relay, heard)
    });
    println!("from nothing to an invitation that was taken: {took:?}");
    assert_eq!(heard, ["here"]);
    assert!(took < THREE_MINUTES, "{took:?}");
    // The first was reached by a name; this one is, where there is IPv6, by such an address.
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        let mut six = Relay::nowhere(&folder.join("six"));
        let port = free_port().to_string();
        let made = six.runs(&["init", "--host", "::1", "--port", &port, "--listen", "::1"]).done();
        let access = made.records()[0]["access_ticket"].as_str().expect("a ticket").to_owned();
        assert!(access.starts_with("lapwing-access:"), "{access}");
        six.serve();
        let _ = ana.runs(&["relay", "add", &access]).done();
        assert_eq!(
            ana.runs(&["relay", "list"]).done().one("relays")["relays"].as_array().map(Vec::len),
            Some(2)
        );
    }
    drop(relay);
}

#[test]
fn suc_01_suc_02_people_follow_a_relay_to_its_new_key_and_never_back() {
    let Pair { mut relay, ana, bo, folder } = Pair::meet();
    // Somebody copies the key before it is changed.
    let stolen = fs::read(folder.join("relay").join("relay.key")).expect("the key");
    let moved = relay.runs(&["rotate-key"]).done().text("rotated", "address");
    assert_ne!(moved, relay.address);
    assert_eq!(bo.runs(&["send", "ana", "to the new key"]).done().text("sent", "state"), "sent");
    let shown = bo.runs(&["relay", "list"]).done().one("relays")["relays"][0]["address"].clone();
    assert_eq!(shown, moved.as_str(), "people see the key that it has");

    // The thief answers at the relay's address, with the key that it had.
    let stopped = relay.stop();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    let mut thief = Relay::init(&folder.join("thief"), relay.port);
    fs::write(folder.join("thief").join("relay.key"), &stolen).expect("the stolen key");
    thief.serve();
    let lured = bo.runs(&["send", "ana", "not to the old key"]).done();
    assert_eq!(lured.text("sent", "state"), "waiting", "{lured:?}");
    assert_eq!(bo.runs(&["sync"]).failed(5), "wrong_relay_key");
    assert_eq!(thief.status()["mailboxes"], 0);
    assert_eq!(thief.stop().code, Some(0));

    // Another change, while nobody is there; Ana was away during both.
    let moved = relay.runs(&["rotate-key"]).done().text("rotated", "address");
    relay.serve();
    assert_eq!(bo.runs(&["sync"]).done().one("synced")["waiting"], 0);
    let texts = ["to the new key", "not to the old key"];
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo"), texts);
    // A ticket that names the new key is of the relay that is there.
    let access = relay.runs(&["access", "issue"]).done().text("access_ticket", "access_ticket");
    let _ = ana.runs(&["relay", "add", &access]).done();
    let relays = ana.runs(&["relay", "list"]).done().one("relays")["relays"].clone();
    assert_eq!((relays.as_array().map(Vec::len), &relays[0]["address"]), (Some(1), &moved.as_str().into()));
    let _ = ana.runs(&["send", "bo", "heard"]).done();
    assert_eq!(bo.runs(&["read", "ana"]).done().messages_from("ana"), ["heard"]);
}

#[test]
fn a_sender_is_told_that_a_mailbox_is_full_and_what_waits_arrives_when_it_is_read() {
    let Pair { mut relay, ana, bo, folder } = Pair::meet();
    let _ = relay.stop();
    let config = folder.join("relay").join("relay.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    let small = text.replace("mailbox_size = \"64 MiB\"", "mailbox_size = \"64 KiB\"");
    assert_ne!(small, text);
    fs::write(&config, small).expect("the configuration");
    relay.serve();
    // Each takes 16 KiB there: with what meeting took, four are too many.
    let long = |letter: &str| letter.repeat(16_000);
    let letters = ["a", "b", "c", "d"];
    let mut stored = Vec::new();
    let kept = letters.iter().find_map(|letter| {
        let sent = bo.runs(&["send", "ana", &long(letter)]).done().one("sent");
        if sent["state"] != "sent" {
            return Some((*letter, sent));
        }
        stored.push(long(letter));
        None
    });
    let (last, kept) = kept.expect("a message for which there is no room");
    assert_eq!((&kept["state"], &kept["why"]), (&"waiting".into(), &"mailbox_full".into()), "{kept}");
    assert!(!stored.is_empty());
    let told = bo.reads(&["sync"]).done();
    assert!(told.stderr.contains("the mailbox of ana is full"), "{told:?}");
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo"), stored);
    assert_eq!(bo.runs(&["sync"]).done().one("synced")["waiting"], 0);
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo").last(), Some(&long(last)));
}

#[test]
fn who_waits_for_a_relay_that_is_short_of_room_is_told_why() {
    let Pair { mut relay, ana, bo, folder } = Pair::meet();
    let config = folder.join("relay").join("relay.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    // No disk has as much.
    let short = text.replace("reserve = \"512 MiB\"", "reserve = \"8000000 TiB\"");
    assert_ne!(short, text);
    let mut begin = |text: &str| {
        let _ = relay.stop();
        fs::write(&config, text).expect("the configuration");
        relay.serve();
    };
    begin(&short);
    let kept = bo.runs(&["send", "ana", "later"]).done().one("sent");
    assert_eq!((&kept["state"], &kept["why"]), (&"waiting".into(), &"relay_busy".into()), "{kept}");
    let invited = ana.reads(&["invite", "cy"]).done();
    for told in ["takes nothing new now", "the ticket works after the next: lapwing sync"] {
        assert!(invited.stderr.contains(told), "{invited:?}");
    }
    for who in [&ana, &bo] {
        let told = who.reads(&["sync"]).done();
        assert!(told.stderr.contains("takes nothing new now"), "{told:?}");
    }
    begin(&text);
    for who in [&ana, &bo] {
        let told = who.reads(&["sync"]).done();
        assert!(!told.stderr.contains("takes nothing new"), "{told:?}");
    }
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo"), ["later"]);
}

#[test]
fn a_relay_from_a_backup_is_the_relay_that_people_know() {
    let Pair { mut relay, ana, bo, folder } = Pair::meet();
    let _ = bo.runs(&["send", "ana", "before"]).done();
    let file = folder.join("backup");
    let made = relay.runs(&["backup", file.to_str().expect("text")]).done();
    let key = folder.put("recovery.key", made.text("backup", "recovery_key").as_bytes());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode");
    let _ = ana.runs(&["sync"]).done();
    let _ = bo.runs(&["send", "ana", "after"]).done();
    // The machine is lost, and what came after the backup with it.
    relay.kill();
    let mut other = Relay::nowhere(&folder.join("other"));
    let words = ["restore", file.to_str().expect("text"), "--key-file", key.to_str().expect("text")];
    assert_eq!(other.runs(&words).done().text("restored", "address"), relay.address);
    other.serve();
    assert_eq!(bo.runs(&["send", "ana", "on the new machine"]).done().text("sent", "state"), "sent");
    let read = ana.runs(&["read", "bo", "--last", "10"]).done().messages_from("bo");
    assert_eq!(read, ["before", "on the new machine"], "nothing twice");
    let _ = ana.runs(&["send", "bo", "good"]).done();
    assert_eq!(bo.runs(&["read", "ana"]).done().messages_from("ana"), ["good"]);
    let _ = other.stop();
}
