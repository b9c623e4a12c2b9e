//! Places that nobody needs any more go before their age makes them: else what is appended, taken and appended again would fill
//! the disk at nobody's cost.
//!
//! Whose are to be looked over, and how far that came, lies in a record for each mailbox ([`Leftover`]). So a walk goes on where it
//! was after a crash, what comes meanwhile does not send it back, and one that is closed is walked over from the beginning.

use std::sync::Once;

use lapwing_wire::frame::Seq;

use super::super::{
    Born, Outcome, StoreError, SweepCursor,
    damage::after,
    record::{LEFTOVERS, Leftover, Placed, key, leftover_key},
    tables::{Batch, Scan, Space, Tables},
};

/// What one step looks at, at most: some milliseconds of the writer. More than one group can append, so that a walk ends however
/// much comes meanwhile.
const STEP: usize = 2048;
/// What a mailbox costs, in places: some searches.
const MAILBOX: usize = 4;

fn leftover<T: Tables>(batch: &Batch<'_, T>, born: Born) -> Result<Option<Leftover>, StoreError> {
    match batch.load(Space::State, &leftover_key(born)) {
        Err(StoreError::Damaged) => Ok(None),
        there => Ok(there?.and_then(|there| Leftover::decode(&there).ok())),
    }
}

/// Many were taken from a mailbox: its places are to be looked over.
pub(super) fn of_taken<T: Tables>(batch: &mut Batch<'_, T>, born: Born) -> Result<(), StoreError> {
    let there = leftover(batch, born)?;
    // A walk that is under way goes on to its end: else it would never come there while many are taken.
    let leftover = there.map_or_else(Leftover::default, |there| Leftover { is_again: true, ..there });
    batch.put(Space::State, leftover_key(born), leftover.encode());
    Ok(())
}

/// A mailbox becomes a sink: what comes from now on counts what it would hold, by its places.
pub(super) fn of_sink<T: Tables>(
    batch: &mut Batch<'_, T>,
    born: Born,
    newest: Seq,
) -> Result<(), StoreError> {
    // Of one that cannot be read it is not known how far it came.
    if batch.has(Space::State, &leftover_key(born)) != Ok(false) {
        let there = leftover(batch, born)?.unwrap_or_default();
        batch.put(Space::State, leftover_key(born), Leftover { limit: newest, ..there }.encode());
    }
    Ok(())
}

/// A mailbox is closed: all of its places are to go, wherever a walk over them was.
pub(super) fn of_closed<T: Tables>(batch: &mut Batch<'_, T>, born: Born) {
    batch.put(Space::State, leftover_key(born), Leftover::default().encode());
}

/// One step, from a mailbox on.
pub(super) fn step<T: Tables>(
    batch: &mut Batch<'_, T>,
    from: Option<&SweepCursor>,
) -> Result<Outcome, StoreError> {
    let mut start = from.map_or_else(|| vec![LEFTOVERS], |cursor| cursor.0.clone());
    let mut left = STEP;
    let mut is_damaged = false;
    let next = loop {
        if left == 0 {
            break Some(SweepCursor(start));
        }
        let found = next(batch, &start)?;
        is_damaged |= found.is_damaged;
        let Some((key, leftover)) = found.leftover else {
            break found.behind.map(SweepCursor);
        };
        let Some(born) = key::born_in(&key) else {
            start = after(&key);
            continue;
        };
        let (looked, upto) = match forget(batch, born, &leftover, left) {
            // What is left of its places goes when their age makes them.
            Err(StoreError::Damaged) => {
                is_damaged = true;
                (0, None)
            }
            done => done?,
        };
        left = left.saturating_sub(looked + MAILBOX);
        match upto {
            Some(upto) => batch.put(Space::State, key.clone(), Leftover { upto, ..leftover }.encode()),
            // Others come first: it is walked over again in the next pass.
            None if leftover.is_again => {
                batch.put(
                    Space::State,
                    key.clone(),
                    Leftover { limit: leftover.limit, ..Leftover::default() }.encode(),
                );
                start = after(&key);
            }
            None => {
                start = after(&key);
                batch.delete(Space::State, key);
            }
        }
    };
    if is_damaged {
        // A step comes at least every minute.
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::error!(
                "the store is damaged in places; what retries need of what lies there is kept for longer; told once"
            );
        });
    }
    Ok(Outcome::Swept { next, withdrawn: Vec::new() })
}

/// What [`next`] found.
struct Found {
    leftover: Option<(Vec<u8>, Leftover)>,
    /// Where to go on, if more is damaged than one look passes over.
    behind: Option<Vec<u8>>,
    is_damaged: bool,
}

/// The first mailbox that left something, at or after a key.
fn next<T: Tables>(batch: &Batch<'_, T>, start: &[u8]) -> Result<Found, StoreError> {
    let (_, last) = key::all(LEFTOVERS);
    let mut first: Option<(Vec<u8>, Vec<u8>)> = None;
    let around = batch.scan_written_around(Space::State, start, &last, &mut |key, value| {
        first = Some((key.to_vec(), value.whole()?.into_owned()));
        Ok(Scan::Stop)
    })?;
    let upto = first.as_ref().map_or(last, |(key, _)| key.clone());
    batch.scan_staged(Space::State, start, &upto, &mut |key, value| {
        first = Some((key.to_vec(), value.whole()?.into_owned()));
        Ok(Scan::Stop)
    })?;
    // Of a damaged one the mailbox is known, which is enough.
    let leftover = first.map(|(key, value)| (key, Leftover::decode(&value).unwrap_or_default()));
    Ok(Found { leftover, behind: around.next, is_damaged: around.is_damaged })
}

/// Forgets places of one mailbox that outlived their use, from where the last walk over them ended. How many were looked at, and how far, if there may
/// be more.
fn forget<T: Tables>(
    batch: &mut Batch<'_, T>,
    born: Born,
    leftover: &Leftover,
    most: usize,
) -> Result<(usize, Option<Vec<u8>>), StoreError> {
    // `None`: it is closed.
    let bounds = batch.bounds(born)?;
    let (first, last) = key::places(born, &leftover.upto);
    let mut rows = Vec::new();
    batch.scan_written(Space::State, &first, &last, &mut |name, value| {
        rows.push((name.to_vec(), Placed::decode(&value.whole()?).ok()));
        Ok(if rows.len() < most { Scan::More } else { Scan::Stop })
    })?;
    let upto = if rows.len() < most { None } else { rows.last().map(|(name, _)| name.clone()) };
    let looked = rows.len();
    batch.scan_staged(Space::State, &first, upto.as_deref().unwrap_or(&last), &mut |name, value| {
        rows.push((name.to_vec(), Placed::decode(&value.whole()?).ok()));
        Ok(Scan::More)
    })?;
    for (name, placed) in rows {
        let is_needed = match (bounds, placed) {
            (None, _) => false,
            (Some((head, newest)), Some(placed)) => {
                let seq = placed.place.seq;
                seq > leftover.limit
                    || !placed.is_outlived(newest)
                    // Out of order it may have been taken too.
                    || (seq >= head && batch.has(Space::Bulk, &key::envelope(born, seq))?)
            }
            (Some(_), None) => true,
        };
        if !is_needed {
            batch.delete(Space::State, name);
        }
    }
    Ok((looked, upto.map(|name| key::id_prefix_in(&name).to_vec())))
}
