//! Floods at a real relay: what each leaves in its memory is measured, and whoever is honest is served meanwhile.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use lapwing_wire::{
    address::AccessTicket,
    capability::{Right, Subject},
    frame::*,
    ids::BlobHash,
};
use quinn::{TransportConfig, VarInt};
use rustls::crypto::aws_lc_rs;
use serde_bytes::ByteBuf;
use tokio::{net::UdpSocket, task::JoinSet};

use crate::{
    memory::settled,
    quota::names_nobody,
    support::{
        Client, PATIENCE,
        client::{append, stored, within},
        envelope,
        process::{Process, run_json},
    },
};

const MIB: u64 = 1 << 20;
/// Connections that the relay of these tests takes from one network.
pub const SEATS: usize = 64;
/// Handshakes under way above which it asks addresses to prove that they receive.
const RETRY_ABOVE: usize = 16;

/// A relay with few seats and numbers for monitoring; where those are.
pub fn small(base: &Path) -> (Process, AccessTicket, u16) {
    let dir = base.join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let config = std::fs::read_to_string(dir.join("relay.toml")).unwrap();
    let changed = config
        .replace("connections_per_network = 512", &format!("connections_per_network = {SEATS}"))
        .replace("retry_above = 64", &format!("retry_above = {RETRY_ABOVE}"))
        .replace("stall_timeout = \"30s\"", "stall_timeout = \"2s\"")
        .replace("listen = \"\"", "listen = \"127.0.0.1:0\"");
    assert_eq!(changed.lines().zip(config.lines()).filter(|(a, b)| a != b).count(), 4, "{changed}");
    std::fs::write(dir.join("relay.toml"), changed).unwrap();
    let log = base.join("log");
    let relay = Process::start_logging(&dir, std::fs::File::create(&log).unwrap());
    let said = std::fs::read_to_string(&log).unwrap();
    let port = said.lines().find_map(|line| {
        line.split_once("metrics on http://127.0.0.1:")?.1.split_once("/metrics")?.0.parse().ok()
    });
    let issued = run_json(&dir, &["access", "issue", "--size", "16 MiB"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    (relay, ticket, port.expect("where it tells its numbers"))
}

/// All of the relay's numbers, as they are told.
pub fn numbers(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// One of the relay's numbers.
pub fn number(port: u16, name: &str) -> u64 {
    number_in(&numbers(port), name)
}

/// One of them, in what was told.
pub fn number_in(text: &str, name: &str) -> u64 {
    let prefix = format!("lapwing_relay_{name} ");
    let found = text.lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok());
    found.unwrap_or_else(|| panic!("{name}: {text}"))
}

async fn connect(relay: &Process) -> Result<Client, String> {
    Client::connect(relay.socket(), relay.address.key()).await
}

/// Passes on what comes, from another port for every sender, and nothing back: whoever is behind it looks like somebody
/// who pretends to be at addresses where he receives nothing.
pub async fn one_way(relay: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = hole.local_addr().unwrap();
    let mut passing = JoinSet::new();
    passing.spawn(async move {
        let mut masks: HashMap<SocketAddr, UdpSocket> = HashMap::new();
        let mut packet = vec![0; 2048];
        while let Ok((length, from)) = hole.recv_from(&mut packet).await {
            let mask = match masks.entry(from) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(free) => free.insert(UdpSocket::bind("127.0.0.1:0").await.unwrap()),
            };
            mask.send_to(&packet[..length], relay).await.ok();
        }
    });
    (address, passing)
}

/// Packets that begin handshakes, from addresses that answer nothing. Above a bound the relay keeps nothing of them: it
/// asks each to prove that it receives. Whoever can, gets in meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_nobody_ends_are_asked_for_an_address_and_hold_no_memory() {
    const FLOOD: usize = 200;
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket, port) = small(base.path());
    let mut owner = connect(&relay).await.unwrap();
    let keys = owner.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let before = settled(&relay).await;
    let (hole, passing) = one_way(relay.socket()).await;
    let key = Arc::new(*relay.address.key());
    let mut flood = JoinSet::new();
    for _ in 0..FLOOD {
        let key = Arc::clone(&key);
        flood.spawn(async move { Client::connect(hole, &key).await.is_ok() });
    }
    let begun = tokio::time::Instant::now();
    while number(port, "address_checks_total") < u64::try_from(FLOOD / 2).unwrap() {
        assert!(begun.elapsed() < PATIENCE, "addresses are checked");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(number(port, "handshakes") <= u64::try_from(RETRY_ABOVE).unwrap(), "no more are begun unproved");
    let mut honest = connect(&relay).await.expect("who receives gets in");
    honest.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
    stored(&honest.append(keys.id(), envelope(1)).await);
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{FLOOD} handshakes that nobody ended: {} KiB", grown >> 10);
    // Some 20 KiB for each handshake that is under way, and one connection more; nothing for all the others.
    assert!(grown < 3 * MIB, "{} KiB after {FLOOD} handshakes that nobody ended", grown >> 10);
    flood.shutdown().await;
    drop(passing);
    names_nobody(&base.path().join("log"), &numbers(port));
    relay.kill();
}

/// Connections that are made and do nothing. One network takes its seats and no more, each at a bounded price, and gives
/// all of it back.
#[tokio::test(flavor = "multi_thread")]
async fn connections_without_end_take_the_seats_of_their_network_at_a_bounded_price() {
    const FLOOD: usize = 3 * SEATS;
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket, port) = small(base.path());
    let mut owner = connect(&relay).await.unwrap();
    let keys = owner.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let before = settled(&relay).await;
    let mut peak = Vec::new();
    // Three times: what one crowd held serves the next.
    for _ in 0..3 {
        let mut crowd = Vec::new();
        let mut refused = 0;
        for _ in 0..FLOOD {
            match connect(&relay).await {
                Ok(client) => crowd.push(client),
                Err(_) => refused += 1,
            }
        }
        assert!(crowd.len() < SEATS && refused > FLOOD - SEATS, "{} got in", crowd.len());
        assert_eq!(number(port, "connections"), u64::try_from(1 + crowd.len()).unwrap());
        stored(&owner.append(keys.id(), envelope(u64::try_from(peak.len()).unwrap())).await);
        peak.push(settled(&relay).await.saturating_sub(before));
        for client in &crowd {
            client.connection.close(0u32.into(), b"");
        }
        let begun = tokio::time::Instant::now();
        while number(port, "connections") > 1 {
            assert!(begun.elapsed() < PATIENCE, "they are gone");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!("{SEATS} connections, three times: {} {} {} KiB", peak[0] >> 10, peak[1] >> 10, peak[2] >> 10);
    // An idle connection has some 40 KiB; while it is made, more. Three crowds that nobody forgot would be 120.
    let bound = (u64::try_from(SEATS).unwrap() * 96) << 10;
    assert!(peak.iter().all(|&peak| peak < bound), "{peak:?} bytes for {SEATS} connections");
    names_nobody(&base.path().join("log"), &numbers(port));
    relay.kill();
}

/// Whoever watches a mailbox and takes nothing of what comes is sent away, and what he did not take is in nobody's memory.
#[tokio::test(flavor = "multi_thread")]
async fn who_subscribes_and_takes_no_notice_holds_a_bounded_memory_and_is_sent_away() {
    const DEAF: usize = 12;
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket, port) = small(base.path());
    let mut owner = connect(&relay).await.unwrap();
    let keys = owner.mailbox(ticket.secret(), MailboxKind::Log).await;
    let mut crowd = Vec::new();
    for _ in 0..DEAF {
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(2048)).receive_window(VarInt::from_u32(4096));
        let provider = aws_lc_rs::default_provider();
        let mut deaf = Client::connect_over(relay.socket(), relay.address.key(), ALPN, provider, transport)
            .await
            .unwrap();
        deaf.prove(Subject::Mailbox(keys.id(), Right::Read), &keys.read).await;
        let subscribe = Read { mailbox: keys.id(), after: Seq::START, count: 1 };
        assert!(matches!(deaf.ask(RequestBody::Subscribe(subscribe)).await, ResponseBody::Window(_)));
        crowd.push(deaf);
    }
    let before = settled(&relay).await;
    // 8 MiB for each of them.
    for number in 0..128u8 {
        stored(&owner.append(keys.id(), vec![number; 64 << 10]).await);
    }
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{DEAF} who take no notice: {} KiB", grown >> 10);
    // What was written lies in the engine's tables too, twice: as it came and as it is kept.
    let bound = u64::try_from(DEAF).unwrap() * 5 * MIB / 4 + 2 * 8 * MIB;
    assert!(grown < bound, "{} MiB for {DEAF} who take nothing", grown / MIB);
    for deaf in &crowd {
        match within(deaf.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code, VarInt::from_u32(2))
            }
            other => panic!("closed by the relay, not {other:?}"),
        }
    }
    assert!(!owner.window(keys.id(), 0).await.items.is_empty(), "others are served");
    names_nobody(&base.path().join("log"), &numbers(port));
    relay.kill();
}

/// Attachments that are begun and left: each takes its whole length of its ticket with the first part, so that their number
/// is bounded, and no memory; whoever has another ticket feels nothing.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_begun_and_left_use_up_their_own_ticket_and_no_memory() {
    const PART: usize = 64 << 10;
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket, port) = small(base.path());
    let issued = run_json(&base.path().join("relay"), &["access", "issue"]);
    let other = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let begin = |number: u8, ticket: &AccessTicket| {
        RequestBody::BlobPut(BlobPut {
            hash: BlobHash::from_bytes([number; 32]),
            total: MIB,
            offset: 0,
            bytes: ByteBuf::from(vec![number; PART]),
            access: Some(ticket.secret().public()),
        })
    };
    let before = settled(&relay).await;
    let mut begun = 0;
    for number in 0..40 {
        // Another connection for each, which goes away at once.
        let mut client = connect(&relay).await.unwrap();
        client.prove_access(ticket.secret()).await;
        match client.ask(begin(number, &ticket)).await {
            ResponseBody::BlobProgress(_) => begun += 1,
            ResponseBody::Refused(Refusal::NoAccess) => {}
            other => panic!("{other:?}"),
        }
        client.connection.close(0u32.into(), b"");
    }
    assert_eq!(begun, 16, "the ticket's 16 MiB in uploads of 1 MiB");
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{begun} uploads that were left: {} KiB", grown >> 10);
    assert!(grown < 8 * MIB, "{} KiB after {begun} uploads that were left", grown >> 10);
    let mut client = connect(&relay).await.unwrap();
    client.prove_access(other.secret()).await;
    let answer = client.ask(begin(100, &other)).await;
    assert_eq!(answer, ResponseBody::BlobProgress(PART.try_into().unwrap()), "another ticket is another's");
    let keys = client.mailbox(other.secret(), MailboxKind::Queue).await;
    assert!(matches!(client.ask(append(keys.id(), envelope(1))).await, ResponseBody::Stored(_)));
    names_nobody(&base.path().join("log"), &numbers(port));
    relay.kill();
}
