//! Where everything lies: a pure function of the file's size.
//!
//! ```text
//! 0            salt block                      4,096
//! 4,096        header copy A                  69,632
//! 73,728       header copy B                  69,632
//! 143,360      region 0 .. region 3            4 × region length
//! end          random, less than 16 KiB
//! ```
//!
//! Invariants: no size or offset is stored; every offset is a multiple of 4,096, except that of a data unit,
//! which is a multiple of 512.

use crate::error::SizeError;

/// The unit of alignment.
pub(crate) const BLOCK: u64 = 4096;
/// Slots in a header copy.
pub(crate) const SLOT_COUNT: usize = 16;
/// Bytes of a slot as stored.
pub(crate) const SLOT_LEN: usize = 4096;
/// Bytes of a header copy: its head and its slots.
pub(crate) const COPY_LEN: usize = 4096 + SLOT_COUNT * SLOT_LEN;
/// Bytes of the salt block.
pub(crate) const SALT_BLOCK_LEN: usize = 4096;
/// Regions, and so volumes at most.
pub(crate) const REGION_COUNT: usize = 4;
/// Bytes of an allocation unit as stored.
pub(crate) const ALLOCATION_LEN: usize = 8192;
/// Bytes of a key-table unit as stored.
pub(crate) const TABLE_UNIT_LEN: usize = 4096;
/// Bytes between superblocks.
pub(crate) const SUPERBLOCK_STRIDE: u64 = 8192;
/// Bytes between data units: nine sectors, so that a torn sector never touches two units (VLT-52).
pub(crate) const UNIT_STRIDE: u64 = 4608;
/// Bytes of a page of the database, which is the plaintext of a data unit.
pub(crate) const PAGE_LEN: usize = 4096;

const REGIONS_START: u64 = BLOCK + 2 * COPY_LEN as u64;
/// Key-table units of a region: one per this many of its blocks ...
const BLOCKS_PER_TABLE_UNIT: u64 = 64;
/// ... within these bounds: 164 keys at least, 5,248 at most (82 a unit).
const TABLE_UNITS: (u64, u64) = (2, 64);

/// The size of a container: fixed at creation, a multiple of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerSize(u64);

impl ContainerSize {
    /// The smallest container, 8 MiB: an empty database needs 1.2 MiB in each of the four regions.
    pub const MIN: Self = Self(8 << 20);
    /// The largest, 16 GiB: a region then holds just under the 4 GiB that one database region addresses.
    pub const MAX: Self = Self(16 << 30);
    /// 256 MiB: about 45 MiB of content in each of the four volumes.
    pub const DEFAULT: Self = Self(256 << 20);

    /// A size in bytes.
    ///
    /// # Errors
    ///
    /// [`SizeError`] outside [`MIN`](Self::MIN) to [`MAX`](Self::MAX), or if not a multiple of 4,096.
    pub fn new(bytes: u64) -> Result<Self, SizeError> {
        // VLT-02: all offsets follow from the size alone.
        if !(Self::MIN.0..=Self::MAX.0).contains(&bytes) || !bytes.is_multiple_of(BLOCK) {
            return Err(SizeError);
        }
        Ok(Self(bytes))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Which region, from 0 to 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RegionIndex(u8);

impl RegionIndex {
    pub(crate) fn new(index: u8) -> Option<Self> {
        (usize::from(index) < REGION_COUNT).then_some(Self(index))
    }

    pub(crate) fn all() -> [Self; REGION_COUNT] {
        [Self(0), Self(1), Self(2), Self(3)]
    }

    pub(crate) fn as_u8(self) -> u8 {
        self.0
    }

    pub(crate) fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

/// All offsets of one container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    region_len: u64,
    table_units: u64,
    unit_count: u64,
}

impl Geometry {
    pub(crate) fn new(size: ContainerSize) -> Self {
        let region_len = (size.0 - REGIONS_START) / REGION_COUNT as u64 / BLOCK * BLOCK;
        let (least, most) = TABLE_UNITS;
        let table_units = (region_len / BLOCK / BLOCKS_PER_TABLE_UNIT).clamp(least, most);
        let units_start = units_start(table_units);
        Self { region_len, table_units, unit_count: (region_len - units_start) / UNIT_STRIDE }
    }

    pub(crate) fn region_len(&self) -> u64 {
        self.region_len
    }

    /// Key-table units, each stored twice.
    pub(crate) fn table_units(&self) -> usize {
        usize::try_from(self.table_units).unwrap_or(0)
    }

    /// Data units of a region.
    pub(crate) fn unit_count(&self) -> u64 {
        self.unit_count
    }

    pub(crate) fn header_copy(copy: usize) -> u64 {
        BLOCK + copy as u64 * COPY_LEN as u64
    }

    pub(crate) fn region(&self, region: RegionIndex) -> u64 {
        REGIONS_START + u64::from(region.0) * self.region_len
    }

    /// Copies A and B of the allocation unit follow each other.
    pub(crate) fn allocation(&self, region: RegionIndex, copy: usize) -> u64 {
        self.region(region) + copy as u64 * ALLOCATION_LEN as u64
    }

    pub(crate) fn table_unit(&self, region: RegionIndex, unit: usize, copy: usize) -> u64 {
        self.region(region)
            + 2 * ALLOCATION_LEN as u64
            + (unit as u64 * 2 + copy as u64) * TABLE_UNIT_LEN as u64
    }

    pub(crate) fn superblock(&self, region: RegionIndex, copy: usize) -> u64 {
        self.region(region) + superblocks_start(self.table_units) + copy as u64 * SUPERBLOCK_STRIDE
    }

    pub(crate) fn unit(&self, region: RegionIndex, unit: u64) -> u64 {
        self.region(region) + units_start(self.table_units) + unit * UNIT_STRIDE
    }
}

fn superblocks_start(table_units: u64) -> u64 {
    2 * ALLOCATION_LEN as u64 + 2 * table_units * TABLE_UNIT_LEN as u64
}

fn units_start(table_units: u64) -> u64 {
    superblocks_start(table_units) + 2 * SUPERBLOCK_STRIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_outside_the_bounds_are_refused() {
        for bytes in [0, 4096, (8 << 20) - 4096, (8 << 20) + 1, (16 << 30) + 4096, u64::MAX] {
            assert!(ContainerSize::new(bytes).is_err(), "{bytes}");
        }
        assert_eq!(ContainerSize::new(8 << 20).unwrap(), ContainerSize::MIN);
    }

    #[test]
    fn nothing_overlaps_and_nothing_leaves_its_region_or_the_file() {
        for bytes in [8 << 20, (8 << 20) + 4096, 9 << 20, 256 << 20, 16 << 30] {
            let geometry = Geometry::new(ContainerSize::new(bytes).unwrap());
            let mut end = REGIONS_START;
            for region in RegionIndex::all() {
                assert_eq!(geometry.region(region), end);
                assert_eq!(geometry.allocation(region, 0), end);
                let last = geometry.table_units() - 1;
                assert_eq!(geometry.table_unit(region, 0, 0), geometry.allocation(region, 1) + 8192);
                assert_eq!(geometry.superblock(region, 0), geometry.table_unit(region, last, 1) + 4096);
                assert_eq!(geometry.unit(region, 0), geometry.superblock(region, 1) + 8192);
                end += geometry.region_len();
                assert!(geometry.unit(region, geometry.unit_count()) <= end);
                assert!(geometry.unit(region, geometry.unit_count() + 1) > end);
            }
            assert!(end <= bytes && bytes - end < 4 * BLOCK);
        }
    }

    #[test]
    fn default_container_holds_thousands_of_keys_and_56_mib_of_pages_a_volume() {
        let geometry = Geometry::new(ContainerSize::DEFAULT);
        assert_eq!(geometry.table_units(), 64);
        assert_eq!(geometry.unit_count(), 14_434);
    }
}
