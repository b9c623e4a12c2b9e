//! Several commands on one vault, and commands that stay: nobody loses anything, nobody waits for ever.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{
    io::{BufRead as _, BufReader, PipeReader, Read as _, pipe},
    process::Command,
    time::Duration,
};

use lapwing_tests::scenario::{
    Pair, Person, Running, programs,
    wait::{PATIENCE, timed, until},
};
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::json;

/// How fast a message has to be on the screen of somebody who follows, on loopback, beside a busy test suite.
const LIVE: Duration = Duration::from_secs(20);

#[test]
fn two_commands_at_once_wait_for_each_other_and_lose_nothing() {
    let Pair { relay: _relay, ana, bo, folder: _folder } = Pair::meet();
    let texts = ["one", "two", "three"];
    let running: Vec<_> = texts.iter().map(|text| bo.starts(&["send", "ana", text])).collect();
    let listing = bo.starts(&["chat", "list"]);
    let mut taken = Vec::new();
    for (sending, text) in running.into_iter().zip(texts) {
        let sent = sending.end();
        if sent.code == Some(0) {
            taken.push(text.to_owned());
        } else {
            // Waited long enough, and said so.
            let _ = sent.failed(5);
        }
    }
    let listed = listing.end();
    assert!(listed.code == Some(0) || listed.failed(5) == "refused", "{listed:?}");
    assert!(!taken.is_empty());
    let mut read = ana.runs(&["read", "bo"]).done().messages_from("bo");
    read.sort();
    taken.sort();
    assert_eq!(read, taken);
}

#[test]
fn a_follower_shows_messages_live_and_makes_room_for_another_command() {
    let Pair { relay, ana, bo, folder } = Pair::meet();
    let mut following = bo.starts(&["read", "ana", "--follow"]);
    let _ = ana.runs(&["send", "bo", "the first"]).done();
    let _ = following.line(PATIENCE, |line| line.contains("the first"));
    // Now it is connected: this one comes live.
    let sent = ana.runs(&["send", "bo", "the second"]).done();
    assert_eq!(sent.text("sent", "state"), "sent");
    let (took, _) = timed(|| following.line(LIVE, |line| line.contains("the second")));
    assert!(took < LIVE);
    assert!(following.is_running());

    // Another command on the same vault ends it; nothing of it is lost or unread.
    let chats = bo.chats();
    assert_eq!((&chats[0]["unread"], &chats[0]["name"]), (&json!(0), &json!("ana")));
    let followed = following.end();
    assert_eq!(followed.code, Some(0), "{followed:?}");
    assert!(followed.stderr.contains("Another command needed the vault"), "{followed:?}");
    assert_eq!(followed.messages_from("ana"), ["the first", "the second"]);
    assert_eq!(bo.runs(&["read", "ana"]).done().messages_from("ana"), ["the first", "the second"]);

    // Killed without a word, a follower leaves what it showed in the vault, once.
    let mut following = bo.starts(&["read", "ana", "--follow", "--last", "1"]);
    let _ = ana.runs(&["send", "bo", "the third"]).done();
    let _ = following.line(PATIENCE, |line| line.contains("the third"));
    following.kill();
    let all = ["the first", "the second", "the third"];
    assert_eq!(bo.runs(&["read", "ana"]).done().messages_from("ana"), all);

    // `sync --wait` receives live too: the relay is rid of the message while it still waits.
    // What is there now stays: marks by which copies of a vault notice each other. These two sessions leave one each (CPY-06).
    let kept = relay.status()["envelope_bytes"].as_u64().unwrap() + 2 * 1024;
    let (told, written) = pipe().unwrap();
    let mut syncing = bo.starts_into(written, &["sync", "--wait", "120"]);
    let mut told = BufReader::new(told).lines();
    let waits = told.any(|line| line.is_ok_and(|line| line.contains("Waiting for messages")));
    assert!(waits, "it waits, and its mark is at the relay");
    assert_eq!(ana.runs(&["send", "bo", "the fourth"]).done().text("sent", "state"), "sent");
    let taken = until(PATIENCE, || relay.status()["envelope_bytes"] == kept);
    assert!(taken, "the message stayed at the relay: {}", relay.status());
    assert!(syncing.is_running());
    // As a session that ends asks everything in it.
    syncing.signal("INT");
    let synced = syncing.end();
    assert!([Some(0), Some(130)].contains(&synced.code), "{synced:?}");
    let read = bo.runs(&["read", "ana", "--last", "10"]).done().messages_from("ana");
    assert_eq!(read.iter().filter(|text| *text == "the fourth").count(), 1);
    assert_eq!(read.last().unwrap(), "the fourth");

    // A window that is closed locks the vault: what was deleted is overwritten, and the next unlock has nothing to do.
    let before = regions(&bo);
    // Begun so that it ignores Ctrl-C, as by `&` in a script.
    let (mut command, passphrase) = ignoring("INT", &bo, &["read", "ana", "--follow"]);
    let mut following = Running::spawn(&mut command, "read --follow".to_owned(), passphrase);
    // What comes after the first that it shows comes while it follows.
    let _ = following.line(PATIENCE, |line| line.contains("the fourth"));
    following.signal("INT");
    let _ = ana.runs(&["send", "bo", "the last but one"]).done();
    let _ = following.line(PATIENCE, |line| line.contains("the last but one"));
    following.signal("HUP");
    assert_eq!(following.end().code, Some(0));
    let after = regions(&bo);
    assert!(before != after, "it wrote something");
    let _ = bo.runs(&["--offline", "chat", "list"]).done();
    assert!(regions(&bo) == after, "it was not locked");

    // Where another file takes the vault's place, nothing is fetched into the one that was there.
    let mut following = bo.starts(&["read", "ana", "--follow"]);
    let _ = following.line(PATIENCE, |line| line.contains("the last but one"));
    let copy = folder.join("copy");
    std::fs::copy(&bo.vault, &copy).unwrap();
    std::fs::rename(&copy, &bo.vault).unwrap();
    let followed = following.end();
    assert_eq!(followed.failed(5), "vault_replaced");

    // Nobody is told that it is kept; a script that takes this for a failure would send it twice.
    let script = "exec \"$0\" --vault \"$1\" --offline send bo 'the fifth' --passphrase-fd 0 > /dev/full";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(programs::lapwing()).arg(&ana.vault);
    let input = format!("{}\n", ana.passphrase).into_bytes();
    let untold = Running::spawn(&mut shell, "send".to_owned(), input).end();
    assert_eq!(untold.code, Some(5), "{untold:?}");
    assert!(untold.stderr.contains("is in the vault, and it is kept and will be sent"), "{untold:?}");
    let _ = ana.runs(&["sync"]).done();
    assert_eq!(bo.runs(&["read", "ana"]).done().messages_from("ana").last().unwrap(), "the fifth");

    whom_nobody_reads_is_ended_by_the_second_signal(&ana, &bo);

    // CPY-06: a follower leaves its last mark though the command that ends it leaves none: a copy from the middle of it that
    // is put back finds what came later.
    let mut following = bo.starts(&["read", "ana", "--follow"]);
    let _ = following.line(PATIENCE, |line| line.contains("the fifth"));
    std::fs::copy(&bo.vault, &copy).unwrap();
    let _ = ana.runs(&["send", "bo", "behind the copy"]).done();
    let _ = following.line(PATIENCE, |line| line.contains("behind the copy"));
    let _ = bo.runs(&["search", "behind the copy"]).done();
    assert_eq!(following.end().code, Some(0));
    std::fs::rename(&copy, &bo.vault).unwrap();
    let told = bo.runs(&["sync"]);
    assert!(told.stderr.contains("used in another place too"), "{told:?}");
}

/// A follower that waits for a reader who does not read, as a pager that is paused.
fn whom_nobody_reads_is_ended_by_the_second_signal(ana: &Person, bo: &Person) {
    let (mut told, written) = narrow_pipe();
    let (mut command, passphrase) =
        ignoring("TERM QUIT HUP", bo, &["read", "ana", "--follow", "--last", "1"]);
    let mut following = Running::into_pipe(&mut command, "read --follow".to_owned(), passphrase, written);
    let mut line = Vec::new();
    while !line.ends_with(b"Waiting for messages; Ctrl-C ends it.\n") {
        let mut byte = [0];
        told.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    for ignored in ["TERM", "QUIT", "HUP"] {
        following.signal(ignored);
    }
    // Twice what the pipe takes: from its first byte to the end of its reading it holds the follower up.
    let _ = ana.runs(&["send", "bo", &"x".repeat(2 * NARROW)]).done();
    told.read_exact(&mut [0]).unwrap();
    following.signal_taken("INT");
    assert!(!until(Duration::from_millis(200), || !following.is_running()), "it ends in order, or not");
    following.signal_taken("INT");
    assert_eq!(following.end_within(Duration::from_secs(10)).code, None, "it was ended by the signal");
}

/// As much as a pipe of one page holds.
const NARROW: usize = 4096;

fn narrow_pipe() -> (PipeReader, std::io::PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(1)).unwrap();
    assert_eq!(size, i32::try_from(NARROW).unwrap(), "pages of another size");
    (reader, writer)
}

/// A command that is begun so that it ignores these signals, and what it is to read.
fn ignoring(signals: &str, person: &Person, words: &[&str]) -> (Command, Vec<u8>) {
    let script = format!("trap '' {signals}; exec \"$0\" --json --vault \"$@\" --passphrase-fd 0");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(programs::lapwing()).arg(&person.vault).args(words);
    (shell, format!("{}\n", person.passphrase).into_bytes())
}

/// What lies behind the headers, which every unlock writes.
fn regions(person: &Person) -> Vec<u8> {
    person.bytes().split_off(143_360)
}
