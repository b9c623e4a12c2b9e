//! How long to wait before the next attempt: exponential, jittered, bounded. Pure.

use std::time::Duration;

use rand_core::CryptoRng;

/// First wait: long enough for a relay that restarts, short enough for a person who waits.
pub const FIRST: Duration = Duration::from_millis(500);

/// Longest wait: a phone that comes out of a tunnel, or a relay that is back, is found within this.
pub const LONGEST: Duration = Duration::from_secs(120);

/// Waits between attempts. Each is drawn evenly from the upper half of a span that doubles from `first` to `longest`,
/// so that clients cut off together do not come back together, and none comes back at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    span: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(FIRST, LONGEST)
    }
}

impl Backoff {
    /// Waits from `first` up to `longest`. A `longest` below `first` counts as `first`; both count in whole
    /// nanoseconds and at most 2^64 of them.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), span: first }
    }

    /// How long to wait now; the next span is twice as long, up to the longest.
    pub fn after_failure(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Duration {
        let span = u64::try_from(self.span.as_nanos()).unwrap_or(u64::MAX);
        let half = span / 2;
        let drawn = (u128::from(rng.next_u64()) * (u128::from(span - half) + 1)) >> 64;
        self.span = self.span.saturating_mul(2).min(self.longest);
        // `drawn` is at most `span - half`, so both the conversion and the sum are exact.
        Duration::from_nanos(half.saturating_add(u64::try_from(drawn).unwrap_or(u64::MAX)))
    }

    /// An attempt worked: the next failure starts from the first span again.
    pub fn reset(&mut self) {
        self.span = self.first;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn spans_double_up_to_the_longest_and_start_again() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for span in [1u64, 2, 4, 5, 5] {
            let wait = backoff.after_failure(&mut rng);
            let span = Duration::from_secs(span);
            assert!(wait >= span / 2 && wait <= span, "{wait:?} of {span:?}");
        }
        backoff.reset();
        assert!(backoff.after_failure(&mut rng) <= Duration::from_secs(1));
    }

    #[test]
    fn clients_cut_off_together_do_not_come_back_together() {
        let waits: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| Backoff::default().after_failure(&mut ChaCha20Rng::seed_from_u64(seed)))
            .collect();
        assert!(waits.len() > 90);
        let (least, most) = (waits.first().unwrap(), waits.last().unwrap());
        assert!(*most - *least > FIRST / 4);
    }

    proptest! {
        #[test]
        fn no_wait_is_above_the_longest(
            first in 0u64..=u64::MAX, longest in 0u64..=u64::MAX, seed in any::<u64>(), tries in 1usize..80
        ) {
            let (first, longest) = (Duration::from_nanos(first), Duration::from_nanos(longest));
            let mut backoff = Backoff::new(first, longest);
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            for _ in 0..tries {
                let wait = backoff.after_failure(&mut rng);
                prop_assert!(wait <= longest.max(first));
                prop_assert!(wait >= first / 2);
            }
        }
    }
}
