//! Every version of every block of a container that anybody ever had: from images, and from logs of what was written.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use crate::trace::Write;

/// Bytes of a block of the format that is not a data unit.
const BLOCK: u64 = 4096;
/// Bytes of a header copy.
pub const COPY_LEN: u64 = 17 * BLOCK;
/// Where the regions begin.
const REGIONS: u64 = BLOCK + 2 * COPY_LEN;
/// Bytes of an allocation unit.
const ALLOCATION: u64 = 2 * BLOCK;
/// Bytes of a superblock that are used, and from one to the next.
const SUPERBLOCK: (u64, u64) = (4152, 2 * BLOCK);
/// Bytes of a data unit that are used, and from one to the next.
const UNIT: (u64, u64) = (4136, 4608);

/// What lies where (docs/vault-format.md, sections 2 and 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The salt block.
    Salt,
    /// Header copy 0 or 1.
    Header(u8),
    /// Region, copy.
    Allocation(u8, u8),
    /// Region, unit, copy.
    KeyTable(u8, u64, u8),
    /// Region, copy.
    Superblock(u8, u8),
    /// Region, number of the unit.
    Unit(u8, u64),
}

/// Where everything lies in a container of one size.
#[derive(Debug, Clone)]
pub struct Geometry {
    /// Bytes in all.
    pub size: u64,
    places: Vec<(Place, u64, u64)>,
}

impl Geometry {
    /// `None` if no container has this size.
    #[must_use]
    pub fn of(size: u64) -> Option<Self> {
        if !(8 << 20..=16 << 30).contains(&size) || !size.is_multiple_of(BLOCK) {
            return None;
        }
        let region_len = (size - REGIONS) / 4 / BLOCK * BLOCK;
        let table = (region_len / 262_144).clamp(2, 64);
        let mut places = vec![(Place::Salt, 0, BLOCK)];
        for copy in 0..2 {
            places.push((Place::Header(copy), BLOCK + u64::from(copy) * COPY_LEN, COPY_LEN));
        }
        for region in 0..4u8 {
            let start = REGIONS + u64::from(region) * region_len;
            for copy in 0..2 {
                places.push((
                    Place::Allocation(region, copy),
                    start + u64::from(copy) * ALLOCATION,
                    ALLOCATION,
                ));
            }
            let table_start = start + 2 * ALLOCATION;
            for unit in 0..table {
                for copy in 0..2 {
                    let at = table_start + (unit * 2 + u64::from(copy)) * BLOCK;
                    places.push((Place::KeyTable(region, unit, copy), at, BLOCK));
                }
            }
            let superblocks = table_start + 2 * table * BLOCK;
            for copy in 0..2 {
                let at = superblocks + u64::from(copy) * SUPERBLOCK.1;
                places.push((Place::Superblock(region, copy), at, SUPERBLOCK.0));
            }
            let units = superblocks + 2 * SUPERBLOCK.1;
            for unit in 0..(start + region_len - units) / UNIT.1 {
                places.push((Place::Unit(region, unit), units + unit * UNIT.1, UNIT.0));
            }
        }
        Some(Self { size, places })
    }

    /// All places with where they begin and their lengths, in order.
    pub(super) fn places(&self) -> &[(Place, u64, u64)] {
        &self.places
    }

    /// The region in which a byte lies, and where it begins; `None` before and after the regions.
    #[must_use]
    pub fn region_of(&self, offset: u64) -> Option<(u8, u64)> {
        let region_len = (self.size - REGIONS) / 4 / BLOCK * BLOCK;
        let region = offset.checked_sub(REGIONS)? / region_len;
        let number = u8::try_from(region).ok().filter(|number| *number < 4)?;
        Some((number, REGIONS + region * region_len))
    }

    /// Places that a range of bytes touches.
    fn touched(&self, from: u64, to: u64) -> &[(Place, u64, u64)] {
        let first = self.places.partition_point(|(_, start, len)| start + len <= from);
        let last = self.places.partition_point(|(_, start, _)| *start < to);
        self.places.get(first..last).unwrap_or_default()
    }
}

/// The versions of all blocks of one container.
pub struct Blocks {
    geometry: Geometry,
    /// The container as the last image or write left it.
    current: Vec<u8>,
    versions: BTreeMap<Place, Vec<Vec<u8>>>,
    known: HashSet<(Place, [u8; 32])>,
    /// Images that were taken in.
    pub images: usize,
    /// Writes that were taken in.
    pub writes: usize,
}

impl Blocks {
    /// From the first image. `None` if no container has this size.
    #[must_use]
    pub fn of_image(image: &[u8]) -> Option<Self> {
        let geometry = Geometry::of(u64::try_from(image.len()).ok()?)?;
        let mut blocks = Self {
            current: image.to_vec(),
            geometry,
            versions: BTreeMap::new(),
            known: HashSet::new(),
            images: 1,
            writes: 0,
        };
        blocks.note(0, blocks.geometry.size);
        Some(blocks)
    }

    /// Takes in another image of the same container. `false` if it has another size.
    #[must_use]
    pub fn add_image(&mut self, image: &[u8]) -> bool {
        if image.len() != self.current.len() {
            return false;
        }
        self.images += 1;
        self.current.copy_from_slice(image);
        self.note(0, self.geometry.size);
        true
    }

    /// Takes in what was written to it, in order. A sync and what lies outside change nothing.
    pub fn add_write(&mut self, write: &Write) {
        let Some(offset) = write.offset else { return };
        let end = offset + write.bytes.len() as u64;
        let (Ok(from), Ok(to)) = (usize::try_from(offset), usize::try_from(end)) else { return };
        if let Some(target) = self.current.get_mut(from..to) {
            target.copy_from_slice(&write.bytes);
            self.writes += 1;
            self.note(offset, end);
        }
    }

    fn note(&mut self, from: u64, to: u64) {
        for (place, start, len) in self.geometry.touched(from, to) {
            let (Ok(start), Ok(len)) = (usize::try_from(*start), usize::try_from(*len)) else { continue };
            let bytes = &self.current[start..start + len];
            if self.known.insert((*place, Sha256::digest(bytes).into())) {
                self.versions.entry(*place).or_default().push(bytes.to_vec());
            }
        }
    }

    /// The container as it was last.
    #[must_use]
    pub fn last(&self) -> &[u8] {
        &self.current
    }

    /// Where things lie.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Every version of one place, oldest first.
    #[must_use]
    pub fn at(&self, place: Place) -> &[Vec<u8>] {
        self.versions.get(&place).map_or(&[], Vec::as_slice)
    }

    /// All places with their versions.
    pub fn all(&self) -> impl Iterator<Item = (Place, &[Vec<u8>])> {
        self.versions.iter().map(|(place, versions)| (*place, versions.as_slice()))
    }

    /// Versions of blocks in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.versions.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }
}
