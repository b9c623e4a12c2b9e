//! Direct chats in the World, whatever the network, the relay or a crash does.

#![expect(clippy::unwrap_used, clippy::panic, reason = "scenario tests")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lapwing::{
    engine::{Command, DEFAULT_VALIDITY, Effect, Fault, view::ChatState},
    net::ConnectError,
    store::{MailboxRow, Purpose, TrustRow},
};
use lapwing_relay::limits::Limits;
use lapwing_tests::world::{Fate, Faults, Person, World, calm, introduce};
use lapwing_wire::frame::{Refusal, RequestBody, ResponseBody};

fn effect_count(person: &mut Person, wanted: impl Fn(&Effect) -> bool) -> usize {
    std::mem::take(&mut person.effects).iter().filter(|effect| wanted(effect)).count()
}

/// One whole acquaintance with one misfortune; everybody must get everything once, in order.
async fn acquaintance(
    world: &mut World,
    mut meddle: impl FnMut(&mut Person, &mut Person),
) -> (Person, Person) {
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    meddle(&mut alice, &mut bob);
    let mut ticket = None;
    for round in 0..60 {
        assert!(round < 59, "they never get there");
        for person in [&mut alice, &mut bob] {
            if person.base().is_dead() {
                person.restart();
            }
        }
        if ticket.is_none() {
            // The answer may be lost where the command was not: then there is a chat, and another name is taken.
            let name = format!("bob{round}");
            let command = Command::Invite { name: name.clone(), relay: None, validity: DEFAULT_VALIDITY };
            if let Ok(lapwing::engine::Reply::Ticket { text, .. }) = alice.command(command) {
                ticket = Some((name, text));
            }
            continue;
        }
        let (name, text) = ticket.clone().unwrap();
        let joined = bob.look(|unit| lapwing::engine::view::chat(unit, "alice")).is_ok();
        if !joined && !bob.base().is_dead() {
            let _ = bob.command(Command::Join { ticket: text, name: "alice".into() });
        }
        write(&mut bob, "alice", &["b1", "b2", "b3"]);
        write(&mut alice, &name, &["a1", "a2", "a3"]);
        alice.settle().await;
        bob.settle().await;
        let dead = [&alice, &bob].iter().any(|person| person.base().is_dead());
        if !dead && alice.heard(&name) == ["b1", "b2", "b3"] && bob.heard("alice") == ["a1", "a2", "a3"] {
            break;
        }
    }
    // A crash that did not come by now does not come.
    alice.restart();
    bob.restart();
    let (name, _) = ticket.unwrap();
    if name != "bob" {
        alice.must(Command::Rename { chat: name, name: "bob".into() });
    }
    calm(&mut [&mut alice, &mut bob]).await;
    (alice, bob)
}

/// Writes what is not written yet, one after the other.
fn write(person: &mut Person, chat: &str, texts: &[&str]) {
    for text in texts {
        if person.base().is_dead() {
            return;
        }
        let Ok(_) = person.look(|unit| lapwing::engine::view::chat(unit, chat)) else { return };
        if person.lines(chat).iter().any(|line| line.writer == "me" && line.text == *text) {
            continue;
        }
        let sent = person.command(Command::Send { chat: chat.to_owned(), text: (*text).to_owned() });
        match sent {
            Ok(_) => {}
            Err(Fault::NotJoined | Fault::NotEstablished | Fault::Store(_)) => return,
            Err(fault) => panic!("{}: {fault}", person.name),
        }
    }
}

fn assert_whole(alice: &Person, bob: &Person, what: &str) {
    assert_eq!(alice.heard("bob"), ["b1", "b2", "b3"], "{what}");
    assert_eq!(bob.heard("alice"), ["a1", "a2", "a3"], "{what}");
    assert!(alice.unsent("bob").is_empty() && bob.unsent("alice").is_empty(), "{what}");
    assert_eq!(alice.chat("bob").state, ChatState::Open, "{what}");
    assert_eq!(bob.chat("alice").state, ChatState::Open, "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_of_either_side_loses_and_repeats_nothing() {
    let mut world = World::new(8);
    let (alice, bob) = acquaintance(&mut world, |_, _| {}).await;
    assert_whole(&alice, &bob, "undisturbed");
    let commits = [alice.commits(), bob.commits()];
    for (who, count) in commits.into_iter().enumerate() {
        for at in 1..=count {
            for kept in [false, true] {
                let mut world = World::new(8000 + at);
                let crash = lapwing_tests::world::Crash { at, kept };
                let (alice, bob) = acquaintance(&mut world, |alice, bob| {
                    let person = if who == 0 { alice } else { bob };
                    // The first commit was adding the relay.
                    person.restart();
                    person.base().crash_at(crash);
                })
                .await;
                assert_whole(&alice, &bob, &format!("side {who} at commit {at}, kept: {kept}"));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_or_request_lost_at_any_place_loses_and_repeats_nothing() {
    let mut world = World::new(9);
    let (alice, bob) = acquaintance(&mut world, |_, _| {}).await;
    let requests = world.net.requests(alice.client) + world.net.requests(bob.client);
    assert_whole(&alice, &bob, "undisturbed");
    for fate in [Fate::ReplyLost, Fate::Lost, Fate::TimedOut, Fate::Twice] {
        for at in 1..=requests {
            let mut world = World::new(9000 + at);
            let count = Arc::new(AtomicU64::new(0));
            world.net.set_script(Some(Box::new(move |_, _| {
                if count.fetch_add(1, Ordering::Relaxed) + 1 == at { fate } else { Fate::Answered }
            })));
            let (alice, bob) = acquaintance(&mut world, |_, _| {}).await;
            assert_whole(&alice, &bob, &format!("{fate:?} at request {at}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_bad_network_everything_arrives_once_and_in_order() {
    for seed in 0..6 {
        let mut world = World::new(10_000 + seed);
        world.net.set_faults(Faults::BAD);
        let (mut alice, mut bob) = acquaintance(&mut world, |_, _| {}).await;
        assert_whole(&alice, &bob, &format!("seed {seed}"));
        let texts: Vec<String> =
            (0..100).map(|n| format!("number {n} {}", "x".repeat(n * 7 % 900))).collect();
        for text in &texts {
            alice.say("bob", text);
        }
        for _ in 0..30 {
            alice.settle().await;
            bob.settle().await;
        }
        let heard = bob.heard("alice");
        assert_eq!(heard[3..], texts[..], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_relay_is_away_messages_wait_and_others_do_not() {
    let mut world = World::new(11);
    let (mut alice, mut bob) = world.acquainted().await;
    let c = world.relay().await;
    let mut carol = world.person("carol", &[c]);
    introduce(&mut alice, &mut carol).await;
    let away = lapwing_tests::world::RelayNumber(1);
    world.net.take_down(away).await;
    alice.say("bob", "for later");
    alice.say("carol", "for now");
    let report = alice.sync().await;
    assert_eq!(report.trouble.len(), 1);
    assert_eq!(report.trouble[0].relay, world.net.address(away));
    carol.sync().await;
    assert_eq!(carol.heard("alice"), ["for now"]);
    assert_eq!(alice.unsent("bob"), ["for later"]);
    assert_eq!(alice.chat("bob").waiting, 1);
    for _ in 0..3 {
        alice.restart();
        alice.sync().await;
    }
    world.net.bring_back(away);
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["for later"]);
    assert_eq!(alice.chat("bob").waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_hangs_delays_nobody_elses_messages() {
    let mut world = World::new(12);
    let (mut alice, mut bob) = world.acquainted().await;
    let c = world.relay().await;
    let mut carol = world.person("carol", &[c]);
    introduce(&mut alice, &mut carol).await;
    alice.say("bob", "through the hanging one");
    alice.say("carol", "quickly");
    let (client, hanging) = (alice.client, world.net.address(lapwing_tests::world::RelayNumber(1)));
    let hanging_too = hanging.clone();
    let bobs: Vec<_> =
        bob.mailboxes().into_iter().filter(|(_, row)| row.relay == hanging).map(|(id, _)| id).collect();
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Append(append) if who == client && bobs.contains(&append.mailbox) => Fate::TimedOut,
        _ => Fate::Answered,
    })));
    let (driver, compartment) = alice.driver();
    // Cut off long before the hanging relay's request times out.
    let report = driver.settle(&[compartment], Duration::from_secs(5)).await;
    let told = report.trouble.iter().map(|trouble| (&trouble.relay, trouble.error));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [(&hanging_too, ConnectError::Slow)],
        "who is cut off is told of it"
    );
    carol.sync().await;
    assert_eq!(carol.heard("alice"), ["quickly"]);
    world.net.set_script(None);
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["through the hanging one"]);
}

#[tokio::test(start_paused = true)]
async fn replayed_reordered_and_changed_envelopes_are_refused_in_silence() {
    let mut world = World::new(13);
    let (mut alice, mut bob) = world.acquainted().await;
    alice.relays_lie = true;
    for n in 0..5 {
        bob.say("alice", &format!("n{n}"));
    }
    bob.sync().await;
    let inbox = alice.mailboxes_for(|purpose| matches!(purpose, Purpose::Direct(_)))[0];
    let relay = lapwing_tests::world::RelayNumber(0);
    let envelopes = world.net.with_relay(relay, |relay| relay.appends(&inbox));
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["n0", "n1", "n2", "n3", "n4"]);
    alice.effects.clear();
    // What the relay once held comes again behind new numbers, in another order, changed, cut, and for another mailbox.
    let mut hostile: Vec<Vec<u8>> = envelopes.iter().rev().cloned().collect();
    for envelope in &envelopes {
        for at in [0, 23, 24, 100, envelope.len() - 1] {
            let mut changed = envelope.clone();
            changed[at] ^= 1;
            hostile.push(changed);
        }
        let mut longer = envelope.clone();
        longer.resize(4 * envelope.len(), 0);
        hostile.push(longer);
        hostile.push(vec![0; envelope.len()]);
    }
    let count = hostile.len();
    let hostile = Arc::new(Mutex::new(hostile));
    world.net.set_tamper(Some(Box::new(move |_, request, answer| {
        let (RequestBody::Read(read), ResponseBody::Window(mut window)) = (request, answer.clone()) else {
            return answer;
        };
        if window.mailbox != inbox {
            return answer;
        }
        let mut left = hostile.lock().unwrap();
        let (mut seq, mut hash) = (read.after, None);
        let mut items = Vec::new();
        for envelope in left.drain(..) {
            seq = seq.next();
            let id = lapwing_wire::ids::EnvelopeId::of(&envelope);
            let before: lapwing_wire::ids::RunningHash =
                hash.unwrap_or(lapwing_wire::ids::RunningHash::START);
            hash = Some(before.next(seq.value(), &id));
            let place = lapwing_wire::frame::Stored { seq, hash: hash.unwrap() };
            items.push(lapwing_wire::frame::Item { place, envelope: envelope.into() });
        }
        window.newest = window.newest.max(seq);
        window.items = items;
        ResponseBody::Window(window)
    })));
    for _ in 0..4 {
        alice.sync().await;
    }
    assert_eq!(alice.heard("bob"), ["n0", "n1", "n2", "n3", "n4"]);
    let told = std::mem::take(&mut alice.effects);
    assert_eq!(told.iter().filter(|effect| matches!(effect, Effect::Message { .. })).count(), 0);
    assert!(
        told.iter().any(|effect| matches!(effect, Effect::Inconsistent)),
        "the relay's story does not add up"
    );
    let _ = count;
    world.net.set_tamper(None);
    bob.say("alice", "still here");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(alice.heard("bob"), ["n0", "n1", "n2", "n3", "n4", "still here"]);
}

/// A mailbox that the relay does not give is told, keeps no other from being read and acknowledged, and is read when
/// the relay gives it again.
#[tokio::test(start_paused = true)]
async fn a_mailbox_that_is_not_given_is_told_and_holds_up_no_other() {
    let mut world = World::new(15);
    let (mut alice, mut bob) = world.acquainted().await;
    let mut carol = world.person("carol", &[lapwing_tests::world::RelayNumber(1)]);
    introduce(&mut alice, &mut carol).await;
    let of_bob = alice.chat("bob").id;
    let withheld = |row: &MailboxRow| row.read.is_some() && row.purpose == Purpose::Direct(of_bob);
    let (inbox, row) = alice.mailboxes().into_iter().find(|(_, row)| withheld(row)).unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (asks, acks) = (Arc::clone(&asked), Arc::clone(&acknowledged));
    world.net.set_tamper(Some(Box::new(move |_, request, answer| match request {
        RequestBody::Read(read) | RequestBody::Subscribe(read) if read.mailbox == inbox => {
            asks.fetch_add(1, Ordering::Relaxed);
            ResponseBody::Refused(Refusal::Busy)
        }
        RequestBody::Ack(ack) if ack.mailbox != inbox && answer == ResponseBody::Done => {
            acks.fetch_add(1, Ordering::Relaxed);
            answer
        }
        _ => answer,
    })));
    bob.say("alice", "withheld");
    carol.say("alice", "given");
    bob.sync().await;
    carol.sync().await;
    let before = acknowledged.load(Ordering::Relaxed);
    let report = alice.sync().await;
    assert_eq!(report.unread, std::slice::from_ref(&row.relay));
    assert!(report.trouble.is_empty(), "{:?}", report.trouble);
    assert_eq!(alice.heard("carol"), ["given"]);
    assert!(alice.heard("bob").is_empty());
    assert!(acknowledged.load(Ordering::Relaxed) > before, "what was read is acknowledged");
    // Once in a settling, however often it goes round.
    let first = asked.load(Ordering::Relaxed);
    alice.sync().await;
    assert_eq!(asked.load(Ordering::Relaxed) - first, 1);
    world.net.set_tamper(None);
    let report = alice.sync().await;
    assert!(report.unread.is_empty(), "{:?}", report.unread);
    assert_eq!(alice.heard("bob"), ["withheld"]);
}

#[tokio::test(start_paused = true)]
async fn strangers_with_the_right_to_write_cannot_stop_a_mailbox() {
    let mut world = World::new(14);
    let (mut alice, mut bob) = world.acquainted().await;
    bob.say("alice", "before");
    bob.sync().await;
    let row =
        alice.mailboxes().into_iter().find(|(_, row)| matches!(row.purpose, Purpose::Direct(_))).unwrap();
    let key = lapwing_protocol::envelope::EnvelopeKey::from_bytes(row.1.key.as_slice().try_into().unwrap());
    let write = lapwing_wire::capability::SecretKey::from_seed(
        row.1.write.as_ref().unwrap().as_slice().try_into().unwrap(),
    );
    let mut rng = world.rng();
    let service = world.net.with_relay(lapwing_tests::world::RelayNumber(0), |relay| relay.service());
    let binding = lapwing_wire::capability::ChannelBinding::from_bytes([7; 32]);
    let connection = service.connect(binding);
    let subject = lapwing_wire::capability::Subject::Mailbox(row.0, lapwing_wire::capability::Right::Write);
    let signature = subject.prove::<lapwing_wire::capability::Write>(&write, &binding);
    let prove = RequestBody::Prove(lapwing_wire::frame::Prove { subject, signature });
    assert_eq!(service.handle(&connection, prove, world.clock.now()).await, ResponseBody::Done);
    for message in [&b""[..], b"\x02", b"\x03\x44", &[0x02; 500], &[0xff; 3000], b"hello"] {
        let envelope = lapwing_protocol::envelope::seal(&key, &row.0, message, &mut rng).unwrap();
        let append = lapwing_wire::frame::Append { mailbox: row.0, envelope: envelope.into() };
        let answer = service.handle(&connection, RequestBody::Append(append), world.clock.now()).await;
        assert!(matches!(answer, ResponseBody::Stored(_)));
    }
    bob.say("alice", "after");
    bob.sync().await;
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["before", "after"]);
    assert_eq!(effect_count(&mut alice, |effect| matches!(effect, Effect::Refused)), 6);
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_told_to_the_sender_and_delivered_later_in_order() {
    let mut world = World::new(16);
    let (mut alice, mut bob) = world.acquainted().await;
    let relay = lapwing_tests::world::RelayNumber(1);
    world
        .net
        .with_relay(relay, |relay| relay.set_limits(Limits { mailbox_bytes: 12 << 10, ..Limits::default() }));
    // Large and small: what is small must not overtake.
    let texts: Vec<String> =
        (0..12).map(|n| format!("{n}:{}", "y".repeat(if n % 3 == 0 { 3000 } else { 10 }))).collect();
    for text in &texts {
        alice.say("bob", text);
    }
    alice.sync().await;
    let refused = alice.look(lapwing::engine::view::waiting).unwrap();
    assert!(refused.iter().any(|(_, refusal)| *refusal == Some(Refusal::Full)), "{refused:?}");
    assert!(!alice.unsent("bob").is_empty());
    for _ in 0..12 {
        bob.sync().await;
        alice.sync().await;
    }
    bob.sync().await;
    assert_eq!(bob.heard("alice"), texts);
    assert!(alice.unsent("bob").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_comes_back_as_it_once_was_is_noticed_and_shows_nothing_twice() {
    let mut world = World::new(17);
    let (mut alice, mut bob) = world.acquainted().await;
    alice.relays_lie = true;
    let relay = lapwing_tests::world::RelayNumber(0);
    bob.say("alice", "one");
    bob.sync().await;
    let moment = world.net.with_relay(relay, |relay| relay.moment());
    bob.say("alice", "two");
    bob.say("alice", "three");
    bob.sync().await;
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["one", "two", "three"]);
    world.net.change_relay(relay, async |relay, now| relay.roll_back(moment, now).await).await;
    // Enough new messages to hide the gap in the numbers.
    for text in ["four", "five", "six"] {
        bob.say("alice", text);
    }
    bob.sync().await;
    alice.effects.clear();
    alice.sync().await;
    assert!(effect_count(&mut alice, |effect| matches!(effect, Effect::Inconsistent)) > 0);
    assert_eq!(alice.heard("bob"), ["one", "two", "three", "four", "five", "six"]);
    let shown = alice.look(lapwing::engine::view::relays).unwrap();
    assert!(shown.iter().any(|relay| relay.inconsistent));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_forgot_a_mailbox_is_given_it_again() {
    let mut world = World::new(18);
    let a = world.relay().await;
    let b = world.relay().await;
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    alice.relays_lie = true;
    let moment = world.net.with_relay(a, |relay| relay.moment());
    introduce(&mut alice, &mut bob).await;
    alice.must(Command::TrustAdd { chat: "bob".into() });
    calm(&mut [&mut alice, &mut bob]).await;
    let outbox = alice.mailboxes_for(|purpose| matches!(purpose, Purpose::AlertOutbox(_)));
    assert_eq!((outbox.len(), alice.rows::<TrustRow>().len()), (1, 1));
    world.net.change_relay(a, async |relay, now| relay.roll_back(moment, now).await).await;
    alice.sync().await;
    bob.say("alice", "hello again");
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(alice.heard("bob"), ["hello again"]);
    // Also what nobody reads: the mailbox for alerts.
    let mut there = false;
    world.net.change_relay(a, async |relay, _| there = relay.mailbox(&outbox[0]).await.is_some()).await;
    assert!(there);
    let open = alice.rows::<MailboxRow>().into_iter();
    assert!(open.map(|(_, row)| row.state).all(|state| state == lapwing::store::MailboxState::Open));
}

#[tokio::test(start_paused = true)]
async fn a_full_compartment_loses_nothing() {
    let mut world = World::new(19);
    let (mut alice, mut bob) = world.acquainted().await;
    for n in 0..3 {
        bob.say("alice", &format!("{n}"));
    }
    bob.sync().await;
    alice.base().set_full(true);
    let report = alice.settle().await;
    assert!(report.faults.iter().all(|fault| matches!(fault, Fault::Store(_))));
    assert!(!report.faults.is_empty());
    assert!(alice.heard("bob").is_empty());
    assert!(matches!(
        alice.command(Command::Send { chat: "bob".into(), text: "x".into() }),
        Err(Fault::Store(_))
    ));
    alice.base().set_full(false);
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["0", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_table_of_keys_takes_messages_all_the_same() {
    let mut world = World::new(23);
    let (mut alice, mut bob) = world.acquainted().await;
    bob.say("alice", "today");
    calm(&mut [&mut bob, &mut alice]).await;
    alice.base().set_key_room(1);
    for day in 0..4 {
        world.clock.advance(Duration::from_secs(24 * 3600));
        bob.say("alice", &format!("day {day}"));
        alice.say("bob", "heard");
        calm(&mut [&mut bob, &mut alice]).await;
    }
    assert_eq!(alice.heard("bob"), ["today", "day 0", "day 1", "day 2", "day 3"]);
    assert_eq!(bob.heard("alice").len(), 4);
    let keys: std::collections::BTreeSet<_> =
        alice.rows::<lapwing::store::MessageRow>().into_iter().map(|(_, row)| row.key).collect();
    assert_eq!(keys.len(), 3, "two days of their own, then the spare one");
}

#[tokio::test(start_paused = true)]
async fn forged_and_cut_answers_end_in_nothing_worse_than_waiting() {
    for seed in 0..8u64 {
        let mut world = World::new(20_000 + seed);
        let (mut alice, mut bob) = world.acquainted().await;
        let mut rng = world.rng();
        let answers = Arc::new(AtomicU64::new(0));
        world.net.set_tamper(Some(Box::new(move |_, _, answer| {
            use rand_core::RngCore;
            answers.fetch_add(1, Ordering::Relaxed);
            match rng.next_u32() % 8 {
                0 => ResponseBody::Done,
                1 => ResponseBody::Refused(Refusal::Busy),
                2 => ResponseBody::Refused(Refusal::Full),
                3 => ResponseBody::BlobProgress(u64::from(rng.next_u32())),
                4 => ResponseBody::Refused(Refusal::Unsupported),
                5 => match answer {
                    ResponseBody::Window(mut window) => {
                        window.items.pop();
                        ResponseBody::Window(window)
                    }
                    other => other,
                },
                _ => answer,
            }
        })));
        for n in 0..4 {
            alice.say("bob", &format!("{n}"));
            alice.settle().await;
            bob.settle().await;
        }
        world.net.set_tamper(None);
        // Another process: what was believed to be proved on a link was believed of that link only.
        alice.restart();
        bob.restart();
        calm(&mut [&mut alice, &mut bob]).await;
        let mut heard = bob.heard("alice");
        heard.sort();
        assert_eq!(heard, ["0", "1", "2", "3"], "seed {seed}");
    }
}
