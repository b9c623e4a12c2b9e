mod again;
mod spoilt;

use super::{
    super::{
        Born,
        keys::Slot,
        record::{Day, encode_envelope, encode_part},
        tables::{Scan, Tables},
    },
    *,
};
use lapwing_wire::{
    frame::Seq,
    ids::{BlobHash, RunningHash},
};

const SEGMENT: u32 = 64 << 10;
const CACHE: u64 = 16 << 20;

type Row = (Vec<u8>, Option<Vec<u8>>);

fn envelope(number: u64) -> Row {
    let bytes = vec![u8::try_from(number % 251).unwrap(); 1000];
    let value = encode_envelope(Slot(1), Day::new(1), &RunningHash::START, &bytes);
    (key::envelope(Born::new(7), Seq::new(number)), Some(value))
}

/// Of all sizes, also such as lie in the index.
fn part(number: u64) -> Row {
    let value = encode_part(Slot(2), &vec![9; usize::try_from(number * 37).unwrap()]);
    (key::part(&BlobHash::from_bytes([3; 32]), number), Some(value))
}

fn write(engine: &Fjall, rows: impl Iterator<Item = Row>) {
    let rows: Vec<Row> = rows.collect();
    for rows in rows.chunks(20) {
        engine.write(&rows.iter().cloned().collect(), &Writes::new()).unwrap();
    }
}

fn all(tables: &impl Tables) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    tables
        .scan(Space::Bulk, b"b", b"f", &mut |key, value| {
            assert_eq!(value.length(), value.whole()?.len());
            assert!(value.whole()?.starts_with(value.head()));
            found.insert(key.to_vec(), value.whole()?.into_owned());
            Ok(Scan::More)
        })
        .unwrap();
    for (key, value) in &found {
        assert_eq!(tables.load(Space::Bulk, key).unwrap().as_ref(), Some(value));
        assert!(tables.has(Space::Bulk, key).unwrap());
    }
    found
}

fn segments(path: &Path) -> usize {
    std::fs::read_dir(path.join("values")).unwrap().count() - 1
}

/// What is kept of many: every eighth envelope, and a few parts.
fn thinned(engine: &Fjall) -> BTreeMap<Vec<u8>, Vec<u8>> {
    write(engine, (0..1000).map(envelope));
    write(engine, (0..40).map(part));
    let gone = (0..1000).filter(|number| number % 8 != 0).map(|number| (envelope(number).0, None));
    write(engine, gone);
    // A part that is written twice.
    write(engine, (10..20).map(part));
    let kept = (0..1000).step_by(8).map(envelope).chain((0..40).map(part));
    let kept = kept.map(|(key, value)| (key, value.unwrap())).collect();
    assert_eq!(all(&engine.direct()), kept);
    kept
}

#[test]
fn room_is_given_back_and_nothing_is_lost_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    let kept = thinned(&engine);
    let before = engine.view();
    engine.rest().unwrap();
    let full = segments(dir.path());
    assert!(full > 15);
    let mut steps = 0;
    while engine.tidy().unwrap() {
        steps += 1;
        assert_eq!(all(&engine.direct()), kept, "between two steps");
        assert!(steps < 100);
    }
    let left = segments(dir.path());
    assert!(left * 3 < full, "{left} of {full} segments are left");
    assert!(!engine.tidy().unwrap(), "there is nothing to do twice");
    assert_eq!(all(&before), kept, "who began to read before reads on");
    assert_eq!(all(&engine.view()), kept);
    drop((before, engine));
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    assert_eq!(all(&engine.view()), kept);
    // All of it goes.
    write(&engine, kept.into_keys().map(|key| (key, None)));
    write(&engine, (2000..2001).map(envelope));
    engine.rest().unwrap();
    while engine.tidy().unwrap() {}
    engine.rest().unwrap();
    assert!(segments(dir.path()) <= 3);
}

/// After a crash the index has some of what the log has, and counts what is needed of each segment as if it had not been.
#[test]
fn what_is_needed_is_counted_alike_however_often_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    // So large that not everything lies before the checkpoint.
    let engine = Fjall::open_with(dir.path(), 256 * SEGMENT, CACHE).unwrap();
    let kept = thinned(&engine);
    let needed = engine.books().needed.clone();
    let of = |bytes: &BTreeMap<u32, u64>| bytes.values().filter(|bytes| **bytes > 0).sum::<u64>();
    let bodies = kept.iter().map(|(key, value)| {
        let body = value.len() - if key::is_envelope(key) { 52 } else { 16 };
        if body < 256 { 0 } else { body as u64 }
    });
    assert_eq!(of(&needed), bodies.sum::<u64>());
    // As if the index had lost nothing, and the checkpoint had never been made.
    for _ in 0..2 {
        let mut books = engine.books();
        let mut all = Vec::new();
        let begin = engine.log.point();
        engine
            .log
            .replay(&mut |rows, serial| {
                all.push((rows.clone(), serial));
                Ok(())
            })
            .unwrap();
        assert!(begin.serial > 0 && !all.is_empty(), "some of it");
        for (rows, serial) in all {
            engine.apply(&mut books, &rows, serial, true).unwrap();
        }
        let counted: BTreeMap<_, _> = books.needed.iter().filter(|(_, bytes)| **bytes > 0).collect();
        assert_eq!(counted, needed.iter().filter(|(_, bytes)| **bytes > 0).collect());
    }
    assert_eq!(all(&engine.direct()), kept);
    drop(engine);
    let engine = Fjall::open_with(dir.path(), 256 * SEGMENT, CACHE).unwrap();
    assert_eq!(of(&engine.books().needed), of(&needed));
    assert_eq!(all(&engine.direct()), kept);
}

/// What cannot be read stays where it is, and nothing else does.
#[test]
fn a_damaged_body_is_told_of_and_keeps_its_segment_only() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    let kept = thinned(&engine);
    engine.rest().unwrap();
    let damaged = key::envelope(Born::new(7), Seq::new(200));
    let value = engine.bulk.get(&damaged).unwrap().unwrap();
    let body = index::body_in(&value).unwrap().unwrap();
    engine.log.files()[&body.place.segment].write_all_at(b"x", u64::from(body.place.offset) + 500).unwrap();
    while engine.tidy().unwrap() {}
    assert!(!engine.tidy().unwrap(), "it is not tried again and again");
    assert!(engine.log.files().contains_key(&body.place.segment));
    assert_eq!(engine.direct().load(Space::Bulk, &damaged), Err(StoreError::Damaged));
    for (key, value) in kept.iter().filter(|(key, _)| **key != damaged) {
        assert_eq!(engine.direct().load(Space::Bulk, key).unwrap().as_ref(), Some(value));
    }
}

#[test]
fn an_index_that_lost_what_the_log_calls_durable_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    write(&engine, (0..100).map(envelope));
    engine.rest().unwrap();
    let mut batch = engine.db.batch();
    batch.insert(&engine.state, SERIAL, 1u64.to_be_bytes());
    batch.commit().unwrap();
    engine.db.persist(PersistMode::SyncAll).unwrap();
    drop(engine);
    assert!(matches!(Fjall::open_with(dir.path(), SEGMENT, CACHE), Err(StoreError::Damaged)));
}

/// Full tables in memory are left one after the other, and merged, while others write.
#[test]
fn what_leaves_the_memory_is_in_tables_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    // Each thousand rows fill more than one table in memory, and whoever writes waits when four have not been left.
    let written = 10_000;
    write(&engine, (0..written).map(envelope));
    assert!(engine.bulk.table_count() > 0, "nothing leaves the memory");
    assert_eq!(all(&engine.view()).len() as u64, written);
    engine.rest().unwrap();
    let tables = engine.bulk.disk_space();
    assert!(engine.needs() >= tables && tables > 0, "what merging them may write is told");
    assert!(kept_for_merging(dir.path()) >= tables, "also to who asks from outside");
    assert_eq!(kept_for_merging(&dir.path().join("nothing")), 0);
    drop(engine);
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    assert!(engine.bulk.table_count() > 0);
    let (key, value) = envelope(17);
    assert_eq!(engine.view().load(Space::Bulk, &key).unwrap(), value);
    assert_eq!(all(&engine.view()).len() as u64, written);
}

/// A block of a table that the disk has spoilt is damage of what lies in it. Told as a disk that refuses, it would end the
/// process, and again after each restart as soon as somebody asks for it.
#[test]
fn a_damaged_table_is_damage_and_not_a_disk_that_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    write(&engine, (0..10_000).map(envelope));
    engine.rest().unwrap();
    assert!(engine.bulk.table_count() > 0);
    drop(engine);
    let keyspaces = std::fs::read_dir(dir.path().join(KEYSPACES)).unwrap();
    let tables = keyspaces.flat_map(|space| std::fs::read_dir(space.unwrap().path().join("tables")).unwrap());
    let largest = tables.map(|table| table.unwrap()).max_by_key(|table| table.metadata().unwrap().len());
    let largest = std::fs::OpenOptions::new().write(true).open(largest.unwrap().path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&largest, &[0x5a; 8], 3000).unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    let told: BTreeSet<_> = (0..10_000)
        .filter_map(|number| engine.direct().load(Space::Bulk, &envelope(number).0).err())
        .map(|failure| failure.to_string())
        .collect();
    assert_eq!(told, BTreeSet::from([StoreError::Damaged.to_string()]));
}

/// As when a disk gets full while tables are merged, which takes long, and everybody writes on.
#[test]
fn whoever_waits_for_a_worker_that_ends_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    // As long as this is held, the worker is about to write the first table.
    let held = engine.bulk.tree.get_flush_lock();
    let (tell, told) = std::sync::mpsc::channel();
    let writing = engine.clone();
    std::thread::spawn(move || {
        let mut numbers = 0..u64::MAX;
        let failure = loop {
            let rows: Writes = numbers.by_ref().take(20).map(envelope).collect();
            if let Err(failure) = writing.write(&rows, &Writes::new()) {
                break failure;
            }
        };
        tell.send(failure).ok();
    });
    let begun = tokio::time::Instant::now();
    while engine.bulk.tree.sealed_memtable_count() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "memtables are not left");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Enough for one more.
    std::thread::sleep(Duration::from_secs(2));
    assert!(told.try_recv().is_err(), "it waits");
    for number in ["1", "2"] {
        let tables = dir.path().join(KEYSPACES).join(number).join("tables");
        std::fs::rename(&tables, tables.with_extension("away")).unwrap();
    }
    drop(held);
    assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(StoreError::Disk), "it waits for ever");
}

#[test]
fn a_store_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    engine.state.insert(key::VERSION, b"lapwing-relay store 5").unwrap();
    engine.db.persist(PersistMode::SyncAll).unwrap();
    drop(engine);
    assert!(matches!(Fjall::open_with(dir.path(), SEGMENT, CACHE), Err(StoreError::Version)));
}

#[test]
fn a_store_of_the_version_before_is_read_and_is_of_this_one_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    write(&engine, (0..10).map(envelope));
    engine.state.insert(key::VERSION, BEFORE).unwrap();
    engine.db.persist(PersistMode::SyncAll).unwrap();
    drop(engine);
    for _ in 0..2 {
        let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
        assert_eq!(&*engine.state.get(key::VERSION).unwrap().unwrap(), VERSION);
        assert_eq!(all(&engine.direct()).len(), 10);
    }
}

/// One wrong bit in what the engine's first journal begins with, as long as nothing was flushed to a table.
#[test]
fn a_store_whose_first_journal_is_damaged_is_told_and_nothing_of_its_log_goes() {
    for at in [0usize, 5, 14, 40] {
        let dir = tempfile::tempdir().unwrap();
        let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
        write(&engine, (0..100).map(envelope));
        engine.rest().unwrap();
        drop(engine);
        let values = || -> u64 {
            let files = std::fs::read_dir(dir.path().join("values")).unwrap();
            files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
        };
        let before = values();
        assert!(before > 100_000);
        let journal = dir.path().join("0.jnl");
        let mut bytes = std::fs::read(&journal).unwrap();
        bytes[at] ^= 0x10;
        #[expect(clippy::disallowed_methods, reason = "damages a file")]
        std::fs::write(&journal, bytes).unwrap();
        match Fjall::open_with(dir.path(), SEGMENT, CACHE) {
            Err(failure) => assert_eq!(failure, StoreError::Damaged, "byte {at}"),
            // The number of a batch is in no sum.
            Ok(opened) => assert!(at == 5 && all(&opened.direct()).len() == 100, "byte {at}"),
        }
        assert_eq!(values(), before, "byte {at}: the log was deleted");
    }
}

/// The keys in a file of checkpoints, and whether any file of the store has one of them.
fn log_keys(store: &Path) -> BTreeSet<Vec<u8>> {
    let bytes = std::fs::read(store.join(super::super::LOG_KEYS)).unwrap();
    // The second copy comes with the second checkpoint.
    let keys = [28, 60, 4096 + 28, 4096 + 60].into_iter().filter_map(|at| bytes.get(at..at + 32));
    keys.filter(|key| **key != [0; 32]).map(<[u8]>::to_vec).collect()
}

fn is_anywhere(folder: &Path, keys: &BTreeSet<Vec<u8>>) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_anywhere(&path, keys);
        }
        // The engine may delete a file meanwhile.
        let bytes = std::fs::read(path).unwrap_or_default();
        keys.iter().any(|key| memchr::memmem::find(&bytes, key).is_some())
    })
}

/// What the log said of changes is read by nobody once something was deleted: not what was deleted, nor in which order what came.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_what_the_log_said_go_with_what_is_forgotten() {
    use super::super::{MailboxStore, StoreOptions, conformance};
    let dir = tempfile::tempdir().unwrap();
    let forget_after = std::time::Duration::from_millis(30);
    let options = StoreOptions { forget_after, ..StoreOptions::at(dir.path().join("store")) };
    let store = FjallStore::open(&options).unwrap();
    let before = log_keys(&options.path);
    assert!(!before.is_empty() && is_anywhere(&options.path, &before));
    conformance::check(&store).await.unwrap();
    let begun = tokio::time::Instant::now();
    while is_anywhere(&options.path, &before) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the keys stay");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    store.close().await;
    drop(store);
    // Also after a kill, before which nobody came to it.
    let left = log_keys(&options.path);
    drop(FjallStore::open(&options).unwrap());
    assert!(!is_anywhere(&options.path, &left));
}

/// A journal that is whole but for one bit far from its end: as it was left, it is told, and it is not cut.
#[test]
fn a_damaged_batch_with_others_behind_it_is_told_and_the_journal_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    write(&engine, (0..1000).map(envelope));
    engine.rest().unwrap();
    drop(engine);
    let journal = dir.path().join("0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    // Within the value of a row.
    let at = bytes.windows(3).position(|window| window == [b'e', 0, 0]).unwrap() + 5000;
    bytes[at] ^= 0x10;
    #[expect(clippy::disallowed_methods, reason = "damages a file")]
    std::fs::write(&journal, &bytes).unwrap();
    assert!(matches!(Fjall::open_with(dir.path(), SEGMENT, CACHE), Err(StoreError::Damaged)));
    assert!(std::fs::read(&journal).unwrap() == bytes, "the journal was cut");
}

/// A sector of an old segment that cannot be read: whoever asks for what lies there is told, and the store goes on.
#[test]
fn giving_room_back_goes_on_over_a_body_that_the_disk_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Fjall::open_with(dir.path(), SEGMENT, CACHE).unwrap();
    thinned(&engine);
    engine.rest().unwrap();
    // A file that every read of fails, in the place of the first segment: as a bad sector is, for `read`.
    let unreadable =
        std::fs::OpenOptions::new().write(true).open(dir.path().join("values/0000000001")).unwrap();
    engine.log.change_files(|files| drop(files.insert(1, Arc::new(unreadable))));
    while engine.tidy().expect("the store would take no more changes, again after each restart") {}
}
