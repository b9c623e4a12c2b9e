//! Keys that are to be forgotten, and when.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::super::keys::Slot;

/// Times `forget_after` (9 s): how often what the disk cannot read is tried in the end, about once an hour. A look may hold the
/// disk for tens of seconds, and everybody waits.
const LONGEST: u32 = 400;

/// What is to be forgotten: of each slot all before a number, or all.
#[derive(Default)]
pub(super) struct Due {
    /// With the next forgetting.
    next: BTreeMap<Slot, u64>,
    /// What the disk could not read.
    kept: BTreeMap<Slot, Kept>,
}

struct Kept {
    before: u64,
    /// Between the last try and the next.
    wait: Duration,
    at: Instant,
}

impl Due {
    /// From before the store was opened.
    pub(super) fn of(due: BTreeMap<Slot, u64>) -> Self {
        Self { next: due, kept: BTreeMap::new() }
    }

    /// With the next forgetting.
    pub(super) fn add(&mut self, due: BTreeMap<Slot, u64>) {
        self.next.extend(due);
    }

    /// What is to be forgotten now: all that is new, and of what the disk could not read that whose time has come.
    pub(super) fn take(&mut self, now: Instant) -> BTreeMap<Slot, u64> {
        let mut all = std::mem::take(&mut self.next);
        for (slot, kept) in self.kept.iter().filter(|(_, kept)| kept.at <= now) {
            all.entry(*slot).or_insert(kept.before);
        }
        all
    }

    /// What was tried, and what of it the disk could not read. After each try whose time had come that is left alone for twice as long.
    pub(super) fn tried(
        &mut self,
        tried: &BTreeMap<Slot, u64>,
        left: &BTreeMap<Slot, u64>,
        forget_after: Duration,
        now: Instant,
    ) {
        for slot in tried.keys() {
            let Some(before) = left.get(slot) else {
                self.kept.remove(slot);
                continue;
            };
            match self.kept.get_mut(slot) {
                Some(kept) => {
                    kept.before = *before;
                    if kept.at <= now {
                        kept.wait = (kept.wait * 2).min(forget_after.saturating_mul(LONGEST));
                        kept.at = now + kept.wait;
                    }
                }
                None => {
                    let kept = Kept { before: *before, wait: forget_after, at: now + forget_after };
                    self.kept.insert(*slot, kept);
                }
            }
        }
    }

    /// When to forget next. Nothing is tried twice within `forget_after`.
    pub(super) fn next_at(&self, forget_after: Duration, now: Instant) -> Option<Instant> {
        let soonest = now + forget_after;
        let next = (!self.next.is_empty()).then_some(soonest);
        next.into_iter().chain(self.kept.values().map(|kept| kept.at.max(soonest))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::queue::Queue, *};

    const AFTER: Duration = Duration::from_secs(9);

    /// Nine seconds, twice as long each time, an hour; and what is new waits for none of that.
    #[test]
    fn what_cannot_be_read_is_tried_less_and_less_often_and_nothing_else_is() {
        let (bad, other) = (Slot(1), Slot(2));
        let of_bad = BTreeMap::from([(bad, 5)]);
        let mut due = Due::default();
        let mut now = super::super::now();
        due.add(of_bad.clone());
        assert_eq!(due.next_at(AFTER, now), Some(now + AFTER));
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(due.take(now), of_bad);
            due.tried(&of_bad, &of_bad, AFTER, now);
            let next = due.next_at(AFTER, now).unwrap();
            waits.push((next - now).as_secs());
            assert!(due.take(next - Duration::from_millis(1)).is_empty());
            now = next;
        }
        assert_eq!(waits, [9, 18, 36, 72, 144, 288, 576, 1152, 2304, 3600, 3600, 3600]);
        assert_eq!(due.take(now), of_bad);
        due.tried(&of_bad, &of_bad, AFTER, now);
        due.add(BTreeMap::from([(bad, 7), (other, u64::MAX)]));
        assert_eq!(due.next_at(AFTER, now), Some(now + AFTER));
        let soon = now + AFTER;
        let all = due.take(soon);
        assert_eq!(all, BTreeMap::from([(bad, 7), (other, u64::MAX)]));
        due.tried(&all, &BTreeMap::from([(bad, 7)]), AFTER, soon);
        assert_eq!(due.next_at(AFTER, soon), Some(now + AFTER * LONGEST), "not sooner, and not later");
        now += AFTER * LONGEST;
        assert_eq!(due.take(now), BTreeMap::from([(bad, 7)]));
        due.tried(&of_bad, &BTreeMap::new(), AFTER, now);
        assert_eq!((due.take(now + AFTER * LONGEST), due.next_at(AFTER, now)), (BTreeMap::new(), None));
    }

    /// What was tried in vain may come in an hour only.
    #[test]
    fn what_is_new_does_not_wait_for_what_comes_late() {
        let begun = super::super::now();
        let (late, soon) = (begun + AFTER * LONGEST, begun);
        let queue = Queue::new(1, Some(late), super::super::PACE);
        assert!(!queue.must_forget());
        queue.forget_by(soon);
        assert!(queue.must_forget());
        queue.set_forget_at(Some(late));
        assert!(queue.begin_commit());
        queue.end_commit(None, true, Some(soon));
        assert!(queue.must_forget());
    }

    /// A backup may keep what is due for long.
    #[test]
    fn what_is_put_off_does_not_come_at_once_again_and_again() {
        let now = super::super::now();
        let slots = BTreeMap::from([(Slot(1), 5)]);
        let mut due = Due::default();
        due.tried(&slots, &slots, AFTER, now);
        let later = now + AFTER * 10;
        let all = due.take(later);
        due.add(all);
        assert_eq!(due.next_at(AFTER, later), Some(later + AFTER));
        assert_eq!(due.take(later + AFTER), slots);
    }
}
