//! Tripwires: arm, disarm, and what sets them off.
//!
//! Invariants: TRP-04 arming replaces all of an owner's records at once and never looks at anybody else's; TRP-06 what a
//! tripwire does and the deletion of its list are one change, so each cause comes once, and the owner's own token learns
//! of it.
//!
//! | module | what |
//! | --- | --- |
//! | [`token`] | a token is presented |
//! | [`deadline`] | the owner's token stays away |
//! | [`quorum`] | trusted contacts say so |
//! | [`frozen`] | too many guesses at an anchor |
//! | [`list`] | what all of them set off |

pub(super) mod deadline;
pub(super) mod frozen;
mod list;
pub(super) mod quorum;
pub(super) mod token;

use lapwing_wire::{
    capability::{PublicKey, TripwireOwner},
    codec,
    frame::Refusal,
    ids::TripwireId,
    time::Timestamp,
    tripwire::{Came, Causes, SealedList, TokenRecord},
};
use sha2::{Digest, Sha256};

use super::{
    super::{
        Charge, Outcome, StoreError,
        record::{Anchor, Cause, Due, Tripwire, Voices, anchor_key, key, link_key, list_key},
        tables::{Batch, Space, Tables},
    },
    access::{self, Cost},
};

/// What a record costs beyond its sealed bytes: its key, its place in the tripwire, and what it is sealed under, twice.
const RECORD_OVERHEAD: usize = 256;

/// What an owner wants armed.
pub(super) struct Armed<'a> {
    pub(super) owner: &'a PublicKey<TripwireOwner>,
    pub(super) serial: u64,
    pub(super) records: &'a [TokenRecord],
    pub(super) list: &'a SealedList,
    pub(super) causes: &'a Causes,
}

impl Armed<'_> {
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(codec::encode(&(self.records, self.list, self.causes))).into()
    }

    /// All lists, as they are kept.
    fn lists(&self) -> Vec<(Cause, Vec<u8>)> {
        let Causes { alerting, destroying, quorum, frozen } = self.causes;
        let mut lists = vec![(Cause::Token, self.list.as_bytes().to_vec())];
        lists.extend(alerting.as_ref().map(|it| (Cause::Alerting, codec::encode(&it.actions))));
        lists.extend(destroying.as_ref().map(|it| (Cause::Destroying, codec::encode(&it.actions))));
        lists.extend(quorum.as_ref().map(|it| (Cause::Quorum, it.list.as_bytes().to_vec())));
        lists.extend(frozen.as_ref().map(|it| (Cause::Frozen, codec::encode(&it.actions))));
        lists
    }

    /// Deadlines from a point of the running time on.
    fn dues(&self, now: u64) -> Vec<Due> {
        let both = [(Cause::Alerting, &self.causes.alerting), (Cause::Destroying, &self.causes.destroying)];
        let dues = both.into_iter().filter_map(|(cause, deadline)| {
            let after = u64::try_from(deadline.as_ref()?.span().as_millis()).unwrap_or(u64::MAX);
            Some(Due { cause, after, at: deadline::due_at(now, after) })
        });
        dues.collect()
    }

    /// The quorum, with the voices that were raised for the armed one and count on.
    fn quorum(&self, there: Option<&Tripwire>) -> Option<Voices> {
        let quorum = self.causes.quorum.as_ref()?;
        let raised = there.and_then(|there| there.quorum.as_ref()).map_or(&[][..], |before| &before.raised);
        let raised = raised.iter().filter(|raised| quorum.voices.contains(&raised.voice)).cloned().collect();
        Some(Voices { threshold: quorum.threshold, voices: quorum.voices.clone(), raised })
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn record_cost(records: &[TokenRecord]) -> u64 {
    count(records.iter().map(|record| record.sealed.len() + RECORD_OVERHEAD).sum())
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
    if let Some(frozen) = &armed.causes.frozen {
        // TRP-15: else strangers could stand in the way of the owner's own.
        let anchor: Option<Anchor> = batch.load_as(Space::State, &anchor_key(&frozen.anchor))?;
        let is_wanted = anchor.is_some_and(|anchor| {
            lapwing_wire::tripwire::Frozen::check(&anchor.owner, &id, &frozen.permission).is_ok()
        });
        if !is_wanted {
            return Ok(Outcome::Refused(Refusal::NotAllowed));
        }
    }
    let lists = armed.lists();
    let bytes =
        lists.iter().map(|(_, list)| count(list.len())).fold(record_cost(armed.records), u64::saturating_add);
    let cost = Cost { bytes, mailboxes: 0 };
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
        batch.put_alone(key::record(&record.lookup, &id, index), &record.sealed)?;
    }
    let tripwire = Tripwire {
        owner: *armed.owner,
        serial: armed.serial,
        digest,
        fired: false,
        came: Came::default(),
        records: armed.records.iter().map(|record| Some(record.lookup)).collect(),
        dues: armed.dues(deadline::running(batch)?.now),
        quorum: armed.quorum(there.as_ref()),
        anchor: armed.causes.frozen.as_ref().map(|frozen| frozen.anchor),
        lists: lists.iter().map(|(cause, list)| (*cause, count(list.len()))).collect(),
        charged: bytes,
        access: charge.key(),
    };
    deadline::wait(batch, &id, &tripwire.dues)?;
    if let Some(anchor) = &tripwire.anchor {
        batch.put(Space::State, link_key(anchor, &id), vec![1]);
    }
    for (cause, list) in lists {
        batch.put_alone(list_key(&id, cause), &list)?;
    }
    save(batch, &id, &tripwire);
    Ok(Outcome::Done)
}

fn save<T: Tables>(batch: &mut Batch<'_, T>, id: &TripwireId, tripwire: &Tripwire) {
    batch.put_as(Space::State, key::tripwire(id), tripwire);
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

/// Deletes lists, records, deadlines and links, forgets what opens them, and gives back what they were charged.
fn remove<T: Tables>(batch: &mut Batch<'_, T>, id: &TripwireId, there: &Tripwire) -> Result<(), StoreError> {
    for (index, lookup) in there.records.iter().enumerate() {
        let index = u8::try_from(index).map_err(|_| StoreError::Damaged)?;
        if let Some(lookup) = lookup {
            batch.drop_alone(key::record(lookup, id, index))?;
        }
    }
    deadline::wait_no_more(batch, id, &there.dues)?;
    if let Some(anchor) = &there.anchor {
        batch.delete(Space::State, link_key(anchor, id));
    }
    for (cause, _) in &there.lists {
        batch.drop_alone(list_key(id, *cause))?;
    }
    access::give(batch, there.access.as_ref(), Cost { bytes: there.charged, mailboxes: 0 })
}
