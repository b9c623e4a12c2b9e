//! Moves that were killed, after which somebody opens one of the two compartments alone: nothing is at work in two places,
//! and nothing is lost.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use lapwing::{
    engine::{Command, Fault},
    store::MessageRow,
};
use lapwing_tests::world::{Crash, Person, World, calm, company::talk, vault::friends};

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
