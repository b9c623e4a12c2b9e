//! The key table: keys that can be destroyed for certain.
//!
//! ```text
//! unit, 4,096 bytes = nonce 24 | XChaCha20-Poly1305(table key, plaintext 4,056) | tag 16
//! plaintext         = generation 8 (little-endian) | entry 0 .. entry 81, 49 bytes each | zeros 30
//! entry             = 0 or 1 (used) | name 16 | key 32
//! ```
//!
//! Invariants: each unit has two copies of its own, whose generations start anywhere (VLT-45); a new key is on the disk
//! before a commit that comes after it (VLT-60); destroying a key is finished only when both copies of its unit are
//! rewritten and synced (VLT-61); the disk says that the region is not scrubbed before a unit is written, and a change
//! that a crash interrupted is completed at the next opening, before the disk says anything else (VLT-62); a unit is
//! read when it is needed, and each name has one to be looked for first (VLT-63); a unit of which neither copy opens
//! keeps nobody from making keys, and is overwritten by the next destruction of a name that may lie in it (VLT-64); a unit
//! whose writing failed is read again, and both of its copies are written again (VLT-65).
//!
//! Known gaps: an image from before the destruction, together with the volume key, still has the key.

mod state;
#[cfg(test)]
mod tests;
mod unit;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    backend::Backend,
    error::VolumeError,
    generation::Generation,
    geometry::{Geometry, RegionIndex, TABLE_UNIT_LEN},
    kdf::{key_place, subkey},
    labels,
    memory::Secret,
    payload::Grant,
    sector::{self, FillRng, Place},
    units::Units,
};

use state::{Slot, State};
pub(crate) use unit::UnitContent;
use unit::{ENTRIES, PLAIN_LEN, Unit};

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

/// The table, which nobody else changes meanwhile.
pub(crate) struct Held<'a> {
    table: &'a KeyTable,
    state: MutexGuard<'a, State>,
}

impl Held<'_> {
    /// Reads every unit and completes what a crash interrupted (VLT-62). A unit that is damaged stays as it is.
    pub(crate) fn complete(&mut self) -> Result<(), VolumeError> {
        self.table.read_all(&mut self.state)
    }

    /// Ends every destruction that an error interrupted. Until it has, the region must not be called scrubbed.
    pub(crate) fn finish(&mut self) -> Result<(), VolumeError> {
        self.table.finish(&mut self.state)
    }

    /// From now on these units say on the disk that something is being written.
    pub(crate) fn attach(&mut self, units: &Arc<Units>) {
        self.state.units_of_volume = Some(Arc::downgrade(units));
    }

    /// Until units are attached nothing can be said on the disk: the table is written only where that was said before,
    /// while the volume is `opening`.
    pub(crate) fn detach(&mut self, opening: bool) {
        self.state.units_of_volume = if opening { None } else { Some(Weak::new()) };
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

    /// Writes a table of the same keys to another container, but for those in units that do not open; the caller syncs.
    pub(crate) fn copy_to(
        &self,
        backend: &dyn Backend,
        geometry: &Geometry,
        grant: &Grant,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), VolumeError> {
        let mut state = self.state();
        self.read_all(&mut state)?;
        let mut contents: Vec<UnitContent> = Vec::new();
        contents.resize_with(geometry.table_units(), UnitContent::default);
        // Where a name is looked for first depends on how many units there are.
        for entry in state.known().flat_map(|unit| unit.content.entries()) {
            let place =
                room_for(&self.key, unit::name_of(entry), contents.len(), |unit| contents[unit].len());
            contents.get_mut(place.ok_or(VolumeError::KeyTableFull)?).ok_or(VolumeError::Damaged)?.add(entry);
        }
        let contents: Vec<&UnitContent> = contents.iter().collect();
        Ok(Self::create_with(&contents, backend, geometry, grant, rng)?)
    }

    /// Whether the other is whole and holds the same keys: all that open here.
    pub(crate) fn is_same(&self, other: &Self) -> Result<bool, VolumeError> {
        let all = |table: &Self| -> Result<Vec<Zeroizing<Vec<u8>>>, VolumeError> {
            let mut state = table.state();
            table.read_all(&mut state)?;
            let entries = state.known().flat_map(|unit| unit.content.entries());
            let mut entries: Vec<_> = entries.map(|entry| Zeroizing::new(entry.to_vec())).collect();
            entries.sort_unstable_by(|one, other| one.as_slice().cmp(other.as_slice()));
            Ok(entries)
        };
        Ok(all(self)? == all(other)? && other.damaged_units()? == 0)
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

    /// The table of a volume; nothing is read yet.
    pub(crate) fn new(backend: Arc<dyn Backend>, geometry: Geometry, grant: &Grant, rng: FillRng) -> Self {
        let key = subkey(&grant.key.0, labels::KEY_TABLE);
        let state = Mutex::new(State::new(geometry.table_units(), rng));
        Self { backend, geometry, region: grant.region, key, state }
    }

    /// Keeps others from changing the table.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held { table: self, state: self.state() }
    }

    /// The key of this name, if there is one.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Damaged`] if no unit that opens has it and another does not open, or the system's error.
    pub fn get(&self, name: KeyName) -> Result<Option<Secret<32>>, VolumeError> {
        self.find(&mut self.state(), name)
    }

    /// The key of this name; a fresh random one if there was none that opens (VLT-64), on the disk before this returns.
    /// Only for a name whose key, if it ever had one, was destroyed: what [`get`](Self::get) has no answer for gets another
    /// name, and both are destroyed together.
    ///
    /// # Errors
    ///
    /// [`VolumeError::KeyTableFull`], or the system's error. Whether there is a key then, the next call finds out
    /// (VLT-65).
    pub fn get_or_create(&self, name: KeyName) -> Result<Secret<32>, VolumeError> {
        let mut state = self.state();
        let key = self.find_or_draw(&mut state, name)?;
        if let Err(error) = self.store(&mut state) {
            state.prepared.remove(&name);
            return Err(error);
        }
        Ok(key)
    }

    /// The key of this name; a fresh random one if there was none that opens (VLT-64). It is on the disk before the next commit counts,
    /// together with all others that were prepared until then (VLT-60), and is forgotten if none comes.
    ///
    /// # Errors
    ///
    /// As [`get_or_create`](Self::get_or_create).
    pub fn prepare(&self, name: KeyName) -> Result<Secret<32>, VolumeError> {
        self.find_or_draw(&mut self.state(), name)
    }

    /// What was prepared is on the disk when this returns: one sync for all of it, none where nothing was.
    pub(crate) fn store_prepared(&self) -> Result<(), VolumeError> {
        self.store(&mut self.state())
    }

    /// Destroys the keys of these names, for certain: when this returns, no copy of them is on the disk. Names without a
    /// key are passed over.
    ///
    /// # Security
    ///
    /// VLT-64: a name that no unit has may lie in one that does not open, where who ignores the tag still reads most of it.
    /// So each such unit is read once more, from the disk, and overwritten if it still does not open. The other keys in it
    /// are lost for good; they were for everyone who goes by the format. Where every name is in a unit that opens, those
    /// that do not are left as they are: they may open again.
    ///
    /// # Errors
    ///
    /// The system's error. What was not finished is completed at the next opening, or by calling again.
    pub fn destroy(&self, names: &[KeyName]) -> Result<(), VolumeError> {
        let mut state = self.state();
        self.read_all(&mut state)?;
        let names: BTreeSet<KeyName> = names.iter().copied().collect();
        if names.is_empty() {
            return Ok(());
        }
        let mut changed: BTreeMap<usize, Option<UnitContent>> = BTreeMap::new();
        for number in self.give_up_damaged(&mut state, &names)? {
            changed.insert(number, None);
        }
        state.prepared.retain(|name, _| !names.contains(name));
        // In each of them, wherever it was found first: a table may have been filled in another way.
        for (number, slot) in state.units.iter().enumerate() {
            if let Slot::Known(unit) = slot
                && names.iter().any(|name| unit.content.contains(&name.0))
            {
                changed.insert(number, Some(unit.content.without(&names)));
            }
        }
        let units: Vec<usize> = changed.keys().copied().collect();
        self.rewrite(&mut state, changed)?;
        state.unfinished.extend(units);
        self.finish(&mut state)
    }

    /// Units of which neither copy opens. Who asks for a key that may lie there gets no answer, until the destruction of such
    /// a one overwrites them (VLT-64).
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn damaged_units(&self) -> Result<usize, VolumeError> {
        let mut state = self.state();
        self.read_all(&mut state)?;
        Ok(state.damaged().count())
    }

    /// Keys in the table.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Damaged`] if a unit does not open, or the system's error.
    pub fn len(&self) -> Result<usize, VolumeError> {
        let mut state = self.state();
        self.read_everything(&mut state)?;
        Ok(state.places.len() + state.prepared.len())
    }

    /// Whether the table holds no key.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool, VolumeError> {
        Ok(self.len()? == 0)
    }

    /// Keys the table can hold.
    pub fn capacity(&self) -> usize {
        self.geometry.table_units() * ENTRIES
    }

    /// VLT-63: first where the name belongs, then everywhere.
    fn look_for(&self, state: &mut State, name: KeyName) -> Result<Option<Secret<32>>, VolumeError> {
        if let Some(prepared) = state.prepared.get(&name) {
            return Ok(Some(Secret::filled(|out| *out = *prepared.expose())));
        }
        if !state.places.contains_key(&name) {
            self.read_unit(state, place_of(&self.key, &name.0, state.units.len()))?;
        }
        if !state.places.contains_key(&name) {
            self.read_all(state)?;
        }
        Ok(state.key(name))
    }

    /// As [`Self::look_for`]. Whether a unit that is damaged has the name, nobody can say.
    fn find(&self, state: &mut State, name: KeyName) -> Result<Option<Secret<32>>, VolumeError> {
        let key = self.look_for(state, name)?;
        if key.is_none() {
            state.check()?;
        }
        Ok(key)
    }

    /// VLT-64: a key that does not open is none.
    fn find_or_draw(&self, state: &mut State, name: KeyName) -> Result<Secret<32>, VolumeError> {
        if let Some(key) = self.look_for(state, name)? {
            return Ok(key);
        }
        let room = (state.units.len() - state.damaged().count()) * ENTRIES;
        if state.places.len() + state.prepared.len() >= room {
            return Err(VolumeError::KeyTableFull);
        }
        let key = Secret::filled(|out| rand_core::RngCore::fill_bytes(&mut state.rng, out));
        state.prepared.insert(name, Secret::filled(|out| *out = *key.expose()));
        Ok(key)
    }

    /// Writes the prepared keys into units that have room.
    fn store(&self, state: &mut State) -> Result<(), VolumeError> {
        if state.prepared.is_empty() {
            return Ok(());
        }
        // VLT-65: what an error left unread.
        self.read_all(state)?;
        let mut changed: BTreeMap<usize, Option<UnitContent>> = BTreeMap::new();
        let count = state.units.len();
        for (name, key) in &state.prepared {
            // A try that failed has written it all the same.
            if state.key(*name).is_some_and(|known| known.expose() == key.expose()) {
                continue;
            }
            let len = |unit: usize| match changed.get(&unit) {
                Some(Some(content)) => content.len(),
                _ => state.unit(unit).map_or(ENTRIES, |unit| unit.content.len()),
            };
            let unit = room_for(&self.key, &name.0, count, len).ok_or(VolumeError::KeyTableFull)?;
            let content = match changed.remove(&unit) {
                Some(Some(content)) => content,
                _ => state.unit(unit)?.content.duplicate(),
            };
            changed.insert(unit, Some(content.with(*name, key)));
        }
        self.rewrite(state, changed)?;
        state.prepared.clear();
        Ok(())
    }

    /// VLT-61: writes the older copies of these units with their new contents (or what the newer ones have), and syncs.
    /// VLT-65: after an error they are unread, and doubtful.
    fn rewrite(
        &self,
        state: &mut State,
        changed: BTreeMap<usize, Option<UnitContent>>,
    ) -> Result<(), VolumeError> {
        if changed.is_empty() {
            return Ok(());
        }
        // VLT-62.
        if let Some(units) = &state.units_of_volume {
            units.upgrade().ok_or(VolumeError::Damaged)?.say_unscrubbed()?;
        }
        if let Err(error) = self.write_older_copies(state, &changed) {
            changed.keys().for_each(|number| state.doubt(*number));
            return Err(error);
        }
        for (number, content) in changed {
            if state.doubtful.remove(&number) {
                // Of what the disk has in the other copy nobody knows anything either.
                state.unfinished.insert(number);
            } else {
                state.unfinished.remove(&number);
            }
            state.replace(number, content);
        }
        Ok(())
    }

    fn write_older_copies(
        &self,
        state: &mut State,
        changed: &BTreeMap<usize, Option<UnitContent>>,
    ) -> Result<(), VolumeError> {
        for (number, content) in changed {
            let Some(Slot::Known(known)) = state.units.get(*number) else { return Err(VolumeError::Damaged) };
            let copy = 1 - known.newest_copy;
            let plaintext = content.as_ref().unwrap_or(&known.content).encode(known.generation.next());
            let place = Place::copy_of(*number as u64, copy);
            let stored = sector::seal(&self.key, place, &plaintext, &mut state.rng);
            self.backend.write_at(self.geometry.table_unit(self.region, *number, copy), &stored)?;
        }
        Ok(self.backend.sync()?)
    }

    /// VLT-61, VLT-65: the other copies of units in which something was destroyed, and both of those whose writing failed.
    fn finish(&self, state: &mut State) -> Result<(), VolumeError> {
        loop {
            let waiting: BTreeSet<usize> = state.unfinished.union(&state.doubtful).copied().collect();
            for number in &waiting {
                self.read_slot(state, *number)?;
                // One that does not open is damaged like any other (VLT-64).
                if matches!(state.units.get(*number), Some(Slot::Damaged)) {
                    state.unfinished.remove(number);
                    state.doubtful.remove(number);
                }
            }
            let units: BTreeMap<usize, Option<UnitContent>> =
                state.unfinished.union(&state.doubtful).map(|number| (*number, None)).collect();
            if units.is_empty() {
                return Ok(());
            }
            // Each round takes one copy of each off what is left to do.
            self.rewrite(state, units)?;
        }
    }

    /// VLT-64: where no unit has one of the names, those that do not open when they are read once more are empty from now on.
    /// Both of their copies are still to be written.
    fn give_up_damaged(
        &self,
        state: &mut State,
        names: &BTreeSet<KeyName>,
    ) -> Result<Vec<usize>, VolumeError> {
        let mut given_up: Vec<usize> = state.damaged().collect();
        if given_up.is_empty() || state.has_all(names) {
            return Ok(Vec::new());
        }
        for number in &given_up {
            self.read_from_disk(state, *number)?;
        }
        // One that opens now may have what was missing.
        if state.has_all(names) {
            return Ok(Vec::new());
        }
        given_up.retain(|number| matches!(state.units.get(*number), Some(Slot::Damaged)));
        for number in &given_up {
            let generation = Generation::random(&mut state.rng);
            let empty = Unit { generation, newest_copy: 1, content: UnitContent::default() };
            if let Some(slot) = state.units.get_mut(*number) {
                *slot = Slot::Known(empty);
            }
            state.doubtful.insert(*number);
        }
        Ok(given_up)
    }

    /// VLT-64: what did not open may have gone bad in memory alone.
    fn read_from_disk(&self, state: &mut State, unit: usize) -> Result<(), VolumeError> {
        self.backend.forget_copy();
        state.forget(unit);
        self.read_slot_once(state, unit)
    }

    /// Every unit, none of which may be damaged.
    fn read_everything(&self, state: &mut State) -> Result<(), VolumeError> {
        self.read_all(state)?;
        state.check()
    }

    fn read_all(&self, state: &mut State) -> Result<(), VolumeError> {
        let unread: Vec<usize> =
            (0..state.units.len()).filter(|unit| matches!(state.units[*unit], Slot::Unread)).collect();
        let (Some(first), Some(last)) = (unread.first(), unread.last()) else { return self.finish(state) };
        if unread.iter().any(|unit| state.doubtful.contains(unit)) {
            // VLT-67.
            self.backend.sync()?;
        }
        let mut stored = vec![0; (last + 1 - first) * 2 * TABLE_UNIT_LEN];
        self.backend.read_at(self.geometry.table_unit(self.region, *first, 0), &mut stored)?;
        let mut plaintext = Zeroizing::new(vec![0; PLAIN_LEN]);
        for unit in &unread {
            let bytes = &stored[(unit - first) * 2 * TABLE_UNIT_LEN..][..2 * TABLE_UNIT_LEN];
            state.learn(*unit, Unit::open(&self.key, *unit, bytes, &mut plaintext));
        }
        for unit in unread {
            if matches!(state.units.get(unit), Some(Slot::Damaged)) {
                self.read_from_disk(state, unit)?;
            }
        }
        self.finish(state)
    }

    fn read_unit(&self, state: &mut State, unit: usize) -> Result<(), VolumeError> {
        self.read_slot(state, unit)?;
        self.finish(state)
    }

    /// Reads a unit, unless it was read, and leaves it as it is.
    fn read_slot(&self, state: &mut State, unit: usize) -> Result<(), VolumeError> {
        if !matches!(state.units.get(unit), Some(Slot::Unread)) {
            return Ok(());
        }
        if state.doubtful.contains(&unit) {
            // VLT-67.
            self.backend.sync()?;
        }
        self.read_slot_once(state, unit)?;
        if matches!(state.units.get(unit), Some(Slot::Damaged)) {
            self.read_from_disk(state, unit)?;
        }
        Ok(())
    }

    fn read_slot_once(&self, state: &mut State, unit: usize) -> Result<(), VolumeError> {
        let mut stored = [0; 2 * TABLE_UNIT_LEN];
        self.backend.read_at(self.geometry.table_unit(self.region, unit, 0), &mut stored)?;
        let mut plaintext = Zeroizing::new(vec![0; PLAIN_LEN]);
        state.learn(unit, Unit::open(&self.key, unit, &stored, &mut plaintext));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// VLT-63: where a name is looked for first. Who has no key learns nothing about names from which units change.
fn place_of(key: &Secret<32>, name: &[u8], count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(1).max(1);
    usize::try_from(key_place(key, name) % count).unwrap_or(0)
}

/// The first unit with room, from the one where the name is looked for first.
fn room_for(key: &Secret<32>, name: &[u8], count: usize, len: impl Fn(usize) -> usize) -> Option<usize> {
    let first = place_of(key, name, count);
    (first..count).chain(0..first).find(|unit| len(*unit) < ENTRIES)
}

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyTable(..)")
    }
}
