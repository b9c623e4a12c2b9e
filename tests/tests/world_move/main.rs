//! Sessions begun anew with a known contact: with one side, with both, twice, over bad networks, after crashes, against
//! relays and copies.

#![expect(clippy::unwrap_used, clippy::panic, reason = "scenario tests")]

mod copies;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lapwing::{
    engine::{Command, Effect, Fault, renewal, view::ChatState},
    store::{ContactRow, MailboxRow, MessageState, OpRow, Purpose, RenewalRow},
};
use lapwing_tests::world::{
    Crash, Fate, Faults, Person, World, calm,
    company::{number, talk},
    introduce,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn renew(person: &mut Person, chat: &str) -> Result<(), Fault> {
    person.command(Command::Renew { chat: chat.to_owned() }).map(|_| ())
}

fn verify(person: &mut Person, chat: &str) {
    person.must(Command::Verify { chat: chat.to_owned(), equal: true });
}

fn renewal_row(person: &Person, chat: &str) -> RenewalRow {
    let id = person.chat(chat).id;
    person.look(|unit| unit.get::<RenewalRow>(&id)).unwrap().unwrap()
}

fn has_note(person: &Person, chat: &str, words: &str) -> usize {
    person.notes(chat).iter().filter(|note| note.contains(words)).count()
}

fn direct_mailboxes(person: &Person) -> Vec<lapwing_wire::ids::MailboxId> {
    person.mailboxes_for(|purpose| matches!(purpose, Purpose::Direct(_)))
}

/// Two people who have talked, compared numbers, and hold each other's tickets.
async fn friends(world: &mut World) -> (Person, Person) {
    let (mut alice, mut bob) = world.acquainted().await;
    alice.say("bob", "before");
    bob.say("alice", "before too");
    calm(&mut [&mut alice, &mut bob]).await;
    verify(&mut alice, "bob");
    verify(&mut bob, "alice");
    (alice, bob)
}

#[tokio::test(start_paused = true)]
async fn rnw_01_contacts_hold_each_others_ticket_and_get_a_new_one_every_month() {
    let mut world = World::new(300);
    let (mut alice, mut bob) = friends(&mut world).await;
    for person in [(&alice, "bob"), (&bob, "alice")] {
        let row = renewal_row(person.0, person.1);
        assert!(row.ticket.is_some() && row.given.len() == 1, "{}", person.0.name);
        assert!(person.0.rows::<OpRow>().is_empty());
    }
    let first = renewal_row(&alice, "bob").ticket;
    let commits = alice.commits();
    alice.sync().await;
    assert_eq!(alice.commits(), commits, "nothing more to give");
    for month in 1..=9 {
        world.clock.advance(30 * DAY);
        calm(&mut [&mut alice, &mut bob]).await;
        let row = renewal_row(&alice, "bob");
        assert_eq!(row.given.len(), month + 1);
        // Six of them can be used; the older ones are closed and remembered.
        assert_eq!(row.given.iter().filter(|given| given.open).count(), (month + 1).min(6));
    }
    assert_ne!(renewal_row(&alice, "bob").ticket, first);
    talk(&mut alice, &mut bob, "later").await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_session_keeps_chat_name_history_and_verified_mark() {
    let mut world = World::new(301);
    let (mut alice, mut bob) = friends(&mut world).await;
    let before = number(&alice, "bob");
    let mailboxes = direct_mailboxes(&alice);
    renew(&mut alice, "bob").unwrap();
    assert!(matches!(renew(&mut alice, "bob"), Err(Fault::RenewalWaits)));
    assert_eq!(alice.chat("bob").state, ChatState::Renewing);
    assert_eq!(alice.look(renewal::renewals).unwrap().len(), 1);
    // What is written meanwhile goes with it.
    alice.say("bob", "meanwhile");
    alice.sync().await;
    assert_eq!(alice.chat("bob").state, ChatState::Renewing);
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(alice.chat("bob").state, ChatState::Open);
    assert_eq!(bob.heard("alice"), ["before", "meanwhile"]);
    assert_eq!(has_note(&bob, "alice", "renewed the session"), 1);
    assert_eq!(has_note(&alice, "bob", "the session is renewed"), 1);
    assert!(alice.chat("bob").verified && bob.chat("alice").verified);
    assert_eq!((number(&alice, "bob"), number(&bob, "alice")), (before.clone(), before));
    talk(&mut alice, &mut bob, "after").await;
    // Both hold a fresh ticket: the next renewal works as well, from either side.
    renew(&mut bob, "alice").unwrap();
    calm(&mut [&mut bob, &mut alice]).await;
    talk(&mut alice, &mut bob, "again").await;
    // The mailbox that was left is closed after some time, and nothing is lost by that.
    let all = direct_mailboxes(&alice);
    assert!(all.len() == 2 && all.contains(&mailboxes[0]));
    world.clock.advance(31 * DAY);
    calm(&mut [&mut alice, &mut bob]).await;
    let left = direct_mailboxes(&alice);
    assert!(left.len() == 1 && !left.contains(&mailboxes[0]));
    // RNW-05: the session before is gone by then.
    assert!(renewal_row(&alice, "bob").former.is_none());
    talk(&mut alice, &mut bob, "a month later").await;
}

#[tokio::test(start_paused = true)]
async fn rnw_05_what_was_on_its_way_under_the_old_session_arrives_once() {
    let mut world = World::new(302);
    let (mut alice, mut bob) = friends(&mut world).await;
    // Stored at alice's relay, and waiting at bob's side for it.
    bob.say("alice", "stored");
    bob.sync().await;
    renew(&mut alice, "bob").unwrap();
    bob.say("alice", "after she began");
    bob.sync().await;
    alice.sync().await;
    let a = lapwing_tests::world::RelayNumber(0);
    world.net.take_down(a).await;
    bob.say("alice", "unsent");
    bob.sync().await;
    assert_eq!(bob.unsent("alice"), ["unsent"]);
    world.net.bring_back(a);
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(alice.heard("bob"), ["before too", "stored", "after she began", "unsent"]);
    assert!(bob.unsent("alice").is_empty());
    talk(&mut alice, &mut bob, "after").await;
}

#[tokio::test(start_paused = true)]
async fn both_sides_renewing_at_once_end_in_one_session() {
    for seed in 0..8 {
        let mut world = World::new(303 + seed);
        let (mut alice, mut bob) = friends(&mut world).await;
        renew(&mut alice, "bob").unwrap();
        renew(&mut bob, "alice").unwrap();
        alice.say("bob", "a crossing");
        bob.say("alice", "b crossing");
        // In every order that two people can come online.
        for turn in 0..8 {
            if (seed >> (turn % 3)) & 1 == 0 {
                alice.sync().await
            } else {
                bob.sync().await
            };
        }
        calm(&mut [&mut alice, &mut bob]).await;
        assert_eq!(bob.heard("alice"), ["before", "a crossing"], "seed {seed}");
        assert_eq!(alice.heard("bob"), ["before too", "b crossing"], "seed {seed}");
        assert_eq!((alice.chat("bob").state, bob.chat("alice").state), (ChatState::Open, ChatState::Open));
        for round in 0..4 {
            talk(&mut alice, &mut bob, &format!("{round}")).await;
        }
        world.clock.advance(31 * DAY);
        calm(&mut [&mut alice, &mut bob]).await;
        talk(&mut alice, &mut bob, "a month later").await;
        renew(&mut alice, "bob").unwrap();
        calm(&mut [&mut alice, &mut bob]).await;
        talk(&mut alice, &mut bob, "renewed again").await;
    }
}

#[tokio::test(start_paused = true)]
async fn rnw_03_a_ticket_is_good_once_and_both_copies_are_told() {
    let mut world = World::new(320);
    let (mut alice, mut bob) = friends(&mut world).await;
    let copy = alice.copy_of_records();
    let mut thief = Person::with_records(&mut world, "thief", copy);
    renew(&mut alice, "bob").unwrap();
    calm(&mut [&mut alice, &mut bob]).await;
    talk(&mut alice, &mut bob, "renewed").await;
    let session = bob.rows::<ContactRow>()[0].1.session.clone();
    renew(&mut thief, "bob").unwrap();
    thief.say("bob", "it is me, alice");
    thief.sync().await;
    bob.sync().await;
    assert_eq!(bob.heard("alice"), ["before", "a renewed"]);
    assert_eq!(bob.rows::<ContactRow>()[0].1.session, session, "nothing changed");
    assert_eq!(has_note(&bob, "alice", "was refused"), 1);
    thief.sync().await;
    assert_eq!(thief.chat("bob").state, ChatState::Failed);
    assert_eq!(has_note(&thief, "bob", "invite anew"), 1);
    assert!(!thief.chat("bob").verified);
    let lines = thief.lines("bob");
    let words = lines.iter().find(|line| line.text == "it is me, alice").unwrap();
    assert_eq!(words.state, MessageState::Failed);
    let refused = thief.command(Command::Send { chat: "bob".into(), text: "hello?".into() });
    assert!(matches!(refused, Err(Fault::ContactFailed)));
    alice.sync().await;
    assert_eq!(has_note(&alice, "bob", "copy of your backup"), 1);
    // However often it is tried.
    for _ in 0..12 {
        let copy = thief.copy_of_records();
        let mut again = Person::with_records(&mut world, "again", copy);
        let _ = renew(&mut again, "bob");
        again.settle().await;
        bob.sync().await;
    }
    assert!(has_note(&bob, "alice", "was refused") <= 8);
    alice.relays_lie = true;
    calm(&mut [&mut alice, &mut bob]).await;
    talk(&mut alice, &mut bob, "still").await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_older_than_the_last_tickets_still_renews_and_one_older_than_all_is_refused() {
    for (months, works) in [(3, true), (9, false)] {
        let mut world = World::new(330 + months);
        let (mut alice, mut bob) = friends(&mut world).await;
        let old = alice.copy_of_records();
        for _ in 0..months {
            world.clock.advance(30 * DAY);
            calm(&mut [&mut alice, &mut bob]).await;
        }
        let mut restored = Person::with_records(&mut world, "alice", old);
        renew(&mut restored, "bob").unwrap();
        restored.settle().await;
        bob.sync().await;
        restored.settle().await;
        bob.sync().await;
        if works {
            assert_eq!(restored.chat("bob").state, ChatState::Open);
            talk(&mut restored, &mut bob, "after").await;
            assert_eq!(number(&restored, "bob"), number(&bob, "alice"));
        } else {
            assert_eq!(restored.chat("bob").state, ChatState::Failed);
            assert!(has_note(&restored, "bob", "invite anew") == 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rnw_07_a_handshake_that_a_relay_lost_is_sent_again_the_next_day() {
    let mut world = World::new(340);
    let (mut alice, mut bob) = friends(&mut world).await;
    let b = lapwing_tests::world::RelayNumber(1);
    let moment = world.net.with_relay(b, |relay| relay.moment());
    renew(&mut alice, "bob").unwrap();
    alice.sync().await;
    world.net.change_relay(b, async |relay, now| relay.roll_back(moment, now).await).await;
    bob.relays_lie = true;
    alice.relays_lie = true;
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(alice.chat("bob").state, ChatState::Renewing);
    // What is written before is not lost with it: it waits for the handshake.
    world.clock.advance(DAY + Duration::from_secs(60));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(alice.chat("bob").state, ChatState::Open);
    talk(&mut alice, &mut bob, "found").await;
    // Nobody answers for a month: the person is free to begin again.
    renew(&mut alice, "bob").unwrap();
    for _ in 0..31 {
        world.clock.advance(DAY);
        alice.sync().await;
    }
    assert_eq!(alice.chat("bob").state, ChatState::Renewing);
    renew(&mut alice, "bob").unwrap();
    calm(&mut [&mut alice, &mut bob]).await;
    talk(&mut alice, &mut bob, "at last").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_plays_again_renews_nothing() {
    let mut world = World::new(350);
    let (mut alice, mut bob) = friends(&mut world).await;
    let b = lapwing_tests::world::RelayNumber(1);
    renew(&mut alice, "bob").unwrap();
    alice.sync().await;
    let moment = world.net.with_relay(b, |relay| relay.moment());
    calm(&mut [&mut bob, &mut alice]).await;
    talk(&mut alice, &mut bob, "one").await;
    bob.relays_lie = true;
    // The mailbox is as it was when the handshake lay there, again and again.
    for _ in 0..3 {
        world.net.change_relay(b, async |relay, now| relay.roll_back(moment, now).await).await;
        calm(&mut [&mut bob, &mut alice]).await;
    }
    assert_eq!(has_note(&bob, "alice", "renewed the session"), 1);
    assert_eq!(bob.heard("alice"), ["before", "a one"]);
    talk(&mut alice, &mut bob, "two").await;
}

#[tokio::test(start_paused = true)]
async fn rnw_04_nobody_but_the_pinned_identity_can_use_a_ticket() {
    let mut world = World::new(351);
    let (mut alice, mut bob) = friends(&mut world).await;
    let c = world.relay().await;
    let mut carol = world.person("carol", &[c]);
    introduce(&mut bob, &mut carol).await;
    calm(&mut [&mut alice, &mut bob, &mut carol]).await;
    // Carol got hold of all that alice has for bob but her identity's private key.
    let alices = renewal_row(&alice, "bob");
    let route = alice.rows::<ContactRow>()[0].1.route.clone();
    let chat = carol.chat("bob").id;
    {
        let mut row = renewal_row(&carol, "bob");
        row.ticket = alices.ticket.clone();
        // The bundle is another identity's than the one she knows bob by.
        let peer = carol_sees(&alice, "bob");
        let base = carol.base();
        let mut unit = lapwing::store::Unit::new(&*base);
        let mut contact = unit.get::<ContactRow>(&chat).unwrap().unwrap();
        contact.route = route;
        contact.session = None;
        row.peer = Some(peer.to_vec().into());
        unit.put(&chat, &contact);
        unit.put(&chat, &row);
        lapwing::store::Base::commit(&*base, unit.into_changes()).unwrap();
    }
    renew(&mut carol, "bob").unwrap();
    carol.sync().await;
    bob.effects.clear();
    bob.sync().await;
    assert!(bob.effects.iter().any(|effect| matches!(effect, Effect::Refused)));
    assert_eq!(has_note(&bob, "alice", "renewed the session"), 0);
    // And the ticket is still alice's.
    renew(&mut alice, "bob").unwrap();
    calm(&mut [&mut alice, &mut bob]).await;
    talk(&mut alice, &mut bob, "genuine").await;
}

fn carol_sees(person: &Person, chat: &str) -> [u8; 32] {
    let id = person.chat(chat).id;
    let contact = person.look(|unit| unit.get::<ContactRow>(&id)).unwrap().unwrap();
    let session = lapwing_protocol::session::Session::import(&contact.session.unwrap()).unwrap();
    *session.peer().as_bytes()
}

/// A renewal with one misfortune, then messages both ways.
async fn renewed(world: &mut World, meddle: impl FnOnce(&mut Person, &mut Person)) -> (Person, Person) {
    let (mut alice, mut bob) = friends(world).await;
    alice.restart();
    bob.restart();
    meddle(&mut alice, &mut bob);
    for round in 0..60 {
        assert!(round < 59, "they never get there");
        for person in [&mut alice, &mut bob] {
            if person.base().is_dead() {
                person.restart();
            }
        }
        match renew(&mut alice, "bob") {
            Ok(()) | Err(Fault::RenewalWaits) => {}
            Err(Fault::Store(_)) => continue,
            Err(fault) => panic!("{fault}"),
        }
        break;
    }
    for (person, chat, text) in [(&mut alice, "bob", "a one"), (&mut bob, "alice", "b one")] {
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
        for person in [&mut alice, &mut bob] {
            person.settle().await;
            if person.base().is_dead() {
                person.restart();
            }
        }
    }
    alice.restart();
    bob.restart();
    (alice, bob)
}

async fn assert_renewed(alice: &mut Person, bob: &mut Person, what: &str) {
    calm(&mut [&mut *alice, &mut *bob]).await;
    assert_eq!(
        (alice.chat("bob").state, bob.chat("alice").state),
        (ChatState::Open, ChatState::Open),
        "{what}"
    );
    assert_eq!(bob.heard("alice"), ["before", "a one"], "{what}");
    assert_eq!(alice.heard("bob"), ["before too", "b one"], "{what}");
    assert_eq!(has_note(bob, "alice", "renewed the session"), 1, "{what}");
    assert_eq!(has_note(alice, "bob", "the session is renewed"), 1, "{what}");
    assert!(alice.unsent("bob").is_empty() && bob.unsent("alice").is_empty(), "{what}");
    talk(alice, bob, "two").await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_of_a_renewal_leaves_it_before_or_after() {
    let mut world = World::new(360);
    let (mut alice, mut bob) = renewed(&mut world, |_, _| {}).await;
    let commits = [alice.commits(), bob.commits()];
    assert_renewed(&mut alice, &mut bob, "undisturbed").await;
    for (who, count) in commits.into_iter().enumerate() {
        for at in 1..=count.min(40) {
            for kept in [false, true] {
                let mut world = World::new(36_000 + at);
                let (mut alice, mut bob) = renewed(&mut world, |alice, bob| {
                    let person = if who == 0 { alice } else { bob };
                    person.base().crash_at(Crash { at, kept });
                })
                .await;
                let what = format!("side {who} at commit {at}, kept: {kept}");
                assert_renewed(&mut alice, &mut bob, &what).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_survives_any_single_fault_of_the_network() {
    let mut world = World::new(370);
    let counting = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&counting);
    let net = Arc::clone(&world.net);
    let (mut alice, mut bob) = renewed(&mut world, move |_, _| {
        net.set_script(Some(Box::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Fate::Answered
        })));
    })
    .await;
    assert_renewed(&mut alice, &mut bob, "undisturbed").await;
    let requests = counting.load(Ordering::Relaxed);
    // What is lost on its way is like what is cut off before: every third place of those will do.
    for (fate, step) in [(Fate::ReplyLost, 1), (Fate::Lost, 3), (Fate::TimedOut, 3), (Fate::Twice, 3)] {
        for at in (1..=requests.min(60)).step_by(step) {
            let mut world = World::new(37_000 + at);
            let net = Arc::clone(&world.net);
            let (mut alice, mut bob) = renewed(&mut world, move |_, _| {
                let count = AtomicU64::new(0);
                net.set_script(Some(Box::new(move |_, _| {
                    if count.fetch_add(1, Ordering::Relaxed) + 1 == at { fate } else { Fate::Answered }
                })));
            })
            .await;
            assert_renewed(&mut alice, &mut bob, &format!("{fate:?} at request {at}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn renewals_from_either_side_over_a_bad_network_lose_nothing() {
    for seed in 0..6 {
        let mut world = World::new(38_000 + seed);
        let (mut alice, mut bob) = friends(&mut world).await;
        world.net.set_faults(Faults::BAD);
        for round in 0..4 {
            if (seed + round) % 3 != 0 {
                let _ = renew(&mut alice, "bob");
            }
            if (seed + round) % 3 != 1 {
                let _ = renew(&mut bob, "alice");
            }
            alice.say("bob", &format!("a {round}"));
            bob.say("alice", &format!("b {round}"));
            for _ in 0..12 {
                alice.settle().await;
                bob.settle().await;
            }
        }
        world.net.set_faults(Faults::default());
        calm(&mut [&mut alice, &mut bob]).await;
        let mut heard = bob.heard("alice");
        heard.sort();
        assert_eq!(heard, ["a 0", "a 1", "a 2", "a 3", "before"], "seed {seed}");
        let mut heard = alice.heard("bob");
        heard.sort();
        assert_eq!(heard, ["b 0", "b 1", "b 2", "b 3", "before too"], "seed {seed}");
        talk(&mut alice, &mut bob, "calm again").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_chat_is_not_renewed_and_leaves_no_mailbox() {
    let mut world = World::new(390);
    let (mut alice, mut bob) = friends(&mut world).await;
    renew(&mut alice, "bob").unwrap();
    calm(&mut [&mut alice, &mut bob]).await;
    alice.must(Command::Block { chat: "bob".into(), blocked: true });
    assert!(matches!(renew(&mut alice, "bob"), Err(Fault::Blocked)));
    assert!(direct_mailboxes(&alice).is_empty(), "those that were left go too");
    calm(&mut [&mut alice, &mut bob]).await;
    alice.must(Command::Block { chat: "bob".into(), blocked: false });
    calm(&mut [&mut alice, &mut bob]).await;
    talk(&mut alice, &mut bob, "unblocked").await;
    assert!(alice.rows::<MailboxRow>().len() >= 2);
}
