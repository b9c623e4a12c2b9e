//! The files of keys: one for mailboxes and blobs, one for anchors, which is in no backup.
//!
//! ```text
//! unit n   lies twice, at 8192 n and at 8192 n + 4096
//! unit     count u64 | 56 slots of 72 bytes | zeros | XXH3 of what is before it, 128 bits    4096 bytes
//! slot     number u64 | chain key 32 | page key 32                                little-endian; zeros: none
//! ```
//! Of the two copies the whole one with the greater count is valid. A change writes the other one and flushes it, so a power
//! cut leaves the state before or after. Forgetting writes both, one after the other, each flushed: then no copy has the
//! old keys. Nothing here is ever moved or appended to elsewhere.
//!
//! The sum is against torn writes and decay. Who can write the file could write any sum, so it is the quickest one: it is
//! looked at whenever a mailbox is touched that was not touched for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use xxhash_rust::xxh3::xxh3_128;
use zeroize::Zeroizing;

use super::{
    super::{
        StoreError,
        engine::{io, sync_folder},
        inspect::unread,
    },
    Chain, KEY, Keys, Slot,
};

/// Name of the file of the keys of mailboxes, in the store's folder.
pub(in super::super) const NAME: &str = "store.keys";
/// ANC-12: name of the file of the keys of anchors, in the store's folder. A backup never has it.
pub const ANCHOR_KEYS: &str = "anchor.keys";
const UNIT: usize = 4096;
const COUNT: usize = 8;
const SLOT: usize = 8 + 2 * KEY;
const SLOTS: u32 = 56;
const SUM: usize = UNIT - 16;

/// The keys of a store.
#[derive(Debug)]
pub(in super::super) struct KeyFile {
    file: File,
    anchors: File,
}

/// Where a unit lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    is_of_anchors: bool,
    unit: u64,
}

type Bytes = Zeroizing<Vec<u8>>;

/// A unit and the copy that it was read from.
struct Unit {
    bytes: Bytes,
    count: u64,
    copy: u64,
}

impl KeyFile {
    /// Opens the files in a store's folder, or creates them.
    pub(in super::super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(folder.join(name))?;
            file.sync_all().map(|()| file)
        };
        let file = open(NAME).map_err(|error| io(&error))?;
        let anchors = open(ANCHOR_KEYS).map_err(|error| io(&error))?;
        sync_folder(folder)?;
        Ok(Self { file, anchors })
    }

    /// Whether every unit has a whole copy, of the file of mailboxes and of that of anchors. Opens them for reading only.
    pub(in super::super) fn inspect(folder: &Path) -> [Result<(), StoreError>; 2] {
        let open = |name: &str| File::open(folder.join(name)).map_err(|error| unread(&error));
        let (file, anchors) = match (open(NAME), open(ANCHOR_KEYS)) {
            (Ok(file), Ok(anchors)) => (file, anchors),
            (file, anchors) => return [file.map(drop), anchors.map(drop)],
        };
        let files = Self { file, anchors };
        [false, true].map(|is_of_anchors| {
            let length =
                files.of(Place { is_of_anchors, unit: 0 }).metadata().map_err(|error| io(&error))?.len();
            let units = length.div_ceil(2 * UNIT as u64);
            (0..units).try_for_each(|unit| files.read(Place { is_of_anchors, unit }).map(drop))
        })
    }

    /// The keys of a slot; `None` if it has none.
    pub(in super::super) fn load(&self, slot: Slot) -> Result<Option<Chain>, StoreError> {
        let (unit, place) = place(slot);
        let unit = self.read(unit)?;
        let bytes = unit.bytes.get(place..place + SLOT).ok_or(StoreError::Damaged)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let (at, keys) = bytes.split_first_chunk().ok_or(StoreError::Damaged)?;
        let (chain, page) = keys.split_first_chunk().ok_or(StoreError::Damaged)?;
        let page = page.first_chunk().ok_or(StoreError::Damaged)?;
        Ok(Some(Chain::at_number(u64::from_le_bytes(*at), chain, page)))
    }

    /// How many slots of anchors the file has room for as it is.
    pub(in super::super) fn anchor_slots(&self) -> Result<u32, StoreError> {
        let length = self.anchors.metadata().map_err(|error| io(&error))?.len();
        let slots = length.div_ceil(2 * UNIT as u64) * u64::from(SLOTS);
        Ok(u32::try_from(slots).unwrap_or(u32::MAX))
    }

    /// Which of these slots have keys. What cannot be read holds nobody up who has his keys elsewhere.
    pub(in super::super) fn held(&self, slots: &BTreeSet<Slot>) -> BTreeSet<Slot> {
        let mut held = BTreeSet::new();
        let mut last: Option<(Place, Option<Unit>)> = None;
        for slot in slots {
            let (number, place) = place(*slot);
            if last.as_ref().is_none_or(|(of, _)| *of != number) {
                last = Some((number, self.read(number).ok()));
            }
            let Some((_, Some(unit))) = &last else { continue };
            let bytes = unit.bytes.get(place..place + SLOT).unwrap_or_default();
            if bytes.iter().any(|byte| *byte != 0) {
                held.insert(*slot);
            }
        }
        held
    }

    /// Makes new keys durable.
    pub(in super::super) fn add(&self, new: &BTreeMap<Slot, Chain>) -> Result<(), StoreError> {
        let changes = new.iter().map(|(slot, chain)| (*slot, Some(chain))).collect();
        self.change(&changes)?;
        Ok(())
    }

    /// Puts other keys in the place of old ones, or none, and overwrites the old ones wherever they were.
    pub(in super::super) fn forget(&self, changes: &BTreeMap<Slot, Option<Chain>>) -> Result<(), StoreError> {
        let changes = changes.iter().map(|(slot, chain)| (*slot, chain.as_ref())).collect();
        // The second time the units have the same content and the other copy is the older one.
        self.change(&changes)?;
        self.change(&changes)
    }

    /// Writes each unit once, to its older copy, and flushes.
    fn change(&self, changes: &BTreeMap<Slot, Option<&Chain>>) -> Result<(), StoreError> {
        let mut units: BTreeMap<Place, Unit> = BTreeMap::new();
        for (slot, chain) in changes {
            let (number, place) = place(*slot);
            let unit = match units.entry(number) {
                std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => free.insert(self.read(number)?),
            };
            let bytes = unit.bytes.get_mut(place..place + SLOT).ok_or(StoreError::Damaged)?;
            bytes.fill(0);
            if let Some(Chain { at, keys }) = chain {
                let Keys { chain, page, ahead: _, is_ahead: _ } = &**keys;
                let (first, keys) = bytes.split_at_mut(8);
                first.copy_from_slice(&at.to_le_bytes());
                let (left, right) = keys.split_at_mut(KEY);
                left.copy_from_slice(chain);
                right.copy_from_slice(page);
            }
        }
        for (place, unit) in &mut units {
            let count = unit.count + 1;
            let (content, sum) = unit.bytes.split_at_mut(SUM);
            content.get_mut(..COUNT).ok_or(StoreError::Damaged)?.copy_from_slice(&count.to_le_bytes());
            sum.copy_from_slice(&xxh3_128(content).to_le_bytes());
            let start = start(place.unit, 1 - unit.copy);
            self.of(*place).write_all_at(&unit.bytes, start).map_err(|error| io(&error))?;
        }
        for is_of_anchors in [false, true] {
            if let Some(place) = units.keys().find(|place| place.is_of_anchors == is_of_anchors) {
                self.of(*place).sync_data().map_err(|error| io(&error))?;
            }
        }
        Ok(())
    }

    fn of(&self, place: Place) -> &File {
        if place.is_of_anchors { &self.anchors } else { &self.file }
    }

    /// Both copies are read at once; the sum of the older one is looked at only if the newer one is torn.
    fn read(&self, place: Place) -> Result<Unit, StoreError> {
        let mut both: Bytes = Zeroizing::new(vec![0; 2 * UNIT]);
        let length = self.read_at_most(place, &mut both)?;
        let (first, second) = both.split_at(UNIT);
        let mut copies = [(0, first), (1, second)].map(|(copy, bytes)| {
            // Never written, or cut short while it was written for the first time.
            let is_there = length >= (copy + 1) * UNIT;
            let count = bytes.first_chunk().map(|count| u64::from_le_bytes(*count)).unwrap_or(0);
            (copy as u64, bytes, if is_there { Some(count) } else { None })
        });
        copies.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        for (copy, bytes, count) in copies {
            let Some(count) = count else { continue };
            let (content, sum) = bytes.split_at(SUM);
            if *sum == xxh3_128(content).to_le_bytes() {
                return Ok(Unit { bytes: Zeroizing::new(bytes.to_vec()), count, copy });
            }
        }
        // The first write of a unit was cut: nothing that is durable needs it. It is written over at the same place. That
        // the second copy was ever written says that the first was whole.
        let is_written = |bytes: &[u8], upto: usize| length >= upto && bytes.iter().any(|byte| *byte != 0);
        if is_written(second, 2 * UNIT) {
            return Err(StoreError::Damaged);
        }
        Ok(Unit { bytes: Zeroizing::new(vec![0; UNIT]), count: 0, copy: 1 })
    }

    /// Reads a unit's place, as far as the file goes.
    fn read_at_most(&self, place: Place, both: &mut [u8]) -> Result<usize, StoreError> {
        let (file, mut length) = (self.of(place), 0);
        while length < both.len() {
            let rest = both.get_mut(length..).unwrap_or_default();
            match file.read_at(rest, start(place.unit, 0) + length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(&error)),
            }
        }
        Ok(length)
    }
}

fn place(slot: Slot) -> (Place, usize) {
    let within = usize::try_from(slot.number() % SLOTS).unwrap_or(0);
    let unit = u64::from(slot.number() / SLOTS);
    (Place { is_of_anchors: slot.is_of_anchor(), unit }, COUNT + within * SLOT)
}

fn start(unit: u64, copy: u64) -> u64 {
    // u32 slots: no overflow.
    (unit * 2 + copy) * UNIT as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(byte: u8) -> Chain {
        let mut page = [byte; KEY];
        page[KEY / 2] = !byte;
        Chain::at_number(0, &[byte; KEY], &page)
    }

    #[test]
    fn forgotten_keys_are_in_no_byte_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::open(dir.path()).unwrap();
        let new: BTreeMap<_, _> = (0..200u8).map(|n| (Slot(n.into()), chain(n + 1))).collect();
        file.add(&new).unwrap();
        file.add(&BTreeMap::from([(Slot(5), chain(250))])).unwrap();
        let mut later = chain(8);
        assert!(later.advance(3));
        file.forget(&BTreeMap::from([(Slot(5), None), (Slot(6), None), (Slot(7), Some(later.clone()))]))
            .unwrap();
        let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
        let has = |key: &[u8]| bytes.windows(KEY).any(|window| window == key);
        for gone in [6, 250, 7, 8] {
            assert!(!has(&[gone; KEY]), "{gone}");
        }
        assert!(has(&[9; KEY]) && has(&later.keys.chain));
        let file = KeyFile::open(dir.path()).unwrap();
        assert_eq!(file.load(Slot(5)), Ok(None));
        assert_eq!(file.load(Slot(7)), Ok(Some(later)));
        assert_eq!(file.load(Slot(199)), Ok(Some(chain(200))));
        assert_eq!(file.load(Slot(9999)), Ok(None));
    }

    #[test]
    fn a_torn_copy_leaves_the_other_and_two_torn_ones_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::open(dir.path()).unwrap();
        file.add(&BTreeMap::from([(Slot(0), chain(1))])).unwrap();
        file.add(&BTreeMap::from([(Slot(1), chain(2))])).unwrap();
        // The second copy is the newer one.
        file.file.write_all_at(&[0x55; 512], start(0, 1) + 512).unwrap();
        assert_eq!(file.load(Slot(0)), Ok(Some(chain(1))));
        assert_eq!(file.load(Slot(1)), Ok(None), "the state before the torn write");
        file.file.write_all_at(&[0x55; 512], start(0, 0) + 512).unwrap();
        assert_eq!(file.load(Slot(0)), Err(StoreError::Damaged));
    }
}
