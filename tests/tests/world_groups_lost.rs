//! Groups whose relay has lost the end of their log: by its age, or because its disk has damaged it.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use lapwing::{engine::group::GroupCommand, store::MailboxRow};
use lapwing_tests::world::{
    Person, RelayNumber, World, calm,
    company::{group, let_in},
};
use lapwing_wire::{
    frame::{ResponseBody, Seq},
    ids::MailboxId,
};

const GROUP: &str = "march";

/// What is lost is counted in the newest number and in no window.
fn lose(world: &World, log: MailboxId, is_lost: impl Fn(Seq) -> bool + Send + 'static, whom: Vec<usize>) {
    world.net.set_tamper(Some(Box::new(move |who, _, mut answer| {
        if let ResponseBody::Window(window) = &mut answer
            && window.mailbox == log
            && whom.contains(&who)
        {
            window.items.retain(|item| !is_lost(item.place.seq));
        }
        answer
    })));
}

/// The last that a person has read of the group's log.
fn read(person: &Person, log: &MailboxId) -> Seq {
    person.look(|unit| unit.get::<MailboxRow>(log)).unwrap().unwrap().cursor
}

fn appends(world: &World, log: &MailboxId) -> usize {
    world.net.with_relay(RelayNumber(0), |relay| relay.appends(log).len())
}

/// Three members who have heard each other.
async fn three(world: &mut World) -> (Person, Person, Person) {
    let (mut alice, mut bob, mut dia) = group(world).await;
    let_in(&mut alice, &mut dia).await;
    for _ in 0..2 {
        for person in [&mut alice, &mut bob, &mut dia] {
            person.say(GROUP, "hello");
        }
        calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    }
    (alice, bob, dia)
}

/// An empty window behind which the newest number lies is no end: what is missing may be a removal.
#[tokio::test(start_paused = true)]
async fn grw_01_who_cannot_know_of_a_removal_because_the_relay_lost_it_writes_nothing_to_the_old_log() {
    let mut world = World::new(131);
    let (mut alice, mut bob, mut dia) = three(&mut world).await;
    let (log, copy) = (bob.log(GROUP), dia.copy_of_records());
    let last = read(&bob, &log);
    lose(&world, log, move |seq| seq > last, vec![bob.client]);
    alice.group(GroupCommand::Remove { group: GROUP.into(), member: "dia".into() });
    alice.sync().await;
    let before = appends(&world, &log);
    bob.say(GROUP, "not for dia");
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    let mut thief = Person::with_records(&mut world, "thief", copy);
    thief.settle().await;
    assert!(!thief.heard(GROUP).contains(&"not for dia".to_owned()));
    assert_eq!(appends(&world, &log), before);
    assert_eq!(bob.unsent(GROUP), ["not for dia"]);
}

#[tokio::test(start_paused = true)]
async fn grw_01_what_waits_because_the_end_of_a_log_was_lost_leaves_once_somebody_writes_who_had_read_it() {
    let mut world = World::new(132);
    let (mut alice, mut bob, mut dia) = three(&mut world).await;
    let log = bob.log(GROUP);
    let lost = read(&bob, &log).next();
    lose(&world, log, move |seq| seq == lost, vec![bob.client, dia.client]);
    alice.say(GROUP, "lost");
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    assert!(!bob.heard(GROUP).contains(&"lost".to_owned()));
    bob.say(GROUP, "waits");
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    assert_eq!(bob.unsent(GROUP), ["waits"]);
    alice.say(GROUP, "next");
    calm(&mut [&mut alice, &mut bob, &mut dia]).await;
    assert!(bob.unsent(GROUP).is_empty());
    assert_eq!(alice.heard(GROUP).last().unwrap(), "waits");
}
