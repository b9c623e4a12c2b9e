//! What an envelope costs where much is stored, or for many: the store alone, in this process.

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lapwing_relay::store::{
    Born, Change, Charge, Day, MEMORY, MailboxKeys, MailboxStore, Mutation, Outcome, StoreOptions,
    WindowQuery, fjall::FjallStore,
};
use lapwing_wire::{
    capability::PublicKey,
    frame::{MailboxKind, Seq},
    ids::{EnvelopeId, MailboxId},
    time::Timestamp,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::process::{load, own_spent, own_system_time, resident};

/// Who append at a time, as many as the other benches have.
const PRODUCERS: u64 = 64;
/// Who fill at a time: larger groups, fewer flushes.
const FILLERS: u64 = 768;
/// Appends that are measured for many mailboxes.
const APPENDS: u64 = 200_000;
/// Envelopes in the plain file.
const PLAIN: u64 = 1 << 20;
/// Bytes of the plain file that are written and flushed at once: as many as a group of the producers has.
const GROUP: usize = 64 << 10;
/// Readings that are measured, of this many envelopes each.
const READINGS: u64 = 4_000;
const READ: usize = 10;
/// Mailboxes while the bytes grow.
const MAILBOXES: u64 = 1_000;
/// Decision 15: times what it costs at the first mark.
const BY_SIZE: f64 = 1.6;
const BY_MAILBOXES: f64 = 3.0;
/// Bytes of `storage.memory` for a mailbox.
const MAILBOX: u64 = 1 << 10;
/// Bytes of an envelope.
const LENGTH: u64 = 1 << 10;

/// A store and its mailboxes.
struct Stored {
    store: FjallStore,
    ids: Vec<MailboxId>,
    /// Numbers of envelopes, so that none is like another.
    next: AtomicU64,
}

/// As the bytes grow: marks in GiB, in order. What an envelope cost from each mark to the next, all that the engine does once for
/// some hundred thousand of them included.
///
/// What the system takes is told apart, and beside it what it takes for the same bytes in a plain file: it is much where it has to
/// find memory for them first.
///
/// Names what misses decision 15.
pub async fn by_size(disk: &Path, marks: &[u64]) -> Vec<String> {
    println!("\nthe store alone, {MAILBOXES} mailboxes, on this disk; load {}", load());
    let folder = tempfile::tempdir_in(disk).unwrap();
    let stored = Arc::new(Stored::open(folder.path(), MAILBOXES, MEMORY).await);
    let (mut from, mut first, mut missed) = (0, None, Vec::new());
    for mark in marks {
        let count = mark * (1 << 30) / LENGTH - stored.next.load(Ordering::Relaxed);
        let (before, spent) = (own_system_time(), own_spent());
        let (wall, _, ()) = timed(stored.append(PRODUCERS, count)).await;
        settle().await;
        let (system, work) = (own_system_time() - before, own_spent() - spent);
        print!(
            "  {:<20} append {:>6.1} µs (processors {:>5.1}, of which the system {:>4.1}; a plain file {:>4.1})",
            format!("{from} to {mark} GiB"),
            each(wall, count),
            each(work, count),
            each(system, count),
            each(plain_file(folder.path()), PLAIN)
        );
        stored.report_reading().await;
        let (cost, first) = (each(work, count), *first.get_or_insert(each(work, count)));
        if cost > BY_SIZE * first {
            missed.push(format!(
                "{from} to {mark} GiB: {:.2} of the first mark, must be {BY_SIZE}",
                cost / first
            ));
        }
        from = *mark;
    }
    stored.store.close().await;
    missed
}

/// With more and more mailboxes.
///
/// Names what misses decision 15, also where there is no memory for all of them, and then says so.
pub async fn by_mailboxes(folder: &Path, counts: &[u64], memory_mib: u64) -> Vec<String> {
    println!("\nthe store alone with {memory_mib} MiB of memory, no flush; load {}", load());
    let (mut first, mut missed) = (None, Vec::new());
    for count in counts {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let (begun, spent) = (Instant::now(), own_spent());
        let stored = Arc::new(Stored::open(folder.path(), *count, memory_mib << 20).await);
        println!(
            "    {count} mailboxes made in {:.1} s, {:.1} µs of processors each",
            begun.elapsed().as_secs_f64(),
            (own_spent() - spent).as_secs_f64() * 1e6 / *count as f64
        );
        settle().await;
        let cost = stored.report(&format!("{count} mailboxes")).await;
        let first = *first.get_or_insert(cost);
        println!("    {:.2} of the first", cost / first);
        if cost > BY_MAILBOXES * first {
            let fits = if count * MAILBOX <= memory_mib << 20 { "" } else { ", not enough for all of them" };
            missed.push(format!(
                "{count} mailboxes with {memory_mib} MiB{fits}: {:.2} of the first, must be {BY_MAILBOXES}",
                cost / first
            ));
        }
        stored.store.close().await;
    }
    missed
}

impl Stored {
    async fn open(folder: &Path, mailboxes: u64, memory: u64) -> Self {
        let options = StoreOptions { memory, ..StoreOptions::at(folder.join("store")) };
        let store = tokio::task::spawn_blocking(move || FjallStore::open(&options).unwrap()).await.unwrap();
        let ids = (0..mailboxes).map(|number| MailboxId::of_admin(&keys(number).admin)).collect();
        let stored = Arc::new(Self { store, ids, next: AtomicU64::new(0) });
        concurrently(FILLERS, mailboxes, {
            let stored = Arc::clone(&stored);
            move |number| {
                let stored = Arc::clone(&stored);
                async move {
                    let (keys, kind, charge) = (keys(number), MailboxKind::Queue, Charge::Open);
                    let made =
                        stored.apply(Mutation::Create { keys, kind, charge, born: born(number) }).await;
                    assert!(matches!(made, Outcome::Done), "it is made");
                }
            }
        })
        .await;
        Arc::into_inner(stored).unwrap()
    }

    async fn apply(&self, mutation: Mutation) -> Outcome {
        let change = Change { mutation, now: Timestamp::from_millis(0), day: Day::new(1) };
        self.store.apply(change).await.unwrap()
    }

    /// Appends to mailboxes at random. What each took its sender.
    async fn append(self: &Arc<Self>, producers: u64, count: u64) {
        concurrently(producers, count, {
            let stored = Arc::clone(self);
            move |_| {
                let stored = Arc::clone(&stored);
                async move {
                    let number = stored.next.fetch_add(1, Ordering::Relaxed);
                    let index = scattered(number) % stored.ids.len() as u64;
                    let mailbox = stored.ids[usize::try_from(index).unwrap()];
                    let envelope = envelope(number);
                    let id = EnvelopeId::of(&envelope);
                    let (limit, envelope) = (u64::MAX, envelope.into());
                    let append =
                        Mutation::Append { mailbox, born: born(index), id, envelope, limit, reserve: 0 };
                    let outcome = stored.apply(append).await;
                    assert!(matches!(outcome, Outcome::Stored { is_new: true, .. }), "it is new, and stored");
                }
            }
        })
        .await;
    }

    /// Reads from a place at random in mailboxes at random. How many envelopes came.
    async fn read(self: &Arc<Self>, count: u64) -> u64 {
        let each = self.next.load(Ordering::Relaxed) / self.ids.len() as u64;
        let came = Arc::new(AtomicU64::new(0));
        concurrently(4, count, {
            let (stored, came) = (Arc::clone(self), Arc::clone(&came));
            move |number| {
                let (stored, came) = (Arc::clone(&stored), Arc::clone(&came));
                async move {
                    let mut chance = StdRng::seed_from_u64(number);
                    let index = chance.random_range(0..stored.ids.len() as u64);
                    let after = Seq::new(chance.random_range(0..=each.saturating_sub(READ as u64)));
                    let mailbox = stored.ids[usize::try_from(index).unwrap()];
                    let query =
                        WindowQuery { mailbox, born: born(index), after, count: READ, bytes: 1 << 20 };
                    let window = stored.store.window(query).await.unwrap().unwrap();
                    assert!(window.items.iter().all(|item| item.envelope.len() == LENGTH as usize));
                    came.fetch_add(window.items.len() as u64, Ordering::Relaxed);
                }
            }
        })
        .await;
        came.load(Ordering::Relaxed)
    }

    /// Processor time of an append, in microseconds.
    async fn report(self: &Arc<Self>, what: &str) -> f64 {
        let (wall, work, ()) = timed(self.append(PRODUCERS, APPENDS)).await;
        print!(
            "  {what:<20} append {:>6.1} µs (processors {:>5.1})",
            each(wall, APPENDS),
            each(work, APPENDS)
        );
        self.report_reading().await;
        each(work, APPENDS)
    }

    async fn report_reading(self: &Arc<Self>) {
        let (wall, work, came) = timed(self.read(READINGS)).await;
        println!(
            ", read {:>6.1} µs a window (processors {:>6.1}), {:.1} envelopes each; {} MiB resident",
            each(wall, READINGS),
            each(work, READINGS),
            came as f64 / READINGS as f64,
            resident(std::process::id()) >> 20
        );
    }
}

/// The same bytes in a plain file, flushed as a group is. Processor time.
fn plain_file(folder: &Path) -> Duration {
    let spent = own_spent();
    let mut file = tempfile::tempfile_in(folder).unwrap();
    let group = vec![0x5a; GROUP];
    for _ in 0..PLAIN * LENGTH / GROUP as u64 {
        file.write_all(&group).unwrap();
        file.sync_data().unwrap();
    }
    own_spent() - spent
}

/// Microseconds of each.
fn each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

/// Waits until nothing is sorted in the background any more.
async fn settle() {
    loop {
        let spent = own_spent();
        tokio::time::sleep(Duration::from_secs(1)).await;
        if own_spent() - spent < Duration::from_millis(20) {
            return;
        }
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> (Duration, Duration, T) {
    let (begun, spent) = (Instant::now(), own_spent());
    let out = work.await;
    (begun.elapsed(), own_spent() - spent, out)
}

/// `count` pieces of work by so many at a time.
async fn concurrently<F>(workers: u64, count: u64, work: impl Fn(u64) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let running: Vec<_> = (0..workers)
        .map(|_| {
            let (work, next) = (work.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number).await;
                }
            })
        })
        .collect();
    for running in running {
        running.await.unwrap();
    }
}

fn keys(number: u64) -> MailboxKeys {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    MailboxKeys {
        admin: PublicKey::from_bytes(bytes),
        read: PublicKey::from_bytes(bytes),
        write: PublicKey::from_bytes(bytes),
    }
}

/// As a relay draws it at random: mailboxes that were made together do not lie together.
fn born(number: u64) -> Born {
    Born::new(scattered(!number))
}

/// A number that looks like chance (the finaliser of SplitMix64).
fn scattered(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn envelope(number: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; LENGTH as usize];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}
