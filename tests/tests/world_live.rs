//! Staying connected in the World: what comes is shown as it comes, whatever changes meanwhile.

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
    engine::{Command, Effect, group::GroupCommand},
    store::{AuthorRow, Base, MailboxRow, Purpose, Unit},
};
use lapwing_tests::world::{Fate, Faults, Person, RelayNumber, World, calm, introduce};
use lapwing_wire::frame::{Refusal, RequestBody, ResponseBody};

const GROUP: &str = "the march";

/// Follows until that many messages were told, while something else happens. Fails after a minute.
async fn follow_until(person: &mut Person, messages: usize, meanwhile: impl Future<Output = ()>) -> Report {
    let (driver, compartment) = person.driver();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let mut decide = move |told: &[(usize, Effect)]| {
        let new = told.iter().filter(|(_, effect)| matches!(effect, Effect::Message { .. })).count();
        let all = count.fetch_add(new, Ordering::Relaxed) + new;
        if all >= messages { Next::End } else { Next::On }
    };
    let all = [compartment];
    let both = futures_util::future::join(driver.follow(&all, &mut decide), meanwhile);
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
    assert!(ended.is_ok(), "{} of {messages} messages were told", seen.load(Ordering::Relaxed));
    ended.unwrap().0
}

async fn pause() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_told_within_a_second_without_asking_again() {
    let mut world = World::new(301);
    let (mut alice, mut bob) = world.acquainted().await;
    let net = Arc::clone(&world.net);
    let client = bob.client;
    let begin = tokio::time::Instant::now();
    let mut asked = 0;
    let mut told_after = Duration::ZERO;
    follow_until(&mut bob, 1, async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        asked = net.requests(client);
        alice.say("bob", "now");
        alice.sync().await;
        told_after = begin.elapsed();
    })
    .await;
    assert_eq!(bob.heard("alice"), ["now"]);
    assert!(begin.elapsed() - told_after <= Duration::from_secs(1));
    // One acknowledgement; no reading.
    assert!(net.requests(client) - asked <= 2, "{} requests", net.requests(client) - asked);
}

#[tokio::test(start_paused = true)]
async fn following_goes_on_through_a_restart_of_the_relay() {
    let mut world = World::new(302);
    let (mut alice, mut bob) = world.acquainted().await;
    let net = Arc::clone(&world.net);
    let report = follow_until(&mut bob, 2, async {
        pause().await;
        alice.say("bob", "before");
        alice.sync().await;
        net.take_down(RelayNumber(1)).await;
        pause().await;
        net.bring_back(RelayNumber(1));
        alice.say("bob", "after");
        alice.settle().await;
        alice.settle().await;
    })
    .await;
    assert!(report.faults.is_empty());
    assert_eq!(bob.heard("alice"), ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn an_introduction_completes_while_one_side_only_follows() {
    let mut world = World::new(303);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    follow_until(&mut alice, 2, async {
        pause().await;
        bob.join(&ticket, "alice");
        bob.sync().await;
        bob.say("alice", "one");
        bob.sync().await;
        pause().await;
        bob.sync().await;
        bob.say("alice", "two");
        bob.sync().await;
    })
    .await;
    assert_eq!(alice.heard("bob"), ["one", "two"]);
    alice.sync().await;
    let tickets = alice.mailboxes_for(|purpose| matches!(purpose, lapwing::store::Purpose::Ticket(_)));
    assert!(tickets.is_empty(), "closed as soon as the fresh mailbox was used");
}

/// Three people in a group, the first of whom owns it.
async fn group_of_three(world: &mut World) -> (Person, Person, Person) {
    let relay = world.relay().await;
    let mut ana = world.person("ana", &[relay]);
    let mut ben = world.person("ben", &[relay]);
    let mut cem = world.person("cem", &[relay]);
    ana.group(GroupCommand::Create { name: GROUP.into(), alias: "ana".into(), relay: None });
    for other in [&mut ben, &mut cem] {
        introduce(&mut ana, other).await;
        ana.group(GroupCommand::Invite { group: GROUP.into(), chat: other.name.clone() });
        calm(&mut [&mut ana, other]).await;
        let alias = other.name.clone();
        other.group(GroupCommand::Approve { what: GROUP.into(), alias, name: None });
        calm(&mut [&mut ana, other]).await;
    }
    calm(&mut [&mut ana, &mut ben, &mut cem]).await;
    (ana, ben, cem)
}

#[tokio::test(start_paused = true)]
async fn one_damaged_record_keeps_nobody_elses_messages_away() {
    let mut world = World::new(308);
    let (mut ana, mut ben, mut cem) = group_of_three(&mut world).await;
    ben.say(GROUP, "first");
    cem.say(GROUP, "first too");
    calm(&mut [&mut ana, &mut ben, &mut cem]).await;
    // What ana holds of one of the two cannot be read any more.
    let (place, mut row) = ana.rows::<AuthorRow>().remove(0);
    row.keys = vec![b"no sender key".to_vec().into()];
    let base = ana.base();
    let mut unit = Unit::new(&*base);
    unit.put(&place, &row);
    base.commit(unit.into_changes()).unwrap();
    for text in ["second", "third"] {
        ben.say(GROUP, text);
        cem.say(GROUP, text);
        ben.sync().await;
        cem.sync().await;
    }
    let report = ana.settle().await;
    assert_eq!(report.faults.len(), 2, "{:?}", report.faults);
    assert_eq!(ana.heard(GROUP).len(), 4);
    assert_eq!(ana.heard(GROUP)[2..], ["second", "third"]);
    // Not asked for again.
    assert!(ana.sync().await.faults.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_follower_moves_on_to_the_next_epochs_log() {
    let mut world = World::new(304);
    let (mut ana, mut ben, mut cem) = group_of_three(&mut world).await;
    // Two messages, and the note that says who is gone.
    follow_until(&mut ben, 3, async {
        pause().await;
        ana.say(GROUP, "with cem");
        ana.sync().await;
        pause().await;
        ana.group(GroupCommand::Remove { group: GROUP.into(), member: "cem".into() });
        ana.sync().await;
        pause().await;
        ana.say(GROUP, "without");
        ana.sync().await;
    })
    .await;
    assert_eq!(ben.heard(GROUP), ["with cem", "without"]);
    cem.sync().await;
    assert_eq!(cem.heard(GROUP), ["with cem"]);
    // What a follower had written before leaves with the next look at the log.
    ben.say(GROUP, "and me");
    ben.sync().await;
    ana.sync().await;
    assert_eq!(ana.heard(GROUP), ["and me"]);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_ends_every_link_is_not_asked_without_pause() {
    let mut world = World::new(305);
    let (_alice, mut bob) = world.acquainted().await;
    let client = bob.client;
    let net = Arc::clone(&world.net);
    net.set_script(Some(Box::new(move |who, _| if who == client { Fate::Lost } else { Fate::Answered })));
    let before = net.requests(client);
    let (driver, compartment) = bob.driver();
    let begin = tokio::time::Instant::now();
    let mut decide = |_: &[(usize, Effect)]| {
        if begin.elapsed() > Duration::from_secs(600) { Next::End } else { Next::On }
    };
    let report = driver.follow(&[compartment], &mut decide).await;
    assert!(!report.trouble.is_empty());
    let asked = net.requests(client) - before;
    assert!(asked < 300, "{asked} requests in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn many_contacts_cost_a_few_round_trips_and_not_one_each() {
    let mut world = World::new(306);
    let relay = world.relay().await;
    let mut alice = world.person("alice", &[relay]);
    let mut others: Vec<Person> =
        (0..40).map(|number| world.person(&format!("contact {number}"), &[relay])).collect();
    for other in &mut others {
        introduce(&mut alice, other).await;
        other.say("alice", "hello");
        other.sync().await;
    }
    alice.restart();
    world.net.set_faults(lapwing_tests::world::Faults {
        delay: Duration::from_millis(200),
        ..lapwing_tests::world::Faults::default()
    });
    let begin = tokio::time::Instant::now();
    alice.sync().await;
    for number in 0..40 {
        assert_eq!(alice.heard(&format!("contact {number}")), ["hello"]);
    }
    // Proofs, windows, acknowledgements, and windows again for nothing new.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // To all of them at once.
    for number in 0..40 {
        alice.say(&format!("contact {number}"), "hello to you");
    }
    let begin = tokio::time::Instant::now();
    alice.sync().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_operators_refusal_is_shown_and_ends_with_a_new_access_ticket() {
    let mut world = World::new(307);
    let relay = world.relay().await;
    let service = world.net.with_relay(relay, |relay| relay.service());
    let key = world.net.with_relay(relay, |relay| relay.access_key());
    let now = world.clock.now();
    assert!(service.revoke_access(key, now).await.unwrap());
    let mut alice = world.person("alice", &[relay]);
    alice.sync().await;
    let shown = alice.look(lapwing::engine::view::relays).unwrap();
    assert_eq!(shown[0].refused, Some(lapwing_wire::frame::Refusal::NoAccess));
    assert!(shown[0].waiting > 0);
    let mut rng = world.rng();
    let fresh = lapwing_wire::capability::SecretKey::generate(&mut rng);
    let issued = lapwing_relay::store::Ticket::new(fresh.public(), 1 << 30, 100, None);
    service.issue_access(issued, now).await.unwrap();
    let text = lapwing_wire::address::AccessTicket::new(world.net.address(relay), fresh).to_text();
    alice.must(Command::AddRelay { ticket: text });
    alice.sync().await;
    let shown = alice.look(lapwing::engine::view::relays).unwrap();
    assert_eq!((shown[0].refused, shown[0].waiting), (None, 0));
}

/// What a relay does not give is told as long as that lasts, is asked for again with pauses that stay short, and comes at last.
#[tokio::test(start_paused = true)]
async fn who_follows_is_told_of_what_is_not_given_until_it_is() {
    const COUNT: usize = 100;
    let mut world = World::new(306);
    let (mut alice, mut bob) = world.acquainted().await;
    let of_alice = bob.chat("alice").id;
    let is_inbox = |row: &MailboxRow| row.read.is_some() && row.purpose == Purpose::Direct(of_alice);
    let (inbox, row) = bob.mailboxes().into_iter().find(|(_, row)| is_inbox(row)).unwrap();
    for number in 0..COUNT {
        alice.say("bob", &number.to_string());
    }
    alice.sync().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let withhold = |reads: bool, subscriptions: bool| {
        let asked = Arc::clone(&asked);
        world.net.set_tamper(Some(Box::new(move |_, request, answer| match request {
            RequestBody::Read(read) if reads && read.mailbox == inbox => ResponseBody::Refused(Refusal::Busy),
            RequestBody::Subscribe(read) if read.mailbox == inbox => {
                asked.fetch_add(1, Ordering::Relaxed);
                if subscriptions { ResponseBody::Refused(Refusal::Busy) } else { answer }
            }
            _ => answer,
        })));
    };
    let follow = async |bob: &mut Person| {
        let (driver, compartment) = bob.driver();
        let begin = tokio::time::Instant::now();
        let mut decide = |_: &[(usize, Effect)]| {
            if begin.elapsed() > Duration::from_secs(600) { Next::End } else { Next::On }
        };
        driver.follow(&[compartment], &mut decide).await
    };
    // The first window comes, and what lies behind it is not given when it is asked for: it is subscribed to again.
    withhold(true, false);
    let report = follow(&mut bob).await;
    assert!(report.unread.is_empty());
    assert_eq!(bob.heard("alice").len(), COUNT);
    assert_eq!(asked.swap(0, Ordering::Relaxed), 2);
    // Nothing is given, on a new link.
    bob.restart();
    withhold(true, true);
    let report = follow(&mut bob).await;
    assert_eq!(report.unread, std::slice::from_ref(&row.relay));
    let asked = asked.swap(0, Ordering::Relaxed);
    assert!((15..60).contains(&asked), "{asked} times in ten minutes");
}

/// DRV-03: a window that waits for what came before it in an older log is dropped with the round that is cut off, and neither passed over
/// nor taken for subscribed.
#[tokio::test(start_paused = true)]
async fn what_waits_for_an_older_log_when_a_round_is_cut_off_is_read_again() {
    let mut world = World::new(310);
    let (mut ana, mut ben, mut cem) = group_of_three(&mut world).await;
    let old = ben.log(GROUP);
    ana.group(GroupCommand::Remove { group: GROUP.into(), member: "cem".into() });
    calm(&mut [&mut ana, &mut ben, &mut cem]).await;
    assert_ne!(ben.log(GROUP), old);
    assert!(ben.mailboxes().iter().any(|(id, row)| *id == old && row.read.is_some()), "the old one is read");
    ana.say(GROUP, "1");
    ana.sync().await;
    ben.restart();
    // Proofs take some time, so the round is over before the request that hangs is given up.
    world.net.set_faults(Faults { delay: Duration::from_millis(500), ..Faults::default() });
    let (client, hung) = (ben.client, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&hung);
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Subscribe(read) if who == client && read.mailbox == old => {
            if count.fetch_add(1, Ordering::Relaxed) == 0 { Fate::TimedOut } else { Fate::Answered }
        }
        _ => Fate::Answered,
    })));
    follow_until(&mut ben, 2, async {
        // While the first round waits for the old log.
        tokio::time::sleep(Duration::from_secs(10)).await;
        ana.say(GROUP, "2");
        ana.sync().await;
    })
    .await;
    assert!(hung.load(Ordering::Relaxed) > 1, "a round was cut off, and there was another");
    assert_eq!(ben.heard(GROUP), ["1", "2"]);
}

/// What waits for a log leaves although one from before it hangs, and although the log's newest envelope cannot be read any more.
#[tokio::test(start_paused = true)]
async fn a_message_to_a_group_leaves_beside_an_older_log_that_hangs_and_a_last_envelope_that_is_damaged() {
    let mut world = World::new(311);
    let (mut ana, mut ben, mut cem) = group_of_three(&mut world).await;
    let old = ben.log(GROUP);
    ana.group(GroupCommand::Remove { group: GROUP.into(), member: "cem".into() });
    calm(&mut [&mut ana, &mut ben, &mut cem]).await;
    let (client, new) = (ben.client, ben.log(GROUP));
    let cursor_of =
        |ben: &Person, log| ben.mailboxes().into_iter().find(|(id, _)| *id == log).unwrap().1.cursor;
    // Sealed, and then cut off.
    ben.say(GROUP, "beside one that hangs");
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Append(_) if who == client => Fate::Lost,
        _ => Fate::Answered,
    })));
    ben.settle().await;
    ben.restart();
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Read(read) if who == client && read.mailbox == old => Fate::TimedOut,
        _ => Fate::Answered,
    })));
    let (driver, compartment) = ben.driver();
    let report = driver.settle(&[compartment], Duration::from_secs(12)).await;
    assert_eq!(report.trouble.len(), 1);
    ana.sync().await;
    assert_eq!(ana.heard(GROUP), ["beside one that hangs"]);
    world.net.set_script(None);
    calm(&mut [&mut ana, &mut ben]).await;

    ben.restart();
    let cursor = cursor_of(&ben, new);
    world.net.set_tamper(Some(Box::new(move |who, request, answer| match request {
        RequestBody::Read(read) if who == client && read.mailbox == new && read.after < cursor => {
            ResponseBody::Refused(Refusal::Busy)
        }
        _ => answer,
    })));
    ben.say(GROUP, "behind one that is damaged");
    let report = ben.settle().await;
    assert!(report.unread.is_empty());
    ana.sync().await;
    assert_eq!(ana.heard(GROUP).last().map(String::as_str), Some("behind one that is damaged"));
}

/// What was answered before a round was cut off is neither taken nor passed over: what comes later is not taken in its place.
#[tokio::test(start_paused = true)]
async fn what_a_round_that_was_cut_off_had_read_is_read_again() {
    let mut world = World::new(307);
    let (mut alice, mut bob) = world.acquainted().await;
    let mut carol = world.person("carol", &[RelayNumber(0)]);
    introduce(&mut carol, &mut bob).await;
    let of_carol = bob.chat("carol").id;
    let is_inbox = |row: &MailboxRow| row.read.is_some() && row.purpose == Purpose::Direct(of_carol);
    let (hanging, _) = bob.mailboxes().into_iter().find(|(_, row)| is_inbox(row)).unwrap();
    for text in ["1", "2", "3"] {
        alice.say("bob", text);
    }
    alice.sync().await;
    carol.say("bob", "late");
    carol.sync().await;
    bob.restart();
    // Proofs take some time, so the round is over before the request that hangs is given up.
    world.net.set_faults(Faults { delay: Duration::from_millis(500), ..Faults::default() });
    let (client, hung) = (bob.client, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&hung);
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Subscribe(read) if who == client && read.mailbox == hanging => {
            if count.fetch_add(1, Ordering::Relaxed) == 0 { Fate::TimedOut } else { Fate::Answered }
        }
        _ => Fate::Answered,
    })));
    follow_until(&mut bob, 5, async {
        // While the first round waits for the other mailbox.
        tokio::time::sleep(Duration::from_secs(10)).await;
        alice.say("bob", "4");
        alice.sync().await;
    })
    .await;
    assert!(hung.load(Ordering::Relaxed) > 1, "a round was cut off, and there was another");
    assert_eq!(bob.heard("alice"), ["1", "2", "3", "4"]);
    assert_eq!(bob.heard("carol"), ["late"]);
}

/// INB-03: what is read again from the start is subscribed to from there, or what comes under numbers that were known before stays
/// untold.
#[tokio::test(start_paused = true)]
async fn who_follows_is_told_what_comes_to_a_relay_that_was_put_back() {
    let mut world = World::new(308);
    let (mut alice, mut bob) = world.acquainted().await;
    alice.relays_lie = true;
    let relay = RelayNumber(0);
    bob.say("alice", "0");
    bob.sync().await;
    let moment = world.net.with_relay(relay, |relay| relay.moment());
    for number in 1..=20 {
        bob.say("alice", &number.to_string());
    }
    bob.sync().await;
    alice.sync().await;
    world.net.change_relay(relay, async |relay, now| relay.roll_back(moment, now).await).await;
    follow_until(&mut alice, 1, async {
        pause().await;
        bob.say("alice", "after");
        bob.sync().await;
    })
    .await;
    assert_eq!(alice.heard("bob").last().map(String::as_str), Some("after"));
}

/// DRV-05, INB-04: more than a window lies behind what cannot be taken. The relay tells of it whenever it is asked.
#[tokio::test(start_paused = true)]
async fn who_follows_with_a_full_compartment_asks_with_pauses_and_loses_nothing() {
    const COUNT: usize = 200;
    const MOST: u64 = 300;
    let mut world = World::new(309);
    let (mut alice, mut bob) = world.acquainted().await;
    for number in 0..COUNT {
        bob.say("alice", &number.to_string());
    }
    bob.sync().await;
    alice.restart();
    alice.base().set_full(true);
    let (net, client) = (Arc::clone(&world.net), alice.client);
    let before = net.requests(client);
    let (driver, compartment) = alice.driver();
    let begin = tokio::time::Instant::now();
    let mut decide = |_: &[(usize, Effect)]| {
        let is_over = begin.elapsed() > Duration::from_secs(600) || net.requests(client) - before > MOST;
        if is_over { Next::End } else { Next::On }
    };
    let report = driver.follow(&[compartment], &mut decide).await;
    assert!(!report.faults.is_empty());
    let asked = net.requests(client) - before;
    assert!(asked <= MOST, "{asked} requests in {:?}", begin.elapsed());
    assert!(alice.heard("bob").is_empty());
    alice.base().set_full(false);
    follow_until(&mut alice, COUNT, async {}).await;
    assert_eq!(alice.heard("bob").len(), COUNT);
}
