//! Relays that die, sleep, or are somebody else: what was accepted arrives once, in order; nothing else is sent.

use std::{thread::sleep, time::Duration};

use lapwing_tests::scenario::{Outcome, Pair, Relay};

/// Whether the program took the message over: then it has to arrive.
fn accepted(sent: &Outcome) -> bool {
    sent.code == Some(0) && ["sent", "waiting"].contains(&sent.text("sent", "state").as_str())
}

#[test]
fn a_relay_killed_again_and_again_delivers_everything_once_and_in_order() {
    let Pair { mut relay, ana, bo, folder: _folder } = Pair::meet();
    let mut taken = Vec::new();
    for number in 0..5_u64 {
        let text = format!("message {number}");
        let sending = bo.starts(&["send", "ana", &text]);
        // The kill is meant to hit another moment of the command each time; whatever it hits has to hold.
        sleep(Duration::from_millis(250 + 250 * number));
        relay.kill();
        relay.serve();
        let sent = sending.end();
        assert!(accepted(&sent), "{sent:?}");
        taken.push(text);
    }
    let synced = bo.runs(&["sync"]).done().one("synced");
    assert_eq!(synced["waiting"], 0, "{synced}");
    assert_eq!(ana.runs(&["read", "bo", "--last", "100"]).done().messages_from("bo"), taken);
    // Nothing comes a second time.
    assert_eq!(ana.runs(&["sync"]).done().one("synced")["messages"], 0);
    assert_eq!(ana.runs(&["read", "bo", "--last", "100"]).done().messages_from("bo"), taken);
}

#[test]
fn what_is_sent_while_the_relay_is_down_or_another_is_kept_and_delivered_once() {
    let Pair { mut relay, ana, bo, folder } = Pair::meet();
    relay.kill();
    let kept = bo.reads(&["send", "ana", "kept one"]).done();
    assert!(kept.stdout.contains("kept for ana"), "{kept:?}");
    assert!(kept.stderr.contains("the relay cannot be reached"), "{kept:?}");
    assert_eq!(bo.runs(&["send", "ana", "kept two"]).done().text("sent", "state"), "waiting");
    let synced = bo.runs(&["sync"]);
    assert_eq!(synced.failed(4), "unreachable");
    assert_eq!(synced.one("synced")["waiting"], 2, "{synced:?}");

    // Somebody else answers at the address.
    let mut other = Relay::init(&folder.join("other"), relay.port);
    other.serve();
    let synced = bo.runs(&["sync"]);
    assert_eq!(synced.failed(5), "wrong_relay_key");
    assert_eq!(synced.one("synced")["waiting"], 2);
    assert_eq!(other.status()["mailboxes"], 0, "nothing was given to it");
    let stopped = other.stop();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");

    relay.serve();
    // The other's ticket names a key that this relay does not have.
    let added = bo.runs(&["relay", "add", &other.access]);
    assert_eq!(added.failed(5), "wrong_relay_key");
    let relays = bo.runs(&["relay", "list"]).done().one("relays")["relays"].clone();
    assert_eq!((relays.as_array().map(Vec::len), &relays[0]["waiting"]), (Some(1), &2.into()), "{relays}");
    assert_eq!(bo.runs(&["sync"]).done().one("synced")["waiting"], 0);
    let texts = ["kept one", "kept two"];
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo"), texts);
    assert_eq!(ana.runs(&["sync"]).done().one("synced")["messages"], 0);
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo"), texts);
}
