//! The README's walk-through and everything beside it, command by command, with real processes.

use lapwing_tests::scenario::{Folder, Pair, Person, Relay};
use serde_json::{Value, json};

const SOS: &str = "granny bakes plum cake on sundays";
const SOS_HIDE: &str = "seven quiet penguins ride north";
const NEW: &str = "tundra pencil whistle amber gate";

#[test]
fn a_fresh_vault_walks_through_the_readme() {
    let folder = Folder::new();
    let mut relay = Relay::start(&folder.join("relay"));
    let ana = Person::named(&folder, "ana");
    let made = ana.init().done().one("vault");
    assert_eq!(made["bytes"], 8 << 20);
    // The tickets go through standard input, behind the passphrase, as the documentation shows them.
    let added = ana.pipes(relay.access.as_bytes(), &["relay", "add", "-"]).done().one("relay");
    assert_eq!((&added["address"], &added["state"]), (&json!(relay.address), &json!("ok")));
    let bo = Person::at(&folder, "bo", &relay);
    let ticket = ana.runs(&["invite", "bo"]).done().text("ticket", "ticket");
    let joined = bo.pipes(ticket.as_bytes(), &["join", "-", "--name", "ana"]).done().one("joined");
    assert_eq!(joined["chat"], "ana");
    let sent = bo.pipes(b"hello\n", &["send", "ana", "-"]).done().one("sent");
    assert_eq!((&sent["chat"], &sent["state"]), (&json!("ana"), &json!("sent")));
    let read = ana.runs(&["read", "bo"]).done();
    assert_eq!(read.messages_from("bo"), ["hello"]);
    assert_eq!(ana.runs(&["send", "bo", "and to you"]).done().text("sent", "state"), "sent");
    assert_eq!(bo.runs(&["read", "ana"]).done().messages_from("ana"), ["and to you"]);

    let number = ana.runs(&["verify", "bo"]).done().one("safety_number");
    let theirs = bo.runs(&["verify", "ana"]).done().one("safety_number");
    assert_eq!(number["number"], theirs["number"]);
    assert_eq!(number["number"].as_str().unwrap().split_whitespace().collect::<String>().len(), 60);
    let _ = ana.runs(&["verify", "bo", "--equal"]).done();
    let _ = ana.runs(&["chat", "rename", "bo", "bo of the ford"]).done();
    let chats = ana.chats();
    assert_eq!(chats.as_array().unwrap().len(), 1);
    let chat = &chats[0];
    assert_eq!(
        (&chat["name"], &chat["kind"], &chat["state"], &chat["verified"], &chat["unread"], &chat["waiting"]),
        (&json!("bo of the ford"), &json!("direct"), &json!("open"), &json!(true), &json!(0), &json!(0))
    );
    let relays = ana.runs(&["relay", "list"]).done().one("relays");
    assert_eq!(relays["relays"][0]["address"], relay.address);
    let status = ana.runs(&["status"]).done().one("status");
    assert_eq!(
        (&status["compartments"][0]["relays"], &status["compartments"][0]["chats"]),
        (&json!(1), &json!(1))
    );
    // A relay that a chat uses stays.
    assert_eq!(ana.runs(&["relay", "remove", &relay.address]).failed(5), "refused");

    let before = ana.passphrase.clone();
    let _ = ana.sets(NEW, &["passphrase", "change"]).done();
    assert_eq!(ana.runs(&["status"]).failed(3), "not_unlocked");
    assert_eq!(
        ana.typing(NEW).runs(&["read", "bo of the ford"]).done().messages_from("bo of the ford"),
        ["hello"]
    );
    assert_ne!(before, NEW);

    let stopped = relay.stop();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
}

#[test]
fn duress_passphrases_are_set_up_listed_and_removed() {
    let Pair { relay: _relay, ana, bo, folder: _folder } = Pair::meet();
    let _ = bo.runs(&["compartment", "create", "family"]).done();
    let names = |list: &Value| -> Vec<Value> {
        list["compartments"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names(&bo.runs(&["compartment", "list"]).done().one("compartments")), ["main", "family"]);
    // Nobody has agreed yet.
    let add = |name: &str, action: &str, passphrase: &str| {
        let words = [
            "sos", "add", "--name", name, "--show", "family", "--do", action, "--alert", "ana", "--text",
            "help", "--yes",
        ];
        bo.sets(passphrase, &words)
    };
    assert_eq!(add("arrest", "destroy", SOS).failed(5), "refused");
    let _ = bo.runs(&["trust", "add", "ana"]).done();
    assert_eq!(
        ana.runs(&["trust", "list"]).done().one("trusts")["trusts"],
        json!([{"chat": "bo", "direction": "theirs", "accepted": false, "voices": []}])
    );
    let _ = ana.runs(&["trust", "accept", "bo"]).done();
    // Too near to the real one, and too weak: refused, and nothing is set up.
    assert_eq!(add("arrest", "destroy", &format!("{}s", bo.passphrase)).failed(5), "alike");
    assert_eq!(add("arrest", "destroy", "bo").failed(5), "refused");
    let _ = add("arrest", "destroy", SOS).done();
    assert_eq!(add("again", "hide", SOS).failed(5), "refused");
    let _ = add("border", "hide", SOS_HIDE).done();
    let plans = bo.runs(&["sos", "list"]).done().one("plans")["plans"].clone();
    let shown: Vec<_> = plans
        .as_array()
        .unwrap()
        .iter()
        .map(|plan| [&plan["name"], &plan["action"], &plan["state"], &plan["shows"][0], &plan["alerts"][0]])
        .collect();
    assert_eq!(
        json!(shown),
        json!([
            ["arrest", "destroy", "armed", "family", "ana"],
            ["border", "hide", "armed", "family", "ana"]
        ])
    );
    let _ = bo.runs(&["sos", "remove", "arrest"]).done();
    assert_eq!(bo.typing(SOS).runs(&["status"]).failed(3), "not_unlocked");
    assert_eq!(bo.runs(&["sos", "remove", "arrest"]).failed(1), "unknown_plan");
    let plans = bo.runs(&["sos", "list"]).done().one("plans")["plans"].clone();
    assert_eq!((plans.as_array().unwrap().len(), &plans[0]["name"]), (1, &json!("border")));
    let _ = bo.runs(&["trust", "remove", "ana"]).done();
    assert_eq!(bo.runs(&["trust", "list"]).done().one("trusts")["trusts"], json!([]));
    assert_eq!(ana.runs(&["alert", "list"]).done().stdout, "", "nothing was set off");
}

#[test]
fn a_group_is_founded_joined_changed_and_left() {
    let Pair { relay: _relay, ana, bo, folder: _folder } = Pair::meet();
    let _ = ana.runs(&["group", "create", "march", "--as", "Ana"]).done();
    let _ = ana.runs(&["group", "invite", "march", "bo"]).done();
    let waits = bo.runs(&["group", "info"]).done().one("invitations")["invitations"].clone();
    assert_eq!(waits, json!([{"group": "march", "chat": "ana", "kind": "invites you"}]));
    let _ = bo.runs(&["group", "approve", "march", "--as", "Bo"]).done();
    let _ = ana.runs(&["sync"]).done();
    let members = ana.runs(&["group", "members", "march"]).done().one("members")["members"].clone();
    assert_eq!(
        members,
        json!([
            {"name": "Ana", "role": "owner", "me": true, "chat": null},
            {"name": "Bo", "role": "member", "me": false, "chat": "bo"},
        ])
    );
    assert_eq!(bo.runs(&["send", "march", "from bo"]).done().text("sent", "state"), "sent");
    assert_eq!(ana.runs(&["send", "march", "from ana"]).done().text("sent", "state"), "sent");
    assert_eq!(ana.runs(&["read", "march"]).done().messages_from("Bo"), ["from bo"]);
    assert_eq!(bo.runs(&["read", "march"]).done().messages_from("Ana"), ["from ana"]);
    let (one, other) = (
        ana.runs(&["group", "info", "march"]).done().one("group"),
        bo.runs(&["group", "info", "march"]).done().one("group"),
    );
    assert_eq!((&one["head"], &one["epoch"]), (&other["head"], &other["epoch"]), "both hold the same chain");

    let _ = ana.runs(&["group", "remove", "march", "Bo"]).done();
    let _ = ana.runs(&["send", "march", "without bo"]).done();
    let info = bo.runs(&["group", "info", "march"]).done().one("group");
    assert_eq!((&info["ended"], &info["role"]), (&json!(true), &Value::Null));
    assert_eq!(bo.runs(&["send", "march", "let me in"]).failed(5), "refused");
    assert!(!bo.runs(&["read", "march", "--last", "50"]).done().stdout.contains("without bo"));
    assert_eq!(ana.runs(&["group", "leave", "march"]).failed(5), "refused");
    let _ = ana.runs(&["group", "leave", "march", "--end"]).done();
    assert_eq!(ana.runs(&["group", "info", "march"]).done().one("group")["ended"], true);
}
