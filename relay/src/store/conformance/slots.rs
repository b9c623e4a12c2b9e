//! Slots in the files of keys: none is used by two, whatever fails, and those of anchors are used again and leave nothing.

use std::path::Path;

use super::{
    anchors::{Anchored, anchor, unlock},
    faults::Faulty,
    forgetting::{files, holders, until},
    *,
};
use crate::store::{
    AnchorChange, AnchorOutcome, EngineName, KeptStore, StoreOptions,
    engine::Engine,
    fjall::Fjall,
    group::GroupCommit,
    keys::{KeyFile, Slot},
    record::{ANCHOR_SLOTS, FREE_ANCHOR_SLOTS, Slots, free_anchor_key, key},
    tables::Writes,
};

const SOON: Duration = Duration::from_millis(20);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(600);

fn options(folder: &Path, forget_after: Duration) -> StoreOptions {
    StoreOptions { forget_after, ..StoreOptions::at(folder.join("store")) }
}

async fn make(store: &dyn MailboxStore, anchored: &Anchored) -> Result<(), StoreError> {
    let make = Box::new(anchored.create().unwrap());
    let change = AnchorChange::Create { make, charge: Charge::Open };
    let made = apply(store, Mutation::Anchor { change, filler: [8; 32] }, 1).await?;
    assert!(matches!(made, Outcome::Anchor { outcome: AnchorOutcome::Done, .. }), "{made:?}");
    Ok(())
}

async fn remove(store: &dyn MailboxStore, anchored: &Anchored) {
    let removed = anchor(store, AnchorChange::Remove(anchored.owner())).await.unwrap();
    assert!(matches!(removed, AnchorOutcome::Done));
}

/// What an anchor's slot holds; nothing if it is empty.
fn secret(keys: &KeyFile, number: u32) -> Option<[u8; 32]> {
    keys.load(Slot::of_anchor(number).unwrap()).unwrap().map(|chain| chain.secrets()[0])
}

async fn opens(store: &dyn MailboxStore, anchored: &Anchored) -> bool {
    let release = unlock(store, anchored, 0, 1).await.unwrap();
    release.is_some_and(|release| release.outer == anchored.outer)
}

/// ANC-11: a slot is somebody's until what it held is overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn anc_11_a_slot_is_free_when_its_keys_are_overwritten_and_not_before() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let store = engine.open(&options(dir.path(), NEVER)).unwrap();
        let keys = KeyFile::open(&dir.path().join("store")).unwrap();
        let [first, second, third] = [1, 2, 3].map(Anchored::new);
        make(&*store, &first).await.unwrap();
        let of_first = secret(&keys, 0).unwrap();
        remove(&*store, &first).await;
        make(&*store, &second).await.unwrap();
        assert_eq!(secret(&keys, 0), Some(of_first), "its keys are not overwritten yet");
        assert!(secret(&keys, 1).is_some());
        store.close().await;
        drop(store);
        assert_eq!(holders(&files(&dir.path().join("store")), &of_first), Vec::<String>::new());

        let store = engine.open(&options(dir.path(), NEVER)).unwrap();
        make(&*store, &third).await.unwrap();
        let of_third = secret(&keys, 0).expect("it is used again");
        assert!(of_third != of_first, "under new keys");
        assert_eq!((secret(&keys, 1).is_some(), secret(&keys, 2)), (true, None));
        assert!(opens(&*store, &second).await && opens(&*store, &third).await);
        assert!(!opens(&*store, &first).await);
        store.close().await;
    }
}

/// ANC-11: what was sealed for a commit that failed may be in the engine's files. Its keys are not, once the store is open again.
#[tokio::test(flavor = "multi_thread")]
async fn anc_11_slots_of_a_commit_that_failed_hold_no_keys_once_the_store_is_open_again() {
    for is_used_again in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        // A forgetting that the disk refuses would end the store before it makes keys.
        let options = options(dir.path(), if is_used_again { SOON } else { NEVER });
        let refuses = options.path.with_extension("refuses");
        let store = GroupCommit::<Faulty>::open(&options).unwrap();
        let keys = KeyFile::open(&options.path).unwrap();
        let [kept, gone, refused] = [1, 2, 3].map(Anchored::new);
        make(&store, &kept).await.unwrap();
        if is_used_again {
            make(&store, &gone).await.unwrap();
            remove(&store, &gone).await;
            until("its keys are overwritten", || secret(&keys, 1).is_none()).await;
            // Staged when that forgetting has come to its end, which frees the slot; it changes nothing.
            make(&store, &kept).await.unwrap();
        }
        std::fs::create_dir(&refuses).unwrap();
        assert_eq!(make(&store, &refused).await, Err(StoreError::Disk));
        let left = secret(&keys, 1).expect("keys come before the commit");
        store.close().await;
        drop(store);
        std::fs::remove_dir(&refuses).unwrap();
        assert!(!holders(&files(&options.path), &left).is_empty());

        let store = GroupCommit::<Faulty>::open(&options).unwrap();
        assert_eq!(holders(&files(&options.path), &left), Vec::<String>::new());
        make(&store, &refused).await.unwrap();
        assert!(opens(&store, &kept).await && opens(&store, &refused).await);
        store.close().await;
    }
}

/// A disk may say of a forgetting that it failed, and have it. Its slots are free then, once, and the next forgetting leaves alone
/// whose they became.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgetting_that_is_durable_although_it_failed_frees_its_slots_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), Duration::from_millis(200));
    let overflows = options.path.with_extension("overflows");
    let store = GroupCommit::<Faulty>::open(&options).unwrap();
    let keys = KeyFile::open(&options.path).unwrap();
    let [gone, last, one, other] = [1, 2, 3, 4].map(Anchored::new);
    let closing = Owner::new(1);
    make(&store, &gone).await.unwrap();
    make(&store, &last).await.unwrap();
    done(&store, closing.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    done(&store, Mutation::Close { mailbox: closing.id(), born: closing.born() }, "closed").await.unwrap();
    remove(&store, &gone).await;
    until("it is settled", || store.is_settled()).await;
    std::fs::create_dir(&overflows).unwrap();
    until("the disk is full", || store.health().is_full).await;
    assert_eq!(secret(&keys, 0), None, "it was the forgetting that failed");
    std::fs::remove_dir(&overflows).unwrap();

    // The first change opens the engine anew.
    remove(&store, &last).await;
    assert!(!store.health().is_full);
    until("the next forgetting is done", || secret(&keys, 1).is_none()).await;
    let owners = [2, 3].map(Owner::new);
    for (owner, anchored) in owners.iter().zip([&one, &other]) {
        make(&store, anchored).await.unwrap();
        done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        place(&store, owner.append(envelope(1, 1024))).await.unwrap();
    }
    assert!(opens(&store, &one).await && opens(&store, &other).await);
    for owner in &owners {
        assert_eq!(numbers(&store, owner, 0).await.unwrap(), [1]);
    }
    let [first, second] = [
        store.mailbox(owners[0].id()).await.unwrap().unwrap().slot,
        store.mailbox(owners[1].id()).await.unwrap().unwrap().slot,
    ];
    assert_ne!(first, second);
    store.close().await;
}

/// ANC-12: a backup of a store in which anchors are, were a moment ago, and were, is that of a store without any.
#[tokio::test(flavor = "multi_thread")]
async fn anc_12_a_backup_has_nothing_of_free_slots_of_anchors() {
    let dir = tempfile::tempdir().unwrap();
    let owner = Owner::new(1);
    let store = EngineName::Fjall.open(&options(dir.path(), NEVER)).unwrap();
    done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
    let without = backed_up(&*store);
    let all: Vec<Anchored> = (1..=6).map(Anchored::new).collect();
    for anchored in &all {
        make(&*store, anchored).await.unwrap();
    }
    for anchored in &all[..3] {
        remove(&*store, anchored).await;
    }
    store.close().await;
    drop(store);
    let store = EngineName::Fjall.open(&options(dir.path(), NEVER)).unwrap();
    let keys = KeyFile::open(&dir.path().join("store")).unwrap();
    assert_eq!([0, 1, 2].map(|number| secret(&keys, number)), [None; 3], "they are free");
    remove(&*store, &all[3]).await;
    assert!(backed_up(&*store) == without);
    store.close().await;
}

/// A store whose small records are these.
fn stored(folder: &Path, state: Writes) -> StoreOptions {
    let options = options(folder, SOON);
    crate::store::engine::create_folder(&options.path).unwrap();
    let engine = Fjall::open(&options.path, options.memory / 2).unwrap();
    engine.write(&Writes::new(), &state).unwrap();
    options
}

/// A program of before counted the slots of anchors and used none again.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_freed_a_slot_of_an_anchor_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let state = Writes::from([(ANCHOR_SLOTS.to_vec(), Some(3u32.to_be_bytes().to_vec()))]);
    let options = stored(dir.path(), state);
    let store = EngineName::Fjall.open(&options).unwrap();
    let keys = KeyFile::open(&options.path).unwrap();
    let [first, second] = [1, 2].map(Anchored::new);
    make(&*store, &first).await.unwrap();
    assert_eq!([0, 1, 2, 4].map(|number| secret(&keys, number)), [None; 4]);
    assert!(secret(&keys, 3).is_some() && opens(&*store, &first).await);
    remove(&*store, &first).await;
    until("its keys are overwritten", || secret(&keys, 3).is_none()).await;
    store.close().await;
    drop(store);
    let store = EngineName::Fjall.open(&options).unwrap();
    make(&*store, &second).await.unwrap();
    assert!(secret(&keys, 3).is_some() && opens(&*store, &second).await);
    store.close().await;
}

/// Slots that nobody can tell are free are used by nobody, and nobody is held up.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_of_free_slots_keeps_nobody_from_opening_creating_and_forgetting() {
    let anchors = [ANCHOR_SLOTS.to_vec(), FREE_ANCHOR_SLOTS.to_vec(), free_anchor_key(0)];
    for damaged in anchors.into_iter().chain([key::SLOTS.to_vec(), key::free(0)]) {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), SOON);
        let [kept, gone, third] = [1, 2, 3].map(Anchored::new);
        let owners: Vec<Owner> = (1..=5).map(Owner::new).collect();
        let store = EngineName::Fjall.open(&options).unwrap();
        let keys = KeyFile::open(&options.path).unwrap();
        for anchored in [&kept, &gone] {
            make(&*store, anchored).await.unwrap();
        }
        for owner in &owners[..2] {
            done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
            place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
        }
        remove(&*store, &gone).await;
        let close = |owner: &Owner| Mutation::Close { mailbox: owner.id(), born: owner.born() };
        done(&*store, close(&owners[1]), "closed").await.unwrap();
        store.close().await;
        drop(store);
        // The first two bytes of an anchor's slot, and of a number.
        stored(dir.path(), Writes::from([(damaged.clone(), Some(vec![0x80, 0]))]));
        let store = EngineName::Fjall.open(&options).unwrap();
        // A deletion first, then what makes use of slots.
        done(&*store, owners[2].create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        done(&*store, close(&owners[2]), "closed").await.unwrap();
        make(&*store, &third).await.unwrap();
        remove(&*store, &third).await;
        let free = |slot: Slot| keys.load(slot).unwrap().is_none();
        until("all keys of what went are forgotten", || {
            let held = (0..300).filter(|number| !free(Slot(*number))).count();
            let anchors = (0..300).filter(|number| secret(&keys, *number).is_some()).count();
            (held, anchors) == (1, 1)
        })
        .await;
        for anchored in [&gone, &third] {
            make(&*store, anchored).await.unwrap();
        }
        for owner in &owners[3..] {
            done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
            place(&*store, owner.append(envelope(1, 1024))).await.unwrap();
        }
        for anchored in [&kept, &gone, &third] {
            assert!(opens(&*store, anchored).await);
        }
        let mut slots = BTreeSet::new();
        for owner in [&owners[0], &owners[3], &owners[4]] {
            assert_eq!(numbers(&*store, owner, 0).await.unwrap(), [1]);
            slots.insert(store.mailbox(owner.id()).await.unwrap().unwrap().slot);
        }
        assert_eq!(slots.len(), 3, "no slot is two mailboxes'");
        let anchors = (0..300).filter(|number| secret(&keys, *number).is_some()).count();
        assert_eq!(anchors, 3, "nor two anchors'");
        assert!(!store.health().has_failed);
        store.close().await;
    }
}

/// A record that says that there are thousands of millions of free slots holds nobody up for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_stack_of_free_slots_that_is_not_there_is_left_soon() {
    let dir = tempfile::tempdir().unwrap();
    let slots = Slots { used: 7, free: u32::MAX }.encode();
    let options = stored(dir.path(), Writes::from([(key::SLOTS.to_vec(), Some(slots))]));
    let store = EngineName::Fjall.open(&options).unwrap();
    let owner = Owner::new(1);
    let create = async {
        done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(60), create).await.expect("it takes a fresh one");
    assert_eq!(store.mailbox(owner.id()).await.unwrap().unwrap().slot, Slot(7));
    store.close().await;
}

/// Half of the numbers are for anchors. Whoever comes when his half is used up is refused, and nobody else is.
#[tokio::test(flavor = "multi_thread")]
async fn slots_of_mailboxes_end_where_those_of_anchors_begin() {
    let dir = tempfile::tempdir().unwrap();
    let slots = Slots { used: (1 << 31) - 1, free: 0 }.encode();
    let options = stored(dir.path(), Writes::from([(key::SLOTS.to_vec(), Some(slots))]));
    let store = EngineName::Fjall.open(&options).unwrap();
    let [last, more] = [1, 2].map(Owner::new);
    done(&*store, last.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    let refused = apply(&*store, more.create(MailboxKind::Queue, Charge::Open), 1).await;
    assert!(matches!(refused, Err(StoreError::Damaged)), "{refused:?}");
    make(&*store, &Anchored::new(1)).await.unwrap();
    place(&*store, last.append(envelope(1, 1024))).await.unwrap();
    assert_eq!(numbers(&*store, &last, 0).await.unwrap(), [1]);
    let close = Mutation::Close { mailbox: last.id(), born: last.born() };
    done(&*store, close, "closed").await.unwrap();
    store.close().await;
    drop(store);
    let store = EngineName::Fjall.open(&options).unwrap();
    done(&*store, more.create(MailboxKind::Queue, Charge::Open), "created in what is free").await.unwrap();
    store.close().await;
}
