//! The queries, over any tables.

use std::sync::Once;

use lapwing_wire::{
    capability::{Access, PublicKey},
    frame::{BlobPart, Item, Seq, Stored, Window},
    ids::{BlobHash, BlobHasher, MailboxId},
    time::Timestamp,
};
use serde_bytes::ByteBuf;

use super::{
    Born, Mailbox, StoreError, Ticket, Totals, WindowQuery,
    record::{self, Blob, ENVELOPE_HEAD, Seal, decode_envelope, decode_part, key},
    tables::{Scan, Space, Tables, load_mailbox, load_readable_mailbox},
};

/// For whoever asks what it is, not what is in it.
pub(super) fn mailbox(tables: &impl Tables, id: &MailboxId) -> Result<Option<Mailbox>, StoreError> {
    look(tables, id, load_readable_mailbox)
}

/// Asks the tables as much for a mailbox that is not there as for one that is (FRM-04).
fn look<T: Tables>(
    tables: &T,
    id: &MailboxId,
    load: impl FnOnce(&T, &[u8]) -> Result<Mailbox, StoreError>,
) -> Result<Option<Mailbox>, StoreError> {
    match tables.load(Space::State, &key::mailbox(id))? {
        Some(fixed) => load(tables, &fixed).map(Some),
        None => {
            // Nobody's: births are random.
            tables.load(Space::State, &key::moving(NOBODY))?;
            let (first, last) =
                (key::envelope(NOBODY, Seq::START), key::envelope(NOBODY, Seq::new(u64::MAX)));
            tables.scan(Space::Bulk, &first, &last, &mut |_, _| Ok(Scan::Stop))?;
            Ok(None)
        }
    }
}

/// Envelopes that are left out beside what a window shows.
const MAX_LEFT_OUT: usize = 16;
/// Envelopes that are tried before the first that can be read: an empty window would move no reader on.
const MAX_TRIED: usize = 1024;

/// Once: whoever reads such a mailbox meets it again with every read.
fn tell_left_out() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| tracing::error!("stored envelopes are damaged, and left out; told once"));
}

/// What no mailbox is born as.
const NOBODY: Born = Born::new(0);

pub(super) fn window(tables: &impl Tables, query: &WindowQuery) -> Result<Option<Window>, StoreError> {
    let WindowQuery { mailbox: id, born, after, count, bytes } = query;
    // One of which not even the newest number is known has nothing to show: it would look as if it had been put back.
    let there = look(tables, id, load_mailbox)?;
    let Some(there) = there.filter(|there| there.born == *born) else { return Ok(None) };
    let first = there.head.max(after.next());
    let mut items = Vec::new();
    if first <= there.newest && !there.sink && *count > 0 {
        let mut total = 0usize;
        let (from, to) = (key::envelope(*born, first), key::envelope(*born, there.newest));
        let mut left_out = 0;
        // Not around a damaged block: what lies whole beside it in other tables would be passed over too, and taken unread.
        let scanned = tables.scan(Space::Bulk, &from, &to, &mut |key, value| {
            total = total.saturating_add(value.length().saturating_sub(ENVELOPE_HEAD));
            let is_full = total > *bytes || left_out >= MAX_LEFT_OUT;
            if is_full && !items.is_empty() {
                return Ok(Scan::Stop);
            }
            let seq = key::seq_in(key).ok_or(StoreError::Damaged)?;
            let value = match value.whole() {
                Ok(value) if value.len() >= ENVELOPE_HEAD => value,
                // It would keep all behind it from being read until it expires.
                Ok(_) | Err(StoreError::Damaged) if left_out < MAX_TRIED => {
                    left_out += 1;
                    tell_left_out();
                    return Ok(Scan::More);
                }
                // The disk may still give it back, and who takes what comes behind it takes it too.
                Err(StoreError::Disk) if !items.is_empty() => return Ok(Scan::Stop),
                unread => unread.and(Err(StoreError::Damaged))?,
            };
            let (_, hash, envelope) = decode_envelope(&value)?;
            let mut envelope = envelope.to_vec();
            if !tables.unseal(&Seal::of(key, &value)?, &mut envelope)? {
                // Taken while this was read.
                return Ok(Scan::More);
            }
            items.push(Item { place: Stored { seq, hash }, envelope: ByteBuf::from(envelope) });
            Ok(if items.len() < *count { Scan::More } else { Scan::Stop })
        });
        match scanned {
            Err(StoreError::Disk | StoreError::Damaged) if !items.is_empty() => {}
            scanned => scanned?,
        }
    }
    Ok(Some(Window { mailbox: *id, newest: there.newest, items }))
}

pub(super) fn blob_part(
    tables: &impl Tables,
    hash: &BlobHash,
    offset: u64,
) -> Result<Option<BlobPart>, StoreError> {
    let Some(blob) = blob(tables, hash)?.filter(|blob| blob.complete) else { return Ok(None) };
    let mut bytes = ByteBuf::new();
    if offset < blob.total {
        let (from, to) = (key::part(hash, 0), key::part(hash, offset));
        let (key, value) = tables.last(Space::Bulk, &from, &to)?.ok_or(StoreError::Damaged)?;
        let start = key::offset_in(&key).ok_or(StoreError::Damaged)?;
        let mut part = decode_part(&value)?.to_vec();
        if !tables.unseal(&Seal::of(&key, &value)?, &mut part)? {
            return Ok(None);
        }
        let skip = usize::try_from(offset.saturating_sub(start)).map_err(|_| StoreError::Damaged)?;
        bytes = ByteBuf::from(part.get(skip..).ok_or(StoreError::Damaged)?);
    }
    Ok(Some(BlobPart { total: blob.total, bytes }))
}

pub(super) fn blob_digest(tables: &impl Tables, hash: &BlobHash) -> Result<Option<BlobHash>, StoreError> {
    let Some(blob) = blob(tables, hash)? else { return Ok(None) };
    let mut hasher = BlobHasher::new(blob.total);
    let mut is_whole = true;
    tables.scan(Space::Bulk, &key::part(hash, 0), &key::part(hash, u64::MAX), &mut |key, value| {
        let value = value.whole()?;
        let mut part = decode_part(&value)?.to_vec();
        is_whole &= tables.unseal(&Seal::of(key, &value)?, &mut part)?;
        hasher.update(&part);
        Ok(Scan::More)
    })?;
    Ok(is_whole.then(|| hasher.finish()))
}

pub(super) fn ticket(tables: &impl Tables, id: &PublicKey<Access>) -> Result<Option<Ticket>, StoreError> {
    tables.load(Space::State, &key::ticket(id))?.map(|bytes| record::decode(&bytes)).transpose()
}

pub(super) fn tickets(tables: &impl Tables) -> Result<Vec<Ticket>, StoreError> {
    let mut found = Vec::new();
    each(tables, key::TICKETS, &mut |bytes| {
        found.push(record::decode::<Ticket>(bytes)?);
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn totals(tables: &impl Tables, now: Timestamp) -> Result<Totals, StoreError> {
    let mut totals = Totals::default();
    each(tables, key::MAILBOXES, &mut |fixed| {
        totals.mailboxes += 1;
        totals.envelope_bytes =
            totals.envelope_bytes.saturating_add(load_readable_mailbox(tables, fixed)?.bytes);
        Ok(())
    })?;
    each(tables, key::BLOBS, &mut |bytes| {
        let blob: Blob = record::decode(bytes)?;
        totals.blobs += u64::from(blob.complete);
        totals.blob_bytes = totals.blob_bytes.saturating_add(blob.stored);
        Ok(())
    })?;
    each(tables, key::TICKETS, &mut |bytes| {
        totals.tickets += u64::from(record::decode::<Ticket>(bytes)?.is_valid(now));
        Ok(())
    })?;
    Ok(totals)
}

fn blob(tables: &impl Tables, hash: &BlobHash) -> Result<Option<Blob>, StoreError> {
    tables.load(Space::State, &key::blob(hash))?.map(|bytes| record::decode(&bytes)).transpose()
}

fn each(
    tables: &impl Tables,
    kind: u8,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (first, last) = key::all(kind);
    tables.scan(Space::State, &first, &last, &mut |_, value| {
        visit(&value.whole()?)?;
        Ok(Scan::More)
    })
}
