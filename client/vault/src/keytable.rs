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

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    backend::Backend,
    error::VolumeError,
    generation::{GENERATION_LEN, Generation},
    geometry::{Geometry, RegionIndex, TABLE_UNIT_LEN},
    kdf::subkey,
    labels,
    memory::Secret,
    payload::Grant,
    sector::{self, FillRng, Place, SEAL_OVERHEAD},
};

const PLAIN_LEN: usize = TABLE_UNIT_LEN - SEAL_OVERHEAD;
const ENTRY_LEN: usize = 1 + 16 + 32;
const ENTRIES: usize = (PLAIN_LEN - GENERATION_LEN) / ENTRY_LEN;

const _: () = assert!(ENTRIES == 82);

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
    rng: FillRng,
}

/// One unit as it is on the disk.
struct Unit {
    generation: Generation,
    newest_copy: usize,
    content: UnitContent,
}

/// The entries of one unit.
#[derive(Default)]
pub(crate) struct UnitContent {
    keys: BTreeMap<KeyName, Secret<32>>,
}

impl UnitContent {
    fn encode(&self, generation: Generation) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(PLAIN_LEN));
        out.extend_from_slice(&generation.to_bytes());
        for (name, key) in self.keys.iter().take(ENTRIES) {
            out.push(1);
            out.extend_from_slice(&name.0);
            out.extend_from_slice(key.expose());
        }
        out.resize(PLAIN_LEN, 0);
        out
    }

    pub(crate) fn decode(plaintext: &[u8]) -> Option<(Generation, Self)> {
        let (generation, rest) = plaintext.split_first_chunk::<GENERATION_LEN>()?;
        if plaintext.len() != PLAIN_LEN {
            return None;
        }
        let mut keys = BTreeMap::new();
        for entry in rest.chunks_exact(ENTRY_LEN) {
            let (used, entry) = entry.split_first()?;
            let (name, key) = entry.split_first_chunk::<16>()?;
            match used {
                0 => {}
                1 => {
                    let key = Secret::filled(|out: &mut [u8; 32]| out.copy_from_slice(key));
                    if keys.insert(KeyName(*name), key).is_some() {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        Some((Generation::from_bytes(*generation), Self { keys }))
    }

    fn duplicate(&self) -> Self {
        Self { keys: self.keys.iter().map(|(name, key)| (*name, heap_copy(key))).collect() }
    }
}

/// Table keys are many: they stay out of the guarded pages, of which a process has few.
fn heap_copy(key: &Secret<32>) -> Secret<32> {
    Secret::filled(|out| *out = *key.expose())
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
        let all = |table: &Self| -> BTreeMap<KeyName, Secret<32>> {
            let state = table.state();
            let keys = state.units.iter().flat_map(|unit| &unit.content.keys);
            keys.map(|(name, key)| (*name, heap_copy(key))).collect()
        };
        let (one, other) = (all(self), all(other));
        one.len() == other.len()
            && one.iter().zip(&other).all(|((name, key), (other_name, other_key))| {
                name == other_name && key.expose() == other_key.expose()
            })
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
        let key = subkey(&grant.key.0, labels::KEY_TABLE);
        let mut units = Vec::with_capacity(geometry.table_units());
        let mut interrupted = Vec::new();
        let mut stored = vec![0; 2 * TABLE_UNIT_LEN];
        for unit in 0..geometry.table_units() {
            backend.read_at(geometry.table_unit(grant.region, unit, 0), &mut stored)?;
            let mut copies: Vec<(usize, Generation, UnitContent)> = Vec::with_capacity(2);
            for (copy, bytes) in stored.chunks_exact(TABLE_UNIT_LEN).enumerate() {
                let plaintext = sector::open(&key, Place::copy_of(unit as u64, copy), bytes);
                if let Some((generation, content)) = plaintext.and_then(|bytes| UnitContent::decode(&bytes)) {
                    copies.push((copy, generation, content));
                }
            }
            if let [(_, one, _), (_, other, _)] = copies.as_slice()
                && one.is_newer_than(*other)
            {
                copies.swap(0, 1);
            }
            let Some((newest_copy, generation, content)) = copies.pop() else {
                return Err(VolumeError::Damaged);
            };
            // A key that only the older copy has was being destroyed; a copy that does not open was being
            // written, and may still be readable to who repairs its bits.
            let complete = copies
                .pop()
                .is_some_and(|(_, _, older)| older.keys.keys().all(|name| content.keys.contains_key(name)));
            if !complete {
                interrupted.push(unit);
            }
            units.push(Unit { generation, newest_copy, content });
        }
        let state = Mutex::new(State { units, rng });
        let table = Self { backend, geometry, region: grant.region, key, state };
        for unit in interrupted {
            table.rewrite(&mut table.state(), unit, None)?;
        }
        Ok(table)
    }

    /// The key of this name, if there is one.
    pub fn get(&self, name: KeyName) -> Option<Secret<32>> {
        let state = self.state();
        state.units.iter().find_map(|unit| unit.content.keys.get(&name)).map(heap_copy)
    }

    /// The key of this name; a fresh random one if there was none, on the disk before this returns.
    ///
    /// # Errors
    ///
    /// [`VolumeError::KeyTableFull`], or the system's error; then there is no new key.
    pub fn get_or_create(&self, name: KeyName) -> Result<Secret<32>, VolumeError> {
        let mut state = self.state();
        if let Some(key) = state.units.iter().find_map(|unit| unit.content.keys.get(&name)) {
            return Ok(heap_copy(key));
        }
        let room = state.units.iter().position(|unit| unit.content.keys.len() < ENTRIES);
        let unit = room.ok_or(VolumeError::KeyTableFull)?;
        let key = Secret::filled(|out| rand_core::RngCore::fill_bytes(&mut state.rng, out));
        let mut content = state.units[unit].content.duplicate();
        content.keys.insert(name, heap_copy(&key));
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
            if !state.units[unit].content.keys.keys().any(|name| names.contains(name)) {
                continue;
            }
            let mut content = state.units[unit].content.duplicate();
            content.keys.retain(|name, _| !names.contains(name));
            self.rewrite(&mut state, unit, Some(content))?;
            self.rewrite(&mut state, unit, None)?;
        }
        Ok(())
    }

    /// Keys in the table.
    pub fn len(&self) -> usize {
        self.state().units.iter().map(|unit| unit.content.keys.len()).sum()
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
        let State { units, rng } = state;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::{backend::MemoryBackend, geometry::ContainerSize, payload::VolumeKey};

    #[test]
    fn vlt_45_units_of_new_tables_start_anywhere_each() {
        let geometry = Geometry::new(ContainerSize::MIN);
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let backend = MemoryBackend::with_image(vec![0; 8 << 20]);
        let grant = Grant { region: RegionIndex::all()[1], key: VolumeKey(Secret::random(&mut rng)) };
        KeyTable::create(&backend, &geometry, &grant, &mut rng).unwrap();
        let fill = FillRng::seeded(&mut rng);
        let table = KeyTable::open(Arc::new(backend), geometry, &grant, fill).unwrap();
        let state = table.state();
        assert!(state.units.iter().all(|unit| unit.newest_copy == 1));
        let starts: Vec<_> = state.units.iter().map(|unit| unit.generation.to_bytes()).collect();
        assert!((0..GENERATION_LEN).all(|byte| starts.iter().any(|start| start[byte] != starts[0][byte])));
    }

    fn content(count: u8) -> UnitContent {
        let keys = (0..count)
            .map(|i| (KeyName([i; 16]), Secret::filled(|out: &mut [u8; 32]| out.fill(i))))
            .collect();
        UnitContent { keys }
    }

    proptest! {
        #[test]
        fn round_trip(count in 0u8..=82, generation: u64) {
            let generation = Generation::from_bytes(generation.to_le_bytes());
            let bytes = content(count).encode(generation);
            prop_assert_eq!(bytes.len(), PLAIN_LEN);
            let (back_generation, back) = UnitContent::decode(&bytes).unwrap();
            prop_assert_eq!(back_generation, generation);
            prop_assert_eq!(back.encode(generation), bytes);
        }

        #[test]
        fn mutated_unit_never_panics(at in 0usize..PLAIN_LEN, byte: u8) {
            let mut bytes = content(40).encode(Generation::from_bytes([1; 8])).to_vec();
            bytes[at] = byte;
            let _decoded = UnitContent::decode(&bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..=PLAIN_LEN)) {
            let _decoded = UnitContent::decode(&bytes);
        }
    }
}
