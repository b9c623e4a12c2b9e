//! Views of what is durable.
//!
//! Sled has no snapshots and shows a batch before it is flushed. So before a batch is applied, what its keys held is
//! published in a chain; a view begins at the node that was durable when it was made and puts back what every later
//! node changed. It reads sled first and the chain after that: what it misses in the chain it cannot have read.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use sled::IVec;

use super::{StoreError, error, spaced};
use crate::store::tables::{Entry, Scan, Space, Tables, Value, Visit};

/// Rows that a scan takes from sled at a time.
const PAGE: usize = 32;

/// What the keys of a batch held before it.
pub(super) type Before = BTreeMap<Vec<u8>, Option<IVec>>;

/// One batch in the chain.
#[derive(Default)]
pub(super) struct Node {
    before: Before,
    next: OnceLock<Arc<Node>>,
}

impl Node {
    /// Publishes a batch; it must be the only one that is not durable.
    pub(super) fn extend(&self, before: Before) -> Result<Arc<Self>, StoreError> {
        let next = Arc::new(Self { before, next: OnceLock::new() });
        // A commit that failed is never followed by another.
        self.next.set(Arc::clone(&next)).map_err(|_| StoreError::Disk)?;
        Ok(next)
    }
}

/// One after the other: a view that lived long has a long chain.
impl Drop for Node {
    fn drop(&mut self) {
        let mut rest = self.next.take();
        while let Some(node) = rest {
            rest = Arc::into_inner(node).and_then(|mut node| node.next.take());
        }
    }
}

/// What was durable at one moment.
pub(crate) struct View {
    db: sled::Db,
    from: Arc<Node>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View(..)")
    }
}

impl View {
    pub(super) fn new(db: sled::Db, from: Arc<Node>) -> Self {
        Self { db, from }
    }

    /// What was changed since, oldest first.
    fn later(&self) -> impl Iterator<Item = &Node> {
        std::iter::successors(self.from.next.get(), |node| node.next.get()).map(AsRef::as_ref)
    }

    /// What keys of a range held that were changed since.
    fn changed(&self, first: &[u8], last: &[u8]) -> BTreeMap<&[u8], Option<&IVec>> {
        let mut found = BTreeMap::new();
        for node in self.later() {
            for (key, before) in node.before.range(first.to_vec()..=last.to_vec()) {
                found.entry(key.as_slice()).or_insert(before.as_ref());
            }
        }
        found
    }
}

impl Tables for View {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let key = spaced(space, key);
        let now = self.db.get(&key).map_err(error)?;
        let found = self.later().find_map(|node| node.before.get(&key).cloned()).unwrap_or(now);
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let (mut first, last) = (spaced(space, first), spaced(space, last));
        while first <= last {
            let mut rows = BTreeMap::new();
            for row in self.db.range(first.clone()..=last.clone()).take(PAGE) {
                let (key, value) = row.map_err(error)?;
                rows.insert(key.to_vec(), value);
            }
            let is_end = rows.len() < PAGE;
            let upto = if is_end { last.clone() } else { rows.keys().next_back().unwrap_or(&last).clone() };
            for (key, before) in self.changed(&first, &upto) {
                match before {
                    Some(value) => rows.insert(key.to_vec(), value.clone()),
                    None => rows.remove(key),
                };
            }
            for (key, value) in &rows {
                if visit(key.get(1..).unwrap_or_default(), &Value::Whole(value))? == Scan::Stop {
                    return Ok(());
                }
            }
            if is_end {
                break;
            }
            first = upto;
            first.push(0);
        }
        Ok(())
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        let (first, mut last) = (spaced(space, first), spaced(space, last));
        while first <= last {
            let row = self.db.range(first.clone()..=last.clone()).next_back().transpose().map_err(error)?;
            let from = row.as_ref().map_or(&first[..], |(key, _)| key);
            let changed = self.changed(from, &last);
            let kept = changed.iter().rev().find_map(|(key, before)| before.map(|value| (*key, value)));
            if let Some((key, value)) = kept {
                return Ok(Some(entry(key, value)));
            }
            // Whatever is left of the range was not there, but perhaps the row that was found.
            match row {
                None => return Ok(None),
                Some((key, value)) if !changed.contains_key(&*key) => return Ok(Some(entry(&key, &value))),
                Some((key, _)) => match below(&key) {
                    Some(lower) => last = lower,
                    None => return Ok(None),
                },
            }
        }
        Ok(None)
    }
}

fn entry(key: &[u8], value: &[u8]) -> Entry {
    (key.get(1..).unwrap_or_default().to_vec(), value.to_vec())
}

/// The greatest key of at most its length and some more bytes that is less than this one.
fn below(key: &[u8]) -> Option<Vec<u8>> {
    let (last, head) = key.split_last()?;
    let mut lower = head.to_vec();
    if let Some(less) = last.checked_sub(1) {
        lower.push(less);
        lower.extend_from_slice(&[0xff; 80]);
    }
    Some(lower)
}

/// What is in sled now.
pub(crate) struct Direct<'a>(&'a sled::Db);

impl std::fmt::Debug for Direct<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direct(..)")
    }
}

impl<'a> Direct<'a> {
    pub(super) fn new(db: &'a sled::Db) -> Self {
        Self(db)
    }
}

impl Tables for Direct<'_> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(spaced(space, key)).map_err(error)?.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if first > last {
            return Ok(());
        }
        for row in self.0.range(spaced(space, first)..=spaced(space, last)) {
            let (key, value) = row.map_err(error)?;
            if visit(key.get(1..).unwrap_or_default(), &Value::Whole(&value))? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        if first > last {
            return Ok(None);
        }
        let row = self.0.range(spaced(space, first)..=spaced(space, last)).next_back();
        Ok(row.transpose().map_err(error)?.map(|(key, value)| entry(&key, &value)))
    }
}
