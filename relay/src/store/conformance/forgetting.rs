//! What was taken, expired or destroyed cannot be opened with everything that is in the store's folder.

use std::path::Path;

use super::*;
use crate::store::{
    EngineName, KeptStore, StoreOptions,
    keys::{KeyFile, Slot},
};

/// The files of the folder, without the zeros that a journal is made with.
pub(super) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            // The engine may delete a file meanwhile.
            let Ok(mut bytes) = std::fs::read(&path) else { continue };
            let end = bytes.chunks(4096).rposition(|chunk| *chunk != [0; 4096][..chunk.len()]);
            bytes.truncate(end.map_or(0, |last| (last + 1) * 4096));
            found.push((path.file_name().unwrap().to_string_lossy().into_owned(), bytes));
        }
    }
    found
}

/// Which of them hold these bytes.
pub(super) fn holders(files: &[(String, Vec<u8>)], bytes: &[u8]) -> Vec<String> {
    let holds = |file: &&(String, Vec<u8>)| memchr::memmem::find(&file.1, bytes).is_some();
    files.iter().filter(holds).map(|(name, _)| name.clone()).collect()
}

/// What a slot holds and keys that it leads to, up to a number.
fn secrets(keys: &KeyFile, slot: Slot, upto: u64) -> Vec<[u8; 32]> {
    let mut chain = keys.load(slot).unwrap().expect("it has keys");
    let mut all = chain.secrets();
    for number in [1, 2, 150, 255, 256, 290, 300] {
        if number <= upto && chain.advance(number) {
            // The page key opens what comes later, and stays.
            let [key, _, envelope] = chain.secrets()[..] else { panic!("three") };
            all.extend([key, envelope]);
        }
    }
    all
}

async fn slot_of(store: &dyn KeptStore, owner: &Owner) -> Slot {
    store.mailbox(owner.id()).await.unwrap().unwrap().slot
}

pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_expired_or_destroyed_cannot_be_opened_from_the_stores_files() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            forget_after: Duration::from_millis(100),
            ..StoreOptions::at(dir.path().join("store"))
        };
        let store = engine.open(&options).unwrap();
        let keys = KeyFile::open(&options.path).unwrap();
        let canary = |owner: u8, number: u64| {
            let mut rng = StdRng::seed_from_u64(u64::from(owner) << 32 | number);
            let mut bytes = vec![0; 1024];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let [taken, expired, closed, kept] = [1, 2, 3, 4].map(Owner::new);
        for (byte, owner) in [(1, &taken), (2, &expired), (3, &closed), (4, &kept)] {
            let kind = if byte == 2 { MailboxKind::Log } else { MailboxKind::Queue };
            done(&*store, owner.create(kind, Charge::Open), "created").await.unwrap();
            // What is to expire is older.
            let day = if byte == 2 { 1 } else { 5 };
            for number in 1..=300 {
                let outcome = apply(&*store, owner.append(canary(byte, number)), day).await.unwrap();
                assert!(matches!(outcome, Outcome::Stored { is_new: true, .. }));
            }
        }
        let blob = canary(5, 0);
        let hash = BlobHash::of(&blob);
        let put =
            Mutation::BlobPut { hash, total: 1024, offset: 0, bytes: blob.clone(), charge: Charge::Open };
        apply(&*store, put, 1).await.unwrap();
        apply(&*store, Mutation::BlobFinish { hash, genuine: true }, 1).await.unwrap();
        assert_eq!(*store.blob_part(hash, 0).await.unwrap().unwrap().bytes, *blob);
        // The blob's slot is the one after the mailboxes'.
        let blob_slot = Slot(slot_of(&*store, &kept).await.0 + 1);

        let there = files(&options.path);
        for (byte, number) in [(1, 1), (2, 150), (3, 300), (4, 7)] {
            assert_eq!(holders(&there, &canary(byte, number)), Vec::<String>::new(), "sealed at rest");
        }
        assert_eq!(holders(&there, &blob), Vec::<String>::new());
        let slots = [
            (slot_of(&*store, &taken).await, 290),
            (slot_of(&*store, &expired).await, 300),
            (slot_of(&*store, &closed).await, 300),
            (blob_slot, 0),
        ];
        let stolen: Vec<[u8; 32]> =
            slots.iter().flat_map(|(slot, upto)| secrets(&keys, *slot, *upto)).collect();
        assert!(!holders(&there, &stolen[0]).is_empty(), "the search finds a key that is there");

        done(&*store, taken.ack(290, &[]), "taken").await.unwrap();
        done(&*store, Mutation::Close { mailbox: closed.id(), born: closed.born() }, "closed").await.unwrap();
        sweep_only(&*store, 2).await;
        until("keys are forgotten within the time", || {
            slots.iter().all(|(slot, upto)| keys.load(*slot).unwrap().is_none_or(|chain| chain.at() > *upto))
        })
        .await;
        // The second copy is written after the first.
        until("no key is left", || {
            let there = files(&options.path);
            stolen.iter().all(|key| holders(&there, key).is_empty())
        })
        .await;

        for (owner, byte, first) in [(&taken, 1, 291), (&kept, 4, 1)] {
            let query = WindowQuery {
                mailbox: owner.id(),
                born: owner.born(),
                after: Seq::START,
                count: 1000,
                bytes: 1 << 30,
            };
            let window = store.window(query).await.unwrap().unwrap();
            assert_eq!(window.items.len(), 301 - usize::try_from(first).unwrap());
            for (item, number) in window.items.iter().zip(first..) {
                assert_eq!(*item.envelope, *canary(byte, number), "what was not taken is what it was");
            }
        }
        store.close().await;
        drop(store);
        let store = engine.open(&options).unwrap();
        // A slot that is free is used again, with other keys.
        let next = Owner::new(9);
        done(&*store, next.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        assert!([slots[2].0, blob_slot].contains(&slot_of(&*store, &next).await));
        place(&*store, next.append(canary(9, 1))).await.unwrap();
        assert!(secrets(&keys, slot_of(&*store, &next).await, 1).iter().all(|key| !stolen.contains(key)));
        assert_eq!(numbers(&*store, &taken, 0).await.unwrap(), (291..=300).collect::<Vec<_>>());
        store.close().await;
    }
}

/// Expires the log and the blob, and leaves the queue that is kept: it is younger.
async fn sweep_only(store: &dyn KeptStore, keep_from: u32) {
    let mut from = None;
    loop {
        let (keep_from, unfinished_from) = (Day::new(keep_from), Day::new(0));
        match apply(store, Mutation::Sweep { from, keep_from, unfinished_from }, 1).await.unwrap() {
            Outcome::Swept(Some(next)) => from = Some(next),
            _ => return,
        }
    }
}
