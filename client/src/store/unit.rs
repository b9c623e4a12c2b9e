//! The unit of work: typed reads through to the base, changes staged until all are committed together.

use std::{collections::BTreeMap, ops::ControlFlow};

use lapwing_wire::codec;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{
    base::{Base, BodyKeyName, StoreError},
    record,
    rows::Counter,
};

/// A record: where it lies and how its key is written.
pub trait Row: Serialize + DeserializeOwned {
    /// First byte of the keys of these records; one per type.
    const TABLE: u8;
    /// What the record is found by; keys sort by these bytes.
    type Key;
    /// The key's bytes.
    fn key_bytes(key: &Self::Key) -> Vec<u8>;
    /// The key with these bytes.
    fn key_from(bytes: &[u8]) -> Option<Self::Key>;
}

/// Longest record: the chain of a group with 500 members and as many changes, two kilobytes each.
const MAX_RECORD: usize = 9 << 20;

/// Rows of a list for which there is room from the beginning.
const USUAL_ROWS: usize = 64;

/// Everything that a unit of work changes. `None` deletes.
#[derive(Default)]
pub struct Changes(BTreeMap<Vec<u8>, Option<Zeroizing<Vec<u8>>>>);

impl FromIterator<(Vec<u8>, Option<Zeroizing<Vec<u8>>>)> for Changes {
    /// Changes of records by their keys; `None` deletes. For moving whole records from one base to another.
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Option<Zeroizing<Vec<u8>>>)>>(records: I) -> Self {
        Self(records.into_iter().collect())
    }
}

impl Changes {
    /// The changed records in order of their keys.
    pub fn into_records(self) -> impl Iterator<Item = (Vec<u8>, Option<Zeroizing<Vec<u8>>>)> {
        self.0.into_iter()
    }

    /// Whether a record of this kind would be put.
    #[must_use]
    pub fn puts<R: Row>(&self) -> bool {
        let from = vec![R::TABLE];
        let to = end_of(&from);
        self.0.range(from..to).any(|(_, value)| value.is_some())
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads see what was staged; nothing is written before [`Unit::into_changes`] is committed. Dropping it forgets all.
pub struct Unit<'a> {
    base: &'a dyn Base,
    staged: Changes,
    /// What was staged under a key before each change since the savepoint.
    undo: Option<Vec<(Vec<u8>, Option<Staged>)>>,
}

/// A staged record; `None` deletes.
type Staged = Option<Zeroizing<Vec<u8>>>;

impl<'a> Unit<'a> {
    /// A unit of work over `base`.
    pub fn new(base: &'a dyn Base) -> Self {
        Self { base, staged: Changes::default(), undo: None }
    }

    /// What is to be committed.
    #[must_use]
    pub fn into_changes(self) -> Changes {
        self.staged
    }

    /// The record with this key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get<R: Row>(&self, key: &R::Key) -> Result<Option<R>, StoreError> {
        let key = full_key::<R>(key);
        match self.staged.0.get(&key) {
            Some(staged) => staged.as_ref().map(|bytes| decode(bytes)).transpose(),
            None => self.base.get(&key)?.map(|bytes| decode(&bytes)).transpose(),
        }
    }

    /// A record that the base lent.
    ///
    /// # Errors
    /// [`StoreError::Record`].
    pub(crate) fn read<R: Row>(bytes: &[u8]) -> Result<R, StoreError> {
        decode(bytes)
    }

    /// Stages a record.
    pub fn put<R: Row>(&mut self, key: &R::Key, row: &R) {
        self.stage(full_key::<R>(key), Some(Zeroizing::new(codec::encode(row))));
    }

    /// Stages a deletion.
    pub fn delete<R: Row>(&mut self, key: &R::Key) {
        self.stage(full_key::<R>(key), None);
    }

    /// What is staged from now on can be taken back alone. Replaces an earlier savepoint.
    pub fn savepoint(&mut self) {
        self.undo = Some(Vec::new());
    }

    /// Takes back what was staged since the savepoint, and ends it.
    pub fn roll_back(&mut self) {
        for (key, before) in self.undo.take().into_iter().flatten().rev() {
            match before {
                Some(staged) => self.staged.0.insert(key, staged),
                None => self.staged.0.remove(&key),
            };
        }
    }

    fn stage(&mut self, key: Vec<u8>, value: Staged) {
        match &mut self.undo {
            Some(undo) => undo.push((key.clone(), self.staged.0.insert(key, value))),
            None => drop(self.staged.0.insert(key, value)),
        }
    }

    /// All records whose key begins with `prefix`, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn scan<R: Row>(&self, prefix: &[u8]) -> Result<Vec<(R::Key, R)>, StoreError> {
        self.range::<R>(prefix, None, usize::MAX, false)
    }

    /// Up to `limit` records whose key begins with `prefix`, in order or backwards, from beyond `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn range<R: Row>(
        &self,
        prefix: &[u8],
        after: Option<&R::Key>,
        limit: usize,
        backwards: bool,
    ) -> Result<Vec<(R::Key, R)>, StoreError> {
        self.range_as::<R, R>(prefix, after, limit, backwards)
    }

    /// As [`Unit::range`], reading of each record what `T` names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn range_as<R: Row, T: DeserializeOwned>(
        &self,
        prefix: &[u8],
        after: Option<&R::Key>,
        limit: usize,
        backwards: bool,
    ) -> Result<Vec<(R::Key, T)>, StoreError> {
        let mut from = vec![R::TABLE];
        from.extend_from_slice(prefix);
        let mut to = end_of(&from);
        if let Some(after) = after {
            let mut bound = full_key::<R>(after);
            if backwards {
                to = bound;
            } else {
                bound.push(0);
                from = bound;
            }
        }
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let read = |key: &[u8], value: &[u8]| {
            let name = key.get(1..).and_then(R::key_from).ok_or(StoreError::Record)?;
            Ok((name, decode(value)?))
        };
        // Staged deletions may hide records of the base, so ask for that many more.
        let hidden = self.staged.0.range(from.clone()..to.clone()).count();
        if hidden == 0 {
            // As a rule: then nothing is copied and nothing is merged.
            let mut rows = Vec::with_capacity(limit.min(USUAL_ROWS));
            let mut failed = None;
            self.base.visit(&from, &to, backwards, &mut |key, value| {
                match read(key, value) {
                    Ok(row) => rows.push(row),
                    Err(error) => failed = Some(error),
                }
                if failed.is_none() && rows.len() < limit {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            return failed.map_or(Ok(rows), Err);
        }
        let mut merged: BTreeMap<Vec<u8>, Option<Zeroizing<Vec<u8>>>> = self
            .base
            .range(&from, &to, limit.saturating_add(hidden), backwards)?
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .collect();
        for (key, value) in self.staged.0.range(from..to) {
            merged.insert(key.clone(), value.clone());
        }
        let rows = merged.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let read = |(key, value): (Vec<u8>, Zeroizing<Vec<u8>>)| read(&key, &value);
        if backwards {
            rows.rev().take(limit).map(read).collect()
        } else {
            rows.take(limit).map(read).collect()
        }
    }

    /// The next number of a counter: 1, 2, 3, ...
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn next(&mut self, counter: Counter) -> Result<u64, StoreError> {
        let key = counter.key();
        let last = match self.staged.0.get(&key) {
            Some(Some(bytes)) => decode::<u64>(bytes)?,
            Some(None) => 0,
            None => self.base.get(&key)?.map(|bytes| decode::<u64>(&bytes)).transpose()?.unwrap_or(0),
        };
        let next = last.saturating_add(1);
        self.stage(key, Some(Zeroizing::new(codec::encode(&next))));
        Ok(next)
    }

    /// A counter goes on behind `at` from now on, if it is not beyond it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn raise(&mut self, counter: Counter, at: u64) -> Result<(), StoreError> {
        if self.next(counter)? <= at {
            self.stage(counter.key(), Some(Zeroizing::new(codec::encode(&at))));
        }
        Ok(())
    }

    /// See [`Base::body_key`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn body_key(&self, name: &BodyKeyName) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        self.base.body_key(name)
    }

    /// See [`Base::make_body_key`]. A key that a dropped unit made stays until the next commit, and is kept, unused, by that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn make_body_key(&self, name: &BodyKeyName) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.base.make_body_key(name)
    }
}

fn full_key<R: Row>(key: &R::Key) -> Vec<u8> {
    let bytes = R::key_bytes(key);
    let mut out = Vec::with_capacity(1 + bytes.len());
    out.push(R::TABLE);
    out.extend_from_slice(&bytes);
    out
}

/// The first key after all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 64]
}

/// What the fast reader does not take is left to the careful one, whose answer counts: records are as old as vaults.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    if bytes.len() > MAX_RECORD {
        return Err(StoreError::Record);
    }
    record::read(bytes).or_else(|_| codec::decode(bytes, MAX_RECORD).map_err(|_| StoreError::Record))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            MemoryBase,
            rows::{ChatId, ChatKind, ChatRow},
        },
        *,
    };
    use lapwing_wire::time::Timestamp;

    fn chat(name: &str) -> ChatRow {
        ChatRow {
            name: name.into(),
            kind: ChatKind::Direct,
            created: Timestamp::from_millis(0),
            blocked: false,
            read_to: 0,
            unread: 0,
            waiting: 0,
            last: None,
        }
    }

    fn id(byte: u8) -> ChatId {
        ChatId::from_bytes([byte; 16])
    }

    #[test]
    fn a_dropped_unit_changes_nothing_and_a_committed_one_everything() {
        let base = MemoryBase::default();
        let mut unit = Unit::new(&base);
        unit.put(&id(1), &chat("a"));
        assert_eq!(unit.get::<ChatRow>(&id(1)).unwrap().unwrap().name, "a");
        drop(unit);
        assert!(Unit::new(&base).get::<ChatRow>(&id(1)).unwrap().is_none());
        let mut unit = Unit::new(&base);
        unit.put(&id(1), &chat("a"));
        unit.put(&id(2), &chat("b"));
        base.commit(unit.into_changes()).unwrap();
        assert_eq!(Unit::new(&base).scan::<ChatRow>(&[]).unwrap().len(), 2);
    }

    #[test]
    fn ranges_see_staged_records_and_deletions_in_order() {
        let base = MemoryBase::default();
        let mut unit = Unit::new(&base);
        for i in [1, 3, 5, 255] {
            unit.put(&id(i), &chat(&i.to_string()));
        }
        base.commit(unit.into_changes()).unwrap();
        let mut unit = Unit::new(&base);
        unit.delete::<ChatRow>(&id(3));
        unit.put(&id(4), &chat("4"));
        let names = |rows: Vec<(ChatId, ChatRow)>| rows.into_iter().map(|(_, c)| c.name).collect::<Vec<_>>();
        assert_eq!(names(unit.scan::<ChatRow>(&[]).unwrap()), ["1", "4", "5", "255"]);
        assert_eq!(names(unit.range::<ChatRow>(&[], None, 2, true).unwrap()), ["255", "5"]);
        assert_eq!(names(unit.range::<ChatRow>(&[], Some(&id(4)), 9, false).unwrap()), ["5", "255"]);
        assert_eq!(names(unit.range::<ChatRow>(&[], Some(&id(4)), 9, true).unwrap()), ["1"]);
    }

    #[test]
    fn a_savepoint_takes_back_what_came_after_it_and_nothing_else() {
        let base = MemoryBase::default();
        let mut unit = Unit::new(&base);
        unit.put(&id(1), &chat("committed"));
        base.commit(unit.into_changes()).unwrap();
        let mut unit = Unit::new(&base);
        unit.put(&id(2), &chat("before"));
        unit.savepoint();
        unit.put(&id(2), &chat("after"));
        unit.put(&id(2), &chat("again"));
        unit.put(&id(3), &chat("new"));
        unit.delete::<ChatRow>(&id(1));
        unit.next(Counter::Op).unwrap();
        unit.roll_back();
        let names: Vec<String> =
            unit.scan::<ChatRow>(&[]).unwrap().into_iter().map(|(_, c)| c.name).collect();
        assert_eq!(names, ["committed", "before"]);
        assert_eq!(unit.next(Counter::Op).unwrap(), 1);
        unit.roll_back();
        assert_eq!(unit.next(Counter::Op).unwrap(), 2);
    }

    #[test]
    fn counters_count_within_and_across_units() {
        let base = MemoryBase::default();
        let mut unit = Unit::new(&base);
        assert_eq!(unit.next(Counter::Op).unwrap(), 1);
        assert_eq!(unit.next(Counter::Op).unwrap(), 2);
        assert_eq!(unit.next(Counter::Order).unwrap(), 1);
        base.commit(unit.into_changes()).unwrap();
        assert_eq!(Unit::new(&base).next(Counter::Op).unwrap(), 3);
    }
}
