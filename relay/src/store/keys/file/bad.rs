//! Copies of units that the disk could not read.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Place;

/// Copies that are remembered. A disk of which more is bad is asked again each time.
const MOST: usize = 4096;

/// When the disk could not read which copies.
#[derive(Debug)]
pub(super) struct Bad {
    time: Duration,
    since: BTreeMap<(Place, u64), Instant>,
}

impl Bad {
    /// Remembers each for a time.
    pub(super) fn new(time: Duration) -> Self {
        Self { time, since: BTreeMap::new() }
    }

    pub(super) fn remember(&mut self, place: Place, copy: u64, now: Instant) {
        if self.since.len() >= MOST {
            self.since.retain(|_, since| now.saturating_duration_since(*since) < self.time);
        }
        if self.since.len() < MOST {
            self.since.insert((place, copy), now);
        }
    }

    /// Which copies of a unit are not to be read again yet.
    pub(super) fn known(&mut self, place: Place, now: Instant) -> [bool; 2] {
        [0, 1].map(|copy| {
            let Some(since) = self.since.get(&(place, copy)) else { return false };
            let is_known = now.saturating_duration_since(*since) < self.time;
            if !is_known {
                self.since.remove(&(place, copy));
            }
            is_known
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_forgotten_after_its_time_and_bounded() {
        let begun = super::super::now();
        let place = |unit| Place { is_of_anchors: false, unit };
        let time = Duration::from_secs(600);
        let mut bad = Bad::new(time);
        bad.remember(place(3), 1, begun);
        assert_eq!(bad.known(place(3), begun + time / 2), [false, true]);
        assert_eq!(bad.known(Place { is_of_anchors: true, unit: 3 }, begun), [false; 2]);
        assert_eq!(bad.known(place(3), begun + time), [false; 2]);
        for unit in 0..2 * MOST as u64 {
            bad.remember(place(unit), 0, begun);
        }
        assert_eq!(bad.since.len(), MOST);
        assert_eq!(bad.known(place(MOST as u64), begun), [false; 2]);
        bad.remember(place(MOST as u64), 0, begun + time);
        assert_eq!(bad.known(place(MOST as u64), begun + time), [true, false]);
        assert_eq!(bad.since.len(), 1);
    }
}
