//! The main job over real QUIC on loopback.

use crate::support::{
    Client, Relay,
    client::{append, stored, within},
    envelope, local,
    process::{Process, run_json},
};
use lapwing_relay::{
    limits::Limits,
    server::ServerOptions,
    store::{StoreOptions, fjall::FjallStore},
};
use lapwing_wire::{
    address::RelayAddress,
    capability::{Right, Subject},
    frame::*,
    ids::{BlobHash, EnvelopeId, RunningHash},
};
use serde_bytes::ByteBuf;

#[tokio::test(flavor = "multi_thread")]
async fn create_append_read_subscribe_and_ack() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
    let id = keys.id();

    let mut hash = RunningHash::START;
    for number in 1..=3 {
        let place = stored(&client.append(id, envelope(number)).await);
        hash = hash.next(number, &EnvelopeId::of(&envelope(number)));
        assert_eq!(place, Stored { seq: Seq::new(number), hash });
    }
    let again = stored(&client.append(id, envelope(2)).await);
    assert_eq!(again.seq, Seq::new(2), "a retry gets the same answer");

    let window = client.window(id, 1).await;
    assert_eq!(window.newest, Seq::new(3));
    let read: Vec<_> = window.items.iter().map(|item| item.envelope.to_vec()).collect();
    assert_eq!(read, [envelope(2), envelope(3)]);

    let subscribe = Read { mailbox: id, after: Seq::new(3), count: 128 };
    let answer = client.ask(RequestBody::Subscribe(subscribe)).await;
    assert!(matches!(answer, ResponseBody::Window(window) if window.items.is_empty()));
    let mut writer = relay.client().await;
    writer.prove(Subject::Mailbox(id, Right::Write), &keys.write).await;
    for number in 4..=6 {
        stored(&writer.append(id, envelope(number)).await);
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(client.notice().await.items.into_iter().map(|item| item.place.seq.value()));
    }
    assert_eq!(seen, [4, 5, 6]);

    let ack = Ack { mailbox: id, upto: Seq::new(4), also: vec![Seq::new(6)] };
    assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
    let left: Vec<_> = client.window(id, 0).await.items.iter().map(|item| item.place.seq.value()).collect();
    assert_eq!(left, [5]);
    assert_eq!(stored(&client.append(id, envelope(1)).await).seq, Seq::new(1), "also after it was taken");

    assert_eq!(client.ask(RequestBody::Close(Close { mailbox: id })).await, ResponseBody::Done);
    let refused = ResponseBody::Refused(Refusal::NotAllowed);
    assert_eq!(writer.append(id, envelope(9)).await, refused, "closing ends proven connections");
    assert_eq!(client.read(id, 0, 1).await, refused);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_keeps_what_was_read_and_many_read_it() {
    let relay = Relay::start().await;
    let mut author = relay.client().await;
    let keys = author.mailbox(&relay.access, MailboxKind::Log).await;
    let id = keys.id();
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = relay.client().await;
        reader.prove(Subject::Mailbox(id, Right::Read), &keys.read).await;
        let from_start = Read { mailbox: id, after: Seq::START, count: 128 };
        reader.ask(RequestBody::Subscribe(from_start)).await;
        readers.push(reader);
    }
    stored(&author.append(id, envelope(1)).await);
    for reader in &mut readers {
        assert_eq!(reader.notice().await.items[0].envelope.to_vec(), envelope(1));
        let ack = Ack { mailbox: id, upto: Seq::new(1), also: Vec::new() };
        assert_eq!(reader.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
        assert_eq!(reader.window(id, 0).await.items.len(), 1);
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frm_02_frm_05_pipelined_requests_keep_their_order_and_each_gets_one_answer() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
    let mut other = relay.client().await;
    let id = keys.id();
    // The proof and what needs it, without waiting in between.
    let subject = Subject::Mailbox(id, Right::Write);
    let signature = subject.prove(&keys.write, &other.binding);
    other.send(RequestBody::Prove(Prove { subject, signature })).await.unwrap();
    const COUNT: u64 = 1000;
    let mut places = vec![None; usize::try_from(COUNT).unwrap()];
    let mut received = 0;
    for number in 1..=COUNT {
        other.send(append(id, envelope(number))).await.unwrap();
        if number % 200 == 0 {
            while received < number {
                let response = other.receive().await.unwrap();
                received += u64::from(response.id >= 1);
                if let ResponseBody::Stored(place) = response.body {
                    let index = usize::try_from(response.id - 2).unwrap();
                    assert!(places[index].replace(place.seq.value()).is_none(), "one answer each");
                }
            }
        }
    }
    while received < COUNT + 1 {
        let response = other.receive().await.unwrap();
        received += 1;
        if let ResponseBody::Stored(place) = response.body {
            places[usize::try_from(response.id - 2).unwrap()] = Some(place.seq.value());
        }
    }
    let expected: Vec<_> = (1..=COUNT).map(Some).collect();
    assert!(places == expected, "in the order of the stream");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_arrives_in_windows_on_the_subscription() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
    let id = keys.id();
    for number in 1..=20 {
        let mut large = envelope(number);
        large.resize(64 << 10, 1);
        stored(&client.append(id, large).await);
    }
    let from_start = Read { mailbox: id, after: Seq::START, count: 128 };
    let ResponseBody::Window(first) = client.ask(RequestBody::Subscribe(from_start)).await else {
        panic!("a window")
    };
    let mut seen: Vec<_> = first.items.iter().map(|item| item.place.seq.value()).collect();
    assert_eq!(seen, [1, 2], "two of the largest fill a window");
    while seen.len() < 20 {
        seen.extend(client.notice().await.items.iter().map(|item| item.place.seq.value()));
    }
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_come_back_whole_and_lies_are_dropped() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    client.prove_access(&relay.access).await;
    let blob: Vec<u8> = (0..150_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let hash = BlobHash::of(&blob);
    let access = Some(relay.access.public());
    let total = u64::try_from(blob.len()).unwrap();
    let put = |offset: usize, bytes: &[u8], hash: BlobHash, total: u64| {
        RequestBody::BlobPut(BlobPut {
            hash,
            total,
            offset: u64::try_from(offset).unwrap(),
            bytes: ByteBuf::from(bytes),
            access,
        })
    };
    let get = |offset: u64| RequestBody::BlobGet(BlobGet { hash, offset });
    let not_there = ResponseBody::Refused(Refusal::NotAllowed);
    assert_eq!(client.ask(get(0)).await, not_there);
    let step = 64 << 10;
    assert_eq!(
        client.ask(put(0, &blob[..step], hash, total)).await,
        ResponseBody::BlobProgress(u64::try_from(step).unwrap())
    );
    assert_eq!(client.ask(get(0)).await, not_there, "unfinished is not there");
    // A retry, a gap, another length.
    assert_eq!(
        client.ask(put(0, &blob[..step], hash, total)).await,
        ResponseBody::BlobProgress(u64::try_from(step).unwrap())
    );
    assert_eq!(
        client.ask(put(2 * step, &blob[2 * step..], hash, total)).await,
        ResponseBody::BlobProgress(u64::try_from(step).unwrap())
    );
    let conflict = ResponseBody::Refused(Refusal::Conflict);
    assert_eq!(client.ask(put(0, &blob[..step], hash, total + 1)).await, conflict);
    client.ask(put(step, &blob[step..2 * step], hash, total)).await;
    assert_eq!(
        client.ask(put(2 * step, &blob[2 * step..], hash, total)).await,
        ResponseBody::BlobProgress(total)
    );
    let mut back = Vec::new();
    loop {
        let ResponseBody::BlobPart(part) = client.ask(get(u64::try_from(back.len()).unwrap())).await else {
            panic!("a part")
        };
        assert_eq!(part.total, total);
        if part.bytes.is_empty() {
            break;
        }
        back.extend_from_slice(&part.bytes);
    }
    assert_eq!(back, blob);

    let lie = BlobHash::of(b"something else");
    assert_eq!(client.ask(put(0, b"a lie", lie, 5)).await, conflict);
    let honest = b"something else";
    assert_eq!(client.ask(put(0, honest, lie, 14)).await, ResponseBody::BlobProgress(14), "it was dropped");
    let too_large = ResponseBody::Refused(Refusal::TooLarge);
    assert_eq!(client.ask(put(0, &[0; 100], hash, total)).await, too_large, "small parts are refused");
    assert_eq!(client.ask(put(0, &vec![0; step + 1], hash, total)).await, too_large);
    assert_eq!(client.ask(put(0, &blob[..step], hash, (100 << 20) + 1)).await, too_large);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_post_quantum_exchange_the_right_key_and_the_right_protocol_connect() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let key = relay.server.key();
    let provider = rustls::crypto::aws_lc_rs::default_provider;
    let mut classical = provider();
    classical.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519);
    assert_eq!(classical.kx_groups.len(), 1);
    assert!(Client::connect_with(relay.address, &key, ALPN, classical).await.is_err());
    let mut hybrid = provider();
    hybrid.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519MLKEM768);
    assert!(Client::connect_with(relay.address, &key, ALPN, hybrid).await.is_ok());
    let other = lapwing_wire::address::RelayKey::of_spki(b"another relay");
    assert!(Client::connect(relay.address, &other).await.is_err());
    assert!(Client::connect_with(relay.address, &key, b"h3", provider()).await.is_err());
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_connections_is_bounded() {
    let options = ServerOptions { max_connections: 2, retry_above: 0, ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let first = relay.client().await;
    let _second = relay.client().await;
    assert!(Client::connect(relay.address, &relay.server.key()).await.is_err(), "the third is refused");
    first.connection.close(0u32.into(), b"");
    // The relay learns of the end when the packet arrives: ask until it has.
    let again = within(async {
        loop {
            if let Ok(client) = Client::connect(relay.address, &relay.server.key()).await {
                break client;
            }
        }
    });
    drop(again.await);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_answers_what_was_asked() {
    const ASKED: u64 = 100;
    // So slow a disk that all requests have come before the first is answered.
    let dir = tempfile::tempdir().unwrap();
    let extra_flush = std::time::Duration::from_millis(400);
    let options = StoreOptions { extra_flush, ..StoreOptions::at(dir.path().join("store")) };
    let store = std::sync::Arc::new(FjallStore::open(&options).unwrap());
    let relay = Relay::over(store, Limits::default(), local(), Some(dir)).await;
    let mut client = relay.client().await;
    let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
    for number in 1..=ASKED {
        client.send(append(keys.id(), envelope(number))).await.unwrap();
    }
    let first = client.receive().await.unwrap();
    assert!(matches!(first.body, ResponseBody::Stored(_)));
    let stop = tokio::spawn(relay.stop());
    let mut answered = 1;
    while let Ok(response) = client.receive().await {
        assert!(matches!(response.body, ResponseBody::Stored(_)));
        answered += 1;
    }
    stop.await.unwrap();
    assert_eq!(answered, ASKED, "whatever the relay had taken is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_serves_both_families_of_addresses() {
    let all = ServerOptions { listen: "[::]:0".parse().unwrap(), ..local() };
    let relay = Relay::in_memory(Limits::default(), all).await;
    let port = relay.address.port();
    let mut reached = vec![std::net::SocketAddr::from(([127, 0, 0, 1], port))];
    // A machine without IPv6 has IPv4 only, and the relay listens there.
    if relay.address.is_ipv6() {
        reached.push(std::net::SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port));
    }
    for address in reached {
        let mut client = Client::connect(address, &relay.server.key()).await.unwrap();
        client.prove_access(&relay.access).await;
    }
    relay.stop().await;
}

/// Without it they wait until their connection has been silent for long enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_killed_and_started_again_tells_clients_at_once_that_it_knows_nothing_of_them() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(&dir);
    let (socket, port) = (relay.socket(), relay.address.port());
    let mut client = Client::connect(socket, relay.address.key()).await.unwrap();
    assert_eq!(client.ask(RequestBody::Lineage).await, ResponseBody::Lineage(Vec::new()));
    relay.kill();
    let relay = start_at(&dir, port);
    assert_eq!(relay.socket(), socket);
    client.send(RequestBody::Lineage).await.unwrap();
    let end = within(client.connection.closed()).await;
    assert!(matches!(end, quinn::ConnectionError::Reset), "{end}");
    let mut again = Client::connect(socket, relay.address.key()).await.unwrap();
    assert_eq!(again.ask(RequestBody::Lineage).await, ResponseBody::Lineage(Vec::new()));
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_changed_its_key_and_was_killed_tells_clients_that_came_since() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(&dir);
    let (socket, port) = (relay.socket(), relay.address.port());
    let mut before = Client::connect(socket, relay.address.key()).await.unwrap();
    let moved = run_json(&dir, &["rotate-key"]);
    let moved: RelayAddress = moved["address"].as_str().unwrap().parse().unwrap();
    assert!(matches!(before.ask(RequestBody::Lineage).await, ResponseBody::Lineage(_)), "it goes on");
    let mut since = Client::connect(socket, moved.key()).await.unwrap();
    assert!(matches!(since.ask(RequestBody::Lineage).await, ResponseBody::Lineage(_)));
    relay.kill();
    let relay = start_at(&dir, port);
    since.send(RequestBody::Lineage).await.unwrap();
    let end = within(since.connection.closed()).await;
    assert!(matches!(end, quinn::ConnectionError::Reset), "{end}");
    relay.kill();
}

/// Starts a relay again, at the port that it took before.
fn start_at(dir: &std::path::Path, port: u16) -> Process {
    let config = std::fs::read_to_string(dir.join("relay.toml")).unwrap();
    std::fs::write(dir.join("relay.toml"), config.replace("port = 0", &format!("port = {port}"))).unwrap();
    Process::start(dir)
}
