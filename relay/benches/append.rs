//! Group-committed appends of the real store against the floor: the same queue, the same groups, nothing but an
//! append to a file and `fdatasync`.
//!
//! Both arms sleep 1 ms after each flush (a consumer SSD), on a file system in memory where there is one, because real
//! disks change their speed from run to run. Each round runs both arms one after the other; the median of the rounds'
//! ratios must be at least 0.8, else the bench fails. Then the same with 0.1 ms, and without a sleep, which is told: where a flush
//! costs nothing the floor is a copy of bytes, and nothing is asked.
//!
//! `cargo bench -p lapwing-relay --bench append`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails by panicking")]
#![allow(clippy::print_stdout, reason = "its result is what it prints")]
#![allow(clippy::disallowed_methods, reason = "it measures time and writes a file of its own")]
#![allow(missing_docs, reason = "not a library")]

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lapwing_relay::store::{
    Born, Change, Charge, Day, MailboxKeys, MailboxStore, Mutation, Outcome, StoreOptions, fjall::FjallStore,
};
use lapwing_wire::{
    capability::PublicKey,
    frame::MailboxKind,
    ids::{EnvelopeId, MailboxId},
    time::Timestamp,
};
use tokio::sync::{mpsc, oneshot};

const PRODUCERS: u64 = 64;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(1);
/// How much longer each flush takes, and what is required then: a consumer's disk, a server's, none.
const ARMS: [(Duration, Option<f64>); 3] =
    [(Duration::from_millis(1), Some(0.8)), (Duration::from_micros(100), Some(0.55)), (Duration::ZERO, None)];
const ENVELOPE: usize = 1024;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let medians = ARMS.map(|(flush, required)| (compare(&runtime, flush), required));
    for (median, required) in medians {
        let required = required.map_or("nothing required".to_owned(), |least| format!("required {least}"));
        println!("median ratio {median:.3}, {required}");
    }
    assert!(
        medians.iter().all(|(median, required)| required.is_none_or(|least| *median >= least)),
        "the store is too far from the floor"
    );
}

/// The median of the ratios.
fn compare(runtime: &tokio::runtime::Runtime, flush: Duration) -> f64 {
    let base = tempfile::tempdir_in(memory_or_temp()).unwrap();
    println!("append, {PRODUCERS} producers, {ENVELOPE} bytes, {ROUND:?} a round, {flush:?} a flush");
    println!("{:>5} {:>12} {:>12} {:>8}", "round", "floor/s", "store/s", "ratio");
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let dir = base.path().join(round.to_string());
        std::fs::create_dir(&dir).unwrap();
        let floor = runtime.block_on(floor(&dir.join("log"), flush));
        let store = runtime.block_on(store(&dir.join("store"), flush));
        let ratio = store / floor;
        println!("{round:>5} {floor:>12.0} {store:>12.0} {ratio:>8.3}");
        ratios.push(ratio);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    ratios.sort_by(f64::total_cmp);
    ratios[ROUNDS / 2]
}

fn memory_or_temp() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

fn envelope(producer: u64, number: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; ENVELOPE];
    bytes[..8].copy_from_slice(&producer.to_be_bytes());
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Runs the producers for one round; each sends its next envelope when the last was answered.
async fn produce<F>(append: impl Fn(u64, u64) -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    let is_over = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let (append, is_over, count) = (append.clone(), Arc::clone(&is_over), Arc::clone(&count));
            tokio::spawn(async move {
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    append(producer, number).await;
                    number += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    is_over.store(true, Ordering::Relaxed);
    for producer in producers {
        producer.await.unwrap();
    }
    let appended = u32::try_from(count.load(Ordering::Relaxed)).unwrap();
    f64::from(appended) / begun.elapsed().as_secs_f64()
}

type RawJob = (Vec<u8>, oneshot::Sender<()>);

async fn floor(path: &Path, flush: Duration) -> f64 {
    let (queue, mut jobs) = mpsc::channel::<RawJob>(1024);
    let mut file = OpenOptions::new().create_new(true).append(true).open(path).unwrap();
    let writer = std::thread::spawn(move || {
        let mut batch = Vec::new();
        let mut bytes = Vec::new();
        while let Some((first, answer)) = jobs.blocking_recv() {
            bytes.extend_from_slice(&first);
            batch.push(answer);
            while batch.len() < 1024 && bytes.len() < 1 << 20 {
                let Ok((next, answer)) = jobs.try_recv() else { break };
                bytes.extend_from_slice(&next);
                batch.push(answer);
            }
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
            if !flush.is_zero() {
                std::thread::sleep(flush);
            }
            bytes.clear();
            for answer in batch.drain(..) {
                answer.send(()).unwrap();
            }
        }
        file.metadata().unwrap().len()
    });
    let rate = produce({
        let queue = queue.clone();
        move |producer, number| {
            let queue = queue.clone();
            async move {
                let (answer, done) = oneshot::channel();
                queue.send((envelope(producer, number), answer)).await.unwrap();
                done.await.unwrap();
            }
        }
    })
    .await;
    drop(queue);
    assert!(writer.join().unwrap() > 0);
    rate
}

async fn store(path: &Path, flush: Duration) -> f64 {
    let options = StoreOptions { extra_flush: flush, ..StoreOptions::at(path) };
    let store = Arc::new(FjallStore::open(&options).unwrap());
    let born = Born::new(1);
    let keys = |producer: u64| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&producer.to_be_bytes());
        MailboxKeys {
            admin: PublicKey::from_bytes(bytes),
            read: PublicKey::from_bytes(bytes),
            write: PublicKey::from_bytes(bytes),
        }
    };
    let apply = {
        let store = Arc::clone(&store);
        move |mutation| {
            let store = Arc::clone(&store);
            async move {
                let change = Change { mutation, now: Timestamp::from_millis(0), day: Day::new(1) };
                store.apply(change).await.unwrap()
            }
        }
    };
    for producer in 0..PRODUCERS {
        let (keys, kind, charge) = (keys(producer), MailboxKind::Queue, Charge::Open);
        assert!(matches!(apply(Mutation::Create { keys, kind, charge, born }).await, Outcome::Done));
    }
    let ids: Arc<[MailboxId]> =
        (0..PRODUCERS).map(|producer| MailboxId::of_admin(&keys(producer).admin)).collect();
    let rate = produce({
        let apply = apply.clone();
        move |producer, number| {
            let apply = apply.clone();
            let mailbox = ids[usize::try_from(producer).unwrap()];
            async move {
                let envelope = envelope(producer, number);
                let id = EnvelopeId::of(&envelope);
                let envelope = envelope.into();
                let append = Mutation::Append { mailbox, born, id, envelope, limit: u64::MAX, reserve: 0 };
                let Outcome::Stored { place, is_new: true } = apply(append).await else {
                    panic!("each envelope is new and stored")
                };
                assert_eq!(place.seq.value(), number + 1);
            }
        }
    })
    .await;
    store.close().await;
    rate
}
