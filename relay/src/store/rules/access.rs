//! Access tickets and their quotas.

use lapwing_wire::{
    capability::{Access, PublicKey},
    frame::Refusal,
    time::Timestamp,
};

use super::super::{
    Charge, Outcome, StoreError, Ticket,
    tables::{Batch, Tables},
};

/// Bytes of a blob that is certainly no large attachment.
const SMALL_BLOB: u64 = 64 << 10;

/// Something new that is to be charged.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub(super) bytes: u64,
    pub(super) mailboxes: u64,
}

pub(super) fn issue<T: Tables>(batch: &mut Batch<'_, T>, ticket: &Ticket) -> Result<Outcome, StoreError> {
    if batch.ticket(&ticket.key)?.is_none() {
        batch.put_ticket(ticket.clone());
    }
    Ok(Outcome::Done)
}

pub(super) fn revoke<T: Tables>(
    batch: &mut Batch<'_, T>,
    key: &PublicKey<Access>,
) -> Result<Outcome, StoreError> {
    match batch.change_ticket(key)? {
        Some(ticket) => {
            ticket.revoked = true;
            Ok(Outcome::Done)
        }
        None => Ok(Outcome::Refused(Refusal::NotAllowed)),
    }
}

/// Whether a charge would be accepted once `freed` bytes are given back to the same ticket.
pub(super) fn allows<T: Tables>(
    batch: &mut Batch<'_, T>,
    charge: Charge,
    cost: Cost,
    freed: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Charge::Ticket(key) = charge else { return Ok(true) };
    Ok(batch.ticket(&key)?.is_some_and(|ticket| {
        let bytes = ticket.used_bytes.saturating_sub(freed).saturating_add(cost.bytes);
        ticket.is_valid(now)
            && bytes <= ticket.quota_bytes
            && ticket.used_mailboxes.saturating_add(cost.mailboxes) <= ticket.quota_mailboxes
    }))
}

/// Charges; whoever must ask first has asked.
pub(super) fn take<T: Tables>(
    batch: &mut Batch<'_, T>,
    key: Option<&PublicKey<Access>>,
    cost: Cost,
) -> Result<(), StoreError> {
    if let Some(ticket) = change(batch, key)? {
        ticket.used_bytes = ticket.used_bytes.saturating_add(cost.bytes);
        ticket.used_mailboxes = ticket.used_mailboxes.saturating_add(cost.mailboxes);
    }
    Ok(())
}

/// Gives back.
pub(super) fn give<T: Tables>(
    batch: &mut Batch<'_, T>,
    key: Option<&PublicKey<Access>>,
    cost: Cost,
) -> Result<(), StoreError> {
    if let Some(ticket) = change(batch, key)? {
        ticket.used_bytes = ticket.used_bytes.saturating_sub(cost.bytes);
        ticket.used_mailboxes = ticket.used_mailboxes.saturating_sub(cost.mailboxes);
    }
    Ok(())
}

/// As `allows`, for a blob: a ticket's blobs may not have more than `limit` bytes with it, so that they leave room for envelopes. Small
/// ones may have an eighth of that besides: what an invitation or a newcomer to a group needs is a blob too.
pub(super) fn allows_blob<T: Tables>(
    batch: &mut Batch<'_, T>,
    charge: Charge,
    bytes: u64,
    limit: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if !allows(batch, charge, Cost { bytes, mailboxes: 0 }, 0, now)? {
        return Ok(false);
    }
    let Charge::Ticket(key) = charge else { return Ok(true) };
    let limit = if bytes <= SMALL_BLOB { limit.saturating_add(limit / 8) } else { limit };
    Ok(batch.ticket(&key)?.is_some_and(|ticket| ticket.used_blob_bytes.saturating_add(bytes) <= limit))
}

/// As `take`, for a blob.
pub(super) fn take_blob<T: Tables>(
    batch: &mut Batch<'_, T>,
    key: Option<&PublicKey<Access>>,
    bytes: u64,
) -> Result<(), StoreError> {
    take(batch, key, Cost { bytes, mailboxes: 0 })?;
    if let Some(ticket) = change(batch, key)? {
        ticket.used_blob_bytes = ticket.used_blob_bytes.saturating_add(bytes);
    }
    Ok(())
}

/// As `give`, for a blob. Of one that was charged before blobs were counted apart more may be given back than was counted: the whole
/// quota holds all the same.
pub(super) fn give_blob<T: Tables>(
    batch: &mut Batch<'_, T>,
    key: Option<&PublicKey<Access>>,
    bytes: u64,
) -> Result<(), StoreError> {
    give(batch, key, Cost { bytes, mailboxes: 0 })?;
    if let Some(ticket) = change(batch, key)? {
        ticket.used_blob_bytes = ticket.used_blob_bytes.saturating_sub(bytes);
    }
    Ok(())
}

/// The ticket, to be changed. Of a damaged one nothing is counted: what was accepted is done, taken and swept without it, and
/// whoever asks it for something new hears that it is damaged.
fn change<'b, T: Tables>(
    batch: &'b mut Batch<'_, T>,
    key: Option<&PublicKey<Access>>,
) -> Result<Option<&'b mut Ticket>, StoreError> {
    let Some(key) = key else { return Ok(None) };
    match batch.change_ticket(key) {
        Err(StoreError::Damaged) => Ok(None),
        found => found,
    }
}

impl Charge {
    /// The ticket that pays.
    pub(super) fn key(self) -> Option<PublicKey<Access>> {
        match self {
            Self::Ticket(key) => Some(key),
            Self::Open => None,
        }
    }
}
