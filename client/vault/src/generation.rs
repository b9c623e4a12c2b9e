//! Generations: which of two copies is the newer.
//!
//! Invariants: a generation starts at a random value and wraps, and is compared only with that of the other
//! copy (VLT-45): who reads one learns nothing about how many changes there were, and so nothing about
//! sessions of which it knows nothing.

use rand_core::CryptoRng;

/// Bytes of a generation as stored, little-endian.
pub(crate) const GENERATION_LEN: usize = 8;

/// The generation of one of two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    /// Where a pair of copies starts.
    pub(crate) fn random(rng: &mut dyn CryptoRng) -> Self {
        Self(rng.next_u64())
    }

    /// That of the next change.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this is later than `other`, which is at most half the circle away.
    pub(crate) fn is_newer_than(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }

    pub(crate) fn to_bytes(self) -> [u8; GENERATION_LEN] {
        self.0.to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; GENERATION_LEN]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    #[test]
    fn vlt_45_order_holds_across_the_end_of_the_circle() {
        let last = Generation(u64::MAX);
        assert!(last.next().is_newer_than(last) && !last.is_newer_than(last.next()));
        assert!(!last.is_newer_than(last));
    }

    #[test]
    fn vlt_45_start_is_anywhere() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        // Each quarter of the circle, and each last byte's parity.
        let mut seen = [[0; 2]; 4];
        for _ in 0..400 {
            let Generation(value) = Generation::random(&mut rng);
            seen[usize::try_from(value >> 62).unwrap()][usize::try_from(value & 1).unwrap()] += 1;
        }
        assert!(seen.iter().flatten().all(|count| *count > 20), "{seen:?}");
    }

    proptest! {
        #[test]
        fn round_trip(value: u64) {
            let one = Generation(value);
            prop_assert_eq!(Generation::from_bytes(one.to_bytes()), one);
            prop_assert!(one.next().is_newer_than(one));
        }
    }
}
