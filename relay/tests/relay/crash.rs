//! SIGKILL of a real relay, again and again.
//!
//! Short here; `LAPWING_KILL_ROUNDS=1000 cargo nextest run --profile long -p lapwing-relay killed_under_load` is the long run.

use std::collections::{BTreeMap, BTreeSet};

use lapwing_wire::{
    address::{AccessTicket, RelayAddress},
    capability::{Right, Subject},
    frame::*,
    ids::{EnvelopeId, MailboxId, RunningHash},
    tripwire::{Action, Came, OpenStatus},
};

use crate::{
    memory::ask_all,
    support::{
        Client, Keys,
        client::{append, stored},
        envelope,
        process::{Process, run_json},
    },
    tripwire::{Plan, present},
};

const ROUNDS: u64 = 8;
const MAILBOXES: u8 = 3;
/// Requests that are under way when the relay is killed: as many as a connection may have.
const SENT: usize = 256;
/// Answers that a round waits for at most before that; another number in each round, so that the relay dies at another place of its work.
const ANSWERS: u64 = 120;
/// Envelopes that a mailbox keeps in a long run, about: it would be full else.
const KEPT: u64 = 2000;
/// Envelopes of a mailbox of which retries are known: somewhat fewer than are promised.
const KNOWN: u64 = 4000;
/// Rounds after which everything that is there is read.
const LOOK: u64 = 32;

fn rounds() -> u64 {
    std::env::var("LAPWING_KILL_ROUNDS").ok().map_or(ROUNDS, |text| text.parse().unwrap())
}

async fn connect(relay: &Process) -> Client {
    Client::connect(relay.socket(), relay.address.key()).await.unwrap()
}

fn first_ticket(dir: &std::path::Path) -> (Process, AccessTicket) {
    let made = run_json(dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    assert_eq!(made["address"], serde_json::Value::Null);
    let relay = Process::start(dir);
    let issued = run_json(dir, &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    assert_eq!(ticket.relay(), &relay.address);
    (relay, ticket)
}

async fn create_all(client: &mut Client, ticket: &AccessTicket, all: &[Keys]) {
    client.prove_access(ticket.secret()).await;
    for keys in all {
        let create = keys.create(MailboxKind::Queue, Some(ticket.secret().public()), &client.binding);
        assert_eq!(client.ask(RequestBody::Create(create)).await, ResponseBody::Done);
    }
}

/// Everything that is stored, read in windows.
async fn read_all(client: &mut Client, mailbox: MailboxId) -> BTreeMap<u64, Item> {
    let mut all = BTreeMap::new();
    let mut after = 0;
    loop {
        let window = client.window(mailbox, after).await;
        let Some(last) = window.items.last() else { return all };
        after = last.place.seq.value();
        all.extend(window.items.into_iter().map(|item| (item.place.seq.value(), item)));
    }
}

/// Reads everything, and compares it with what was answered: by envelope number; and with what was taken, by mailbox.
async fn look(
    relay: &Process,
    all: &[Keys],
    taken: &[u64],
    answered: &BTreeMap<u64, (usize, Stored)>,
) -> Client {
    let mut client = connect(relay).await;
    for (index, keys) in all.iter().enumerate() {
        client.prove_all(keys).await;
        let there = read_all(&mut client, keys.id()).await;
        let first = there.keys().next().copied().unwrap();
        assert_eq!(first, taken[index] + 1, "what was taken is gone, what was not is there");
        let kept = |(of, place): &&(usize, Stored)| *of == index && place.seq.value() >= first;
        for (number, (_, place)) in answered.iter().filter(|(_, told)| kept(told)) {
            let item = &there[&place.seq.value()];
            assert_eq!((item.place, item.id()), (*place, EnvelopeId::of(&envelope(*number))));
        }
        assert_eq!(there.len(), answered.values().filter(kept).count(), "each once, and nothing else");
        // The chain has no gap and no fork.
        let mut hash: Option<RunningHash> = None;
        for (seq, item) in &there {
            if let Some(before) = hash {
                assert_eq!(item.place.hash, before.next(*seq, &item.id()));
            }
            hash = Some(item.place.hash);
        }
    }
    client
}

/// The newest number of each mailbox, in which what was taken is gone and nothing else.
async fn newest_of(client: &mut Client, all: &[Keys], taken: &[u64]) -> Vec<Seq> {
    let mut newest = Vec::new();
    for (keys, taken) in all.iter().zip(taken) {
        let window = client.window(keys.id(), 0).await;
        let first = window.items.first().map_or(window.newest.next(), |item| item.place.seq);
        assert_eq!(first.value(), taken + 1);
        newest.push(window.newest);
    }
    newest
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_relay_is_killed_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let (mut relay, ticket) = first_ticket(dir.path());
    let all: Vec<Keys> = (1..=MAILBOXES).map(Keys::of_byte).collect();
    create_all(&mut connect(&relay).await, &ticket, &all).await;
    // What was answered, by envelope number; and what was acknowledged to the relay, by mailbox.
    let mut answered: BTreeMap<u64, (usize, Stored)> = BTreeMap::new();
    let mut taken = vec![0u64; all.len()];
    let mut next = 0u64;
    // Of what was not answered: what was not there, and what was.
    let mut cut = [0u64; 2];
    // All numbers that were given, by mailbox; and from which envelope on they are not among them.
    let mut numbers = vec![BTreeSet::new(); all.len()];
    let mut unnumbered = 0;
    for round in 0..rounds() {
        let mut client = connect(&relay).await;
        for keys in &all {
            client.prove_all(keys).await;
        }
        // An acknowledgement that is answered holds too: in some rounds nothing comes after it that could carry it to the disk.
        let index = usize::try_from(round / 3 + round).unwrap() % all.len();
        let newest =
            answered.values().filter(|(of, _)| *of == index).map(|(_, place)| place.seq.value()).max();
        let upto = (taken[index] + 5).min(newest.unwrap_or(0)).max(newest.unwrap_or(0).saturating_sub(KEPT));
        let ack = Ack { mailbox: all[index].id(), upto: Seq::new(upto), also: Vec::new() };
        assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
        taken[index] = upto;
        let mut sent = BTreeMap::new();
        let (sends, waits_for) = if round % 3 == 1 { (0, 0) } else { (SENT, round * 37 % ANSWERS) };
        for _ in 0..sends {
            next += 1;
            let index = usize::try_from(next).unwrap() % all.len();
            let id = client.send(append(all[index].id(), envelope(next))).await.unwrap();
            sent.insert(id, (index, next));
        }
        for _ in 0..waits_for {
            let response = client.receive().await.unwrap();
            let (index, number) = sent[&response.id];
            answered.insert(number, (index, stored(&response.body)));
        }
        relay.kill();
        relay = Process::start(dir.path());
        // What was sent and not answered is sent again: each gets one number, whether it was there or is only now.
        let again: Vec<_> = sent.into_values().filter(|(_, number)| !answered.contains_key(number)).collect();
        let mut client = connect(&relay).await;
        for keys in &all {
            client.prove_all(keys).await;
        }
        let appends = again.iter().map(|(index, number)| append(all[*index].id(), envelope(*number)));
        let before = newest_of(&mut client, &all, &taken).await;
        let places = ask_all(&mut client, appends.collect()).await;
        for ((index, number), place) in again.into_iter().zip(places) {
            let place = stored(&place);
            let was_there = place.seq <= before[index];
            cut[usize::from(was_there)] += 1;
            answered.insert(number, (index, place));
        }
        // No number is without an envelope of ours, so nothing is there twice, also of what is taken before anybody reads it.
        let newest = newest_of(&mut client, &all, &taken).await;
        for (number, (of, place)) in answered.range(unnumbered..) {
            assert!(numbers[*of].insert(place.seq), "{number}: one number each");
        }
        unnumbered = next + 1;
        for (numbers, newest) in numbers.iter().zip(newest) {
            let last = numbers.last().copied().unwrap_or(Seq::START);
            assert_eq!((last, numbers.len()), (newest, usize::try_from(newest.value()).unwrap()));
        }
        if (round + 1) % LOOK == 0 {
            look(&relay, &all, &taken, &answered).await;
        }
    }

    println!(
        "{} rounds: {} answered, of the others {} were there, {} not",
        rounds(),
        answered.len(),
        cut[1],
        cut[0]
    );
    assert!(cut[0] > 0, "no kill came before all that was sent was on the disk: {cut:?}");
    let mut client = look(&relay, &all, &taken, &answered).await;
    // The same answer to a retry, also for what was taken, as long as that is promised (FRM-06).
    let known = |place: &Stored, of: usize| {
        let newest = numbers[of].last().map_or(0, |newest| newest.value());
        place.seq.value() + KNOWN > newest
    };
    for (number, (index, place)) in answered.iter().filter(|(_, (of, place))| known(place, *of)).step_by(7) {
        let again = stored(&client.append(all[*index].id(), envelope(*number)).await);
        assert_eq!(again, *place);
    }
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_a_tripwire_fires_whole_or_not_at_all_and_once_when_the_relay_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut relay, ticket) = first_ticket(dir.path());
    for round in 0..6u8 {
        let (alerts, doomed) = (Keys::of_byte(10 + round), Keys::of_byte(20 + round));
        let plan = Plan::new();
        let mut owner = connect(&relay).await;
        let both = [alerts, doomed];
        create_all(&mut owner, &ticket, &both).await;
        let [alerts, doomed] = both;
        owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
        owner.prove(Subject::Mailbox(doomed.id(), Right::Write), &doomed.write).await;
        stored(&owner.append(doomed.id(), envelope(1)).await);
        let actions = [
            Action::append(alerts.id(), envelope(911), &alerts.write),
            Action::append(alerts.id(), envelope(912), &alerts.write),
            Action::sink(doomed.id(), &doomed.admin),
        ];
        let arm = plan.arm_with(Some(ticket.secret().public()), 1, &actions);
        assert_eq!(owner.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);

        // Killed with the token under way; in every other round after its answer.
        let token = RequestBody::Token(PresentToken { token: plan.duress.clone() });
        owner.send(token).await.unwrap();
        let is_answered = round % 2 == 1;
        if is_answered {
            owner.receive().await.unwrap();
        } else {
            // One more round trip of another connection: the relay may or may not have worked on the token.
            drop(connect(&relay).await);
        }
        relay.kill();
        relay = Process::start(dir.path());

        let mut client = connect(&relay).await;
        client.prove_all(&alerts).await;
        client.prove_all(&doomed).await;
        let fired = client.window(alerts.id(), 0).await.items.len();
        let is_sink = client.window(doomed.id(), 0).await.items.is_empty();
        assert!((fired == 2 && is_sink) || (fired == 0 && !is_sink), "whole or not at all");
        assert!(fired == 2 || !is_answered, "answered means fired");
        for _ in 0..2 {
            present(&mut client, &plan.duress).await;
            let window = client.window(alerts.id(), 0).await;
            assert_eq!(window.newest, Seq::new(2), "once");
            assert_eq!(window.items[1].id(), EnvelopeId::of(&envelope(912)));
            assert!(client.window(doomed.id(), 0).await.items.is_empty());
        }
        let said = present(&mut client, &plan.own).await.open(&plan.status);
        assert_eq!(
            said,
            Some(OpenStatus { serial: 1, fired: true, came: Came::default() }),
            "the owner learns it"
        );
    }
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_the_relay_wherever_it_listens() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, _) = first_ticket(dir.path());
    let before: RelayAddress = relay.address.clone();
    relay.kill();
    let relay = Process::start(dir.path());
    assert_eq!(relay.address.key(), before.key());
    assert!(Client::connect(relay.socket(), before.key()).await.is_ok());
    relay.kill();
}
