//! Chats that go to another compartment: with all that belongs to them, over bad networks, through crashes at every commit
//! of either end, against relays, copies and peers who do the same.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lapwing::{
    engine::{
        Command, Effect, Fault, renewal,
        view::{self, ChatState},
    },
    store::{ContactRow, MailboxRow, MemoryBase, OpRow, Purpose, RenewalRow, Row, SpareKeyRow},
};
use lapwing_protocol::timer::Lifetime;
use lapwing_tests::world::{
    Crash, Fate, Faults, Person, RelayNumber, World, calm,
    company::{group, number, talk},
    introduce,
    records::{mark_read, raw, texts},
    vault::{Vault, friends},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn renewal_row(person: &Person, chat: &str) -> RenewalRow {
    let id = person.chat(chat).id;
    person.look(|unit| unit.get::<RenewalRow>(&id)).unwrap().unwrap()
}

fn carried(person: &Person, chat: &str) -> bool {
    let id = person.chat(chat).id;
    person.look(|unit| renewal::carried(unit, &id)).unwrap()
}

fn contact_row(person: &Person, chat: &str) -> ContactRow {
    let id = person.chat(chat).id;
    person.look(|unit| unit.get::<ContactRow>(&id)).unwrap().unwrap()
}

fn inbox(person: &Person, chat: &str) -> lapwing_wire::ids::MailboxId {
    contact_row(person, chat).inbox.unwrap()
}

fn has_note(person: &Person, chat: &str, words: &str) -> usize {
    person.notes(chat).iter().filter(|note| note.contains(words)).count()
}

/// What only this chat's records have.
fn traces(person: &Person, chat: &str) -> Vec<Vec<u8>> {
    let contact = contact_row(person, chat);
    let route = lapwing_protocol::route::Route::import(&contact.route.unwrap()).unwrap();
    vec![
        person.chat(chat).id.as_bytes().to_vec(),
        contact.inbox.unwrap().as_bytes().to_vec(),
        route.mailbox.as_bytes().to_vec(),
        chat.as_bytes().to_vec(),
    ]
}

#[tokio::test(start_paused = true)]
async fn mov_01_a_moved_chat_goes_on_with_all_that_belongs_to_it() {
    let mut world = World::new(700);
    let (mut vault, mut bob) = friends(&mut world).await;
    let hour = Some(Lifetime::from_secs(3600).unwrap());
    vault.main.must(Command::SetTimer { chat: "bob".into(), lifetime: hour });
    calm(&mut [&mut vault.main, &mut bob]).await;
    bob.say("alice", "read already");
    calm(&mut [&mut vault.main, &mut bob]).await;
    mark_read(&mut vault.main, "bob");
    bob.say("alice", "not read yet");
    calm(&mut [&mut vault.main, &mut bob]).await;
    vault.main.must(Command::Draft { chat: "bob".into(), text: "for later".into() });
    // Neither has left: alice has no network, and bob's lies at her relay.
    vault.main.say("bob", "waits here");
    bob.say("alice", "waits there");
    bob.sync().await;
    let (lines, before) = (vault.main.lines("bob"), vault.main.chat("bob"));
    let (safety, traces) = (number(&vault.main, "bob"), traces(&vault.main, "bob"));
    let (old, mail) = (contact_row(&vault.main, "bob"), inbox(&vault.main, "bob"));

    vault.move_chat("bob").unwrap();
    assert_eq!(vault.places(), (0, 1));
    vault.assert_clean(&traces, "moved");
    assert_eq!(vault.other.lines("bob"), lines);
    let after = vault.other.chat("bob");
    assert_eq!(
        (after.unread, after.waiting, after.verified, after.draft, after.timer, after.last),
        (before.unread, before.waiting, before.verified, before.draft, before.timer, before.last),
    );
    assert_eq!((after.unread, after.waiting, after.draft), (1, 1, true));
    let draft = vault.other.look(|unit| view::draft(unit, &after.id)).unwrap();
    assert_eq!(draft.text.into_exposed(), "for later");
    assert!(after.id != before.id, "nothing ties the two together");
    assert_ne!(contact_row(&vault.other, "bob").local, old.local);

    calm(&mut [&mut vault.other, &mut bob]).await;
    assert_eq!(vault.other.chat("bob").state, ChatState::Open);
    assert_eq!(bob.heard("alice").last().unwrap(), "waits here");
    assert_eq!(vault.other.heard("bob").last().unwrap(), "waits there");
    assert_eq!(has_note(&bob, "alice", "renewed the session, with a new key"), 1);
    assert!(bob.chat("alice").verified && vault.other.chat("bob").verified);
    assert_eq!(number(&vault.other, "bob"), number(&bob, "alice"));
    assert!(carried(&vault.other, "bob") && carried(&bob, "alice"), "they compared another number");
    bob.must(Command::Verify { chat: "alice".into(), equal: true });
    assert!(!carried(&bob, "alice"));
    assert_ne!(number(&vault.other, "bob"), safety);
    assert_ne!(inbox(&vault.other, "bob"), mail);
    talk(&mut vault.other, &mut bob, "there").await;
    assert_eq!(vault.places(), (0, 1));
    // What disappears does so there too.
    mark_read(&mut vault.other, "bob");
    world.clock.advance(Duration::from_secs(2 * 3600));
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert!(!texts(&vault.other, "bob").iter().any(|text| text == "not read yet"));
    assert!(texts(&vault.other, "bob").iter().any(|text| text == "before"), "that one had no timer");
    // A chat can go on to a third place, or back.
    vault.move_back("bob").unwrap();
    assert_eq!(vault.places(), (1, 0));
    calm(&mut [&mut vault.main, &mut bob]).await;
    talk(&mut vault.main, &mut bob, "back again").await;
    assert_eq!(number(&vault.main, "bob"), number(&bob, "alice"));
}

#[tokio::test(start_paused = true)]
async fn mov_08_the_mailbox_that_is_left_is_read_for_a_month_and_answers_as_before_for_ever() {
    let mut world = World::new(701);
    let (mut vault, mut bob) = friends(&mut world).await;
    let left = inbox(&vault.main, "bob");
    vault.move_chat("bob").unwrap();
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert!(vault.other.mailboxes_for(|purpose| matches!(purpose, Purpose::Direct(_))).contains(&left));
    for _ in 0..32 {
        world.clock.advance(DAY);
        vault.main.sync().await;
        calm(&mut [&mut vault.other, &mut bob]).await;
    }
    let kept = vault.other.mailboxes_for(|purpose| matches!(purpose, Purpose::Direct(_)));
    assert_eq!(kept, [inbox(&vault.other, "bob")]);
    let mut found = None;
    world
        .net
        .change_relay(RelayNumber(0), async |relay, _| found = Some(relay.mailbox(&left).await.is_some()))
        .await;
    assert_eq!(found, Some(true), "nobody can find out by writing to it");
    talk(&mut vault.other, &mut bob, "later").await;
}

#[tokio::test(start_paused = true)]
async fn mov_04_what_others_count_on_stays() {
    let mut world = World::new(702);
    let (mut vault, mut bob) = friends(&mut world).await;
    let there = raw(&vault.other).len();
    let refused = |vault: &mut Vault, chat: &str| vault.move_chat(chat).unwrap_err();
    assert!(matches!(refused(&mut vault, "nobody"), Fault::UnknownChat));
    vault.main.invite("carol");
    assert!(matches!(refused(&mut vault, "carol"), Fault::NotJoined));
    vault.main.must(Command::Delete { chat: "carol".into(), leave: false });
    // A name that is taken there.
    vault.other.invite("bob");
    assert!(matches!(refused(&mut vault, "bob"), Fault::NameTakenThere));
    vault.other.must(Command::Delete { chat: "bob".into(), leave: false });
    vault.other.sync().await;
    vault.main.sync().await;
    assert_eq!(raw(&vault.other).len(), there);
    // A trust, in either direction, and while it is only asked for.
    vault.main.must(Command::TrustAdd { chat: "bob".into() });
    assert!(matches!(refused(&mut vault, "bob"), Fault::TrustedChat));
    calm(&mut [&mut vault.main, &mut bob]).await;
    bob.must(Command::TrustAccept { chat: "alice".into() });
    calm(&mut [&mut vault.main, &mut bob]).await;
    assert!(matches!(refused(&mut vault, "bob"), Fault::TrustedChat));
    vault.main.must(Command::TrustRemove { chat: "bob".into() });
    // An unblocked chat has a mailbox that no relay has confirmed.
    vault.main.must(Command::Block { chat: "bob".into(), blocked: true });
    vault.main.must(Command::Block { chat: "bob".into(), blocked: false });
    assert!(matches!(refused(&mut vault, "bob"), Fault::MailboxWaits));
    calm(&mut [&mut vault.main, &mut bob]).await;
    // No room there: what was begun goes again.
    vault.other.base().set_full(true);
    assert!(matches!(refused(&mut vault, "bob"), Fault::NoRoomThere));
    vault.other.base().set_full(false);
    vault.restart();
    assert_eq!(vault.places(), (1, 0));
    calm(&mut [&mut vault.main, &mut bob]).await;
    talk(&mut vault.main, &mut bob, "as ever").await;
    vault.move_chat("bob").unwrap();
    calm(&mut [&mut vault.other, &mut bob]).await;
    talk(&mut vault.other, &mut bob, "at last").await;
}

#[tokio::test(start_paused = true)]
async fn mov_04_groups_stay_and_what_is_not_settled_with_them() {
    let mut world = World::new(703);
    let (mut alice, mut bob, mut dia) = group(&mut world).await;
    alice.group(lapwing::engine::group::GroupCommand::Invite { group: "march".into(), chat: "dia".into() });
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    let mut other = Person::with_records(&mut world, "other", Arc::new(MemoryBase::default()));
    other.sync().await;
    let mut vault = Vault { main: alice, other };
    assert!(matches!(vault.move_chat("march"), Err(Fault::GroupStays)));
    assert!(matches!(vault.move_chat("dia"), Err(Fault::InvitationWaits)));
    assert!(matches!(vault.move_chat("bob"), Err(Fault::NoRelayThere)));
    vault.other.add_relay(&world, RelayNumber(0));
    vault.move_chat("bob").unwrap();
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
    talk(&mut vault.other, &mut bob, "between two").await;
    // The group does not know of it.
    vault.main.say("march", "to all");
    calm(&mut [&mut vault.main, &mut bob]).await;
    assert_eq!(bob.heard("march"), ["to all"]);
}

/// A move with one misfortune, then messages both ways.
async fn moved(world: &mut World, meddle: impl FnOnce(&mut Vault, &mut Person)) -> (Vault, Person) {
    let (mut vault, mut bob) = friends(world).await;
    bob.say("alice", "on its way");
    bob.sync().await;
    vault.main.say("bob", "not sent yet");
    for person in [&mut vault.main, &mut vault.other, &mut bob] {
        person.restart();
    }
    meddle(&mut vault, &mut bob);
    for round in 0..60 {
        assert!(round < 59, "they never get there");
        let outcome = vault.move_chat("bob");
        let dead = [&vault.main, &vault.other].into_iter().any(|person| person.base().is_dead());
        if dead {
            vault.restart();
        }
        // Whatever it was: the chat is in one place.
        let (here, there) = vault.places();
        assert_eq!(here + there, 1, "{outcome:?}");
        if there == 1 {
            break;
        }
    }
    for (person, chat, text) in [(&mut vault.other, "bob", "a one"), (&mut bob, "alice", "b one")] {
        let written = |person: &Person| person.lines(chat).iter().any(|line| line.text == text);
        for _ in 0..3 {
            if !person.base().is_dead() && !written(person) {
                let _ = person.command(Command::Send { chat: chat.to_owned(), text: text.to_owned() });
            }
            if person.base().is_dead() {
                person.restart();
            }
        }
        assert!(written(person));
    }
    for _ in 0..12 {
        for person in [&mut vault.main, &mut vault.other, &mut bob] {
            person.settle().await;
            if person.base().is_dead() {
                person.restart();
            }
        }
    }
    vault.restart();
    bob.restart();
    (vault, bob)
}

async fn assert_moved(vault: &mut Vault, bob: &mut Person, what: &str) {
    calm(&mut [&mut vault.main, &mut vault.other, &mut *bob]).await;
    assert_eq!(vault.places(), (0, 1), "{what}");
    vault.assert_clean(&[b"bob".to_vec()], what);
    assert_eq!(vault.other.chat("bob").state, ChatState::Open, "{what}");
    let mut heard = bob.heard("alice");
    heard.sort();
    assert_eq!(heard, ["a one", "before", "not sent yet"], "{what}");
    let mut heard = vault.other.heard("bob");
    heard.sort();
    assert_eq!(heard, ["b one", "before too", "on its way"], "{what}");
    assert_eq!(has_note(bob, "alice", "renewed the session"), 1, "{what}");
    assert!(vault.other.unsent("bob").is_empty() && bob.unsent("alice").is_empty(), "{what}");
    talk(&mut vault.other, bob, "two").await;
    assert_eq!(number(&vault.other, "bob"), number(bob, "alice"), "{what}");
}

#[tokio::test(start_paused = true)]
async fn mov_02_a_crash_at_any_commit_of_any_end_leaves_the_chat_in_one_place() {
    let mut world = World::new(710);
    let (mut vault, mut bob) = moved(&mut world, |_, _| {}).await;
    let commits = [vault.main.commits(), vault.other.commits(), bob.commits()];
    assert_moved(&mut vault, &mut bob, "undisturbed").await;
    // The move itself is done after the first of these; what follows is like any renewal. A commit that is not kept is as if
    // the process had died after the one before.
    for (who, most) in [5, 11, 5].into_iter().enumerate() {
        assert!(commits[who] > most);
        for at in 1..=most {
            let mut world = World::new(71_000 + at);
            let (mut vault, mut bob) = moved(&mut world, |vault, bob| {
                let person = [&mut vault.main, &mut vault.other, bob].into_iter().nth(who).unwrap();
                person.base().crash_at(Crash { at, kept: false });
            })
            .await;
            let what = format!("end {who} at commit {at}");
            assert_moved(&mut vault, &mut bob, &what).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_survives_any_single_fault_of_the_network() {
    let mut world = World::new(720);
    let counting = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&counting);
    let net = Arc::clone(&world.net);
    let (mut vault, mut bob) = moved(&mut world, move |_, _| {
        net.set_script(Some(Box::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Fate::Answered
        })));
    })
    .await;
    assert_moved(&mut vault, &mut bob, "undisturbed").await;
    let requests = counting.load(Ordering::Relaxed);
    for (fate, step) in [(Fate::ReplyLost, 5), (Fate::Lost, 15), (Fate::TimedOut, 15), (Fate::Twice, 15)] {
        for at in (1..=requests.min(60)).step_by(step) {
            let mut world = World::new(72_000 + at);
            let net = Arc::clone(&world.net);
            let (mut vault, mut bob) = moved(&mut world, move |_, _| {
                let count = AtomicU64::new(0);
                net.set_script(Some(Box::new(move |_, _| {
                    if count.fetch_add(1, Ordering::Relaxed) + 1 == at { fate } else { Fate::Answered }
                })));
            })
            .await;
            assert_moved(&mut vault, &mut bob, &format!("{fate:?} at request {at}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mov_07_two_who_move_at_once_or_renew_meanwhile_lose_nothing() {
    for seed in 0..4 {
        let mut world = World::new(73_000 + seed);
        let (mut vault, mut bob) = friends(&mut world).await;
        let mut bobs = Person::with_records(&mut world, "bobs other", Arc::new(MemoryBase::default()));
        bobs.add_relay(&world, RelayNumber(1));
        bobs.sync().await;
        bob.say("alice", "b before");
        vault.main.say("bob", "a before");
        vault.move_chat("bob").unwrap();
        // The two cross: each sends before it has read the other.
        let peer = if seed % 3 == 2 {
            bob.must(Command::Renew { chat: "alice".into() });
            &mut bob
        } else {
            let (_, to) = bobs.driver();
            let (driver, from) = bob.driver();
            driver.move_chat(&from, &to, "alice", None).unwrap();
            &mut bobs
        };
        vault.other.say("bob", "a crossing");
        peer.say("alice", "b crossing");
        vault.other.settle().await;
        peer.settle().await;
        calm(&mut [&mut vault.main, &mut vault.other, &mut *peer]).await;
        for person in [&mut vault.other, &mut *peer] {
            let name = if person.name == "other" { "bob" } else { "alice" };
            assert_eq!(person.chat(name).state, ChatState::Open, "seed {seed}");
            assert!(!renewal_row(person, name).succeeds, "seed {seed}: both identities are new in the end");
        }
        let mut heard = peer.heard("alice");
        heard.sort();
        assert_eq!(heard, ["a before", "a crossing", "before"], "seed {seed}");
        let mut heard = vault.other.heard("bob");
        heard.sort();
        assert_eq!(heard, ["b before", "b crossing", "before too"], "seed {seed}");
        talk(&mut vault.other, peer, "settled").await;
        assert_eq!(number(&vault.other, "bob"), number(peer, "alice"), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_loses_the_announcement_keeps_nothing_from_arriving() {
    let mut world = World::new(740);
    let (mut vault, mut bob) = friends(&mut world).await;
    let relay = RelayNumber(1);
    let moment = world.net.with_relay(relay, |relay| relay.moment());
    vault.move_chat("bob").unwrap();
    vault.other.say("bob", "said meanwhile");
    vault.other.sync().await;
    // All of it was stored, and then it was not.
    world.net.change_relay(relay, async |relay, now| relay.roll_back(moment, now).await).await;
    bob.relays_lie = true;
    vault.other.relays_lie = true;
    vault.other.say("bob", "said later");
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert_eq!(vault.other.chat("bob").state, ChatState::Renewing);
    bob.say("alice", "still the old way");
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert_eq!(vault.other.heard("bob").last().unwrap(), "still the old way");
    world.clock.advance(DAY + Duration::from_secs(60));
    calm(&mut [&mut vault.other, &mut bob]).await;
    assert_eq!(vault.other.chat("bob").state, ChatState::Open);
    assert_eq!(bob.heard("alice"), ["before", "said meanwhile", "said later"]);
    talk(&mut vault.other, &mut bob, "found").await;
}

#[tokio::test(start_paused = true)]
async fn mov_05_and_mov_06_only_the_session_in_use_names_a_successor() {
    let mut world = World::new(741);
    let (mut vault, mut bob) = friends(&mut world).await;
    // A thief has all of the first compartment, as it was before the move.
    let stolen = vault.main.copy_of_records();
    let mut thief = Person::with_records(&mut world, "thief", stolen);
    let mut hideout = Person::with_records(&mut world, "hideout", Arc::new(MemoryBase::default()));
    hideout.add_relay(&world, RelayNumber(0));
    vault.move_chat("bob").unwrap();
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
    talk(&mut vault.other, &mut bob, "moved").await;
    let before = number(&bob, "alice");
    // He moves it as well, or renews it.
    let (_, to) = hideout.driver();
    let (driver, from) = thief.driver();
    driver.move_chat(&from, &to, "bob", None).unwrap();
    bob.effects.clear();
    for _ in 0..3 {
        hideout.settle().await;
        bob.settle().await;
    }
    assert_eq!(number(&bob, "alice"), before);
    assert_eq!(hideout.chat("bob").state, ChatState::Renewing);
    assert!(bob.effects.iter().any(|effect| matches!(effect, Effect::Refused)));
    talk(&mut vault.other, &mut bob, "undisturbed").await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_from_before_the_move_is_refused_by_name() {
    let mut world = World::new(742);
    let (mut vault, mut bob) = friends(&mut world).await;
    let stolen = vault.main.copy_of_records();
    let mut thief = Person::with_records(&mut world, "thief", stolen);
    vault.move_chat("bob").unwrap();
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
    thief.must(Command::Renew { chat: "bob".into() });
    for _ in 0..3 {
        thief.settle().await;
        bob.settle().await;
    }
    assert_eq!(thief.chat("bob").state, ChatState::Failed);
    assert_eq!(has_note(&bob, "alice", "was refused"), 1);
    talk(&mut vault.other, &mut bob, "still ours").await;
}

#[tokio::test(start_paused = true)]
async fn a_chat_can_be_moved_again_before_the_peer_has_answered() {
    let mut world = World::new(743);
    let (mut vault, mut bob) = friends(&mut world).await;
    vault.move_chat("bob").unwrap();
    vault.other.say("bob", "from the second");
    assert!(matches!(vault.move_back("bob"), Err(Fault::MailboxWaits)));
    vault.other.sync().await;
    vault.move_back("bob").unwrap();
    vault.main.say("bob", "from the first");
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
    assert_eq!(vault.main.chat("bob").state, ChatState::Open);
    assert!(!renewal_row(&vault.main, "bob").succeeds);
    assert_eq!(bob.heard("alice"), ["before", "from the second", "from the first"]);
    talk(&mut vault.main, &mut bob, "home").await;
    assert_eq!(number(&vault.main, "bob"), number(&bob, "alice"));
}

#[tokio::test(start_paused = true)]
async fn blocked_and_ended_chats_move_with_what_they_are() {
    let mut world = World::new(744);
    let (mut vault, mut bob) = friends(&mut world).await;
    let old = contact_row(&vault.main, "bob").local;
    vault.main.must(Command::Block { chat: "bob".into(), blocked: true });
    calm(&mut [&mut vault.main, &mut bob]).await;
    vault.move_chat("bob").unwrap();
    assert!(vault.other.chat("bob").blocked);
    assert_eq!(texts(&vault.other, "bob"), ["before", "before too"]);
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
    // Nothing was told to anybody; it is when the chat lives again.
    assert_eq!(contact_row(&vault.other, "bob").local, old);
    vault.other.must(Command::Block { chat: "bob".into(), blocked: false });
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
    assert_ne!(contact_row(&vault.other, "bob").local, old);
    talk(&mut vault.other, &mut bob, "unblocked").await;
    assert_eq!(number(&vault.other, "bob"), number(&bob, "alice"));
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_for_months_and_nothing_is_lost() {
    let mut world = World::new(745);
    let (mut vault, mut bob) = friends(&mut world).await;
    vault.move_chat("bob").unwrap();
    vault.other.say("bob", "on the first day");
    for day in 1..80 {
        world.clock.advance(DAY);
        if day % 20 == 0 {
            vault.other.say("bob", &format!("on day {day}"));
        }
        vault.other.sync().await;
    }
    assert_eq!(vault.other.chat("bob").state, ChatState::Renewing);
    let renewed = vault.other.command(Command::Renew { chat: "bob".into() });
    assert!(matches!(renewed, Err(Fault::RenewalWaits)));
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
    let mut heard = bob.heard("alice");
    heard.sort();
    assert_eq!(heard, ["before", "on day 20", "on day 40", "on day 60", "on the first day"]);
    talk(&mut vault.other, &mut bob, "at last").await;
    assert_eq!(number(&vault.other, "bob"), number(&bob, "alice"));
}

#[tokio::test(start_paused = true)]
async fn moves_over_a_bad_network_lose_nothing() {
    for seed in 0..3 {
        let mut world = World::new(75_000 + seed);
        let (mut vault, mut bob) = friends(&mut world).await;
        world.net.set_faults(Faults::BAD);
        let mut home = true;
        for round in 0..4 {
            let moved = if home { vault.move_chat("bob") } else { vault.move_back("bob") };
            match moved {
                Ok(()) => home = !home,
                Err(Fault::MailboxWaits) => {}
                Err(fault) => panic!("{fault}"),
            }
            let at = if home { &mut vault.main } else { &mut vault.other };
            at.say("bob", &format!("a {round}"));
            bob.say("alice", &format!("b {round}"));
            for _ in 0..8 {
                vault.main.settle().await;
                vault.other.settle().await;
                bob.settle().await;
            }
        }
        world.net.set_faults(Faults::default());
        calm(&mut [&mut vault.main, &mut vault.other, &mut bob]).await;
        let at = if home { &mut vault.main } else { &mut vault.other };
        let mut heard = bob.heard("alice");
        heard.sort();
        assert_eq!(heard, ["a 0", "a 1", "a 2", "a 3", "before"], "seed {seed}");
        let mut heard = at.heard("bob");
        heard.sort();
        assert_eq!(heard, ["b 0", "b 1", "b 2", "b 3", "before too"], "seed {seed}");
        talk(at, &mut bob, "calm again").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_chat_is_moved_whole_and_what_is_cut_off_is_erased() {
    let mut world = World::new(746);
    let (mut vault, mut bob) = friends(&mut world).await;
    let c = world.relay().await;
    let mut carol = world.person("carol", &[c]);
    introduce(&mut vault.other, &mut carol).await;
    for n in 0..300 {
        vault.main.must(Command::Draft { chat: "bob".into(), text: format!("draft {n}") });
        vault.main.say("bob", &format!("line {n}"));
    }
    let before = vault.main.lines("bob");
    // Counters only count up; the spare key is made once, for all chats.
    let lasts = |kind: u8| kind == 0 || kind == SpareKeyRow::TABLE;
    let records = |vault: &Vault| raw(&vault.other).iter().filter(|record| !lasts(record[0])).count();
    let keys = records(&vault);
    for at in 1..=3 {
        vault.other.base().crash_at(Crash { at: vault.other.base().commits() + at, kept: true });
        vault.move_chat("bob").unwrap_err();
        vault.restart();
        assert_eq!(vault.places(), (1, 0), "commit {at}");
        assert_eq!(records(&vault), keys, "commit {at}");
    }
    vault.move_chat("bob").unwrap();
    assert_eq!(vault.other.lines("bob"), before);
    vault.assert_clean(&[b"bob".to_vec()], "long");
    assert!(vault.other.rows::<OpRow>().len() > 300);
    calm(&mut [&mut vault.main, &mut vault.other, &mut bob, &mut carol]).await;
    assert_eq!(bob.heard("alice").len(), 301);
    assert!(vault.other.rows::<MailboxRow>().len() > 2);
}
