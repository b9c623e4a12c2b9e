//! Whoever makes all that an access ticket gives, and goes on: how much a real relay's memory grows by, that it says no, that
//! others feel nothing, and that log and numbers name nobody afterwards.

use std::{collections::BTreeMap, path::Path};

use lapwing_wire::{
    address::AccessTicket,
    capability::{Purpose, SecretKey, Subject},
    frame::*,
    ids::BlobHash,
    tripwire::Action,
};
use serde_bytes::ByteBuf;

use crate::{
    anchor::{Anchored, REAL},
    flood::{numbers, small},
    memory::{ask_all, settled},
    support::{
        Client, Keys,
        client::stored,
        envelope,
        process::{Process, run_json},
    },
    tripwire::{Plan, present},
};

/// Connections that flood beside each other.
const HANDS: usize = 4;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const NO_ACCESS: ResponseBody = ResponseBody::Refused(Refusal::NoAccess);
/// What a relay may grow by for the connections of a flood, the requests that are under way, and pages of the engine that
/// are in use for the first time. Without any object being made, 1 to 3 MiB were measured.
const OTHERWISE: u64 = 4 * MIB;
/// What a refusal may leave: nothing. This is the measure's own restlessness.
const NOTHING: u64 = 3 * MIB;

fn count<T: TryInto<u64>>(number: T) -> u64
where
    T::Error: std::fmt::Debug,
{
    number.try_into().unwrap()
}

/// A relay, somebody honest who has everything at it, and somebody with another ticket who will not stop.
struct Scene {
    base: tempfile::TempDir,
    relay: Process,
    port: u16,
    honest: Client,
    queue: Keys,
    plan: Plan,
    anchored: Anchored,
    ticket: AccessTicket,
    before: u64,
}

impl Scene {
    async fn new(size: &str, mailboxes: &str) -> Self {
        let base = tempfile::tempdir().unwrap();
        let (relay, own, port) = small(base.path());
        let mut honest = connect(&relay).await;
        let access = Some(own.secret().public());
        let queue = honest.mailbox(own.secret(), MailboxKind::Queue).await;
        let (plan, anchored) = (Plan::new(), Anchored::new());
        prove(&mut honest, Subject::Tripwire(plan.owner.public()), &plan.owner).await;
        let alert = Action::append(queue.id(), envelope(911), &queue.write);
        let arm = RequestBody::Arm(plan.arm_with(access, 1, &[alert]));
        assert_eq!(honest.ask(arm).await, ResponseBody::Done);
        prove(&mut honest, Subject::Anchor(anchored.owner.public()), &anchored.owner).await;
        let create = anchored.create(Some(own.secret()), None);
        assert_eq!(honest.anchor(AnchorRequest::Create(create)).await, ResponseBody::Done);
        let dir = base.path().join("relay");
        let issued = run_json(&dir, &["access", "issue", "--size", size, "--mailboxes", mailboxes]);
        let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
        let before = settled(&relay).await;
        Self { base, relay, port, honest, queue, plan, anchored, ticket, before }
    }

    /// A connection of the hostile one.
    async fn greedy(&self) -> Client {
        let mut client = connect(&self.relay).await;
        client.prove_access(self.ticket.secret()).await;
        client
    }

    /// Since before the flood.
    async fn grown(&self) -> u64 {
        settled(&self.relay).await.saturating_sub(self.before)
    }

    /// Bytes and mailboxes that the hostile one's ticket has used.
    fn used(&self) -> (u64, u64) {
        let output =
            crate::support::process::run(&self.base.path().join("relay"), &["access", "list", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let name = lapwing_relay::operator::ticket_name(&self.ticket.secret().public());
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let line = lines.into_iter().find(|line| line["name"] == name.as_str()).expect("its line");
        (line["used_bytes"].as_u64().unwrap(), line["used_mailboxes"].as_u64().unwrap())
    }

    /// Everything of the honest one works as before, and nothing of anybody is told anywhere.
    async fn others_are_served_and_nobody_is_named(mut self) {
        let stored = stored(&self.honest.append(self.queue.id(), envelope(1)).await);
        present(&mut self.honest, &self.plan.duress).await;
        let window = self.honest.window(self.queue.id(), 0).await;
        let found: Vec<_> = window.items.iter().map(|item| item.envelope.to_vec()).collect();
        assert!(found == [envelope(1), envelope(911)] && stored.seq == Seq::new(1));
        connect(&self.relay).await.unlock(self.anchored.id(), REAL).await.unwrap();
        names_nobody(&self.base.path().join("log"), &numbers(self.port));
        self.relay.kill();
    }
}

async fn connect(relay: &Process) -> Client {
    Client::connect(relay.socket(), relay.address.key()).await.unwrap()
}

pub async fn prove<P: Purpose>(client: &mut Client, subject: Subject, key: &SecretKey<P>) {
    assert_eq!(client.prove(subject, key).await, ResponseBody::Done);
}

/// Nothing but what a relay says in any case, whoever came: no id, address, or label can be in it.
pub fn names_nobody(log: &Path, numbers: &str) {
    const DISK: [&str; 3] = [
        "a commit took more than half a second: the disk is slow",
        "a commit has been waiting for the disk for seconds; nothing is answered meanwhile",
        "the disk answers again",
    ];
    const PORTS: [&str; 3] = ["listening on [::]:", "listening on 0.0.0.0:", "metrics on http://127.0.0.1:"];
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let found: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        assert!(found.keys().eq(["at", "level", "message", "type", "v"]), "{line}");
        let said = found["message"].as_str().unwrap();
        let port = PORTS.iter().find_map(|port| said.strip_prefix(port));
        let is_port = port.is_some_and(|rest| rest.trim_end_matches("/metrics").parse::<u16>().is_ok());
        assert!(is_port || DISK.contains(&said), "{line}");
    }
    let (_, body) = numbers.split_once("\r\n\r\n").unwrap();
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once(' ').unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        value.parse::<f64>().unwrap();
    }
}

/// How many of these answers are `done`; all others say that the ticket is used up.
pub fn made(answers: &[ResponseBody]) -> usize {
    let is_made =
        |answer: &&ResponseBody| matches!(answer, ResponseBody::Done | ResponseBody::BlobProgress(_));
    let made = answers.iter().filter(is_made).count();
    let refused = answers.iter().filter(|answer| **answer == NO_ACCESS).count();
    assert_eq!(made + refused, answers.len(), "one answer to all that is too much");
    made
}

/// Requests of several connections beside each other; how many were done.
async fn flood(work: Vec<(Client, Vec<RequestBody>)>) -> (Vec<Client>, usize) {
    let mut under_way = Vec::new();
    for (mut client, bodies) in work {
        under_way.push(tokio::spawn(async move {
            let made = made(&ask_all(&mut client, bodies).await);
            (client, made)
        }));
    }
    let (mut clients, mut total) = (Vec::new(), 0);
    for done in under_way {
        let (client, made) = done.await.unwrap();
        clients.push(client);
        total += made;
    }
    (clients, total)
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_up_to_a_tickets_number_and_beyond_take_a_bounded_memory() {
    const QUOTA: usize = 6000;
    let scene = Scene::new("16 MiB", &QUOTA.to_string()).await;
    let creates = async |each: usize| {
        let mut work = Vec::new();
        for _ in 0..HANDS {
            let client = scene.greedy().await;
            let access = Some(scene.ticket.secret().public());
            let create = |_| Keys::new().create(MailboxKind::Queue, access, &client.binding);
            let bodies = (0..each).map(create).map(RequestBody::Create).collect();
            work.push((client, bodies));
        }
        work
    };
    let (_, total) = flood(creates(QUOTA / HANDS + 250).await).await;
    assert_eq!(total, QUOTA);
    assert_eq!(scene.used(), (0, count(QUOTA)));
    let grown = scene.grown().await;
    println!("{QUOTA} mailboxes, and 1,000 refused: {} KiB", grown >> 10);
    // The page for operators: a thousand in each MiB of the half of `storage.memory`; and as much in the engine's tables.
    let bound = count(QUOTA) * 2 * KIB + OTHERWISE;
    assert!(grown < bound, "{} KiB for {QUOTA} mailboxes", grown >> 10);
    let more = creates(500).await;
    let before = settled(&scene.relay).await;
    let (_, total) = flood(more).await;
    assert_eq!(total, 0);
    let grown = settled(&scene.relay).await.saturating_sub(before);
    println!("2,000 that were refused: {} KiB", grown >> 10);
    assert!(grown < NOTHING, "{} KiB for what was refused", grown >> 10);
    scene.others_are_served_and_nobody_is_named().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anchors_up_to_a_tickets_bytes_and_beyond_take_a_bounded_memory() {
    /// Each is charged 8 KiB.
    const QUOTA: usize = 256;
    let scene = Scene::new("2 MiB", "1").await;
    let mut clients = Vec::new();
    let mut creates = Vec::new();
    // The requests of one stream about anchors are answered one after the other, 25 ms each.
    for _ in 0..HANDS {
        let mut client = scene.greedy().await;
        let mut mine = Vec::new();
        for _ in 0..QUOTA / HANDS + 25 {
            let anchored = Anchored::new();
            prove(&mut client, Subject::Anchor(anchored.owner.public()), &anchored.owner).await;
            let create = anchored.create(Some(scene.ticket.secret()), None);
            mine.push(RequestBody::Anchor(AnchorRequest::Create(create)));
        }
        clients.push(client);
        creates.push(mine);
    }
    let (clients, total) = flood(clients.into_iter().zip(creates.clone()).collect()).await;
    assert_eq!(total, QUOTA);
    assert_eq!(scene.used(), (2 * MIB, 0));
    let grown = scene.grown().await;
    println!("{QUOTA} anchors, and 100 refused: {} KiB", grown >> 10);
    // What they are charged, once for the engine's tables and once for what was read.
    assert!(grown < 2 * 2 * MIB + OTHERWISE, "{} KiB for {QUOTA} anchors", grown >> 10);
    // Again: those that are there are the same, the others are refused.
    let before = settled(&scene.relay).await;
    let (_, total) = flood(clients.into_iter().zip(creates).collect()).await;
    assert_eq!(total, QUOTA);
    let grown = settled(&scene.relay).await.saturating_sub(before);
    println!("the same again: {} KiB", grown >> 10);
    assert!(grown < NOTHING, "{} KiB for the same again", grown >> 10);
    assert_eq!(scene.used(), (2 * MIB, 0));
    scene.others_are_served_and_nobody_is_named().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tripwires_up_to_a_tickets_bytes_and_beyond_take_a_bounded_memory() {
    let scene = Scene::new("2 MiB", "1").await;
    let mut client = scene.greedy().await;
    let access = Some(scene.ticket.secret().public());
    let target = Keys::new();
    let (mut proofs, mut arms) = (Vec::new(), Vec::new());
    for _ in 0..900 {
        let plan = Plan::new();
        let subject = Subject::Tripwire(plan.owner.public());
        let signature = subject.prove(&plan.owner, &client.binding);
        proofs.push(RequestBody::Prove(Prove { subject, signature }));
        let alert = Action::append(target.id(), envelope(1), &target.write);
        arms.push(RequestBody::Arm(plan.arm_with(access, 1, &[alert])));
    }
    assert!(ask_all(&mut client, proofs).await.iter().all(|answer| *answer == ResponseBody::Done));
    let armed = made(&ask_all(&mut client, arms).await);
    let (used, _) = scene.used();
    assert!(used <= 2 * MIB && used > 2 * MIB - 8 * KIB, "{used} bytes of {armed} tripwires");
    let grown = scene.grown().await;
    println!("{armed} tripwires, and {} refused: {} KiB", 900 - armed, grown >> 10);
    assert!(armed < 800 && grown < 2 * 2 * MIB + OTHERWISE, "{} KiB for {armed} tripwires", grown >> 10);
    scene.others_are_served_and_nobody_is_named().await;
}

/// The smallest beginnings there are, each from a connection that is gone before the next, and each begun again.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_one_part_that_are_never_finished_take_a_bounded_number_and_memory() {
    const PART: usize = 16 << 10;
    const EACH: usize = 40;
    let scene = Scene::new("8 MiB", "1").await;
    let begin = |number: usize| {
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        RequestBody::BlobPut(BlobPut {
            hash: BlobHash::from_bytes(hash),
            total: count(PART) + 1,
            offset: 0,
            bytes: ByteBuf::from(vec![1; PART]),
            access: Some(scene.ticket.secret().public()),
        })
    };
    let mut begun = 0;
    for round in 0..15 {
        let mut client = scene.greedy().await;
        let puts: Vec<_> = (round * EACH..(round + 1) * EACH).map(begin).collect();
        let first = made(&ask_all(&mut client, puts.clone()).await);
        assert_eq!(made(&ask_all(&mut client, puts).await), first, "again is the same");
        begun += first;
        client.connection.close(0u32.into(), b"");
    }
    assert_eq!(count(begun), 8 * MIB / (count(PART) + 1), "as many as the ticket pays for whole");
    let grown = scene.grown().await;
    println!("{begun} uploads of one part, and {} refused: {} KiB", 15 * EACH - begun, grown >> 10);
    assert!(grown < OTHERWISE + 2 * MIB, "{} KiB for {begun} uploads", grown >> 10);
    scene.others_are_served_and_nobody_is_named().await;
}

/// What a tiny attachment costs the relay is its record and its keys: that is what it is charged.
#[tokio::test(flavor = "multi_thread")]
async fn tiny_attachments_use_up_a_ticket_too() {
    let scene = Scene::new("64 KiB", "1").await;
    let mut client = scene.greedy().await;
    let put = |bytes: Vec<u8>| {
        RequestBody::BlobPut(BlobPut {
            hash: BlobHash::of(&bytes),
            total: count(bytes.len()),
            offset: 0,
            bytes: ByteBuf::from(bytes),
            access: Some(scene.ticket.secret().public()),
        })
    };
    let puts = (0..1000u64).map(|number| put(number.to_be_bytes().to_vec())).collect();
    assert_eq!(made(&ask_all(&mut client, puts).await), 16);
    assert_eq!(scene.used(), (64 * KIB, 0));
    assert_eq!(client.ask(put(Vec::new())).await, NO_ACCESS, "one of nothing as well");
    scene.others_are_served_and_nobody_is_named().await;
}
