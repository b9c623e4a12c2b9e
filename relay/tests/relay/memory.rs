//! What hostile clients can make a relay hold, measured as the resident memory of a real process.

use std::{net::SocketAddr, path::Path};

use lapwing_wire::{
    address::{AccessTicket, RelayKey},
    capability::{Right, Subject},
    frame::*,
    ids::MailboxId,
    limits::MAX_IN_FLIGHT,
};
use quinn::{SendStream, TransportConfig, VarInt};
use rustls::crypto::aws_lc_rs;
use serde_bytes::ByteBuf;
use tokio::task::JoinSet;

use crate::support::{
    Client, Keys,
    client::{read_frame, stored, within},
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

/// So many who ask for all of a mailbox of 128 KiB again and again and take nothing; the mailbox, and what the relay's memory grew by.
async fn readers_who_take_nothing(
    relay: &Process,
    owner: &mut Client,
    ticket: &AccessTicket,
    count: usize,
) -> (Keys, Vec<Client>, u64) {
    let keys = owner.mailbox(ticket.secret(), MailboxKind::Log).await;
    for number in 0..2u8 {
        stored(&owner.append(keys.id(), vec![number; 64 << 10]).await);
    }
    let before = settled(relay).await;
    let mut crowd = Vec::new();
    for _ in 0..count {
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
    let grown = settled(relay).await.saturating_sub(before);
    (keys, crowd, grown)
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_take_nothing_hold_a_bounded_memory_each() {
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket) = started(&base.path().join("relay"));
    let mut owner = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let (keys, _crowd, grown) = readers_who_take_nothing(&relay, &mut owner, &ticket, CROWD).await;
    println!("{CROWD} readers who take nothing: {} KiB", grown >> 10);
    // The bound of docs/relay-operation.md: 2 MiB of answers, 256 KiB that are not acknowledged, and copies on the way.
    let bound = u64::try_from(CROWD).unwrap() * 4 * MIB;
    assert!(grown < bound, "{} MiB for {CROWD} connections", grown / MIB);
    assert_eq!(owner.window(keys.id(), 0).await.items.len(), 2, "others are served");
    relay.kill();
}

/// Somebody who has proved nothing, with the beginning of the largest frame on all streams that he may open, as far as the relay lets him.
async fn begins_and_never_ends(relay: SocketAddr, key: RelayKey) -> Option<(Client, Vec<SendStream>)> {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(2048)).receive_window(VarInt::from_u32(4096));
    let provider = aws_lc_rs::default_provider();
    let stranger = Client::connect_over(relay, &key, ALPN, provider, transport).await.ok()?;
    let patience = std::time::Duration::from_millis(100);
    let mut streams = Vec::new();
    while let Ok(Ok((mut requests, _answers))) =
        tokio::time::timeout(patience, stranger.connection.open_bi()).await
    {
        let mut begun = vec![0; 250 << 10];
        begun[..4].copy_from_slice(&(256u32 << 10).to_be_bytes());
        tokio::time::timeout(patience, requests.write_all(&begun)).await.ok();
        streams.push(requests);
    }
    Some((stranger, streams))
}

/// As many as one address may be, with the configuration as it is written: what all of them hold, not each.
#[tokio::test(flavor = "multi_thread")]
async fn all_strangers_of_one_address_who_begin_and_never_end_hold_a_bounded_memory() {
    const FLOOD: usize = 600;
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket) = started(&base.path().join("relay"));
    let mut owner = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = owner.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let before = settled(&relay).await;
    let (mut coming, mut crowd, mut most) = (JoinSet::new(), Vec::new(), 0);
    let (socket, key) = (relay.socket(), *relay.address.key());
    for number in 0..FLOOD {
        if number >= 32 {
            crowd.extend(coming.join_next().await.and_then(Result::unwrap));
            most = most.max(relay.memory());
        }
        coming.spawn(begins_and_never_ends(socket, key));
    }
    while let Some(come) = coming.join_next().await {
        crowd.extend(come.unwrap());
    }
    let grown = settled(&relay).await.max(most).saturating_sub(before);
    println!("{} strangers who never end: {} KiB", crowd.len(), grown >> 10);
    assert!((300..=512).contains(&crowd.len()), "{} got in", crowd.len());
    // An idle connection has 50 KiB, and more while it is made; a stranger's 16 KiB that were sent ahead, and 4 KiB of each stream. What
    // they began is 750 KiB each.
    let bound = u64::try_from(crowd.len()).unwrap() * (192 << 10);
    assert!(grown < bound, "{} KiB for {} connections", grown >> 10, crowd.len());
    stored(&owner.append(keys.id(), vec![1; 1024]).await);
    relay.kill();
}

/// Strangers who are answered, and leave the first byte of another request on each stream: what was answered is not kept for that.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_not_kept_for_a_byte_of_what_comes_next() {
    const STREAMS: usize = 3;
    let base = tempfile::tempdir().unwrap();
    let (relay, _ticket) = started(&base.path().join("relay"));
    let append =
        Append { mailbox: MailboxId::from_bytes([7; 32]), envelope: ByteBuf::from(vec![1; 240 << 10]) };
    let mut frame = encode_frame(&Request { id: 1, body: RequestBody::Append(append) }).unwrap();
    frame.push(0);
    let before = settled(&relay).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let stranger = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let (mut requests, mut answers) = within(stranger.connection.open_bi()).await.unwrap();
            within(requests.write_all(&frame)).await.unwrap();
            let answer: Response = read_frame(&mut answers).await.unwrap();
            assert_eq!(answer.body, ResponseBody::Refused(Refusal::NotAllowed));
            streams.push((requests, answers));
        }
        crowd.push((stranger, streams));
    }
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{CROWD} strangers of whom {STREAMS} large requests each were answered: {} KiB", grown >> 10);
    // 240 KiB of each stream would be 11 MiB; those of one connection, which are worked on at a time, serve the next.
    assert!(grown < 6 * MIB, "{} KiB for {CROWD} connections", grown >> 10);
    relay.kill();
}

/// Whoever has a right, on many connections: what is large of all of them comes out of one pool, and their network has half of it.
#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_one_network_who_take_nothing_hold_what_its_share_is() {
    const READERS: usize = 96;
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket) = started(&base.path().join("relay"));
    let mut owner = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let (_, _crowd, grown) = readers_who_take_nothing(&relay, &mut owner, &ticket, READERS).await;
    println!("{READERS} readers of one network who take nothing: {} KiB", grown >> 10);
    // 64 MiB of the pool, 256 KiB of each that are not acknowledged, its packets, and copies on the way. Alone each could have 2 MiB of
    // answers, 192 MiB.
    assert!(grown < 160 * MIB, "{} MiB for {READERS} connections", grown / MIB);
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
