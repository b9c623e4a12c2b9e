//! Sets of data units, one bit each: 2 KiB for a region of the default container, 128 KiB for the largest.

/// Which data units of a region. All have the same length; a unit beyond it is in no set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PageSet {
    words: Vec<u64>,
    len: u64,
}

impl PageSet {
    /// No unit of a region that has `len`.
    pub(crate) fn empty(len: u64) -> Self {
        let words = usize::try_from(len.div_ceil(64)).unwrap_or(0);
        Self { words: vec![0; words], len }
    }

    /// Whether the unit was added just now.
    pub(crate) fn insert(&mut self, unit: u64) -> bool {
        let fresh = !self.contains(unit);
        self.set(unit, true);
        fresh
    }

    pub(crate) fn set(&mut self, unit: u64, present: bool) {
        if unit >= self.len {
            return;
        }
        if let Some(word) = usize::try_from(unit / 64).ok().and_then(|at| self.words.get_mut(at)) {
            let bit = 1 << (unit % 64);
            *word = if present { *word | bit } else { *word & !bit };
        }
    }

    pub(crate) fn contains(&self, unit: u64) -> bool {
        let word = usize::try_from(unit / 64).ok().and_then(|at| self.words.get(at));
        unit < self.len && word.is_some_and(|word| word >> (unit % 64) & 1 == 1)
    }

    /// Takes out all units of the other set.
    pub(crate) fn remove(&mut self, other: &Self) {
        for (word, less) in self.words.iter_mut().zip(&other.words) {
            *word &= !less;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len).filter(|unit| self.contains(*unit))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(
            len in 1u64..300,
            one in prop::collection::btree_set(0u64..320, 0..40),
            other in prop::collection::btree_set(0u64..320, 0..40),
        ) {
            let inside = |units: &BTreeSet<u64>| units.iter().copied().filter(|unit| *unit < len).collect();
            let (one, other): (BTreeSet<u64>, BTreeSet<u64>) = (inside(&one), inside(&other));
            let (mut a, mut b) = (PageSet::empty(len), PageSet::empty(len));
            one.iter().for_each(|unit| assert!(a.insert(*unit) && !a.insert(*unit)));
            other.iter().for_each(|unit| assert!(b.insert(*unit)));
            prop_assert!(!a.contains(len) && !a.contains(u64::MAX));
            prop_assert_eq!(a.count(), one.len() as u64);
            a.remove(&b);
            prop_assert_eq!(a.iter().collect::<BTreeSet<_>>(), &one - &other);
            b.clear();
            prop_assert_eq!(b.count(), 0);
        }
    }
}
