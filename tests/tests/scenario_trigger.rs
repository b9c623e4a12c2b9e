//! Trusted contacts set off from afar what an owner prepared: real processes, a real relay that is away in between.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use lapwing_tests::{
    scenario::{Folder, Relay},
    trace::{Subject, run, sweep::probe},
};
use serde_json::{Value, json};

const REAL: &str = "heron orbit velvet candle of olga";
const DESTROY: &str = "granny bakes plum cake in april";

/// The records of one kind that a command told.
fn told(who: &Subject, kind: &str, words: &[&str]) -> Vec<Value> {
    let told = who.does(&[&["--json"], words].concat(), "").told();
    let records = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| record["type"] == kind).collect()
}

/// Olga and three contacts who get her alerts.
fn circle(folder: &Folder, relay: &Relay) -> (Subject, [Subject; 3]) {
    let program = Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"));
    let person = |name: &str| {
        let person = Subject::new(program, &folder.join(name), REAL);
        person.does(&["init", "--size", "8MiB"], "");
        person.does(&["relay", "add", &relay.access], "");
        person
    };
    let olga = person("olga");
    let names = ["ana", "ben", "cid"];
    let all = names.map(|name| {
        let one = person(name);
        let ticket = told(&olga, "ticket", &["invite", name])[0]["ticket"].clone();
        one.does(&["join", ticket.as_str().expect("a ticket"), "--name", "olga"], "");
        one
    });
    olga.does(&["sync"], "");
    all.iter().for_each(|one| drop(one.does(&["sync"], "")));
    for (name, one) in names.iter().zip(&all) {
        olga.does(&["trust", "add", name], "");
        one.does(&["trust", "accept", "olga"], "");
    }
    (olga, all)
}

/// The voice in the list of trusts, as people and as programs see it, by a clock so many seconds ahead.
fn shown_after(who: &Subject, seconds: u64) -> (String, Value) {
    let shown =
        [&["--offline", "trust", "list"][..], &["--offline", "--json", "trust", "list"]].map(|words| {
            let mut plan = who.plan(words, "").changes_only();
            plan.environment.push(("LAPWING_SECONDS_AHEAD".to_owned(), seconds.to_string()));
            let trace = run(&plan).expect("a trace");
            assert!(trace.succeeded(), "{words:?}: {}", trace.told());
            trace.told()
        });
    let [people, programs] = shown;
    let records = programs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let trusts: Vec<Value> = records.filter(|record| record["type"] == "trusts").collect();
    (people, trusts[0]["trusts"][0]["voices"][0].clone())
}

fn alerts(who: &Subject) -> Vec<Value> {
    told(who, "alert", &["alert", "list"])
}

#[test]
fn two_of_three_contacts_set_off_what_was_prepared_though_the_relay_was_away() {
    let folder = Folder::new();
    let mut relay = Relay::start(&folder.join("relay"));
    let (olga, [ana, ben, cid]) = circle(&folder, &relay);
    olga.does(&["compartment", "create", "home"], "");
    let words =
        ["sos", "add", "--name", "far", "--show", "home", "--do", "destroy", "--text", "they have her"];
    let far = ["--alert", "ana", "--alert", "ben", "--alert", "cid", "--remote", "2", "--yes"];
    let all = [&words[..], &far, &["--new-passphrase-fd", "0"]].concat();
    olga.does(&all, &format!("{DESTROY}\n"));

    for (who, chat, code) in [(&ana, "nobody", "unknown_chat"), (&olga, "ana", "no_voice")] {
        let (ended, said) = probe(who, &["--json", "trigger", chat, "--yes"], "");
        assert!(
            ended == Some(1) && said.contains(&format!(r#""code":"{code}""#)),
            "{chat}: {ended:?} {said}"
        );
    }
    let given = told(&ana, "trigger", &["trigger", "olga", "--yes"]).remove(0);
    assert_eq!(
        (&given["state"], &given["voices"][0]["needed"], &given["voices"][0]["of"]),
        (&json!("given"), &json!(2), &json!(3))
    );
    assert_eq!(alerts(&cid), Vec::<Value>::new(), "one voice is none");
    let day = |key: &str| given["voices"][0][key].as_str().expect("a time")[..10].to_owned();
    let now = shown_after(&ana, 0);
    assert!(now.0.contains("given until ") && now.0.contains("; 2 of 3 needed"), "{now:?}");
    assert_eq!(now.1, given["voices"][0], "AFR-06");
    let later = shown_after(&ana, 9 * 24 * 3600);
    assert!(
        later.0.contains("may no longer count (given 20") && later.0.contains("trigger again"),
        "{later:?}"
    );
    let mut lapsed = given["voices"][0].clone();
    lapsed["state"] = json!("lapsed");
    lapsed["until"] = Value::Null;
    assert_eq!(later.1, lapsed, "AFR-06");
    assert!(day("until") > day("given"), "{given}");

    // The relay is away: the second voice waits, and leaves with the next command that reaches it.
    ben.does(&["sync"], "");
    relay.kill();
    let kept = told(&ben, "trigger", &["trigger", "olga", "--yes"]).remove(0);
    assert_eq!(kept["state"], "waiting");
    relay.serve();
    ben.does(&["sync"], "");
    for one in [&ana, &ben, &cid] {
        let alerts = alerts(one);
        assert_eq!(
            (alerts.len(), &alerts[0]["cause"], &alerts[0]["text"]),
            (1, &json!("quorum"), &json!("they have her"))
        );
    }

    // What was to be destroyed keeps nothing any more at the relay; olga's disk is as it was, and tells her.
    ana.does(&["send", "olga", "where are you"], "");
    let plans = told(&olga, "plans", &["sos", "list"]).remove(0)["plans"].clone();
    assert_eq!(plans[0]["state"], "set off from afar, by your contacts");
    assert_eq!(plans[0]["remote"], json!({ "needed": 2, "of": 3 }));
    assert_eq!(
        told(&olga, "message", &["read", "ana"]).iter().filter(|line| line["from"] == "ana").count(),
        0
    );
}
