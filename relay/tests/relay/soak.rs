//! An hour of everything that people do to a relay, the hostile included, and what it grew by.
//!
//! `LAPWING_SOAK=3600 cargo nextest run --profile long -p lapwing-relay --run-ignored only --no-capture soak`

mod floods;
mod visits;

use std::{collections::BTreeMap, net::Ipv4Addr, ops::RangeInclusive, path::Path, sync::Arc, time::Duration};

use lapwing_relay::{
    clock::{Clock, SystemClock},
    limits::Limits,
    service::Service,
    store::{EngineName, StoreOptions},
};
use lapwing_wire::address::AccessTicket;
use nix::sys::signal::Signal;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use self::{
    floods::numbers_beside_crowds,
    visits::{GREEDY_MAILBOXES, GREEDY_SIZE, Kind, Visitor},
};
use crate::{
    flood::{number, number_in, numbers, small},
    quota::names_nobody,
    support::{
        PATIENCE,
        process::{run, run_json},
    },
};

const MIB: u64 = 1 << 20;
/// What the relay may take, whatever comes: the engine's cache (64 MiB) and its tables in memory, at most two of each of two kinds, which
/// have 64 MiB each as the store counts them and 90 as the allocator does; 256 MiB of journals that it maps none of; and what its connections
/// hold.
const MEMORY: u64 = 512 * MIB;
/// What lies on its disk when everything that was stored is taken again: journals, and tables that were not compacted yet.
const DISK: u64 = 2 << 30;
/// What memory may grow by from the second quarter to the last: for each envelope that was stored in between, what its rows need in the
/// engine's tables, until all of these are there (three more of 90 MiB), and what connections happen to need more. 2 KiB for each were measured.
const EACH: u64 = 4 << 10;
const TABLES: u64 = 270 * MIB;
const OTHERWISE: u64 = 12 * MIB;
/// People who come again and again beside each other.
const PEOPLE: u8 = 8;
/// How often somebody writes and reads between two visits of other kinds.
const WRITES: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn span() -> Duration {
    Duration::from_secs(std::env::var("LAPWING_SOAK").ok().map_or(60, |text| text.parse().unwrap()))
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

fn issue(dir: &Path, arguments: &[&str]) -> AccessTicket {
    let issued = run_json(dir, &[&["access", "issue"], arguments].concat());
    AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap()
}

/// Bytes and mailboxes that are charged to each ticket, by its name.
fn used(dir: &Path) -> BTreeMap<String, (u64, u64)> {
    let text = String::from_utf8(run(dir, &["access", "list", "--json"]).stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let number = |line: &Value, key: &str| line[key].as_u64().unwrap();
    lines
        .filter(|line| line["name"].is_string())
        .map(|line| {
            let name = line["name"].as_str().unwrap().to_owned();
            (name, (number(&line, "used_bytes"), number(&line, "used_mailboxes")))
        })
        .collect()
}

fn name(ticket: &AccessTicket) -> String {
    lapwing_relay::operator::ticket_name(&ticket.secret().public())
}

/// Nothing is there but what is charged to these tickets, and that is attachments.
fn is_empty_but_for(dir: &Path, tickets: &[&String]) {
    let used = used(dir);
    assert_eq!(used.len(), usize::from(PEOPLE) + 3);
    for (name, used) in used.iter().filter(|(name, _)| !tickets.contains(name)) {
        assert_eq!(*used, (0, 0), "bytes and mailboxes of {name}");
    }
    let status = run_json(dir, &["status"]);
    assert_eq!((&status["mailboxes"], &status["envelope_bytes"]), (&0.into(), &0.into()), "{status}");
    assert_eq!(status["blob_bytes"] == 0, tickets.is_empty(), "{status}");
}

/// Lets these days pass, counted from today, in the store of a relay that does not run; each with its sweep, as nobody believes a
/// clock that jumps over many.
async fn pass(dir: &Path, days: RangeInclusive<u32>) {
    let store = EngineName::default().open(&StoreOptions::at(dir.join("store"))).unwrap();
    let today = SystemClock.now();
    let service = Service::start(store, Limits::default(), &mut rand::rng(), today).await.unwrap();
    for day in days {
        service.sweep(today.plus(DAY * day)).await.unwrap();
    }
    service.shutdown().await;
}

/// Comes for everything once, and then for everything again, in another order.
async fn come(mut visitor: Visitor, until: Instant) -> BTreeMap<Kind, u64> {
    let mut visits = BTreeMap::new();
    while Instant::now() < until {
        let mut kinds = Kind::OTHERS;
        kinds.shuffle(&mut visitor.rng);
        for kind in kinds {
            for kind in [[Kind::Writes; WRITES].as_slice(), &[kind]].concat() {
                visitor.visit(kind).await;
                *visits.entry(kind).or_default() += 1;
            }
        }
    }
    visits
}

/// The least memory in each quarter of the time, and how many envelopes had been stored then: in between the engine has tables in memory
/// that it did not write yet.
struct Quarters([(u64, u64); 4]);

impl Quarters {
    fn look(&mut self, passed: Duration, span: Duration, memory: u64, stored: u64) {
        let quarter = usize::try_from(4 * passed.as_millis() / span.as_millis()).unwrap();
        if let Some(least) = self.0.get_mut(quarter) {
            *least = (memory, stored).min(*least);
        }
    }

    /// What is to be told.
    fn check(&self) -> String {
        let [_, (before, had), _, (after, has)] = self.0;
        let stored = has - had;
        let bound = (stored * EACH).min(TABLES) + OTHERWISE;
        let said = format!("{} MiB, and {} MiB after {stored} envelopes more", before / MIB, after / MIB);
        assert!(after < before + bound, "{said}: {} MiB are allowed", bound / MIB);
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "an hour: see the head of this file"]
async fn a_soak_of_everything_leaves_memory_and_disk_within_their_bounds() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("relay");
    let (relay, left, port) = small(base.path());
    let relay = Arc::new(relay);
    let (left, attachments) = (Arc::new(left), Arc::new(issue(&dir, &[])));
    let ticket = Arc::new(issue(&dir, &["--mailboxes", "2000"]));
    let (begun, span) = (Instant::now(), span());
    let mut people = JoinSet::new();
    for seed in 0..PEOPLE {
        let visitor = Visitor {
            relay: Arc::clone(&relay),
            dir: dir.clone(),
            port,
            ticket: Arc::clone(&ticket),
            attachments: Arc::clone(&attachments),
            left: Arc::clone(&left),
            greedy: issue(&dir, &["--size", GREEDY_SIZE, "--mailboxes", &GREEDY_MAILBOXES.to_string()]),
            crowd: Ipv4Addr::new(127, 0, 1, 1 + seed),
            rng: StdRng::seed_from_u64(seed.into()),
        };
        people.spawn(come(visitor, begun + span));
    }
    let all = tokio::spawn(async move {
        let mut visits: BTreeMap<Kind, u64> = BTreeMap::new();
        while let Some(came) = people.join_next().await {
            for (kind, count) in came.unwrap() {
                *visits.entry(kind).or_default() += count;
            }
        }
        visits
    });
    let (mut memory, mut disk, mut quarters) = (0, 0, Quarters([(u64::MAX, 0); 4]));
    while !all.is_finished() {
        tokio::time::sleep((span / 60).min(Duration::from_secs(10))).await;
        let now = relay.memory();
        memory = now.max(memory);
        disk = bytes_in(&dir).max(disk);
        assert!(memory < MEMORY, "{} MiB of memory after {:?}", memory / MIB, begun.elapsed());
        assert!(disk < DISK, "{} MiB on the disk after {:?}", disk / MIB, begun.elapsed());
        let stored = number_in(&numbers_beside_crowds(port), "envelopes_stored_total");
        quarters.look(begun.elapsed(), span, now, stored);
    }
    let visits = all.await.unwrap();
    println!(
        "{} visits in {:?}: {} MiB of memory and {} MiB on the disk at most; of each kind but the first {}",
        visits.values().sum::<u64>(),
        begun.elapsed(),
        memory / MIB,
        disk / MIB,
        visits[&Kind::DoesNothing],
    );
    assert!(Kind::OTHERS.iter().all(|kind| visits.contains_key(kind)), "{visits:?}");
    println!("{}", quarters.check());

    // Whoever went without a word is missed when he is silent for too long.
    let waited = Instant::now();
    while number(port, "connections") + number(port, "handshakes") > 0 {
        assert!(waited.elapsed() < PATIENCE, "nobody is there any more");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    names_nobody(&base.path().join("log"), &numbers(port));
    // What stays for its time: whole attachments, and uploads that somebody may go on with.
    let [left, attachments] = [&left, &attachments].map(|ticket| name(ticket));
    let there = used(&dir);
    assert!(there[&left].0 > 0 && there[&attachments].0 > 0, "{there:?}");
    is_empty_but_for(&dir, &[&left, &attachments]);
    let relay = Arc::into_inner(relay).expect("nobody else has it");
    relay.signal(Signal::SIGTERM);
    assert!(relay.wait().success());
    pass(&dir, 1..=3).await;
    is_empty_but_for(&dir, &[&attachments]);
    pass(&dir, 4..=33).await;
    is_empty_but_for(&dir, &[]);
}
