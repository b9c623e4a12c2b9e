//! Groups in the World: one log per epoch, one append per message, membership that everybody agrees on.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::collections::BTreeSet;

use lapwing::{
    engine::{
        Command, Fault,
        group::{GroupCommand, GroupView, group_view},
    },
    store::{GroupRow, MailboxRow, MessageState, OpRow},
};
use lapwing_protocol::group::{Entry, EpochKeys};
use lapwing_tests::world::{Person, RelayNumber, World, calm, introduce};
use lapwing_wire::{
    capability::{ChannelBinding, Right, Subject, Write},
    frame::{Append, Prove, Refusal, RequestBody, ResponseBody},
    ids::MailboxId,
};

const GROUP: &str = "the march";

/// People who all know the first one.
async fn people<const N: usize>(world: &mut World, names: [&str; N]) -> Vec<Person> {
    let relay = world.relay().await;
    let mut all: Vec<Person> = names.iter().map(|name| world.person(name, &[relay])).collect();
    let (first, others) = all.split_first_mut().unwrap();
    for other in others {
        introduce(first, other).await;
    }
    all
}

async fn calm_all(people: &mut [Person]) {
    calm(&mut people.iter_mut().collect::<Vec<_>>()).await;
}

fn invite(people: &mut [Person], who: usize) {
    let chat = people[who].name.clone();
    people[0].group(GroupCommand::Invite { group: GROUP.into(), chat });
}

fn approve(people: &mut [Person], who: usize) {
    let alias = people[who].name.clone();
    people[who].group(GroupCommand::Approve { what: GROUP.into(), alias, name: None });
}

async fn add(people: &mut [Person], who: usize) {
    invite(people, who);
    calm_all(people).await;
    approve(people, who);
    calm_all(people).await;
}

/// A group of all of them.
async fn group_of<const N: usize>(world: &mut World, names: [&str; N]) -> Vec<Person> {
    let mut all = people(world, names).await;
    let alias = all[0].name.clone();
    all[0].group(GroupCommand::Create { name: GROUP.into(), alias, relay: None });
    for who in 1..N {
        add(&mut all, who).await;
    }
    all
}

fn view(person: &Person) -> GroupView {
    let id = person.chat(GROUP).id;
    person.look(|unit| group_view(unit, &id)).unwrap()
}

fn roster(person: &Person) -> BTreeSet<String> {
    view(person).members.into_iter().map(|member| member.name.into_exposed()).collect()
}

fn appends(world: &World, log: &MailboxId) -> usize {
    world.net.with_relay(RelayNumber(0), |relay| relay.appends(log).len())
}

fn remove(people: &mut [Person], by: usize, who: usize) {
    let member = people[who].name.clone();
    people[by].group(GroupCommand::Remove { group: GROUP.into(), member });
}

fn keys(person: &Person) -> EpochKeys {
    let id = person.chat(GROUP).id;
    let row = person.look(|unit| unit.get::<GroupRow>(&id)).unwrap().unwrap();
    EpochKeys::import(&row.epoch.unwrap().keys).unwrap()
}

/// Puts an entry into a log with these keys, past every client.
async fn append_entry(world: &mut World, keys: &EpochKeys, entry: &[u8]) {
    let mut rng = world.rng();
    let envelope = keys.seal(entry, &mut rng).unwrap();
    let service = world.net.with_relay(RelayNumber(0), |relay| relay.service());
    let binding = ChannelBinding::from_bytes([9; 32]);
    let connection = service.connect(binding);
    let subject = Subject::Mailbox(keys.mailbox, Right::Write);
    let signature = subject.prove::<Write>(&keys.write, &binding);
    let now = world.clock.now();
    let proved = service.handle(&connection, RequestBody::Prove(Prove { subject, signature }), now).await;
    assert_eq!(proved, ResponseBody::Done);
    let append = Append { mailbox: keys.mailbox, envelope: envelope.into() };
    let stored = service.handle(&connection, RequestBody::Append(append), now).await;
    assert!(matches!(stored, ResponseBody::Stored(_)));
}

#[tokio::test(start_paused = true)]
async fn five_people_chat_and_each_message_is_one_append() {
    let mut world = World::new(101);
    let mut all = group_of(&mut world, ["ana", "ben", "cem", "dia", "eva"]).await;
    let everybody: BTreeSet<String> = all.iter().map(|person| person.name.clone()).collect();
    for person in &all {
        assert_eq!(roster(person), everybody, "{}", person.name);
        assert_eq!(view(person).head, view(&all[0]).head);
    }
    // The first message of each carries the sender key in an append of its own.
    for person in &mut all {
        person.say(GROUP, &format!("{} is here", person.name));
    }
    calm_all(&mut all).await;
    let log = all[0].log(GROUP);
    let before = appends(&world, &log);
    for round in 0..3 {
        for person in &mut all {
            person.say(GROUP, &format!("{} {round}", person.name));
        }
    }
    calm_all(&mut all).await;
    assert_eq!(appends(&world, &log) - before, 15);
    for person in &all {
        let heard: BTreeSet<String> = person.heard(GROUP).into_iter().collect();
        assert_eq!(person.heard(GROUP).len(), 16, "{}: {:?}", person.name, person.heard(GROUP));
        for other in all.iter().filter(|other| other.name != person.name) {
            for round in 0..3 {
                assert!(heard.contains(&format!("{} {round}", other.name)));
            }
        }
        assert!(person.unsent(GROUP).is_empty());
        assert!(person.rows::<OpRow>().is_empty());
    }
    // Under their names, in the order in which each wrote.
    let of_ana: Vec<String> =
        all[4].lines(GROUP).into_iter().filter(|line| line.writer == "ana").map(|line| line.text).collect();
    assert_eq!(of_ana, ["ana is here", "ana 0", "ana 1", "ana 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_reads_nothing_from_before() {
    let mut world = World::new(102);
    let mut all = people(&mut world, ["ana", "ben", "cem", "dia"]).await;
    all[0].group(GroupCommand::Create { name: GROUP.into(), alias: "ana".into(), relay: None });
    add(&mut all, 1).await;
    add(&mut all, 2).await;
    all[0].say(GROUP, "before");
    all[1].say(GROUP, "before too");
    calm_all(&mut all).await;
    add(&mut all, 3).await;
    for person in &mut all {
        person.say(GROUP, &format!("{} after", person.name));
    }
    calm_all(&mut all).await;
    assert_eq!(all[3].heard(GROUP), ["ana after", "ben after", "cem after"]);
    assert_eq!(all[2].heard(GROUP).len(), 5);
    assert_eq!(roster(&all[3]).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_removed_decrypts_nothing_after_it_even_from_a_copy_of_his_records() {
    let mut world = World::new(103);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    for person in &mut all {
        person.say(GROUP, "with all three");
    }
    calm_all(&mut all).await;
    let copy = all[2].copy_of_records();
    let old = all[0].log(GROUP);
    remove(&mut all, 0, 2);
    // Written before anybody knows of the removal, and not sent.
    all[1].say(GROUP, "ben was not told yet");
    calm_all(&mut all).await;
    all[0].say(GROUP, "among us");
    all[1].say(GROUP, "yes");
    calm_all(&mut all).await;
    assert_ne!(all[0].log(GROUP), old);
    assert_eq!(all[0].log(GROUP), all[1].log(GROUP));
    assert_eq!(roster(&all[0]), BTreeSet::from(["ana".to_owned(), "ben".to_owned()]));
    assert_eq!(all[0].heard(GROUP).last().unwrap(), "yes");
    assert!(all[0].heard(GROUP).contains(&"ben was not told yet".to_owned()));
    assert!(all[1].heard(GROUP).contains(&"among us".to_owned()));
    assert!(matches!(
        all[2].command(Command::Send { chat: GROUP.into(), text: "hello?".into() }),
        Err(Fault::GroupEnded)
    ));
    let secret = ["among us", "yes", "ben was not told yet"];
    let mut thief = Person::with_records(&mut world, "thief", copy);
    for _ in 0..3 {
        thief.settle().await;
    }
    for person in [&thief, &all[2]] {
        let heard = person.heard(GROUP);
        assert!(!heard.is_empty() && heard.iter().all(|text| !secret.contains(&text.as_str())), "{heard:?}");
    }
    // The new log is not even known there; and nothing of it opens with what is.
    let new = all[0].log(GROUP);
    assert!(thief.mailboxes().iter().all(|(id, _)| *id != new));
    let stolen: Vec<_> = thief.rows::<MailboxRow>();
    for envelope in world.net.with_relay(RelayNumber(0), |relay| relay.appends(&new)) {
        for (_, row) in &stolen {
            let key =
                lapwing_protocol::envelope::EnvelopeKey::from_bytes(row.key.as_slice().try_into().unwrap());
            assert!(lapwing_protocol::envelope::open(&key, &new, &envelope).is_err());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_sealed_before_a_removal_and_not_sent_is_sealed_anew_after_it() {
    let mut world = World::new(104);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    all[1].say(GROUP, "first");
    calm_all(&mut all).await;
    let copy = all[2].copy_of_records();
    // Ben seals, and his link dies before the append.
    all[1].say(GROUP, "sealed for three");
    let ben = all[1].client;
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Append(_) if who == ben => lapwing_tests::world::Fate::Lost,
        _ => lapwing_tests::world::Fate::Answered,
    })));
    all[1].settle().await;
    assert_eq!(all[1].unsent(GROUP), ["sealed for three"]);
    remove(&mut all, 0, 2);
    all[0].sync().await;
    world.net.set_script(None);
    let old_log = all[2].log(GROUP);
    let before = appends(&world, &old_log);
    // As long as the log cannot be read, nothing that was sealed for it leaves.
    world.net.set_tamper(Some(Box::new(move |who, body, answer| match body {
        RequestBody::Read(read) if who == ben && read.mailbox == old_log => {
            ResponseBody::Refused(Refusal::Busy)
        }
        _ => answer,
    })));
    all[1].settle().await;
    assert_eq!(all[1].unsent(GROUP), ["sealed for three"]);
    world.net.set_tamper(None);
    calm_all(&mut all).await;
    assert_eq!(appends(&world, &old_log), before, "nothing more is written to the old log");
    assert_eq!(all[0].heard(GROUP), ["first", "sealed for three"]);
    assert!(all[1].unsent(GROUP).is_empty());
    assert!(all[0].notes(GROUP).iter().all(|note| !note.contains("did not arrive")));
    let mut thief = Person::with_records(&mut world, "thief", copy);
    thief.settle().await;
    assert_eq!(thief.heard(GROUP), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_reply_was_lost_is_shown_once_though_it_was_sealed_twice() {
    let mut world = World::new(105);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    all[1].say(GROUP, "first");
    calm_all(&mut all).await;
    all[1].say(GROUP, "twice");
    let ben = all[1].client;
    world.net.set_script(Some(Box::new(move |who, body| match body {
        RequestBody::Append(_) if who == ben => lapwing_tests::world::Fate::ReplyLost,
        _ => lapwing_tests::world::Fate::Answered,
    })));
    all[1].settle().await;
    world.net.set_script(None);
    remove(&mut all, 0, 2);
    all[0].sync().await;
    calm_all(&mut all).await;
    assert_eq!(all[0].heard(GROUP), ["first", "twice"]);
    assert!(all[1].unsent(GROUP).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_member_who_was_away_during_removals_catches_up() {
    let mut world = World::new(106);
    let mut all = group_of(&mut world, ["ana", "ben", "cem", "dia", "eva"]).await;
    for person in &mut all {
        person.say(GROUP, "hello");
    }
    calm_all(&mut all).await;
    let mut away = all.pop().unwrap();
    all[1].say(GROUP, "in the first epoch");
    calm_all(&mut all).await;
    remove(&mut all, 0, 3);
    calm_all(&mut all).await;
    all[1].say(GROUP, "in the second");
    calm_all(&mut all).await;
    remove(&mut all, 0, 2);
    calm_all(&mut all).await;
    all[1].say(GROUP, "in the third");
    calm_all(&mut all).await;
    away.say(GROUP, "I am back");
    all.push(away);
    calm_all(&mut all).await;
    let heard = all.last().unwrap().heard(GROUP);
    assert_eq!(heard[heard.len() - 3..], ["in the first epoch", "in the second", "in the third"]);
    assert_eq!(all[0].heard(GROUP).last().unwrap(), "I am back");
    assert_eq!(roster(&all[4]), roster(&all[0]));
    assert_eq!(view(&all[4]).epoch, 2);
    for removed in [2, 3] {
        assert!(!all[removed].heard(GROUP).contains(&"I am back".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_member_writes_to_the_old_log_is_refused() {
    let mut world = World::new(107);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    for person in &mut all {
        person.say(GROUP, "hello");
    }
    calm_all(&mut all).await;
    let copy = all[2].copy_of_records();
    remove(&mut all, 0, 2);
    calm_all(&mut all).await;
    // His program does not know, or does not care: it hears nothing and writes to the old log.
    let mut hostile = Person::with_records(&mut world, "hostile", copy);
    hostile.say(GROUP, "you cannot get rid of me");
    let number = hostile.client;
    world.net.set_tamper(Some(Box::new(move |who, _, answer| match answer {
        ResponseBody::Window(mut window) if who == number => {
            window.items.clear();
            window.newest = lapwing_wire::frame::Seq::new(u64::MAX);
            ResponseBody::Window(window)
        }
        other => other,
    })));
    hostile.settle().await;
    world.net.set_tamper(Some(Box::new(move |who, body, answer| match (body, answer) {
        (RequestBody::Read(read), ResponseBody::Window(mut window)) if who == number => {
            window.items.clear();
            window.newest = read.after;
            ResponseBody::Window(window)
        }
        (_, other) => other,
    })));
    hostile.settle().await;
    assert!(hostile.unsent(GROUP).is_empty(), "the relay took it");
    world.net.set_tamper(None);
    calm_all(&mut all[..2]).await;
    for person in &all[..2] {
        assert!(!person.heard(GROUP).iter().any(|text| text.contains("rid of me")), "{}", person.name);
    }
}

#[tokio::test(start_paused = true)]
async fn commits_forged_by_a_member_are_refused() {
    let mut world = World::new(108);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    calm_all(&mut all).await;
    let keys = keys(&all[1]);
    let heads: Vec<String> = all.iter().map(|person| view(person).head).collect();
    // Ben may not commit: his own client says so, and the others' would.
    assert!(matches!(
        all[1].command(Command::Group(GroupCommand::Remove { group: GROUP.into(), member: "cem".into() })),
        Err(Fault::NotAdmin)
    ));
    let id = all[1].chat(GROUP).id;
    let chain = all[1].look(|unit| unit.get::<lapwing::store::ChainRow>(&id)).unwrap().unwrap();
    let group = lapwing_protocol::group::Group::import(&chain.state).unwrap();
    let genuine: Vec<Vec<u8>> = group.commits().map(<[u8]>::to_vec).collect();
    let mut forged: Vec<Vec<u8>> = genuine.clone();
    for commit in &genuine {
        for at in (0..commit.len()).step_by(97) {
            let mut changed = commit.clone();
            changed[at] ^= 0x20;
            forged.push(changed);
        }
    }
    forged.extend([Vec::new(), vec![0xa0], vec![0xff; 8000]]);
    for commit in forged {
        if let Ok(entry) = Entry::Commit(commit).encode() {
            append_entry(&mut world, &keys, &entry).await;
        }
    }
    for garbage in [&b""[..], b"\xa0", &[0x7f; 900]] {
        append_entry(&mut world, &keys, garbage).await;
    }
    all[0].say(GROUP, "still one group");
    calm_all(&mut all).await;
    for (person, head) in all.iter().zip(heads) {
        assert_eq!(view(person).head, head, "{}", person.name);
    }
    assert_eq!(all[2].heard(GROUP), ["still one group"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_who_leaves_is_let_go_and_an_owner_ends_the_group() {
    let mut world = World::new(109);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    all[2].say(GROUP, "so long");
    calm_all(&mut all).await;
    assert!(matches!(
        all[0].command(Command::Group(GroupCommand::Leave { group: GROUP.into(), end: false })),
        Err(Fault::OwnerLeaves)
    ));
    assert!(matches!(
        all[1].command(Command::Group(GroupCommand::Leave { group: GROUP.into(), end: true })),
        Err(Fault::NotAdmin)
    ));
    all[2].group(GroupCommand::Leave { group: GROUP.into(), end: false });
    calm_all(&mut all).await;
    assert_eq!(roster(&all[0]), BTreeSet::from(["ana".to_owned(), "ben".to_owned()]));
    assert_eq!(view(&all[0]).epoch, 1);
    assert_eq!(view(&all[1]).epoch, 1);
    all[0].say(GROUP, "the two of us");
    calm_all(&mut all).await;
    assert_eq!(all[1].heard(GROUP), ["so long", "the two of us"]);
    assert!(!all[2].heard(GROUP).contains(&"the two of us".to_owned()));
    all[0].group(GroupCommand::Leave { group: GROUP.into(), end: true });
    calm_all(&mut all).await;
    assert!(view(&all[1]).ended);
    for person in &mut all[..2] {
        assert!(matches!(
            person.command(Command::Send { chat: GROUP.into(), text: "x".into() }),
            Err(Fault::GroupEnded)
        ));
    }
    assert_eq!(all[1].heard(GROUP), ["so long", "the two of us"], "what was said stays");
}

#[tokio::test(start_paused = true)]
async fn somebody_removed_can_be_invited_again() {
    let mut world = World::new(110);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    remove(&mut all, 0, 2);
    calm_all(&mut all).await;
    all[2].must(Command::Rename { chat: GROUP.into(), name: "the march, before".into() });
    add(&mut all, 2).await;
    for person in &mut all {
        person.say(GROUP, &format!("{} again", person.name));
    }
    calm_all(&mut all).await;
    assert_eq!(roster(&all[1]).len(), 3);
    assert_eq!(all[2].heard(GROUP), ["ana again", "ben again"]);
    assert_eq!(all[1].heard(GROUP), ["ana again", "cem again"]);
}

#[tokio::test(start_paused = true)]
async fn an_invitation_can_be_declined_and_asked_again() {
    let mut world = World::new(111);
    let mut all = people(&mut world, ["ana", "ben"]).await;
    all[0].group(GroupCommand::Create { name: GROUP.into(), alias: "ana".into(), relay: None });
    invite(&mut all, 1);
    calm_all(&mut all).await;
    all[1].group(GroupCommand::Decline { what: GROUP.into() });
    calm_all(&mut all).await;
    assert!(all[0].notes("ben").iter().any(|note| note.contains("does not want")));
    assert_eq!(roster(&all[0]).len(), 1);
    assert!(matches!(
        all[1].command(Command::Group(GroupCommand::Approve {
            what: GROUP.into(),
            alias: "ben".into(),
            name: None
        })),
        Err(Fault::NoInvitation)
    ));
    add(&mut all, 1).await;
    assert_eq!(roster(&all[1]).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_sender_key_is_changed_after_a_hundred_messages_and_after_a_day() {
    let mut world = World::new(112);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    let sender = |person: &Person| {
        let id = person.chat(GROUP).id;
        let row = person.look(|unit| unit.get::<GroupRow>(&id)).unwrap().unwrap();
        *lapwing_protocol::session::OwnSenderKey::import(&row.sender.unwrap())
            .unwrap()
            .distribution_id()
            .as_bytes()
    };
    all[0].say(GROUP, "start");
    calm_all(&mut all).await;
    let first = sender(&all[0]);
    for n in 0..250 {
        all[0].say(GROUP, &format!("{n}"));
    }
    calm_all(&mut all).await;
    let second = sender(&all[0]);
    assert_ne!(first, second);
    assert_eq!(all[1].heard(GROUP).len(), 251);
    assert_eq!(all[2].heard(GROUP)[250], "249");
    world.clock.advance(std::time::Duration::from_secs(25 * 3600));
    all[0].say(GROUP, "the next day");
    calm_all(&mut all).await;
    assert_ne!(sender(&all[0]), second);
    assert_eq!(all[1].heard(GROUP)[251], "the next day");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_while_a_member_is_removed_leaves_one_group() {
    for at in 1..=12 {
        for kept in [false, true] {
            for who in [0, 1] {
                let mut world = World::new(11_300 + at);
                let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
                for person in &mut all {
                    person.say(GROUP, "hello");
                }
                calm_all(&mut all).await;
                all[who].restart();
                all[who].base().crash_at(lapwing_tests::world::Crash { at, kept });
                let removal = GroupCommand::Remove { group: GROUP.into(), member: "cem".into() };
                let _ = all[0].command(Command::Group(removal));
                let _ = all[1].command(Command::Send { chat: GROUP.into(), text: "from ben".into() });
                for _ in 0..4 {
                    for person in &mut all {
                        person.settle().await;
                        if person.base().is_dead() {
                            person.restart();
                        }
                    }
                }
                all[who].restart();
                if roster(&all[0]).len() == 3 {
                    remove(&mut all, 0, 2);
                }
                if !all[1].lines(GROUP).iter().any(|line| line.text == "from ben") {
                    all[1].say(GROUP, "from ben");
                }
                all[0].say(GROUP, "from ana");
                calm_all(&mut all).await;
                let what = format!("side {who}, commit {at}, kept: {kept}");
                assert_eq!(view(&all[0]).head, view(&all[1]).head, "{what}");
                assert_eq!(roster(&all[1]).len(), 2, "{what}");
                let count = |person: &Person, text: &str| {
                    person.heard(GROUP).iter().filter(|heard| *heard == text).count()
                };
                assert_eq!(count(&all[0], "from ben"), 1, "{what}");
                assert_eq!(count(&all[1], "from ana"), 1, "{what}");
                assert_eq!(count(&all[2], "from ana"), 0, "{what}");
                assert!(view(&all[2]).ended, "{what}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_group_that_ends_is_told_as_not_delivered() {
    let mut world = World::new(114);
    let mut all = group_of(&mut world, ["ana", "ben", "cem"]).await;
    remove(&mut all, 0, 2);
    all[0].sync().await;
    all[2].say(GROUP, "into the void");
    all[2].sync().await;
    let line = all[2].lines(GROUP).into_iter().find(|line| line.text == "into the void").unwrap();
    assert_eq!(line.state, MessageState::Failed);
    assert_eq!(all[2].chat(GROUP).waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_to_a_group_with_a_long_history_fetches_it_from_the_relay() {
    let mut world = World::new(115);
    let mut all = people(&mut world, ["ana", "ben", "cem", "dia"]).await;
    all[0].group(GroupCommand::Create { name: GROUP.into(), alias: "ana".into(), relay: None });
    add(&mut all, 1).await;
    for round in 0..20 {
        add(&mut all, 2).await;
        remove(&mut all, 0, 2);
        calm_all(&mut all).await;
        all[2].must(Command::Rename { chat: GROUP.into(), name: format!("before {round}") });
    }
    let id = all[0].chat(GROUP).id;
    let chain = all[0].look(|unit| unit.get::<lapwing::store::ChainRow>(&id)).unwrap().unwrap();
    assert!(chain.state.len() > lapwing_protocol::group::MAX_INLINE_CHAIN);
    add(&mut all, 3).await;
    for who in [0, 1, 3] {
        let text = format!("{} in epoch 20", all[who].name);
        all[who].say(GROUP, &text);
    }
    calm_all(&mut all).await;
    assert_eq!(view(&all[3]).epoch, 20);
    assert_eq!(view(&all[3]).head, view(&all[0]).head);
    assert_eq!(all[3].heard(GROUP), ["ana in epoch 20", "ben in epoch 20"]);
    assert_eq!(all[1].heard(GROUP).len(), 2);
}
