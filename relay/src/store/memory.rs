//! The reference: everything in two ordered maps. Keeps nothing across processes; for tests and simulation.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use lapwing_wire::{
    capability::{Access, PublicKey},
    frame::{BlobPart, Window},
    ids::{BlobHash, MailboxId},
    time::Timestamp,
};

use super::{
    Change, Mailbox, MailboxStore, Outcome, Pressure, StoreError, Ticket, Totals, WindowQuery,
    cache::Cache,
    reads, rules,
    tables::{Batch, Entry, Scan, Space, Staged, Tables, Value, Visit, Writes},
};

/// Mailboxes of a generation of its cache, which saves it nothing.
const GENERATION: usize = 16;

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    maps: Mutex<Maps>,
}

#[derive(Default)]
struct Maps {
    bulk: BTreeMap<Vec<u8>, Vec<u8>>,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    pressure: Pressure,
    is_closed: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Behaves from now on as if the disk were as short of room.
    pub fn set_pressure(&self, pressure: Pressure) {
        self.maps().pressure = pressure;
    }

    /// Changes that come to the disk with one commit.
    #[cfg(test)]
    pub(super) fn apply_together(&self, changes: &[Change]) -> Vec<Outcome> {
        let mut maps = self.maps();
        let mut cache = Cache::new(GENERATION);
        let mut batch = Batch::new(&*maps, &mut cache);
        let outcomes =
            changes.iter().map(|change| rules::stage(&mut batch, change, Pressure::None).unwrap()).collect();
        let Staged { bulk, state, fresh: _, due: _ } = batch.into_staged();
        write(&mut maps.bulk, bulk);
        write(&mut maps.state, state);
        outcomes
    }

    /// Small records of a kind.
    #[cfg(test)]
    pub(super) fn count(&self, kind: u8) -> usize {
        self.maps().state.keys().filter(|key| key.first() == Some(&kind)).count()
    }

    /// What a change would write.
    #[cfg(test)]
    pub(super) fn staged(&self, change: &Change) -> Staged {
        let maps = self.maps();
        let mut cache = Cache::new(GENERATION);
        let mut batch = Batch::new(&*maps, &mut cache);
        rules::stage(&mut batch, change, Pressure::None).unwrap();
        batch.into_staged()
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, Maps>, StoreError> {
        let maps = self.maps();
        if maps.is_closed { Err(StoreError::Closed) } else { Ok(maps) }
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStore(..)")
    }
}

#[async_trait]
impl MailboxStore for MemoryStore {
    async fn apply(&self, change: Change) -> Result<Outcome, StoreError> {
        let mut maps = self.open()?;
        let mut cache = Cache::new(GENERATION);
        let mut batch = Batch::new(&*maps, &mut cache);
        let outcome = rules::stage(&mut batch, &change, maps.pressure)?;
        let Staged { bulk, state, fresh: _, due: _ } = batch.into_staged();
        write(&mut maps.bulk, bulk);
        write(&mut maps.state, state);
        Ok(outcome)
    }

    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StoreError> {
        reads::mailbox(&*self.open()?, &id)
    }

    async fn window(&self, query: WindowQuery) -> Result<Option<Window>, StoreError> {
        reads::window(&*self.open()?, &query)
    }

    async fn blob_part(&self, hash: BlobHash, offset: u64) -> Result<Option<BlobPart>, StoreError> {
        reads::blob_part(&*self.open()?, &hash, offset)
    }

    async fn blob_digest(&self, hash: BlobHash) -> Result<Option<BlobHash>, StoreError> {
        reads::blob_digest(&*self.open()?, &hash)
    }

    async fn ticket(&self, key: PublicKey<Access>) -> Result<Option<Ticket>, StoreError> {
        reads::ticket(&*self.open()?, &key)
    }

    async fn tickets(&self) -> Result<Vec<Ticket>, StoreError> {
        reads::tickets(&*self.open()?)
    }

    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        reads::totals(&*self.open()?, now)
    }

    async fn close(&self) {
        self.maps().is_closed = true;
    }
}

impl Maps {
    fn space(&self, space: Space) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        match space {
            Space::Bulk => &self.bulk,
            Space::State => &self.state,
        }
    }
}

impl Tables for Maps {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.space(space).get(key).cloned())
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if first > last {
            return Ok(());
        }
        for (key, value) in self.space(space).range(first.to_vec()..=last.to_vec()) {
            if visit(key, &Value::Whole(value))? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        if first > last {
            return Ok(None);
        }
        let mut range = self.space(space).range(first.to_vec()..=last.to_vec());
        Ok(range.next_back().map(|(key, value)| (key.clone(), value.clone())))
    }
}

fn write(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, writes: Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}
