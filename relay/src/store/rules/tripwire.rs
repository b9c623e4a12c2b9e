//! Tripwires: arm, disarm, present a token.
//!
//! Invariants: TRP-04 arming replaces all of an owner's records at once and never looks at anybody else's; TRP-05
//! a token writes and commits in any case; TRP-06 what a tripwire does and the deletion of its list and of the
//! record that fired are one change, so it fires once, and the owner's own token learns of it; TRP-07 an action is done only with the permission of the mailbox it names.

use lapwing_wire::{
    capability::{PublicKey, TripwireOwner},
    codec,
    frame::{Refusal, Stored},
    ids::{EnvelopeId, MailboxId, TripwireId},
    padding::SizeClass,
    time::Timestamp,
    tripwire::{
        Action, Lookup, Meaning, OpenRecord, OpenStatus, RECORD_LENGTH, SealedList, StatusKey, Token,
        TokenRecord,
    },
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

/// What a record costs beyond its sealed bytes: its key and its place in the tripwire.
const RECORD_OVERHEAD: usize = 96;

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
        let records: usize = self.records.iter().map(|record| record.sealed.len() + RECORD_OVERHEAD).sum();
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
        records: armed.records.iter().map(|record| Some(record.lookup)).collect(),
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
    let mut best = Rank::Fire;
    let mut said: Vec<(OpenStatus, StatusKey)> = Vec::new();
    for Match { record, index } in matches(batch, token)? {
        if record.meaning == Meaning::Fire {
            fire(batch, &record, index, &token.lookup(), day, &mut appended)?;
        }
        let there: Option<Tripwire> = batch.load_as(Space::State, &key::tripwire(&record.tripwire))?;
        let status = OpenStatus {
            serial: there.as_ref().map_or(0, |there| there.serial),
            fired: there.is_some_and(|there| there.fired),
        };
        let rank = Rank::of(record.meaning, status);
        if said.is_empty() || rank > best {
            best = rank;
            said.clear();
        }
        if rank == best {
            said.push((status, record.status_key));
        }
    }
    let chosen = match best {
        // An owner of several plans has one token for all: each answer tells of one that was set off, by lot.
        Rank::RenewFired => usize::from(filler[0]) % said.len().max(1),
        Rank::Fire | Rank::Nothing | Rank::Renew => 0,
    };
    Ok(Outcome::Token { status: said.into_iter().nth(chosen), appended })
}

/// Which of several matching records the answer speaks of: the greatest. The owner's own records renew; the status keys
/// of the others are random and nobody reads them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Fire,
    Nothing,
    Renew,
    RenewFired,
}

impl Rank {
    fn of(meaning: Meaning, status: OpenStatus) -> Self {
        match meaning {
            Meaning::Fire => Self::Fire,
            Meaning::Nothing => Self::Nothing,
            Meaning::Renew if status.fired => Self::RenewFired,
            Meaning::Renew => Self::Renew,
        }
    }
}

/// A token's record, opened, and its place among its tripwire's.
struct Match {
    record: OpenRecord,
    index: u8,
}

/// Where a record is kept after its lookup in its key.
fn place_of(key: &[u8]) -> Option<(TripwireId, u8)> {
    let (id, index) = key.get(33..)?.split_first_chunk::<32>()?;
    Some((TripwireId::from_bytes(*id), *index.first()?))
}

/// The records of a token, opened.
fn matches<T: Tables>(batch: &Batch<'_, T>, token: &Token) -> Result<Vec<Match>, StoreError> {
    let lookup = token.lookup();
    let (first, last) = key::records(&lookup);
    let mut found = Vec::new();
    batch.scan(Space::State, &first, &last, &mut |key, value| {
        let (owner, index) = place_of(key).ok_or(StoreError::Damaged)?;
        let record = TokenRecord { lookup, sealed: serde_bytes::ByteBuf::from(value) };
        // One that names another owner's tripwire means nothing: else it would ask about what is not its own.
        let own = record.open(token).filter(|record| record.tripwire == owner);
        found.extend(own.map(|record| Match { record, index }));
        Ok(if found.len() < MAX_MATCHES { Scan::More } else { Scan::Stop })
    })?;
    Ok(found)
}

/// TRP-06: does what the list says and deletes the list and the record that fired; nothing if it has fired before.
///
/// The relay cannot read the tripwire's other records. Those that renew have to stay, for the owner's token. One of another
/// firing token stays unread until that token comes or the owner arms anew: its list is gone.
fn fire<T: Tables>(
    batch: &mut Batch<'_, T>,
    record: &OpenRecord,
    index: u8,
    lookup: &Lookup,
    day: Day,
    appended: &mut Vec<MailboxId>,
) -> Result<(), StoreError> {
    let id = &record.tripwire;
    let Some(mut tripwire) = batch.load_as::<Tripwire>(Space::State, &key::tripwire(id))? else {
        return Ok(());
    };
    let actions = match batch.load(Space::State, &key::list(id))? {
        Some(sealed) => match SealedList::from_bytes(sealed).open(id, &record.list_key) {
            Some(actions) => actions,
            None => return Ok(()),
        },
        None if tripwire.fired => Vec::new(),
        None => return Ok(()),
    };
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
    batch.delete(Space::State, key::list(id));
    batch.delete(Space::State, key::record(lookup, id, index));
    if let Some(own) = tripwire.records.get_mut(usize::from(index)) {
        *own = None;
    }
    let left = tripwire.records.iter().flatten().count() * (RECORD_LENGTH + RECORD_OVERHEAD);
    let left = u64::try_from(left).unwrap_or(u64::MAX).min(tripwire.charged);
    access::give(batch, tripwire.access.as_ref(), Cost { bytes: tripwire.charged - left, mailboxes: 0 })?;
    tripwire.charged = left;
    tripwire.fired = true;
    batch.put_as(Space::State, key::tripwire(id), &tripwire);
    Ok(())
}

/// Deletes list and records and gives back what they were charged.
fn remove<T: Tables>(batch: &mut Batch<'_, T>, id: &TripwireId, there: &Tripwire) -> Result<(), StoreError> {
    for (index, lookup) in there.records.iter().enumerate() {
        let index = u8::try_from(index).map_err(|_| StoreError::Damaged)?;
        if let Some(lookup) = lookup {
            batch.delete(Space::State, key::record(lookup, id, index));
        }
    }
    batch.delete(Space::State, key::list(id));
    access::give(batch, there.access.as_ref(), Cost { bytes: there.charged, mailboxes: 0 })
}
