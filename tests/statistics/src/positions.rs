//! How often each bit is one, over a whole population: at its place, and at the same place of everything alike
//! (slots, region heads, data units).

use crate::layout::{COPIES, COPY_HEAD, Look, Part, SLOT, UNIT};

/// Additions that a lane of eight bits takes before it has to be emptied.
const LANE: u32 = 255;
/// Bit `i` of each lane `i`.
const DIAGONAL: u64 = 0x8040_2010_0804_0201;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Counts of one population, of at most 65,535 containers.
#[derive(Debug, Clone)]
pub struct BitCounts {
    containers: u32,
    counts: Vec<u16>,
    /// For each byte, eight counts of eight bits that are not in `counts` yet: eight times as fast.
    lanes: Vec<u64>,
    pending: u32,
}

impl BitCounts {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(look: &Look) -> Self {
        Self { containers: 0, counts: vec![0; look.len() * 8], lanes: vec![0; look.len()], pending: 0 }
    }

    /// Counts one container.
    pub fn add(&mut self, taken: &[u8]) {
        if self.pending == LANE {
            self.empty_lanes();
        }
        self.containers += 1;
        self.pending += 1;
        for (byte, lanes) in taken.iter().zip(&mut self.lanes) {
            let spread = (u64::from(*byte) * ONES) & DIAGONAL;
            // A lane that is not zero carries into its highest bit and no further.
            *lanes += (spread + 0x7f * ONES) >> 7 & ONES;
        }
    }

    /// Takes over what another counted.
    pub fn merge(&mut self, mut other: Self) {
        self.empty_lanes();
        other.empty_lanes();
        self.containers += other.containers;
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    fn empty_lanes(&mut self) {
        for (lanes, counts) in self.lanes.iter_mut().zip(self.counts.chunks_exact_mut(8)) {
            for (lane, count) in lanes.to_le_bytes().into_iter().zip(counts) {
                *count += u16::from(lane);
            }
            *lanes = 0;
        }
        self.pending = 0;
    }

    /// The counts, with those that are still in lanes.
    fn settled(&self) -> Vec<u32> {
        let lanes = self.lanes.iter().flat_map(|lanes| lanes.to_le_bytes());
        self.counts.iter().zip(lanes).map(|(count, lane)| u32::from(*count) + u32::from(lane)).collect()
    }

    /// A family of places: each with its count of ones and how many bits were counted there.
    fn places(&self, look: &Look, family: Family) -> Vec<(f64, f64)> {
        let counts = self.settled();
        let bits = |range: std::ops::Range<usize>| &counts[range.start * 8..range.end * 8];
        let each = f64::from(self.containers);
        let folded = |parts: &[std::ops::Range<usize>], period: usize| {
            let mut sums = vec![0u64; period * 8];
            let mut copies = 0.0;
            for part in parts {
                for one in bits(part.clone()).chunks_exact(period * 8) {
                    copies += 1.0;
                    sums.iter_mut().zip(one).for_each(|(sum, count)| *sum += u64::from(*count));
                }
            }
            sums.into_iter().map(|sum| (sum as f64, each * copies)).collect()
        };
        let of = |part: fn(usize) -> Part, count: usize| -> Vec<_> {
            (0..count).map(|which| look.range(part(which))).collect()
        };
        match family {
            Family::Place => counts.iter().map(|count| (f64::from(*count), each)).collect(),
            Family::Slot => folded(&of(Part::Slots, 2), SLOT),
            Family::CopyHead => folded(&COPIES.map(|copy| copy.start..copy.start + COPY_HEAD), COPY_HEAD),
            Family::RegionHead => folded(&of(Part::RegionHead, 4), crate::layout::REGION_HEAD),
            Family::Unit => folded(&of(Part::Units, 4), UNIT),
        }
    }
}

/// Which places are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// None: every bit that is looked at.
    Place,
    /// The same bit of all slots.
    Slot,
    /// The same bit of both heads of headers.
    CopyHead,
    /// The same bit of all heads of regions.
    RegionHead,
    /// The same bit of all data units.
    Unit,
}

impl Family {
    /// All.
    pub const ALL: [Self; 5] = [Self::Place, Self::Slot, Self::CopyHead, Self::RegionHead, Self::Unit];

    /// What it is called in a report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Place => "bits at every place",
            Self::Slot => "bits of a slot",
            Self::CopyHead => "bits of a header's head",
            Self::RegionHead => "bits of a region's head",
            Self::Unit => "bits of a data unit",
        }
    }
}

/// The largest difference between two populations at any place of a family, in standard deviations of fair coins, and
/// among how many places.
#[must_use]
pub fn largest_difference(look: &Look, one: &BitCounts, other: &BitCounts, family: Family) -> (f64, usize) {
    let (one, other) = (one.places(look, family), other.places(look, family));
    let differences = one.iter().zip(&other).map(|((ones, bits), (other_ones, other_bits))| {
        let spread = (0.25 / bits + 0.25 / other_bits).sqrt();
        ((ones / bits - other_ones / other_bits) / spread).abs()
    });
    (differences.fold(0.0, f64::max), one.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Scope;

    #[test]
    fn a_bit_that_is_always_set_in_one_population_is_the_largest_difference() {
        let look = Look::new(Scope::Chosen(1), 0);
        let (mut one, mut other) = (BitCounts::new(&look), BitCounts::new(&look));
        let mut bytes = vec![0; look.len()];
        for _ in 0..8 {
            other.add(&bytes);
        }
        // Slot 3 of header B.
        bytes[COPIES[1].start + COPY_HEAD + 3 * SLOT + 9] = 0b100;
        for _ in 0..8 {
            one.add(&bytes);
        }
        let (z, places) = largest_difference(&look, &one, &other, Family::Place);
        assert_eq!(places, look.len() * 8);
        assert!((z - 4.0).abs() < 1e-9, "{z}");
        let (z, places) = largest_difference(&look, &one, &other, Family::Slot);
        assert_eq!(places, SLOT * 8);
        // One of 32 slots: 1/32 over sqrt(2 * 0.25 / 256).
        assert!((z - 0.031_25 / (0.5f64 / 256.0).sqrt()).abs() < 1e-9, "{z}");
    }

    #[test]
    fn every_bit_is_counted_at_its_place_beyond_one_lane() {
        let look = Look::new(Scope::Chosen(1), 0);
        let mut counts = BitCounts::new(&look);
        let mut bytes = vec![0; look.len()];
        for container in 0..600u32 {
            bytes[5] = u8::try_from(container % 256).unwrap();
            counts.add(&bytes);
        }
        let expected = |bit: u32| (0..600u32).filter(|container| ((container % 256) >> bit) & 1 == 1).count();
        for bit in 0..8 {
            assert_eq!(counts.settled()[5 * 8 + bit as usize] as usize, expected(bit));
        }
        let mut sum = BitCounts::new(&look);
        sum.merge(counts.clone());
        assert_eq!(sum.settled(), counts.settled());
        assert!(sum.counts[..5 * 8].iter().all(|count| *count == 0));
        assert_eq!(sum.containers, 600);
    }
}
