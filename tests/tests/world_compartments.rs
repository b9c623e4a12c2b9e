//! Compartments that are deleted, and passphrases beside each other, over real vault files.

#![expect(clippy::unwrap_used, reason = "scenario tests")]
#![expect(clippy::disallowed_methods, reason = "a vault's file is set back as somebody else would")]

use lapwing::{
    cli::prompt::Answer,
    client::Client,
    engine::{
        Command, Reply,
        moving::{self, MoveReply, MoveStep},
        view,
    },
};
use lapwing_tests::{
    transcript::Stage,
    world::{Person, calm},
};

const SECOND: &str = "a kettle whistles over the meadow";

fn ana(stage: &mut Stage) -> &mut Person {
    &mut stage.ana
}

fn bo(stage: &mut Stage) -> &mut Person {
    &mut stage.bo
}

/// A vault with `main`, in which ana is known, and `work`, in which bo is.
async fn two_rooms(seed: u64) -> Stage {
    let mut stage = Stage::new(seed).await;
    let first = Answer::passphrase(&stage.passphrase);
    let made = stage.answers(&["init", "--size", "8MiB"], [first]).await;
    assert_eq!(made.code, 0, "{made}");
    let access = stage.access();
    stage.must(&["relay", "add", &access]).await;
    stage.must(&["compartment", "create", "work"]).await;
    stage.must(&["relay", "add", &access, "--compartment", "work"]).await;
    stage.meets(ana, "main").await;
    stage.meets(bo, "work").await;
    stage.must(&["send", "bo", "the plan is under the floor"]).await;
    stage.settles(bo).await;
    stage
}

async fn mailboxes(stage: &Stage) -> u64 {
    let service = stage.world.net.with_relay(stage.relay, |relay| relay.service());
    service.totals(stage.world.clock.now()).await.unwrap().mailboxes
}

/// The names that a command lists first in each line below the head.
fn first_column(text: &str) -> Vec<&str> {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_deleted_compartment_is_gone_and_its_mailboxes_are_closed() {
    let mut stage = two_rooms(901).await;
    let before = mailboxes(&stage).await;
    let told = stage.must(&["compartment", "delete", "work", "--yes"]).await;
    assert!(!told.stderr.contains("warning"), "{told}");
    // The chat's, and the one that shows that the compartment lives there, at least.
    assert!(mailboxes(&stage).await <= before - 2, "{before} before, {} after", mailboxes(&stage).await);
    assert_eq!(first_column(&stage.must(&["compartment", "list"]).await.stdout), ["main"]);
    assert_eq!(first_column(&stage.must(&["chat", "list"]).await.stdout), ["ana"]);
    // Whoever writes there learns that nobody receives any more; whoever writes elsewhere does not.
    stage.bo.say("owner", "are you there");
    stage.settles(bo).await;
    assert_eq!(stage.bo.unsent("owner"), ["are you there"]);
    stage.ana.say("owner", "good evening");
    stage.settles(ana).await;
    assert!(stage.ana.unsent("owner").is_empty());
    assert!(stage.must(&["read", "ana"]).await.stdout.contains("good evening"));
    // The room is free again: three more, as in a vault that never had it.
    for name in ["one", "two", "three"] {
        stage.must(&["compartment", "create", name]).await;
    }
    assert_eq!(stage.types(&["compartment", "create", "four"]).await.code, 5);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_without_the_relay_says_what_stays_there() {
    let mut stage = two_rooms(902).await;
    stage.world.net.take_down(stage.relay).await;
    let told = stage.must(&["compartment", "delete", "work", "--yes"]).await;
    assert!(told.stderr.contains("stay until they expire"), "{told}");
    stage.world.net.bring_back(stage.relay);
    assert_eq!(first_column(&stage.must(&["compartment", "list"]).await.stdout), ["main"]);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_killed_is_finished_by_the_next_command() {
    let mut stage = two_rooms(903).await;
    let mut client = stage.unlocks().await;
    assert!(client.delete_compartment(1).is_err(), "it was not left yet");
    client.vacate_compartment(1).unwrap_or_else(|error| panic!("{error}"));
    drop(client);
    assert_eq!(first_column(&stage.must(&["compartment", "list"]).await.stdout), ["main"]);
    let client = stage.unlocks().await;
    assert_eq!((client.compartments().len(), client.damaged()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_others_depend_on_is_not_deleted_and_the_refusal_says_what_to_do() {
    let mut stage = two_rooms(904).await;
    for (words, hint) in [
        (["compartment", "delete", "main", "--yes"].as_slice(), "lapwing chat list"),
        (&["compartment", "delete", "nowhere", "--yes"], "lapwing compartment list"),
    ] {
        let refused = stage.types(words).await;
        assert!(refused.code != 0 && refused.stderr.contains(hint), "{refused}");
    }
    // A plan shows it; a passphrase opens it; a group is in it: each has to go first, in any order.
    let plan = ["sos", "add", "--name", "gate 7", "--show", "work", "--do", "hide", "--no-alert", "--yes"];
    stage.must_set("seven quiet penguins ride north", &plan).await;
    let part = ["passphrase", "add", "--name", "part", "--show", "work"];
    stage.must_set("the otter juggles wet pebbles", &part).await;
    stage.must(&["group", "create", "march", "--as", "fern", "--compartment", "work"]).await;
    for (undo, hint) in [
        (["sos", "remove", "gate 7"].as_slice(), "lapwing sos remove 'gate 7'"),
        (&["passphrase", "remove", "part"], "lapwing passphrase remove part"),
        (&["group", "leave", "march", "--end"], "lapwing group leave"),
    ] {
        let refused = stage.types(&["compartment", "delete", "work", "--yes"]).await;
        assert!(refused.code == 5 && refused.stderr.contains(hint), "{refused}");
        stage.must(undo).await;
    }
    // A second passphrase for everything is no reason: it just does not open it any more.
    stage.must_set(SECOND, &["passphrase", "add"]).await;
    assert_eq!(stage.types(&["compartment", "delete", "work"]).await.code, 2, "nobody was asked");
    let unsure = stage.answers(&["compartment", "delete", "work"], [Answer::Confirm(false)]).await;
    assert_eq!(unsure.code, 1, "{unsure}");
    stage.must(&["compartment", "delete", "work", "--yes"]).await;
    for passphrase in [stage.passphrase.clone(), SECOND.to_owned()] {
        stage.passphrase = passphrase;
        let list = stage.must(&["compartment", "list"]).await;
        assert_eq!((first_column(&list.stdout), list.stderr.as_str()), (vec!["main"], ""));
    }
}

#[tokio::test(start_paused = true)]
async fn two_passphrases_for_everything_share_what_is_made_later_and_lose_nothing_of_each_other() {
    let mut stage = two_rooms(905).await;
    stage.must_set(SECOND, &["passphrase", "add", "--name", "second"]).await;
    let first = std::mem::replace(&mut stage.passphrase, SECOND.to_owned());
    stage.must(&["compartment", "create", "garden"]).await;
    // As many more as there is room for, made by the second: none takes the place of the first.
    for n in 3..=8 {
        stage.must_set(&format!("passphrase of the number {n}{n}{n}{n}{n}"), &["passphrase", "add"]).await;
    }
    let full = [Answer::passphrase("one more than there is room for")];
    assert_eq!(stage.answers(&["passphrase", "add"], full).await.code, 5);
    let second = std::mem::replace(&mut stage.passphrase, first);
    assert_eq!(first_column(&stage.must(&["compartment", "list"]).await.stdout), ["main", "work", "garden"]);
    assert!(stage.must(&["read", "bo"]).await.stdout.contains("under the floor"));
    // The first changes; the second knows it still, by its name, and can remove it.
    stage.must_set("granny bakes plum cake on sundays", &["passphrase", "change"]).await;
    stage.passphrase = second;
    assert!(stage.must(&["passphrase", "list"]).await.stdout.contains("first"));
    stage.must(&["passphrase", "remove", "first"]).await;
    stage.passphrase = "granny bakes plum cake on sundays".to_owned();
    assert_eq!(stage.types(&["status"]).await.code, 3);
    stage.passphrase = SECOND.to_owned();
    calm(&mut [&mut stage.ana]).await;
    stage.must(&["send", "ana", "still here"]).await;
}

/// Whether a further passphrase for `shown` is refused, in both ways to set one up, as one that could lead further.
async fn refuses_to_show(stage: &mut Stage, shown: &str) {
    let part = ["passphrase", "add", "--name", "late", "--show", shown];
    let plan = ["sos", "add", "--name", "late", "--show", shown, "--do", "hide", "--no-alert", "--yes"];
    for words in [part.as_slice(), &plan] {
        let told = stage.answers(words, [Answer::passphrase("a violet heron mends the roof")]).await;
        assert!(told.code == 5 && told.stderr.contains("has held a plan, or noted keys"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_compartment_that_has_noted_keys_is_not_shown_later() {
    for words in [
        ["compartment", "create", "extra"].as_slice(),
        &["passphrase", "add", "--name", "twin"],
        &["passphrase", "change"],
    ] {
        let mut stage = two_rooms(905).await;
        let owner = stage.passphrase.clone();
        stage.must_set(SECOND, &["passphrase", "add", "--name", "part", "--show", "work"]).await;
        // Nothing has noted anything there yet: it may be shown again.
        stage.must_set("the otter juggles wet pebbles", &["passphrase", "add", "--show", "work"]).await;
        // VLT-44: a session that knows nothing of `main` may take its room, or the owner's slots, by chance.
        let file = stage.beside("");
        let before = std::fs::read(&file).unwrap();
        let mut whole = false;
        for _ in 0..64 {
            std::fs::write(&file, &before).unwrap();
            stage.passphrase = SECOND.to_owned();
            let told = stage.answers(words, [Answer::passphrase("seven quiet penguins ride north")]).await;
            assert_eq!(told.code, 0, "{told}");
            stage.passphrase.clone_from(&owner);
            let list = stage.types(&["compartment", "list"]).await;
            whole = list.code == 0 && list.stdout.contains("main") && list.stderr.is_empty();
            if whole {
                break;
            }
        }
        assert!(whole, "the owner's part was overwritten every time");
        refuses_to_show(&mut stage, "work").await;
        if words.contains(&"create") {
            // Also when what was noted is gone.
            let mut client = stage.unlocks().await;
            let number = client.compartment(Some("extra")).unwrap_or_else(|error| panic!("{error}"));
            assert!(client.require_showable(&[1]).is_err() && client.require_showable(&[1, number]).is_ok());
            client.remove_passphrase("part").unwrap_or_else(|error| panic!("{error}"));
            client.vacate_compartment(number).unwrap_or_else(|error| panic!("{error}"));
            client.delete_compartment(number).unwrap_or_else(|error| panic!("{error}"));
            drop(client);
            refuses_to_show(&mut stage, "work").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_compartment_that_has_held_a_plan_is_not_shown_later() {
    let mut stage = two_rooms(906).await;
    stage.must(&["compartment", "create", "home"]).await;
    // Its trusted contact is in `work`, so it lies there.
    stage.must(&["trust", "add", "bo"]).await;
    stage.settles(bo).await;
    stage.bo.must(lapwing::engine::Command::TrustAccept { chat: "owner".into() });
    stage.settles(bo).await;
    stage.must(&["sync"]).await;
    let plan = ["sos", "add", "--name", "gate", "--show", "home", "--do", "hide", "--alert", "bo", "--yes"];
    let told = stage.must_set(SECOND, &[&plan[..], &["--text", "I was stopped"]].concat()).await;
    let client = stage.unlocks().await;
    let plans = client.plans().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plans.iter().map(|(home, _)| *home).collect::<Vec<_>>(), [1], "{told}");
    drop(client);
    stage.must(&["sos", "remove", "gate"]).await;
    refuses_to_show(&mut stage, "work").await;
    // What was only shown may be shown again.
    stage.must_set(SECOND, &["passphrase", "add", "--show", "home"]).await;
}

fn step(client: &mut Client, compartment: usize, step: MoveStep) -> MoveReply {
    let reply = client.command(compartment, Command::Moving(step)).map_err(|error| error.to_string());
    let moving = if let Reply::Moving(reply) = reply.unwrap() { Some(reply) } else { None };
    moving.unwrap()
}

#[tokio::test(start_paused = true)]
async fn mov_09_neither_end_of_a_move_is_deleted_before_the_chat_is_in_its_place() {
    let mut stage = two_rooms(907).await;
    for name in ["home", "garden"] {
        stage.must(&["compartment", "create", name]).await;
    }
    let access = stage.access();
    stage.must(&["relay", "add", &access, "--compartment", "home"]).await;
    // As far as a command comes that is killed right after the commit that decides: in neither.
    let mut client = stage.unlocks().await;
    let number =
        |client: &Client, name| client.compartment(Some(name)).unwrap_or_else(|error| panic!("{error}"));
    let (work, home, garden) = (number(&client, "work"), number(&client, "home"), number(&client, "garden"));
    let place = |client: &Client, number: usize| client.compartments()[number].place;
    let id = [7; 16];
    let ends = (moving::end(&id, &place(&client, work)), moving::end(&id, &place(&client, home)));
    let chats = client.read(work, view::chats).unwrap_or_else(|error| panic!("{error}"));
    let from = chats[0].id;
    let begin = MoveStep::Begin { id, from, source: ends.0, name: "bo".into(), is_open: true };
    let MoveReply::Chat(chat) = step(&mut client, home, begin) else { panic!("another reply") };
    assert!(client.require_deletable(work).is_err(), "the rest of it would stay for ever at the other end");
    let read = client.read(work, |unit| moving::messages(unit, from, 0));
    let messages = read.unwrap_or_else(|error| panic!("{error}")).unwrap().0;
    let MoveReply::Places(places) = step(&mut client, home, MoveStep::Take { chat, messages }) else {
        panic!("another reply")
    };
    let rest = client.read(work, |unit| moving::rest(unit, from)).unwrap_or_else(|error| panic!("{error}"));
    let (rest, places) = (Box::new(rest), places.into_iter().collect());
    step(&mut client, home, MoveStep::Stage { chat, name: "bo".into(), rest, places });
    step(&mut client, work, MoveStep::Depart { chat: from, id, target: ends.1 });
    for end in [work, home] {
        let Err(refused) = client.require_deletable(end) else { panic!("it would be lost with {end}") };
        assert!(refused.to_string().contains("on its way") && refused.hint().contains("lapwing sync"));
        assert!(client.vacate_compartment(end).is_err());
    }
    assert!(client.require_deletable(garden).is_ok());
    drop(client);
    assert!(stage.must(&["read", "bo"]).await.stdout.contains("under the floor"));
    stage.must(&["compartment", "delete", "work", "--yes"]).await;
    assert!(stage.must(&["read", "bo"]).await.stdout.contains("under the floor"));
    stage.must(&["compartment", "delete", "home", "--yes"]).await;
}
