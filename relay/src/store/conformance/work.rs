//! Work that is counted: what is gone is never walked over, and what is unknown costs the look of what is known.
//!
//! A clock would need luck for both. Here the tables count, and keep what was deleted as an engine does until it compacts.

use std::{cell::Cell, collections::BTreeMap};

use lapwing_wire::limits::{MAX_SELECTIVE, MAX_SELECTIVE_REACH};

use super::*;
use crate::store::{
    Pressure, SweepCursor,
    cache::Cache,
    reads, rules,
    tables::{Batch, Entry, Scan, Space, Staged, Tables, Value, Visit},
};

/// What was asked of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    loads: usize,
    scans: usize,
    /// Rows that were shown.
    rows: usize,
    /// Rows that are gone and lay on the way.
    graves: usize,
}

/// Tables that count.
#[derive(Default)]
struct Counted {
    bulk: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    state: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    work: Cell<Work>,
}

impl Counted {
    fn count(&self, add: impl FnOnce(&mut Work)) {
        let mut work = self.work.get();
        add(&mut work);
        self.work.set(work);
    }

    fn space(&self, space: Space) -> &BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        match space {
            Space::Bulk => &self.bulk,
            Space::State => &self.state,
        }
    }

    /// Makes a change as a writer that remembers nothing; what it cost.
    fn apply(&mut self, mutation: Mutation, day: u32) -> (Outcome, Work) {
        let change = Change { mutation, now: NOW, day: Day::new(day) };
        self.work.take();
        let mut cache = Cache::new(16);
        let mut batch = Batch::new(&*self, &mut cache);
        let outcome = rules::stage(&mut batch, &change, Pressure::None).unwrap();
        let Staged { bulk, state, fresh: _, due: _ } = batch.into_staged();
        let work = self.work.take();
        self.bulk.extend(bulk);
        self.state.extend(state);
        (outcome, work)
    }

    /// What a query costs.
    fn cost<T>(&self, query: impl FnOnce(&Self) -> Result<T, StoreError>) -> (T, Work) {
        self.work.take();
        let found = query(self).unwrap();
        (found, self.work.take())
    }
}

impl Tables for Counted {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.count(|work| work.loads += 1);
        Ok(self.space(space).get(key).cloned().flatten())
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.count(|work| work.scans += 1);
        if first > last {
            return Ok(());
        }
        for (key, value) in self.space(space).range(first.to_vec()..=last.to_vec()) {
            let Some(value) = value else {
                self.count(|work| work.graves += 1);
                continue;
            };
            self.count(|work| work.rows += 1);
            if visit(key, &Value::Whole(value))? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.count(|work| work.scans += 1);
        for (key, value) in self.space(space).range(first.to_vec()..=last.to_vec()).rev() {
            match value {
                Some(value) => return Ok(Some((key.clone(), value.clone()))),
                None => self.count(|work| work.graves += 1),
            }
        }
        Ok(None)
    }
}

fn window_of(owner: &Owner) -> WindowQuery {
    WindowQuery { mailbox: owner.id(), born: owner.born(), after: Seq::START, count: 10, bytes: 1 << 20 }
}

/// So many were there before.
const GONE: u64 = 3000;

fn sweep_of_day_five(from: Option<SweepCursor>) -> Mutation {
    let day = Day::new(5);
    Mutation::Sweep { from, keep_from: day, blobs_from: day, unfinished_from: day }
}

#[test]
fn what_is_gone_is_never_walked_over_counted() {
    let mut tables = Counted::default();
    let owner = Owner::new(1);
    tables.apply(owner.create(MailboxKind::Queue, Charge::Open), 1);
    for number in 1..=GONE {
        let (_, work) = tables.apply(owner.append(envelope(number, 64)), 1);
        assert_eq!(work.graves, 0, "appending, {number} were there");
        // Taken one by one, and in groups, and out of order.
        if number % 10 == 5 {
            let (_, work) = tables.apply(owner.ack(number - 2, &[number]), 1);
            assert!(work.graves <= 1, "taking, {number} were there: {work:?}");
        }
        if number % 10 == 0 {
            let (_, work) = tables.apply(owner.ack(number, &[]), 1);
            assert!(work.graves <= 1, "taking all, {number} were there: {work:?}");
        }
    }
    let buried = tables.bulk.values().filter(|value| value.is_none()).count();
    assert_eq!(
        buried,
        usize::try_from(GONE).unwrap(),
        "they are on the way of whoever begins at the beginning"
    );
    tables.apply(owner.append(envelope(GONE + 1, 64)), 1);
    let (window, work) = tables.cost(|tables| reads::window(tables, &window_of(&owner)));
    assert_eq!((window.unwrap().items.len(), work.graves), (1, 0), "reading begins at the head");
    let (_, work) = tables.cost(|tables| reads::mailbox(tables, &owner.id()));
    assert_eq!(work.graves, 0);

    // What expired in a log lies before its head too.
    let log = Owner::new(2);
    tables.apply(log.create(MailboxKind::Log, Charge::Open), 1);
    for number in 1..=200 {
        tables.apply(log.append(envelope(number, 64)), if number <= 150 { 1 } else { 9 });
    }
    let mut from = None;
    loop {
        let step = sweep_of_day_five(from);
        match tables.apply(step, 9).0 {
            Outcome::Swept { next: Some(next), .. } => from = Some(next),
            _ => break,
        }
    }
    let (window, work) = tables.cost(|tables| reads::window(tables, &window_of(&log)));
    assert_eq!((window.unwrap().items[0].place.seq, work.graves), (Seq::new(151), 0));
}

/// Whoever never says that all is taken up to a number makes nobody walk far.
#[test]
fn what_is_taken_by_its_number_only_is_soon_walked_over_no_more_counted() {
    let reach = usize::try_from(MAX_SELECTIVE_REACH).unwrap();
    let mut tables = Counted::default();
    let owner = Owner::new(1);
    tables.apply(owner.create(MailboxKind::Queue, Charge::Open), 1);
    for number in 1..=4 * MAX_SELECTIVE_REACH {
        tables.apply(owner.append(envelope(number, 16)), 1);
    }
    // Backwards from as far as it goes, so that the head moves last.
    for round in 0..3 {
        let first = 1 + round * (1 + MAX_SELECTIVE_REACH);
        let numbers: Vec<u64> = (first..=first + MAX_SELECTIVE_REACH).rev().collect();
        for also in numbers.chunks(MAX_SELECTIVE) {
            let (outcome, work) = tables.apply(owner.ack(0, also), 1);
            assert!(matches!(outcome, Outcome::Withdrawn(_)), "round {round}: {outcome:?}");
            // Where the head stands, where it goes, and one look for each number.
            assert!(work.graves <= 2 * reach + MAX_SELECTIVE, "round {round}, taking: {work:?}");
            let (_, work) = tables.cost(|tables| reads::window(tables, &window_of(&owner)));
            assert!(work.graves <= reach, "round {round}, reading: {work:?}");
        }
        let (_, work) = tables.apply(owner.ack(0, &[]), 1);
        assert_eq!(work.graves, 0, "round {round}: the head is on what waits");
    }
    let (outcome, _) = tables.apply(owner.ack(0, &[4 * MAX_SELECTIVE_REACH + 1]), 1);
    assert!(matches!(outcome, Outcome::Withdrawn(_)), "what is not given yet is not meant: {outcome:?}");

    // Nor does a sweep, whose step looks at many mailboxes: each is as it costs a sweep most.
    for byte in 2..=9 {
        let owner = Owner::new(byte);
        tables.apply(owner.create(MailboxKind::Queue, Charge::Open), 1);
        for number in 1..=2 + MAX_SELECTIVE_REACH {
            tables.apply(owner.append(envelope(number, 16)), 1);
        }
        let numbers: Vec<u64> = (2..=1 + MAX_SELECTIVE_REACH).collect();
        tables.apply(owner.ack(0, &numbers), 1);
    }
    let mut from = None;
    let mut graves = 0;
    loop {
        let step = sweep_of_day_five(from);
        let (outcome, work) = tables.apply(step, 9);
        graves += work.graves;
        assert!(work.graves <= 1024, "a step: {work:?}");
        match outcome {
            Outcome::Swept { next: Some(next), .. } => from = Some(next),
            _ => break,
        }
    }
    assert!(graves >= 8 * reach, "{graves} graves: they were on its way");
    for byte in 1..=9 {
        let (there, _) = tables.cost(|tables| reads::mailbox(tables, &Owner::new(byte).id()));
        let there = there.unwrap();
        assert_eq!((there.head, there.bytes), (there.newest.next(), 0), "all of it expired");
    }
}

#[test]
fn deadlines_that_were_put_off_are_never_walked_over_counted() {
    let mut tables = Counted::default();
    let owner = SecretKey::from_seed([1; 32]).public();
    let tripwire = lapwing_wire::ids::TripwireId::of_owner(&owner);
    let mut rng = StdRng::seed_from_u64(1);
    let token = Token::generate(&mut rng);
    let renew = OpenRecord {
        tripwire,
        meaning: Meaning::Renew,
        list_key: ListKey::generate(&mut rng),
        status_key: StatusKey::generate(&mut rng),
    };
    let list = SealedList::seal(&[], &tripwire, &renew.list_key, &mut rng).unwrap();
    let alerting = lapwing_wire::tripwire::Deadline { after_s: 24 * 3600, actions: Vec::new() };
    for serial in 1..=20 {
        let (_, work) = tables.apply(
            Mutation::Arm {
                owner,
                serial,
                records: vec![TokenRecord::seal(&token, &renew, &mut rng)],
                list: list.clone(),
                causes: Box::new(lapwing_wire::tripwire::Causes {
                    alerting: Some(alerting.clone()),
                    ..Default::default()
                }),
                charge: Charge::Open,
            },
            1,
        );
        assert_eq!(work.graves, 0, "arming");
    }
    let minute = Duration::from_secs(60);
    for look in 0..GONE {
        let (outcome, work) = tables.apply(Mutation::Watch { elapsed: minute, filler: [1; 32] }, 1);
        assert!(matches!(outcome, Outcome::Watched { has_more: false, .. }));
        // What was put off lies where it would have come, and each look passes its own minute only.
        assert!(work.graves <= 2, "look {look}: {work:?}");
        let (outcome, work) = tables.apply(Mutation::Token { token: token.clone(), filler: [2; 32] }, 1);
        assert!(matches!(outcome, Outcome::Token { status: Some((said, _)), .. } if !said.came.any()));
        assert_eq!(work.graves, 0, "a token");
    }
}

/// FRM-04: the look for a mailbox that is not there is the look for one that is.
#[test]
fn frm_04_a_look_for_nothing_asks_the_tables_as_much_as_one_for_something() {
    let mut tables = Counted::default();
    let owner = Owner::new(1);
    tables.apply(owner.create(MailboxKind::Queue, Charge::Open), 1);
    let (there, found) = tables.cost(|tables| reads::mailbox(tables, &owner.id()));
    assert!(there.is_some());
    let (there, missing) = tables.cost(|tables| reads::mailbox(tables, &Owner::new(2).id()));
    assert!(there.is_none());
    assert_eq!(found, missing);
}
