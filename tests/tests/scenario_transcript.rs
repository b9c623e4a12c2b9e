//! A14: whoever makes somebody open a cover and plays with it sees what he would see in an ordinary vault.
//!
//! Every command of the program is typed in the same story: in a vault with one passphrase, and in covers of vaults that
//! hold more. What is seen must be equal, byte for byte, apart from what is drawn at random.

#![expect(clippy::expect_used, reason = "a test fails where there is none")]

use lapwing::{
    cli::prompt::Answer,
    engine::{Command, group::GroupCommand},
};
use lapwing_tests::{
    transcript::{Played, Stage, commands, difference},
    world::{Person, calm, company::give_voice},
};

const COVER: &str = "seven quiet penguins ride north";
const NEW: &str = "a kettle whistles over the meadow";

/// Commands that are in no story, and why.
const LEFT_OUT: [(&str, &str); 4] = [
    ("init", "makes a vault: there is nothing to compare yet"),
    ("demo", "makes vaults of its own and looks at none"),
    ("passphrase suggest", "opens no vault; it draws words"),
    ("passphrase compare", "opens no vault; it takes two passphrases and forgets them"),
];

fn ana(stage: &mut Stage) -> &mut Person {
    &mut stage.ana
}

fn bo(stage: &mut Stage) -> &mut Person {
    &mut stage.bo
}

/// A vault with one passphrase and the relay.
async fn ordinary() -> Stage {
    let mut stage = Stage::new(1414).await;
    let first = Answer::passphrase(&stage.passphrase);
    let made = stage.answers(&["init", "--size", "8MiB"], [first]).await;
    assert_eq!(made.code, 0, "{made}");
    let access = stage.access();
    stage.must(&["relay", "add", &access]).await;
    stage
}

/// A vault whose owner keeps `private` and another compartment beside a new `main`.
async fn layered() -> Stage {
    let mut stage = ordinary().await;
    let access = stage.access();
    stage.must(&["compartment", "rename", "main", "private"]).await;
    stage.must(&["compartment", "create", "main"]).await;
    stage.must(&["compartment", "create", "work"]).await;
    stage.must(&["relay", "add", &access, "--compartment", "main"]).await;
    stage.must(&["relay", "add", &access, "--compartment", "work"]).await;
    // Somebody who is alerted, known in what stays unseen.
    let mut olga = stage.world.person("olga", &[stage.relay]);
    let ticket = olga.invite("owner");
    calm(&mut [&mut olga]).await;
    stage.must(&["join", &ticket, "--name", "olga", "--compartment", "private"]).await;
    calm(&mut [&mut olga]).await;
    stage.must(&["sync"]).await;
    stage.must(&["trust", "add", "olga"]).await;
    calm(&mut [&mut olga]).await;
    olga.must(Command::TrustAccept { chat: "owner".into() });
    calm(&mut [&mut olga]).await;
    stage.must(&["send", "olga", "the archive is under the floor"]).await;
    stage
}

async fn cover(action: &str) -> Stage {
    let mut stage = layered().await;
    let words = [
        "sos", "add", "--name", "border", "--show", "main", "--do", action, "--alert", "olga", "--text",
        "help", "--yes",
    ];
    stage.must_set(COVER, &words).await;
    stage.must_set(NEW, &["passphrase", "add", "--name", "second"]).await;
    stage.typing(COVER)
}

/// A passphrase that opens `main` and nothing else, without a plan.
async fn part() -> Stage {
    let mut stage = layered().await;
    stage.must_set(COVER, &["passphrase", "add", "--name", "part", "--show", "main"]).await;
    stage.typing(COVER)
}

/// The story: what somebody does who has the passphrase. Each command of the program is typed at least once; a new one
/// is added here by a line.
async fn story(stage: &mut Stage) {
    stage.curtain();
    // What there is at the beginning.
    for words in [
        ["status"].as_slice(),
        &["--json", "status"],
        &["doctor"],
        &["--json", "doctor"],
        &["compartment", "list"],
        &["--json", "compartment", "list"],
        &["passphrase", "list"],
        &["--json", "passphrase", "list"],
        &["relay", "list"],
        &["--json", "relay", "list"],
        &["chat", "list"],
        &["group", "info"],
        &["trust", "list"],
        &["sos", "list"],
        &["--json", "sos", "list"],
        &["alert", "list"],
        &["alert", "ack"],
    ] {
        stage.types(words).await;
    }
    people(stage).await;
    messages(stage).await;
    groups(stage).await;
    erasing(stage).await;
    duress(stage).await;
    passphrases(stage).await;
    compartments(stage).await;
    backups(stage).await;
    mistakes(stage).await;
    stage.types(&["--json", "status"]).await;
    stage.types(&["doctor"]).await;
}

async fn people(stage: &mut Stage) {
    stage.meets(ana, "main").await;
    stage.meets(bo, "main").await;
    stage.types(&["invite", "carla", "--qr", "--valid", "2h"]).await;
    let ticket = stage.ana.invite("owner again");
    stage.settles(ana).await;
    stage.types(&["join", &ticket, "--name", "ana's other chat"]).await;
    stage.settles(ana).await;
    for words in [
        ["sync"].as_slice(),
        &["verify", "ana"],
        &["verify", "ana", "--equal"],
        &["--json", "verify", "ana"],
        &["verify", "carla"],
        &["chat", "rename", "ana's other chat", "old"],
        &["chat", "block", "old"],
        &["chat", "unblock", "old"],
        &["chat", "renew", "old"],
        &["chat", "renew", "nobody"],
        &["chat", "list"],
        &["--json", "chat", "list"],
    ] {
        stage.types(words).await;
        stage.settles(ana).await;
    }
}

async fn messages(stage: &mut Stage) {
    for text in ["one", "two", "three"] {
        stage.ana.say("owner", text);
    }
    stage.settles(ana).await;
    stage.types(&["chat", "list"]).await;
    stage.types(&["read", "ana"]).await;
    for words in [
        ["send", "ana", "four"].as_slice(),
        &["--offline", "send", "ana", "five"],
        &["--json", "send", "ana", "six"],
        &["send", "carla", "are you there"],
        &["--json", "read", "ana", "--last", "2"],
        &["read", "ana", "--follow", "--offline"],
        &["sync"],
        &["--json", "sync"],
        &["sync", "--wait", "1"],
        &["search", "four"],
        &["--json", "search", "T"],
        &["search", "nothing like that"],
    ] {
        stage.types(words).await;
    }
    stage.settles(ana).await;
    let heard = stage.ana.heard("owner");
    assert_eq!(heard, ["four", "five", "six"], "what is typed in any of them arrives");
    files(stage).await;
}

/// A file of the source: its path is the same in every story.
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

async fn files(stage: &mut Stage) {
    // The same path in every story: what is typed must be the same.
    let out = std::env::temp_dir().join(format!("lapwing-story-{}", std::process::id()));
    for words in [
        ["send", "ana", "--attach", TEXT].as_slice(),
        &["--json", "send", "ana", "with words", "--attach", TEXT, "--name", "list.txt"],
        &["--offline", "send", "ana", "--attach", TEXT],
        &["send", "ana", "--attach", "/nowhere"],
        &["read", "ana", "--last", "3"],
        &["sync"],
        &["--json", "read", "ana", "--last", "3"],
        &["chat", "fetch", "ana", "1"],
        &["chat", "fetch", "ana", "999"],
        &["--offline", "chat", "fetch", "ana", "1"],
    ] {
        stage.types(words).await;
    }
    // The number depends on what the vault had before.
    let read = stage.types(&["--json", "read", "ana", "--last", "1"]).await;
    let order = read.stdout.split("\"order\":").nth(1).and_then(|rest| rest.split(',').next());
    let order = order.expect("a number").to_owned();
    stage.must(&["--json", "chat", "fetch", "ana", &order, "--out", &out.display().to_string()]).await;
    assert_eq!(std::fs::read(&out).ok(), std::fs::read(TEXT).ok(), "a file is fetched in any of them");
    std::fs::remove_file(&out).expect("what was fetched");
}

async fn groups(stage: &mut Stage) {
    stage.types(&["group", "create", "march", "--as", "fern"]).await;
    stage.types(&["group", "invite", "march", "ana"]).await;
    stage.settles(ana).await;
    stage.ana.group(GroupCommand::Approve { what: "march".into(), alias: "moss".into(), name: None });
    stage.settles(ana).await;
    stage.types(&["sync"]).await;
    stage.settles(ana).await;
    stage.ana.say("march", "at noon");
    stage.settles(ana).await;
    // And one of somebody else.
    stage.bo.group(GroupCommand::Create { name: "choir".into(), alias: "bo".into(), relay: None });
    stage.bo.group(GroupCommand::Invite { group: "choir".into(), chat: "owner".into() });
    stage.settles(bo).await;
    stage.types(&["sync"]).await;
    stage.types(&["group", "approve", "choir", "--as", "alto"]).await;
    stage.settles(bo).await;
    stage.bo.group(GroupCommand::Create { name: "sauna".into(), alias: "bo".into(), relay: None });
    stage.bo.group(GroupCommand::Invite { group: "sauna".into(), chat: "owner".into() });
    stage.settles(bo).await;
    for words in [
        ["group", "info"].as_slice(),
        &["group", "decline", "sauna"],
        &["group", "info", "march"],
        &["--json", "group", "info", "march"],
        &["group", "members", "march"],
        &["--json", "group", "members", "choir"],
        &["read", "march"],
        &["send", "march", "bring water"],
        &["send", "choir", "what do we sing"],
        &["group", "remove", "march", "moss"],
        &["group", "leave", "march"],
        &["group", "leave", "choir"],
        &["chat", "list"],
    ] {
        stage.types(words).await;
        stage.settles(ana).await;
        stage.settles(bo).await;
    }
}

async fn erasing(stage: &mut Stage) {
    stage.types(&["--offline", "send", "ana", "seven"]).await;
    stage.answers(&["chat", "clear", "carla"], [Answer::Confirm(false)]).await;
    stage.answers(&["chat", "delete", "old"], [Answer::Confirm(true)]).await;
    for words in [
        ["draft", "ana"].as_slice(),
        &["draft", "ana", "half a thought"],
        &["draft", "ana"],
        &["--json", "draft", "ana"],
        &["--json", "chat", "list"],
        &["draft", "ana", "--delete"],
        &["draft", "ana", "a whole one"],
        &["send", "ana", "--draft"],
        &["send", "ana", "--draft"],
        &["chat", "timer", "ana"],
        &["chat", "timer", "ana", "1h"],
        &["--json", "chat", "timer", "ana"],
        &["chat", "timer", "ana", "3s"],
        &["chat", "timer", "march", "30d"],
        &["chat", "list"],
        &["send", "ana", "for an hour"],
        &["read", "ana", "--numbers", "--last", "3"],
        &["--json", "read", "ana", "--last", "1"],
        &["chat", "erase", "ana", "99999"],
        &["--json", "chat", "erase", "ana", "99999"],
        &["chat", "clear", "ana", "--before", "10d", "--yes"],
        &["chat", "timer", "ana", "off"],
        &["chat", "delete", "march", "--yes"],
        &["chat", "delete", "march", "--leave", "--yes"],
        &["chat", "delete", "choir", "--yes"],
        &["chat", "delete", "choir", "--yes"],
        &["chat", "clear", "carla", "--yes"],
        &["chat", "list"],
    ] {
        stage.types(words).await;
        stage.settles(ana).await;
    }
}

async fn duress(stage: &mut Stage) {
    stage.types(&["trust", "add", "ana"]).await;
    stage.settles(ana).await;
    stage.ana.must(Command::TrustAccept { chat: "owner".into() });
    stage.ana.must(Command::TrustAdd { chat: "owner".into() });
    stage.settles(ana).await;
    stage.types(&["sync"]).await;
    stage.types(&["trust", "accept", "ana"]).await;
    stage.settles(ana).await;
    stage.types(&["trust", "list"]).await;
    stage.types(&["--json", "trust", "list"]).await;
    // Ana gives the owner a voice, and the owner uses it.
    stage.types(&["trigger", "ana"]).await;
    give_voice(&mut stage.world, &mut stage.ana, "owner", stage.relay).await;
    stage.answers(&["trigger", "ana"], [Answer::Confirm(false)]).await;
    for words in [
        ["--offline", "trigger", "ana", "--yes"].as_slice(),
        &["--json", "trust", "list"],
        &["trigger", "ana", "--yes"],
        &["--json", "trigger", "ana", "--yes"],
        &["trust", "list"],
        &["alert", "list"],
        &["alert", "ack"],
    ] {
        stage.must(words).await;
    }
    let answers = [Answer::Choose(0), Answer::Text("nobody has heard of me".into()), Answer::Confirm(true)];
    stage.answers(&["checkin", "start", "--every", "12h"], answers).await;
    for words in [
        ["checkin", "status"].as_slice(),
        &["--json", "checkin", "status"],
        &["checkin", "now"],
        &["--json", "checkin", "now"],
        &["checkin", "start", "--alert", "ana", "--text", "x", "--yes"],
        &["checkin", "stop"],
        &["checkin", "stop"],
        &["--json", "checkin", "now"],
    ] {
        stage.types(words).await;
    }
    // As a person does it, with all its questions.
    let answers = [
        Answer::Text("street".into()),
        Answer::Choose(0),
        Answer::Choose(0),
        Answer::Confirm(true),
        Answer::Choose(0),
        Answer::Text("I was stopped".into()),
        Answer::Confirm(true),
        Answer::passphrase("granny bakes plum cake on sundays"),
    ];
    stage.answers(&["sos", "add"], answers).await;
    let words = ["sos", "add", "--name", "x", "--show", "main", "--do", "destroy", "--no-alert", "--yes"];
    stage.answers(&words, [Answer::passphrase("granny bakes plum cake on mondays")]).await;
    let alike = stage.passphrase.clone() + "x";
    let words = ["sos", "add", "--name", "y", "--show", "main", "--do", "hide", "--no-alert", "--yes"];
    stage.answers(&words, [Answer::passphrase(&alike)]).await;
    stage.answers(&words, [Answer::passphrase("weak")]).await;
    for words in [
        ["sos", "list"].as_slice(),
        &["--json", "sos", "list"],
        &["passphrase", "list"],
        &["compartment", "list"],
        &["relay", "list"],
        &["sos", "remove", "x"],
        &["sos", "remove", "x"],
        &["sos", "remove", "street"],
        &["trust", "remove", "ana"],
        &["trust", "list"],
    ] {
        stage.types(words).await;
        stage.settles(ana).await;
    }
}

async fn passphrases(stage: &mut Stage) {
    let changed = "a lighthouse blinks at the harbour";
    stage.answers(&["passphrase", "change"], [Answer::passphrase(changed)]).await;
    stage.types(&["chat", "list"]).await;
    stage.passphrase = changed.to_owned();
    stage.types(&["chat", "list"]).await;
    stage.answers(&["passphrase", "change"], [Answer::passphrase(changed)]).await;
    let add = |name: &'static str| ["passphrase", "add", "--name", name];
    stage.answers(&add("spare"), [Answer::passphrase("the otter juggles wet pebbles")]).await;
    stage.answers(&add("again"), [Answer::passphrase("the otter juggles wet pebbles")]).await;
    stage.answers(&add("spare"), [Answer::passphrase("the badger counts dry acorns")]).await;
    stage.types(&["passphrase", "list"]).await;
    // With that one.
    let own = std::mem::replace(&mut stage.passphrase, "the otter juggles wet pebbles".to_owned());
    stage.types(&["passphrase", "list"]).await;
    stage.types(&["--json", "chat", "list"]).await;
    stage.passphrase = own;
    stage.types(&["passphrase", "remove", "spare"]).await;
    stage.types(&["passphrase", "remove", "spare"]).await;
    // Until there is no room.
    for n in 1..9 {
        let new = format!("passphrase of the number {n}{n}{n}{n}{n}");
        stage.answers(&["passphrase", "add"], [Answer::passphrase(&new)]).await;
    }
    stage.types(&["--json", "passphrase", "list"]).await;
}

async fn compartments(stage: &mut Stage) {
    let access = stage.access();
    for words in [
        ["compartment", "create", "garden"].as_slice(),
        &["compartment", "create", "garden"],
        &["relay", "add", &access, "--compartment", "garden"],
        &["--json", "relay", "list", "--compartment", "garden"],
        &["compartment", "rename", "garden", "yard"],
        &["invite", "neighbour", "--compartment", "yard"],
        &["chat", "move", "bo", "main"],
        &["chat", "move", "bo", "nowhere"],
        &["--json", "chat", "move", "bo", "nowhere"],
        &["chat", "move", "nobody", "yard"],
        &["chat", "move", "carla", "yard"],
        &["chat", "move", "bo", "yard", "--name", "neighbour"],
        &["--json", "chat", "move", "bo", "yard"],
        &["chat", "list"],
        &["compartment", "create", "cellar"],
        &["compartment", "create", "attic"],
        &["compartment", "create", "roof"],
        &["compartment", "list"],
        &["passphrase", "list"],
        &["passphrase", "remove", "passphrase 2"],
    ] {
        stage.types(words).await;
    }
    moving(stage).await;
    for words in [
        ["compartment", "delete", "yard"].as_slice(),
        &["compartment", "delete", "yard", "--yes"],
        &["compartment", "delete", "main", "--yes"],
        &["compartment", "delete", "nowhere", "--yes"],
        &["compartment", "list"],
        &["status"],
    ] {
        stage.types(words).await;
    }
    let words = ["passphrase", "add", "--name", "only", "--show", "attic"];
    stage.answers(&words, [Answer::passphrase("three green kettles sing")]).await;
    stage.types(&["passphrase", "add", "--show", "main"]).await;
    stage.types(&["compartment", "delete", "attic", "--yes"]).await;
    stage.types(&["passphrase", "list"]).await;
    stage.types(&["relay", "remove", "nowhere.example:1"]).await;
    for words in [
        ["grow", "--size", "8MiB", "--yes"].as_slice(),
        &["grow", "--size", "12MiB"],
        &["grow", "--size", "12MiB", "--yes"],
        &["--json", "compartment", "list"],
        &["--json", "passphrase", "list"],
        &["read", "ana"],
    ] {
        stage.types(words).await;
    }
}

/// A chat that goes to another compartment and back, and is the same to the other side.
async fn moving(stage: &mut Stage) {
    stage.settles(bo).await;
    for words in [
        ["sync"].as_slice(),
        &["chat", "list"],
        &["--json", "chat", "list", "--compartment", "yard"],
        &["send", "bo", "from the yard"],
        &["--json", "chat", "move", "bo", "main", "--name", "bo again"],
    ] {
        stage.types(words).await;
    }
    stage.settles(bo).await;
    for words in [
        ["sync"].as_slice(),
        &["chat", "rename", "bo again", "bo"],
        &["send", "bo", "from the house"],
        &["chat", "list"],
        &["read", "bo"],
    ] {
        stage.types(words).await;
    }
    stage.settles(bo).await;
    let heard = stage.bo.heard("owner");
    assert_eq!(heard[heard.len() - 2..], ["from the yard", "from the house"]);
}

async fn backups(stage: &mut Stage) {
    let file = stage.beside(".kept");
    let own = stage.passphrase.clone();
    let words = ["backup", "create", &file];
    for passphrase in ["short", &own, "the magpie collects seven spoons", "the magpie collects seven spoons"]
    {
        stage.answers(&words, [Answer::passphrase(passphrase)]).await;
    }
    let only = stage.beside(".main");
    let new = || [Answer::passphrase("the magpie collects seven spoons")];
    stage.answers(&["--json", "backup", "create", &only, "--compartment", "main"], new()).await;
    stage.types(&["backup", "create", "/nowhere/at/all", "--compartment", "nothing"]).await;
    stage.types(&["backup", "restore", &file]).await;
}

async fn mistakes(stage: &mut Stage) {
    for words in [
        ["send", "nobody", "hello"].as_slice(),
        &["--json", "send", "nobody", "hello"],
        &["read", "nobody"],
        &["read", "ana", "--compartment", "nowhere"],
        &["verify", "nobody"],
        &["join", "lapwing:nonsense", "--name", "x"],
        &["--json", "join", "nonsense", "--name", "x"],
        &["relay", "add", "nonsense"],
        &["group", "leave", "nothing"],
        &["group", "invite", "march", "ana"],
        &["trust", "accept", "ana"],
        &["sos", "remove", "nothing"],
        &["passphrase", "remove", "nothing"],
        &["alert", "ack", "00"],
        &["--json", "alert", "ack", "00"],
        &["frobnicate"],
        &["read", "ana", "--last", "many"],
    ] {
        stage.types(words).await;
    }
    // The wrong passphrase, and the one that was there before.
    for wrong in ["not the passphrase of anybody", "heron orbit velvet candle evening"] {
        let own = std::mem::replace(&mut stage.passphrase, wrong.to_owned());
        stage.types(&["status"]).await;
        stage.passphrase = own;
    }
    // The relay is away, and back.
    stage.world.net.take_down(stage.relay).await;
    for words in [
        ["status"].as_slice(),
        &["sync"],
        &["--json", "sync"],
        &["send", "ana", "into the void"],
        &["doctor"],
        &["invite", "dora"],
        &["compartment", "delete", "attic", "--yes"],
    ] {
        stage.types(words).await;
    }
    stage.world.net.bring_back(stage.relay);
    stage.types(&["sync"]).await;
    // A larger vault: refused, not agreed to, made.
    for words in [
        ["grow", "--size", "8MiB", "--yes"].as_slice(),
        &["grow", "--size", "24MiB"],
        &["--json", "grow", "--size", "24MiB", "--yes"],
        &["status"],
        &["chat", "list"],
    ] {
        stage.types(words).await;
    }
}

async fn played(mut stage: Stage) -> Vec<Played> {
    story(&mut stage).await;
    stage.transcript
}

/// One test, because the ordinary vault's story is told once and held against all others.
#[tokio::test(start_paused = true)]
async fn every_command_shows_in_a_cover_what_it_shows_in_an_ordinary_vault() {
    let plain = played(ordinary().await).await;
    every_command_is_in(&plain);
    let worked = plain.iter().filter(|played| played.code == 0).count();
    assert!(worked * 2 > plain.len(), "{worked} of {} commands worked", plain.len());
    let others = [
        ("a cover that hides", cover("hide").await),
        ("a cover that destroys", cover("destroy").await),
        ("a passphrase for a part", part().await),
    ];
    let mut found = Vec::new();
    for (name, stage) in others {
        found.extend(difference(&plain, &played(stage).await).map(|told| format!("{name}, {told}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A new command does not come into the program without coming into the story.
fn every_command_is_in(story: &[Played]) {
    for (command, reason) in LEFT_OUT {
        assert!(commands().contains(command) && !reason.is_empty(), "{command} is left out and not there");
    }
    for command in commands() {
        let wanted: Vec<&str> = command.split(' ').collect();
        let is_typed = story.iter().any(|played| {
            let words = played.command.split(' ').filter(|word| !["--json", "--offline"].contains(word));
            words.take(wanted.len()).eq(wanted.iter().copied())
        });
        let left_out = LEFT_OUT.iter().any(|(left, _)| *left == command);
        assert!(is_typed != left_out, "{command}: add it to the story of this file");
    }
}

/// The comparison sees a difference where there is one.
#[tokio::test(start_paused = true)]
async fn a_vault_that_shows_more_is_told_apart() {
    let (mut plain, mut more) = (ordinary().await, layered().await);
    for stage in [&mut plain, &mut more] {
        stage.curtain();
        stage.types(&["relay", "list"]).await;
    }
    assert_eq!(difference(&plain.transcript, &more.transcript), None);
    for stage in [&mut plain, &mut more] {
        stage.types(&["compartment", "list"]).await;
    }
    assert!(difference(&plain.transcript, &more.transcript).is_some());
}
