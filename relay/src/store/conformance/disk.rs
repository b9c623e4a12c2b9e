//! What a store does at a chosen moment of its disk. The disk is the power model's, so the store is in a process of its own.
//!
//! Two groups are under way when the disk refuses the first. The second was staged and sealed on it meanwhile, so nothing of
//! it is right any more: it is done again, on what is there. The shim holds a write until both are under way, then refuses it.
//!
//! And the disk hangs while keys are forgotten, or while the store is closed.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use super::{
    power::{
        Bench, shim,
        trace::{FAIL, FULL, HANG, HOLD, OF_FLUSH, TRACE, WATCHED},
    },
    *,
};
use crate::store::{KeptStore, StoreOptions, fjall::FjallStore};

/// Tells the child where it plays.
const FOLDER: &str = "LAPWING_REDO";
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the system calls them.
const EIO: u8 = 5;
const ENOSPC: u8 = 28;

/// What the disk says to the first group.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// Full, and then there is room: nothing of the first group is there.
    FullOnce,
    /// It takes all of the first group, and says when it is to be flushed that it is full: it was refused, and is there.
    UnflushedOnce,
    /// Full, until something is deleted.
    Full,
    /// It cannot.
    Broken,
}

const ALL: [Says; 4] = [Says::FullOnce, Says::UnflushedOnce, Says::Full, Says::Broken];

/// The mailboxes: of the first group, of the second, and made by the second.
struct Owners {
    mine: Owner,
    other: Owner,
    fresh: Owner,
    /// Of the first group's envelope.
    length: usize,
}

impl Owners {
    fn of(says: Says) -> Self {
        let length = if matches!(says, Says::UnflushedOnce) { 65_536 } else { 1024 };
        Self { mine: Owner::new(1), other: Owner::new(2), fresh: Owner::new(3), length }
    }

    /// What is there before.
    async fn begin(&self, store: &FjallStore) {
        for owner in [&self.mine, &self.other] {
            done(store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        }
        for number in 1..=3 {
            place(store, self.mine.append(envelope(number, 1024))).await.unwrap();
        }
    }

    fn first(&self) -> Mutation {
        self.mine.append(envelope(4, self.length))
    }

    /// A retry of the first, what follows it, and what has nothing to do with it.
    fn second(&self) -> Vec<Mutation> {
        vec![
            self.first(),
            self.mine.append(envelope(5, 4096)),
            self.other.append(envelope(6, 1024)),
            self.fresh.create(MailboxKind::Queue, Charge::Open),
            self.fresh.append(envelope(7, 1024)),
            self.mine.ack(2, &[]),
        ]
    }

    /// Whether the second group was done, on a disk that has none of it: whatever became of the first, its envelope is stored
    /// once.
    fn are_right(&self, answers: &[Result<Outcome, StoreError>]) -> bool {
        let is_new = |answer: &_, seq| matches!(answer, Ok(Outcome::Stored { place, is_new: true }) if place.seq == Seq::new(seq));
        let [again, next, other, made, fresh, taken] = answers else { return false };
        matches!(again, Ok(Outcome::Stored { place, .. }) if place.seq == Seq::new(4))
            && is_new(next, 5)
            && is_new(other, 1)
            && matches!(made, Ok(Outcome::Done))
            && is_new(fresh, 1)
            && matches!(taken, Ok(Outcome::Withdrawn(_)))
    }

    /// Looks at all of it: places, chains of hashes, and that each opens under its own key.
    async fn check(&self, store: &dyn MailboxStore) {
        for (owner, from, numbers) in [
            (&self.mine, 3, vec![(1, 1024), (2, 1024), (3, 1024), (4, self.length), (5, 4096)]),
            (&self.other, 1, vec![(6, 1024)]),
            (&self.fresh, 1, vec![(7, 1024)]),
        ] {
            let (mailbox, born) = (owner.id(), owner.born());
            let query = WindowQuery { mailbox, born, after: Seq::START, count: 99, bytes: 1 << 20 };
            let window = store.window(query).await.unwrap().unwrap();
            let mut hash = RunningHash::START;
            let mut expected = Vec::new();
            for (seq, (number, length)) in (1..).zip(numbers) {
                let envelope = envelope(number, length);
                hash = hash.next(seq, &EnvelopeId::of(&envelope));
                expected.push((seq, hash, envelope));
            }
            expected.retain(|(seq, ..)| *seq >= from);
            let there = window.items.into_iter();
            let there: Vec<_> = there
                .map(|item| (item.place.seq.value(), item.place.hash, item.envelope.into_vec()))
                .collect();
            assert!(there == expected, "{:?}", there.iter().map(|(seq, ..)| seq).collect::<Vec<_>>());
        }
    }
}

/// The files with which the shim is told what to do.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    #[expect(clippy::disallowed_methods, reason = "tells the shim what to do")]
    fn set(&self, name: &str, bytes: &[u8]) {
        // At once, so that the shim never finds it empty.
        let (path, whole) = (self.folder.join("whole"), self.folder.join(name));
        std::fs::write(&path, bytes).unwrap();
        std::fs::rename(&path, &whole).unwrap();
    }

    fn clear(&self, name: &str) {
        std::fs::remove_file(self.folder.join(name)).unwrap();
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it takes too long: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The answers of two groups that are under way.
type Answers<T> = tokio::task::JoinHandle<T>;

/// Holds the disk, and has two groups under way.
async fn two_under_way(
    disk: &Disk,
    store: &Arc<FjallStore>,
    owners: &Owners,
) -> (Answers<Result<Outcome, StoreError>>, Answers<Vec<Result<Outcome, StoreError>>>) {
    // What makes the last group visible writes as well, and is not to be what is held.
    until("nothing is written", || store.is_settled()).await;
    disk.set("hold", &[]);
    let (one, two) = (Arc::clone(store), Arc::clone(store));
    let change = owners.first();
    let first = tokio::spawn(async move { apply(&*one, change, 1).await });
    until("the first is on its way", || store.health().running_commit.is_some()).await;
    let overlaps = store.overlaps();
    let changes = owners.second();
    let second =
        tokio::spawn(
            async move { together(changes.into_iter().map(|change| apply(&*two, change, 1))).await },
        );
    until("the second is staged", || store.overlaps() > overlaps).await;
    (first, second)
}

async fn play(disk: &Disk, says: Says) {
    let options = StoreOptions::at(disk.folder.join(format!("disk/{says:?}")));
    let store = Arc::new(FjallStore::open(&options).unwrap());
    let owners = Owners::of(says);
    owners.begin(&store).await;
    let redone = store.redone();
    let (first, second) = two_under_way(disk, &store, &owners).await;
    match says {
        Says::FullOnce => disk.set("fail", &[ENOSPC]),
        Says::UnflushedOnce => disk.set("fail", &[ENOSPC | OF_FLUSH]),
        Says::Full => disk.set("full", &[]),
        Says::Broken => disk.set("fail", &[EIO]),
    }
    disk.clear("hold");
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(store.redone(), redone + 1, "{says:?}: the second was ready when the first was refused");
    let refused = if matches!(says, Says::Broken) { StoreError::Disk } else { StoreError::Full };
    assert_eq!(first.err(), Some(refused), "{says:?}");
    match says {
        Says::FullOnce | Says::UnflushedOnce => {
            assert!(owners.are_right(&second), "{says:?}: {second:?}");
            let is_new = matches!(&second[0], Ok(Outcome::Stored { is_new: true, .. }));
            assert_eq!(is_new, matches!(says, Says::FullOnce), "{says:?}");
        }
        Says::Full => {
            assert!(second.iter().all(|answer| answer.as_ref().err() == Some(&refused)), "{second:?}");
            assert_eq!(numbers(&*store, &owners.mine, 0).await.unwrap(), [1, 2, 3], "it is readable");
            disk.clear("full");
            let mut answers = Vec::new();
            for change in owners.second() {
                // It looks for room once a second.
                let mut answer = apply(&*store, change.clone(), 1).await;
                let begun = tokio::time::Instant::now();
                while answer.as_ref().err() == Some(&StoreError::Full) && begun.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    answer = apply(&*store, change.clone(), 1).await;
                }
                answers.push(answer);
            }
            assert!(owners.are_right(&answers), "{answers:?}");
        }
        Says::Broken => {
            assert!(second.iter().all(|answer| answer.as_ref().err() == Some(&refused)), "{second:?}");
            assert_eq!(numbers(&*store, &owners.mine, 0).await.unwrap(), [1, 2, 3], "it is readable");
        }
    }
    store.close().await;
}

#[test]
#[ignore = "the process that the test beside it starts"]
fn redo_child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = Disk { folder };
        for says in ALL {
            play(&disk, says).await;
        }
    });
}

/// Closes a store while two groups are under way, and the disk goes on or does not.
async fn close(disk: &Disk, is_broken: bool) {
    let options = StoreOptions::at(disk.folder.join(format!("disk/{is_broken}")));
    let store = Arc::new(FjallStore::open(&options).unwrap());
    let owners = Owners::of(Says::UnflushedOnce);
    owners.begin(&store).await;
    let (first, second) = two_under_way(disk, &store, &owners).await;
    let closed = Arc::clone(&store);
    let closing = tokio::spawn(async move { closed.close().await });
    let begun = tokio::time::Instant::now();
    while store.mailbox(owners.mine.id()).await != Err(StoreError::Closed) {
        assert!(begun.elapsed() < PATIENCE, "it closes");
    }
    let late = apply(&*store, owners.mine.append(envelope(9, 1024)), 1).await;
    assert_eq!(late.err(), Some(StoreError::Closed), "nobody else is let in");
    assert!(!closing.is_finished());
    if is_broken {
        disk.set("fail", &[EIO]);
    }
    disk.clear("hold");
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    if is_broken {
        let all = std::iter::once(&first).chain(&second);
        assert!(all.into_iter().all(|answer| answer.as_ref().err() == Some(&StoreError::Disk)), "{second:?}");
    } else {
        assert!(matches!(first, Ok(Outcome::Stored { is_new: true, .. })), "{first:?}");
        assert!(owners.are_right(&second), "{second:?}");
    }
    tokio::time::timeout(PATIENCE, closing).await.unwrap().unwrap();
    drop(store);
    let store = FjallStore::open(&options).unwrap();
    if is_broken {
        assert_eq!(numbers(&store, &owners.mine, 0).await.unwrap(), [1, 2, 3]);
    } else {
        owners.check(&store).await;
    }
    store.close().await;
}

#[test]
#[ignore = "the process that the test beside it starts"]
fn closing_child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = Disk { folder };
        for is_broken in [false, true] {
            close(&disk, is_broken).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_closed_while_two_groups_are_under_way_answers_both() {
    played("closing_child", &Bench::new()).await;
}

#[test]
#[ignore = "the process that the test beside it starts"]
fn forgetting_child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = Disk { folder };
        // Longer than what is counted as slow.
        const SLOW: Duration = Duration::from_millis(600);
        let forget_after = Duration::from_millis(200);
        let options = StoreOptions { forget_after, ..StoreOptions::at(disk.folder.join("disk/store")) };
        let store = FjallStore::open(&options).unwrap();
        let owner = Owner::new(1);
        done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        let begun = tokio::time::Instant::now();
        for number in 1.. {
            place(&store, owner.append(envelope(number, 1024))).await.unwrap();
            done(&store, owner.ack(number, &[]), "taken").await.unwrap();
            // What was answered may still be on its way into the engine; nothing but keys is to be written from here on.
            until("it is settled", || store.is_settled()).await;
            disk.set("hang", &[]);
            // Where this came too late the keys are forgotten already: once more.
            let hanging = tokio::time::Instant::now();
            let hangs = || store.health().running_commit.is_some_and(|running| running > SLOW);
            while !hangs() && hanging.elapsed() < forget_after * 5 + SLOW {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let is_told = hangs();
            disk.clear("hang");
            if is_told {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "it is told that the disk hangs");
        }
        until("it is over", || store.health().running_commit.is_none()).await;
        until("it is counted", || store.health().slow_commits >= 1).await;
        assert!(store.health().slowest_commit > Duration::from_millis(500));
        store.close().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_while_keys_are_forgotten_is_told_of() {
    played("forgetting_child", &Bench::new()).await;
}

/// Clauses 1 and 5.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_sealed_while_the_disk_refused_the_one_before_it_is_done_again() {
    let bench = Bench::new();
    played("redo_child", &bench).await;
    for says in ALL {
        let store = FjallStore::open(&StoreOptions::at(bench.path(&format!("disk/{says:?}")))).unwrap();
        let owners = Owners::of(says);
        if matches!(says, Says::Broken) {
            let there = numbers(&store, &owners.mine, 0).await.unwrap();
            // The first was refused by a disk of which nobody knows what it kept; the second never came to it.
            assert!(there == [1, 2, 3] || there == [1, 2, 3, 4], "{there:?}");
            let second = together(owners.second().into_iter().map(|change| apply(&store, change, 1))).await;
            assert!(owners.are_right(&second), "{second:?}");
        }
        owners.check(&store).await;
        store.close().await;
    }
}

/// Runs one of the tests above in a process of its own, to its end.
async fn played(test: &str, bench: &Bench) {
    let path = |name: &str| bench.path(name);
    let test = format!("store::conformance::disk::{test}");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--ignored", "--nocapture"])
        .env(FOLDER, path(""))
        .env("LD_PRELOAD", shim())
        .envs([(WATCHED, path("disk")), (TRACE, path("trace")), (FULL, path("full"))])
        .envs([(HANG, path("hang")), (HOLD, path("hold")), (FAIL, path("fail"))])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let begun = tokio::time::Instant::now();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(ended) => break ended.success(),
            None if begun.elapsed() > PATIENCE * 3 => break child.kill().is_err(),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    child.wait().unwrap();
    assert!(ended, "the process that played it failed");
}
