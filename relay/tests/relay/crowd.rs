//! Strangers who take connections and keep them.

use std::time::Duration;

use lapwing_relay::{limits::Limits, server::ServerOptions};
use lapwing_wire::{
    capability::{SecretKey, Subject},
    frame::*,
    ids::MailboxId,
    limits::{FRAME_PREFIX, MAX_FRAME},
    tripwire::Token,
};
use quinn::{ConnectionError, TransportConfig, VarInt};
use rustls::crypto::aws_lc_rs;

use crate::support::{
    Client, Relay,
    client::{read_frame, stored, within},
    local,
};

#[tokio::test(flavor = "multi_thread")]
async fn when_it_is_crowded_the_oldest_silent_strangers_are_sent_away() {
    for open_creation in [false, true] {
        silent_strangers_are_sent_away(Limits { open_creation, ..Limits::default() }).await;
    }
}

async fn silent_strangers_are_sent_away(limits: Limits) {
    let options = ServerOptions { max_connections: 8, stranger_timeout: Duration::ZERO, ..local() };
    let relay = Relay::in_memory(limits, options).await;
    let mut known = relay.client().await;
    known.prove_access(&relay.access).await;
    // A key that anybody can make proves nothing.
    let mut pretender = relay.client().await;
    let own = SecretKey::generate(&mut rand::rng());
    pretender.prove(Subject::Tripwire(own.public()), &own).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(relay.client().await);
    }
    // Six of eight: nobody is sent away. Two more, and two have to go.
    strangers.push(relay.client().await);
    strangers.push(relay.client().await);
    for gone in [&pretender, &strangers[0]] {
        match within(gone.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, VarInt::from_u32(3)),
            other => panic!("closed by the relay, not {other:?}"),
        }
    }
    for stays in &strangers[1..] {
        assert!(stays.connection.close_reason().is_none(), "no more than needed, oldest first");
    }
    known.prove_access(&relay.access).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_lately_is_not_sent_away() {
    let options = ServerOptions { max_connections: 4, ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(relay.client().await);
    }
    // Longer than the relay waits between two looks.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for client in &mut clients {
        let answer = client.read(MailboxId::from_bytes([0; 32]), 0, 1).await;
        assert_eq!(answer, ResponseBody::Refused(Refusal::NotAllowed));
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_takes_its_share_and_no_more() {
    let options = ServerOptions { connections_per_network: 3, ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(relay.client().await);
    }
    assert!(Client::connect(relay.address, &relay.server.key()).await.is_err(), "the fourth is refused");
    clients[0].connection.close(0u32.into(), b"");
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

/// Bytes that a client who reads no answers can send ahead on three streams, until `enough` or for one second without any.
async fn sent_ahead(client: &Client, enough: usize) -> usize {
    let read = Read { mailbox: MailboxId::from_bytes([0; 32]), after: Seq::START, count: 1 };
    let mut small = Vec::new();
    for id in 0..16 {
        small.extend(encode_frame(&Request { id, body: RequestBody::Read(read.clone()) }).unwrap());
    }
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (mut requests, answers) = within(client.connection.open_bi()).await.unwrap();
        within(requests.write_all(&small)).await.unwrap();
        streams.push((requests, answers));
    }
    // A frame that never ends: what of it the relay takes it holds, and no more.
    let mut begun = vec![0; 190 << 10];
    begun[..4].copy_from_slice(&(200u32 << 10).to_be_bytes());
    let mut sent = [0; 3];
    let mut idle = 0;
    while sent.iter().sum::<usize>() < enough && idle < 3 {
        for ((requests, _), sent) in streams.iter_mut().zip(&mut sent) {
            match tokio::time::timeout(Duration::from_millis(250), requests.write(&begun[*sent..])).await {
                Ok(Ok(count)) if count > 0 => {
                    *sent += count;
                    idle = 0;
                }
                Ok(Ok(_)) | Err(_) => idle += 1,
                Ok(Err(error)) => panic!("the connection lives: {error}"),
            }
        }
    }
    sent.iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_sends_little_ahead_and_who_proved_something_more() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let client = || async {
        let mut transport = TransportConfig::default();
        // So few answers fit that the relay soon waits with reading.
        transport.receive_window(VarInt::from_u32(64));
        let provider = aws_lc_rs::default_provider();
        Client::connect_over(relay.address, &relay.server.key(), ALPN, provider, transport).await.unwrap()
    };
    let bound = 64 << 10;
    let stranger = client().await;
    let sent = sent_ahead(&stranger, bound).await;
    assert!(sent < bound, "{sent}");
    let mut known = client().await;
    known.prove_access(&relay.access).await;
    let sent = sent_ahead(&known, bound).await;
    assert!(sent >= bound, "{sent}");
    relay.stop().await;
}

/// A stranger from one of this computer's addresses.
async fn stranger_from(relay: &Relay, own: &str) -> Result<Client, String> {
    let (key, provider) = (relay.server.key(), aws_lc_rs::default_provider());
    let own = own.parse().unwrap();
    Client::connect_from(own, relay.address, &key, ALPN, provider, TransportConfig::default()).await
}

async fn strangers_from(relay: &Relay, own: &str) -> Vec<Client> {
    let mut all = Vec::new();
    while let Ok(client) = stranger_from(relay, own).await {
        all.push(client);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_of_one_network_leave_places_to_others_and_to_whoever_proves_something() {
    // 64 places for those who have proved nothing.
    let options = ServerOptions { max_connections: 256, ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let mut all = strangers_from(&relay, "127.0.0.1").await;
    assert_eq!(all.len(), 32);
    let mut others = strangers_from(&relay, "127.0.0.2").await;
    assert_eq!(others.len(), 16);
    others[0].prove_access(&relay.access).await;
    others[1].prove_access(&relay.access).await;
    drop(stranger_from(&relay, "127.0.0.2").await.expect("there is a place again"));
    all[0].prove_access(&relay.access).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_strangers_are_many_the_oldest_are_sent_away_although_they_ask() {
    let options = ServerOptions { max_connections: 256, ..local() };
    let options = ServerOptions { stranger_timeout: Duration::from_secs(1), ..options };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let mut known = relay.client().await;
    known.prove_access(&relay.access).await;
    let mut oldest = stranger_from(&relay, "127.0.0.1").await.unwrap();
    let mut crowd = Vec::new();
    for own in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        crowd.extend(strangers_from(&relay, own).await);
    }
    let sent_away = within(async {
        while oldest.try_ask(RequestBody::Lineage).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        oldest.connection.closed().await
    });
    match sent_away.await {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, VarInt::from_u32(3)),
        other => panic!("closed by the relay, not {other:?}"),
    }
    known.prove_access(&relay.access).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_stay_make_place_for_others_of_their_network() {
    // Half of 64 places; and all seats of a network, which may be as many as its places.
    for (connections_per_network, most) in [(512, 32), (16, 16)] {
        strangers_make_place(connections_per_network, most).await;
    }
}

async fn strangers_make_place(connections_per_network: usize, most: usize) {
    let options = ServerOptions { max_connections: 256, connections_per_network, ..local() };
    let options = ServerOptions { stranger_timeout: Duration::from_secs(1), ..options };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let stays = strangers_from(&relay, "127.0.0.1").await;
    assert_eq!(stays.len(), most);
    let newcomer = within(async {
        loop {
            if let Ok(client) = stranger_from(&relay, "127.0.0.1").await {
                break client;
            }
        }
    });
    newcomer.await.prove_access(&relay.access).await;
    let gone = stays.iter().filter(|client| client.connection.close_reason().is_some()).count();
    assert!((1..=most / 2).contains(&gone), "{gone} of them were sent away");
    relay.stop().await;
}

/// One of the largest, to a mailbox that is not there.
fn longest() -> Vec<u8> {
    let mailbox = MailboxId::from_bytes([7; 32]);
    let frame = |length| {
        let envelope = serde_bytes::ByteBuf::from(vec![1; length]);
        encode_frame(&Request { id: 1, body: RequestBody::Append(Append { mailbox, envelope }) })
    };
    let longest = (0..MAX_FRAME).rev().find_map(|length| frame(length).ok()).unwrap();
    assert_eq!(longest.len(), MAX_FRAME + FRAME_PREFIX);
    longest
}

/// A whole one of the largest, which is answered, and a connection that ends with it, which leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_frame_of_a_stranger_is_answered_and_holds_no_place_after_him() {
    let options = ServerOptions { max_connections: 256, ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let longest = longest();
    // More than there are places, or parts of the strangers' room.
    for number in 0..70 {
        let mut stranger = within(async {
            loop {
                if let Ok(client) = stranger_from(&relay, "127.0.0.1").await {
                    break client;
                }
            }
        })
        .await;
        within(stranger.requests.write_all(&longest)).await.unwrap();
        let answer = stranger.receive().await.unwrap().body;
        assert_eq!(answer, ResponseBody::Refused(Refusal::NotAllowed), "{number}");
    }
    relay.stop().await;
}

/// The largest, which needs all requests that a stranger may have, and a small one beside it: neither takes from the other what it waits
/// for. With one thread, where nothing else would come between them.
#[tokio::test]
async fn the_largest_frame_of_a_stranger_and_a_small_one_wait_beside_each_other_and_both_are_answered() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut stranger = relay.client().await;
    let frame = |body| encode_frame(&Request { id: 1, body }).unwrap();
    let append = |length| {
        let envelope = serde_bytes::ByteBuf::from(vec![1; length]);
        frame(RequestBody::Append(Append { mailbox: MailboxId::from_bytes([7; 32]), envelope }))
    };
    let begun = longest();
    for _ in 0..20 {
        // Whole but for its last byte.
        let (mut large, mut large_answers) = within(stranger.connection.open_bi()).await.unwrap();
        let (last, rest) = begun.split_last().unwrap();
        within(large.write_all(rest)).await.unwrap();
        // Held back for a while, and as many as there may be. The answer between them says that those before it are begun; what comes
        // after waits, and then the large one beside it.
        let token = || frame(RequestBody::Token(PresentToken { token: Token::generate(&mut rand::rng()) }));
        let mut small: Vec<u8> = (0..16).flat_map(|_| token()).collect();
        small.extend([frame(RequestBody::Lineage), token(), append(1 << 10)].concat());
        within(stranger.requests.write_all(&small)).await.unwrap();
        let mut left = 18;
        while stranger.receive().await.unwrap().body != ResponseBody::Lineage(Vec::new()) {
            left -= 1;
        }
        within(large.write_all(&[*last])).await.unwrap();
        let answer: Response = read_frame(&mut large_answers).await.unwrap();
        assert_eq!(answer.body, ResponseBody::Refused(Refusal::NotAllowed));
        large.finish().unwrap();
        for _ in 0..left {
            stranger.receive().await.unwrap();
        }
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_frame_of_a_stranger_is_refused_in_words_and_waits_where_strangers_hold_many() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut owner = relay.client().await;
    let keys = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let append = |id| {
        let append = Append { mailbox: keys.id(), envelope: serde_bytes::ByteBuf::from(vec![1; 64 << 10]) };
        encode_frame(&Request { id, body: RequestBody::Append(append) }).unwrap()
    };
    let mut writer = relay.client().await;
    within(writer.requests.write_all(&append(1))).await.unwrap();
    let refused = ResponseBody::Refused(Refusal::NotAllowed);
    assert_eq!(writer.receive().await.unwrap().body, refused);
    // A network has 8 MiB for such frames: 32 of the largest.
    let mut crowd = Vec::new();
    for _ in 0..32 {
        let mut stranger = relay.client().await;
        // More than the relay lets anybody send ahead: it has room.
        let mut begun = vec![0; 40 << 10];
        begun[..4].copy_from_slice(&(256u32 << 10).to_be_bytes());
        within(stranger.requests.write_all(&begun)).await.unwrap();
        crowd.push(stranger);
    }
    let (mut requests, mut answers) = within(writer.connection.open_bi()).await.unwrap();
    let frame = append(2);
    let sending = tokio::spawn(async move {
        requests.write_all(&frame).await.unwrap();
        requests
    });
    let first = tokio::time::timeout(Duration::from_millis(500), read_frame::<Response>(&mut answers));
    assert!(first.await.is_err() && !sending.is_finished(), "it waits, and not all of it is taken");
    // Whoever has proved something is not kept by that.
    stored(&owner.append(keys.id(), vec![2; 64 << 10]).await);
    drop(crowd);
    let answer: Response = read_frame(&mut answers).await.unwrap();
    assert_eq!(answer.body, refused);
    drop(sending.await.unwrap());
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_proves_few_keys_that_anybody_can_make() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut client = relay.client().await;
    for number in 0..=64 {
        let own = SecretKey::generate(&mut rand::rng());
        let answer = client.prove(Subject::Tripwire(own.public()), &own).await;
        let wanted = if number < 64 { ResponseBody::Done } else { ResponseBody::Refused(Refusal::Busy) };
        assert_eq!(answer, wanted, "{number}");
    }
    client.prove_access(&relay.access).await;
    let own = SecretKey::generate(&mut rand::rng());
    assert_eq!(client.prove(Subject::Tripwire(own.public()), &own).await, ResponseBody::Done);
    relay.stop().await;
}
