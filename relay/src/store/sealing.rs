//! Values on their way to an engine and back.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rand::RngCore;

use super::{
    StoreError,
    keys::{Chain, KeyFile, Slot},
    record::{ENVELOPE_HEAD, SLOT_HEAD, key, slot_in, version_in},
    tables::{Entry, Scan, Space, Tables, Visit, Writes},
};

/// Slots whose keys the writer has ready, some 100 bytes each; at it all are dropped and read again.
const MAX_READY: usize = 65_536;

/// The writer's keys.
pub(super) struct Sealer {
    /// The keys of the last number that was sealed in a slot.
    ready: HashMap<Slot, Chain>,
}

impl Sealer {
    pub(super) fn new() -> Self {
        Self { ready: HashMap::new() }
    }

    /// After a commit that failed its numbers come again.
    pub(super) fn reset(&mut self) {
        self.ready.clear();
    }

    /// Makes keys for new slots; durable when it returns.
    pub(super) fn begin(&mut self, keys: &KeyFile, fresh: &[Slot]) -> Result<(), StoreError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let mut rng = rand::rng();
        let mut random = || {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            key
        };
        let chains: BTreeMap<Slot, Chain> =
            fresh.iter().map(|slot| (*slot, Chain::begin(random(), random()))).collect();
        keys.add(&chains)?;
        for slot in fresh {
            self.ready.remove(slot);
        }
        Ok(())
    }

    /// Seals the values of a batch in place.
    pub(super) fn seal(&mut self, keys: &KeyFile, bulk: &mut Writes) -> Result<(), StoreError> {
        if self.ready.len() > MAX_READY {
            self.ready.clear();
        }
        for (name, value) in bulk {
            let Some(value) = value else { continue };
            let slot = slot_in(value)?;
            let seq = key::seq_in(name).filter(|_| key::is_envelope(name));
            let (number, nonce, head) = match (seq, version_in(name)) {
                (Some(seq), _) => (seq.value(), 0, ENVELOPE_HEAD),
                (None, Some(version)) => (version, 0, SLOT_HEAD),
                (None, None) => (0, key::offset_in(name).ok_or(StoreError::Damaged)?, SLOT_HEAD),
            };
            let chain = self.ready(keys, slot, number)?;
            chain.apply(nonce, value.get_mut(head..).ok_or(StoreError::Damaged)?);
        }
        Ok(())
    }

    fn ready(&mut self, keys: &KeyFile, slot: Slot, number: u64) -> Result<&Chain, StoreError> {
        use std::collections::hash_map::Entry;
        let chain = match self.ready.entry(slot) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(keys.load(slot)?.ok_or(StoreError::Damaged)?),
        };
        if chain.advance(number) { Ok(chain) } else { Err(StoreError::Damaged) }
    }

    /// Forgets keys: all of a slot that come before a number, or all.
    pub(super) fn forget(&mut self, keys: &KeyFile, due: &BTreeMap<Slot, u64>) -> Result<(), StoreError> {
        let mut changes: BTreeMap<Slot, Option<Chain>> = BTreeMap::new();
        for (slot, before) in due {
            if *before == u64::MAX {
                self.ready.remove(slot);
                changes.insert(*slot, None);
            } else if let Some(mut chain) = keys.load(*slot)?
                && chain.at() < *before
                && chain.advance(*before)
            {
                changes.insert(*slot, Some(chain));
            }
        }
        keys.forget(&changes)
    }
}

/// A view together with the keys for what it shows.
pub(super) struct Opened<V> {
    view: V,
    keys: Arc<KeyFile>,
    /// The keys that were used last: windows go up.
    last: RefCell<Option<(Slot, Chain)>>,
}

impl<V> Opened<V> {
    pub(super) fn new(view: V, keys: Arc<KeyFile>) -> Self {
        Self { view, keys, last: RefCell::new(None) }
    }
}

impl<V: Tables> Tables for Opened<V> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.view.load(space, key)
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.view.scan(space, first, last, visit)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.view.last(space, first, last)
    }

    fn unseal(&self, slot: Slot, number: u64, nonce: u64, bytes: &mut [u8]) -> Result<bool, StoreError> {
        let mut last = self.last.borrow_mut();
        let ready = last.take().filter(|(of, chain)| *of == slot && chain.at() <= number);
        let chain = match ready {
            Some((_, chain)) => Some(chain),
            None => self.keys.load(slot)?,
        };
        let Some(mut chain) = chain.filter(|chain| chain.at() <= number) else { return Ok(false) };
        chain.advance(number);
        chain.apply(nonce, bytes);
        *last = Some((slot, chain));
        Ok(true)
    }
}

/// What is still to be forgotten, from before the store was opened.
pub(super) fn still_due(tables: &impl Tables) -> Result<BTreeMap<Slot, u64>, StoreError> {
    let mut due = BTreeMap::new();
    let (first, last) = key::all(key::DUE);
    tables.scan(Space::State, &first, &last, &mut |name, value| {
        due.insert(key::slot_in(name).ok_or(StoreError::Damaged)?, super::record::decode_due(value)?);
        Ok(Scan::More)
    })?;
    Ok(due)
}
