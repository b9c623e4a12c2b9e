//! Retention: what is too old goes, in bounded steps between other changes.

use std::sync::Once;

use lapwing_wire::{
    frame::Seq,
    ids::{BlobHash, MailboxId},
    time::Timestamp,
};

use super::{
    super::{
        Day, Outcome, StoreError, SweepCursor, Withdrawn,
        damage::after,
        record::{self, Blob, Placed, RetentionClock, decode_envelope, envelope_length, key, leftover_key},
        tables::{Batch, Scan, Space, Tables, Value},
    },
    blob, mailbox,
};

/// Records that one step looks at, and envelopes that it deletes at most: some milliseconds of the writer.
const STEP: usize = 1024;
/// What was met that cannot be read. Whoever asks for it is told too.
#[derive(Default)]
struct Spoilt(bool);

impl Spoilt {
    /// Nothing, where what was asked for is damaged: it must not keep everything behind it from expiring, for ever.
    fn pass<R>(&mut self, found: Result<R, StoreError>) -> Result<Option<R>, StoreError> {
        match found {
            Err(StoreError::Damaged) => {
                self.0 = true;
                Ok(None)
            }
            found => found.map(Some),
        }
    }
}

pub(super) fn tick<T: Tables>(batch: &mut Batch<'_, T>, now: Timestamp) -> Result<Outcome, StoreError> {
    let clock = match batch.load_as::<RetentionClock>(Space::State, key::CLOCK)? {
        Some(clock) => clock.tick(now),
        None => RetentionClock::start(now),
    };
    batch.put_as(Space::State, key::CLOCK.to_vec(), &clock);
    Ok(Outcome::Day(clock.day()))
}

pub(super) fn step<T: Tables>(
    batch: &mut Batch<'_, T>,
    from: Option<&SweepCursor>,
    keep_from: Day,
    unfinished_from: Day,
) -> Result<Outcome, StoreError> {
    let start = from.map_or_else(|| vec![key::MAILBOXES], |cursor| cursor.0.clone());
    let mut withdrawn = Vec::new();
    let mut spoilt = Spoilt::default();
    let next = match start.first() {
        Some(&key::MAILBOXES) => mailboxes(batch, &start, keep_from, &mut withdrawn, &mut spoilt)?
            .or_else(|| Some(vec![key::PLACES])),
        Some(&key::PLACES) => {
            places(batch, &start, keep_from, &mut spoilt)?.or_else(|| Some(vec![key::BLOBS]))
        }
        Some(&key::BLOBS) => blobs(batch, &start, keep_from, unfinished_from, &mut spoilt)?,
        _ => None,
    };
    if spoilt.0 {
        // A sweep has many steps, and comes every hour.
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::error!(
                "the store is damaged in places; what lies there is not swept, the rest is; told once"
            );
        });
    }
    Ok(Outcome::Swept { next: next.map(SweepCursor), withdrawn })
}

/// A page of records of one kind and where the next begins.
type Page = (Vec<(Vec<u8>, Vec<u8>)>, Option<Vec<u8>>);

fn page<T: Tables>(
    batch: &Batch<'_, T>,
    start: &[u8],
    kind: u8,
    spoilt: &mut Spoilt,
) -> Result<Page, StoreError> {
    let (_, last) = key::all(kind);
    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let around = batch.scan_around(Space::State, start, &last, &mut |key, value| {
        rows.push((key.to_vec(), value.whole()?.into_owned()));
        Ok(if rows.len() < STEP { Scan::More } else { Scan::Stop })
    })?;
    spoilt.0 |= around.is_damaged;
    let next = if rows.len() < STEP { around.next } else { rows.last().map(|(key, _)| after(key)) };
    Ok((rows, next))
}

fn mailboxes<T: Tables>(
    batch: &mut Batch<'_, T>,
    start: &[u8],
    keep_from: Day,
    withdrawn: &mut Vec<Withdrawn>,
    spoilt: &mut Spoilt,
) -> Result<Option<Vec<u8>>, StoreError> {
    let (rows, next) = page(batch, start, key::MAILBOXES, spoilt)?;
    let mut left = STEP;
    for (row, _) in rows {
        let Some(id) = key::id_in(&row).map(MailboxId::from_bytes) else { continue };
        let there = batch.mailbox(&id).map(|there| there.cloned());
        let Some(there) = spoilt.pass(there)?.flatten() else { continue };
        // Which of its places are still to be forgotten is known by what is there.
        let is_looked_over = there.sink && batch.has(Space::State, &leftover_key(there.born)) == Ok(true);
        if is_looked_over {
            continue;
        }
        let mut old = Vec::new();
        let mut freed = 0u64;
        let mut head = there.newest.next();
        let mut is_spoilt = false;
        if there.head <= there.newest {
            let (first, last) =
                (key::envelope(there.born, there.head), key::envelope(there.born, there.newest));
            let mut look = |key: &[u8], value: &Value<'_>| {
                let Ok((day, _, _)) = decode_envelope(value.head()) else {
                    is_spoilt = true;
                    return Ok(Scan::More);
                };
                if old.len() == left || (day >= keep_from && !there.sink) {
                    head = key::seq_in(key).unwrap_or(Seq::START);
                    return Ok(Scan::Stop);
                }
                freed = freed.saturating_add(envelope_length(value.length()));
                old.push(key.to_vec());
                Ok(Scan::More)
            };
            let around = batch.scan_around(Space::Bulk, &first, &last, &mut look)?;
            if around.is_damaged || is_spoilt {
                spoilt.0 = true;
                // What comes before something old is old too. Of the rest nothing is known.
                let oldest = old.iter().filter_map(|key| key::seq_in(key)).max();
                head = oldest.map_or(there.head, Seq::next);
                if head > there.newest && !there.sink {
                    freed = there.bytes;
                }
            }
        }
        left -= old.len();
        if let Some(upto) = old.iter().filter_map(|key| key::seq_in(key)).max() {
            withdrawn.push(Withdrawn { mailbox: id, born: there.born, upto });
        }
        for key in old {
            batch.delete(Space::Bulk, key);
        }
        if head != there.head {
            // A sink goes on counting what it would hold; see `places`.
            mailbox::release(batch, &id, if there.sink { 0 } else { freed }, head)?;
        }
        if left == 0 {
            return Ok(Some(row));
        }
    }
    Ok(next)
}

/// Forgets answers to retries that nobody sends any more.
fn places<T: Tables>(
    batch: &mut Batch<'_, T>,
    start: &[u8],
    keep_from: Day,
    spoilt: &mut Spoilt,
) -> Result<Option<Vec<u8>>, StoreError> {
    let (rows, next) = page(batch, start, key::PLACES, spoilt)?;
    for (row, value) in rows {
        let Some(placed) = spoilt.pass(Placed::decode(&value))? else { continue };
        if placed.day >= keep_from {
            continue;
        }
        // A sink counts what it would hold, until it would have expired.
        let sink = match key::born_in(&row) {
            Some(born) => spoilt.pass(batch.load(Space::State, &key::sink(born)))?.flatten(),
            None => None,
        };
        if let Some(id) = sink.and_then(|id| id.try_into().ok()) {
            let id = MailboxId::from_bytes(id);
            let head = batch.mailbox(&id).map(|there| there.map_or(Seq::START, |there| there.head));
            if let Some(head) = spoilt.pass(head)? {
                mailbox::release(batch, &id, u64::from(placed.length), head)?;
            }
        }
        batch.delete(Space::State, row);
    }
    Ok(next)
}

fn blobs<T: Tables>(
    batch: &mut Batch<'_, T>,
    start: &[u8],
    keep_from: Day,
    unfinished_from: Day,
    spoilt: &mut Spoilt,
) -> Result<Option<Vec<u8>>, StoreError> {
    let (rows, next) = page(batch, start, key::BLOBS, spoilt)?;
    for (row, value) in rows {
        let Some(blob) = spoilt.pass(record::decode::<Blob>(&value))? else { continue };
        let limit = if blob.complete { keep_from } else { unfinished_from };
        if blob.day >= limit {
            continue;
        }
        let Some(hash) = key::id_in(&row).map(BlobHash::from_bytes) else { continue };
        blob::drop_blob(batch, &hash, &blob)?;
        // A blob has up to thousands of parts: one a step.
        return Ok(Some(after(&row)));
    }
    Ok(next)
}
