//! What a store does while blocks of its disk cannot be read: what lies in them is lost, and keeps nothing else from being done.

/// Runs a scenario over each engine.
macro_rules! over_engines {
    ($scenario:ident) => {{
        {
            let dir = tempfile::tempdir().unwrap();
            $scenario::<Fjall>(&options(dir.path())).await;
            let dir = tempfile::tempdir().unwrap();
            $scenario::<Sled<true>>(&options(dir.path())).await;
        }
    }};
}

mod deeds;
mod keys;
mod reading;
mod tests;

use std::{
    collections::BTreeMap,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::*;
use crate::store::{
    KeptStore,
    engine::Engine,
    group::GroupCommit,
    keys::{ANCHOR_KEYS, KEYS, Slot},
    record::{ENVELOPE_HEAD, Seal},
    tables::{Entry, Rest, Space, Tables, Value, Visit, Writes},
};

/// What a block does to whoever reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ill {
    /// Its sum is wrong.
    Damaged,
    /// It can be read; the bodies that its rows name cannot.
    Bodiless,
    /// It and the bodies that its rows name can be read; what was written to both was wrong.
    Cut,
    /// It can be read; the sums of the bodies that its rows name are wrong.
    Rotten,
}

/// A block, by the first and the last of its keys.
pub(super) type Block = (Space, Vec<u8>, Vec<u8>, Ill);

/// The ill blocks of each store, by its folder.
static ALL: Mutex<BTreeMap<PathBuf, Vec<Block>>> = Mutex::new(BTreeMap::new());

fn all() -> MutexGuard<'static, BTreeMap<PathBuf, Vec<Block>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was written to each store, by its folder: of the bulk space, of the state space.
static WRITTEN: Mutex<BTreeMap<PathBuf, [Writes; 2]>> = Mutex::new(BTreeMap::new());

/// What was written last under the keys of a kind.
pub(super) fn written(path: &Path, space: Space, kind: u8) -> Vec<Entry> {
    let all = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some([bulk, state]) = all.get(path) else { return Vec::new() };
    let writes = if space == Space::Bulk { bulk } else { state }.iter();
    let there = writes.filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
    there.filter(|(key, _)| key.first() == Some(&kind)).collect()
}

/// Makes these blocks of a store's disk ill from now on, and all others well.
pub(super) fn spoil(path: &Path, blocks: Vec<Block>) {
    all().insert(path.to_owned(), blocks);
}

/// An engine on such a disk.
#[derive(Clone)]
pub(super) struct Spoilt<E> {
    inner: E,
    path: Arc<PathBuf>,
}

impl<E> Spoilt<E> {
    fn over<T>(&self, inner: T) -> Shaded<T> {
        Shaded { inner, blocks: all().get(&*self.path).cloned().unwrap_or_default() }
    }
}

impl<E: Engine> Engine for Spoilt<E> {
    type View = Shaded<E::View>;
    type Direct<'a> = Shaded<E::Direct<'a>>;
    type Group = E::Group;

    const WRITERS: usize = E::WRITERS;

    fn open(path: &Path, cache: u64) -> Result<Self, StoreError> {
        Ok(Self { inner: E::open(path, cache)?, path: Arc::new(path.to_owned()) })
    }

    fn view(&self) -> Self::View {
        self.over(self.inner.view())
    }

    fn direct(&self) -> Self::Direct<'_> {
        self.over(self.inner.direct())
    }

    fn prepare(&self, bulk: &Writes, state: &Writes) -> Result<Self::Group, StoreError> {
        // What is written anew lies elsewhere.
        if let Some(blocks) = all().get_mut(&*self.path) {
            blocks.retain(|(space, first, last, _)| {
                let writes = if *space == Space::Bulk { bulk } else { state };
                first != last || !writes.contains_key(first)
            });
        }
        let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        let [all_bulk, all_state] = written.entry((*self.path).clone()).or_default();
        all_bulk.extend(bulk.clone());
        all_state.extend(state.clone());
        drop(written);
        self.inner.prepare(bulk, state)
    }

    fn commit(&self, group: &Self::Group) -> Result<(), StoreError> {
        self.inner.commit(group)
    }

    fn settle(&self, group: Self::Group) -> Result<(), StoreError> {
        self.inner.settle(group)
    }

    fn rest(&self) -> Result<(), StoreError> {
        self.inner.rest()
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.inner.tidy()
    }
}

/// Tables that show what can be read.
pub(crate) struct Shaded<T> {
    inner: T,
    blocks: Vec<Block>,
}

impl<T> Shaded<T> {
    fn ill(&self, space: Space, key: &[u8]) -> Option<Ill> {
        let lies_in =
            |(of, first, last, _): &&Block| *of == space && first.as_slice() <= key && key <= last.as_slice();
        self.blocks.iter().find(lies_in).map(|(_, _, _, ill)| *ill)
    }

    fn check(&self, space: Space, key: &[u8]) -> Result<(), StoreError> {
        if self.ill(space, key) == Some(Ill::Damaged) { Err(StoreError::Damaged) } else { Ok(()) }
    }
}

struct Unreadable(usize, StoreError);

impl Rest for Unreadable {
    fn length(&self) -> usize {
        self.0
    }

    fn append_to(&self, _: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        Err(self.1)
    }
}

/// Flips a bit in both copies of the part of a store's file of keys in which a slot lies, or back.
pub(super) fn rot(path: &Path, slot: Slot) {
    let (name, number) = match slot.0.checked_sub(1 << 31) {
        Some(number) => (ANCHOR_KEYS, number),
        None => (KEYS, slot.0),
    };
    let file = std::fs::File::options().read(true).write(true).open(path.join(name)).unwrap();
    for copy in 0..2 {
        // Behind the slots.
        let at = u64::from(number / 56) * 8192 + copy * 4096 + 4060;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

impl<T: Tables> Tables for Shaded<T> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check(space, key)?;
        let there = self.inner.load(space, key)?;
        match self.ill(space, key).filter(|_| there.is_some()) {
            Some(Ill::Bodiless) => Err(StoreError::Disk),
            Some(Ill::Rotten) => Err(StoreError::Damaged),
            Some(Ill::Cut) => Ok(there.map(|value| value[..10].to_vec())),
            Some(Ill::Damaged) | None => Ok(there),
        }
    }

    fn has(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        self.check(space, key)?;
        self.inner.has(space, key)
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.check(space, first)?;
        self.inner.scan(space, first, last, &mut |key, value| {
            self.check(space, key)?;
            match self.ill(space, key) {
                Some(ill @ (Ill::Bodiless | Ill::Rotten)) => {
                    let failure = if ill == Ill::Rotten { StoreError::Damaged } else { StoreError::Disk };
                    let rest = Unreadable(value.length() - ENVELOPE_HEAD, failure);
                    visit(key, &Value::Apart { head: &value.head()[..ENVELOPE_HEAD], rest: &rest })
                }
                Some(Ill::Cut) => visit(key, &Value::Whole(&value.head()[..10])),
                _ => visit(key, value),
            }
        })
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        let found = self.inner.last(space, first, last)?;
        found.iter().try_for_each(|(key, _)| self.check(space, key))?;
        Ok(found)
    }

    fn unseal(&self, seal: &Seal, bytes: &mut [u8]) -> Result<bool, StoreError> {
        self.inner.unseal(seal, bytes)
    }
}
