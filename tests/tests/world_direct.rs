//! Direct chats in the World: from a ticket to messages both ways.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "scenario tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lapwing::{
    engine::{Command, DEFAULT_VALIDITY, Effect, Fault, view::ChatState},
    store::{ContactRow, MessageState, OpRow, Purpose},
};
use lapwing_tests::world::{Person, World, calm};

#[tokio::test(start_paused = true)]
async fn a_ticket_leads_to_messages_both_ways_and_to_fresh_mailboxes() {
    let mut world = World::new(1);
    let (mut alice, mut bob) = world.acquainted().await;
    assert_eq!(alice.chat("bob").state, ChatState::Open);
    assert_eq!(bob.chat("alice").state, ChatState::Open);
    assert!(alice.mailboxes_for(|purpose| matches!(purpose, Purpose::Ticket(_))).is_empty());
    alice.say("bob", "are you there?");
    bob.say("alice", "yes");
    bob.say("alice", "where do we meet?");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["are you there?"]);
    assert_eq!(alice.heard("bob"), ["yes", "where do we meet?"]);
    assert!(alice.unsent("bob").is_empty() && bob.unsent("alice").is_empty());
    assert_eq!((alice.chat("bob").unread, alice.chat("bob").waiting), (2, 0));
    let numbers = |person: &Person, chat: &str| {
        let id = person.chat(chat).id;
        person.look(|unit| lapwing::engine::view::safety_number(unit, &id)).unwrap().to_string()
    };
    assert_eq!(numbers(&alice, "bob"), numbers(&bob, "alice"));
    // Nothing of the ticket is kept, and nothing waits.
    for person in [&alice, &bob] {
        assert!(person.rows::<ContactRow>().iter().all(|(_, contact)| contact.ticket.is_none()));
        assert!(person.rows::<OpRow>().is_empty(), "{}", person.name);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_joiner_writes_before_the_inviter_is_back_arrives_once_and_in_order() {
    let mut world = World::new(2);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    alice.sync().await;
    bob.join(&ticket, "alice");
    bob.sync().await;
    assert_eq!(bob.chat("alice").state, ChatState::Joining);
    let before = ["one", "two", "three"];
    for text in before {
        bob.say("alice", text);
    }
    bob.sync().await;
    assert!(bob.unsent("alice").is_empty(), "the ticket's mailbox takes them");
    alice.sync().await;
    bob.say("alice", "four");
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(alice.heard("bob"), ["one", "two", "three", "four"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_sealed_for_the_ticket_and_not_sent_is_sealed_anew_for_the_fresh_mailbox() {
    let mut world = World::new(3);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    alice.sync().await;
    bob.join(&ticket, "alice");
    bob.sync().await;
    // Written while alice's relay is away: bob learns of the fresh mailbox before the relay is back.
    alice.sync().await;
    world.net.take_down(a).await;
    bob.say("alice", "held up");
    bob.sync().await;
    assert_eq!(bob.unsent("alice"), ["held up"]);
    assert_eq!(bob.chat("alice").state, ChatState::Open);
    world.net.bring_back(a);
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(alice.heard("bob"), ["held up"]);
    assert!(bob.unsent("alice").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_was_used_is_refused_and_the_first_user_notices_nothing() {
    let mut world = World::new(4);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let mut eve = world.person("eve", &[b]);
    let ticket = alice.invite("bob");
    alice.sync().await;
    let ticket_mailbox = alice.mailboxes_for(|purpose| matches!(purpose, Purpose::Ticket(_)))[0];
    bob.join(&ticket, "alice");
    // At the same time, and after it.
    eve.join(&ticket, "early");
    bob.sync().await;
    eve.sync().await;
    calm(&mut [&mut alice, &mut bob, &mut eve]).await;
    assert_eq!(alice.chat("bob").state, ChatState::Open);
    assert_eq!(bob.chat("alice").state, ChatState::Open);
    bob.say("alice", "it is me");
    calm(&mut [&mut alice, &mut bob, &mut eve]).await;
    assert_eq!(alice.heard("bob"), ["it is me"]);
    // CON-03: the leaked ticket shows nothing any more.
    let relay = world.net.with_relay(a, |relay| relay.service());
    assert!(relay.totals(world.clock.now()).await.is_ok());
    let closed = world.net.with_relay(a, |relay| relay.appends(&ticket_mailbox).len());
    assert!(closed >= 2);
    let mut mallory = world.person("mallory", &[b]);
    mallory.join(&ticket, "late");
    mallory.sync().await;
    assert_eq!(mallory.chat("late").state, ChatState::Failed);
    assert!(matches!(
        mallory.command(Command::Send { chat: "late".into(), text: "hi".into() }),
        Err(Fault::ContactFailed)
    ));
    // The one who came at the same time learns it with the first message.
    eve.say("early", "hello?");
    eve.sync().await;
    assert_eq!(eve.chat("early").state, ChatState::Failed);
    assert_eq!(eve.lines("early")[0].state, MessageState::Failed);
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["it is me"]);
}

#[tokio::test(start_paused = true)]
async fn after_the_introduction_the_relay_does_not_know_the_tickets_mailbox_any_more() {
    let mut world = World::new(5);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    alice.sync().await;
    let mailbox = alice.mailboxes_for(|purpose| matches!(purpose, Purpose::Ticket(_)))[0];
    let mut before = false;
    world.net.change_relay(a, async |relay, _| before = relay.mailbox(&mailbox).await.is_some()).await;
    assert!(before);
    bob.join(&ticket, "alice");
    calm(&mut [&mut bob, &mut alice]).await;
    let mut after = true;
    world.net.change_relay(a, async |relay, _| after = relay.mailbox(&mailbox).await.is_some()).await;
    assert!(!after);
}

#[tokio::test(start_paused = true)]
async fn bad_tickets_are_told_apart_and_change_nothing() {
    let mut world = World::new(6);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    alice.sync().await;
    bob.sync().await;
    let commits = bob.commits();
    let join = |ticket: &str| Command::Join { ticket: ticket.to_owned(), name: "alice".to_owned() };
    for garbage in ["", "hello", "lapwing:", "https://example.org/x"] {
        let fault = bob.command(join(garbage)).unwrap_err();
        assert!(matches!(fault, Fault::NotATicket | Fault::DamagedTicket), "{garbage}: {fault}");
    }
    // Every single changed letter.
    for at in "lapwing:".len()..ticket.len() {
        let mut letters: Vec<char> = ticket.chars().collect();
        letters[at] = if letters[at] == 'a' { 'b' } else { 'a' };
        let changed: String = letters.into_iter().collect();
        if changed.eq_ignore_ascii_case(&ticket) {
            continue;
        }
        let fault = bob.command(join(&changed)).unwrap_err();
        assert!(matches!(fault, Fault::DamagedTicket | Fault::NotATicket), "{at}: {fault}");
    }
    assert!(matches!(bob.command(join(&ticket[..ticket.len() - 4])), Err(Fault::DamagedTicket)));
    let own = Command::Join { ticket: ticket.clone(), name: "me".into() };
    assert!(matches!(alice.command(own), Err(Fault::OwnTicket)));
    assert_eq!(bob.commits(), commits);
    bob.join(&ticket, "alice");
    let again = Command::Join { ticket: ticket.clone(), name: "alice again".into() };
    assert!(matches!(bob.command(again), Err(Fault::TicketUsedHere)));
    world.clock.advance(DEFAULT_VALIDITY + Duration::from_secs(1));
    let mut carol = world.person("carol", &[b]);
    assert!(matches!(carol.command(join(&ticket)), Err(Fault::ExpiredTicket)));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_nobody_used_ends_on_both_sides() {
    let mut world = World::new(7);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    // Alice was never online: the bundle is nowhere.
    bob.join(&ticket, "alice");
    bob.sync().await;
    assert_eq!(bob.chat("alice").state, ChatState::Joining);
    world.clock.advance(DEFAULT_VALIDITY + Duration::from_secs(1));
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(bob.chat("alice").state, ChatState::Failed);
    assert_eq!(alice.chat("bob").state, ChatState::Failed);
    assert!(alice.mailboxes_for(|purpose| matches!(purpose, Purpose::Ticket(_))).is_empty());
    assert!(bob.rows::<OpRow>().is_empty());
    // Not a dead end.
    let ticket = alice.invite("bob, again");
    alice.sync().await;
    bob.join(&ticket, "alice, again");
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(alice.chat("bob, again").state, ChatState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_blocked_contact_reaches_nobody_and_can_be_let_back() {
    let mut world = World::new(15);
    let (mut alice, mut bob) = world.acquainted().await;
    bob.say("alice", "before");
    calm(&mut [&mut bob, &mut alice]).await;
    alice.say("bob", "not sent any more");
    alice.must(Command::Block { chat: "bob".into(), blocked: true });
    assert!(matches!(
        alice.command(Command::Send { chat: "bob".into(), text: "x".into() }),
        Err(Fault::Blocked)
    ));
    alice.sync().await;
    bob.say("alice", "unheard");
    bob.sync().await;
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["before"]);
    assert_eq!(bob.lines("alice").last().unwrap().state, MessageState::Failed);
    assert_eq!(alice.unsent("bob"), ["not sent any more"]);
    alice.must(Command::Block { chat: "bob".into(), blocked: false });
    calm(&mut [&mut alice, &mut bob]).await;
    bob.say("alice", "back");
    alice.say("bob", "welcome back");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(alice.heard("bob"), ["before", "back"]);
    assert_eq!(bob.heard("alice"), ["welcome back"]);
}

#[tokio::test(start_paused = true)]
async fn following_receives_and_answers_without_asking_again() {
    let mut world = World::new(21);
    let (mut alice, mut bob) = world.acquainted().await;
    alice.say("bob", "one");
    alice.sync().await;
    let seen = Arc::new(AtomicU64::new(0));
    {
        let (alices, alices_compartment) = alice.driver();
        let (bobs, compartment) = bob.driver();
        let count = Arc::clone(&seen);
        let mut decide = move |effects: &[(usize, Effect)]| {
            let messages =
                effects.iter().filter(|(_, effect)| matches!(effect, Effect::Message { .. })).count();
            let all = count.fetch_add(messages as u64, Ordering::Relaxed) + messages as u64;
            if all >= 2 { lapwing::driver::Next::End } else { lapwing::driver::Next::On }
        };
        let all = [compartment];
        let follow = bobs.follow(&all, &mut decide);
        let send = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let send = Command::Send { chat: "bob".into(), text: "two".into() };
            alices.command(&alices_compartment, send).unwrap();
            alices.settle(std::slice::from_ref(&alices_compartment), Duration::from_secs(5)).await;
        };
        let both = futures_util::future::join(follow, send);
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("the second message is told");
    }
    assert_eq!(bob.heard("alice"), ["one", "two"]);
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_relay_with_chats_cannot_be_removed_and_one_without_can() {
    let mut world = World::new(22);
    let (mut alice, mut bob) = world.acquainted().await;
    let c = world.relay().await;
    alice.add_relay(&world, c);
    alice.sync().await;
    let (used, free) =
        (*world.net.address(lapwing_tests::world::RelayNumber(0)).key(), *world.net.address(c).key());
    assert!(matches!(alice.command(Command::RemoveRelay { relay: used }), Err(Fault::RelayInUse)));
    alice.must(Command::RemoveRelay { relay: free });
    assert!(matches!(alice.command(Command::RemoveRelay { relay: free }), Err(Fault::UnknownRelay)));
    alice.say("bob", "still");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["still"]);
    let left = world.net.with_relay(c, |relay| relay.service());
    assert_eq!(left.totals(world.clock.now()).await.unwrap().mailboxes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_was_used_in_time_stays_open_for_its_user_after_it_expired() {
    let mut world = World::new(24);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    alice.sync().await;
    bob.join(&ticket, "alice");
    bob.sync().await;
    alice.sync().await;
    // Bob is away, and does not know of the fresh mailbox when he writes.
    world.clock.advance(DEFAULT_VALIDITY + Duration::from_secs(1));
    alice.sync().await;
    bob.say("alice", "sorry for the delay");
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(alice.heard("bob"), ["sorry for the delay"]);
    assert_eq!(bob.chat("alice").state, ChatState::Open);
    assert!(alice.mailboxes_for(|purpose| matches!(purpose, Purpose::Ticket(_))).is_empty());
}
