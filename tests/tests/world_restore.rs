//! Backups in the World: what they hold, and people who go on from one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "scenario tests")]

use std::sync::Arc;

use lapwing::{
    backup::Item,
    engine::{
        Command, Fault, Reply,
        export::export,
        group::GroupCommand,
        plan::{PlanSpec, PlanTokens},
        renewal,
        view::{self, ChatState},
    },
    store::{
        ChatRow, ContactRow, GroupRow, MailboxRow, MemoryBase, MessageState, PeerRow, PlanAction, PlanRow,
        Purpose, RenewalRow, Row, TrustSide,
    },
};
use lapwing_tests::world::{
    Crash, Person, RelayNumber, World, calm,
    company::{give_voice, number, talk},
    introduce,
};
use lapwing_wire::tripwire::Token;

/// All that a backup of this person would hold, as it would be read back.
fn backup(person: &Person) -> Vec<Vec<u8>> {
    let mut items = Vec::new();
    person
        .look(|unit| {
            export(unit, &mut |item: Item| {
                items.push(item.encode().to_vec());
                Ok::<(), Fault>(())
            })
        })
        .unwrap();
    items
}

fn items(backup: &[Vec<u8>]) -> impl Iterator<Item = Item> {
    let items = backup.iter().map(|bytes| Item::decode(bytes).unwrap());
    items.filter(|item| !matches!(item, Item::Compartment { .. }))
}

/// Restores a backup on a device of its own.
fn restore(world: &mut World, name: &str, backup: &[Vec<u8>]) -> Person {
    let mut person = Person::with_records(world, name, Arc::new(MemoryBase::default()));
    let all: Vec<Item> = items(backup).collect();
    person.must(Command::Import(all));
    person.must(Command::EndImport);
    person
}

fn words(person: &Person, chat: &str) -> Vec<(String, String)> {
    let lines = person.lines(chat).into_iter().filter(|line| line.writer != "program");
    lines.map(|line| (line.writer, line.text)).collect()
}

async fn friends(world: &mut World) -> (Person, Person) {
    let (mut alice, mut bob) = world.acquainted().await;
    for n in 0..5 {
        alice.say("bob", &format!("a {n}"));
        bob.say("alice", &format!("b {n}"));
        calm(&mut [&mut alice, &mut bob]).await;
    }
    alice.must(Command::Verify { chat: "bob".into(), equal: true });
    bob.must(Command::Verify { chat: "alice".into(), equal: true });
    (alice, bob)
}

#[tokio::test(start_paused = true)]
async fn bak_09_who_restores_a_backup_goes_on_with_everybody_and_keeps_the_history() {
    let mut world = World::new(400);
    let (mut alice, mut bob) = friends(&mut world).await;
    alice.must(Command::Rename { chat: "bob".into(), name: "bo".into() });
    let (before, history) = (number(&alice, "bo"), words(&alice, "bo"));
    let saved = backup(&alice);
    // What comes afterwards is lost with the device.
    bob.say("alice", "after the backup");
    calm(&mut [&mut bob, &mut alice]).await;
    let mut restored = restore(&mut world, "alice", &saved);
    drop(alice);
    assert_eq!(words(&restored, "bo"), history);
    assert_eq!(number(&restored, "bo"), before);
    assert_eq!(restored.chat("bo").state, ChatState::Renewing);
    restored.say("bo", "I am back");
    restored.sync().await;
    calm(&mut [&mut bob, &mut restored]).await;
    assert_eq!(restored.chat("bo").state, ChatState::Open);
    assert!(restored.look(renewal::renewals).unwrap().is_empty());
    assert!(restored.chat("bo").verified && bob.chat("alice").verified);
    assert_eq!(bob.heard("alice").last().unwrap(), "I am back");
    assert_eq!(bob.notes("alice").iter().filter(|note| note.contains("renewed the session")).count(), 1);
    restored.must(Command::Rename { chat: "bo".into(), name: "bob".into() });
    talk(&mut restored, &mut bob, "again").await;
    assert_eq!(number(&restored, "bob"), number(&bob, "alice"));
    // And a backup of that one works as well.
    let saved = backup(&restored);
    let mut third = restore(&mut world, "alice", &saved);
    third.relays_lie = true;
    calm(&mut [&mut third, &mut bob]).await;
    talk(&mut third, &mut bob, "third device").await;
}

#[tokio::test(start_paused = true)]
async fn bak_09_both_sides_may_restore_at_once() {
    for seed in 0..6 {
        let mut world = World::new(410 + seed);
        let (alice, bob) = friends(&mut world).await;
        let (of_alice, of_bob) = (backup(&alice), backup(&bob));
        let (mut alice, mut bob) =
            (restore(&mut world, "alice", &of_alice), restore(&mut world, "bob", &of_bob));
        for turn in 0..6 {
            if (seed >> (turn % 3)) & 1 == 0 {
                alice.sync().await
            } else {
                bob.sync().await
            };
        }
        calm(&mut [&mut alice, &mut bob]).await;
        assert_eq!((alice.chat("bob").state, bob.chat("alice").state), (ChatState::Open, ChatState::Open));
        for round in 0..3 {
            talk(&mut alice, &mut bob, &format!("{round}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rnw_06_the_second_vault_of_one_backup_is_refused_and_everybody_is_told() {
    let mut world = World::new(420);
    let (alice, mut bob) = friends(&mut world).await;
    let saved = backup(&alice);
    drop(alice);
    let mut first = restore(&mut world, "alice", &saved);
    calm(&mut [&mut first, &mut bob]).await;
    talk(&mut first, &mut bob, "first").await;
    let mut second = restore(&mut world, "thief", &saved);
    second.settle().await;
    bob.sync().await;
    second.settle().await;
    assert_eq!(second.chat("bob").state, ChatState::Failed);
    assert!(second.notes("bob").iter().any(|note| note.contains("invite anew")));
    assert!(bob.notes("alice").iter().any(|note| note.contains("was refused")));
    first.settle().await;
    let warned = first.notes("bob").iter().any(|note| note.contains("copy of your backup"));
    // The refusal may have been read by the other vault first: both read the mailbox that was left.
    assert!(warned || first.chat("bob").state == ChatState::Open);
    talk(&mut first, &mut bob, "still").await;
}

#[tokio::test(start_paused = true)]
async fn bak_05_no_ratchet_state_no_plan_and_no_group_key_is_in_a_backup() {
    let mut world = World::new(430);
    let relay = world.relay().await;
    let mut all: Vec<Person> = ["ana", "bo"].iter().map(|name| world.person(name, &[relay])).collect();
    let [ana, bo] = all.as_mut_slice() else { panic!("two people") };
    introduce(ana, bo).await;
    ana.group(GroupCommand::Create { name: "the march".into(), alias: "ana".into(), relay: None });
    ana.group(GroupCommand::Invite { group: "the march".into(), chat: "bo".into() });
    calm(&mut [&mut *ana, &mut *bo]).await;
    bo.group(GroupCommand::Approve { what: "the march".into(), alias: "bo".into(), name: None });
    calm(&mut [&mut *ana, &mut *bo]).await;
    for text in ["one", "two"] {
        ana.say("the march", text);
        bo.say("the march", text);
        ana.say("bo", text);
        bo.say("ana", text);
        calm(&mut [&mut *ana, &mut *bo]).await;
    }
    trust(ana, bo).await;
    arm(&mut world, ana, relay, "bo").await;
    let all = backup(ana).concat();
    let holds = |secret: &[u8]| secret.len() >= 16 && all.windows(secret.len()).any(|part| part == secret);
    let contact = ana.rows::<ContactRow>().remove(0).1;
    let session = contact.session.unwrap();
    // Any part of the session will do: what it consists of is not ours to know.
    for part in session.chunks_exact(32) {
        let of_peer = lapwing_protocol::session::Session::import(&session).unwrap();
        let public = [of_peer.peer().as_bytes().as_slice(), of_peer.own().as_bytes()].concat();
        let is_public = public.windows(16).any(|known| part.windows(16).any(|window| window == known));
        assert!(is_public || !holds(part), "a part of the session");
    }
    let (_, group) = ana.rows::<GroupRow>().remove(0);
    for secret in [&group.local, &group.epoch.as_ref().unwrap().keys, group.sender.as_ref().unwrap()] {
        assert!(!holds(secret), "a secret of the group");
    }
    for (_, peer) in ana.rows::<PeerRow>() {
        assert!(!holds(&peer.session));
    }
    for (_, plan) in ana.rows::<PlanRow>() {
        for tripwire in &plan.tripwires {
            for secret in [&tripwire.owner, &tripwire.fire, &tripwire.renew, &tripwire.status] {
                assert!(!holds(secret), "a secret of the plan");
            }
        }
        assert!(!holds(plan.text.as_bytes()) || plan.text.len() < 16);
    }
    // And it does hold what it should: otherwise this test proves nothing.
    assert!(holds(b"lapwing/1 never").eq(&false) && all.windows(3).any(|part| part == b"two"));
    assert!(holds(ana.rows::<RenewalRow>()[0].1.ticket.as_ref().unwrap()));
}

async fn trust(owner: &mut Person, contact: &mut Person) {
    owner.must(Command::TrustAdd { chat: contact.name.clone() });
    calm(&mut [owner, contact]).await;
    contact.must(Command::TrustAccept { chat: owner.name.clone() });
    calm(&mut [owner, contact]).await;
}

async fn arm(world: &mut World, owner: &mut Person, relay: RelayNumber, alert: &str) -> Token {
    let mut rng = world.rng();
    let (fire, renew) = (Token::generate(&mut rng), Token::generate(&mut rng));
    let spec = PlanSpec {
        name: "border".into(),
        action: PlanAction::Hide,
        shows: vec!["main".into()],
        alert: vec![alert.to_owned()],
        text: "I was stopped at the border today".into(),
        place: None,
        instructions: None,
        remote: None,
        sinks: Vec::new(),
        tokens: vec![PlanTokens { relay: world.net.address(relay), fire: fire.clone(), renew }],
    };
    let Reply::Plan(plan) = owner.must(Command::PlanBegin(Box::new(spec))) else { panic!("not a plan") };
    owner.sync().await;
    owner.must(Command::PlanFinish { plan });
    fire
}

#[tokio::test(start_paused = true)]
async fn a_trusted_contact_who_restored_a_backup_still_gets_the_alert() {
    let mut world = World::new(440);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut olga, mut ben) = (world.person("olga", &[a]), world.person("ben", &[b]));
    introduce(&mut olga, &mut ben).await;
    trust(&mut olga, &mut ben).await;
    let fire = arm(&mut world, &mut olga, a, "ben").await;
    give_voice(&mut world, &mut olga, "ben", a).await;
    calm(&mut [&mut olga, &mut ben]).await;
    let saved = backup(&ben);
    drop(ben);
    let mut ben = restore(&mut world, "ben", &saved);
    let sides = ben.look(view::trusts).unwrap();
    assert!(sides.iter().any(|trust| trust.side == TrustSide::Theirs && trust.accepted));
    // His voice is there too, and counts.
    let voices = |ben: &Person| -> usize {
        ben.look(view::trusts).unwrap().iter().map(|trust| trust.voices.len()).sum()
    };
    assert_eq!(voices(&ben), 1);
    ben.must(Command::Trigger { chat: "olga".into() });
    calm(&mut [&mut ben, &mut olga]).await;
    assert_eq!(ben.look(view::alerts).unwrap().len(), 1);
    let mut cover = world.person("cover", &[]);
    cover.present(&[(a, fire)]).await;
    calm(&mut [&mut ben, &mut olga]).await;
    assert_eq!(ben.look(view::alerts).unwrap().len(), 2);
    // The owner, restored, has the trusted contact and no plan, and says so when there is a session again.
    let saved = backup(&olga);
    let mut olga = restore(&mut world, "olga", &saved);
    calm(&mut [&mut olga, &mut ben]).await;
    assert!(olga.rows::<PlanRow>().is_empty());
    assert!(olga.look(view::trusts).unwrap().iter().any(|trust| trust.accepted));
    olga.restart();
    calm(&mut [&mut olga, &mut ben]).await;
    assert_eq!(voices(&ben), 0);
    let fire = arm(&mut world, &mut olga, a, "ben").await;
    cover.present(&[(a, fire)]).await;
    ben.sync().await;
    assert_eq!(ben.look(view::alerts).unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn bak_10_a_group_is_restored_as_left_with_its_history_and_can_be_joined_again() {
    let mut world = World::new(450);
    let relay = world.relay().await;
    let (mut ana, mut bo) = (world.person("ana", &[relay]), world.person("bo", &[relay]));
    introduce(&mut ana, &mut bo).await;
    ana.group(GroupCommand::Create { name: "the march".into(), alias: "ana".into(), relay: None });
    ana.group(GroupCommand::Invite { group: "the march".into(), chat: "bo".into() });
    calm(&mut [&mut ana, &mut bo]).await;
    bo.group(GroupCommand::Approve { what: "the march".into(), alias: "bo".into(), name: None });
    calm(&mut [&mut ana, &mut bo]).await;
    ana.say("the march", "from ana");
    bo.say("the march", "from bo");
    calm(&mut [&mut ana, &mut bo]).await;
    let saved = backup(&bo);
    let mut bo = restore(&mut world, "bo", &saved);
    assert_eq!(bo.chat("the march").state, ChatState::Ended);
    let lines = words(&bo, "the march");
    assert_eq!(lines, [("me".into(), "from bo".into()), ("ana".into(), "from ana".into())]);
    assert!(matches!(
        bo.command(Command::Send { chat: "the march".into(), text: "hello".into() }),
        Err(Fault::GroupEnded)
    ));
    calm(&mut [&mut bo, &mut ana]).await;
    ana.group(GroupCommand::Remove { group: "the march".into(), member: "bo".into() });
    calm(&mut [&mut ana, &mut bo]).await;
    ana.group(GroupCommand::Invite { group: "the march".into(), chat: "bo".into() });
    calm(&mut [&mut ana, &mut bo]).await;
    bo.group(GroupCommand::Approve {
        what: "ana".into(),
        alias: "bo again".into(),
        name: Some("march".into()),
    });
    calm(&mut [&mut ana, &mut bo]).await;
    bo.say("march", "I am back");
    calm(&mut [&mut bo, &mut ana]).await;
    assert_eq!(ana.heard("the march").last().unwrap(), "I am back");
}

#[tokio::test(start_paused = true)]
async fn bak_08_what_waited_is_restored_as_not_sent_and_what_was_not_a_contact_as_ended() {
    let mut world = World::new(460);
    let (mut alice, mut bob) = friends(&mut world).await;
    let b = RelayNumber(1);
    world.net.take_down(b).await;
    alice.say("bob", "waiting");
    alice.settle().await;
    alice.invite("carol");
    alice.must(Command::Block { chat: "bob".into(), blocked: false });
    let saved = backup(&alice);
    world.net.bring_back(b);
    let mut restored = restore(&mut world, "alice", &saved);
    assert_eq!(
        restored.lines("bob").iter().find(|line| line.text == "waiting").unwrap().state,
        MessageState::Failed
    );
    assert_eq!(restored.chat("bob").waiting, 0);
    assert_eq!(restored.chat("carol").state, ChatState::Failed);
    calm(&mut [&mut restored, &mut bob]).await;
    assert!(!bob.heard("alice").contains(&"waiting".to_owned()));
    talk(&mut restored, &mut bob, "on").await;
    // New messages come after the old ones, whatever their numbers were.
    let orders: Vec<String> = restored.lines("bob").into_iter().map(|line| line.text).collect();
    assert_eq!(orders.first().unwrap(), "a 0");
    assert!(restored.rows::<ChatRow>().len() == 2);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_after_a_restoration_leaves_it_before_or_after() {
    let mut commits = 40;
    let mut at = 1;
    while at <= commits {
        for kept in [false, true] {
            let mut world = World::new(470 + at);
            let (alice, mut bob) = friends(&mut world).await;
            let saved = backup(&alice);
            drop(alice);
            let mut restored = restore(&mut world, "alice", &saved);
            restored.restart();
            let begun = restored.commits();
            restored.base().crash_at(Crash { at, kept });
            for _ in 0..6 {
                restored.settle().await;
                if restored.base().is_dead() {
                    restored.restart();
                }
                bob.sync().await;
            }
            commits = commits.min(restored.commits() - begun);
            // A crash that did not come by now does not come.
            restored.restart();
            calm(&mut [&mut restored, &mut bob]).await;
            assert_eq!(restored.chat("bob").state, ChatState::Open, "commit {at}, kept: {kept}");
            assert_eq!(bob.notes("alice").iter().filter(|note| note.contains("renewed")).count(), 1);
            talk(&mut restored, &mut bob, "on").await;
        }
        at += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn bak_06_a_record_of_an_unknown_table_is_refused_and_nothing_is_taken() {
    let mut world = World::new(490);
    let (alice, _) = friends(&mut world).await;
    let mut person = Person::with_records(&mut world, "alice", Arc::new(MemoryBase::default()));
    let mut all: Vec<Item> = items(&backup(&alice)).collect();
    all.push(Item::Record { table: 0xee, key: vec![1].into(), value: vec![0xa0].into() });
    assert!(matches!(person.command(Command::Import(all)), Err(Fault::BadBackup)));
    assert!(person.rows::<ChatRow>().is_empty() && person.rows::<MailboxRow>().is_empty());
    let damaged = Item::Record { table: ChatRow::TABLE, key: vec![1; 3].into(), value: vec![0xa0].into() };
    assert!(matches!(person.command(Command::Import(vec![damaged])), Err(Fault::BadBackup)));
    let foreign = person.mailboxes_for(|purpose| matches!(purpose, Purpose::Direct(_)));
    assert!(foreign.is_empty());
}
