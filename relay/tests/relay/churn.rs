//! What stays on the disk of somebody who appends and takes, again and again, for as long as he likes.
//!
//! ```text
//! cargo build --profile dist -p lapwing-relay
//! LAPWING_RESTART=target/dist/lapwing-relay \
//!     cargo nextest run --profile long -p lapwing-relay --run-ignored only --no-capture stays_small
//! ```

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapwing_wire::{address::AccessTicket, frame::*};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    restart::{connect, start},
    support::{
        client::{append, stored},
        envelope,
        process::{Process, run_json},
    },
};

/// Connections that do it beside each other, each with a mailbox of its own.
const HANDS: usize = 4;
/// Appends under way on each.
const GROUP: u64 = 128;
/// How long. In the beginning segments, journals and tables come to their sizes.
const LONG: Duration = Duration::from_secs(600);
/// What the folder may grow by from the second quarter to the last. If nothing is forgotten, the 1,500,000 envelopes in between leave
/// 150 MB and what the index needs for them.
const GROWTH: u64 = 96 << 20;

/// Appends and takes until told to stop; how often.
async fn churn(relay: Arc<Process>, access: Arc<AccessTicket>, stop: Arc<AtomicBool>) -> u64 {
    let mut client = connect(&relay).await;
    let keys = client.mailbox(access.secret(), MailboxKind::Queue).await;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..GROUP {
            number += 1;
            client.send(append(keys.id(), envelope(number))).await.unwrap();
        }
        for _ in 0..GROUP {
            stored(&client.receive().await.unwrap().body);
        }
        let upto = Seq::new(number);
        let ack = Ack { mailbox: keys.id(), upto, also: Vec::new() };
        assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
    }
    number
}

/// Bytes that the files of a folder take on the disk.
fn taken(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // The relay deletes some meanwhile.
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => taken(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// Ten minutes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes"]
async fn the_disk_of_who_appends_and_takes_again_and_again_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    run_json(dir.path(), &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = Arc::new(start(dir.path()));
    let issued = run_json(dir.path(), &["access", "issue", "--size", "64 MiB"]);
    let ticket = Arc::new(AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let mut hands = JoinSet::new();
    for _ in 0..HANDS {
        hands.spawn(churn(Arc::clone(&relay), Arc::clone(&ticket), Arc::clone(&stop)));
    }
    let begun = Instant::now();
    // The least in the second and in the last quarter: between two merges of the engine its files are larger, by chance.
    let mut least = [u64::MAX; 4];
    while begun.elapsed() < LONG {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let quarter = usize::try_from(4 * begun.elapsed().as_secs() / LONG.as_secs()).unwrap();
        let now = taken(&dir.path().join("store"));
        if let Some(least) = least.get_mut(quarter) {
            *least = now.min(*least);
        }
        if begun.elapsed().as_secs().is_multiple_of(30) {
            println!("{:?}: {} MiB", begun.elapsed(), now >> 20);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let envelopes: u64 = hands.join_all().await.into_iter().sum();
    let [_, before, _, after] = least;
    let said =
        format!("{envelopes} envelopes appended and taken: {} MiB, then {} MiB", before >> 20, after >> 20);
    println!("{said}");
    assert!(after < before + GROWTH, "{said}");
}
