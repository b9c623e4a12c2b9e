//! What a store promises when the disk has spoilt a part of its files of keys, or cannot read it any more.

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_128;

use super::{
    forgetting::{holders, until},
    *,
};
use crate::store::{
    EngineName, KeptStore, StoreOptions,
    engine::{Engine, create_folder},
    fjall::Fjall,
    keys::{Chain, KEYS, KeyFile, Slot},
    record::{Slots, key},
    tables::Writes,
};

const SOON: Duration = Duration::from_millis(20);
/// As long as the store remembers what cannot be read.
const REMEMBERED: Duration = SOON.saturating_mul(64);

/// Slots of a unit of the file, and bytes of one of its two copies.
const UNIT: (u32, u64) = (56, 4096);
/// Whoever was added last to the first unit.
const LAST: u32 = UNIT.0 - 1;

/// A store in whose file of keys is a whole unit and the beginning of another, each written more than once.
struct Kept {
    _dir: tempfile::TempDir,
    path: PathBuf,
    store: std::sync::Arc<dyn KeptStore>,
    keys: KeyFile,
}

impl Kept {
    async fn new(engine: EngineName) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let options = StoreOptions { forget_after: SOON, ..StoreOptions::at(&path) };
        let store = engine.open(&options).unwrap();
        for slot in 0..60 {
            let owner = owner(slot);
            done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
            for count in 1..=3 {
                place(&*store, owner.append(envelope(count, 1024))).await.unwrap();
            }
        }
        let keys = KeyFile::open(&path).unwrap();
        for slot in [0, 1, 2, 57, 58] {
            assert_eq!(slot_of(&*store, slot).await, slot, "slots go up");
        }
        Self { _dir: dir, path, store, keys }
    }

    /// The chain key of a slot that the file can still tell.
    fn key(&self, slot: u32) -> [u8; 32] {
        self.keys.load(Slot(slot)).unwrap().unwrap().secrets()[0]
    }

    fn holds(&self, key: &[u8; 32]) -> bool {
        !holders(&[(String::new(), std::fs::read(self.path.join(KEYS)).unwrap())], key).is_empty()
    }

    async fn close(&self, slot: u32) {
        let owner = owner(slot);
        let close = Mutation::Close { mailbox: owner.id(), born: owner.born() };
        done(&*self.store, close, "closed").await.unwrap();
    }

    /// The slot of a mailbox that is made now, and used.
    async fn create(&self, number: u32) -> u32 {
        let owner = owner(number);
        done(&*self.store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        place(&*self.store, owner.append(envelope(1, 1024))).await.unwrap();
        assert_eq!(numbers(&*self.store, &owner, 0).await, Ok(vec![1]));
        slot_of(&*self.store, number).await
    }
}

fn owner(number: u32) -> Owner {
    Owner::new(u8::try_from(number + 1).unwrap())
}

async fn slot_of(store: &dyn KeptStore, number: u32) -> u32 {
    store.mailbox(owner(number).id()).await.unwrap().unwrap().slot.0
}

/// Where the test makes copies of units unreadable.
fn page(path: &Path, copy: u64) -> PathBuf {
    path.with_extension("unreadable").join(format!("{KEYS}.{copy}"))
}

fn spoil_copy(path: &Path, copy: u64) {
    std::fs::create_dir_all(page(path, copy)).unwrap();
}

/// How often the disk was asked for a copy that it cannot read.
fn tries(path: &Path, copy: u64) -> usize {
    std::fs::read_dir(page(path, copy)).unwrap().count()
}

/// Flips a bit of a slot in both copies of the first unit.
fn spoil(path: &Path, slot: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path.join(KEYS)).unwrap();
    for copy in [0, UNIT.1] {
        let at = copy + 8 + slot * 72 + 20;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

/// The promise of ten seconds holds beside what has rotted and in it, and nobody is refused a mailbox.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_part_of_the_keys_keeps_nothing_from_being_forgotten_and_nobody_from_creating() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let kept = Kept::new(engine).await;
        let [closed, taken, waiting, beside] = [0, 1, 2, 57].map(|slot| kept.key(slot));
        // Of whose mailbox nothing is to go.
        spoil(&kept.path, 3);
        kept.close(0).await;
        done(&*kept.store, owner(1).ack(2, &[]), "taken").await.unwrap();
        kept.close(57).await;
        until("what lies beside it is forgotten", || !kept.holds(&beside)).await;
        until("what lies in it is forgotten", || !kept.holds(&closed) && !kept.holds(&taken)).await;
        assert!(kept.holds(&waiting), "the bytes of the others are left as they are");
        for number in 60..66 {
            let slot = kept.create(number).await;
            assert!(slot >= UNIT.0, "slot {slot} lies in what has rotted");
        }
        assert!(numbers(&*kept.store, &owner(2), 0).await.is_err(), "whoever has keys in it is told");
        assert_eq!(numbers(&*kept.store, &owner(58), 0).await, Ok(vec![1, 2, 3]));
        assert!(!kept.store.health().has_failed);
        kept.store.close().await;
    }
}

/// A sector that cannot be read ends no process, and none of those whose keys lie elsewhere has to wait.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_disk_cannot_read_are_kept_until_it_can_and_no_others() {
    let kept = Kept::new(EngineName::Fjall).await;
    let [closed, beside, later] = [0, 57, 58].map(|slot| kept.key(slot));
    let unreadable = kept.path.with_extension("unreadable");
    for copy in 0..2 {
        spoil_copy(&kept.path, copy);
    }
    kept.close(0).await;
    kept.close(57).await;
    until("what lies beside it is forgotten", || !kept.holds(&beside)).await;
    assert!(kept.holds(&closed));
    assert!(kept.create(60).await >= UNIT.0);
    kept.close(58).await;
    until("so is what is deleted later", || !kept.holds(&later)).await;
    assert!(!kept.store.health().has_failed);
    std::fs::remove_dir_all(&unreadable).unwrap();
    until("it is tried again", || !kept.holds(&closed)).await;
    assert_eq!(numbers(&*kept.store, &owner(2), 0).await, Ok(vec![1, 2, 3]), "nobody else lost anything");
    kept.store.close().await;
}

/// Of two copies one is enough, and both are overwritten, whichever it is: also for who was added last, and nobody else's are.
#[tokio::test(flavor = "multi_thread")]
async fn one_copy_of_keys_is_enough_where_the_other_cannot_be_read() {
    for copy in 0..2 {
        for is_changed in [false, true] {
            let kept = Kept::new(EngineName::Fjall).await;
            if is_changed {
                let first = kept.key(5);
                kept.close(5).await;
                until("both copies are written", || !kept.holds(&first)).await;
            }
            let [closed, taken] = [0, 1].map(|slot| kept.key(slot));
            spoil_copy(&kept.path, copy);
            for slot in [2, LAST] {
                assert_eq!(numbers(&*kept.store, &owner(slot), 0).await, Ok(vec![1, 2, 3]), "{slot}");
            }
            kept.close(0).await;
            done(&*kept.store, owner(1).ack(2, &[]), "taken").await.unwrap();
            until("it is forgotten in both", || !kept.holds(&closed) && !kept.holds(&taken)).await;
            assert!(kept.create(60).await >= UNIT.0, "what is new is not put at risk");
            assert_eq!(numbers(&*kept.store, &owner(1), 0).await, Ok(vec![3]));
            place(&*kept.store, owner(LAST).append(envelope(4, 1024))).await.unwrap();
            std::fs::remove_dir_all(page(&kept.path, copy)).unwrap();
            assert_eq!(numbers(&*kept.store, &owner(LAST), 0).await, Ok(vec![1, 2, 3, 4]));
            assert!(!kept.store.health().has_failed);
            kept.store.close().await;
        }
    }
}

/// Leaves the first unit as programs of before did: who was added last is in one copy only. Returns which.
fn leave_as_before(path: &Path) -> u64 {
    let file = std::fs::File::options().read(true).write(true).open(path.join(KEYS)).unwrap();
    let mut copies = [0, UNIT.1].map(|at| {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    });
    let counts = [0, 1].map(|copy: usize| u64::from_le_bytes(copies[copy][..8].try_into().unwrap()));
    let newer = usize::from(counts[1] > counts[0]);
    copies[1 - newer][8 + LAST as usize * 72..][..72].fill(0);
    for (bytes, at) in copies.iter_mut().zip([0, UNIT.1]) {
        bytes[8 + 56 * 72..][..8].fill(0);
        let sum = xxh3_128(&bytes[..4080]).to_le_bytes();
        bytes[4080..].copy_from_slice(&sum);
        file.write_all_at(bytes, at).unwrap();
    }
    newer as u64
}

/// Nobody's envelopes are passed over, and nobody's keys are lost, because those of others in the same part of the file are forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_only_an_unreadable_copy_has_are_neither_overwritten_nor_taken_for_forgotten() {
    let kept = Kept::new(EngineName::Fjall).await;
    let [closed, taken] = [0, 1].map(|slot| kept.key(slot));
    let newer = leave_as_before(&kept.path);
    spoil_copy(&kept.path, newer);
    assert_eq!(numbers(&*kept.store, &owner(2), 0).await, Ok(vec![1, 2, 3]));
    assert!(numbers(&*kept.store, &owner(LAST), 0).await.is_err(), "not: there is nothing");
    kept.close(0).await;
    done(&*kept.store, owner(1).ack(2, &[]), "taken").await.unwrap();
    let bytes = |copy: u64| {
        let bytes = std::fs::read(kept.path.join(KEYS)).unwrap();
        let at = usize::try_from(copy * UNIT.1).unwrap();
        bytes[at..at + 4096].to_vec()
    };
    let holds = |copy: u64, key: &[u8; 32]| !holders(&[(String::new(), bytes(copy))], key).is_empty();
    let before = bytes(newer);
    until("it is forgotten where it can be", || !holds(1 - newer, &closed) && !holds(1 - newer, &taken))
        .await;
    assert!(numbers(&*kept.store, &owner(LAST), 0).await.is_err(), "not: there is nothing");
    assert!(bytes(newer) == before, "of what cannot be read nothing is overwritten");
    assert!(!kept.store.health().has_failed);
    std::fs::remove_dir_all(page(&kept.path, newer)).unwrap();
    until("it is tried again", || !kept.holds(&closed) && !kept.holds(&taken)).await;
    for slot in [2, LAST] {
        assert_eq!(numbers(&*kept.store, &owner(slot), 0).await, Ok(vec![1, 2, 3]), "{slot}");
    }
    assert_eq!(numbers(&*kept.store, &owner(1), 0).await, Ok(vec![3]));
    kept.store.close().await;
}

/// Each look may take a disk tens of seconds, and the writer waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_cannot_read_is_seldom_tried() {
    let kept = Kept::new(EngineName::Fjall).await;
    let [beside, later] = [57, 58].map(|slot| kept.key(slot));
    let begun = tokio::time::Instant::now();
    for copy in 0..2 {
        spoil_copy(&kept.path, copy);
    }
    kept.close(0).await;
    done(&*kept.store, owner(1).ack(2, &[]), "taken").await.unwrap();
    for slot in 2..12 {
        assert!(numbers(&*kept.store, &owner(slot), 0).await.is_err());
    }
    for number in 60..64 {
        assert!(kept.create(number).await >= UNIT.0);
    }
    for (slot, key) in [(57, &beside), (58, &later)] {
        kept.close(slot).await;
        until("what is elsewhere is forgotten", || !kept.holds(key)).await;
    }
    // Of a look at both copies one fails at the first, and then one at each. Readers and the writer may look at once.
    let times = 1 + usize::try_from(begun.elapsed().as_millis() / REMEMBERED.as_millis()).unwrap();
    let all = [0, 1].map(|copy| tries(&kept.path, copy));
    assert!(all[0] > 0 && all[0] <= 4 * times && all[1] <= 2 * times, "{all:?} tries in {times} times");
    kept.store.close().await;
}

/// Where fresh slots are to be taken a part of the file may be bad: the next one is taken, and behind all of them if many are.
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_slot_is_found_beside_what_cannot_be_read() {
    const UNITS: u32 = 20;
    for (bad, slot) in [(0, 0), (3, 3 * UNIT.0), (12, UNITS * UNIT.0)] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { forget_after: SOON, ..StoreOptions::at(dir.path().join("store")) };
        create_folder(&options.path).unwrap();
        let state = Writes::from([(key::SLOTS.to_vec(), Some(Slots { used: 0, free: 0 }.encode()))]);
        Fjall::open(&options.path, options.memory / 2).unwrap().write(&Writes::new(), &state).unwrap();
        let mut rng = rand::rng();
        let slots = (0..UNITS).map(|unit| (Slot(unit * UNIT.0), Chain::random(&mut rng)));
        KeyFile::open(&options.path).unwrap().add(&slots.collect()).unwrap();
        for copy in 0..2 * bad {
            spoil_copy(&options.path, copy);
        }
        let store = EngineName::Fjall.open(&options).unwrap();
        let owner = Owner::new(1);
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        assert_eq!(store.mailbox(owner.id()).await.unwrap().unwrap().slot, Slot(slot));
        place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
        assert_eq!(numbers(&*store, &owner, 0).await, Ok(vec![1]));
        store.close().await;
    }
}

/// A store of a backup begins with keys that nobody ever changed.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_store_from_a_backup_one_copy_of_keys_is_enough() {
    let kept = Kept::new(EngineName::Fjall).await;
    let rows = backed_up(&*kept.store);
    kept.store.close().await;
    let mut rows = rows.into_iter();
    let second = StoreOptions::at(kept.path.with_extension("second"));
    EngineName::Fjall.fill(&second, &mut || Ok(rows.next())).unwrap();
    for copy in 0..2 {
        spoil_copy(&second.path, copy);
        let store = EngineName::Fjall.open(&second).unwrap();
        for slot in [2, LAST] {
            assert_eq!(numbers(&*store, &owner(slot), 0).await, Ok(vec![1, 2, 3]), "{slot} {copy}");
        }
        store.close().await;
        std::fs::remove_dir_all(page(&second.path, copy)).unwrap();
    }
}
