//! A vault that was copied, or put back to an older state, and what is no sign of that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapwing::{
    driver::{Next, Parting},
    engine::Effect,
    store::MarksRow,
};
use lapwing_tests::world::{Crash, Faults, Person, World, calm, company::talk};

use super::{friends, renew};

fn is_copied(person: &Person) -> bool {
    person.look(lapwing::engine::copies::copied).unwrap().is_some()
}

fn told_of_a_copy(person: &mut Person) -> usize {
    std::mem::take(&mut person.effects).iter().filter(|effect| matches!(effect, Effect::Copied)).count()
}

#[tokio::test(start_paused = true)]
async fn cpy_03_two_copies_of_a_vault_used_in_turn_are_noticed_by_both_and_renewing_ends_it() {
    let hours = Duration::from_secs(6 * 3_600);
    let mut world = World::new(391);
    let (mut alice, mut bob) = friends(&mut world).await;
    let disk = alice.copy_of_records();
    let mut copy = Person::with_records(&mut world, "copy", disk);
    assert!(!is_copied(&alice) && !is_copied(&copy), "nothing was used twice yet");
    world.clock.advance(hours);
    alice.say("bob", "from one");
    alice.sync().await;
    world.clock.advance(hours);
    copy.sync().await;
    assert_eq!(told_of_a_copy(&mut copy), 1);
    assert!(is_copied(&copy));
    // The other one hears of it as well, at once.
    copy.sync().await;
    alice.sync().await;
    assert_eq!(told_of_a_copy(&mut alice), 1);
    assert!(is_copied(&alice));
    // One of them is used on, and its sessions are begun anew.
    renew(&mut alice, "bob").unwrap();
    calm(&mut [&mut alice, &mut bob]).await;
    assert!(!is_copied(&alice));
    talk(&mut alice, &mut bob, "one place").await;
    for _ in 0..100 {
        world.clock.advance(hours);
        alice.sync().await;
    }
    assert!(!is_copied(&alice));
    assert_eq!(told_of_a_copy(&mut alice), 0);
}

/// Somebody puts a copy back that is minutes old: nothing but the vault itself has been used since.
#[tokio::test(start_paused = true)]
async fn cpy_06_an_older_state_that_is_put_back_finds_what_came_after_it() {
    for sessions in [1, 3, 100] {
        let mut world = World::new(393);
        let (mut alice, mut bob) = friends(&mut world).await;
        alice.restart();
        talk(&mut alice, &mut bob, "before").await;
        let disk = alice.copy_of_records();
        for number in 0..sessions {
            alice.restart();
            talk(&mut alice, &mut bob, &format!("after {number}")).await;
            world.clock.advance(Duration::from_secs(60));
        }
        assert_eq!(told_of_a_copy(&mut alice), 0);
        drop(alice);
        let mut back = Person::with_records(&mut world, "alice", disk);
        assert!(!is_copied(&back));
        back.settle().await;
        assert_eq!(told_of_a_copy(&mut back), 1, "after {sessions} sessions");
        renew(&mut back, "bob").unwrap();
        calm(&mut [&mut back, &mut bob]).await;
        assert!(!is_copied(&back));
        talk(&mut back, &mut bob, "one place").await;
    }
}

/// Stays connected while something else happens, and ends like this, or as a process that is killed. Answers how long that
/// took.
async fn follow(
    person: &mut Person,
    parting: Option<Parting>,
    meanwhile: impl Future<Output = ()>,
) -> Duration {
    let (driver, compartment) = person.driver();
    let (all, over) = ([compartment], AtomicBool::new(false));
    let mut decide = |_: &[(usize, Effect)]| if over.load(Ordering::Relaxed) { Next::End } else { Next::On };
    let meanwhile = async {
        meanwhile.await;
        over.store(true, Ordering::Relaxed);
    };
    futures_util::future::join(driver.follow(&all, &mut decide), meanwhile).await;
    let begin = tokio::time::Instant::now();
    if let Some(parting) = parting {
        driver.end_following(&all, parting).await;
    }
    let took = begin.elapsed();
    person.restart();
    took
}

/// Somebody copies the file while a command stays connected, and puts the copy back.
#[tokio::test(start_paused = true)]
async fn cpy_06_a_state_from_the_middle_of_a_long_session_finds_what_came_later() {
    for parting in [Some(Parting::Ended), Some(Parting::Asked), Some(Parting::Replaced), None] {
        let mut world = World::new(394);
        let (mut alice, mut bob) = friends(&mut world).await;
        alice.restart();
        let (base, clock) = (alice.base(), world.clock.clone());
        let mut disk = None;
        let took = follow(&mut alice, parting, async {
            for text in ["before", "after"] {
                tokio::time::sleep(Duration::from_secs(2)).await;
                bob.say("alice", text);
                bob.sync().await;
                tokio::time::sleep(Duration::from_secs(2)).await;
                disk.get_or_insert_with(|| Arc::new(base.disk().snapshot()));
            }
            if parting.is_none() {
                clock.advance(Duration::from_secs(600));
                tokio::time::sleep(Duration::from_secs(31)).await;
            }
        })
        .await;
        assert!(took < Duration::from_secs(1), "it waited for something else than its mark");
        assert_eq!(alice.heard("bob").last().unwrap(), "after");
        drop(alice);
        let mut back = Person::with_records(&mut world, "alice", disk.unwrap());
        assert_eq!(back.heard("bob").last().unwrap(), "before");
        back.settle().await;
        assert_eq!(told_of_a_copy(&mut back), 1, "ended by {parting:?}");
    }
}

/// A relay that has stopped to answer holds nobody up who waits for the vault, and the mark waits in the records.
#[tokio::test(start_paused = true)]
async fn cpy_06_the_last_mark_may_take_a_second_where_another_command_waits() {
    for (parting, limit) in [(Parting::Asked, 1_000), (Parting::Replaced, 2_000), (Parting::Ended, 2_000)] {
        let mut world = World::new(396);
        let (mut alice, mut bob) = friends(&mut world).await;
        alice.restart();
        let marks = |person: &Person| person.look(|unit| unit.get::<MarksRow>(&())).unwrap().unwrap().number;
        let before = marks(&alice);
        let took = follow(&mut alice, Some(parting), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            bob.say("alice", "the last");
            bob.sync().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            world.net.set_faults(Faults { delay: Duration::from_secs(3_600), ..Faults::default() });
        })
        .await;
        let took = took.as_millis();
        assert!((limit..limit + 10).contains(&took), "{parting:?}: {took} ms");
        // That of the beginning and this one.
        assert_eq!(marks(&alice), before + 2, "{parting:?}");
        world.net.set_faults(Faults::default());
        alice.settle().await;
        assert!(!is_copied(&alice));
    }
}

#[tokio::test(start_paused = true)]
async fn cpy_06_a_follower_leaves_no_more_marks_than_its_use_asks_for() {
    let mut world = World::new(395);
    let (mut alice, mut bob) = friends(&mut world).await;
    calm(&mut [&mut alice, &mut bob]).await;
    alice.restart();
    let (base, clock) = (alice.base(), world.clock.clone());
    let marks = || lapwing::store::Unit::new(&*base).get::<MarksRow>(&()).unwrap().unwrap().number;
    let pass = async |minutes: u64| {
        clock.advance(Duration::from_secs(60 * minutes));
        tokio::time::sleep(Duration::from_secs(31)).await;
    };
    let before = marks();
    let took = follow(&mut alice, Some(Parting::Ended), async {
        for _ in 0..5 {
            pass(60).await;
            assert_eq!(marks(), before + 1, "nothing is taken or sent");
        }
        for minute in 0..30 {
            bob.say("alice", "one a minute");
            bob.sync().await;
            pass(1).await;
            assert!(marks() <= before + 2 + minute / 10, "{minute}: {}", marks() - before);
        }
        assert!(marks() >= before + 3, "{}", marks() - before);
        pass(10).await;
        let idle = marks();
        for _ in 0..5 {
            pass(60).await;
            assert_eq!(marks(), idle, "nothing is taken or sent");
        }
    })
    .await;
    assert!(took < Duration::from_secs(1), "it waited for something else than its mark");
    assert!(marks() <= before + 5, "it ended without use");
    let idle = marks();
    assert!(!is_copied(&alice));
    // A command that does not stay leaves one, whatever it takes and sends after it.
    bob.say("alice", "another");
    bob.sync().await;
    alice.say("bob", "an answer");
    let base = alice.base();
    let marks = || lapwing::store::Unit::new(&*base).get::<MarksRow>(&()).unwrap().unwrap().number;
    for _ in 0..3 {
        alice.settle().await;
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(marks(), idle + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn cpy_01_crashes_lost_answers_and_relays_from_the_past_are_no_copy() {
    let hours = Duration::from_secs(6 * 3_600);
    let mut world = World::new(392);
    let (mut alice, mut bob) = friends(&mut world).await;
    let (a, b) = (lapwing_tests::world::RelayNumber(0), lapwing_tests::world::RelayNumber(1));
    alice.relays_lie = true;
    bob.relays_lie = true;
    let moment = world.net.with_relay(a, |relay| relay.moment());
    for round in 0..30 {
        world.clock.advance(hours);
        world.net.set_faults(Faults::BAD);
        alice.restart();
        alice.base().crash_at(Crash { at: 1 + round % 7, kept: round % 2 == 0 });
        alice.settle().await;
        if alice.base().is_dead() {
            alice.restart();
        }
        alice.settle().await;
        bob.settle().await;
        world.net.set_faults(Faults::default());
        if round % 10 == 9 {
            world.net.change_relay(a, async |relay, now| relay.roll_back(moment, now).await).await;
        }
        if round == 15 {
            world.net.change_relay(b, async |relay, now| relay.roll_back(0, now).await).await;
        }
    }
    alice.restart();
    for person in [&mut alice, &mut bob] {
        person.settle().await;
        assert_eq!(told_of_a_copy(person), 0, "{}", person.name);
        assert!(!is_copied(person));
    }
    // A relay that keeps every mark for longer than we remember them.
    let moment = world.net.with_relay(a, |relay| relay.moment());
    for _ in 0..100 {
        world.clock.advance(hours);
        alice.settle().await;
    }
    world.net.change_relay(a, async |relay, now| relay.roll_back(moment, now).await).await;
    alice.settle().await;
    alice.settle().await;
    assert_eq!(told_of_a_copy(&mut alice), 0);
}
