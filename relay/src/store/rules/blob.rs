//! Blobs: parts in order, readable once their hash was checked.

use lapwing_wire::{frame::Refusal, ids::BlobHash, time::Timestamp};

use super::{
    super::{
        Charge, Day, Outcome, StoreError,
        keys::Slot,
        record::{Blob, encode_part, key},
        tables::{Batch, Scan, Space, Tables},
    },
    access,
};

/// Bytes that a blob is charged at least: its record, its slot in the key file, twice, and a place in the log are some 500, and a
/// ticket must not pay for millions of them with one byte each.
const LEAST_CHARGE: u64 = 4096;

/// One part as it came.
pub(super) struct Part<'a> {
    pub(super) hash: &'a BlobHash,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
    /// Bytes of blobs that its ticket may hold with it.
    pub(super) limit: u64,
}

pub(super) fn put<T: Tables>(
    batch: &mut Batch<'_, T>,
    part: &Part<'_>,
    charge: Charge,
    now: Timestamp,
    day: Day,
) -> Result<Outcome, StoreError> {
    let Part { hash, total, offset, bytes, limit } = part;
    let key = key::blob(hash);
    let there: Option<Blob> = batch.load_as(Space::State, &key)?;
    let is_first = there.is_none();
    let mut blob = match there {
        Some(blob) if blob.total != *total => return Ok(Outcome::Refused(Refusal::Conflict)),
        Some(blob) if blob.complete => {
            return Ok(Outcome::Blob { stored: blob.stored, complete: true });
        }
        Some(blob) => blob,
        None => {
            let (access, slot) = (charge.key(), Slot(u32::MAX));
            Blob { total: *total, stored: 0, complete: false, day, access, slot }
        }
    };
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let end = offset.saturating_add(length);
    if end > *total || *offset > blob.stored {
        // Beyond the end, or a part is missing in between: say where to go on.
        return Ok(if end > *total || is_first {
            Outcome::Refused(Refusal::Conflict)
        } else {
            Outcome::Blob { stored: blob.stored, complete: false }
        });
    }
    let cost = cost(*total);
    if is_first && !access::allows_blob(batch, charge, cost, *limit, now)? {
        return Ok(Outcome::Refused(Refusal::NoAccess));
    }
    if is_first {
        blob.slot = batch.allocate()?;
    }
    if *offset == blob.stored && length > 0 {
        batch.put(Space::Bulk, key::part(hash, *offset), encode_part(blob.slot, bytes));
        blob.stored = end;
    }
    let stored = blob.stored;
    if is_first {
        access::take_blob(batch, charge.key().as_ref(), cost)?;
    }
    batch.put_as(Space::State, key, &blob);
    Ok(Outcome::Blob { stored, complete: false })
}

pub(super) fn finish<T: Tables>(
    batch: &mut Batch<'_, T>,
    hash: &BlobHash,
    genuine: bool,
    day: Day,
) -> Result<Outcome, StoreError> {
    let key = key::blob(hash);
    let Some(mut blob) = batch.load_as::<Blob>(Space::State, &key)? else {
        return Ok(Outcome::Refused(Refusal::Conflict));
    };
    if blob.complete {
        return Ok(Outcome::Blob { stored: blob.stored, complete: true });
    }
    if blob.stored != blob.total {
        // Dropped and begun anew while its hash was computed.
        return Ok(Outcome::Blob { stored: blob.stored, complete: false });
    }
    if !genuine {
        drop_blob(batch, hash, &blob)?;
        return Ok(Outcome::Refused(Refusal::Conflict));
    }
    blob.complete = true;
    blob.day = day;
    batch.put_as(Space::State, key, &blob);
    Ok(Outcome::Blob { stored: blob.stored, complete: true })
}

/// Deletes a blob and its parts. Of parts that the disk has spoilt the keys go.
pub(super) fn drop_blob<T: Tables>(
    batch: &mut Batch<'_, T>,
    hash: &BlobHash,
    blob: &Blob,
) -> Result<(), StoreError> {
    let mut parts = Vec::new();
    let (first, last) = (key::part(hash, 0), key::part(hash, u64::MAX));
    let around = batch.scan_around(Space::Bulk, &first, &last, &mut |key, _| {
        parts.push(key.to_vec());
        Ok(Scan::More)
    })?;
    if around.is_damaged {
        tracing::error!("parts of an attachment are damaged; they cannot be opened, and stay on the disk");
    }
    for part in parts {
        batch.delete(Space::Bulk, part);
    }
    batch.delete(Space::State, key::blob(hash));
    batch.forget_keys(blob.slot, u64::MAX);
    access::give_blob(batch, blob.access.as_ref(), cost(blob.total))
}

/// What a blob of this length is charged, from its first part until it goes.
fn cost(total: u64) -> u64 {
    total.max(LEAST_CHARGE)
}
