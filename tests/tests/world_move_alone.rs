//! Moves that were killed, after which somebody opens one of the two compartments alone, and moves that cannot be whole:
//! nothing is at work in two places, and nothing is lost.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::time::Duration;

use lapwing::{
    driver::Driver,
    engine::{Command, Fault},
    store::{Base, BodyKeyName, BodyKeyRow, FileRow, MessageRow, SpareKeyRow},
};
use lapwing_tests::world::{
    Crash, Person, RelayNumber, World, calm,
    company::talk,
    introduce,
    records::{assert_in_order, raw, texts},
    vault::{Vault, friends},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A process that knows one end only: it unlocks, takes what came, and ends.
async fn alone(person: &mut Person) {
    person.restart();
    let (driver, compartment) = person.driver();
    driver.sweep(&compartment).unwrap();
    driver.finish_moves(std::slice::from_ref(&compartment)).unwrap();
    person.settle().await;
    person.restart();
}

#[tokio::test(start_paused = true)]
async fn mov_01_mov_09_whoever_opens_one_end_after_a_kill_forks_nothing_and_loses_nothing() {
    let mut all = [0, 0];
    for (who, source_first) in [(0, true), (1, true), (1, false)] {
        for at in 1.. {
            let what = format!("end {who} died after commit {at}, source first: {source_first}");
            let mut world = World::new(73_000 + at);
            let (mut vault, mut bob) = friends(&mut world).await;
            bob.say("alice", "on its way");
            bob.sync().await;
            vault.main.say("bob", "not sent yet");
            vault.main.restart();
            vault.other.restart();
            let dying = if who == 0 { &vault.main } else { &vault.other };
            dying.base().crash_at(Crash { at, kept: true });
            let killed = vault.move_chat("bob").is_err();
            let dead = [&vault.main, &vault.other].into_iter().any(|person| person.base().is_dead());
            if !killed && !dead {
                break;
            }
            all[who] = all[who].max(at);
            vault.main.restart();
            vault.other.restart();
            for (end, text) in [(source_first, "between"), (!source_first, "and again")] {
                alone(if end { &mut vault.main } else { &mut vault.other }).await;
                let (here, there) = vault.places();
                assert!(here + there <= 1, "{what}: in two places");
                bob.say("alice", text);
                bob.settle().await;
            }
            vault.restart();
            let (here, there) = vault.places();
            assert_eq!(here + there, 1, "{what}");
            if here == 1 {
                assert!(vault.other.rows::<MessageRow>().is_empty(), "{what}: undone");
                vault.main.settle().await;
                vault.move_chat("bob").unwrap();
            }
            calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
            assert_eq!(vault.places(), (0, 1), "{what}");
            vault.assert_clean(&[b"bob".to_vec()], &what);
            let mut heard = vault.other.heard("bob");
            heard.sort();
            assert_eq!(heard, ["and again", "before too", "between", "on its way"], "{what}");
            assert_eq!(bob.heard("alice"), ["before", "not sent yet"], "{what}");
            talk(&mut vault.other, &mut bob, "after all").await;
        }
    }
    // Begun, messages, what waits, the rest; shown, another identity, what waits, forgotten.
    assert!(all[0] >= 2 && all[1] >= 8, "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn mov_02_what_was_not_decided_goes_although_the_chat_was_deleted_at_the_source_meanwhile() {
    let mut world = World::new(747);
    let (mut vault, mut bob) = friends(&mut world).await;
    vault.main.restart();
    vault.main.base().crash_at(Crash { at: 1, kept: false });
    vault.move_chat("bob").unwrap_err();
    alone(&mut vault.main).await;
    vault.main.must(Command::Delete { chat: "bob".into(), leave: false });
    // The target cannot know yet, and shows nothing of it.
    alone(&mut vault.other).await;
    assert_eq!(vault.places(), (0, 0));
    assert!(!vault.other.rows::<MessageRow>().is_empty());
    vault.restart();
    assert!(vault.other.rows::<MessageRow>().is_empty());
    vault.assert_clean(&[b"bob".to_vec()], "deleted");
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
}

#[tokio::test(start_paused = true)]
async fn mov_09_a_target_without_room_shows_the_chat_when_there_is_some_and_its_name_may_be_taken() {
    let mut world = World::new(748);
    let (mut vault, mut bob) = friends(&mut world).await;
    vault.main.say("bob", "not sent yet");
    vault.main.restart();
    vault.main.base().crash_at(Crash { at: 1, kept: true });
    vault.move_chat("bob").unwrap_err();
    vault.main.restart();
    vault.other.restart();
    vault.other.invite("bob");
    vault.other.base().set_full(true);
    assert!(matches!(vault.unlock(), Err(Fault::ArrivalWaits)));
    assert_eq!(vault.places(), (0, 1), "the other bob");
    vault.other.base().set_full(false);
    vault.unlock().unwrap();
    assert_eq!(vault.places(), (0, 2));
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["before", "not sent yet"]);
    bob.say("alice", "to the one with a number");
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert_eq!(vault.other.heard("bob 2"), ["before too", "to the one with a number"]);
    vault.other.must(Command::Delete { chat: "bob".into(), leave: false });
    vault.assert_clean(&[b"bob".to_vec()], "with a number");
}

#[tokio::test(start_paused = true)]
async fn mov_09_a_chat_that_waits_for_room_is_deleted_by_its_name_with_all_that_came_of_it() {
    let mut world = World::new(774);
    let (mut vault, mut bob) = friends(&mut world).await;
    vault.main.say("bob", "not sent yet");
    vault.main.must(Command::Draft { chat: "bob".into(), text: "for later".into() });
    vault.main.restart();
    vault.main.base().crash_at(Crash { at: 1, kept: true });
    vault.move_chat("bob").unwrap_err();
    vault.main.restart();
    vault.other.restart();
    let ends = [vault.main.driver().1, vault.other.driver().1];
    let waiting = Driver::waiting_arrivals(&ends, " bob ").unwrap();
    let [(1, chat)] = waiting[..] else { panic!("{waiting:?}") };
    assert_eq!(Driver::waiting_arrivals(&ends, "eve").unwrap(), []);
    // Who opens the other end alone is not told of it.
    assert_eq!(Driver::waiting_arrivals(&ends[1..], "bob").unwrap(), []);
    let (driver, to) = vault.other.driver();
    driver.delete_arrival(&to, chat).unwrap();
    driver.sweep(&to).unwrap();
    vault.unlock().unwrap();
    assert_eq!(vault.places(), (0, 0));
    assert!(vault.other.rows::<MessageRow>().is_empty() && vault.other.rows::<BodyKeyRow>().is_empty());
    vault.assert_clean(&[b"bob".to_vec()], "deleted");
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["before"], "what was not sent is not sent");
    vault.assert_clean(&[b"bob".to_vec()], "and its mailboxes closed");
}

#[tokio::test(start_paused = true)]
async fn mov_09_of_two_chats_of_one_name_that_wait_for_room_each_is_found_where_it_waits() {
    let mut world = World::new(775);
    let (mut vault, _bob) = friends(&mut world).await;
    let mut eve = world.person("eve", &[RelayNumber(0)]);
    introduce(&mut vault.other, &mut eve).await;
    vault.main.restart();
    vault.main.base().crash_at(Crash { at: 1, kept: true });
    vault.move_chat("bob").unwrap_err();
    vault.main.restart();
    vault.other.restart();
    vault.other.must(Command::Rename { chat: "eve".into(), name: "bob".into() });
    vault.other.restart();
    vault.other.base().crash_at(Crash { at: 1, kept: true });
    vault.move_back("bob").unwrap_err();
    vault.main.restart();
    vault.other.restart();
    let ends = [vault.main.driver().1, vault.other.driver().1];
    let waiting = Driver::waiting_arrivals(&ends, "bob").unwrap();
    let [(0, first), (1, _)] = waiting[..] else { panic!("{waiting:?}") };
    // The one that is meant goes, and no other.
    let (driver, to) = vault.main.driver();
    driver.delete_arrival(&to, first).unwrap();
    let waiting = Driver::waiting_arrivals(&ends, "bob").unwrap();
    assert!(matches!(waiting[..], [(1, _)]), "{waiting:?}");
}

#[tokio::test(start_paused = true)]
async fn mov_01_a_chat_is_shown_there_before_what_it_left_is_erased() {
    let mut died = 0;
    for at in 2.. {
        let mut world = World::new(76_000 + at);
        let (mut vault, mut bob) = friends(&mut world).await;
        vault.main.restart();
        vault.main.base().crash_at(Crash { at, kept: false });
        let moved = vault.move_chat("bob");
        if !vault.main.base().is_dead() {
            moved.unwrap();
            break;
        }
        died = at;
        // Nothing was opened in between: whoever opens the target alone finds it.
        vault.main.restart();
        vault.other.restart();
        assert_eq!(vault.places(), (0, 1), "commit {at}");
        vault.restart();
        vault.assert_clean(&[b"bob".to_vec()], "finished");
        calm(&mut [&mut vault.other, &mut bob]).await;
        talk(&mut vault.other, &mut bob, "as ever").await;
    }
    assert!(died >= 3, "departure forgotten, the rest erased: {died}");
}

#[tokio::test(start_paused = true)]
async fn mov_02_a_draft_that_was_not_to_come_leaves_the_key_of_all_chats() {
    let mut world = World::new(770);
    let (mut vault, _bob) = friends(&mut world).await;
    vault.main.must(Command::Draft { chat: "bob".into(), text: "for later".into() });
    vault.main.restart();
    vault.other.restart();
    // There is room for the key of all chats there, and for no other.
    vault.other.base().set_key_room(1);
    vault.main.base().crash_at(Crash { at: 1, kept: false });
    vault.move_chat("bob").unwrap_err();
    let sealed: Vec<_> = vault.other.rows::<SpareKeyRow>().into_iter().map(|((), row)| row).collect();
    let messages = u64::try_from(vault.other.rows::<MessageRow>().len()).unwrap();
    assert_eq!(sealed.iter().map(|row| row.bodies).collect::<Vec<_>>(), [messages + 1], "and the draft");
    vault.restart();
    assert_eq!(vault.places(), (1, 0));
    assert!(vault.other.base().body_key(&sealed[0].name).unwrap().is_none());
    assert_in_order(&vault.other, "undone");
}

/// The key of the day with this number, in which the chat has stored something.
fn key_of(person: &Person, day: usize) -> BodyKeyName {
    person.rows::<BodyKeyRow>()[day].1.name
}

/// The move is refused, and nothing of it stays at either end.
fn assert_stays(vault: &mut Vault) {
    let (driver, compartment) = vault.main.driver();
    driver.sweep(&compartment).unwrap();
    let (here, there) = (raw(&vault.main), raw(&vault.other).len());
    assert!(matches!(vault.move_chat("bob"), Err(Fault::DoesNotOpen)));
    assert_eq!(vault.places(), (1, 0));
    assert_eq!(raw(&vault.main), here, "the chat is as it was");
    // A counter, which only counts up, and the spare key, which is made once.
    assert!(raw(&vault.other).len() <= there + 2, "{} records more", raw(&vault.other).len() - there);
    assert!(vault.other.rows::<MessageRow>().is_empty() && vault.other.rows::<BodyKeyRow>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn mov_10_a_chat_of_which_something_does_not_open_stays_where_it_is() {
    let mut world = World::new(771);
    let (mut vault, mut bob) = friends(&mut world).await;
    world.clock.advance(DAY);
    talk(&mut vault.main, &mut bob, "on another day").await;
    world.clock.advance(DAY);
    vault.main.must(Command::Draft { chat: "bob".into(), text: "for later".into() });
    assert_eq!(vault.main.rows::<BodyKeyRow>().len(), 3);
    // A key that is damaged answers as one that was destroyed.
    let (first, last) = (key_of(&vault.main, 0), key_of(&vault.main, 2));
    let whole = vault.main.copy_of_records();
    vault.main.base().destroy_body_keys(&[first]).unwrap();
    assert_stays(&mut vault);
    // What could not be read may be read later, and then it goes with the chat.
    let mut later = Vault { main: Person::with_records(&mut world, "main", whole), other: vault.other };
    later.main.base().destroy_body_keys(&[last]).unwrap();
    assert_stays(&mut later);
    // So with the draft. What is given up is erased by its owner's word, and by nobody else's.
    later.main.must(Command::DeleteDraft { chat: "bob".into() });
    later.move_chat("bob").unwrap();
    assert_eq!(texts(&later.other, "bob")[..2], ["before", "before too"]);
    assert!(later.other.rows::<FileRow>().is_empty());
    // The other one lost its first day for good.
    let damaged = vault.main.rows::<MessageRow>().into_iter();
    let orders = damaged.filter(|(_, row)| row.key == first).map(|((_, order), _)| order).collect();
    vault.main.must(Command::Erase { chat: "bob".into(), orders });
    let mut vault = Vault { main: vault.main, other: later.main };
    vault.move_chat("bob").unwrap();
    assert_eq!(texts(&vault.other, "bob")[0], "a on another day");
}

#[tokio::test(start_paused = true)]
async fn mov_09_an_end_knows_of_a_chat_on_its_way_while_the_other_end_is_open() {
    for (seed, kept) in [(772, false), (773, true)] {
        let mut world = World::new(seed);
        let (mut vault, _bob) = friends(&mut world).await;
        vault.main.restart();
        vault.main.base().crash_at(Crash { at: 1, kept });
        vault.move_chat("bob").unwrap_err();
        vault.main.restart();
        vault.other.restart();
        let ends = [vault.main.driver().1, vault.other.driver().1];
        for end in &ends {
            assert!(Driver::is_on_the_way(&ends, end).unwrap());
            // Alone it says nothing of another one, and can be given up.
            assert!(!Driver::is_on_the_way(std::slice::from_ref(end), end).unwrap());
        }
        vault.restart();
        let ends = [vault.main.driver().1, vault.other.driver().1];
        assert!(ends.iter().all(|end| !Driver::is_on_the_way(&ends, end).unwrap()));
    }
}
