//! An hour of everything that people do to a relay, the hostile included, and what it grew by.
//!
//! `LAPWING_SOAK=3600 cargo nextest run --profile long -p lapwing-relay --run-ignored only --no-capture soak`

use std::{path::Path, time::Duration};

use lapwing_wire::{address::AccessTicket, frame::*, ids::BlobHash, tripwire::Token};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use crate::support::{
    Client, Keys,
    client::stored,
    envelope,
    process::{Process, run_json},
};

const MIB: u64 = 1 << 20;
/// What the relay may take, whatever comes: the engine's cache and its tables in memory (64 MiB each, at most two of each of
/// two kinds), 256 MiB of journals that it maps none of, and what its connections hold.
const MEMORY: u64 = 400 * MIB;
/// What lies on its disk when everything that was stored is taken again: journals, and tables that were not compacted yet.
const DISK: u64 = 2 << 30;
/// Tasks that work beside each other.
const PEOPLE: u64 = 6;

fn span() -> Duration {
    Duration::from_secs(std::env::var("LAPWING_SOAK").ok().map_or(60, |text| text.parse().unwrap()))
}

/// One visit: connects, does something, goes well or badly.
async fn visit(relay: &Process, ticket: &AccessTicket, rng: &mut StdRng) -> Result<(), String> {
    let mut client = Client::connect(relay.socket(), relay.address.key()).await?;
    match rng.random_range(0..10) {
        // Somebody who writes and reads, and leaves nothing.
        0..5 => {
            let keys: Keys = client.mailbox(ticket.secret(), MailboxKind::Queue).await;
            let count = rng.random_range(1..60);
            for number in 1..=count {
                let mut bytes = envelope(number);
                bytes.resize([1 << 10, 4 << 10, 16 << 10, 64 << 10][rng.random_range(0..4)], 3);
                stored(&client.append(keys.id(), bytes).await);
            }
            let subscribe = Read { mailbox: keys.id(), after: Seq::START, count: 9 };
            client.ask(RequestBody::Subscribe(subscribe)).await;
            let ack = Ack { mailbox: keys.id(), upto: Seq::new(count), also: Vec::new() };
            assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
            assert_eq!(client.window(keys.id(), 0).await.items.len(), 0);
            let close = Close { mailbox: keys.id() };
            assert_eq!(client.ask(RequestBody::Close(close)).await, ResponseBody::Done);
        }
        // Tokens that mean nothing.
        5 => {
            for _ in 0..20 {
                let token = Token::generate(rng);
                client.ask(RequestBody::Token(PresentToken { token })).await;
            }
        }
        // An upload that is a lie: its parts come and are dropped.
        6 => {
            client.prove_access(ticket.secret()).await;
            let mut hash = [0; 32];
            rng.fill(&mut hash);
            for offset in [0, 64 << 10] {
                let put = BlobPut {
                    hash: BlobHash::from_bytes(hash),
                    total: 128 << 10,
                    offset,
                    bytes: ByteBuf::from(vec![7; 64 << 10]),
                    access: Some(ticket.secret().public()),
                };
                client.ask(RequestBody::BlobPut(put)).await;
            }
        }
        // Half a frame, and gone.
        7 => {
            client.requests.write_all(&[0, 3, 0, 0, 1, 2, 3]).await.map_err(|error| error.to_string())?;
        }
        // Asks for much and takes nothing.
        8 => {
            let keys = client.mailbox(ticket.secret(), MailboxKind::Log).await;
            stored(&client.append(keys.id(), vec![1; 64 << 10]).await);
            for _ in 0..64 {
                let read = Read { mailbox: keys.id(), after: Seq::START, count: 1 };
                client.send(RequestBody::Read(read)).await?;
            }
            let mut second = Client::connect(relay.socket(), relay.address.key()).await?;
            second.prove_all(&keys).await;
            second.ask(RequestBody::Close(Close { mailbox: keys.id() })).await;
        }
        // Nothing at all.
        _ => {}
    }
    if rng.random() {
        client.connection.close(0u32.into(), b"");
    }
    Ok(())
}

fn bytes_in(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_in(&entry.path()),
            Ok(found) => found.blocks() * 512,
            // The engine deletes files meanwhile.
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "an hour: see the head of this file"]
async fn a_soak_of_everything_leaves_memory_and_disk_within_their_bounds() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Process::start(&dir);
    let issued = run_json(&dir, &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let (begun, span) = (Instant::now(), span());
    let people = (0..PEOPLE).map(|seed| {
        let (relay, ticket) = (&relay, &ticket);
        async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut visits = 0u64;
            while begun.elapsed() < span {
                visit(relay, ticket, &mut rng).await.unwrap();
                visits += 1;
            }
            visits
        }
    });
    let watch = async {
        let (mut memory, mut disk) = (0, 0);
        while begun.elapsed() < span {
            tokio::time::sleep((span / 60).max(Duration::from_millis(200))).await;
            memory = relay.memory().max(memory);
            disk = bytes_in(&dir).max(disk);
            assert!(memory < MEMORY, "{} MiB of memory after {:?}", memory / MIB, begun.elapsed());
            assert!(disk < DISK, "{} MiB on the disk after {:?}", disk / MIB, begun.elapsed());
        }
        (memory, disk)
    };
    let (visits, (memory, disk)) = tokio::join!(futures_util::future::join_all(people), watch);
    println!(
        "{} visits in {span:?}: {} MiB of memory and {} MiB on the disk at most",
        visits.iter().sum::<u64>(),
        memory / MIB,
        disk / MIB
    );
    let status = run_json(&dir, &["status"]);
    assert_eq!((&status["mailboxes"], &status["envelope_bytes"]), (&0.into(), &0.into()), "nothing is left");
    relay.kill();
}
