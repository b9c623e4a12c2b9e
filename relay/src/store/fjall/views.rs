//! How the store looks: keys from the index, bodies from the log.

use std::sync::Arc;

use fjall::{Keyspace, Readable, Snapshot};

use super::{
    super::{
        StoreError,
        tables::{Entry, Rest, Scan, Space, Tables, Value, Visit},
        values::{Body, Files, ValueLog},
    },
    Fjall, error,
    index::{self, Indexed},
};

/// What is on disk at one moment.
pub(crate) struct View {
    snapshot: Snapshot,
    bulk: Keyspace,
    state: Keyspace,
    bodies: Bodies,
}

/// Where bodies are read.
struct Bodies {
    log: Arc<ValueLog>,
    /// From before what names the bodies was read, and from after it: what it names lies in one of them.
    files: [Arc<Files>; 2],
}

/// A body that has not been read yet.
struct Unread<'a> {
    bodies: &'a Bodies,
    body: Body,
}

impl Rest for Unread<'_> {
    fn length(&self) -> usize {
        usize::try_from(self.body.length).unwrap_or(usize::MAX)
    }

    fn append_to(&self, head: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let [before, after] = &self.bodies.files;
        let segment = self.body.place.segment;
        self.bodies.log.read(if before.contains_key(&segment) { before } else { after }, self.body, head)
    }
}

impl Bodies {
    fn of(engine: &Fjall) -> Self {
        let files = engine.log.files();
        Self { log: Arc::clone(&engine.log), files: [Arc::clone(&files), files] }
    }

    /// A value of the index as a visitor meets it.
    fn with<R>(
        &self,
        space: Space,
        indexed: &[u8],
        see: impl FnOnce(&Value<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        if space == Space::State {
            return see(&Value::Whole(indexed));
        }
        match index::decode(indexed)? {
            Indexed::Whole(value) => see(&Value::Whole(value)),
            Indexed::Apart { head, body } => {
                see(&Value::Apart { head, rest: &Unread { bodies: self, body } })
            }
        }
    }

    fn whole(&self, space: Space, indexed: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.with(space, indexed, |value| value.whole().map(std::borrow::Cow::into_owned))
    }

    fn walk(&self, space: Space, rows: fjall::Iter, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for row in rows {
            let (key, value) = row.into_inner().map_err(error)?;
            if self.with(space, &value, |value| visit(&key, value))? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn greatest(&self, space: Space, mut rows: fjall::Iter) -> Result<Option<Entry>, StoreError> {
        let Some(row) = rows.next_back() else { return Ok(None) };
        let (key, value) = row.into_inner().map_err(error)?;
        Ok(Some((key.to_vec(), self.whole(space, &value)?)))
    }
}

impl View {
    pub(super) fn of(engine: &Fjall) -> Self {
        let mut bodies = Bodies::of(engine);
        let Fjall { db, bulk, state, log, books: _, bounds: _, needed_for_merging: _ } = engine;
        let snapshot = db.snapshot();
        let [_, after] = &mut bodies.files;
        *after = log.files();
        Self { snapshot, bulk: bulk.clone(), state: state.clone(), bodies }
    }

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
        found.map(|value| self.bodies.whole(space, &value)).transpose()
    }

    fn has(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        self.snapshot.contains_key(self.keyspace(space), key).map_err(error)
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.bodies.walk(space, self.snapshot.range(self.keyspace(space), first..=last), visit)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.bodies.greatest(space, self.snapshot.range(self.keyspace(space), first..=last))
    }
}

/// What is on disk now; consistent for the writer, because nobody else writes.
pub(crate) struct Direct<'a> {
    engine: &'a Fjall,
    bodies: Bodies,
}

impl<'a> Direct<'a> {
    pub(super) fn of(engine: &'a Fjall) -> Self {
        Self { engine, bodies: Bodies::of(engine) }
    }
}

impl Tables for Direct<'_> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.engine.keyspace(space).get(key).map_err(error)?;
        found.map(|value| self.bodies.whole(space, &value)).transpose()
    }

    fn has(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        self.engine.keyspace(space).contains_key(key).map_err(error)
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.bodies.walk(space, self.engine.keyspace(space).range(first..=last), visit)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.bodies.greatest(space, self.engine.keyspace(space).range(first..=last))
    }
}
