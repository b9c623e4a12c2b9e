//! A duress passphrase typed at a real prompt: the alert leaves before the first word of output, whatever the network
//! does, and what the plan destroys is gone.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{
    io::{PipeReader, PipeWriter, Write, pipe},
    thread::spawn,
    time::Duration,
};

use lapwing_tests::scenario::{
    Folder, Pair, Person, Relay,
    wait::{PATIENCE, timed, until},
};
use serde_json::{Value, json};

const DESTROY: &str = "granny bakes plum cake on sundays";
const HIDE: &str = "seven quiet penguins ride north";

fn plan(bo: &Person, name: &str, action: &str, passphrase: &str) {
    let text = format!("{name}: bo was forced to unlock");
    let words = [
        "sos",
        "add",
        "--name",
        name,
        "--show",
        "main",
        "--do",
        action,
        "--alert",
        "ana",
        "--text",
        &text,
        "--place",
        "the bridge",
        "--instructions",
        "call the lawyer",
        "--yes",
    ];
    let _ = bo.sets(passphrase, &words).done();
}

/// As the README shows it: bo keeps what matters in `work`, with ana in it, and has two plans, `border` to hide and
/// `arrest` to destroy, that alert ana and show `main`.
fn prepared() -> Pair {
    let folder = Folder::new();
    let relay = Relay::start(&folder.join("relay"));
    let (ana, bo) = (Person::at(&folder, "ana", &relay), Person::at(&folder, "bo", &relay));
    let _ = bo.runs(&["compartment", "create", "work"]).done();
    let _ = bo.pipes(relay.access.as_bytes(), &["relay", "add", "-", "--compartment", "work"]).done();
    let ticket = ana.runs(&["invite", "bo"]).done().text("ticket", "ticket");
    let _ = bo.pipes(ticket.as_bytes(), &["join", "-", "--name", "ana", "--compartment", "work"]).done();
    let _ = ana.runs(&["sync"]).done();
    let _ = bo.runs(&["trust", "add", "ana"]).done();
    let _ = ana.runs(&["trust", "accept", "bo"]).done();
    plan(&bo, "border", "hide", HIDE);
    plan(&bo, "arrest", "destroy", DESTROY);
    Pair { relay, ana, bo, folder }
}

fn alerts(ana: &Person) -> Vec<Value> {
    ana.runs(&["alert", "list"]).done().of("alert")
}

/// A pipe into which not one byte fits: who writes to it waits until somebody reads or the reader goes.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // Ends with the reader.
    spawn(move || while filler.write_all(&[b'.'; 4096]).is_ok() {});
    (reader, writer)
}

#[test]
fn a_duress_passphrase_alerts_before_its_first_output_and_destroys_or_hides() {
    let Pair { mut relay, ana, bo, folder: _folder } = prepared();
    let before = bo.chats();

    // Without network the token waits in the vault, nothing is said of it, and hiding harms nothing.
    relay.kill();
    let (took, shown) = timed(|| bo.typing(HIDE).runs(&["--offline", "chat", "list"]).done());
    assert_eq!(shown.one("chats")["chats"], json!([]));
    assert_eq!(shown.stderr, "", "nothing tells that something waits");
    assert!(took < Duration::from_secs(60), "the wait for the network is bounded: {took:?}");
    relay.serve();
    assert_eq!(alerts(&ana), Vec::<Value>::new(), "nobody could be told yet");
    let _ = bo.typing(HIDE).runs(&["sync"]).done();
    let told = alerts(&ana);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["chat"], &told[0]["cause"], &told[0]["status"], &told[0]["text"], &told[0]["place"]),
        (
            &json!("bo"),
            &json!("token"),
            &json!("actual"),
            &json!("border: bo was forced to unlock"),
            &json!("the bridge")
        )
    );
    assert_eq!(told[0]["instructions"], "call the lawyer");
    assert_eq!(bo.chats(), before, "the real passphrase still opens everything");
    let plans = bo.runs(&["sos", "list"]).done().one("plans")["plans"].clone();
    assert_eq!((&plans[0]["name"], &plans[0]["state"]), (&json!("arrest"), &json!("armed")), "{plans}");

    // The command cannot write its first byte, and still the alert is there: it left before.
    let (reader, writer) = full_pipe();
    let mut forced = bo.typing(DESTROY).starts_into(writer, &["--offline", "compartment", "list"]);
    assert!(
        until(PATIENCE, || alerts(&ana).len() == 2),
        "the alert did not come while the output was held up"
    );
    assert!(forced.is_running(), "it still waits for its first byte of output");
    drop(reader);
    assert_eq!(forced.end().code, Some(0), "a reader that goes is no failure");
    let mut causes: Vec<Value> = alerts(&ana).iter().map(|alert| alert["text"].clone()).collect();
    causes.sort_by_key(Value::to_string);
    assert_eq!(causes, ["arrest: bo was forced to unlock", "border: bo was forced to unlock"]);

    // Destroyed: the real passphrase and the other plan's open nothing; the cover is a vault like any other.
    let forced = bo.typing(DESTROY);
    assert_eq!(bo.runs(&["chat", "list"]).failed(3), "not_unlocked");
    assert_eq!(bo.typing(HIDE).runs(&["chat", "list"]).failed(3), "not_unlocked");
    let names: Vec<Value> = {
        let list = forced.runs(&["compartment", "list"]).done().one("compartments");
        list["compartments"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names, ["main"]);
    assert_eq!(forced.runs(&["sos", "list"]).done().one("plans")["plans"], json!([]));
    assert_eq!(forced.runs(&["trust", "list"]).done().one("trusts")["trusts"], json!([]));
    let ticket = forced.runs(&["invite", "granny"]).done().text("ticket", "ticket");
    let _ = ana.runs(&["join", &ticket, "--name", "bo's family"]).done();
    let _ = forced.runs(&["sync"]).done();
    assert_eq!(forced.runs(&["send", "granny", "plums on sunday"]).done().text("sent", "state"), "sent");
    assert_eq!(ana.runs(&["read", "bo's family"]).done().messages_from("bo's family"), ["plums on sunday"]);

    let _ = ana.runs(&["alert", "ack"]).done();
    assert!(alerts(&ana).iter().all(|alert| alert["acknowledged"].is_string()));
    assert_eq!(ana.runs(&["alert", "ack"]).failed(1), "negative");
}

#[test]
fn a_destruction_without_network_is_complete_and_the_alert_follows() {
    let Pair { mut relay, ana, bo, folder: _folder } = prepared();
    // Another command hangs and holds the vault: nothing can be opened, and still the word gets out.
    let sealed = bo.bytes();
    let mut hung = bo.starts(&["sync", "--wait", "600"]);
    assert!(
        until(PATIENCE, || bo.bytes() != sealed),
        "whoever unlocks writes the header, and holds the vault"
    );
    hung.signal("STOP");
    assert_eq!(bo.typing(HIDE).runs(&["--offline", "chat", "list"]).failed(5), "refused");
    hung.kill();
    let told = alerts(&ana);
    assert_eq!((told.len(), &told[0]["text"]), (1, &json!("border: bo was forced to unlock")));

    // It keeps its port and says nothing: the worst kind of silence.
    relay.freeze();
    let shown = bo.typing(DESTROY).runs(&["--offline", "chat", "list"]).done();
    assert_eq!(shown.one("chats")["chats"], json!([]));
    assert_eq!(bo.runs(&["--offline", "chat", "list"]).failed(3), "not_unlocked");
    relay.kill();
    relay.serve();
    let _ = bo.typing(DESTROY).runs(&["sync"]).done();
    let mut told: Vec<Value> = alerts(&ana).iter().map(|alert| alert["text"].clone()).collect();
    told.sort_by_key(Value::to_string);
    assert_eq!(told, ["arrest: bo was forced to unlock", "border: bo was forced to unlock"]);
    assert_eq!(bo.runs(&["chat", "list"]).failed(3), "not_unlocked");
}
