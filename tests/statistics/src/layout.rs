//! Which bytes of a container are looked at: `docs/vault-format.md`, sections 2 and 4.
//!
//! Of a container of the smallest size everything that has a fixed place is looked at whole (salt block, both header
//! copies, the heads of all regions, the end of the file), and of the data units a seeded choice, the same in every
//! container of a run. [`Scope::Whole`] looks at all of them.

use std::ops::Range;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;

/// The size of every container here: the smallest that the format has.
pub const SIZE: usize = 8 << 20;
/// The salt block.
pub const SALT: Range<usize> = 0..4096;
/// The header copies.
pub const COPIES: [Range<usize>; 2] = [4096..73_728, 73_728..143_360];
/// Bytes of the head of a header copy, before its slots.
pub const COPY_HEAD: usize = 4096;
/// Bytes of a slot.
pub const SLOT: usize = 4096;
/// Slots of a header copy.
pub const SLOTS: usize = 16;
/// Bytes of a region.
pub const REGION: usize = 2_060_288;
/// Where the regions begin.
pub const REGIONS: usize = 143_360;
/// Bytes of a region before its data units: allocation units, seven key-table units, superblocks, each twice.
pub const REGION_HEAD: usize = 2 * 8192 + 2 * 7 * 4096 + 2 * 8192;
/// Bytes from one data unit to the next; 4,136 of them are used.
pub const UNIT: usize = 4608;
/// Data units of a region.
pub const UNITS: usize = (REGION - REGION_HEAD) / UNIT;
/// The end of the file, which no region has.
pub const END: Range<usize> = REGIONS + 4 * REGION..SIZE;

/// How much of the data units is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This many of each region, chosen by a seed.
    Chosen(usize),
    /// All.
    Whole,
}

/// What is looked at in every container of a run.
#[derive(Debug, Clone)]
pub struct Look {
    units: Vec<usize>,
}

impl Look {
    /// The places of a run.
    #[must_use]
    pub fn new(scope: Scope, seed: u64) -> Self {
        let mut units: Vec<usize> = (0..UNITS).collect();
        if let Scope::Chosen(count) = scope {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            for place in 0..count.min(UNITS) {
                let rest = (UNITS - place) as u64;
                units.swap(place, place + usize::try_from(rng.next_u64() % rest).unwrap_or(0));
            }
            units.truncate(count);
            units.sort_unstable();
        }
        Self { units }
    }

    /// Data units of a region that are looked at.
    #[must_use]
    pub fn units(&self) -> &[usize] {
        &self.units
    }

    /// Bytes of a container that are looked at.
    #[must_use]
    pub fn len(&self) -> usize {
        REGIONS + 4 * (REGION_HEAD + self.units.len() * UNIT) + END.len()
    }

    /// Whether nothing is looked at, which never happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The looked-at bytes of an image, in the order of [`Part::all`].
    #[must_use]
    pub fn taken(&self, image: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        out.extend_from_slice(&image[..REGIONS]);
        for region in 0..4 {
            let start = REGIONS + region * REGION;
            out.extend_from_slice(&image[start..start + REGION_HEAD]);
        }
        for region in 0..4 {
            let units = REGIONS + region * REGION + REGION_HEAD;
            for unit in &self.units {
                out.extend_from_slice(&image[units + unit * UNIT..units + (unit + 1) * UNIT]);
            }
        }
        out.extend_from_slice(&image[END]);
        out
    }

    /// Where a part lies in what [`Look::taken`] gives.
    #[must_use]
    pub fn range(&self, part: Part) -> Range<usize> {
        let units = self.units.len() * UNIT;
        let heads = REGIONS;
        let bodies = heads + 4 * REGION_HEAD;
        match part {
            Part::Salt => SALT,
            Part::CopyHead(copy) => COPIES[copy].start..COPIES[copy].start + COPY_HEAD,
            Part::Slots(copy) => COPIES[copy].start + COPY_HEAD..COPIES[copy].end,
            Part::RegionHead(region) => heads + region * REGION_HEAD..heads + (region + 1) * REGION_HEAD,
            Part::Units(region) => bodies + region * units..bodies + (region + 1) * units,
            Part::End => bodies + 4 * units..bodies + 4 * units + END.len(),
        }
    }
}

/// A part of a container with a meaning of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The salt block.
    Salt,
    /// Keys, generation and MAC of a header copy.
    CopyHead(usize),
    /// The slots of a header copy.
    Slots(usize),
    /// Allocation units, key table and superblocks of a region.
    RegionHead(usize),
    /// Data units of a region.
    Units(usize),
    /// What no region has.
    End,
}

impl Part {
    /// All parts, in order.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Salt];
        for copy in 0..2 {
            all.extend([Self::CopyHead(copy), Self::Slots(copy)]);
        }
        all.extend((0..4).map(Self::RegionHead));
        all.extend((0..4).map(Self::Units));
        all.push(Self::End);
        all
    }

    /// What it is called in a report.
    #[must_use]
    pub fn name(self) -> String {
        let copy = |copy: usize| ["A", "B"][copy];
        match self {
            Self::Salt => "salt block".to_owned(),
            Self::CopyHead(which) => format!("head of header {}", copy(which)),
            Self::Slots(which) => format!("slots of header {}", copy(which)),
            Self::RegionHead(region) => format!("head of region {region}"),
            Self::Units(region) => format!("units of region {region}"),
            Self::End => "end of the file".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_all_that_is_looked_at_once() {
        for scope in [Scope::Chosen(5), Scope::Whole] {
            let look = Look::new(scope, 1);
            let mut at = 0;
            for part in Part::all() {
                let range = look.range(part);
                assert_eq!(range.start, at, "{part:?}");
                at = range.end;
            }
            assert_eq!(at, look.len());
            let image: Vec<u8> = (0..SIZE).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let taken = look.taken(&image);
            assert_eq!(taken.len(), look.len());
            let first = REGIONS + REGION + REGION_HEAD + look.units()[0] * UNIT;
            assert_eq!(taken[look.range(Part::Units(1))][..UNIT], image[first..first + UNIT]);
        }
    }
}
