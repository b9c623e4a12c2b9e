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
    StoreError, Ticket, cache,
    engine::{Engine, StoreOptions, create_folder},
    keys::{KeyFile, Slot},
    record::{self, ANCHORS, Anchor, Seal, Slots, Tripwire, UNSEALED, key, set_nonce},
    sealing::Sealer,
    tables::{Scan, Space, Tables, Writes},
};

/// Kinds of small records that a backup has: clock, slots, free slots, what is to be forgotten, mailboxes, what moves in
/// them, sinks, places of envelopes, whose are to be looked over, tickets, blobs.
const KEPT: &[u8] = b"cgfdmnsijah";
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

/// Reads everything that a backup has: small records first.
pub(super) fn rows(tables: &impl Tables, take: &mut TakeRow<'_>) -> Result<(), StoreError> {
    let charged = charged_beside(tables)?;
    for kind in KEPT {
        let (first, last) = key::all(*kind);
        tables.scan(Space::State, &first, &last, &mut |name, value| {
            // What is to be forgotten of anchors is none of a backup's business.
            if *kind == key::DUE && key::slot_in(name).is_none_or(Slot::is_of_anchor) {
                return Ok(Scan::More);
            }
            let mut value = value.whole()?.into_owned();
            if *kind == key::TICKETS {
                let mut ticket: Ticket = record::decode(&value)?;
                let used = charged.get(ticket.key.as_bytes()).copied().unwrap_or(0);
                ticket.used_bytes = ticket.used_bytes.saturating_sub(used);
                value = codec::encode(&ticket);
            }
            take(row(false, name, value))?;
            Ok(Scan::More)
        })?;
    }
    // The slots of what a backup leaves out are free where it is opened.
    for kind in LEFT_BULK {
        let (first, last) = key::all(*kind);
        tables.scan(Space::Bulk, &first, &last, &mut |_, value| {
            take(row(false, &key::due(record::slot_in(value.head())?), u64::MAX.to_be_bytes().to_vec()))?;
            Ok(Scan::More)
        })?;
    }
    for kind in KEPT_BULK {
        let (first, last) = key::all(*kind);
        tables.scan(Space::Bulk, &first, &last, &mut |name, value| {
            let mut value = value.whole()?.into_owned();
            let seal = Seal::of(name, &value)?;
            let bytes = value.get_mut(seal.head..).ok_or(StoreError::Damaged)?;
            // What was taken meanwhile is not kept.
            if tables.unseal(&seal, bytes)? {
                take(row(true, name, value))?;
            }
            Ok(Scan::More)
        })?;
    }
    Ok(())
}

fn row(is_bulk: bool, key: &[u8], value: Vec<u8>) -> Row {
    Row { is_bulk, key: ByteBuf::from(key.to_vec()), value: ByteBuf::from(value) }
}

/// What is charged to tickets for what a backup leaves out.
fn charged_beside(tables: &impl Tables) -> Result<HashMap<[u8; 32], u64>, StoreError> {
    let mut charged = HashMap::new();
    let mut add = |access: Option<PublicKey<Access>>, bytes: u64| {
        if let Some(access) = access {
            *charged.entry(*access.as_bytes()).or_insert(0u64) += bytes;
        }
    };
    for kind in [key::TRIPWIRES, ANCHORS] {
        let (first, last) = key::all(kind);
        tables.scan(Space::State, &first, &last, &mut |_, value| {
            if kind == ANCHORS {
                let Anchor { access, charged, .. } = record::decode(&value.whole()?)?;
                add(access, charged);
            } else {
                let Tripwire { access, charged, .. } = record::decode(&value.whole()?)?;
                add(access, charged);
            }
            Ok(Scan::More)
        })?;
    }
    Ok(charged)
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
