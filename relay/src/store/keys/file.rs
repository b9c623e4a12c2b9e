//! The files of keys: one for mailboxes and blobs, one for anchors, which is in no backup.
//!
//! ```text
//! unit n   lies twice, at 8192 n and at 8192 n + 4096
//! unit     count u64 | 56 slots of 72 bytes | the count again | zeros | XXH3 of what is before it, 128 bits    4096 bytes
//! slot     number u64 | chain key 32 | page key 32                                little-endian; zeros: none
//! ```
//! Of the two copies the whole one with the greater count is valid. A change writes the other one and flushes it, so a power
//! cut leaves the state before or after; then it writes the first one and flushes it too. So both have the same keys whenever nothing is
//! under way: what is forgotten lies in none, and of what is durable each has all. A change that was cut between the two was for a commit that
//! never came, or is due still. Nothing here is ever moved or appended to elsewhere.
//!
//! A copy that the disk cannot read counts as a torn one: the other has everything. That was not so before copies had their count
//! twice: then who was added lay in one copy only. Beside such a copy what cannot be read may be the newer one: an empty slot may be
//! somebody's, and forgetting overwrites what is due in the copy that can be read, and nothing of the other. The first change of
//! such a unit makes its copies alike.
//!
//! A unit without a whole copy fails alone: keys in it are not read any more,
//! and none are added. Forgetting goes on in it, slot by slot and in both copies where they lie, and leaves their sums wrong: what is
//! to be gone is gone, and the other slots stay what somebody may still mend by hand. The chain of a slot is moved on there as its
//! bytes say. If just they have rotted, what comes out is nobody's key, for which nothing is lost that could be read before; keys
//! of what was deleted are not kept for that. Only a copy that cannot be read keeps its slots: to overwrite it would destroy
//! keys of others that a disk, or the next start, may still give back.
//!
//! New keys go nowhere where a copy cannot be read. Which cannot is remembered for a time: a disk may take tens of seconds to say so, and
//! the writer would wait for it again with each change.
//!
//! The sum is against torn writes and decay. Who can write the file could write any sum, so it is the quickest one: it is
//! looked at whenever a mailbox is touched that was not touched for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bad::Bad;
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

mod bad;

/// Name of the file of the keys of mailboxes, in the store's folder.
pub(in super::super) const NAME: &str = "store.keys";
/// ANC-12: name of the file of the keys of anchors, in the store's folder. A backup never has it.
pub const ANCHOR_KEYS: &str = "anchor.keys";
const UNIT: usize = 4096;
const COUNT: usize = 8;
const SLOT: usize = 8 + 2 * KEY;
const SLOTS: u32 = 56;
/// Where the count is again.
const AGAIN: usize = COUNT + SLOTS as usize * SLOT;
const SUM: usize = UNIT - 16;
/// How long a copy is not read again that the disk could not read.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The keys of a store.
#[derive(Debug)]
pub(crate) struct KeyFile {
    file: File,
    anchors: File,
    /// What was said already: the disk does not get better by it.
    told: Mutex<BTreeSet<(Place, Told)>>,
    /// Copies that the disk could not read.
    bad: Mutex<Bad>,
    /// A folder that has a file for each copy that the disk cannot read.
    #[cfg(test)]
    unreadable: std::path::PathBuf,
    /// Copies that a power cut might tear.
    #[cfg(test)]
    unflushed: Mutex<BTreeSet<(Place, u64)>>,
}

/// Where a unit lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    is_of_anchors: bool,
    unit: u64,
}

/// What the operator is told of a unit, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Unreadable,
    Damaged,
    Kept,
}

type Bytes = Zeroizing<Vec<u8>>;

/// A unit and the copy that it was read from.
struct Unit {
    bytes: Bytes,
    count: u64,
    copy: u64,
}

/// What the disk has of a unit.
struct Both {
    bytes: Bytes,
    copies: [Found; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Never written, or cut short while it was written for the first time.
    Absent,
    Unreadable,
    There,
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
        Ok(Self::of_files(file, anchors, folder))
    }

    fn of_files(file: File, anchors: File, _folder: &Path) -> Self {
        Self {
            file,
            anchors,
            told: Mutex::default(),
            bad: Mutex::new(Bad::new(REMEMBERED)),
            #[cfg(test)]
            unreadable: _folder.with_extension("unreadable"),
            #[cfg(test)]
            unflushed: Mutex::default(),
        }
    }

    /// With another time for which it is remembered what the disk could not read.
    pub(in super::super) fn remembering(self, time: Duration) -> Self {
        Self { bad: Mutex::new(Bad::new(time)), ..self }
    }

    /// Whether every unit has a whole copy and the disk can read the other, in the file of mailboxes and in that of anchors. Opens
    /// them for reading only.
    pub(in super::super) fn inspect(folder: &Path) -> [Result<(), StoreError>; 2] {
        let open = |name: &str| File::open(folder.join(name)).map_err(|error| unread(&error));
        let (file, anchors) = match (open(NAME), open(ANCHOR_KEYS)) {
            (Ok(file), Ok(anchors)) => (file, anchors),
            (file, anchors) => return [file.map(drop), anchors.map(drop)],
        };
        let files = Self::of_files(file, anchors, folder);
        [false, true].map(|is_of_anchors| {
            (0..files.units(is_of_anchors)?).try_for_each(|unit| {
                let both = files.both(Place { is_of_anchors, unit });
                both.whole()?;
                if both.copies.contains(&Found::Unreadable) { Err(StoreError::Disk) } else { Ok(()) }
            })
        })
    }

    /// The keys of a slot; `None` if it has none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] also where a copy that cannot be read may have some: they are not forgotten, and what they open is not to be
    /// passed over.
    pub(in super::super) fn load(&self, slot: Slot) -> Result<Option<Chain>, StoreError> {
        let (number, place) = place(slot);
        let both = self.both(number);
        let unit = self.told(number, &both)?;
        let found = chain_in(unit.bytes.get(place..place + SLOT).ok_or(StoreError::Damaged)?)?;
        if found.is_none() && both.may_have_more_than(&unit) { Err(StoreError::Damaged) } else { Ok(found) }
    }

    /// Whether new keys can be kept in a slot: not where a copy cannot be read. They would have the other one only, and if writing mends
    /// nothing, a power cut while that one is written could take them.
    pub(in super::super) fn takes(&self, slot: Slot) -> bool {
        self.read_for_more(place(slot).0).is_ok()
    }

    /// The number of the first slot of the next unit after that of a slot.
    pub(in super::super) fn next_unit(slot: Slot) -> u32 {
        (slot.number() / SLOTS + 1).saturating_mul(SLOTS)
    }

    /// How many slots the file of anchors, or the other, has room for as it is. No other was ever in use: keys come first.
    pub(in super::super) fn slots(&self, is_of_anchors: bool) -> Result<u32, StoreError> {
        let slots = self.units(is_of_anchors)?.saturating_mul(u64::from(SLOTS));
        Ok(u32::try_from(slots).unwrap_or(u32::MAX))
    }

    fn units(&self, is_of_anchors: bool) -> Result<u64, StoreError> {
        let file = self.of(Place { is_of_anchors, unit: 0 });
        Ok(file.metadata().map_err(|error| io(&error))?.len().div_ceil(2 * UNIT as u64))
    }

    /// Which of these slots have keys in any copy. What cannot be read holds nobody up who has his keys elsewhere.
    pub(in super::super) fn held(&self, slots: &BTreeSet<Slot>) -> BTreeSet<Slot> {
        let mut held = BTreeSet::new();
        let mut last: Option<(Place, Both)> = None;
        for slot in slots {
            let (number, place) = place(*slot);
            if last.as_ref().is_none_or(|(of, _)| *of != number) {
                last = Some((number, self.both(number)));
            }
            let Some((_, both)) = &last else { continue };
            // A copy that is not there reads as zeros.
            let mut copies = both.bytes.chunks(UNIT);
            if copies.any(|copy| copy.get(place..place + SLOT).is_some_and(is_written)) {
                held.insert(*slot);
            }
        }
        held
    }

    /// Makes new keys durable.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if one of the slots does not [take](Self::takes) keys: then nothing is written.
    pub(in super::super) fn add(&self, new: &BTreeMap<Slot, Chain>) -> Result<(), StoreError> {
        let mut units: BTreeMap<Place, Unit> = BTreeMap::new();
        for (slot, chain) in new {
            let (number, place) = place(*slot);
            let unit = match units.entry(number) {
                std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => free.insert(self.read_for_more(number)?),
            };
            put(unit.bytes.get_mut(place..place + SLOT).ok_or(StoreError::Damaged)?, chain);
        }
        self.write_both(&mut units)
    }

    /// Overwrites keys wherever they are: all of a slot that come before a number, or all of it for the greatest. Returns the
    /// slots that may still have some, because the disk cannot read them.
    pub(in super::super) fn forget(&self, due: &BTreeMap<Slot, u64>) -> Result<BTreeSet<Slot>, StoreError> {
        let mut wanted: BTreeMap<Place, Vec<(Slot, usize, u64)>> = BTreeMap::new();
        for (slot, before) in due {
            let (number, place) = place(*slot);
            wanted.entry(number).or_default().push((*slot, place, *before));
        }
        let mut units: BTreeMap<Place, Unit> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        for (number, slots) in wanted {
            let mut both = self.both(number);
            match self.told(number, &both) {
                Ok(mut unit) if both.may_have_more_than(&unit) => {
                    self.forget_in_one(number, &mut unit, &slots)?;
                }
                Ok(mut unit) => {
                    unit.move_on(&slots)?;
                    units.insert(number, unit);
                    continue;
                }
                Err(_) => self.forget_in_place(number, &mut both, &slots)?,
            }
            if both.copies.contains(&Found::Unreadable) {
                self.tell(number, Told::Kept);
                kept.extend(slots.iter().map(|(slot, _, _)| *slot));
            }
        }
        // Also where nothing changes: a forgetting that was cut off has written one copy.
        self.write_both(&mut units)?;
        Ok(kept)
    }

    /// Overwrites slots of a unit in the only copy that can be read, where the other may have more. The count stays: should the disk
    /// give the other one back, it is the newer one still.
    ///
    /// A power cut just while it is written may leave a wrong sum. The bytes of others are written as they were, and what is due
    /// is to go first of all.
    fn forget_in_one(
        &self,
        number: Place,
        unit: &mut Unit,
        slots: &[(Slot, usize, u64)],
    ) -> Result<(), StoreError> {
        let before = unit.bytes.clone();
        unit.move_on(slots)?;
        if unit.bytes == before {
            return Ok(());
        }
        unit.seal()?;
        self.write_copy(number, unit)?;
        self.flush(number)
    }

    /// Overwrites slots of a unit without a whole copy, in each copy that can be read, and nothing else of it.
    fn forget_in_place(
        &self,
        number: Place,
        both: &mut Both,
        slots: &[(Slot, usize, u64)],
    ) -> Result<(), StoreError> {
        for ((copy, is), bytes) in (0..).zip(both.copies).zip(both.bytes.chunks_mut(UNIT)) {
            if is != Found::There {
                continue;
            }
            for (_, place, before) in slots {
                let slot = bytes.get_mut(*place..place + SLOT).ok_or(StoreError::Damaged)?;
                // No slot that is due has come further: it has rotted, and what it holds may be older than it says.
                if chain_in(slot)?.is_some_and(|chain| chain.at() > *before) {
                    slot.fill(0);
                }
                move_on(slot, *before)?;
                let at = start(number.unit, copy) + *place as u64;
                self.of(number).write_all_at(slot, at).map_err(|error| io(&error))?;
            }
        }
        self.flush(number)
    }

    /// Writes both copies of each unit, the second when the first is on the disk: never are both cut at once. And without another look
    /// between them, which could find that the first did not stick, and would take the second for the newer one again.
    fn write_both(&self, units: &mut BTreeMap<Place, Unit>) -> Result<(), StoreError> {
        self.write(units)?;
        self.write(units)
    }

    /// Writes each unit once, to its older copy, and flushes. That is the newer one then.
    fn write(&self, units: &mut BTreeMap<Place, Unit>) -> Result<(), StoreError> {
        for (place, unit) in &mut *units {
            unit.count += 1;
            unit.copy = 1 - unit.copy;
            let again = unit.bytes.get_mut(AGAIN..AGAIN + COUNT).ok_or(StoreError::Damaged)?;
            again.copy_from_slice(&unit.count.to_le_bytes());
            unit.seal()?;
            self.write_copy(*place, unit)?;
        }
        for is_of_anchors in [false, true] {
            if let Some(place) = units.keys().find(|place| place.is_of_anchors == is_of_anchors) {
                self.flush(*place)?;
            }
        }
        Ok(())
    }

    fn write_copy(&self, place: Place, unit: &Unit) -> Result<(), StoreError> {
        #[cfg(test)]
        {
            let mut unflushed = self.unflushed.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(!unflushed.contains(&(place, 1 - unit.copy)), "a power cut could tear both copies");
            unflushed.insert((place, unit.copy));
        }
        let start = start(place.unit, unit.copy);
        self.of(place).write_all_at(&unit.bytes, start).map_err(|error| io(&error))
    }

    /// Flushes the file of a unit.
    fn flush(&self, place: Place) -> Result<(), StoreError> {
        let done = self.of(place).sync_data().map_err(|error| io(&error));
        #[cfg(test)]
        self.unflushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(of, _)| of.is_of_anchors != place.is_of_anchors);
        done
    }

    fn of(&self, place: Place) -> &File {
        if place.is_of_anchors { &self.anchors } else { &self.file }
    }

    fn read_for_more(&self, place: Place) -> Result<Unit, StoreError> {
        let both = self.both(place);
        let unit = self.told(place, &both)?;
        if both.copies.contains(&Found::Unreadable) { Err(StoreError::Damaged) } else { Ok(unit) }
    }

    /// As [`Both::whole`]; tells the operator of what is not as it should be.
    fn told(&self, place: Place, both: &Both) -> Result<Unit, StoreError> {
        let whole = both.whole();
        if whole.is_err() {
            self.tell(place, Told::Damaged);
        } else if both.copies.contains(&Found::Unreadable) {
            self.tell(place, Told::Unreadable);
        }
        whole
    }

    fn tell(&self, place: Place, what: Told) {
        if !self.told.lock().unwrap_or_else(PoisonError::into_inner).insert((place, what)) {
            return;
        }
        match what {
            Told::Unreadable => {
                tracing::warn!("the disk cannot read one of two copies of keys; the other is used")
            }
            Told::Damaged => {
                tracing::error!("keys are damaged; what is sealed under them cannot be read, the rest can")
            }
            Told::Kept => {
                tracing::error!(
                    "keys of what was deleted lie where the disk cannot read; they may still be there"
                )
            }
        }
    }

    /// Both copies are read at once, and each by itself if that fails, or if one is known to be bad.
    fn both(&self, place: Place) -> Both {
        let mut bytes: Bytes = Zeroizing::new(vec![0; 2 * UNIT]);
        let known = self.bad().known(place, now());
        if known == [false; 2]
            && let Ok(length) = self.read_at_most(place, &mut bytes, start(place.unit, 0))
        {
            let copies =
                [UNIT, 2 * UNIT].map(|upto| if length < upto { Found::Absent } else { Found::There });
            return Both { bytes, copies };
        }
        let mut copies = known.map(|is_bad| if is_bad { Found::Unreadable } else { Found::Absent });
        for ((copy, is), bytes) in (0..).zip(&mut copies).zip(bytes.chunks_mut(UNIT)) {
            if *is == Found::Unreadable {
                continue;
            }
            *is = match self.read_at_most(place, bytes, start(place.unit, copy)) {
                Ok(UNIT) => Found::There,
                Ok(_) => Found::Absent,
                Err(_) => {
                    bytes.fill(0);
                    // When the disk had answered, which may have taken long.
                    self.bad().remember(place, copy, now());
                    Found::Unreadable
                }
            };
        }
        Both { bytes, copies }
    }

    fn bad(&self) -> MutexGuard<'_, Bad> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads as far as the file goes.
    fn read_at_most(&self, place: Place, bytes: &mut [u8], start: u64) -> std::io::Result<usize> {
        #[cfg(test)]
        self.fail_if_unreadable(place, bytes.len(), start)?;
        let mut length = 0;
        while length < bytes.len() {
            let rest = bytes.get_mut(length..).unwrap_or_default();
            match self.of(place).read_at(rest, start + length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(length)
    }

    #[cfg(test)]
    fn fail_if_unreadable(&self, place: Place, length: usize, start: u64) -> std::io::Result<()> {
        let name = if place.is_of_anchors { ANCHOR_KEYS } else { NAME };
        let first = start / UNIT as u64;
        let of_page = |page: u64| self.unreadable.join(format!("{name}.{page}"));
        let mut pages = (first..first + (length / UNIT) as u64).map(of_page);
        let Some(bad) = pages.find(|page| page.exists()) else { return Ok(()) };
        // Tests count how often it was tried.
        let tries = std::fs::read_dir(&bad)?.count();
        std::fs::create_dir(bad.join(tries.to_string())).ok();
        Err(nix::errno::Errno::EIO.into())
    }
}

impl Unit {
    fn move_on(&mut self, slots: &[(Slot, usize, u64)]) -> Result<(), StoreError> {
        for (_, place, before) in slots {
            move_on(self.bytes.get_mut(*place..place + SLOT).ok_or(StoreError::Damaged)?, *before)?;
        }
        Ok(())
    }

    /// Puts the count and the sum.
    fn seal(&mut self) -> Result<(), StoreError> {
        let (content, sum) = self.bytes.split_at_mut(SUM);
        content.get_mut(..COUNT).ok_or(StoreError::Damaged)?.copy_from_slice(&self.count.to_le_bytes());
        sum.copy_from_slice(&xxh3_128(content).to_le_bytes());
        Ok(())
    }

    /// Whether its copy was written when changes wrote both already: then the other one has nothing durable that this one has not.
    fn has_all(&self) -> bool {
        self.count > 0 && self.bytes.get(AGAIN..AGAIN + COUNT) == Some(&self.count.to_le_bytes())
    }
}

impl Both {
    /// Whether the copy that it was not read from may have keys that it has not, for all that the disk tells.
    fn may_have_more_than(&self, unit: &Unit) -> bool {
        self.copies.contains(&Found::Unreadable) && !unit.has_all()
    }

    /// The newest whole copy; the sum of the older one is looked at only if the newer one is torn.
    fn whole(&self) -> Result<Unit, StoreError> {
        let (first, second) = self.bytes.split_at(UNIT);
        let [is_first, is_second] = self.copies;
        let mut copies = [(0, first, is_first), (1, second, is_second)].map(|(copy, bytes, is)| {
            let count = bytes.first_chunk().map(|count| u64::from_le_bytes(*count)).unwrap_or(0);
            (copy, bytes, (is == Found::There).then_some(count))
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
        // the second copy was ever written says that the first was whole; what cannot be read may have been.
        if self.copies.contains(&Found::Unreadable) || (is_second == Found::There && is_written(second)) {
            return Err(StoreError::Damaged);
        }
        Ok(Unit { bytes: Zeroizing::new(vec![0; UNIT]), count: 0, copy: 1 })
    }
}

#[expect(clippy::disallowed_methods, reason = "how long ago the disk failed; no rule depends on it")]
fn now() -> Instant {
    Instant::now()
}

fn is_written(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| *byte != 0)
}

/// The keys in a slot's bytes; `None` if it has none.
fn chain_in(bytes: &[u8]) -> Result<Option<Chain>, StoreError> {
    if !is_written(bytes) {
        return Ok(None);
    }
    let (at, keys) = bytes.split_first_chunk().ok_or(StoreError::Damaged)?;
    let (chain, page) = keys.split_first_chunk().ok_or(StoreError::Damaged)?;
    let page = page.first_chunk().ok_or(StoreError::Damaged)?;
    Ok(Some(Chain::at_number(u64::from_le_bytes(*at), chain, page)))
}

fn put(bytes: &mut [u8], Chain { at, keys }: &Chain) {
    let Keys { chain, page, ahead: _, is_ahead: _ } = &**keys;
    let (first, keys) = bytes.split_at_mut(8);
    first.copy_from_slice(&at.to_le_bytes());
    let (left, right) = keys.split_at_mut(KEY);
    left.copy_from_slice(chain);
    right.copy_from_slice(page);
}

/// Moves the keys in a slot's bytes on to a number, or takes them away for the greatest.
fn move_on(bytes: &mut [u8], before: u64) -> Result<(), StoreError> {
    if before == u64::MAX {
        bytes.fill(0);
    } else if let Some(mut chain) = chain_in(bytes)?
        && chain.advance(before)
    {
        put(bytes, &chain);
    }
    Ok(())
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
mod tests;
