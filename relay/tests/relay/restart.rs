//! How long a relay that was killed is away, with many envelopes stored: from the start of its process until it says that it
//! listens, and until it has answered.
//!
//! Short here; the long run, on a relay that is built as it is released:
//!
//! ```text
//! cargo build --profile dist -p lapwing-relay
//! LAPWING_RESTART=target/dist/lapwing-relay \
//!     cargo nextest run --profile long -p lapwing-relay --run-ignored only --no-capture listens_again
//! ```

use std::{fs::File, path::Path, time::Duration};

use lapwing_wire::{
    address::AccessTicket,
    capability::{Right, Subject},
    frame::*,
    limits::MAX_IN_FLIGHT,
};
use nix::sys::signal::Signal;
use rustix::fs::{Advice, fadvise};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Client, Keys,
    client::{append, stored},
    envelope,
    process::{Process, run_json},
};

/// What operators are promised.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// Logs that the envelopes lie in.
const LOGS: usize = 100;
/// Connections that fill them.
const WRITERS: usize = 4;
/// Starts after SIGKILL, half of them with nothing of the relay's files in the system's memory.
const STARTS: usize = 6;

/// The relay that is measured: a program that the environment names, else that of these tests.
pub fn start(dir: &Path) -> Process {
    match std::env::var_os("LAPWING_RESTART") {
        Some(program) => Process::start_program(Path::new(&program), dir),
        None => Process::start(dir),
    }
}

pub async fn connect(relay: &Process) -> Client {
    Client::connect(relay.socket(), relay.address.key()).await.unwrap()
}

/// Appends these numbers, many requests at a time.
async fn fill(mut client: Client, logs: Vec<Keys>, numbers: std::ops::Range<u64>) -> Vec<Keys> {
    for keys in &logs {
        client.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
    }
    let mut under_way = 0;
    for number in numbers {
        let keys = &logs[usize::try_from(number).unwrap() % logs.len()];
        client.send(append(keys.id(), envelope(number))).await.unwrap();
        under_way += 1;
        if under_way == MAX_IN_FLIGHT / 2 {
            stored(&client.receive().await.unwrap().body);
            under_way -= 1;
        }
    }
    for _ in 0..under_way {
        stored(&client.receive().await.unwrap().body);
    }
    logs
}

/// A relay with so many envelopes of 1 KiB, in logs.
async fn filled(dir: &Path, count: u64) -> (Process, Vec<Keys>) {
    run_json(dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let relay = start(dir);
    let issued = run_json(dir, &["access", "issue", "--size", "4 GiB"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let mut filling = JoinSet::new();
    let each = count / WRITERS as u64;
    for writer in 0..WRITERS as u64 {
        let mut client = connect(&relay).await;
        let mut logs = Vec::new();
        for _ in 0..LOGS / WRITERS {
            logs.push(client.mailbox(ticket.secret(), MailboxKind::Log).await);
        }
        filling.spawn(fill(client, logs, writer * each..(writer + 1) * each));
    }
    let logs = filling.join_all().await.into_iter().flatten().collect();
    (relay, logs)
}

/// Has the system forget what it keeps of the files below a folder, as after the machine was started.
fn drop_from_memory(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            drop_from_memory(&path);
        } else if path.is_file() {
            let file = File::open(path).unwrap();
            file.sync_all().unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    }
}

/// How long it is away, start by start: until it listens, and until it has shown what it had and stored what is new.
async fn away(dir: &Path, count: u64) -> Vec<(Duration, Duration)> {
    let (mut relay, logs) = filled(dir, count).await;
    let each = count / LOGS as u64;
    let mut away = Vec::new();
    for (round, keys) in logs.iter().enumerate().take(STARTS + 1) {
        if round == STARTS {
            // And one that was stopped in order.
            relay.signal(Signal::SIGTERM);
            assert!(relay.wait().success());
        } else {
            relay.kill();
        }
        if round % 2 == 1 {
            drop_from_memory(dir);
        }
        let begun = Instant::now();
        relay = start(dir);
        let listens = begun.elapsed();
        let mut client = connect(&relay).await;
        client.prove_all(keys).await;
        let window = client.window(keys.id(), each - 10).await;
        assert_eq!(window.items.len(), 10, "the last of what was stored");
        let place = stored(&client.append(keys.id(), envelope(u64::MAX)).await);
        assert_eq!(place.seq, Seq::new(each + 1));
        away.push((listens, begun.elapsed()));
    }
    relay.kill();
    away
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_relay_listens_again_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let away = away(dir.path(), 20_000).await;
    println!("20,000 envelopes: {away:?}");
    assert!(away.iter().all(|(listens, _)| *listens < BACK_WITHIN), "{away:?}");
}

/// A gigabyte and some minutes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes more than a gigabyte"]
async fn a_killed_relay_with_a_million_envelopes_listens_again_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let away = away(dir.path(), 1_000_000).await;
    for (listens, answers) in &away {
        println!("1,000,000 envelopes: listening after {listens:?}, answered after {answers:?}");
    }
    assert!(away.iter().all(|(listens, _)| *listens < BACK_WITHIN), "{away:?}");
}
