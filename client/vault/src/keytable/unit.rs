//! One unit of the key table: its entries, its two copies, and how both are read.

use std::{cmp::Ordering, collections::BTreeSet};

use zeroize::Zeroizing;

use super::KeyName;
use crate::{
    generation::{GENERATION_LEN, Generation},
    geometry::TABLE_UNIT_LEN,
    memory::Secret,
    sector::{self, Place, SEAL_OVERHEAD},
};

pub(super) const PLAIN_LEN: usize = TABLE_UNIT_LEN - SEAL_OVERHEAD;
pub(super) const NAME_LEN: usize = 16;
/// An entry in memory: it is used, or it is not there.
const KEPT_LEN: usize = NAME_LEN + 32;
pub(super) const ENTRY_LEN: usize = 1 + KEPT_LEN;
pub(super) const ENTRIES: usize = (PLAIN_LEN - GENERATION_LEN) / ENTRY_LEN;
const _: () = assert!(ENTRIES == 82);

/// One unit as it is on the disk.
pub(super) struct Unit {
    pub(super) generation: Generation,
    pub(super) newest_copy: usize,
    pub(super) content: UnitContent,
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
    pub(super) fn encode(&self, generation: Generation) -> Zeroizing<Vec<u8>> {
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

    pub(super) fn len(&self) -> usize {
        self.entries.len() / KEPT_LEN
    }

    pub(super) fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
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

    pub(super) fn key(&self, name: KeyName) -> Option<Secret<32>> {
        let at = self.find(&name.0).ok()? * KEPT_LEN;
        let key: &[u8; 32] = self.entries.get(at + NAME_LEN..)?.first_chunk()?;
        Some(Secret::filled(|out| *out = *key))
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.find(name).is_ok()
    }

    /// With one more entry; the caller has seen that there is room.
    pub(super) fn with(mut self, name: KeyName, key: &Secret<32>) -> Self {
        self.add(&Zeroizing::new([name.0.as_slice(), key.expose()].concat()));
        self
    }

    /// One more entry, unless its name is there; the caller has seen that there is room.
    pub(super) fn add(&mut self, entry: &[u8]) {
        if let Err(at) = self.find(name_of(entry)) {
            self.insert_at(at, entry);
        }
    }

    /// Name and key of each, one behind the other.
    pub(super) fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.chunks_exact(KEPT_LEN)
    }

    pub(super) fn without(&self, names: &BTreeSet<KeyName>) -> Self {
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

    pub(super) fn duplicate(&self) -> Self {
        let mut content = Self::default();
        content.entries.extend_from_slice(&self.entries);
        content
    }
}

/// The name with which an entry begins.
pub(super) fn name_of(entry: &[u8]) -> &[u8] {
    &entry[..NAME_LEN.min(entry.len())]
}

/// One unit with both of its copies, opened.
pub(super) enum Opened {
    /// The newest copy, and whether both say the same of what is to be destroyed.
    Whole(Unit, bool),
    Damaged,
}

impl Unit {
    /// Opens both copies of a unit, which lie one behind the other in `stored`.
    pub(super) fn open(
        key: &Secret<32>,
        unit: usize,
        stored: &[u8],
        plaintext: &mut Zeroizing<Vec<u8>>,
    ) -> Opened {
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
