//! Controls: what a container would look like if the format leaked. Each is done to the bytes of a container of the
//! population that has a second passphrase, and the same pipeline has to catch it.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;

use crate::layout::{COPIES, COPY_HEAD, REGION, REGION_HEAD, REGIONS, SLOT, UNIT, UNITS};

/// A way to leak, from the crudest to the subtlest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leak {
    /// What is not used behind each data unit of one region is zero.
    ZeroPadding,
    /// A slot that was to be destroyed keeps its stored bytes in both header copies.
    SameSlotInBothCopies,
    /// Two slots were sealed with the same keystream, and nothing in them.
    RepeatedKeystream,
    /// A count of unlocks, beginning with zero, in a byte of the header's head.
    VisibleCounter,
    /// The first byte of every unused slot is zero.
    ZeroByteOfUnusedSlots,
    /// Random filling that never makes one of the 256 bytes, in one region.
    WeakFilling,
    /// One bit of the header is one in this share of the containers, in percent, instead of in half of them.
    BiasedBit(u32),
}

impl Leak {
    /// All controls.
    pub const ALL: [Self; 9] = [
        Self::ZeroPadding,
        Self::SameSlotInBothCopies,
        Self::RepeatedKeystream,
        Self::VisibleCounter,
        Self::ZeroByteOfUnusedSlots,
        Self::WeakFilling,
        Self::BiasedBit(100),
        Self::BiasedBit(90),
        Self::BiasedBit(65),
    ];

    /// Whether it has to be caught among so many containers of each population. The last one is below what few
    /// containers can tell, and shows where that is: among millions of bits some are as uneven by chance.
    #[must_use]
    pub const fn must_be_caught(self, containers: usize) -> bool {
        match self {
            Self::BiasedBit(percent) => percent >= 90 || containers >= 2_000,
            _ => true,
        }
    }

    /// What it is called in a report.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::ZeroPadding => "zeros behind each data unit of a region".to_owned(),
            Self::SameSlotInBothCopies => "a slot that is equal in both headers".to_owned(),
            Self::RepeatedKeystream => "two slots under one keystream".to_owned(),
            Self::VisibleCounter => "a count of unlocks in one byte".to_owned(),
            Self::ZeroByteOfUnusedSlots => "one zero byte in unused slots".to_owned(),
            Self::WeakFilling => "filling that never makes one byte".to_owned(),
            Self::BiasedBit(percent) => format!("one bit of the header, set in {percent} % instead of 50 %"),
        }
    }

    /// Leaks in the image of a container.
    pub fn plant(self, image: &mut [u8], seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut below = |bound: usize| usize::try_from(rng.next_u64() % bound as u64).unwrap_or(0);
        let slot = |copy: usize, number: usize| COPIES[copy].start + COPY_HEAD + number * SLOT;
        match self {
            Self::ZeroPadding => {
                let units = REGIONS + below(4) * REGION + REGION_HEAD;
                for unit in 0..UNITS {
                    image[units + unit * UNIT + 4136..units + (unit + 1) * UNIT].fill(0);
                }
            }
            Self::SameSlotInBothCopies => {
                let number = below(16);
                let start = slot(0, number);
                image.copy_within(start..start + SLOT, slot(1, number));
            }
            Self::RepeatedKeystream => {
                let one = below(16);
                let other = (one + 1 + below(15)) % 16;
                // Behind offline part and nonce.
                let start = slot(0, one) + 536;
                image.copy_within(start..start + 3560, slot(0, other) + 536);
            }
            Self::VisibleCounter => {
                let unlocks = 1 + below(4);
                image[COPIES[0].start + 1784] = u8::try_from(unlocks).unwrap_or(0);
            }
            Self::ZeroByteOfUnusedSlots => {
                let used = [below(16), below(16), below(16), below(16)];
                for number in (0..16).filter(|number| !used.contains(number)) {
                    image[slot(0, number)] = 0;
                    image[slot(1, number)] = 0;
                }
            }
            Self::WeakFilling => {
                let start = REGIONS + below(4) * REGION;
                image[start..start + REGION]
                    .iter_mut()
                    .filter(|byte| **byte == 255)
                    .for_each(|byte| *byte = 254);
            }
            Self::BiasedBit(percent) => {
                let set = u32::try_from(below(100)).unwrap_or(0) < percent;
                let byte = &mut image[COPIES[0].start + 2000];
                *byte = *byte & 0xef | u8::from(set) << 4;
            }
        }
    }
}
