//! What the records of a compartment lie in.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use zeroize::Zeroizing;

use super::unit::Changes;

/// Name of a key that seals message bodies: one per chat and day, so that old bodies can be made unreadable.
pub type BodyKeyName = [u8; 16];

/// A record: its key and its value.
pub type Record = (Vec<u8>, Zeroizing<Vec<u8>>);

/// Is lent keys and values of records, one after the other, until it breaks off.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Storage failed. Nothing of the unit of work was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The compartment is full; deleting is still possible.
    #[error("this compartment is full")]
    Full,
    /// A record has another shape than this version knows.
    #[error("a record of this compartment cannot be read by this version")]
    Record,
    /// The file underneath failed.
    #[error("the vault's file cannot be read or written: {0}")]
    Vault(String),
}

/// Ordered records, body keys, and atomic commits.
///
/// # Contract
/// `commit` is all or nothing and durable when it returns; a reader sees every commit that returned before it
/// began. A key of `make_body_key` is durable before the next commit is: the first that can use it.
pub trait Base {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError>;

    /// Lends the records in `from..to`, in order of their keys or backwards, until `see` breaks off. `see` may read
    /// body keys, and nothing else of this base.
    ///
    /// # Errors
    /// [`StoreError`].
    fn visit(&self, from: &[u8], to: &[u8], backwards: bool, see: &mut Visitor<'_>)
    -> Result<(), StoreError>;

    /// Up to `limit` records in `from..to`, in order of their keys or backwards.
    ///
    /// # Errors
    /// [`StoreError`].
    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        backwards: bool,
    ) -> Result<Vec<Record>, StoreError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.visit(from, to, backwards, &mut |key, value| {
            found.push((key.to_vec(), Zeroizing::new(value.to_vec())));
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(found)
    }

    /// The key for bodies of that name, if it was made, not destroyed, and opens.
    ///
    /// # Errors
    /// [`StoreError`].
    fn body_key(&self, name: &BodyKeyName) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError>;

    /// The key for bodies of that name, made if there is none that opens.
    ///
    /// # Errors
    /// [`StoreError::Full`] if the table of keys is full.
    fn make_body_key(&self, name: &BodyKeyName) -> Result<Zeroizing<[u8; 32]>, StoreError>;

    /// Destroys the keys of those names; what they sealed is unreadable when this returns.
    ///
    /// # Errors
    /// [`StoreError`].
    fn destroy_body_keys(&self, names: &[BodyKeyName]) -> Result<(), StoreError>;

    /// Applies all changes or none.
    ///
    /// # Errors
    /// [`StoreError`].
    fn commit(&self, changes: Changes) -> Result<(), StoreError>;
}

type Records = BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>;

/// Records in memory: the reference, and what simulations run on.
#[derive(Default)]
pub struct MemoryBase {
    records: Mutex<Records>,
    keys: Mutex<BTreeMap<BodyKeyName, Zeroizing<[u8; 32]>>>,
}

impl MemoryBase {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<BodyKeyName, Zeroizing<[u8; 32]>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything: what an image of the disk would hold.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { records: Mutex::new(self.records().clone()), keys: Mutex::new(self.keys().clone()) }
    }
}

impl Base for MemoryBase {
    fn get(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        Ok(self.records().get(key).cloned())
    }

    fn visit(
        &self,
        from: &[u8],
        to: &[u8],
        backwards: bool,
        see: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let records = self.records();
        let mut lend = |(key, value): (&Vec<u8>, &Zeroizing<Vec<u8>>)| see(key, value);
        let mut range = records.range(from.to_vec()..to.to_vec());
        // That it broke off is no news to `see`.
        let _ = if backwards { range.rev().try_for_each(&mut lend) } else { range.try_for_each(&mut lend) };
        Ok(())
    }

    fn body_key(&self, name: &BodyKeyName) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        Ok(self.keys().get(name).cloned())
    }

    fn make_body_key(&self, name: &BodyKeyName) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let mut keys = self.keys();
        if let Some(key) = keys.get(name) {
            return Ok(key.clone());
        }
        // Distinct per name, which is all that a simulation needs; the vault draws them at random.
        let key = Zeroizing::new(lapwing_wire::ids::labelled_hash(b"memory body key", &[name]));
        keys.insert(*name, key.clone());
        Ok(key)
    }

    fn destroy_body_keys(&self, names: &[BodyKeyName]) -> Result<(), StoreError> {
        let mut keys = self.keys();
        for name in names {
            keys.remove(name);
        }
        Ok(())
    }

    fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        let mut records = self.records();
        for (key, value) in changes.into_records() {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        Ok(())
    }
}
