//! Room that is given back: segments of which hardly anything is needed.
//!
//! A segment of which nothing is needed goes with the next checkpoint. One of which less than half is needed would stay for
//! as long as its longest-lived envelope; what is needed of it is written again at the end of the log. Which rows that
//! are, only the index knows: all of it is walked through, a step at a time, and only where that frees at least an eighth of the
//! log, so that a walk is paid for by what was written since the last one.

use std::collections::BTreeSet;

use super::{
    super::{
        StoreError,
        tables::Space,
        values::{Point, Row},
    },
    Books, Fjall, error,
    index::{self, Indexed},
};

/// Rows of the index that a step looks at, and bytes that it writes again: bounds how long others wait.
const ROWS: usize = 8192;
const BYTES: usize = 256 << 10;

/// A walk through the index.
pub(super) struct Walk {
    /// The segments that are to be left.
    left: BTreeSet<u32>,
    next: Vec<u8>,
}

impl Fjall {
    /// `true` if there is more to do.
    pub(super) fn tidy_a_step(&self, books: &mut Books) -> Result<bool, StoreError> {
        if books.walk.is_none() {
            books.walk = self.worth_a_walk(books)?;
        }
        let Some(Walk { left, next }) = books.walk.take() else { return Ok(false) };
        let next = self.write_again(books, &left, next)?;
        match next {
            Some(next) => {
                books.walk = Some(Walk { left, next });
                Ok(true)
            }
            None => {
                // Everything was looked at.
                for segment in &left {
                    if !books.unreadable.contains(segment) {
                        books.needed.remove(segment);
                    }
                }
                self.checkpoint(books)?;
                Ok(false)
            }
        }
    }

    fn worth_a_walk(&self, books: &Books) -> Result<Option<Walk>, StoreError> {
        let ended = self.log.ended()?;
        let needed = |segment: &u32| books.needed.get(segment).copied().unwrap_or(0);
        let left: BTreeSet<u32> = ended
            .iter()
            .filter(|(segment, bytes)| needed(segment) * 2 < **bytes && !books.unreadable.contains(segment))
            .map(|(segment, _)| *segment)
            .collect();
        let freed: u64 = left
            .iter()
            .map(|segment| ended.get(segment).copied().unwrap_or(0).saturating_sub(needed(segment)))
            .sum();
        let is_worth = !left.is_empty() && freed >= ended.values().sum::<u64>() / 8;
        Ok(is_worth.then_some(Walk { left, next: vec![0] }))
    }

    /// Writes again what rows from a key on name in some segments; where to go on, if there is more.
    fn write_again(
        &self,
        books: &mut Books,
        left: &BTreeSet<u32>,
        next: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let files = self.log.files();
        let mut draft = self.log.draft()?;
        let (mut rows, mut bytes, mut next_key) = (0, 0, None);
        for row in self.bulk.range(next..) {
            let (key, value) = row.into_inner().map_err(error)?;
            if rows == ROWS || bytes >= BYTES {
                next_key = Some(key.to_vec());
                break;
            }
            rows += 1;
            // A damaged row is told to whoever asks for it.
            let Ok(Indexed::Apart { head, body }) = index::decode(&value) else { continue };
            if !left.contains(&body.place.segment) {
                continue;
            }
            match self.log.read(&files, body, head.to_vec()) {
                Ok(whole) => {
                    bytes += whole.len();
                    let value = index::encode(&mut draft, &key, &whole)?;
                    draft.row(Row { space: Space::Bulk, key: &key, value: Some(&value) })?;
                }
                // Whoever asks for it is told. One bad sector must not end the writing of everybody.
                Err(_) => {
                    tracing::error!("a stored value cannot be read; its segment of the store is kept");
                    books.unreadable.insert(body.place.segment);
                }
            }
        }
        if bytes > 0 {
            let record = self.log.finish(draft)?;
            self.log.write(&record)?;
            self.apply(books, &record.rows, record.serial, true)?;
            books.since = books.since.saturating_add(record.length());
            books.settled = Some(Point { place: record.end()?, serial: record.serial });
            if books.since >= self.bounds.distance {
                self.checkpoint(books)?;
            }
        }
        Ok(next_key)
    }
}
