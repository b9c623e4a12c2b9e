//! Who has to prove that he receives at his address before he takes a place.

use std::{net::Ipv4Addr, sync::atomic::Ordering};

use quinn_proto::TransportErrorCode;
use tokio::net::UdpSocket;

use super::{
    scene::{self, Peer, connect, local, within},
    *,
};
use crate::clock::SystemClock;

/// What a packet with a long header is (RFC 9000, 17.2): its form, its fixed bit and its type.
const KIND: u8 = 0xf0;
const INITIAL: u8 = 0xc0;
const RETRY: u8 = 0xf0;

fn network(number: u8) -> std::net::IpAddr {
    Ipv4Addr::new(127, 0, 0, number).into()
}

/// What the relay says first to somebody from a network who has proved no address: one packet of a client is passed on to it, from
/// an address where that client does not receive.
async fn first_word(relay: &Server, number: u8) -> u8 {
    let hole = UdpSocket::bind((network(number), 0)).await.unwrap();
    let mask = UdpSocket::bind((network(number), 0)).await.unwrap();
    let pretends = tokio::spawn(connect(network(number), hole.local_addr().unwrap()));
    let mut packet = vec![0; 2048];
    let (length, _) = within(hole.recv_from(&mut packet)).await.unwrap();
    mask.send_to(&packet[..length], relay.address()).await.unwrap();
    within(mask.recv_from(&mut packet)).await.unwrap();
    pretends.abort();
    assert!(pretends.await.is_err());
    packet[0] & KIND
}

#[tokio::test(flavor = "multi_thread")]
async fn scarce_places_are_for_addresses_that_were_proved_and_where_none_is_left_that_does_not_help() {
    // 64 places for those who have proved nothing.
    let options = ServerOptions { max_connections: 256, ..local() };
    let (service, _) = scene::service().await;
    let secret = RelaySecret::generate(&mut rand::rng());
    let relay = Server::start(&options, &secret, Arc::clone(&service), Arc::new(SystemClock)).unwrap();
    let counters = relay.counters();
    let retried = || counters.retried.load(Ordering::Relaxed);
    let refused = || counters.refused.load(Ordering::Relaxed);
    let come = async |number| connect(network(number), relay.address()).await;
    // The relay's end of a handshake is done a little later than the client's.
    let are_there = async |count| {
        within(async {
            while relay.connections() != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };

    // Free: nobody is asked.
    let mut all: Vec<Peer> = Vec::new();
    for _ in 0..16 {
        all.push(come(1).await.unwrap());
        assert_eq!(retried(), 0, "{} are there", all.len());
    }
    are_there(16).await;
    // Scarce: everybody is, and who only pretends to be there takes nothing by it.
    assert_eq!(first_word(&relay, 1).await, RETRY);
    assert_eq!(counters.handshakes.load(Ordering::Relaxed), 0, "nothing is kept of who proved no address");
    for _ in 0..16 {
        let before = retried();
        all.push(come(1).await.expect("an address that was proved comes in"));
        assert!(retried() > before, "{} are there", all.len());
    }
    // Taken, as half of all places are: also for an address that was proved.
    assert_eq!(first_word(&relay, 1).await, RETRY);
    assert_eq!(refused(), 0);
    match come(1).await.err() {
        Some(quinn::ConnectionError::ConnectionClosed(close)) => {
            assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
        }
        other => panic!("refused, not {other:?}"),
    }
    assert!(refused() > 0);
    // Half of all places are free: scarce for a network that has none yet, too.
    assert_eq!(first_word(&relay, 2).await, RETRY);
    all.push(come(2).await.expect("there are places for others"));

    // With places free again nobody is asked.
    for peer in all {
        peer.connection.close(0u32.into(), b"");
    }
    are_there(0).await;
    let before = retried();
    let _again = come(1).await.unwrap();
    assert_eq!(first_word(&relay, 1).await, INITIAL);
    assert_eq!(retried(), before);
    drop(relay);
}
