//! What hostile clients can make a relay hold, measured as the resident memory of a real process.

use std::{net::SocketAddr, path::Path};

use lapwing_wire::{
    address::{AccessTicket, RelayKey},
    capability::{Right, Subject},
    frame::*,
    ids::MailboxId,
    limits::MAX_IN_FLIGHT,
};
use quinn::{TransportConfig, VarInt};
use rustls::crypto::aws_lc_rs;

use crate::support::{
    Client, Keys,
    client::{stored, within},
    process::{Process, run_json},
};

const MIB: u64 = 1 << 20;
/// Hostile connections.
const CROWD: usize = 16;

/// A client that takes nearly nothing: what is answered stays at the relay.
pub async fn deaf(relay: SocketAddr, key: &RelayKey) -> Client {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(2048)).receive_window(VarInt::from_u32(4096));
    let provider = aws_lc_rs::default_provider();
    Client::connect_over(relay, key, ALPN, provider, transport).await.unwrap()
}

fn started(dir: &Path) -> (Process, AccessTicket) {
    run_json(dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(dir);
    let issued = run_json(dir, &["access", "issue"]);
    (relay, AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap())
}

/// The answers to many requests, in their order.
pub async fn ask_all(client: &mut Client, bodies: Vec<RequestBody>) -> Vec<ResponseBody> {
    let mut answers = Vec::new();
    for some in bodies.chunks(MAX_IN_FLIGHT / 4) {
        let mut ids = Vec::new();
        for body in some {
            ids.push(client.send(body.clone()).await.unwrap());
        }
        let mut found = std::collections::BTreeMap::new();
        for _ in &ids {
            let Response { id, body } = client.receive().await.unwrap();
            found.insert(id, body);
        }
        answers.extend(ids.iter().map(|id| found.remove(id).unwrap()));
    }
    answers
}

/// Everything that one connection may hold: no more is given, and it has its price.
#[tokio::test(flavor = "multi_thread")]
async fn all_rights_and_subscriptions_that_a_connection_may_have_take_a_bounded_memory() {
    const PROOFS: usize = 4096;
    const SUBSCRIPTIONS: usize = 2048;
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(&dir);
    let issued = run_json(&dir, &["access", "issue", "--mailboxes", "3000"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    client.prove_access(ticket.secret()).await;
    let busy = ResponseBody::Refused(Refusal::Busy);
    let before = settled(&relay).await;
    let all: Vec<Keys> = (0..=SUBSCRIPTIONS).map(|_| Keys::new()).collect();
    let binding = client.binding;
    let each = |body: &dyn Fn(&Keys) -> RequestBody| all.iter().map(body).collect::<Vec<_>>();
    let access = Some(ticket.secret().public());
    let create = each(&|keys| RequestBody::Create(keys.create(MailboxKind::Queue, access, &binding)));
    let read = each(&|keys| {
        let subject = Subject::Mailbox(keys.id(), Right::Read);
        let signature = subject.prove(&keys.read, &binding);
        RequestBody::Prove(Prove { subject, signature })
    });
    for bodies in [create, read] {
        assert!(ask_all(&mut client, bodies).await.iter().all(|answer| *answer == ResponseBody::Done));
    }
    let subscribe =
        each(&|keys| RequestBody::Subscribe(Read { mailbox: keys.id(), after: Seq::START, count: 1 }));
    let answers = ask_all(&mut client, subscribe).await;
    let taken = answers.iter().filter(|answer| matches!(answer, ResponseBody::Window(_))).count();
    assert_eq!(taken, SUBSCRIPTIONS);
    assert_eq!(answers.iter().filter(|answer| **answer == busy).count(), 1, "one more than it may have");
    let write = each(&|keys| {
        let subject = Subject::Mailbox(keys.id(), Right::Write);
        let signature = subject.prove(&keys.write, &binding);
        RequestBody::Prove(Prove { subject, signature })
    });
    let answers = ask_all(&mut client, write).await;
    let done = answers.iter().filter(|answer| **answer == ResponseBody::Done).count();
    assert_eq!(answers.iter().filter(|answer| **answer == busy).count(), answers.len() - done);
    let proofs = 1 + all.len() + done;
    assert!((PROOFS..=PROOFS + 1).contains(&proofs), "{proofs} proofs were taken");
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{proofs} rights and {SUBSCRIPTIONS} subscriptions of one connection: {} KiB", grown >> 10);
    assert!(grown < 8 * MIB, "{} KiB for one connection, and the mailboxes that it made", grown >> 10);
    relay.kill();
}

/// The greatest memory while the relay works off what was sent: until it has not grown for a second.
pub async fn settled(relay: &Process) -> u64 {
    let (mut most, mut quiet) = (relay.memory(), 0);
    while quiet < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let now = relay.memory();
        quiet = if now > most + MIB { 0 } else { quiet + 1 };
        most = most.max(now);
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_take_nothing_hold_a_bounded_memory_each() {
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket) = started(&base.path().join("relay"));
    let mut owner = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = owner.mailbox(ticket.secret(), MailboxKind::Log).await;
    for number in 0..2u8 {
        stored(&owner.append(keys.id(), vec![number; 64 << 10]).await);
    }
    let before = settled(&relay).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut reader = deaf(relay.socket(), relay.address.key()).await;
        let subject = Subject::Mailbox(keys.id(), Right::Read);
        assert_eq!(reader.prove(subject, &keys.read).await, ResponseBody::Done);
        // Each of these is answered with 128 KiB: 16 MiB a connection, if the relay held all of them.
        let read = Read { mailbox: keys.id(), after: Seq::START, count: 2 };
        for _ in 0..MAX_IN_FLIGHT / 2 {
            reader.send(RequestBody::Read(read.clone())).await.unwrap();
        }
        crowd.push(reader);
    }
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{CROWD} readers who take nothing: {} KiB", grown >> 10);
    // The bound of docs/relay-operation.md: 2 MiB of answers, 1 MiB that is not acknowledged, and copies on the way.
    let bound = u64::try_from(CROWD).unwrap() * 6 * MIB;
    assert!(grown < bound, "{} MiB for {CROWD} connections", grown / MIB);
    assert_eq!(owner.window(keys.id(), 0).await.items.len(), 2, "others are served");
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_begin_and_never_end_hold_a_bounded_memory_each_and_not_what_they_began() {
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket) = started(&base.path().join("relay"));
    let mut owner = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = owner.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let before = settled(&relay).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let stranger = deaf(relay.socket(), relay.address.key()).await;
        let mut streams = Vec::new();
        // All streams that are allowed but the first, each with the beginning of the largest frame.
        for _ in 0..15 {
            let (mut requests, answers) = within(stranger.connection.open_bi()).await.unwrap();
            let mut begun = vec![0; 250 << 10];
            begun[..4].copy_from_slice(&(256u32 << 10).to_be_bytes());
            // As much as the relay lets it send.
            let patience = std::time::Duration::from_millis(20);
            tokio::time::timeout(patience, requests.write_all(&begun)).await.ok();
            streams.push((requests, answers));
        }
        crowd.push((stranger, streams));
    }
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{CROWD} strangers who never end: {} KiB", grown >> 10);
    // 512 KiB of frames that have begun, 512 KiB that were sent ahead, and what a connection and its packets cost: some
    // 1.5 MiB. What they began is 3.7 MiB.
    let bound = u64::try_from(CROWD).unwrap() * 5 * MIB / 2;
    assert!(grown < bound, "{} KiB for {CROWD} connections", grown >> 10);
    stored(&owner.append(keys.id(), vec![1; 1024]).await);
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_leave_nothing_in_memory() {
    let base = tempfile::tempdir().unwrap();
    let (relay, _) = started(&base.path().join("relay"));
    let mut stranger = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let key = Keys::new();
    let answers = async |stranger: &mut Client, count: u32| {
        for _ in 0..count {
            let answer = stranger.receive().await.unwrap();
            assert_eq!(answer.body, ResponseBody::Refused(Refusal::NotAllowed));
        }
    };
    let ask = async |stranger: &mut Client, count: u32| {
        for number in 0..count {
            if number % 50 == 0 && number > 0 {
                answers(stranger, 50).await;
            }
            let mut id = [7; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let mailbox = MailboxId::from_bytes(id);
            let subject = Subject::Mailbox(mailbox, Right::Write);
            let signature = subject.prove(&key.write, &stranger.binding);
            stranger.send(RequestBody::Prove(Prove { subject, signature })).await.unwrap();
        }
        answers(stranger, 50).await;
    };
    ask(&mut stranger, 200).await;
    let before = settled(&relay).await;
    ask(&mut stranger, 1000).await;
    let grown = settled(&relay).await.saturating_sub(before);
    println!("1,000 guesses: {} KiB", grown >> 10);
    assert!(grown < 3 * MIB, "{} KiB after 1,000 guesses", grown >> 10);
    relay.kill();
}
