//! The other engine: `sled` 0.34, with the flush that it leaves out.
//!
//! Invariant: nothing is answered before this module itself has flushed the files. Sled 0.34.7 calls `sync_file_range`
//! on Linux, which leaves acknowledged data in the disk's cache and never waits for a file's length or name
//! (spacejam/sled issues 1351 and 1452; `docs/decisions/0002-relay-store.md`).
//!
//! Known gaps: many times the live bytes on disk, and memory far beyond the cache: small relays only. While the disk is full,
//! reading may be refused too, until there is room.

mod flush;
mod views;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    flush::Files,
    views::{Direct, Node, View},
};
use super::{
    StoreError,
    engine::{self, Engine},
    fjall::KEYSPACES,
    group::GroupCommit,
    record::key,
    tables::{Space, Writes},
};

/// A page above this is written to a file of its own; the largest values, parts of blobs, stay below it.
pub(super) const SEGMENT: usize = 2 << 20;
/// Written at creation, compared at opening.
pub(super) const VERSION: &[u8] = b"lapwing-relay store 8";
/// Of the format before, which is read too.
const BEFORE: &[u8] = b"lapwing-relay store 7";

/// The other store on disk.
pub type SledStore = GroupCommit<Sled<true>>;

/// The engine. `FLUSHES` is `false` only in the control of the tests, which must lose data.
#[derive(Clone)]
pub struct Sled<const FLUSHES: bool> {
    db: sled::Db,
    files: Arc<Files>,
    /// What is durable, and how to see it while later changes are under way.
    durable: Arc<Mutex<Arc<Node>>>,
}

impl<const FLUSHES: bool> std::fmt::Debug for Sled<FLUSHES> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sled(..)")
    }
}

impl<const FLUSHES: bool> Sled<FLUSHES> {
    fn durable(&self) -> MutexGuard<'_, Arc<Node>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(error)?;
        if FLUSHES { self.files.flush() } else { Ok(()) }
    }
}

impl<const FLUSHES: bool> Engine for Sled<FLUSHES> {
    type View = View;
    type Direct<'a> = Direct<'a>;
    type Group = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    /// Its reads finish what a write left half done, which a full disk refuses: then nothing could be read any more.
    const WRITERS: usize = 1;

    fn open(path: &Path, cache: u64) -> Result<Self, StoreError> {
        if path.join(KEYSPACES).exists() {
            return Err(StoreError::Engine);
        }
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(cache)
            .segment_size(SEGMENT)
            // Only commits flush.
            .flush_every_ms(None)
            .open()
            .map_err(error)?;
        let files = Arc::new(Files::open(path)?);
        let opened = Self { db, files, durable: Arc::new(Mutex::new(Arc::new(Node::default()))) };
        let version = spaced(Space::State, key::VERSION);
        match opened.db.get(&version).map_err(error)? {
            Some(found) if *found == *VERSION => {}
            Some(found) if *found != *BEFORE => return Err(StoreError::Version),
            Some(_) | None => {
                opened.db.insert(version, VERSION).map_err(error)?;
                opened.make_durable()?;
            }
        }
        Ok(opened)
    }

    fn view(&self) -> View {
        View::new(self.db.clone(), Arc::clone(&self.durable()))
    }

    fn direct(&self) -> Direct<'_> {
        Direct::new(&self.db)
    }

    fn prepare(&self, bulk: &Writes, state: &Writes) -> Result<Self::Group, StoreError> {
        let both = [(Space::Bulk, bulk), (Space::State, state)].into_iter();
        let rows = both.flat_map(|(space, writes)| {
            writes.iter().map(move |(key, value)| (spaced(space, key), value.clone()))
        });
        Ok(rows.collect())
    }

    fn commit(&self, group: &Self::Group) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let mut before = views::Before::new();
        for (key, value) in group {
            before.insert(key.clone(), self.db.get(key).map_err(error)?);
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        // Readers see what was before, until it is durable.
        let next = self.durable().extend(before)?;
        self.db.apply_batch(batch).map_err(error)?;
        self.make_durable()?;
        *self.durable() = next;
        Ok(())
    }

    /// A group is shown as soon as it is committed.
    fn settle(&self, _: Self::Group) -> Result<(), StoreError> {
        Ok(())
    }

    fn rest(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// Both spaces lie in one tree, because only a batch of one tree is atomic.
fn spaced(space: Space, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(match space {
        Space::Bulk => b'B',
        Space::State => b'S',
    });
    out.extend_from_slice(key);
    out
}

fn error(failure: sled::Error) -> StoreError {
    match failure {
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => StoreError::Locked,
        sled::Error::Io(error) => engine::io(&error),
        sled::Error::Corruption { .. } => StoreError::Damaged,
        sled::Error::Unsupported(_) => StoreError::Version,
        sled::Error::CollectionNotFound(_) | sled::Error::ReportableBug(_) => StoreError::Disk,
    }
}
