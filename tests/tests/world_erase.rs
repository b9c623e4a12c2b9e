//! What is erased is gone from the records, and everything else is as it was: messages, drafts, chats that are deleted while
//! others write, whatever the network or a crash does.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapwing::{
    engine::{
        Command, Fault, Reply,
        group::GroupCommand,
        view::{self, ChatState},
    },
    store::{Base, BodyKeyName, BodyKeyRow, DraftRow, ErasingRow, MessageRow, OpRow, Order, SeenRow, Unit},
};
use lapwing_protocol::timer::Lifetime;
use lapwing_tests::world::{
    Crash, Fate, Faults, Person, World, calm,
    company::{group, let_in},
    introduce,
    records::{assert_in_order, holds, mark_read, raw, texts},
    vault,
};
use lapwing_wire::{frame::RequestBody, time::Timestamp};
use rand_core::RngCore;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn lifetime(span: Duration) -> Option<Lifetime> {
    Some(Lifetime::of(span).unwrap())
}

fn set_timer(person: &mut Person, chat: &str, lifetime: Option<Lifetime>) {
    person.must(Command::SetTimer { chat: chat.to_owned(), lifetime });
}

fn counts(person: &Person, chat: &str) -> Option<Lifetime> {
    person.chat(chat).timer
}

#[tokio::test(start_paused = true)]
async fn era_04_an_erased_message_does_not_leave_and_one_that_left_stays_with_others() {
    let mut world = World::new(78);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    introduce(&mut alice, &mut bob).await;
    let left = alice.say("bob", "has left");
    calm(&mut [&mut alice, &mut bob]).await;
    world.net.take_down(b).await;
    let first = alice.say("bob", "one");
    alice.say("bob", "two");
    let third = alice.say("bob", "three");
    let erase = |orders: &[Order]| Command::Erase { chat: "bob".into(), orders: orders.to_vec() };
    // All or none.
    let before = raw(&alice);
    assert!(matches!(alice.command(erase(&[first, 99_999])), Err(Fault::UnknownMessage)));
    assert_eq!(raw(&alice), before);
    let Reply::Erased { withdrawn } = alice.must(erase(&[left, first, third])) else {
        panic!("another reply")
    };
    assert_eq!(withdrawn, 2);
    assert_eq!(texts(&alice, "bob"), ["two"]);
    assert_in_order(&alice, "after erasing");
    world.net.bring_back(b);
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["has left", "two"]);
    assert!(matches!(alice.command(erase(&[first])), Err(Fault::UnknownMessage)));
}

#[tokio::test(start_paused = true)]
async fn clearing_a_chat_erases_its_messages_and_draft_and_keeps_the_contact() {
    let mut world = World::new(79);
    let (mut alice, mut bob) = world.acquainted().await;
    for number in 0..3 {
        alice.say("bob", &format!("old {number}"));
    }
    calm(&mut [&mut alice, &mut bob]).await;
    world.clock.advance(3 * DAY);
    bob.say("alice", "new");
    calm(&mut [&mut alice, &mut bob]).await;
    let keep = |text: &str| Command::Draft { chat: "bob".into(), text: text.into() };
    alice.must(keep("first version"));
    alice.must(keep("second version"));
    assert_in_order(&alice, "with a draft");
    let key = alice.rows::<BodyKeyRow>()[0].1.name;
    alice.must(Command::Clear { chat: "bob".into(), older: Some(2 * DAY) });
    assert_eq!(texts(&alice, "bob"), ["new"]);
    assert!(alice.base().body_key(&key).unwrap().is_none(), "the key of a day without messages is destroyed");
    assert_in_order(&alice, "after clearing what is old");
    let id = alice.chat("bob").id;
    let draft = alice.look(|unit| view::draft(unit, &id)).unwrap();
    assert_eq!(draft.text.into_exposed(), "second version");
    alice.must(Command::Clear { chat: "bob".into(), older: None });
    assert!(alice.lines("bob").is_empty() && !alice.chat("bob").draft);
    assert!(alice.rows::<BodyKeyRow>().is_empty());
    assert_in_order(&alice, "after clearing all");
    bob.say("alice", "still there?");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(alice.heard("bob"), ["still there?"]);
}

#[tokio::test(start_paused = true)]
async fn era_03_clearing_what_is_old_leaves_what_is_newer_than_an_unfinished_clearing_of_all() {
    let mut world = World::new(91);
    let (mut alice, _bob) = world.acquainted().await;
    let chat = alice.chat("bob").id;
    for limited in [false, true] {
        alice.say("bob", "old");
        let upto = alice.say("bob", "also old");
        alice.say("bob", "new");
        // As a command leaves it that was killed before its first step.
        let base = alice.base();
        let mut unit = Unit::new(&*base);
        let before = limited.then(|| world.clock.now().plus(HOUR));
        unit.put(&chat, &ErasingRow { upto, before, after: 0, whole: false });
        base.commit(unit.into_changes()).unwrap();
        alice.must(Command::Clear { chat: "bob".into(), older: Some(2 * DAY) });
        assert_eq!(texts(&alice, "bob"), ["new"]);
        assert_in_order(&alice, "after both");
        alice.must(Command::Clear { chat: "bob".into(), older: None });
    }
}

#[tokio::test(start_paused = true)]
async fn a_draft_stays_until_it_is_sent_and_then_is_a_message_only() {
    let mut world = World::new(80);
    let (mut alice, mut bob) = world.acquainted().await;
    let send = || Command::SendDraft { chat: "bob".into() };
    assert!(matches!(alice.command(send()), Err(Fault::NoDraft)));
    alice.must(Command::Draft { chat: "bob".into(), text: "think about it".into() });
    assert!(matches!(
        alice.command(Command::Draft { chat: "bob".into(), text: " ".into() }),
        Err(Fault::EmptyText)
    ));
    calm(&mut [&mut alice, &mut bob]).await;
    assert!(bob.heard("alice").is_empty() && alice.chat("bob").draft);
    alice.must(send());
    assert!(!alice.chat("bob").draft && alice.rows::<DraftRow>().is_empty());
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["think about it"]);
    assert_in_order(&alice, "after sending");
    assert!(matches!(alice.command(Command::DeleteDraft { chat: "bob".into() }), Err(Fault::NoDraft)));
}

#[tokio::test(start_paused = true)]
async fn era_05_a_deleted_chat_leaves_nothing_and_its_mailbox_is_closed_when_its_relay_is_back() {
    let mut world = World::new(81);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    introduce(&mut alice, &mut bob).await;
    set_timer(&mut alice, "bob", lifetime(DAY));
    bob.say("alice", "from bob");
    alice.say("bob", "from alice");
    alice.must(Command::Draft { chat: "bob".into(), text: "half a thought".into() });
    calm(&mut [&mut alice, &mut bob]).await;
    world.net.take_down(a).await;
    world.net.take_down(b).await;
    alice.say("bob", "not sent");
    let id = alice.chat("bob").id;
    let keys: Vec<BodyKeyName> = alice.rows::<BodyKeyRow>().iter().map(|(_, row)| row.name).collect();
    assert!(holds(&alice, id.as_bytes()) && holds(&alice, b"bob"));
    alice.must(Command::Delete { chat: "bob".into(), leave: false });
    assert!(!holds(&alice, id.as_bytes()), "no record names the chat");
    assert!(!holds(&alice, b"bob"), "no record has its name");
    assert!(keys.iter().all(|key| alice.base().body_key(key).unwrap().is_none()));
    assert!(matches!(alice.look(|unit| view::chat(unit, "bob")), Err(Fault::UnknownChat)));
    assert_in_order(&alice, "after deleting");
    // Only the closing waits for the relay.
    assert_eq!(alice.rows::<OpRow>().len(), 1);
    world.net.bring_back(a);
    world.net.bring_back(b);
    alice.sync().await;
    assert!(alice.rows::<OpRow>().is_empty());
    bob.say("alice", "are you there?");
    bob.sync().await;
    assert_eq!(bob.unsent("alice"), ["are you there?"]);
    alice.sync().await;
    assert!(alice.look(view::chats).unwrap().is_empty());
    // A new ticket begins anew.
    let ticket = alice.invite("bob");
    alice.sync().await;
    bob.join(&ticket, "alice again");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(alice.chat("bob").state, ChatState::Open);
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_sent_before_the_chat_was_deleted_shows_nowhere() {
    let mut world = World::new(82);
    let (mut alice, mut bob) = world.acquainted().await;
    bob.say("alice", "while you delete");
    bob.sync().await;
    alice.must(Command::Delete { chat: "bob".into(), leave: false });
    calm(&mut [&mut alice, &mut bob]).await;
    assert!(alice.look(view::chats).unwrap().is_empty() && alice.rows::<MessageRow>().is_empty());
    // The sender is told no earlier than with the next message.
    assert!(bob.unsent("alice").is_empty());
    bob.say("alice", "after");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.unsent("alice"), ["after"]);
    // What the program itself cannot tell any more is said.
    set_timer(&mut bob, "alice", lifetime(HOUR));
    calm(&mut [&mut alice, &mut bob]).await;
    let last = bob.notes("alice").pop().unwrap();
    assert!(last.starts_with("does not receive here any more"), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_was_only_invited_or_joined_is_deleted_too() {
    let mut world = World::new(83);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    alice.sync().await;
    bob.join(&ticket, "alice");
    let (invited, joined) = (alice.chat("bob").id, bob.chat("alice").id);
    bob.must(Command::Delete { chat: "alice".into(), leave: false });
    alice.must(Command::Delete { chat: "bob".into(), leave: false });
    calm(&mut [&mut alice, &mut bob]).await;
    assert!(!holds(&alice, invited.as_bytes()) && !holds(&bob, joined.as_bytes()));
    assert!(alice.rows::<OpRow>().is_empty() && bob.rows::<OpRow>().is_empty());
    // The ticket is worth nothing any more, and says so.
    bob.join(&ticket, "alice");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.chat("alice").state, ChatState::Failed);
}

#[tokio::test(start_paused = true)]
async fn era_06_a_chat_that_somebody_counts_on_is_not_deleted() {
    let mut world = World::new(84);
    let (mut alice, mut bob) = world.acquainted().await;
    alice.must(Command::TrustAdd { chat: "bob".into() });
    calm(&mut [&mut alice, &mut bob]).await;
    let delete = |chat: &str| Command::Delete { chat: chat.into(), leave: false };
    assert!(matches!(alice.command(delete("bob")), Err(Fault::TrustedChat)));
    assert!(matches!(bob.command(delete("alice")), Err(Fault::TrustedChat)));
    alice.must(Command::TrustRemove { chat: "bob".into() });
    // The end of the trust is still told, though the chat goes before a relay has heard of it.
    alice.must(delete("bob"));
    calm(&mut [&mut alice, &mut bob]).await;
    assert!(bob.notes("alice").contains(&"does not need you as a trusted contact any more".to_owned()));
    bob.must(delete("alice"));
    alice.group(GroupCommand::Create { name: "march".into(), alias: "alice".into(), relay: None });
    assert!(matches!(alice.command(delete("march")), Err(Fault::StillMember)));
}

#[tokio::test(start_paused = true)]
async fn a_group_is_left_and_deleted_and_the_others_learn_that_it_was_left() {
    let mut world = World::new(86);
    let (mut alice, mut bob, mut dia) = group(&mut world).await;
    let_in(&mut alice, &mut dia).await;
    bob.say("march", "good bye");
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    let id = bob.chat("march").id;
    // The owner does not leave without ending it.
    assert!(matches!(
        alice.command(Command::Delete { chat: "march".into(), leave: true }),
        Err(Fault::OwnerLeaves)
    ));
    assert!(bob.command(Command::Delete { chat: "march".into(), leave: false }).is_err());
    bob.must(Command::Delete { chat: "march".into(), leave: true });
    assert!(!holds(&bob, id.as_bytes()));
    assert_in_order(&bob, "after deleting the group");
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    assert!(dia.notes("march").iter().any(|note| note.starts_with("bob left the group")));
    // He can come back, as somebody new.
    let_in(&mut alice, &mut bob).await;
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    alice.say("march", "welcome back");
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    assert_eq!(bob.heard("march"), ["welcome back"]);
}

/// A chat with messages, a draft and a timer on alice's side.
async fn lively(seed: u64) -> (World, Person, Person) {
    let mut world = World::new(seed);
    let (mut alice, mut bob) = world.acquainted().await;
    alice.say("bob", "before the timer");
    set_timer(&mut alice, "bob", lifetime(HOUR));
    calm(&mut [&mut alice, &mut bob]).await;
    for number in 0..3 {
        bob.say("alice", &format!("canary {number}"));
        alice.say("bob", &format!("answer {number}"));
    }
    alice.must(Command::Draft { chat: "bob".into(), text: "half".into() });
    calm(&mut [&mut alice, &mut bob]).await;
    alice.say("bob", "not sent");
    (world, alice, bob)
}

#[tokio::test(start_paused = true)]
async fn era_03_a_crash_at_any_commit_of_an_erasure_ends_before_or_after() {
    let erase_all = || Command::Clear { chat: "bob".into(), older: None };
    let delete = || Command::Delete { chat: "bob".into(), leave: false };
    let commands: [(&str, &dyn Fn() -> Command); 2] = [("clear", &erase_all), ("delete", &delete)];
    for (name, command) in commands {
        let (_world, mut alice, _bob) = lively(87).await;
        alice.restart();
        alice.must(command());
        let count = alice.base().commits();
        assert!(count >= 3, "the erasure of {name} takes several commits");
        for at in 1..=count {
            for kept in [false, true] {
                let what = format!("{name} at commit {at}, kept: {kept}");
                let (_world, mut alice, mut bob) = lively(87).await;
                let id = alice.chat("bob").id;
                let names: Vec<BodyKeyName> =
                    alice.rows::<BodyKeyRow>().iter().map(|(_, row)| row.name).collect();
                alice.restart();
                alice.base().crash_at(Crash { at, kept });
                // The first commit decides; of what is decided and not finished people are told (ERA-07).
                let told = alice.command(command()).map(|_| ());
                assert_eq!(matches!(told, Err(Fault::NotErased(_))), at > 1, "{what}: {told:?}");
                assert!(told.is_err(), "{what}");
                alice.restart();
                let (driver, compartment) = alice.driver();
                driver.sweep(&compartment).unwrap();
                assert_in_order(&alice, &what);
                let decided = at > 1 || kept;
                for key in &names {
                    assert_eq!(alice.base().body_key(key).unwrap().is_none(), decided, "{what}: keys");
                }
                match (decided, name) {
                    (true, "delete") => assert!(!holds(&alice, id.as_bytes()), "{what}"),
                    (true, _) => assert!(alice.lines("bob").is_empty(), "{what}"),
                    (false, _) => assert_eq!(alice.lines("bob").len(), 9, "{what}"),
                }
                calm(&mut [&mut alice, &mut bob]).await;
                let sent = bob.heard("alice").contains(&"not sent".to_owned());
                assert_eq!(sent, !decided, "{what}: what had not left");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_one_commit_of_messages_is_erased_whole() {
    let mut world = World::new(89);
    let (mut alice, mut bob) = world.acquainted().await;
    let mut last = 0;
    for number in 0..1100 {
        last = alice.say("bob", &format!("message {number}"));
    }
    alice.must(Command::Erase { chat: "bob".into(), orders: vec![last] });
    assert_eq!(alice.chat("bob").waiting, 1099);
    alice.must(Command::Clear { chat: "bob".into(), older: None });
    assert_eq!(alice.chat("bob").waiting, 0);
    assert_in_order(&alice, "after clearing");
    assert!(alice.rows::<OpRow>().is_empty() && alice.rows::<MessageRow>().is_empty());
    set_timer(&mut alice, "bob", lifetime(HOUR));
    for number in 0..1100 {
        alice.say("bob", &format!("timed {number}"));
    }
    world.clock.advance(HOUR);
    let (driver, compartment) = alice.driver();
    driver.sweep(&compartment).unwrap();
    assert!(texts(&alice, "bob").is_empty());
    assert_in_order(&alice, "after the hour");
    calm(&mut [&mut alice, &mut bob]).await;
    assert!(bob.heard("alice").is_empty());
}

/// Anything, in any order, on a bad network: in the end the records are in order, both sides keep messages equally long,
/// and nothing that was erased is there.
#[tokio::test(start_paused = true)]
async fn whatever_happens_erased_messages_stay_erased_and_records_in_order() {
    for seed in 0..6 {
        let mut world = World::new(90_000 + seed);
        let (alice, bob) = world.acquainted().await;
        let mut rng = world.rng();
        let mut people = [(alice, "bob"), (bob, "alice")];
        let mut erased: [Vec<String>; 2] = [Vec::new(), Vec::new()];
        let mut said = 0;
        world.net.set_faults(Faults::BAD);
        for _ in 0..50 {
            let who = usize::try_from(rng.next_u32() % 2).unwrap();
            let (person, chat) = &mut people[who];
            if person.base().is_dead() {
                person.restart();
            }
            match rng.next_u32() % 16 {
                0..=5 => {
                    said += 1;
                    let _ =
                        person.command(Command::Send { chat: (*chat).into(), text: format!("text {said}") });
                }
                6 => {
                    let wanted = [None, Some(Lifetime::MIN), lifetime(HOUR), lifetime(DAY)];
                    let lifetime = wanted[usize::try_from(rng.next_u32() % 4).unwrap()];
                    let _ = person.command(Command::SetTimer { chat: (*chat).into(), lifetime });
                }
                7 => {
                    let id = person.chat(chat).id;
                    let found = person.look(|unit| unit.scan::<MessageRow>(id.as_bytes())).unwrap();
                    if let Some(((_, order), _)) = found.first() {
                        let text = texts(person, chat).first().cloned();
                        let command = Command::Erase { chat: (*chat).into(), orders: vec![*order] };
                        let first_is_text = person.lines(chat)[0].writer != "program";
                        if person.command(command).is_ok() && first_is_text {
                            erased[who].extend(text);
                        }
                    }
                }
                8 => {
                    let there = texts(person, chat);
                    if person.command(Command::Clear { chat: (*chat).into(), older: None }).is_ok() {
                        erased[who].extend(there);
                    }
                }
                9 => world.clock.advance(HOUR / 6),
                10 => {
                    let _ = person.command(Command::Draft { chat: (*chat).into(), text: "draft".into() });
                }
                11 => {
                    let at = 1 + rng.next_u64() % 6;
                    person.restart();
                    person.base().crash_at(Crash { at, kept: rng.next_u32().is_multiple_of(2) });
                }
                12 if !person.base().is_dead() => mark_read(person, chat),
                _ => {
                    person.settle().await;
                }
            }
        }
        world.net.set_faults(Faults::default());
        for (person, _) in &mut people {
            person.restart();
        }
        let [(alice, _), (bob, _)] = &mut people;
        calm(&mut [alice, bob]).await;
        assert_eq!(counts(alice, "bob"), counts(bob, "alice"), "seed {seed}");
        for (who, (person, chat)) in people.iter().enumerate() {
            let what = format!("seed {seed}, {chat}'s peer");
            assert_in_order(person, &what);
            assert!(person.rows::<OpRow>().is_empty(), "{what}");
            for text in &erased[who] {
                assert!(!texts(person, chat).contains(text), "{what}: {text} came back");
            }
        }
    }
}

/// As long as what this answers is set, relays take what somebody stores and their answers are lost.
fn unanswered(world: &World, person: &Person) -> Arc<AtomicBool> {
    let silent = Arc::new(AtomicBool::new(true));
    let (client, unanswered) = (person.client, Arc::clone(&silent));
    let append = |body: &RequestBody| matches!(body, RequestBody::Append { .. });
    world.net.set_script(Some(Box::new(move |from, body| {
        let lost = from == client && unanswered.load(Ordering::Relaxed) && append(body);
        if lost { Fate::TimedOut } else { Fate::Answered }
    })));
    silent
}

#[tokio::test(start_paused = true)]
async fn rnw_08_what_was_erased_before_a_move_does_not_come_back_after_it() {
    let mut world = World::new(745);
    let (mut vault, mut bob) = vault::friends(&mut world).await;
    // The relay has it and alice reads it; bob never learns that it left.
    let silent = unanswered(&world, &bob);
    bob.say("alice", "burn after reading");
    bob.sync().await;
    vault.main.sync().await;
    assert_eq!(vault.main.heard("bob").last().unwrap(), "burn after reading");
    vault.main.must(Command::Clear { chat: "bob".into(), older: None });
    vault.move_chat("bob").unwrap();
    assert_eq!(vault.main.rows::<SeenRow>().len(), 0);
    vault.other.sync().await;
    // He hears of the new identity first, and writes all that waits again for its session.
    bob.sync().await;
    assert_eq!(bob.unsent("alice"), ["burn after reading"]);
    silent.store(false, Ordering::Relaxed);
    bob.say("alice", "and this is new");
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert!(bob.unsent("alice").is_empty());
    assert_eq!(vault.other.heard("bob"), ["and this is new"]);
}

#[tokio::test(start_paused = true)]
async fn rnw_08_what_disappeared_on_its_way_to_another_compartment_does_not_come_back_there() {
    let mut world = World::new(749);
    let (mut vault, mut bob) = vault::friends(&mut world).await;
    let silent = unanswered(&world, &bob);
    // The relay has it and alice reads it, under a timer that bob has not heard of.
    bob.say("alice", "burn after reading");
    bob.sync().await;
    set_timer(&mut vault.main, "bob", lifetime(HOUR));
    vault.main.sync().await;
    mark_read(&mut vault.main, "bob");
    assert_eq!(vault.main.heard("bob").last().unwrap(), "burn after reading");
    vault.main.restart();
    vault.main.base().crash_at(Crash { at: 1, kept: true });
    vault.move_chat("bob").unwrap_err();
    // Its time ends where it is staged, and nobody opens the source.
    world.clock.advance(2 * HOUR);
    vault.other.restart();
    let staged = vault.other.rows::<MessageRow>().len();
    let (driver, compartment) = vault.other.driver();
    driver.sweep(&compartment).unwrap();
    assert!(vault.other.rows::<MessageRow>().len() < staged);
    vault.restart();
    assert_eq!(vault.places(), (0, 1));
    vault.other.sync().await;
    bob.sync().await;
    assert_eq!(bob.unsent("alice"), ["burn after reading"]);
    silent.store(false, Ordering::Relaxed);
    bob.say("alice", "and this is new");
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert!(bob.unsent("alice").is_empty());
    assert_eq!(vault.other.heard("bob"), ["before too", "and this is new"]);
}

#[tokio::test(start_paused = true)]
async fn mov_03_moved_texts_lie_under_keys_of_the_days_on_which_they_came_and_die_with_them() {
    let mut world = World::new(750);
    let (mut vault, mut bob) = vault::friends(&mut world).await;
    vault.main.must(Command::Draft { chat: "bob".into(), text: "for later".into() });
    world.clock.advance(2 * DAY);
    bob.say("alice", "on another day");
    calm(&mut [&mut vault.main, &mut bob]).await;
    world.clock.advance(DAY);
    vault.move_chat("bob").unwrap();
    let id = vault.other.chat("bob").id;
    let key_of = |person: &Person, stored: Timestamp| {
        let day = stored.as_millis() / u64::try_from(DAY.as_millis()).unwrap();
        person.look(|unit| unit.get::<BodyKeyRow>(&(id, day))).unwrap().map(|row| row.name)
    };
    let messages = vault.other.rows::<MessageRow>();
    for ((_, order), row) in &messages {
        assert_eq!(key_of(&vault.other, row.stored), Some(row.key), "message {order}");
    }
    let (_, draft) = &vault.other.rows::<DraftRow>()[0];
    assert_eq!(key_of(&vault.other, draft.stored), Some(draft.key));
    let keys: Vec<BodyKeyName> = vault.other.rows::<BodyKeyRow>().iter().map(|(_, row)| row.name).collect();
    assert!(keys.len() >= 2);
    vault.other.must(Command::DeleteDraft { chat: "bob".into() });
    for ((_, order), _) in messages {
        vault.other.must(Command::Erase { chat: "bob".into(), orders: vec![order] });
        assert_in_order(&vault.other, "one by one");
    }
    assert!(vault.other.rows::<BodyKeyRow>().is_empty());
    for key in keys {
        assert!(vault.other.base().body_key(&key).unwrap().is_none());
    }
}
