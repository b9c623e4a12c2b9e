//! A token is presented.
//!
//! Invariants: TRP-05 a token writes and commits in any case; TRP-06 it fires once.

use lapwing_wire::{
    ids::TripwireId,
    tripwire::{
        Came, Lookup, Meaning, OpenRecord, OpenStatus, RECORD_LENGTH, SealedList, StatusKey, Token,
        TokenRecord,
    },
};

use super::{
    super::{
        super::{
            StoreError, damage,
            record::{Cause, Tripwire, key, list_key},
            tables::{Batch, Scan, Space, Tables},
        },
        Scene,
        access::{self, Cost},
    },
    RECORD_OVERHEAD, count, deadline, list, save,
};

/// Most records that are opened for one token. A token belongs to one vault payload, which belongs to few tripwires;
/// whoever fills a lookup beyond this has the token.
const MAX_MATCHES: usize = 64;

/// What a token did.
pub(in super::super) struct Presented {
    /// What the owner may learn, and under which key.
    pub(in super::super) status: Option<(OpenStatus, StatusKey)>,
    /// Whether all that it sets off is done. Where not, it is to be presented again.
    pub(in super::super) is_whole: bool,
}

pub(in super::super) fn present<T: Tables>(
    batch: &mut Batch<'_, T>,
    token: &Token,
    scene: &mut Scene,
) -> Result<Presented, StoreError> {
    let lot = scene.fill(batch);
    let mut best = Rank::Fire;
    let mut said: Vec<(OpenStatus, StatusKey)> = Vec::new();
    let Found { all, is_damaged } = matches(batch, token)?;
    let mut is_whole = !is_damaged;
    for Match { record, index } in all {
        // One tripwire that the disk has spoilt keeps no other from doing what the token says.
        let (there, is_done) = match look(batch, &record, index, &token.lookup(), scene) {
            Err(StoreError::Damaged) => {
                damage::found();
                is_whole = false;
                continue;
            }
            there => there?,
        };
        is_whole &= is_done;
        let status = OpenStatus {
            serial: there.as_ref().map_or(0, |there| there.serial),
            fired: there.as_ref().is_some_and(|there| there.fired),
            came: there.as_ref().map_or(Came::default(), |there| there.came),
        };
        if let (Meaning::Renew, Some(there)) = (record.meaning, there) {
            match deadline::renew(batch, &record.tripwire, there) {
                Err(StoreError::Damaged) => is_whole = false,
                renewed => renewed?,
            }
        }
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
        Rank::RenewFired => usize::from(lot) % said.len().max(1),
        Rank::Fire | Rank::Nothing | Rank::Renew => 0,
    };
    Ok(Presented { status: said.into_iter().nth(chosen), is_whole })
}

/// Does what a record says at once; its tripwire after that, and whether all of it is done.
fn look<T: Tables>(
    batch: &mut Batch<'_, T>,
    record: &OpenRecord,
    index: u8,
    lookup: &Lookup,
    scene: &mut Scene,
) -> Result<(Option<Tripwire>, bool), StoreError> {
    let is_done = record.meaning != Meaning::Fire || fire(batch, record, index, lookup, scene)?;
    Ok((batch.load_as(Space::State, &key::tripwire(&record.tripwire))?, is_done))
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
            Meaning::Renew if status.fired || status.came.any() => Self::RenewFired,
            Meaning::Renew => Self::Renew,
        }
    }
}

/// A token's record, opened, and its place among its tripwire's.
struct Match {
    record: OpenRecord,
    index: u8,
}

/// What can be read of a token's records, and whether that is all.
struct Found {
    all: Vec<Match>,
    is_damaged: bool,
}

/// Where a record is kept after its lookup in its key.
fn place_of(key: &[u8]) -> Option<(TripwireId, u8)> {
    let (id, index) = key.get(33..)?.split_first_chunk::<32>()?;
    Some((TripwireId::from_bytes(*id), *index.first()?))
}

/// The records of a token, opened.
fn matches<T: Tables>(batch: &Batch<'_, T>, token: &Token) -> Result<Found, StoreError> {
    let lookup = token.lookup();
    let (first, last) = key::records(&lookup);
    let mut names = Vec::new();
    let around = batch.scan_around(Space::Bulk, &first, &last, &mut |name, _| {
        names.push(name.to_vec());
        Ok(if names.len() < MAX_MATCHES { Scan::More } else { Scan::Stop })
    })?;
    let mut found = Found { all: Vec::new(), is_damaged: around.is_damaged };
    for name in names {
        let sealed = match (place_of(&name), batch.load_sealed(&name)) {
            (Some((owner, index)), Ok(sealed)) => sealed.map(|sealed| (owner, index, sealed)),
            (None, _) | (_, Err(StoreError::Damaged)) => {
                found.is_damaged = true;
                None
            }
            (_, Err(failure)) => return Err(failure),
        };
        let Some((owner, index, sealed)) = sealed else { continue };
        let record = TokenRecord { lookup, sealed: serde_bytes::ByteBuf::from(sealed.to_vec()) };
        // One that names another owner's tripwire means nothing: else it would ask about what is not its own.
        let own = record.open(token).filter(|record| record.tripwire == owner);
        found.all.extend(own.map(|record| Match { record, index }));
    }
    Ok(found)
}

/// TRP-06: does what the list says and deletes the list and the record that fired; nothing if it has fired before. Where not all can be
/// done, both stay, and it has not fired.
///
/// The relay cannot read the tripwire's other records. Those that renew have to stay, for the owner's token. One of another
/// firing token stays unread until that token comes or the owner arms anew: its list is gone.
///
/// The record that fired goes, though old bytes of the engine may tell whoever knows the token where it lay: tokens of ordinary vaults have
/// no record, so one that stayed, whatever it says, would tell him so for ever.
fn fire<T: Tables>(
    batch: &mut Batch<'_, T>,
    record: &OpenRecord,
    index: u8,
    lookup: &Lookup,
    scene: &mut Scene,
) -> Result<bool, StoreError> {
    let id = &record.tripwire;
    let Some(mut tripwire) = batch.load_as::<Tripwire>(Space::State, &key::tripwire(id))? else {
        return Ok(true);
    };
    match batch.load_sealed(&list_key(id, Cause::Token))? {
        Some(sealed) => match SealedList::from_bytes(sealed.to_vec()).open(id, &record.list_key) {
            Some(actions) => {
                if !list::run(batch, &actions, scene)? {
                    return Ok(false);
                }
            }
            None => return Ok(true),
        },
        None if tripwire.fired => {}
        None => return Ok(true),
    }
    list::spend(batch, id, &mut tripwire, Cause::Token)?;
    batch.drop_alone(key::record(lookup, id, index))?;
    if let Some(own) = tripwire.records.get_mut(usize::from(index)).and_then(Option::take) {
        debug_assert_eq!(own, *lookup);
        let freed = count(RECORD_LENGTH + RECORD_OVERHEAD).min(tripwire.charged);
        tripwire.charged -= freed;
        access::give(batch, tripwire.access.as_ref(), Cost { bytes: freed, mailboxes: 0 })?;
    }
    tripwire.fired = true;
    save(batch, id, &tripwire);
    Ok(true)
}
