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
        let put = Mutation::BlobPut {
            hash,
            total: 1024,
            offset: 0,
            bytes: blob.clone(),
            charge: Charge::Open,
            limit: u64::MAX,
        };
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
        match apply(store, Mutation::Sweep { from, keep_from, blobs_from: keep_from, unfinished_from }, 1)
            .await
            .unwrap()
        {
            Outcome::Swept { next: Some(next), .. } => from = Some(next),
            _ => return,
        }
    }
}

/// A tripwire with a list for its token and one that the relay reads.
pub(super) struct Armed {
    owner: SecretKey<lapwing_wire::capability::TripwireOwner>,
    fires: Token,
    pub(super) renews: Token,
}

impl Armed {
    pub(super) fn new(byte: u8) -> Self {
        Self {
            owner: SecretKey::from_seed([byte; 32]),
            fires: Token::from_bytes([byte; 32]),
            renews: Token::from_bytes([byte ^ 0x80; 32]),
        }
    }

    /// Alerts with these envelopes, by token and by deadline.
    pub(super) fn arm(&self, serial: u64, alerts: &Owner, by_token: &[u8], by_deadline: &[u8]) -> Mutation {
        let mut rng = StdRng::seed_from_u64(serial);
        let tripwire = lapwing_wire::ids::TripwireId::of_owner(&self.owner.public());
        let list_key = ListKey::generate(&mut rng);
        let mut record = |meaning, token: &Token| {
            let status_key = StatusKey::generate(&mut rng);
            TokenRecord::seal(
                token,
                &OpenRecord { tripwire, meaning, list_key: list_key.clone(), status_key },
                &mut rng,
            )
        };
        let records = vec![record(Meaning::Fire, &self.fires), record(Meaning::Renew, &self.renews)];
        let alert = |envelope: &[u8]| vec![Action::append(alerts.id(), envelope.to_vec(), &alerts.write)];
        let alerting = lapwing_wire::tripwire::Deadline { after_s: 600, actions: alert(by_deadline) };
        Mutation::Arm {
            owner: self.owner.public(),
            serial,
            records,
            list: SealedList::seal(&alert(by_token), &tripwire, &list_key, &mut rng).unwrap(),
            causes: Box::new(lapwing_wire::tripwire::Causes {
                alerting: Some(alerting),
                ..Default::default()
            }),
            charge: Charge::Open,
        }
    }
}

/// Whoever has all files and every token, but no copy of the files from before, reads neither what a tripwire did nor what
/// a token meant; also of what was replaced or taken away. That there was a record of it old bytes of the engine may tell.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_tripwire_held_cannot_be_opened_once_it_fired_was_replaced_or_taken_away() {
    for engine in [EngineName::Fjall, EngineName::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            forget_after: Duration::from_millis(100),
            ..StoreOptions::at(dir.path().join("store"))
        };
        let store = engine.open(&options).unwrap();
        let keys = KeyFile::open(&options.path).unwrap();
        let canary = |number: u64| {
            let mut bytes = vec![0; 1024];
            StdRng::seed_from_u64(number).fill_bytes(&mut bytes);
            bytes
        };
        let alerts = Owner::new(1);
        done(&*store, alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        let [fired, replaced, removed, kept] = [2, 3, 4, 5].map(Armed::new);
        let mut sealed = Vec::new();
        for (number, armed) in (0..).zip([&fired, &replaced, &removed, &kept]) {
            let arm = armed.arm(1, &alerts, &canary(10 + number), &canary(20 + number));
            let Mutation::Arm { records, list, .. } = &arm else { panic!("an arm") };
            sealed.extend(records.iter().map(|record| record.sealed[..64].to_vec()));
            sealed.push(list.as_bytes()[..64].to_vec());
            sealed.push(canary(20 + number));
            done(&*store, arm, "armed").await.unwrap();
        }
        let there = files(&options.path);
        for bytes in &sealed {
            assert_eq!(holders(&there, bytes), Vec::<String>::new(), "sealed at rest");
        }
        // Each tripwire has two records and two lists, in the slots after the mailbox's.
        let stolen = |tripwire: u32| -> Vec<[u8; 32]> {
            (1 + 4 * tripwire..5 + 4 * tripwire).flat_map(|slot| secrets(&keys, Slot(slot), 0)).collect()
        };
        let [of_fired, of_replaced, of_removed, of_kept] = [0, 1, 2, 3].map(stolen);
        for key in of_fired.iter().step_by(3).chain(of_kept.iter().step_by(3)) {
            assert!(!holders(&there, key).is_empty(), "the search finds a key that is there");
        }

        let fire = Mutation::Token { token: fired.fires.clone(), filler: [1; 32] };
        let outcome = apply(&*store, fire, 1).await.unwrap();
        assert!(matches!(outcome, Outcome::Token { appended, .. } if appended.len() == 1));
        let arm = replaced.arm(2, &alerts, &canary(31), &canary(32));
        done(&*store, arm, "armed anew").await.unwrap();
        done(&*store, Mutation::Disarm { owner: removed.owner.public() }, "disarmed").await.unwrap();
        // The slots of the fired one: record, record that renews, list, list of the deadline.
        let gone: Vec<[u8; 32]> = of_fired[..3]
            .iter()
            .chain(&of_fired[6..9])
            .chain(&of_replaced)
            .chain(&of_removed)
            .copied()
            .collect();
        until("no key of what fired, was replaced or taken away is left", || {
            let there = files(&options.path);
            gone.iter().all(|key| holders(&there, key).is_empty())
        })
        .await;
        assert!(!holders(&files(&options.path), &of_fired[9]).is_empty(), "its deadline is still to come");

        for minute in 0..12 {
            if minute == 6 {
                // Two of the three that wait are put off.
                for armed in [&replaced, &kept] {
                    assert!(renewed(&*store, &armed.renews).await.unwrap().is_some());
                }
            }
            let watch = Mutation::Watch { elapsed: Duration::from_secs(60), filler: [2; 32] };
            apply(&*store, watch, 1).await.unwrap();
        }
        until("nor of what a deadline set off", || {
            let there = files(&options.path);
            of_fired[9..].iter().all(|key| holders(&there, key).is_empty())
        })
        .await;
        store.close().await;
        drop(store);
        let store = engine.open(&options).unwrap();
        assert_eq!(renewed(&*store, &replaced.renews).await.unwrap(), Some((2, false)));
        assert_eq!(renewed(&*store, &removed.renews).await.unwrap(), None);
        let fire = Mutation::Token { token: kept.fires.clone(), filler: [3; 32] };
        let outcome = apply(&*store, fire, 1).await.unwrap();
        assert!(
            matches!(outcome, Outcome::Token { appended, .. } if appended.len() == 1),
            "what is kept fires"
        );
        assert_eq!(numbers(&*store, &alerts, 0).await.unwrap().len(), 3);
        store.close().await;
    }
}

/// Slots of what a backup leaves out are not lost to the relay that is made of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_from_a_backup_has_no_tripwire_and_uses_its_slots_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| StoreOptions {
        forget_after: Duration::from_millis(50),
        ..StoreOptions::at(dir.path().join(name))
    };
    let store = EngineName::Fjall.open(&at("first")).unwrap();
    let alerts = Owner::new(1);
    done(&*store, alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    let armed = Armed::new(2);
    done(&*store, armed.arm(1, &alerts, &[1; 1024], &[2; 1024]), "armed").await.unwrap();
    place(&*store, alerts.append(envelope(1, 1024))).await.unwrap();
    let rows = backed_up(&*store);
    store.close().await;
    let mut rows = rows.into_iter();
    EngineName::Fjall.fill(&at("second"), &mut || Ok(rows.next())).unwrap();
    let store = EngineName::Fjall.open(&at("second")).unwrap();
    let query =
        WindowQuery { mailbox: alerts.id(), born: alerts.born(), after: Seq::START, count: 9, bytes: 9 };
    let items = store.window(query).await.unwrap().unwrap().items;
    assert!(matches!(items.as_slice(), [item] if *item.envelope == envelope(1, 1024)), "what was kept");
    let files = files(&at("second").path);
    assert!(holders(&files, &envelope(1, 1024)[8..]).is_empty(), "and it is sealed again");
    assert_eq!(renewed(&*store, &armed.renews).await.unwrap(), None);
    let keys = KeyFile::open(&at("second").path).unwrap();
    until("the slots of the tripwire are empty", || {
        (1..=4).all(|slot| keys.load(Slot(slot)).unwrap().is_none())
    })
    .await;
    // The change that frees them comes after that.
    let mut created = 0;
    loop {
        let next = Owner::new(3 + created);
        done(&*store, next.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        if (1..=4).contains(&slot_of(&*store, &next).await.0) {
            break;
        }
        created += 1;
        assert!(created < 100, "freed slots are used again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await;
}
