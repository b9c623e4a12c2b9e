//! What a store promises when the disk has spoilt a part of its files of keys, or cannot read it any more.

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    forgetting::{holders, until},
    *,
};
use crate::store::{
    EngineName, KeptStore, StoreOptions,
    keys::{KEYS, KeyFile, Slot},
};

/// Slots of a unit of the file, and bytes of one of its two copies.
const UNIT: (u32, u64) = (56, 4096);

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
        let options = StoreOptions { forget_after: Duration::from_millis(20), ..StoreOptions::at(&path) };
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
        std::fs::create_dir_all(unreadable.join(format!("{KEYS}.{copy}"))).unwrap();
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

/// Of two copies one is enough, and both are overwritten, whichever it is.
#[tokio::test(flavor = "multi_thread")]
async fn one_copy_of_keys_is_enough_where_the_other_cannot_be_read() {
    for copy in 0..2 {
        let kept = Kept::new(EngineName::Fjall).await;
        // Both copies are alike then.
        let first = kept.key(5);
        kept.close(5).await;
        until("both copies are written", || !kept.holds(&first)).await;
        let [closed, taken] = [0, 1].map(|slot| kept.key(slot));
        std::fs::create_dir_all(kept.path.with_extension("unreadable").join(format!("{KEYS}.{copy}")))
            .unwrap();
        assert_eq!(numbers(&*kept.store, &owner(2), 0).await, Ok(vec![1, 2, 3]));
        kept.close(0).await;
        done(&*kept.store, owner(1).ack(2, &[]), "taken").await.unwrap();
        until("it is forgotten in both", || !kept.holds(&closed) && !kept.holds(&taken)).await;
        assert!(kept.create(60).await >= UNIT.0, "what is new is not put at risk");
        assert_eq!(numbers(&*kept.store, &owner(1), 0).await, Ok(vec![3]));
        assert!(!kept.store.health().has_failed);
        kept.store.close().await;
    }
}
