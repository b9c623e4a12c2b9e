//! Access tickets, and how many places of envelopes each of them answers for.

use lapwing_wire::{
    capability::{Access, PublicKey},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::Day;

/// Days that are told apart: all of the usual retention, and today. Of a longer one they are rounded up to every second, fourth,
/// ... day, so that a ticket's record, which is written with what is appended, has some 200 bytes more and not thousands.
const MOST_DAYS: usize = 32;

/// For so many bytes of its quota a ticket may have one place remembered: one is a record of 100 bytes, and what the index adds. So
/// places and what waits take about twice the quota together. Above it nothing is appended but from reserves.
const BYTES_FOR_PLACE: u64 = 128;
/// Places that each ticket may have remembered, however small it is: 64 KiB.
const LEAST_PLACES: u64 = 512;

/// An access ticket as the relay knows it: its public half, what it may use and what it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Proved by whoever uses it.
    pub key: PublicKey<Access>,
    /// Most bytes of envelopes, blobs and tripwires at one time.
    pub quota_bytes: u64,
    /// Most mailboxes at one time.
    pub quota_mailboxes: u64,
    /// Not valid from here on.
    pub expires: Option<Timestamp>,
    /// Ended by the operator.
    pub revoked: bool,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Mailboxes in use.
    pub used_mailboxes: u64,
    /// Places that are remembered on its account, also those of what was taken and of mailboxes that are closed.
    #[serde(default, skip_serializing_if = "Remembered::is_empty")]
    pub(crate) remembered: Remembered,
}

impl Ticket {
    /// An unused ticket.
    pub const fn new(
        key: PublicKey<Access>,
        quota_bytes: u64,
        quota_mailboxes: u64,
        expires: Option<Timestamp>,
    ) -> Self {
        Self {
            key,
            quota_bytes,
            quota_mailboxes,
            expires,
            revoked: false,
            used_bytes: 0,
            used_mailboxes: 0,
            remembered: Remembered::none(),
        }
    }

    /// Whether one more place may be remembered on its account.
    pub(crate) fn has_places(&self) -> bool {
        self.remembered.sum() < (self.quota_bytes / BYTES_FOR_PLACE).max(LEAST_PLACES)
    }

    /// Whether it may be used for something new.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires.is_none_or(|end| now < end)
    }
}

/// How many places were given on each day that is not swept yet.
///
/// Invariant: ascending days, and none before the day on which its places were given: they are gone before they are no
/// longer counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Remembered(Vec<(Day, u64)>);

impl Remembered {
    pub(crate) const fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that are counted.
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// One more.
    pub(crate) fn count(&mut self, day: Day) {
        match self.0.last_mut() {
            // Later, because days were rounded up.
            Some((last, count)) if *last >= day => *count = count.saturating_add(1),
            _ => self.0.push((day, 1)),
        }
        let mut width = 1;
        while self.0.len() > MOST_DAYS && width < 1 << 31 {
            width *= 2;
            self.round(width);
        }
    }

    /// What was given before a day is not remembered any more; whether there was any.
    pub(crate) fn forget_before(&mut self, day: Day) -> bool {
        let before = self.0.len();
        self.0.retain(|(given, _)| *given >= day);
        self.0.len() != before
    }

    /// Days up to a multiple of `width`; those that are there already stay.
    fn round(&mut self, width: u32) {
        let mut rounded: Vec<(Day, u64)> = Vec::with_capacity(self.0.len());
        for (Day(day), count) in self.0.drain(..) {
            let day = Day(day.div_ceil(width).saturating_mul(width));
            match rounded.last_mut() {
                Some((last, sum)) if *last >= day => *sum = sum.saturating_add(count),
                _ => rounded.push((day, count)),
            }
        }
        self.0 = rounded;
    }
}

#[cfg(test)]
mod tests {
    use lapwing_wire::codec;

    use super::*;

    /// Appends every day, with a sweep every day.
    fn use_daily(retention: u32, days: u32) -> Remembered {
        let mut remembered = Remembered::none();
        for day in 1..=days {
            for _ in 0..3 {
                remembered.count(Day(day));
            }
            let keep_from = Day(day.saturating_sub(retention));
            remembered.forget_before(keep_from);
            let there = 3 * u64::from(day - keep_from.0.max(1) + 1);
            assert!(remembered.sum() >= there, "day {day}: what is there is counted");
            assert!(remembered.0.len() <= MOST_DAYS);
            assert!(remembered.0.is_sorted());
        }
        remembered
    }

    #[test]
    fn each_day_of_the_usual_retention_is_given_back_on_its_day() {
        let mut remembered = use_daily(30, 400);
        assert_eq!(remembered.sum(), 31 * 3);
        for left in (0..31).rev() {
            assert!(remembered.forget_before(Day(400 - left + 1)));
            assert_eq!(remembered.sum(), u64::from(left) * 3);
        }
        assert!(remembered.is_empty() && !remembered.forget_before(Day(500)));
    }

    #[test]
    fn a_long_retention_is_counted_in_steps_and_given_back_all_the_same() {
        for retention in [31, 32, 90, 3650, 40_000] {
            let remembered = use_daily(retention, 3 * retention);
            let late = u64::from(retention / 14 + 2);
            assert!(
                remembered.sum() <= 3 * (u64::from(retention) + 1 + late),
                "{retention}: {}",
                remembered.sum()
            );
            assert!(codec::encode(&remembered).len() < 512);
        }
    }

    #[test]
    fn the_last_days_of_the_clock_are_counted() {
        let mut remembered = Remembered::none();
        for day in (0..100).map(|n| u32::MAX - 99 + n).chain([7]) {
            remembered.count(Day(day));
        }
        assert!(remembered.sum() == 101 && remembered.0.len() <= MOST_DAYS);
    }
}
