//! Retention: what is too old goes, in bounded steps between other changes.

use std::sync::Once;

use lapwing_wire::{
    frame::Seq,
    ids::{BlobHash, MailboxId},
    time::Timestamp,
};

use super::{
    super::{
        Day, Mailbox, Outcome, StoreError, SweepCursor, Withdrawn,
        damage::after,
        record::{self, Blob, Placed, RetentionClock, decode_envelope, envelope_length, key, leftover_key},
        tables::{Batch, Scan, Space, Tables},
    },
    blob, mailbox,
};

/// Records that one step looks at, and numbers of envelopes, deleted or gone before, that it passes at most: some milliseconds of
/// the writer.
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

/// One step. Of blobs the complete ones go that are older than the first of two days, the others if older than the second.
pub(super) fn step<T: Tables>(
    batch: &mut Batch<'_, T>,
    from: Option<&SweepCursor>,
    keep_from: Day,
    blobs: (Day, Day),
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
        Some(&key::BLOBS) => self::blobs(batch, &start, blobs, &mut spoilt)?,
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
        if there.head > there.newest {
            continue;
        }
        let steps = u64::try_from(left).unwrap_or(u64::MAX).saturating_sub(1);
        let mut last = there.newest.min(Seq::new(there.head.value().saturating_add(steps)));
        let mut found = expired(batch, &there, keep_from, last, left)?;
        if found.is_damaged && last < there.newest {
            // What is old may lie behind a damaged place that is as long as a step.
            last = there.newest;
            found = expired(batch, &there, keep_from, last, left)?;
        }
        let Expired { old, mut freed, young, is_damaged } = found;
        let mut head = young.unwrap_or(last.next());
        if is_damaged {
            spoilt.0 = true;
            // What comes before something old is old too. Of the rest nothing is known.
            let oldest = old.iter().filter_map(|key| key::seq_in(key)).max();
            head = oldest.map_or(there.head, Seq::next);
            if head > there.newest && !there.sink {
                freed = there.bytes;
            }
        }
        let passed = usize::try_from(head.value().saturating_sub(there.head.value())).unwrap_or(usize::MAX);
        left = left.saturating_sub(passed);
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

/// What of a mailbox is too old.
struct Expired {
    /// Keys of envelopes.
    old: Vec<Vec<u8>>,
    /// Their bytes.
    freed: u64,
    /// The first that is not.
    young: Option<Seq>,
    is_damaged: bool,
}

/// Looks from a mailbox's head to `last`, and finds `most` at most.
fn expired<T: Tables>(
    batch: &Batch<'_, T>,
    there: &Mailbox,
    keep_from: Day,
    last: Seq,
    most: usize,
) -> Result<Expired, StoreError> {
    let mut found = Expired { old: Vec::new(), freed: 0, young: None, is_damaged: false };
    let (first, last) = (key::envelope(there.born, there.head), key::envelope(there.born, last));
    let around = batch.scan_around(Space::Bulk, &first, &last, &mut |key, value| {
        let Ok((day, _, _)) = decode_envelope(value.head()) else {
            found.is_damaged = true;
            return Ok(Scan::More);
        };
        if found.old.len() == most || (day >= keep_from && !there.sink) {
            found.young = key::seq_in(key);
            return Ok(Scan::Stop);
        }
        found.freed = found.freed.saturating_add(envelope_length(value.length()));
        found.old.push(key.to_vec());
        Ok(Scan::More)
    })?;
    found.is_damaged |= around.is_damaged;
    Ok(found)
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
    (complete_from, unfinished_from): (Day, Day),
    spoilt: &mut Spoilt,
) -> Result<Option<Vec<u8>>, StoreError> {
    let (rows, next) = page(batch, start, key::BLOBS, spoilt)?;
    for (row, value) in rows {
        let Some(blob) = spoilt.pass(record::decode::<Blob>(&value))? else { continue };
        let limit = if blob.complete { complete_from } else { unfinished_from };
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
