//! The key table: keys that can be destroyed for certain.
//!
//! ```text
//! unit, 4,096 bytes = nonce 24 | XChaCha20-Poly1305(table key, plaintext 4,056) | tag 16
//! plaintext         = generation 8 (little-endian) | entry 0 .. entry 81, 49 bytes each | zeros 30
//! entry             = 0 or 1 (used) | name 16 | key 32
//! ```
//!
//! Invariants: each unit has two copies of its own, whose generations start anywhere (VLT-45); a new key is on the disk before it is handed out
//! (VLT-60); destroying a key is finished only when both copies of its unit are rewritten and synced
//! (VLT-61); a destruction that a crash interrupted is completed at the next opening (VLT-62).
//!
//! Known gaps: an image from before the destruction, together with the volume key, still has the key.

#[cfg(test)]
mod tests;
mod unit;

use std::{
    collections::{BTreeSet, HashMap},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    backend::Backend,
    error::VolumeError,
    generation::Generation,
    geometry::{Geometry, RegionIndex, TABLE_UNIT_LEN},
    kdf::subkey,
    labels,
    memory::Secret,
    payload::Grant,
    sector::{self, FillRng, Place},
};

pub(crate) use unit::UnitContent;
use unit::{ENTRIES, KEPT_LEN, Opened, Unit};

/// The name of a key, chosen by the caller: a hash of chat and day, say. Any sixteen bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(pub [u8; 16]);

/// The keys of one volume that outlive a session and can be destroyed one by one.
///
/// All methods may be called from any thread. A container of the default size holds 5,248 keys per volume,
/// the smallest one 574.
pub struct KeyTable {
    backend: Arc<dyn Backend>,
    geometry: Geometry,
    region: RegionIndex,
    key: Secret<32>,
    state: Mutex<State>,
}

struct State {
    units: Vec<Unit>,
    /// Which unit has the key of a name: made at the first question, made anew after a change.
    places: Option<HashMap<KeyName, usize>>,
    rng: FillRng,
}

impl State {
    fn key(&mut self, name: KeyName) -> Option<Secret<32>> {
        let Self { units, places, rng: _ } = self;
        let places = places.get_or_insert_with(|| {
            let of = |(number, unit): (usize, &Unit)| -> Vec<(KeyName, usize)> {
                let names = unit.content.names().filter_map(|name| name.try_into().ok());
                names.map(|name| (KeyName(name), number)).collect()
            };
            units.iter().enumerate().flat_map(of).collect()
        });
        units.get(*places.get(&name)?)?.content.key(name)
    }
}

impl KeyTable {
    /// Writes an empty table; the caller syncs.
    pub(crate) fn create(
        backend: &dyn Backend,
        geometry: &Geometry,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
    ) -> io::Result<()> {
        Self::create_with(&[], backend, geometry, grant, rng)
    }

    /// Writes a table of the same keys to another container; the caller syncs.
    pub(crate) fn copy_to(
        &self,
        backend: &dyn Backend,
        geometry: &Geometry,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
    ) -> io::Result<()> {
        let state = self.state();
        let contents: Vec<&UnitContent> = state.units.iter().map(|unit| &unit.content).collect();
        if contents.len() > geometry.table_units() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::create_with(&contents, backend, geometry, grant, rng)
    }

    /// Whether both hold the same keys.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let all = |table: &Self| -> Vec<Zeroizing<Vec<u8>>> {
            let state = table.state();
            let entries = state.units.iter().flat_map(|unit| unit.content.entries.chunks_exact(KEPT_LEN));
            let mut entries: Vec<_> = entries.map(|entry| Zeroizing::new(entry.to_vec())).collect();
            entries.sort_unstable_by(|one, other| one.as_slice().cmp(other.as_slice()));
            entries
        };
        all(self) == all(other)
    }

    /// Units with these contents, and empty ones after them.
    fn create_with(
        contents: &[&UnitContent],
        backend: &dyn Backend,
        geometry: &Geometry,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
    ) -> io::Result<()> {
        let key = subkey(&grant.key.0, labels::KEY_TABLE);
        let empty = UnitContent::default();
        for unit in 0..geometry.table_units() {
            let content = contents.get(unit).copied().unwrap_or(&empty);
            let first = Generation::random(rng);
            for (copy, generation) in [first, first.next()].into_iter().enumerate() {
                let plaintext = content.encode(generation);
                let stored = sector::seal(&key, Place::copy_of(unit as u64, copy), &plaintext, rng);
                backend.write_at(geometry.table_unit(grant.region, unit, copy), &stored)?;
            }
        }
        Ok(())
    }

    /// Opens the table and completes what a crash interrupted (VLT-62).
    pub(crate) fn open(
        backend: Arc<dyn Backend>,
        geometry: Geometry,
        grant: &Grant,
        rng: FillRng,
    ) -> Result<Self, VolumeError> {
        Self::open_and(backend, geometry, grant, rng, || ()).map(|(table, ())| table)
    }

    /// As [`open`](Self::open). What else opening a volume takes is done `meanwhile`: the table's many units are most
    /// of it.
    pub(crate) fn open_and<T>(
        backend: Arc<dyn Backend>,
        geometry: Geometry,
        grant: &Grant,
        rng: FillRng,
        meanwhile: impl FnOnce() -> T,
    ) -> Result<(Self, T), VolumeError> {
        let key = subkey(&grant.key.0, labels::KEY_TABLE);
        let mut units = Vec::with_capacity(geometry.table_units());
        let mut interrupted = Vec::new();
        let mut stored = vec![0; geometry.table_units() * 2 * TABLE_UNIT_LEN];
        backend.read_at(geometry.table_unit(grant.region, 0, 0), &mut stored)?;
        let (all, other) = Unit::open_all(&key, &stored, meanwhile);
        for (unit, opened) in all.into_iter().enumerate() {
            let Opened::Whole(known, complete) = opened else { return Err(VolumeError::Damaged) };
            if !complete {
                interrupted.push(unit);
            }
            units.push(known);
        }
        let state = Mutex::new(State { units, places: None, rng });
        let table = Self { backend, geometry, region: grant.region, key, state };
        for unit in interrupted {
            table.rewrite(&mut table.state(), unit, None)?;
        }
        Ok((table, other))
    }

    /// The key of this name, if there is one.
    pub fn get(&self, name: KeyName) -> Option<Secret<32>> {
        self.state().key(name)
    }

    /// The key of this name; a fresh random one if there was none, on the disk before this returns.
    ///
    /// # Errors
    ///
    /// [`VolumeError::KeyTableFull`], or the system's error; then there is no new key.
    pub fn get_or_create(&self, name: KeyName) -> Result<Secret<32>, VolumeError> {
        let mut state = self.state();
        if let Some(key) = state.key(name) {
            return Ok(key);
        }
        let room = state.units.iter().position(|unit| unit.content.len() < ENTRIES);
        let unit = room.ok_or(VolumeError::KeyTableFull)?;
        let key = Secret::filled(|out| rand_core::RngCore::fill_bytes(&mut state.rng, out));
        let content = state.units[unit].content.with(name, &key);
        self.rewrite(&mut state, unit, Some(content))?;
        Ok(key)
    }

    /// Destroys the keys of these names, for certain: when this returns, no copy of them is on the disk.
    /// Names without a key are passed over.
    ///
    /// # Errors
    ///
    /// The system's error. What was not finished is completed at the next opening, or by calling again.
    pub fn destroy(&self, names: &[KeyName]) -> Result<(), VolumeError> {
        let mut state = self.state();
        let names: BTreeSet<KeyName> = names.iter().copied().collect();
        for unit in 0..state.units.len() {
            let content = state.units[unit].content.without(&names);
            if content.len() == state.units[unit].content.len() {
                continue;
            }
            self.rewrite(&mut state, unit, Some(content))?;
            self.rewrite(&mut state, unit, None)?;
        }
        Ok(())
    }

    /// Keys in the table.
    pub fn len(&self) -> usize {
        self.state().units.iter().map(|unit| unit.content.len()).sum()
    }

    /// Whether the table holds no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys the table can hold.
    pub fn capacity(&self) -> usize {
        self.geometry.table_units() * ENTRIES
    }

    /// Writes the older copy of a unit with `content` (or what the newer one has) and syncs. On an error the
    /// table in memory still has what is on the disk.
    fn rewrite(
        &self,
        state: &mut State,
        unit: usize,
        content: Option<UnitContent>,
    ) -> Result<(), VolumeError> {
        let State { units, places, rng } = state;
        let Some(known) = units.get_mut(unit) else { return Err(VolumeError::Damaged) };
        let generation = known.generation.next();
        let copy = 1 - known.newest_copy;
        let plaintext = content.as_ref().unwrap_or(&known.content).encode(generation);
        let stored = sector::seal(&self.key, Place::copy_of(unit as u64, copy), &plaintext, rng);
        self.backend.write_at(self.geometry.table_unit(self.region, unit, copy), &stored)?;
        self.backend.sync()?;
        known.generation = generation;
        known.newest_copy = copy;
        if let Some(content) = content {
            if let Some(places) = places {
                if content.len() < known.content.len() {
                    places.retain(|_, place| *place != unit);
                }
                let names = content.names().filter_map(|name| name.try_into().ok());
                places.extend(names.map(|name| (KeyName(name), unit)));
            }
            known.content = content;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyTable(..)")
    }
}
