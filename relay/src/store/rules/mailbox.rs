//! Mailboxes: create, close, append, acknowledge.

use lapwing_wire::{
    frame::{MailboxKind, Refusal, Seq, Stored},
    ids::{EnvelopeId, MailboxId, RunningHash},
    limits::MAX_SELECTIVE_REACH,
    time::Timestamp,
};

use super::{
    super::{
        Born, Charge, Day, Mailbox, MailboxKeys, Outcome, StoreError, Withdrawn, mailbox_id,
        record::{Placed, REMEMBERED, encode_envelope, envelope_length, key},
        tables::{Batch, Scan, Space, Tables},
    },
    access::{self, Cost},
    leftovers,
};

pub(super) fn create<T: Tables>(
    batch: &mut Batch<'_, T>,
    keys: MailboxKeys,
    kind: MailboxKind,
    charge: Charge,
    born: Born,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    let id = mailbox_id(&keys.admin);
    if let Some(there) = batch.mailbox(&id)? {
        let same = there.keys == keys && there.kind == kind;
        return Ok(if same { Outcome::Done } else { Outcome::Refused(Refusal::Conflict) });
    }
    let cost = Cost { bytes: 0, mailboxes: 1 };
    if !access::allows(batch, charge, cost, 0, now)? {
        return Ok(Outcome::Refused(Refusal::NoAccess));
    }
    let access = charge.key();
    access::take(batch, access.as_ref(), cost)?;
    let slot = batch.allocate()?;
    let mailbox = Mailbox {
        keys,
        kind,
        sink: false,
        born,
        head: Seq::START.next(),
        newest: Seq::START,
        hash: RunningHash::START,
        bytes: 0,
        reserved: 0,
        taken: 0,
        access,
        slot,
    };
    batch.create_mailbox(id, mailbox);
    Ok(Outcome::Done)
}

pub(super) fn close<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &MailboxId,
    born: Born,
) -> Result<Outcome, StoreError> {
    let withdrawn = Outcome::Withdrawn(Withdrawn::all(*id, born));
    let there = match living(batch, id, born) {
        // Its keys can go as long as it is known where they lie.
        Err(StoreError::Damaged) => batch.unreadable_mailbox(id)?.filter(|mailbox| mailbox.born == born),
        there => there?,
    };
    let Some(mailbox) = there else { return Ok(withdrawn) };
    let Live { all, .. } = live(batch, born, mailbox.head, mailbox.newest)?;
    for (key, _) in all {
        batch.delete(Space::Bulk, key);
    }
    access::give(batch, mailbox.access.as_ref(), Cost { bytes: mailbox.bytes, mailboxes: 1 })?;
    // What is remembered for retries names the mailbox's birth, so it is dead now.
    if mailbox.newest > Seq::START {
        leftovers::of_closed(batch, born);
    }
    batch.delete_mailbox(*id, &mailbox);
    batch.forget_keys(mailbox.slot, u64::MAX);
    Ok(withdrawn)
}

#[expect(clippy::too_many_arguments, reason = "the fields of one mutation, spread once")]
pub(super) fn append<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &MailboxId,
    born: Born,
    envelope_id: &EnvelopeId,
    envelope: &[u8],
    limit: u64,
    reserve: u64,
    day: Day,
) -> Result<Outcome, StoreError> {
    let (bytes, reserved, access) = match batch.mailbox(id)? {
        Some(mailbox) if mailbox.born == born => (mailbox.bytes, mailbox.reserved, mailbox.access),
        _ => return Ok(Outcome::Refused(Refusal::NotAllowed)),
    };
    if let Some(place) = placed(batch, born, envelope_id)? {
        return Ok(Outcome::Stored { place, is_new: false });
    }
    let length = byte_count(envelope);
    let mut is_full = bytes.saturating_add(length) > limit;
    if let Some(key) = &access
        && let Some(ticket) = batch.ticket(key)?
    {
        is_full |= ticket.used_bytes.saturating_add(length) > ticket.quota_bytes;
    }
    if !is_full {
        return store(batch, id, envelope_id, envelope, day);
    }
    // CAP-06: each mailbox has a reserve of its own, so that nobody who shares its ticket can use it up either.
    if reserved.saturating_add(length) > reserve {
        return Ok(Outcome::Refused(Refusal::Full));
    }
    let outcome = store(batch, id, envelope_id, envelope, day)?;
    if let Some(mailbox) = batch.change_mailbox(id)? {
        mailbox.reserved = mailbox.reserved.saturating_add(length);
    }
    Ok(outcome)
}

/// Stores an envelope that every check has passed. FRM-06, FRM-07.
pub(super) fn store<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &MailboxId,
    envelope_id: &EnvelopeId,
    envelope: &[u8],
    day: Day,
) -> Result<Outcome, StoreError> {
    let length = byte_count(envelope);
    let Some(mailbox) = batch.mailbox(id)? else {
        return Ok(Outcome::Refused(Refusal::NotAllowed));
    };
    let seq = mailbox.newest.next();
    let hash = mailbox.hash.next(seq.value(), envelope_id);
    mailbox.newest = seq;
    mailbox.hash = hash;
    // A sink counts as if it kept: else it would never be full, and that could be seen.
    mailbox.bytes = mailbox.bytes.saturating_add(length);
    let (born, sink, access, slot) = (mailbox.born, mailbox.sink, mailbox.access, mailbox.slot);
    batch.appended(id, length);
    access::take(batch, access.as_ref(), Cost { bytes: length, mailboxes: 0 })?;
    let place = Stored { seq, hash };
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let remembered = Placed { id: *envelope_id, place, day, length };
    batch.put(Space::State, key::place(born, envelope_id), remembered.encode());
    batch.remember(born, envelope_id);
    if !sink {
        batch.put(Space::Bulk, key::envelope(born, seq), encode_envelope(slot, day, &hash, envelope));
    }
    Ok(Outcome::Stored { place, is_new: !sink })
}

pub(super) fn ack<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &MailboxId,
    born: Born,
    upto: Seq,
    also: &[Seq],
) -> Result<Outcome, StoreError> {
    let there = match living(batch, id, born) {
        Err(StoreError::Damaged) => {
            batch.mend_mailbox(id)?;
            living(batch, id, born)?
        }
        there => there?,
    };
    let Some(mailbox) = there else {
        return Ok(Outcome::Refused(Refusal::NotAllowed));
    };
    if mailbox.kind == MailboxKind::Log || mailbox.sink {
        return Ok(Outcome::Done);
    }
    let upto = upto.min(mailbox.newest);
    let first = waiting(batch, &mailbox, mailbox.head.max(upto.next()))?;
    let reach = first.value().saturating_add(MAX_SELECTIVE_REACH);
    // Numbers that are not given yet are not meant: what comes under them is nobody's to withdraw.
    let given = || also.iter().copied().filter(|seq| *seq <= mailbox.newest);
    if given().any(|seq| seq.value() > reach) {
        return Ok(Outcome::Refused(Refusal::TooLarge));
    }
    let (mut freed, mut taken) = (0u64, 0u32);
    let mut is_damaged = false;
    let mut take = |batch: &mut Batch<'_, T>, first: Seq, last: Seq| {
        let live = live(batch, born, first, last)?;
        is_damaged |= live.is_damaged;
        for (key, length) in live.all {
            (freed, taken) = (freed.saturating_add(length), taken.saturating_add(1));
            batch.delete(Space::Bulk, key);
        }
        Ok::<_, StoreError>(())
    };
    take(batch, mailbox.head, upto)?;
    for seq in given().filter(|seq| *seq >= first) {
        take(batch, seq, seq)?;
    }
    count_taken(batch, id, taken)?;
    // Else who never takes everything up to a number leaves more and more behind that all later ones walk over.
    let head = if also.contains(&first) { waiting(batch, &mailbox, first)? } else { first };
    if is_damaged && head > mailbox.newest {
        // What cannot be read is not charged for ever.
        freed = mailbox.bytes;
    }
    if freed > 0 || head != mailbox.head {
        release(batch, id, freed, head)?;
    }
    let last = given().fold(upto, Seq::max);
    Ok(Outcome::Withdrawn(Withdrawn { mailbox: *id, born, upto: last }))
}

/// The first number from `from` on whose envelope is there, as far as an acknowledgement reaches: where the head belongs when
/// all before `from` was taken.
fn waiting<T: Tables>(batch: &Batch<'_, T>, mailbox: &Mailbox, from: Seq) -> Result<Seq, StoreError> {
    let reach = Seq::new(from.value().saturating_add(MAX_SELECTIVE_REACH));
    let last = reach.min(mailbox.newest);
    if from > last {
        return Ok(from);
    }
    let mut first = last.next();
    let (start, end) = (key::envelope(mailbox.born, from), key::envelope(mailbox.born, last));
    let found = batch.scan(Space::Bulk, &start, &end, &mut |key, _| {
        first = key::seq_in(key).ok_or(StoreError::Damaged)?;
        Ok(Scan::Stop)
    });
    match found {
        // What lies in the damaged place may be there: its keys must not go. A disk that is gone is noticed when this is written.
        Err(StoreError::Damaged | StoreError::Disk) => Ok(from),
        found => found.map(|()| first),
    }
}

/// What is remembered of envelopes that were taken is looked over when they are many.
fn count_taken<T: Tables>(batch: &mut Batch<'_, T>, id: &MailboxId, taken: u32) -> Result<(), StoreError> {
    if taken == 0 {
        return Ok(());
    }
    let Some(mailbox) = batch.change_mailbox(id)? else { return Ok(()) };
    mailbox.taken = mailbox.taken.saturating_add(taken);
    if mailbox.taken >= REMEMBERED {
        mailbox.taken = 0;
        let born = mailbox.born;
        leftovers::of_taken(batch, born)?;
    }
    Ok(())
}

/// Takes freed bytes off a mailbox and its ticket, and moves its head.
pub(super) fn release<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &MailboxId,
    freed: u64,
    head: Seq,
) -> Result<(), StoreError> {
    let Some(mailbox) = batch.change_mailbox(id)? else { return Ok(()) };
    // A sink does not know which of what would expire now was taken before it became one.
    let freed = freed.min(mailbox.bytes);
    mailbox.bytes = mailbox.bytes.saturating_sub(freed);
    mailbox.reserved = mailbox.reserved.saturating_sub(freed);
    let has_moved = mailbox.head != head;
    mailbox.head = head;
    let (access, slot, is_sink) = (mailbox.access, mailbox.slot, mailbox.sink);
    // Of a sink all keys are to be forgotten already.
    if has_moved && !is_sink {
        batch.forget_keys(slot, head.value());
    }
    access::give(batch, access.as_ref(), Cost { bytes: freed, mailboxes: 0 })
}

/// The place that a living mailbox gave to an envelope before.
pub(super) fn placed<T: Tables>(
    batch: &Batch<'_, T>,
    born: Born,
    envelope_id: &EnvelopeId,
) -> Result<Option<Stored>, StoreError> {
    if batch.is_new(born, envelope_id) {
        return Ok(None);
    }
    let Some(bytes) = batch.load(Space::State, &key::place(born, envelope_id))? else { return Ok(None) };
    let placed = Placed::decode(&bytes)?;
    // The key has a part of the id only.
    Ok((placed.id == *envelope_id).then_some(placed.place))
}

fn byte_count(envelope: &[u8]) -> u64 {
    u64::try_from(envelope.len()).unwrap_or(u64::MAX)
}

fn living<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &MailboxId,
    born: Born,
) -> Result<Option<Mailbox>, StoreError> {
    Ok(batch.mailbox(id)?.filter(|mailbox| mailbox.born == born).cloned())
}

/// Envelopes that can be read.
struct Live {
    /// Keys and lengths.
    all: Vec<(Vec<u8>, u64)>,
    is_damaged: bool,
}

/// The envelopes from `head` to `upto`. What the disk has spoilt is lost, and keeps none beside it.
fn live<T: Tables>(batch: &Batch<'_, T>, born: Born, head: Seq, upto: Seq) -> Result<Live, StoreError> {
    let mut all = Vec::new();
    if head > upto {
        return Ok(Live { all, is_damaged: false });
    }
    let (first, last) = (key::envelope(born, head), key::envelope(born, upto));
    let around = batch.scan_around(Space::Bulk, &first, &last, &mut |key, value| {
        all.push((key.to_vec(), envelope_length(value.length())));
        Ok(Scan::More)
    })?;
    Ok(Live { all, is_damaged: around.is_damaged })
}
