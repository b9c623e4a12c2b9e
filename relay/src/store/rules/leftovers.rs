//! Places that nobody needs any more go before their age makes them: else what is appended, taken and appended again would fill
//! the disk at nobody's cost.

use super::super::{
    Born, StoreError,
    damage::after,
    record::{LEFTOVERS, Leftover, Placed, key, leftover_key},
    tables::{Batch, Scan, Space, Tables},
};

/// Places that one step looks at, at most: some milliseconds of the writer.
const STEP: usize = 1024;
/// Mailboxes that cost as much.
const MAILBOX: usize = 16;

/// Where the first step begins.
pub(super) fn beginning() -> Vec<u8> {
    vec![LEFTOVERS]
}

pub(super) fn is_here(start: &[u8]) -> bool {
    start.first() == Some(&LEFTOVERS)
}

/// One step from a place: a mailbox's leftover, and behind it how far its places were looked at. The next, if there is one.
pub(super) fn step<T: Tables>(batch: &mut Batch<'_, T>, start: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let mut left = STEP;
    let mut start = start.to_vec();
    while left > 0 {
        let found = match next(batch, &start) {
            // The age of what is behind it makes that go.
            Err(StoreError::Damaged) => None,
            found => found?,
        };
        let Some((leftover, why)) = found else { return Ok(None) };
        let Some(born) = key::born_in(&leftover) else { return Ok(None) };
        let from = start.strip_prefix(leftover.as_slice()).unwrap_or_default();
        let (first, last) = key::places(born, from);
        let (looked, more) = match forget(batch, born, why, (&first, &last), left) {
            Err(StoreError::Damaged) => {
                tracing::error!("a record is damaged; what retries of its mailbox need is kept for longer");
                (0, None)
            }
            done => done?,
        };
        left = left.saturating_sub(looked.max(STEP / MAILBOX));
        start = match more {
            Some(row) => [&leftover, key::id_prefix_in(&row)].concat(),
            None => {
                batch.delete(Space::State, leftover);
                after(&leftover_key(born))
            }
        };
    }
    Ok(Some(start))
}

/// The first mailbox that left something, at or after a place.
fn next<T: Tables>(batch: &Batch<'_, T>, start: &[u8]) -> Result<Option<(Vec<u8>, Leftover)>, StoreError> {
    let here = start.get(..leftover_key(Born::new(0)).len()).unwrap_or(start);
    let mut found = None;
    batch.scan(Space::State, here, &key::all(LEFTOVERS).1, &mut |name, value| {
        // Of a damaged one the mailbox is known, which says the rest.
        let why = Leftover::decode(&value.whole()?).unwrap_or(Leftover::Taken);
        found = Some((name.to_vec(), why));
        Ok(Scan::Stop)
    })?;
    Ok(found)
}

/// Forgets places of one mailbox that outlived their use. How many were looked at, and the last one if there may be more.
fn forget<T: Tables>(
    batch: &mut Batch<'_, T>,
    born: Born,
    why: Leftover,
    (first, last): (&[u8], &[u8]),
    most: usize,
) -> Result<(usize, Option<Vec<u8>>), StoreError> {
    let nothing = Ok((0, None));
    // What a sink would hold is counted by its places, until each would have expired.
    if batch.load(Space::State, &key::sink(born))?.is_some() {
        return nothing;
    }
    let bounds = match why {
        Leftover::Closed => None,
        Leftover::Taken => match batch.bounds(born)? {
            Some(bounds) => Some(bounds),
            None => return nothing,
        },
    };
    let mut rows = Vec::new();
    batch.scan(Space::State, first, last, &mut |name, value| {
        rows.push((name.to_vec(), Placed::decode(&value.whole()?).ok()));
        Ok(if rows.len() < most { Scan::More } else { Scan::Stop })
    })?;
    let more = if rows.len() < most { None } else { rows.last().map(|(name, _)| name.clone()) };
    let looked = rows.len();
    for (name, placed) in rows {
        let is_needed = match (bounds, placed) {
            (None, _) => false,
            (Some((head, newest)), Some(placed)) => {
                let seq = placed.place.seq;
                !placed.is_outlived(newest)
                    // Out of order it may have been taken too.
                    || (seq >= head && batch.has(Space::Bulk, &key::envelope(born, seq))?)
            }
            (Some(_), None) => true,
        };
        if !is_needed {
            batch.delete(Space::State, name);
        }
    }
    Ok((looked, more))
}
