//! Relays that were put back to an older state, and what following costs, in the World.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapwing::{
    driver::{Next, Report},
    engine::Effect,
    store::{MailboxRow, Purpose},
};
use lapwing_tests::world::{Fate, Faults, Person, RelayNumber, World, introduce};
use lapwing_wire::{
    frame::{Refusal, RequestBody, ResponseBody, Seq},
    ids::MailboxId,
};

const RELAY: RelayNumber = RelayNumber(0);

/// Follows so long; how often a relay was told of that contradicted itself.
async fn follow_for(person: &mut Person, span: Duration) -> (Report, usize) {
    let (driver, compartment) = person.driver();
    let begin = tokio::time::Instant::now();
    let mut contradictions = 0;
    let mut decide = |told: &[(usize, Effect)]| {
        contradictions += told.iter().filter(|(_, effect)| matches!(effect, Effect::Inconsistent)).count();
        if begin.elapsed() > span { Next::End } else { Next::On }
    };
    let report = driver.follow(&[compartment], &mut decide).await;
    (report, contradictions)
}

/// Where the person receives what the other writes.
fn inbox(person: &Person, other: &str) -> MailboxId {
    let chat = person.chat(other).id;
    let is_inbox = |row: &MailboxRow| row.read.is_some() && row.purpose == Purpose::Direct(chat);
    person.mailboxes().into_iter().find(|(_, row)| is_inbox(row)).unwrap().0
}

/// Alice took `taken` messages of Bob's that the relay has lost since; Bob has written `new` others in their place.
async fn put_back(seed: u64, taken: usize, new: usize) -> (World, Person, Person) {
    let mut world = World::new(seed);
    let (mut alice, mut bob) = world.acquainted().await;
    alice.relays_lie = true;
    bob.say("alice", "before");
    bob.sync().await;
    let moment = world.net.with_relay(RELAY, |relay| relay.moment());
    for number in 0..taken {
        bob.say("alice", &format!("lost {number}"));
    }
    bob.sync().await;
    alice.sync().await;
    assert_eq!(alice.heard("bob").len(), taken + 1);
    world.net.change_relay(RELAY, async |relay, now| relay.roll_back(moment, now).await).await;
    for number in 0..new {
        bob.say("alice", &format!("new {number}"));
    }
    bob.sync().await;
    (world, alice, bob)
}

fn has_all_new(alice: &Person, new: usize) {
    let heard = alice.heard("bob");
    let missing: Vec<_> =
        (0..new).map(|number| format!("new {number}")).filter(|text| !heard.contains(text)).collect();
    assert!(missing.is_empty(), "{missing:?} of {heard:?}");
}

/// INB-03: numbers alone do not show it where as many came as were lost.
#[tokio::test(start_paused = true)]
async fn as_many_new_messages_as_a_relay_has_lost_are_taken() {
    for (seed, taken, new) in [(351, 1, 1), (352, 3, 3), (353, 3, 2), (354, 3, 5)] {
        let (_world, mut alice, _bob) = put_back(seed, taken, new).await;
        alice.sync().await;
        has_all_new(&alice, new);
        assert!(alice.effects.iter().any(|effect| matches!(effect, Effect::Inconsistent)));
        let (_world, mut alice, _bob) = put_back(seed, taken, new).await;
        let (_, contradictions) = follow_for(&mut alice, Duration::from_secs(60)).await;
        has_all_new(&alice, new);
        assert!(contradictions > 0);
    }
}

/// What the relay has shown to be what it was is acknowledged, and nothing else.
#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_to_a_relay_that_was_put_back_and_does_not_show_it() {
    let (world, mut alice, _bob) = put_back(355, 2, 2).await;
    let hidden = inbox(&alice, "bob");
    world.net.set_tamper(Some(Box::new(move |_, request, answer| match request {
        RequestBody::Read(read) if read.mailbox == hidden => ResponseBody::Refused(Refusal::Busy),
        _ => answer,
    })));
    let report = alice.settle().await;
    assert_eq!(report.unread.len(), 1);
    world.net.set_tamper(None);
    alice.settle().await;
    has_all_new(&alice, 2);

    let (_world, mut alice, _bob) = put_back(356, 2, 3).await;
    alice.base().set_full(true);
    assert!(!alice.settle().await.faults.is_empty());
    alice.base().set_full(false);
    alice.settle().await;
    has_all_new(&alice, 3);
}

/// What was taken before is asked for with the next, so that a change shows, and is not told again.
#[tokio::test(start_paused = true)]
async fn a_message_whose_acknowledgement_was_lost_is_shown_once() {
    let mut world = World::new(357);
    let (mut alice, mut bob) = world.acquainted().await;
    let client = alice.client;
    bob.say("alice", "once");
    bob.sync().await;
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Ack(_) if who == client => Fate::Lost,
        _ => Fate::Answered,
    })));
    alice.settle().await;
    world.net.set_script(None);
    alice.restart();
    alice.effects.clear();
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["once"]);
    assert!(
        !alice.effects.iter().any(|effect| matches!(effect, Effect::Inconsistent | Effect::Message { .. }))
    );
    bob.say("alice", "twice");
    bob.sync().await;
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["once", "twice"]);
}

/// What was taken before does not hide that nothing behind it can be read.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_behind_what_was_taken_is_told() {
    let mut world = World::new(362);
    let (mut alice, mut bob) = world.acquainted().await;
    let (client, of_alice) = (alice.client, inbox(&alice, "bob"));
    bob.say("alice", "once");
    bob.sync().await;
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Ack(_) if who == client => Fate::Lost,
        _ => Fate::Answered,
    })));
    alice.settle().await;
    world.net.set_script(None);
    bob.say("alice", "twice");
    bob.sync().await;
    alice.restart();
    // A window ends before what cannot be read, and is refused where that would be all.
    world.net.set_tamper(Some(Box::new(move |who, request, answer| match (request, answer) {
        (RequestBody::Read(read), ResponseBody::Window(mut window))
            if who == client && read.mailbox == of_alice =>
        {
            let _ = window.items.pop();
            if window.items.is_empty() {
                ResponseBody::Refused(Refusal::Busy)
            } else {
                ResponseBody::Window(window)
            }
        }
        (_, answer) => answer,
    })));
    let report = alice.settle().await;
    assert_eq!(report.unread.len(), 1);
    world.net.set_tamper(None);
    alice.settle().await;
    assert_eq!(alice.heard("bob"), ["once", "twice"]);
}

/// What a busy relay did not let be taken away is taken away on the same link.
#[tokio::test(start_paused = true)]
async fn a_refused_acknowledgement_is_repeated_while_following() {
    let mut world = World::new(358);
    let (mut alice, mut bob) = world.acquainted().await;
    bob.say("alice", "hello");
    bob.sync().await;
    let (client, of_alice) = (alice.client, inbox(&alice, "bob"));
    let acks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&acks);
    world.net.set_tamper(Some(Box::new(move |who, request, answer| match request {
        RequestBody::Ack(ack) if who == client && ack.mailbox == of_alice && ack.upto > Seq::START => {
            if count.fetch_add(1, Ordering::Relaxed) < 2 {
                ResponseBody::Refused(Refusal::Busy)
            } else {
                answer
            }
        }
        _ => answer,
    })));
    follow_for(&mut alice, Duration::from_secs(300)).await;
    assert_eq!(acks.load(Ordering::Relaxed), 3, "until it was answered, and not again");
}

/// A round in which nothing is to be done ends.
#[tokio::test(start_paused = true)]
async fn a_follower_who_is_told_nothing_looks_seldom_into_the_records() {
    let mut world = World::new(359);
    let (mut alice, _bob) = world.acquainted().await;
    let base = alice.base();
    let before = base.visits();
    follow_for(&mut alice, Duration::from_secs(600)).await;
    let visits = base.visits() - before;
    // Four looks a second whether a message's time is over would be 2,400; rounds are twenty.
    assert!(visits < 6000, "{visits} visits");
}

/// DRV-04: every message of one relay is told at once although another relay does not answer.
#[tokio::test(start_paused = true)]
async fn a_relay_that_is_away_does_not_delay_what_another_tells() {
    let mut world = World::new(360);
    let (mut alice, mut bob) = world.acquainted().await;
    let away = world.relay().await;
    alice.add_relay(&world, away);
    alice.sync().await;
    world.net.take_down(away).await;
    let begin = tokio::time::Instant::now();
    let mut said = Vec::new();
    let (driver, compartment) = alice.driver();
    let mut told = Vec::new();
    let mut decide = |effects: &[(usize, Effect)]| {
        let new = effects.iter().filter(|(_, effect)| matches!(effect, Effect::Message { .. })).count();
        told.extend((0..new).map(|_| begin.elapsed()));
        if begin.elapsed() > Duration::from_secs(100) { Next::End } else { Next::On }
    };
    let all = [compartment];
    let talk = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        for number in 0..8 {
            said.push(begin.elapsed());
            bob.say("alice", &number.to_string());
            bob.sync().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let (report, ()) = futures_util::future::join(driver.follow(&all, &mut decide), talk).await;
    assert_eq!(report.trouble.len(), 1, "the relay that is away is named at the end too");
    assert_eq!(told.len(), 8);
    // One of the rounds by the clock may lie between: it waits five seconds for the relay that is away.
    let late = said.iter().zip(&told).filter(|(said, told)| **told - **said > Duration::from_secs(1)).count();
    assert!(late <= 2, "{late} late: {said:?} {told:?}");
}

/// What came is taken as it comes: a mailbox that hangs keeps no other back, in commands that do not stay as well.
#[tokio::test(start_paused = true)]
async fn a_mailbox_that_hangs_keeps_no_other_of_its_relay_back() {
    let mut world = World::new(361);
    let (mut alice, mut bob) = world.acquainted().await;
    let mut carol = world.person("carol", &[RELAY]);
    introduce(&mut carol, &mut bob).await;
    let (hanging, client) = (inbox(&bob, "carol"), bob.client);
    for text in ["1", "2", "3"] {
        alice.say("bob", text);
    }
    alice.sync().await;
    carol.say("bob", "late");
    carol.sync().await;
    bob.restart();
    world.net.set_faults(Faults { delay: Duration::from_millis(300), ..Faults::default() });
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Read(read) if who == client && read.mailbox == hanging => Fate::TimedOut,
        _ => Fate::Answered,
    })));
    let (driver, compartment) = bob.driver();
    // As long as a command waits.
    let report = driver.settle(&[compartment], Duration::from_secs(12)).await;
    assert_eq!(report.trouble.len(), 1);
    assert_eq!(bob.heard("alice"), ["1", "2", "3"]);
    world.net.set_script(None);
    bob.sync().await;
    assert_eq!(bob.heard("carol"), ["late"]);
}
