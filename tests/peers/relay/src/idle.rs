//! Memory of the server for each subscriber that waits.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    link::{HYBRID, Keys, Link, client_config, endpoint},
    process::{Disk, Process, local},
    ratios::{Better, Comparison, Run},
    servers::{Programs, Relay},
};

/// Most that one idle subscriber may take.
const MOST: f64 = 65.0;
/// Connections that are made at once.
const AT_ONCE: usize = 16;
/// After the last one came, so that what a handshake holds is given back.
const SETTLE: Duration = Duration::from_secs(5);

/// All servers one after the other; the memory of a process that has just started is taken off.
pub async fn compare(programs: &Programs, counts: &[usize], disk: &Disk, rounds: usize) -> Vec<String> {
    let mut missed = Vec::new();
    for count in counts {
        let what = format!("resident memory for each of {count} idle subscribers");
        let mut comparison = Comparison::new(what.clone(), "KiB", Better::Less);
        for _ in 0..rounds {
            let relay = programs.relay(disk);
            let run = Run { value: over_relay(&relay, *count).await, ..Run::default() };
            comparison.add("lapwing-relay", "", None, run);
            drop(relay);
            let peers = [
                ("redis, SUBSCRIBE", programs.redis(disk), b"SUBSCRIBE mailbox\r\n".to_vec(), 20),
                ("NATS, SUB", programs.nats(disk), b"CONNECT {}\r\nSUB mailbox 1\r\nPING\r\n".to_vec(), 20),
                ("mosquitto, QoS 1", programs.mosquitto(disk), Vec::new(), 9),
            ];
            for (name, server, greeting, answer) in peers {
                let value = over_tcp(&server.process, local(server.port), &greeting, answer, *count).await;
                let note = "no encryption, so no state of TLS and of packets";
                comparison.add(name, note, None, Run { value, ..Run::default() });
            }
        }
        missed.extend(comparison.print());
        if comparison.ours() > MOST {
            missed.push(format!("{what}: {:.1} KiB, must be at most {MOST}", comparison.ours()));
        }
    }
    missed
}

fn kib_each(before: u64, after: u64, count: usize) -> f64 {
    after.saturating_sub(before) as f64 / 1024.0 / count as f64
}

/// Each subscriber has a connection and a mailbox of its own.
async fn over_relay(relay: &Relay, count: usize) -> f64 {
    let before = relay.process.resident();
    let config = client_config(relay.address.key(), HYBRID);
    let server = local(relay.address.port());
    // The clients' sockets are of no interest, so many share one.
    let endpoints: Vec<_> = (0..AT_ONCE).map(|_| endpoint()).collect();
    let links: Vec<Link> = stream::iter(0..count)
        .map(|number| {
            let (endpoint, config) = (endpoints[number % AT_ONCE].clone(), config.clone());
            async move {
                let mut link = Link::connect(endpoint, config, server).await;
                let keys = Keys::generate();
                link.create(&keys, relay.ticket.secret()).await;
                link.reads(&keys).await;
                link.subscribe(&keys).await;
                link
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    tokio::time::sleep(SETTLE).await;
    let after = relay.process.resident();
    for link in &links {
        assert!(link.connection.close_reason().is_none(), "all are still there");
    }
    kib_each(before, after, count)
}

/// Says one thing on each connection and waits for as many bytes as its answer has at least.
async fn over_tcp(
    server: &Process,
    address: SocketAddr,
    greeting: &[u8],
    answer: usize,
    count: usize,
) -> f64 {
    let before = server.resident();
    let connections: Vec<TcpStream> = stream::iter(0..count)
        .map(|number| async move {
            let mut connection = TcpStream::connect(address).await.unwrap();
            let own;
            let greeting = if greeting.is_empty() {
                own = mqtt_greeting(number);
                &own
            } else {
                greeting
            };
            connection.write_all(greeting).await.unwrap();
            let mut bytes = vec![0; answer];
            connection.read_exact(&mut bytes).await.unwrap();
            connection
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    tokio::time::sleep(SETTLE).await;
    assert_eq!(connections.len(), count);
    kib_each(before, server.resident(), count)
}

/// MQTT 3.1.1: CONNECT with a name of one's own, and SUBSCRIBE at QoS 1. The answers are of 4 and 5 bytes.
fn mqtt_greeting(number: usize) -> Vec<u8> {
    let name = format!("reader-{number:08}");
    let mut out = vec![0x10, (12 + name.len()) as u8, 0, 4];
    out.extend_from_slice(b"MQTT");
    out.extend_from_slice(&[4, 2, 0, 0, 0, name.len() as u8]);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&[0x82, 12, 0, 1, 0, 7]);
    out.extend_from_slice(b"mailbox");
    out.push(1);
    out
}
