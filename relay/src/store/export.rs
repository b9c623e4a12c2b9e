//! What of a store goes into a backup, and a store made from one.
//!
//! Kept are the kinds of record that are named here; every other kind is left out, so that a new one is left out until
//! somebody decides otherwise. Left out on purpose: **anchors** (a relay that comes back must not bring back a destroyed one,
//! nor give guesses back) and **tripwires** (one that fired or was taken away would fire again; its owner's program arms it
//! anew as soon as it notices that the relay has forgotten). What tripwires take of a ticket's quota is given back.
//!
//! Values leave the store opened and are sealed under new keys where they come in: a backup is sealed as a whole instead.

use std::collections::HashMap;

use lapwing_wire::{
    capability::{Access, PublicKey},
    codec,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    Mailbox, StoreError, Ticket, cache, damage,
    engine::{Engine, StoreOptions, create_folder},
    keys::{KeyFile, Slot},
    record::{self, ANCHORS, Anchor, Seal, Slots, Tripwire, UNSEALED, key, set_nonce},
    sealing::Sealer,
    tables::{Entry, Scan, Space, Tables, Value, Visit, Writes},
};

/// Kinds of small records that a backup has: clock, slots, free slots, what is to be forgotten, what moves in mailboxes, mailboxes,
/// sinks, places of envelopes, whose are to be looked over, tickets, blobs.
const KEPT: &[u8] = b"cgfdnmsijah";
/// Kinds of large ones: envelopes and parts of blobs.
const KEPT_BULK: &[u8] = b"eb";
/// Kinds of large ones with slots of their own that a backup leaves out: what tripwires hold.
const LEFT_BULK: &[u8] = b"lr";
/// Bytes of one commit while a store is filled.
const COMMIT: usize = 4 << 20;
/// Slots that get their keys at once.
const SLOTS_AT_ONCE: u32 = 4096;

/// One record of a backup.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whether it is an envelope or a part of a blob.
    #[serde(rename = "b")]
    is_bulk: bool,
    #[serde(rename = "k")]
    key: ByteBuf,
    #[serde(rename = "v")]
    value: ByteBuf,
}

impl Row {
    /// Bytes of it, about.
    pub fn length(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Row(..)")
    }
}

/// Takes the records of a backup one by one; an error of it ends the reading.
pub type TakeRow<'a> = dyn FnMut(Row) -> Result<(), StoreError> + 'a;

/// Yields the records of a backup one by one.
pub type NextRow<'a> = dyn FnMut() -> Result<Option<Row>, StoreError> + 'a;

/// Reads everything that a backup has: small records first. How many records and places could not be read: what lies there is left
/// out, because a backup is the way out of a disk that fails.
pub(super) fn rows(tables: &impl Tables, take: &mut TakeRow<'_>) -> Result<u64, StoreError> {
    let tables = &Readable(tables);
    let mut source = Source { tables, lost: 0 };
    let charged = source.charged_beside()?;
    let (mut are_slots_lost, mut is_moving_lost) = (false, false);
    for kind in KEPT {
        // A stack whose height is lost.
        if are_slots_lost && *kind == key::FREE {
            continue;
        }
        let lost = source.lost;
        let mut made = |name: &[u8], value: &Value<'_>| {
            let value = value.whole()?.into_owned();
            if is_moving_lost && *kind == key::MAILBOXES {
                return mailbox(tables, name, value);
            }
            Ok(small(&charged, name, value)?.into_iter().collect())
        };
        source.each(Space::State, *kind, &mut made, take)?;
        let has_lost = source.lost > lost;
        is_moving_lost |= has_lost && *kind == key::MOVING;
        if has_lost && [*kind] == *key::SLOTS {
            are_slots_lost = true;
            let used = tables.keys().map_or(Ok(0), |keys| keys.slots(false))?;
            take(row(false, key::SLOTS, Slots { used, free: 0 }.encode()))?;
        }
    }
    // The slots of what a backup leaves out are free where it is opened.
    for kind in LEFT_BULK {
        let mut due = |_: &[u8], value: &Value<'_>| {
            let slot = record::slot_in(value.head())?;
            Ok(vec![row(false, &key::due(slot), u64::MAX.to_be_bytes().to_vec())])
        };
        source.each(Space::Bulk, *kind, &mut due, take)?;
    }
    for kind in KEPT_BULK {
        let mut opened = |name: &[u8], value: &Value<'_>| {
            let mut value = value.whole()?.into_owned();
            let seal = Seal::of(name, &value)?;
            let bytes = value.get_mut(seal.head..).ok_or(StoreError::Damaged)?;
            // What was taken meanwhile is not kept.
            let is_kept = tables.unseal(&seal, bytes)?;
            Ok(is_kept.then(|| row(true, name, value)).into_iter().collect())
        };
        source.each(Space::Bulk, *kind, &mut opened, take)?;
    }
    Ok(source.lost)
}

/// A small record as a backup has it, if it has it.
fn small(
    charged: &HashMap<[u8; 32], u64>,
    name: &[u8],
    mut value: Vec<u8>,
) -> Result<Option<Row>, StoreError> {
    match name.first() {
        // What is to be forgotten of anchors is none of a backup's business.
        Some(&key::DUE) if key::slot_in(name).is_none_or(Slot::is_of_anchor) => return Ok(None),
        Some(&key::TICKETS) => {
            let mut ticket: Ticket = record::decode(&value)?;
            let used = charged.get(ticket.key.as_bytes()).copied().unwrap_or(0);
            ticket.used_bytes = ticket.used_bytes.saturating_sub(used);
            value = codec::encode(&ticket);
        }
        _ => {}
    }
    Ok(Some(row(false, name, value)))
}

/// A mailbox with what moves in it, without which it could neither be used nor be made anew. That is looked for: a scan that came to
/// what is damaged has lost more than a look does.
fn mailbox(tables: &impl Tables, name: &[u8], fixed: Vec<u8>) -> Result<Vec<Row>, StoreError> {
    let key = key::moving(Mailbox::born_in(&fixed)?);
    let moving = tables.load(Space::State, &key)?.ok_or(StoreError::Damaged)?;
    Ok(vec![row(false, name, fixed), row(false, &key, moving)])
}

/// Makes rows of a record.
type Make<'a> = dyn FnMut(&[u8], &Value<'_>) -> Result<Vec<Row>, StoreError> + 'a;

/// What is read of a store that may be damaged.
struct Source<'a, 'b, T> {
    tables: &'a Readable<'b, T>,
    /// Records and places that could not be read.
    lost: u64,
}

impl<T: Tables> Source<'_, '_, T> {
    /// Makes rows of each record of a kind.
    fn each(
        &mut self,
        space: Space,
        kind: u8,
        make: &mut Make<'_>,
        take: &mut TakeRow<'_>,
    ) -> Result<(), StoreError> {
        let mut lost = 0;
        self.visit(space, kind, &mut |name, value| {
            match make(name, value) {
                Ok(rows) => rows.into_iter().try_for_each(&mut *take)?,
                Err(StoreError::Damaged | StoreError::Disk) => lost += 1,
                Err(failure) => return Err(failure),
            }
            Ok(Scan::More)
        })?;
        self.lost += lost;
        Ok(())
    }

    fn visit(&mut self, space: Space, kind: u8, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let (first, last) = key::all(kind);
        let mut start = Some(first);
        while let Some(first) = start {
            let around = damage::scan_around(self.tables, space, &first, &last, visit)?;
            self.lost += u64::from(around.is_damaged);
            start = around.next;
        }
        Ok(())
    }

    /// What is charged to tickets for what a backup leaves out. What cannot be read stays charged.
    fn charged_beside(&mut self) -> Result<HashMap<[u8; 32], u64>, StoreError> {
        let mut charged = HashMap::new();
        let mut add = |access: Option<PublicKey<Access>>, bytes: u64| {
            if let Some(access) = access {
                *charged.entry(*access.as_bytes()).or_insert(0u64) += bytes;
            }
        };
        for kind in [key::TRIPWIRES, ANCHORS] {
            self.visit(Space::State, kind, &mut |_, value| {
                let value = value.whole()?;
                if kind == ANCHORS {
                    if let Ok(Anchor { access, charged, .. }) = record::decode(&value) {
                        add(access, charged);
                    }
                } else if let Ok(Tripwire { access, charged, .. }) = record::decode(&value) {
                    add(access, charged);
                }
                Ok(Scan::More)
            })?;
        }
        Ok(charged)
    }
}

/// Tables of which a sector that cannot be read is as damaged as one that was read wrong.
struct Readable<'a, T>(&'a T);

impl<T: Tables> Tables for Readable<'_, T> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.load(space, key).map_err(unreadable)
    }

    fn has(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        self.0.has(space, key).map_err(unreadable)
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan(space, first, last, visit).map_err(unreadable)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.0.last(space, first, last).map_err(unreadable)
    }

    fn unseal(&self, seal: &Seal, bytes: &mut [u8]) -> Result<bool, StoreError> {
        self.0.unseal(seal, bytes).map_err(unreadable)
    }

    fn keys(&self) -> Option<&KeyFile> {
        self.0.keys()
    }
}

const fn unreadable(failure: StoreError) -> StoreError {
    match failure {
        StoreError::Disk => StoreError::Damaged,
        failure => failure,
    }
}

fn row(is_bulk: bool, key: &[u8], value: Vec<u8>) -> Row {
    Row { is_bulk, key: ByteBuf::from(key.to_vec()), value: ByteBuf::from(value) }
}

/// Makes a store of the records of a backup, in a folder that does not exist.
pub(super) fn fill<E: Engine>(options: &StoreOptions, next: &mut NextRow<'_>) -> Result<(), StoreError> {
    if options.path.exists() {
        return Err(StoreError::Exists);
    }
    create_folder(&options.path)?;
    let engine = E::open(&options.path, options.memory / 2)?;
    let keys = KeyFile::open(&options.path)?;
    let mut sealer = Sealer::new(cache::generation(options.memory));
    let (mut bulk, mut state, mut bytes) = (Writes::new(), Writes::new(), 0);
    let mut is_bulk_begun = false;
    while let Some(Row { is_bulk, key, mut value }) = next()? {
        let kind = key.first().copied().ok_or(StoreError::Damaged)?;
        let known = if is_bulk { KEPT_BULK } else { KEPT };
        // Envelopes need the keys of their slots, which the small records tell.
        if !known.contains(&kind) || (is_bulk_begun && !is_bulk) {
            return Err(StoreError::Damaged);
        }
        is_bulk_begun = is_bulk;
        if *key == *key::SLOTS {
            begin_slots(&mut sealer, &keys, Slots::decode(&value)?)?;
        }
        bytes += key.len() + value.len();
        if is_bulk {
            // It left its store opened, with the nonce that it had there.
            set_nonce(&mut value, &UNSEALED)?;
        }
        let writes = if is_bulk { &mut bulk } else { &mut state };
        writes.insert(key.into_vec(), Some(value.into_vec()));
        if bytes >= COMMIT {
            sealer.seal(&keys, &mut bulk)?;
            engine.write(&std::mem::take(&mut bulk), &std::mem::take(&mut state))?;
            bytes = 0;
        }
    }
    sealer.seal(&keys, &mut bulk)?;
    engine.write(&bulk, &state)
}

fn begin_slots(sealer: &mut Sealer, keys: &KeyFile, slots: Slots) -> Result<(), StoreError> {
    let mut first = 0;
    while first < slots.used {
        let last = slots.used.min(first.saturating_add(SLOTS_AT_ONCE));
        let fresh: Vec<Slot> = (first..last).map(Slot).collect();
        sealer.begin(keys, &fresh)?;
        first = last;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anc_12_no_kind_of_record_of_an_anchor_or_a_tripwire_is_in_a_backup() {
        for kind in KEPT.iter().chain(KEPT_BULK) {
            assert!(!record::is_of_an_anchor(&[*kind]), "{kind}");
            // A tripwire, its lists, its records, its deadlines, the time that they run by.
            assert!(!b"wlrqu".contains(kind) && !LEFT_BULK.contains(kind), "{kind}");
        }
    }
}
