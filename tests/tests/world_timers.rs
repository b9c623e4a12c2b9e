//! Messages that disappear: on both sides, for who is away, in groups, whatever the clock or a crash does.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::time::Duration;

use lapwing::{
    engine::{
        Command,
        search::{self, Query},
        view::{self, Span},
    },
    store::{BodyKeyRow, DueRow, MessageRow, OpRow},
};
use lapwing_protocol::timer::Lifetime;
use lapwing_tests::world::{
    Crash, Person, World, calm,
    company::{group, let_in},
    introduce,
    records::{assert_in_order, mark_read, texts},
};

const MINUTE: Duration = Duration::from_secs(60);
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
async fn tmr_04_messages_disappear_on_both_sides_ours_from_writing_and_others_from_reading() {
    let mut world = World::new(70);
    let (mut alice, mut bob) = world.acquainted().await;
    alice.say("bob", "before");
    calm(&mut [&mut alice, &mut bob]).await;
    set_timer(&mut alice, "bob", lifetime(HOUR));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "bob"), counts(&bob, "alice")), (lifetime(HOUR), lifetime(HOUR)));
    assert_eq!(alice.notes("bob"), ["messages disappear 1 hour after they were read (set by you)"]);
    assert_eq!(
        bob.notes("alice"),
        ["messages disappear 1 hour after they were read (set by the other side)"]
    );
    alice.say("bob", "soon gone");
    bob.say("alice", "unread");
    calm(&mut [&mut alice, &mut bob]).await;
    mark_read(&mut bob, "alice");
    assert_in_order(&alice, "before the hour");
    world.clock.advance(HOUR - Duration::from_millis(1));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(texts(&alice, "bob"), ["before", "soon gone", "unread"]);
    assert_eq!(texts(&bob, "alice"), ["before", "unread", "soon gone"]);
    world.clock.advance(Duration::from_millis(1));
    calm(&mut [&mut alice, &mut bob]).await;
    // What was read or written an hour ago is gone; what nobody has read waits; what was there before has no end.
    assert_eq!(texts(&alice, "bob"), ["before", "unread"]);
    assert_eq!(texts(&bob, "alice"), ["before"]);
    assert_eq!(alice.chat("bob").unread, 2, "the answer, and the line of the program");
    // Read now, it goes an hour later.
    world.clock.advance(DAY);
    mark_read(&mut alice, "bob");
    world.clock.advance(HOUR);
    alice.sync().await;
    assert_eq!(texts(&alice, "bob"), ["before"]);
    for (person, what) in [(&alice, "alice"), (&bob, "bob")] {
        assert_in_order(person, what);
    }
    // Nothing of the text's key is left.
    assert_eq!(alice.rows::<BodyKeyRow>().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn tmr_04_what_nobody_reads_is_gone_after_seven_days() {
    let mut world = World::new(71);
    let (mut alice, mut bob) = world.acquainted().await;
    set_timer(&mut bob, "alice", lifetime(5 * MINUTE));
    calm(&mut [&mut alice, &mut bob]).await;
    bob.say("alice", "unread");
    calm(&mut [&mut alice, &mut bob]).await;
    world.clock.advance(7 * DAY - MINUTE);
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["unread"]);
    world.clock.advance(MINUTE);
    // TMR-05: an unlock without any network erases it before anything is counted.
    let (driver, compartment) = alice.driver();
    assert!(driver.sweep(&compartment).unwrap());
    assert!(alice.heard("bob").is_empty());
    assert_eq!((alice.chat("bob").unread, alice.chat("bob").last), (0, None));
    assert_in_order(&alice, "after seven days");
    // One that lives longer than that is kept for its lifetime.
    set_timer(&mut bob, "alice", lifetime(30 * DAY));
    set_timer(&mut alice, "bob", lifetime(20 * DAY));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(counts(&alice, "bob"), lifetime(20 * DAY));
    bob.say("alice", "long");
    calm(&mut [&mut alice, &mut bob]).await;
    world.clock.advance(19 * DAY);
    alice.sync().await;
    assert_eq!(alice.heard("bob"), ["long"]);
    world.clock.advance(DAY);
    alice.sync().await;
    assert!(alice.heard("bob").is_empty());
}

#[tokio::test(start_paused = true)]
async fn tmr_01_the_shorter_of_both_wishes_counts_and_nobody_lengthens_the_others() {
    let mut world = World::new(72);
    let (mut alice, mut bob) = world.acquainted().await;
    // Both at once.
    set_timer(&mut alice, "bob", lifetime(HOUR));
    set_timer(&mut bob, "alice", lifetime(2 * HOUR));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "bob"), counts(&bob, "alice")), (lifetime(HOUR), lifetime(HOUR)));
    set_timer(&mut bob, "alice", None);
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "bob"), counts(&bob, "alice")), (lifetime(HOUR), lifetime(HOUR)));
    assert!(
        alice.notes("bob").contains(
            &"messages are kept (set by the other side); the shorter time counts, which is 1 hour".to_owned()
        ),
        "{:?}",
        alice.notes("bob")
    );
    set_timer(&mut alice, "bob", None);
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "bob"), counts(&bob, "alice")), (None, None));
    // Said again, it says nothing.
    let commits = alice.commits();
    set_timer(&mut alice, "bob", None);
    assert_eq!(alice.commits(), commits);
}

#[tokio::test(start_paused = true)]
async fn tmr_03_a_peers_timer_erases_nothing_that_was_there_before() {
    let mut world = World::new(73);
    let (mut alice, mut bob) = world.acquainted().await;
    bob.say("alice", "a promise");
    alice.say("bob", "an answer");
    calm(&mut [&mut alice, &mut bob]).await;
    set_timer(&mut bob, "alice", Some(Lifetime::MIN));
    calm(&mut [&mut alice, &mut bob]).await;
    mark_read(&mut alice, "bob");
    world.clock.advance(400 * DAY);
    alice.sync().await;
    assert_eq!(texts(&alice, "bob"), ["an answer", "a promise"]);
    assert_in_order(&alice, "after a year");
}

#[tokio::test(start_paused = true)]
async fn a_timer_set_before_the_other_side_is_there_is_told_when_it_is() {
    let mut world = World::new(74);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    let ticket = alice.invite("bob");
    set_timer(&mut alice, "bob", lifetime(3 * HOUR));
    alice.sync().await;
    bob.join(&ticket, "alice");
    set_timer(&mut bob, "alice", lifetime(DAY));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "bob"), counts(&bob, "alice")), (lifetime(3 * HOUR), lifetime(3 * HOUR)));
    set_timer(&mut alice, "bob", None);
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "bob"), counts(&bob, "alice")), (lifetime(DAY), lifetime(DAY)));
}

#[tokio::test(start_paused = true)]
async fn era_04_a_message_whose_time_is_over_before_it_left_does_not_leave() {
    let mut world = World::new(75);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    introduce(&mut alice, &mut bob).await;
    set_timer(&mut alice, "bob", lifetime(HOUR));
    calm(&mut [&mut alice, &mut bob]).await;
    world.net.take_down(b).await;
    alice.say("bob", "too late");
    alice.settle().await;
    assert_eq!(alice.unsent("bob"), ["too late"]);
    world.clock.advance(HOUR);
    alice.settle().await;
    assert!(texts(&alice, "bob").is_empty());
    assert!(alice.rows::<OpRow>().is_empty());
    assert_eq!(alice.chat("bob").waiting, 0);
    assert_eq!(
        alice.notes("bob").last().unwrap(),
        "1 message(s) of yours were not sent in time and are gone"
    );
    world.net.bring_back(b);
    alice.say("bob", "in time");
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(bob.heard("alice"), ["in time"]);
    assert_in_order(&alice, "after the relay came back");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_at_the_relay_past_its_time_is_read_there_and_then_disappears() {
    let mut world = World::new(76);
    let (mut alice, mut bob) = world.acquainted().await;
    set_timer(&mut alice, "bob", lifetime(HOUR));
    calm(&mut [&mut alice, &mut bob]).await;
    alice.say("bob", "for when you are back");
    alice.sync().await;
    world.clock.advance(3 * DAY);
    alice.sync().await;
    assert!(texts(&alice, "bob").is_empty());
    bob.sync().await;
    assert_eq!(bob.heard("alice"), ["for when you are back"]);
    mark_read(&mut bob, "alice");
    world.clock.advance(HOUR);
    bob.sync().await;
    assert!(bob.heard("alice").is_empty());
    assert_in_order(&bob, "after the hour");
}

#[tokio::test(start_paused = true)]
async fn tmr_07_a_clock_that_is_set_back_lengthens_no_time_beyond_a_whole_one() {
    let mut world = World::new(77);
    let (mut alice, mut bob) = world.acquainted().await;
    set_timer(&mut alice, "bob", lifetime(HOUR));
    calm(&mut [&mut alice, &mut bob]).await;
    // A year ahead by mistake: what is written then would live for a year more.
    world.clock.advance(365 * DAY);
    alice.say("bob", "from the future");
    bob.say("alice", "an answer");
    calm(&mut [&mut alice, &mut bob]).await;
    mark_read(&mut alice, "bob");
    world.clock.turn_back(364 * DAY);
    alice.sync().await;
    bob.sync().await;
    assert_eq!(texts(&alice, "bob"), ["from the future", "an answer"]);
    world.clock.advance(HOUR);
    alice.sync().await;
    assert!(texts(&alice, "bob").is_empty());
    assert_in_order(&alice, "after the clock was set back");
    // What was unread goes seven days after the clock is right again.
    assert_eq!(bob.heard("alice"), ["from the future"]);
    world.clock.advance(7 * DAY);
    bob.sync().await;
    assert!(bob.heard("alice").is_empty());
    assert_in_order(&bob, "after seven days");
}

#[tokio::test(start_paused = true)]
async fn tmr_07_a_clock_that_went_back_and_comes_right_erases_only_what_is_due() {
    const YEARS: Duration = Duration::from_secs(50 * 365 * 24 * 3600);
    let mut world = World::new(86);
    let (mut alice, mut bob) = world.acquainted().await;
    set_timer(&mut alice, "bob", lifetime(2 * DAY));
    calm(&mut [&mut alice, &mut bob]).await;
    alice.say("bob", "first");
    calm(&mut [&mut alice, &mut bob]).await;
    world.clock.advance(DAY);
    alice.say("bob", "second");
    calm(&mut [&mut alice, &mut bob]).await;
    let ends = |person: &Person| -> Vec<_> { person.rows::<DueRow>().into_iter().map(|(k, _)| k).collect() };
    let before = ends(&alice);
    // The battery of the clock is empty, twice, and once it is set to a time in between.
    for _ in 0..2 {
        world.clock.turn_back(YEARS);
        alice.sync().await;
        assert_in_order(&alice, "in the past");
        world.clock.turn_back(5 * 365 * DAY);
        alice.sync().await;
        world.clock.advance(HOUR);
        alice.sync().await;
        assert_eq!(texts(&alice, "bob").len(), 2);
        world.clock.advance(YEARS + 5 * 365 * DAY - HOUR);
        alice.sync().await;
        assert_eq!(texts(&alice, "bob"), ["first", "second"]);
        assert_eq!(ends(&alice), before, "each end is what it was");
    }
    // What is written while the clock is behind has what is left of its time when it comes right.
    world.clock.turn_back(YEARS);
    alice.say("bob", "in the past");
    world.clock.advance(YEARS);
    alice.sync().await;
    assert_eq!(texts(&alice, "bob"), ["first", "second", "in the past"]);
    assert_in_order(&alice, "when it came right");
    world.clock.advance(DAY);
    alice.sync().await;
    assert_eq!(texts(&alice, "bob"), ["second", "in the past"]);
    world.clock.advance(DAY);
    alice.sync().await;
    assert!(texts(&alice, "bob").is_empty());
    // What passes by the wrong clock passes.
    alice.say("bob", "last");
    world.clock.turn_back(YEARS);
    alice.sync().await;
    world.clock.advance(2 * DAY);
    alice.sync().await;
    assert!(texts(&alice, "bob").is_empty());
    assert_in_order(&alice, "after all");
}

#[tokio::test(start_paused = true)]
async fn tmr_07_a_clock_that_goes_ahead_and_back_again_and_again_lengthens_nothing() {
    let mut world = World::new(88);
    let (mut alice, mut bob) = world.acquainted().await;
    set_timer(&mut alice, "bob", lifetime(DAY));
    calm(&mut [&mut alice, &mut bob]).await;
    world.clock.advance(365 * DAY);
    alice.say("bob", "from the future");
    world.clock.turn_back(364 * DAY);
    alice.say("bob", "from today");
    for hour in 1..=24 {
        assert_eq!(texts(&alice, "bob"), ["from the future", "from today"], "{hour}");
        world.clock.advance(HOUR);
        alice.say("bob", "mark");
        alice.sync().await;
        world.clock.turn_back(2 * DAY);
        alice.sync().await;
        world.clock.advance(2 * DAY);
        alice.sync().await;
        let marks = alice.rows::<MessageRow>();
        let erase: Vec<_> = marks.iter().map(|((_, order), _)| *order).max().into_iter().collect();
        alice.must(Command::Erase { chat: "bob".into(), orders: erase });
    }
    assert!(texts(&alice, "bob").is_empty());
    assert_in_order(&alice, "after a day");
}

#[tokio::test(start_paused = true)]
async fn tmr_05_what_could_not_be_erased_in_time_is_known_to_be_over() {
    let mut world = World::new(89);
    let (mut alice, _bob) = world.acquainted().await;
    set_timer(&mut alice, "bob", lifetime(HOUR));
    let order = alice.say("bob", "over");
    let chat = alice.chat("bob").id;
    world.clock.advance(HOUR);
    // No sweep came in between.
    let shown = alice.look(|unit| view::messages(unit, &chat, Span::One(order))).unwrap();
    let query = Query::new("over").unwrap();
    let hits = search::search(&*alice.base(), &query, None, 10, 1).unwrap();
    for message in [&shown[0], &hits[0].message] {
        assert!(!message.is_there(world.clock.now()));
        assert!(message.is_there(world.clock.now().minus(MINUTE)));
    }
}

#[tokio::test(start_paused = true)]
async fn tmr_06_the_owner_sets_a_groups_timer_and_a_member_only_his_own() {
    let mut world = World::new(85);
    let (mut alice, mut bob, mut dia) = group(&mut world).await;
    set_timer(&mut alice, "march", lifetime(DAY));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "march"), counts(&bob, "march")), (lifetime(DAY), lifetime(DAY)));
    assert_eq!(
        bob.notes("march").last().unwrap(),
        "messages disappear 1 day after they were read (set by alice)"
    );
    // A member's wish is for himself, and cannot lengthen.
    set_timer(&mut bob, "march", lifetime(HOUR));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "march"), counts(&bob, "march")), (lifetime(DAY), lifetime(HOUR)));
    set_timer(&mut bob, "march", lifetime(30 * DAY));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((counts(&alice, "march"), counts(&bob, "march")), (lifetime(DAY), lifetime(DAY)));
    // A newcomer is told.
    let_in(&mut alice, &mut dia).await;
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    assert_eq!(counts(&dia, "march"), lifetime(DAY));
    alice.say("march", "to all");
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    for person in [&mut bob, &mut dia] {
        assert_eq!(person.heard("march"), ["to all"]);
        mark_read(person, "march");
    }
    world.clock.advance(DAY);
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    for (person, name) in [(&alice, "alice"), (&bob, "bob"), (&dia, "dia")] {
        assert!(texts(person, "march").is_empty(), "{name}");
        assert_in_order(person, name);
    }
    set_timer(&mut alice, "march", None);
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    assert_eq!((counts(&alice, "march"), counts(&bob, "march")), (None, lifetime(30 * DAY)));
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
async fn era_03_a_crash_while_what_is_due_is_erased_ends_after_the_next_session() {
    let (_world, mut alice, _bob) = lively(88).await;
    mark_read(&mut alice, "bob");
    let image = alice.copy_of_records();
    for at in 1..4 {
        for kept in [false, true] {
            let mut world = World::new(880 + at);
            world.clock.advance(2 * HOUR);
            let mut alice = Person::with_records(&mut world, "alice", std::sync::Arc::new(image.snapshot()));
            alice.base().crash_at(Crash { at, kept });
            let (driver, compartment) = alice.driver();
            let _ = driver.sweep(&compartment);
            alice.restart();
            let (driver, compartment) = alice.driver();
            driver.sweep(&compartment).unwrap();
            let what = format!("commit {at}, kept: {kept}");
            assert_eq!(texts(&alice, "bob"), ["before the timer"], "{what}");
            assert_in_order(&alice, &what);
        }
    }
}
