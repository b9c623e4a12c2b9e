//! Strangers who take connections and keep them.

use std::time::Duration;

use lapwing_relay::{limits::Limits, server::ServerOptions};
use lapwing_wire::{
    capability::{SecretKey, Subject},
    frame::*,
    ids::MailboxId,
};
use quinn::{ConnectionError, TransportConfig, VarInt};
use rustls::crypto::aws_lc_rs;

use crate::support::{Client, Relay, client::within, local};

#[tokio::test(flavor = "multi_thread")]
async fn when_it_is_crowded_the_oldest_silent_strangers_are_sent_away() {
    let options = ServerOptions { max_connections: 8, stranger_timeout: Duration::ZERO, ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
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

/// Bytes that a client who reads no answers can send ahead on four streams, until `enough` or for one second without any.
async fn sent_ahead(client: &Client, enough: usize) -> usize {
    let read = Read { mailbox: MailboxId::from_bytes([0; 32]), after: Seq::START, count: 1 };
    let mut small = Vec::new();
    for id in 0..16 {
        small.extend(encode_frame(&Request { id, body: RequestBody::Read(read.clone()) }).unwrap());
    }
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (mut requests, answers) = within(client.connection.open_bi()).await.unwrap();
        within(requests.write_all(&small)).await.unwrap();
        streams.push((requests, answers));
    }
    // A frame that never ends: what of it the relay takes it holds, and no more.
    let mut rest = vec![0; 64 << 10];
    rest[..4].copy_from_slice(&(200u32 << 10).to_be_bytes());
    let (mut sent, mut idle) = (0, 0);
    while sent < enough && idle < 4 {
        for (requests, _) in &mut streams {
            match tokio::time::timeout(Duration::from_millis(250), requests.write(&rest)).await {
                Ok(Ok(count)) => {
                    sent += count;
                    idle = 0;
                }
                Ok(Err(error)) => panic!("the connection lives: {error}"),
                Err(_) => idle += 1,
            }
        }
    }
    sent
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
    let bound = 1 << 20;
    let stranger = client().await;
    let sent = sent_ahead(&stranger, bound).await;
    assert!(sent < bound, "{sent}");
    let mut known = client().await;
    known.prove_access(&relay.access).await;
    let sent = sent_ahead(&known, bound).await;
    assert!(sent >= bound, "{sent}");
    relay.stop().await;
}
