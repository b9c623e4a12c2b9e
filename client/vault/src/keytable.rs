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
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
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
const NAME_LEN: usize = 16;
/// An entry in memory: it is used, or it is not there.
const KEPT_LEN: usize = NAME_LEN + 32;
const ENTRY_LEN: usize = 1 + KEPT_LEN;
const ENTRIES: usize = (PLAIN_LEN - GENERATION_LEN) / ENTRY_LEN;
/// Units from which on a second thread opens most of them ...
const PARALLEL_UNITS: usize = 8;
/// ... and of which the first one opens this share, after its other work.
const OWN_PERCENT: usize = 35;

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

/// One unit as it is on the disk.
struct Unit {
    generation: Generation,
    newest_copy: usize,
    content: UnitContent,
}

/// The entries of one unit: names and keys one after the other, sorted by name. They stay out of the guarded pages,
/// of which a process has few, and in one piece, because there are thousands.
pub(crate) struct UnitContent {
    entries: Zeroizing<Vec<u8>>,
}

impl Default for UnitContent {
    fn default() -> Self {
        // Never moved while it grows: no copy of a key stays behind.
        Self { entries: Zeroizing::new(Vec::with_capacity(ENTRIES * KEPT_LEN)) }
    }
}

impl UnitContent {
    fn encode(&self, generation: Generation) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(PLAIN_LEN));
        out.extend_from_slice(&generation.to_bytes());
        for entry in self.entries.chunks_exact(KEPT_LEN).take(ENTRIES) {
            out.push(1);
            out.extend_from_slice(entry);
        }
        out.resize(PLAIN_LEN, 0);
        out
    }

    pub(crate) fn decode(plaintext: &[u8]) -> Option<(Generation, Self)> {
        let (generation, rest) = plaintext.split_first_chunk::<GENERATION_LEN>()?;
        if plaintext.len() != PLAIN_LEN {
            return None;
        }
        let mut content = Self::default();
        for entry in rest.chunks_exact(ENTRY_LEN) {
            let (used, entry) = entry.split_first()?;
            match used {
                0 => {}
                // As a rule they lie in the order of their names.
                1 if content.last().is_none_or(|last| last < name_of(entry)) => {
                    content.entries.extend_from_slice(entry)
                }
                1 => {
                    let at = content.find(name_of(entry)).err()?;
                    content.insert_at(at, entry);
                }
                _ => return None,
            }
        }
        Some((Generation::from_bytes(*generation), content))
    }

    fn len(&self) -> usize {
        self.entries.len() / KEPT_LEN
    }

    fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.entries.chunks_exact(KEPT_LEN).map(name_of)
    }

    fn last(&self) -> Option<&[u8]> {
        self.names().next_back()
    }

    /// Where the entry of this name is, or belongs.
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from.midpoint(to);
            match name_of(&self.entries[middle * KEPT_LEN..]).cmp(name) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }

    fn key(&self, name: KeyName) -> Option<Secret<32>> {
        let at = self.find(&name.0).ok()? * KEPT_LEN;
        let key: &[u8; 32] = self.entries.get(at + NAME_LEN..)?.first_chunk()?;
        Some(Secret::filled(|out| *out = *key))
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.find(name).is_ok()
    }

    /// With one more entry; the caller has seen that there is room.
    fn with(&self, name: KeyName, key: &Secret<32>) -> Self {
        let mut content = self.duplicate();
        if let Err(at) = content.find(&name.0) {
            let entry = Zeroizing::new([name.0.as_slice(), key.expose()].concat());
            content.insert_at(at, &entry);
        }
        content
    }

    fn without(&self, names: &BTreeSet<KeyName>) -> Self {
        let mut content = Self::default();
        for entry in self.entries.chunks_exact(KEPT_LEN) {
            let gone = name_of(entry).try_into().is_ok_and(|name| names.contains(&KeyName(name)));
            if !gone {
                content.entries.extend_from_slice(entry);
            }
        }
        content
    }

    fn insert_at(&mut self, at: usize, entry: &[u8]) {
        let at = at * KEPT_LEN;
        self.entries.extend_from_slice(entry);
        self.entries[at..].rotate_right(KEPT_LEN);
    }

    fn duplicate(&self) -> Self {
        let mut content = Self::default();
        content.entries.extend_from_slice(&self.entries);
        content
    }
}

/// The name with which an entry begins.
fn name_of(entry: &[u8]) -> &[u8] {
    &entry[..NAME_LEN.min(entry.len())]
}

/// One unit with both of its copies, opened.
enum Opened {
    /// The newest copy, and whether both say the same of what is to be destroyed.
    Whole(Unit, bool),
    Damaged,
}

impl Unit {
    /// Opens all units, those of a large table on two threads, and does something else meanwhile.
    fn open_all<T>(key: &Secret<32>, stored: &[u8], meanwhile: impl FnOnce() -> T) -> (Vec<Opened>, T) {
        let open = |from: usize, units: &[u8]| -> Vec<Opened> {
            let mut plaintext = Zeroizing::new(vec![0; PLAIN_LEN]);
            let units = units.chunks_exact(2 * TABLE_UNIT_LEN);
            (from..).zip(units).map(|(unit, bytes)| Self::open(key, unit, bytes, &mut plaintext)).collect()
        };
        let count = stored.len() / (2 * TABLE_UNIT_LEN);
        if count < PARALLEL_UNITS {
            return (open(0, stored), meanwhile());
        }
        // The other thread has nothing else to do.
        let own = count * OWN_PERCENT / 100;
        let (first, second) = stored.split_at(own * 2 * TABLE_UNIT_LEN);
        std::thread::scope(|scope| {
            let others = scope.spawn(|| open(own, second));
            let other = meanwhile();
            let mut all = open(0, first);
            match others.join() {
                Ok(opened) => all.extend(opened),
                Err(_) => all.push(Opened::Damaged),
            }
            (all, other)
        })
    }

    /// Opens both copies of a unit, which lie one behind the other in `stored`.
    fn open(key: &Secret<32>, unit: usize, stored: &[u8], plaintext: &mut Zeroizing<Vec<u8>>) -> Opened {
        let mut copies: Vec<(usize, Generation, UnitContent)> = Vec::with_capacity(2);
        for (copy, bytes) in stored.chunks_exact(TABLE_UNIT_LEN).enumerate() {
            if sector::open_into(key, Place::copy_of(unit as u64, copy), bytes, plaintext)
                && let Some((generation, content)) = UnitContent::decode(plaintext)
            {
                copies.push((copy, generation, content));
            }
        }
        if let [(_, one, _), (_, other, _)] = copies.as_slice()
            && one.is_newer_than(*other)
        {
            copies.swap(0, 1);
        }
        let Some((newest_copy, generation, content)) = copies.pop() else { return Opened::Damaged };
        // A key that only the older copy has was being destroyed; a copy that does not open was being
        // written, and may still be readable to who repairs its bits.
        let complete =
            copies.pop().is_some_and(|(_, _, older)| older.names().all(|name| content.contains(name)));
        Opened::Whole(Self { generation, newest_copy, content }, complete)
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
        (0..count).fold(UnitContent::default(), |content, i| {
            content.with(KeyName([i; 16]), &Secret::filled(|out: &mut [u8; 32]| out.fill(i)))
        })
    }

    #[test]
    fn entries_are_found_whatever_their_order_and_a_name_twice_is_refused() {
        let mut bytes = content(0).encode(Generation::from_bytes([1; 8]));
        for (place, name) in [7, 3, 9, 1].into_iter().enumerate() {
            let at = GENERATION_LEN + place * ENTRY_LEN;
            bytes[at] = 1;
            bytes[at + 1..at + 1 + NAME_LEN].fill(name);
            bytes[at + 1 + NAME_LEN..at + ENTRY_LEN].fill(name + 1);
        }
        let (_, decoded) = UnitContent::decode(&bytes).unwrap();
        assert_eq!(decoded.len(), 4);
        for name in 0..12 {
            let key = decoded.key(KeyName([name; 16]));
            let expected = [7, 3, 9, 1].contains(&name).then_some([name + 1; 32]);
            assert_eq!(key.map(|key| *key.expose()), expected);
        }
        let again = GENERATION_LEN + 4 * ENTRY_LEN;
        bytes.copy_within(GENERATION_LEN..GENERATION_LEN + ENTRY_LEN, again);
        assert!(UnitContent::decode(&bytes).is_none());
    }

    #[test]
    fn the_table_answers_like_a_map_through_every_change_and_after_opening_again() {
        let geometry = Geometry::new(ContainerSize::DEFAULT);
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        let image = vec![0; usize::try_from(ContainerSize::DEFAULT.bytes()).unwrap()];
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::with_image(image));
        let grant = Grant { region: RegionIndex::all()[2], key: VolumeKey(Secret::random(&mut rng)) };
        KeyTable::create(&*backend, &geometry, &grant, &mut rng).unwrap();
        let mut known: std::collections::BTreeMap<u8, [u8; 32]> = std::collections::BTreeMap::new();
        for round in 0..4_u8 {
            let fill = FillRng::seeded(&mut rng);
            let table = KeyTable::open(Arc::clone(&backend), geometry, &grant, fill).unwrap();
            for name in (round * 30..round * 30 + 90).rev() {
                let key = *table.get_or_create(KeyName([name; 16])).unwrap().expose();
                assert_eq!(*known.entry(name).or_insert(key), key);
            }
            let gone: Vec<u8> = known.keys().copied().filter(|name| name % 7 == round).collect();
            table.destroy(&gone.iter().map(|name| KeyName([*name; 16])).collect::<Vec<_>>()).unwrap();
            known.retain(|name, _| !gone.contains(name));
            assert_eq!(table.len(), known.len());
            for name in 0..=u8::MAX {
                let key = table.get(KeyName([name; 16])).map(|key| *key.expose());
                assert_eq!(key, known.get(&name).copied());
            }
        }
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
