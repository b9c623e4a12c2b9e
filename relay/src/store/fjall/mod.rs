//! The default engine: `fjall`.
//!
//! Why these settings (measured; `docs/performance.md`): one batch per flush with `SyncData` reaches nearly the rate
//! of the disk, two keyspaces only (upstream issue 257), no compression (ciphertext does not compress), memtables of
//! 64 MiB (smaller ones halve the rate).

mod journal;

use std::path::Path;

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable,
    Snapshot, config::CompressionPolicy,
};

use super::{
    StoreError,
    engine::{self, Engine},
    group::GroupCommit,
    record::{VERSION, key},
    tables::{Entry, Scan, Space, Tables, Visit, Writes},
};

const MEMTABLE: u64 = 64 << 20;
const CACHE: u64 = 64 << 20;
/// Journals on disk before memtables are flushed to make room. Below 64 MiB the engine panics.
const JOURNALS: u64 = 256 << 20;
/// Where the engine keeps what is no journal.
const KEYSPACES: &str = "keyspaces";
/// What the folder of the other engine has.
const FOREIGN: &str = "conf";

/// The default store on disk.
pub type FjallStore = GroupCommit<Fjall>;

/// The engine.
#[derive(Clone)]
pub struct Fjall {
    db: Database,
    bulk: Keyspace,
    state: Keyspace,
}

impl std::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fjall(..)")
    }
}

impl Engine for Fjall {
    type View = View;
    type Direct<'a> = Direct<'a>;
    type Group = OwnedWriteBatch;

    const WRITERS: usize = 2;

    fn open(path: &Path) -> Result<Self, StoreError> {
        if path.join(FOREIGN).exists() {
            return Err(StoreError::Engine);
        }
        let db = match database(path) {
            // What was being written when the power failed.
            Err(fjall::Error::JournalRecovery(_)) if journal::drop_torn_end(path)? => {
                tracing::warn!("the power failed during a commit; what was being written then is dropped");
                database(path)
            }
            opened => opened,
        };
        let db = db.map_err(error)?;
        let bulk = db.keyspace("bulk", options).map_err(error)?;
        let state = db.keyspace("state", options).map_err(error)?;
        // The engine makes a folder for each keyspace and leaves its name to the next flush of somebody else: found by the
        // power-cut model, which showed a store without them.
        engine::sync_folder(&path.join(KEYSPACES))?;
        match state.get(key::VERSION).map_err(error)? {
            Some(found) if *found == *VERSION => {}
            Some(_) => return Err(StoreError::Version),
            None => {
                let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
                batch.insert(&state, key::VERSION, VERSION);
                batch.commit().map_err(error)?;
            }
        }
        Ok(Self { db, bulk, state })
    }

    fn view(&self) -> View {
        View { snapshot: self.db.snapshot(), bulk: self.bulk.clone(), state: self.state.clone() }
    }

    fn direct(&self) -> Direct<'_> {
        Direct(self)
    }

    fn prepare(&self, bulk: &Writes, state: &Writes) -> OwnedWriteBatch {
        let count = bulk.len() + state.len();
        let batch = OwnedWriteBatch::with_capacity(self.db.clone(), count);
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        for (keyspace, writes) in [(&self.bulk, bulk), (&self.state, state)] {
            for (key, value) in writes {
                match value {
                    Some(value) => batch.insert(keyspace, key.as_slice(), value.as_slice()),
                    None => batch.remove(keyspace, key.as_slice()),
                }
            }
        }
        batch
    }

    fn commit(&self, group: OwnedWriteBatch) -> Result<(), StoreError> {
        group.commit().map_err(error)
    }
}

fn database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(CACHE)
        .max_journaling_size(JOURNALS)
        .journal_compression(CompressionType::None)
        .worker_threads(2)
        .open()
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE)
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
}

fn error(failure: fjall::Error) -> StoreError {
    match failure {
        fjall::Error::Locked => StoreError::Locked,
        fjall::Error::InvalidVersion(_) => StoreError::Version,
        fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable => StoreError::Damaged,
        fjall::Error::Io(error) => engine::io(&error),
        _ => StoreError::Disk,
    }
}

/// What is on disk at one moment.
pub struct View {
    snapshot: Snapshot,
    bulk: Keyspace,
    state: Keyspace,
}

impl View {
    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Bulk => &self.bulk,
            Space::State => &self.state,
        }
    }
}

impl Tables for View {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.snapshot.get(self.keyspace(space), key).map_err(error)?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        walk(self.snapshot.range(self.keyspace(space), first..=last), visit)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        greatest(self.snapshot.range(self.keyspace(space), first..=last))
    }
}

/// What is on disk now; consistent for the writer, because nobody else writes.
pub struct Direct<'a>(&'a Fjall);

impl Direct<'_> {
    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Bulk => &self.0.bulk,
            Space::State => &self.0.state,
        }
    }
}

impl Tables for Direct<'_> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.keyspace(space).get(key).map_err(error)?.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        walk(self.keyspace(space).range(first..=last), visit)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        greatest(self.keyspace(space).range(first..=last))
    }
}

fn walk(rows: fjall::Iter, visit: &mut Visit<'_>) -> Result<(), StoreError> {
    for row in rows {
        let (key, value) = row.into_inner().map_err(error)?;
        if visit(&key, &value)? == Scan::Stop {
            break;
        }
    }
    Ok(())
}

fn greatest(mut rows: fjall::Iter) -> Result<Option<Entry>, StoreError> {
    let Some(row) = rows.next_back() else { return Ok(None) };
    let (key, value) = row.into_inner().map_err(error)?;
    Ok(Some((key.to_vec(), value.to_vec())))
}
