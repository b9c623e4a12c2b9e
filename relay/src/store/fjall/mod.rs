//! The default engine: `fjall` for the order of keys, and a log of our own for what must be durable (`super::values`).
//!
//! Every group is flushed with the log, once. The index follows without a flush of its own; every 8 MiB it is flushed and
//! the log told (a checkpoint), and what it lost in a crash is read from the log when the store is opened.
//!
//! Why these settings (measured; `docs/performance.md`): two keyspaces only (upstream issue 257), no compression (ciphertext
//! does not compress). One worker, because the first of several does nothing but pass on what it may not do while another
//! merges tables, with a whole processor; and memtables are left here and not there, because what a worker that is alone
//! is asked again and again while it merges would fill its queue, and it would wait for room in it for ever.

mod index;
mod journal;
mod tidy;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode,
    compaction::Leveled, config::CompressionPolicy,
};

use self::views::{Direct, View};
use super::{
    StoreError,
    engine::{self, Engine},
    group::GroupCommit,
    keys::KEYS,
    record::key,
    tables::{Space, Writes},
    values::{Point, Record, Row, Rows, ValueLog},
};

/// So many memtables have the bytes of a segment, but none less than these.
const MEMTABLES: u64 = 4;
const LEAST_MEMTABLE: u64 = 64 << 10;
/// What a memtable needs for a row beside its bytes.
const ROW: u64 = 64;
/// New tables that are merged at a time into the first level, which has so many of the size below. Twice the engine's
/// defaults: with 10 GiB stored every row is written half as often.
const FRESH: u8 = 8;
const TABLE: u64 = 128 << 20;
/// What merging may write before what was merged is deleted: the new tables and the first level, or as much of the next.
const LARGEST_MERGE: u64 = 1536 << 20;
/// Memtables of a space that wait for the worker at which the writer waits too. The engine would itself, at four, and for ever if the
/// worker ends meanwhile: then nobody takes them.
const SEALED: usize = 3;
/// New tables that are not merged at which it waits as well. The engine would at thirty runs of them.
const UNMERGED: usize = 28;
/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);
/// Journals on disk before memtables are flushed to make room. Below 64 MiB the engine panics.
const JOURNALS: u64 = 256 << 20;
/// Bytes of the log after which another segment of it is begun. Large, because every segment is an open file.
const SEGMENT: u32 = 256 << 20;
/// So many times in a segment the index is flushed: bounds what is read again when the store is opened.
const CHECKPOINTS: u64 = 32;
/// Where the engine keeps what is no journal.
pub(super) const KEYSPACES: &str = "keyspaces";
/// Its other files, but for journals.
const BEGUN: [&str; 2] = ["version", "lock"];
/// Written at creation, compared at opening: 6 came with the log, 7 with another sum in the file of keys, 8 with a count of what was taken,
/// 9 with other tries of anchors and what tickets hold in blobs.
pub(super) const VERSION: &[u8] = b"lapwing-relay store 9";
/// Of the format before, which is read too.
const BEFORE: &[u8] = b"lapwing-relay store 8";
/// Serial of the last group that the index has.
const SERIAL: &[u8] = b"p";

/// The default store on disk.
pub type FjallStore = GroupCommit<Fjall>;

/// The engine.
#[derive(Clone)]
pub struct Fjall {
    db: Database,
    bulk: Keyspace,
    state: Keyspace,
    log: Arc<ValueLog>,
    books: Arc<Mutex<Books>>,
    bounds: Bounds,
    /// Bytes, as of the last checkpoint.
    needed_for_merging: Arc<AtomicU64>,
}

/// What follows from the bytes of a segment.
#[derive(Clone, Copy)]
struct Bounds {
    /// Bytes of the log between two checkpoints.
    distance: u64,
    /// Bytes of rows in a table in memory, after which another is begun.
    memtable: u64,
}

impl Bounds {
    fn of(segment: u32) -> Self {
        let segment = u64::from(segment);
        Self { distance: segment / CHECKPOINTS, memtable: (segment / MEMTABLES).max(LEAST_MEMTABLE) }
    }
}

/// What is known of the log beside it.
#[derive(Default)]
struct Books {
    /// Bytes of each segment that are needed.
    needed: BTreeMap<u32, u64>,
    /// Bytes of the log since the last checkpoint.
    since: u64,
    /// The last group that the index has.
    settled: Option<Point>,
    /// Whether a checkpoint has left keys behind that are not needed.
    has_keys: bool,
    walk: Option<tidy::Walk>,
    /// Segments of which something could not be read.
    unreadable: BTreeSet<u32>,
    /// Bytes of the rows in the memtables: of the bulk space, of the state space.
    in_memory: [u64; 2],
}

impl std::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fjall(..)")
    }
}

impl Engine for Fjall {
    type View = View;
    type Direct<'a> = Direct<'a>;
    type Group = Record;

    const WRITERS: usize = 2;

    fn open(path: &Path, cache: u64) -> Result<Self, StoreError> {
        Self::open_with(path, segment(), cache)
    }

    fn view(&self) -> View {
        View::of(self)
    }

    fn direct(&self) -> Direct<'_> {
        Direct::of(self)
    }

    fn prepare(&self, bulk: &Writes, state: &Writes) -> Result<Record, StoreError> {
        let mut draft = self.log.draft()?;
        for (key, value) in bulk {
            let value = value.as_ref().map(|value| index::encode(&mut draft, key, value)).transpose()?;
            draft.row(Row { space: Space::Bulk, key, value: value.as_deref() })?;
        }
        for (key, value) in state {
            draft.row(Row { space: Space::State, key, value: value.as_deref() })?;
        }
        self.log.finish(draft)
    }

    fn commit(&self, group: &Record) -> Result<(), StoreError> {
        self.log.write(group)
    }

    fn settle(&self, group: Record) -> Result<(), StoreError> {
        let mut books = self.books();
        self.apply(&mut books, &group.rows, group.serial, false)?;
        books.since = books.since.saturating_add(group.length());
        books.settled = Some(Point { place: group.end()?, serial: group.serial });
        self.log.give_back(group);
        if books.since >= self.bounds.distance {
            self.checkpoint(&mut books)?;
        }
        Ok(())
    }

    fn needs(&self) -> u64 {
        self.needed_for_merging.load(Ordering::Relaxed)
    }

    fn rest(&self) -> Result<(), StoreError> {
        let mut books = self.books();
        if books.since == 0 && !books.has_keys {
            return Ok(());
        }
        self.forget(&mut books)
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.tidy_a_step(&mut self.books())
    }
}

impl Fjall {
    /// With segments of so many bytes.
    fn open_with(path: &Path, segment: u32, cache: u64) -> Result<Self, StoreError> {
        if path.join(engine::SLED_HAS).exists() {
            return Err(StoreError::Engine);
        }
        let db = match database(path, cache) {
            // What was being written when the power failed.
            Err(fjall::Error::JournalRecovery(_))
                if journal::drop_torn_end(path, ValueLog::durable_serial(path)?)? =>
            {
                database(path, cache)
            }
            // It was being made when the power failed.
            Err(failure) if !matches!(failure, fjall::Error::Locked) && !was_made(path) => {
                remove_beginnings(path)?;
                database(path, cache)
            }
            opened => opened,
        };
        let db = db.map_err(error)?;
        let bulk = db.keyspace("bulk", options).map_err(error)?;
        let state = db.keyspace("state", options).map_err(error)?;
        // The engine makes a folder for each keyspace and leaves its name to the next flush of somebody else: found by the
        // power-cut model, which showed a store without them.
        engine::sync_folder(&path.join(KEYSPACES))?;
        let bounds = Bounds::of(segment);
        // What a process before this one left in memtables; of which, is not known.
        let there = db.write_buffer_size();
        let books = Arc::new(Mutex::new(Books { in_memory: [there; 2], ..Books::default() }));
        match state.get(key::VERSION).map_err(error)? {
            Some(found) if *found == *VERSION || *found == *BEFORE => {
                let log = Arc::new(ValueLog::open(path, segment)?);
                let opened = Self { db, bulk, state, log, books, bounds, needed_for_merging: Arc::default() };
                opened.bring_up_to_date()?;
                if *found == *BEFORE {
                    let mut batch = opened.db.batch().durability(Some(PersistMode::SyncAll));
                    batch.insert(&opened.state, key::VERSION, VERSION);
                    batch.commit().map_err(error)?;
                }
                Ok(opened)
            }
            Some(_) => Err(StoreError::Version),
            // The version is written last when a store is made, and before anything else is.
            None if path.join(KEYS).exists() || ValueLog::has_records(path)? => Err(StoreError::Damaged),
            None => {
                let log = Arc::new(ValueLog::create(path, segment)?);
                let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
                batch.insert(&state, key::VERSION, VERSION);
                batch.commit().map_err(error)?;
                Ok(Self { db, bulk, state, log, books, bounds, needed_for_merging: Arc::default() })
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the log what the index lost.
    fn bring_up_to_date(&self) -> Result<(), StoreError> {
        let has = match self.state.get(SERIAL).map_err(error)? {
            Some(serial) => u64::from_be_bytes((&*serial).try_into().map_err(|_| StoreError::Damaged)?),
            None => 0,
        };
        // What the log calls durable in the index is not there.
        if has < self.log.point().serial {
            return Err(StoreError::Damaged);
        }
        let mut books = self.books();
        let (first, last) = index::ALL_NEEDED;
        for row in self.bulk.range(first..=last) {
            let (key, value) = row.into_inner().map_err(error)?;
            let (segment, bytes) = index::decode_needed(&key, &value)?;
            books.needed.insert(segment, bytes);
        }
        self.log.replay(&mut |rows, serial| self.apply(&mut books, rows, serial, true))?;
        // In any case: what was read may be in the memory of the system only, and the keys of what was written before go.
        books.settled = Some(self.log.end());
        (books.since, books.has_keys) = (0, true);
        self.forget(&mut books)
    }

    /// A checkpoint where nothing is being written, after which nobody reads the rows of what was.
    fn forget(&self, books: &mut Books) -> Result<(), StoreError> {
        self.checkpoint(books)?;
        if let Some(settled) = books.settled {
            self.log.checkpoint_and_forget(settled)?;
            books.has_keys = false;
        }
        Ok(())
    }

    /// Flushes the index, and tells the log.
    fn checkpoint(&self, books: &mut Books) -> Result<(), StoreError> {
        let Some(settled) = books.settled else { return Ok(()) };
        self.db.persist(PersistMode::SyncAll).map_err(error)?;
        self.log.checkpoint(settled)?;
        (books.since, books.has_keys) = (0, true);
        // The one worker merges one space at a time, and no more than there is.
        let tables = self.bulk.disk_space().max(self.state.disk_space());
        self.needed_for_merging.store(tables.min(LARGEST_MERGE), Ordering::Relaxed);
        let Books { needed, .. } = books;
        self.log.drop_segments(&|segment| needed.get(&segment).is_some_and(|bytes| *bytes > 0))
    }

    /// Writes a group's rows to the index, in one. `is_again` where the index may have some of them.
    fn apply(&self, books: &mut Books, rows: &Rows, serial: u64, is_again: bool) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        let mut changed = BTreeMap::new();
        let mut count = |segment: u32, change: &dyn Fn(u64) -> u64| {
            let bytes =
                changed.entry(segment).or_insert_with(|| books.needed.get(&segment).copied().unwrap_or(0));
            *bytes = change(*bytes);
        };
        for row in rows.iter() {
            let Row { space, key, value } = row?;
            let keyspace = self.keyspace(space);
            let [bulk, state] = &mut books.in_memory;
            let bytes = if space == Space::Bulk { bulk } else { state };
            *bytes = bytes.saturating_add(ROW + byte_count(key) + value.map_or(0, byte_count));
            if space == Space::Bulk {
                // An envelope that is stored never replaces another.
                let is_new = value.is_some() && key::is_envelope(key) && !is_again;
                // What is damaged is told to whoever asks for it, not to who replaces it.
                if !is_new
                    && let Some(before) = undamaged(self.bulk.get(key).map_err(error))?
                    && let Ok(Some(body)) = index::body_in(&before)
                {
                    count(body.place.segment, &|bytes| bytes.saturating_sub(body.length.into()));
                }
                if let Some(body) = value.map(index::body_in).transpose()?.flatten() {
                    count(body.place.segment, &|bytes| bytes.saturating_add(body.length.into()));
                }
            }
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        for (segment, bytes) in &changed {
            match bytes {
                0 => batch.remove(&self.bulk, index::needed_key(*segment)),
                bytes => batch.insert(&self.bulk, index::needed_key(*segment), index::encode_needed(*bytes)),
            }
        }
        batch.insert(&self.state, SERIAL, serial.to_be_bytes());
        self.await_worker()?;
        batch.commit().map_err(error)?;
        books.needed.extend(changed);
        self.leave_full_memtables(books)
    }

    /// Begins other memtables in the place of full ones, which the engine's worker writes to tables.
    fn leave_full_memtables(&self, books: &mut Books) -> Result<(), StoreError> {
        for (keyspace, bytes) in [&self.bulk, &self.state].into_iter().zip(&mut books.in_memory) {
            if *bytes >= self.bounds.memtable {
                keyspace.rotate_memtable().map_err(error)?;
                *bytes = 0;
            }
        }
        Ok(())
    }

    /// Waits until the worker has not too much left to do, or has ended by a failure.
    fn await_worker(&self) -> Result<(), StoreError> {
        for keyspace in [&self.bulk, &self.state] {
            while keyspace.tree.sealed_memtable_count() >= SEALED || keyspace.tree.l0_run_count() >= UNMERGED
            {
                // Fails if the worker did.
                self.db.persist(PersistMode::Buffer).map_err(error)?;
                // It is asked to merge once for each memtable, and that may have gone to lower levels.
                if self.db.outstanding_flushes() == 0 && keyspace.tree.sealed_memtable_count() == 0 {
                    let done = keyspace.tree.compact(merging(), 0);
                    done.map_err(|failure| error(failure.into()))?;
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Bulk => &self.bulk,
            Space::State => &self.state,
        }
    }
}

/// Bytes that a store in a folder keeps free beside its reserve: what merging its index may write for a time. 0 for other engines.
/// Asks the file system, so that an operator learns of it whatever the store does.
pub fn kept_for_merging(store: &Path) -> u64 {
    let Ok(keyspaces) = std::fs::read_dir(store.join(KEYSPACES)) else { return 0 };
    let tables = keyspaces.flatten().map(|keyspace| engine::folder_bytes(&keyspace.path()).unwrap_or(0));
    tables.max().unwrap_or(0).min(LARGEST_MERGE)
}

/// Whether a store was ever whole in a folder: the engine and the log come before the keys, and the keys before the first
/// change.
fn was_made(path: &Path) -> bool {
    path.join(KEYS).exists() || ValueLog::is_in(path)
}

/// Removes what the engine and the log had begun. Every other file stays.
fn remove_beginnings(path: &Path) -> Result<(), StoreError> {
    let remove = || {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if entry.file_type()?.is_dir() {
                if name == KEYSPACES {
                    std::fs::remove_dir_all(entry.path())?;
                }
            } else if name.ends_with(".jnl") || BEGUN.contains(&name) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().map_err(|error: std::io::Error| engine::io(&error))?;
    engine::sync_folder(path)
}

fn segment() -> u32 {
    // Tests of crashes see many segments.
    #[cfg(test)]
    if let Ok(bytes) = std::env::var(TEST_SEGMENT) {
        return bytes.parse().unwrap();
    }
    SEGMENT
}

/// Bytes of a segment in tests.
#[cfg(test)]
pub(in crate::store) const TEST_SEGMENT: &str = "LAPWING_SEGMENT";

fn database(path: &Path, cache: u64) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(cache)
        .max_journaling_size(JOURNALS)
        .journal_compression(CompressionType::None)
        .worker_threads(1)
        .open()
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(u64::MAX)
        .compaction_strategy(merging())
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
}

fn merging() -> Arc<Leveled> {
    Arc::new(Leveled::default().with_l0_threshold(FRESH).with_table_target_size(TABLE))
}

fn byte_count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Nothing, where what is there is damaged.
fn undamaged<V>(found: Result<Option<V>, StoreError>) -> Result<Option<V>, StoreError> {
    if let Err(StoreError::Damaged) = found { Ok(None) } else { found }
}

fn error(failure: fjall::Error) -> StoreError {
    use fjall::LsmError as Table;
    match failure {
        fjall::Error::Locked => StoreError::Locked,
        fjall::Error::InvalidVersion(_) | fjall::Error::Storage(Table::InvalidVersion(_)) => StoreError::Version,
        fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable
        // A block with a wrong sum is no disk that refuses: what lies in others can be read and changed.
        | fjall::Error::Storage(
            Table::ChecksumMismatch { .. }
            | Table::InvalidTag(_)
            | Table::InvalidTrailer
            | Table::InvalidHeader(_)
            | Table::Unrecoverable
            | Table::Utf8(_)
            | Table::Decompress(_),
        ) => StoreError::Damaged,
        fjall::Error::Io(error) | fjall::Error::Storage(Table::Io(error)) => engine::io(&error),
        _ => StoreError::Disk,
    }
}

#[cfg(test)]
mod tests;
