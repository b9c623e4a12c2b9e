//! Tripwires: arm, disarm, present a token.
//!
//! Invariants: TRP-04 arming replaces all of an owner's records at once and never looks at anybody else's; TRP-05
//! a token writes and commits in any case; TRP-06 what a tripwire does and the deletion of its list and records
//! are one change, so it fires once; TRP-07 an action is done only with the permission of the mailbox it names.

use lapwing_wire::{
    capability::{PublicKey, TripwireOwner},
    codec,
    frame::{Refusal, Stored},
    ids::{EnvelopeId, MailboxId, TripwireId},
    padding::SizeClass,
    time::Timestamp,
    tripwire::{Action, ListKey, Meaning, OpenRecord, OpenStatus, SealedList, Token, TokenRecord},
};
use sha2::{Digest, Sha256};

use super::{
    super::{
        Charge, Day, Outcome, StoreError,
        record::{Tripwire, key},
        tables::{Batch, Scan, Space, Tables},
    },
    access::{self, Cost},
    mailbox,
};

/// Most records that are opened for one token. A token belongs to one vault payload, which belongs to few tripwires;
/// whoever fills a lookup beyond this has the token.
const MAX_MATCHES: usize = 64;

/// What an owner wants armed.
pub(super) struct Armed<'a> {
    pub(super) owner: &'a PublicKey<TripwireOwner>,
    pub(super) serial: u64,
    pub(super) records: &'a [TokenRecord],
    pub(super) list: &'a SealedList,
}

impl Armed<'_> {
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(codec::encode(&(self.records, self.list))).into()
    }

    fn bytes(&self) -> u64 {
        let records: usize = self.records.iter().map(|record| record.sealed.len() + 96).sum();
        u64::try_from(records + self.list.as_bytes().len()).unwrap_or(u64::MAX)
    }
}

pub(super) fn arm<T: Tables>(
    batch: &mut Batch<'_, T>,
    armed: &Armed<'_>,
    charge: Charge,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    let id = TripwireId::of_owner(armed.owner);
    let digest = armed.digest();
    let there: Option<Tripwire> = batch.load_as(Space::State, &key::tripwire(&id))?;
    if let Some(there) = &there {
        if there.serial == armed.serial && there.digest == digest {
            return Ok(Outcome::Done);
        }
        if there.serial >= armed.serial {
            return Ok(Outcome::Refused(Refusal::Conflict));
        }
    }
    let cost = Cost { bytes: armed.bytes(), mailboxes: 0 };
    let freed = there.as_ref().filter(|there| there.access == charge.key()).map_or(0, |there| there.charged);
    if !access::allows(batch, charge, cost, freed, now)? {
        return Ok(Outcome::Refused(Refusal::NoAccess));
    }
    if let Some(there) = &there {
        remove(batch, &id, there)?;
    }
    access::take(batch, charge.key().as_ref(), cost)?;
    for (index, record) in armed.records.iter().enumerate() {
        let index = u8::try_from(index).map_err(|_| StoreError::Damaged)?;
        batch.put(Space::State, key::record(&record.lookup, &id, index), record.sealed.to_vec());
    }
    batch.put(Space::State, key::list(&id), armed.list.as_bytes().to_vec());
    let tripwire = Tripwire {
        owner: *armed.owner,
        serial: armed.serial,
        digest,
        fired: false,
        records: armed.records.iter().map(|record| record.lookup).collect(),
        charged: cost.bytes,
        access: charge.key(),
    };
    batch.put_as(Space::State, key::tripwire(&id), &tripwire);
    Ok(Outcome::Done)
}

pub(super) fn disarm<T: Tables>(
    batch: &mut Batch<'_, T>,
    owner: &PublicKey<TripwireOwner>,
) -> Result<Outcome, StoreError> {
    let id = TripwireId::of_owner(owner);
    if let Some(there) = batch.load_as::<Tripwire>(Space::State, &key::tripwire(&id))? {
        remove(batch, &id, &there)?;
        batch.delete(Space::State, key::tripwire(&id));
    }
    Ok(Outcome::Done)
}

pub(super) fn present<T: Tables>(
    batch: &mut Batch<'_, T>,
    token: &Token,
    filler: &[u8; 32],
    day: Day,
) -> Result<Outcome, StoreError> {
    batch.put(Space::State, key::FILLER.to_vec(), filler.to_vec());
    let mut appended = Vec::new();
    let mut status: Option<(u8, OpenStatus, OpenRecord)> = None;
    for record in matches(batch, token)? {
        let fired_now = record.meaning == Meaning::Fire
            && fire(batch, &record.tripwire, &record.list_key, day, &mut appended)?;
        let there: Option<Tripwire> = batch.load_as(Space::State, &key::tripwire(&record.tripwire))?;
        let said = OpenStatus {
            serial: there.as_ref().map_or(0, |there| there.serial),
            fired: fired_now || there.is_some_and(|there| there.fired),
        };
        // The owner's own record renews; the status keys of the others are random and nobody reads them.
        let rank = match record.meaning {
            Meaning::Renew => 2,
            Meaning::Nothing => 1,
            Meaning::Fire => 0,
        };
        if status.as_ref().is_none_or(|(best, _, _)| rank > *best) {
            status = Some((rank, said, record));
        }
    }
    Ok(Outcome::Token { status: status.map(|(_, said, record)| (said, record.status_key)), appended })
}

/// The records of a token, opened.
fn matches<T: Tables>(batch: &Batch<'_, T>, token: &Token) -> Result<Vec<OpenRecord>, StoreError> {
    let lookup = token.lookup();
    let (first, last) = key::records(&lookup);
    let mut found = Vec::new();
    batch.scan(Space::State, &first, &last, &mut |_, value| {
        let record = TokenRecord { lookup, sealed: serde_bytes::ByteBuf::from(value) };
        found.extend(record.open(token));
        Ok(if found.len() < MAX_MATCHES { Scan::More } else { Scan::Stop })
    })?;
    Ok(found)
}

/// TRP-06: does what the list says and deletes list and records. `false` if there is nothing left to do.
fn fire<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    list_key: &ListKey,
    day: Day,
    appended: &mut Vec<MailboxId>,
) -> Result<bool, StoreError> {
    let Some(mut tripwire) = batch.load_as::<Tripwire>(Space::State, &key::tripwire(id))? else {
        return Ok(false);
    };
    let Some(sealed) = batch.load(Space::State, &key::list(id))? else { return Ok(false) };
    // Somebody else's record may name this tripwire; only the list's own key opens it.
    let Some(actions) = SealedList::from_bytes(sealed).open(id, list_key) else { return Ok(false) };
    for action in &actions {
        match action {
            Action::Append { mailbox, envelope, permission } => {
                let envelope_id = EnvelopeId::of(envelope);
                let Some(there) = batch.mailbox(mailbox)? else { continue };
                let (born, writer) = (there.born, there.keys.write);
                // TRP-07
                if Action::check_append(&writer, mailbox, &envelope_id, permission).is_err()
                    || SizeClass::of_sealed(envelope.len()).is_none()
                    || mailbox::placed(batch, born, &envelope_id)?.is_some()
                {
                    continue;
                }
                // Beyond every quota: the list was charged when it was armed.
                let outcome = mailbox::store(batch, mailbox, &envelope_id, envelope, day)?;
                if let Outcome::Stored { place: Stored { .. }, is_new: true } = outcome {
                    appended.push(*mailbox);
                }
            }
            Action::Sink { mailbox, permission } => {
                let Some(there) = batch.mailbox(mailbox)? else { continue };
                let admin = there.keys.admin;
                // TRP-07
                if Action::check_sink(&admin, mailbox, permission).is_err() {
                    continue;
                }
                // What it holds is unreadable from here on; the sweep deletes it.
                batch.sink_mailbox(*mailbox)?;
            }
        }
    }
    remove(batch, id, &tripwire)?;
    tripwire.fired = true;
    tripwire.records.clear();
    tripwire.charged = 0;
    batch.put_as(Space::State, key::tripwire(id), &tripwire);
    Ok(true)
}

/// Deletes list and records and gives back what they were charged.
fn remove<T: Tables>(batch: &mut Batch<'_, T>, id: &TripwireId, there: &Tripwire) -> Result<(), StoreError> {
    for (index, lookup) in there.records.iter().enumerate() {
        let index = u8::try_from(index).map_err(|_| StoreError::Damaged)?;
        batch.delete(Space::State, key::record(lookup, id, index));
    }
    batch.delete(Space::State, key::list(id));
    access::give(batch, there.access.as_ref(), Cost { bytes: there.charged, mailboxes: 0 })
}
