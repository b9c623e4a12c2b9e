//! Programs of the same machine that connect where a relay tells its numbers, or where its operator asks, and do not ask: what
//! they hold of its memory, and that whoever asks is answered.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use lapwing_wire::frame::MailboxKind;

use crate::{
    flood::small,
    memory::settled,
    quota::names_nobody,
    support::{
        Client,
        client::stored,
        envelope,
        process::{Process, run_json},
    },
};

/// Connections that say nothing.
const SILENT: usize = 150;
/// Connections that never come to the end of what they ask.
const ENDLESS: usize = 40;
/// What each of these offers, and then waits for more.
const OFFERED: usize = 900 << 10;
/// For one who asks while all of them are there: far less than they would take if he had to wait for them.
const PROMPT: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

/// Offers a request without an end to each, as much as is taken, until nothing more is.
pub fn pour<S: Read + Write>(streams: &mut [S]) {
    let piece = vec![b'x'; 64 << 10];
    let mut offered = vec![0; streams.len()];
    let mut idle = 0;
    while idle < 20 {
        idle += 1;
        for (stream, offered) in streams.iter_mut().zip(&mut offered) {
            if *offered >= OFFERED {
                continue;
            }
            match stream.write(&piece) {
                Ok(count) => (*offered, idle) = (*offered + count, 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It hung up.
                Err(_) => *offered = OFFERED,
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn is_served(relay: &Process, client: &mut Client, keys: &crate::support::Keys, number: u64) {
    stored(&client.append(keys.id(), envelope(number)).await);
    assert!(Client::connect(relay.socket(), relay.address.key()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_numbers_is_answered_beside_a_crowd_that_does_not_and_that_holds_nothing() {
    let base = tempfile::tempdir().unwrap();
    let (relay, ticket, port) = small(base.path());
    let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let before = settled(&relay).await;
    let connect = |_| {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut told = String::new();
    // Three times: what one crowd held serves the next.
    for round in 0..3 {
        let mut endless: Vec<_> = (0..ENDLESS).map(connect).collect();
        pour(&mut endless);
        let silent: Vec<_> = (0..SILENT).map(connect).collect();
        let mut asks = TcpStream::connect(("127.0.0.1", port)).unwrap();
        asks.set_read_timeout(Some(PROMPT)).unwrap();
        asks.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        told.clear();
        asks.read_to_string(&mut told).expect("an answer beside all of them");
        assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
        is_served(&relay, &mut client, &keys, round).await;
        drop((endless, silent));
    }
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{} who hold the seats of the numbers: {} KiB", SILENT + ENDLESS, grown >> 10);
    // 8 KiB of each of the 16 that have a seat; the rest is what three connections and appends of ours leave.
    assert!(grown < 3 * MIB, "{} KiB", grown >> 10);
    names_nobody(&base.path().join("log"), &told);
    relay.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_answered_beside_a_crowd_on_his_socket_that_asks_nothing() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, ticket, port) = small(base.path());
    let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
    let before = settled(&relay).await;
    let connect = |_| {
        let stream = UnixStream::connect(dir.join("control.sock")).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let silent: Vec<_> = (0..SILENT).map(connect).collect();
    let mut endless: Vec<_> = (0..ENDLESS).map(connect).collect();
    pour(&mut endless);
    assert_eq!(run_json(&dir, &["status"])["connections"], 1);
    is_served(&relay, &mut client, &keys, 1).await;
    let grown = settled(&relay).await.saturating_sub(before);
    println!("{} on the operator's socket: {} KiB", SILENT + ENDLESS, grown >> 10);
    // A task and what it reads into, 8 KiB, for each.
    assert!(grown < 6 * MIB, "{} KiB", grown >> 10);
    let [first, ..] = &mut endless[..] else { panic!("some") };
    let mut said = String::new();
    first.set_nonblocking(false).unwrap();
    first.set_read_timeout(Some(PROMPT)).unwrap();
    // What was sent and not read makes this end in a reset on some systems.
    first.read_to_string(&mut said).ok();
    assert!(said.contains("not understood"), "{said}");
    drop(silent);
    names_nobody(&base.path().join("log"), &crate::flood::numbers(port));
    relay.kill();
}
