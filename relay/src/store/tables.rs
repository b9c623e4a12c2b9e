//! Ordered keys and values, and the changes of one batch over them.

mod spoilt;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use lapwing_wire::{
    capability::{Access, PublicKey},
    codec,
    frame::Seq,
    ids::{EnvelopeId, MailboxId},
};
use serde::Serialize;

use super::{
    Born, Mailbox, StoreError, Ticket,
    cache::Cache,
    damage::{self, Around},
    keys::{KeyFile, Slot},
    record::{self, ANCHOR_SLOTS, FREE_ANCHOR_SLOTS, Seal, Slots, free_anchor_key, key},
};

/// Free slots that are looked at to find one that can be used, before a fresh one is taken: as many as a damaged part of a key file
/// can have, and some. Without a bound a record that says that there are thousands of millions would hold everybody up.
const MOST_UNUSABLE: usize = 64;
/// Parts of a key file that are looked at for a fresh slot before one is taken behind all that were ever written.
const MOST_UNUSABLE_UNITS: usize = 8;

/// Two spaces, because one holds kilobytes and one holds bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// What is sealed: envelopes, parts of blobs, what tripwires hold, secrets of anchors.
    Bulk,
    /// Everything else.
    State,
}

/// What a visitor of a scan wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    More,
    Stop,
}

/// A value as a scan meets it. Whoever needs no more than its head does not wait for a disk.
pub(crate) enum Value<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// Its head, and where the rest lies.
    Apart { head: &'a [u8], rest: &'a dyn Rest },
}

/// The rest of a value, which lies elsewhere than its head.
pub(crate) trait Rest {
    fn length(&self) -> usize;

    fn append_to(&self, head: Vec<u8>) -> Result<Vec<u8>, StoreError>;
}

impl<'a> Value<'a> {
    /// At least what is not sealed of it.
    pub(crate) fn head(&self) -> &'a [u8] {
        match self {
            Self::Whole(value) => value,
            Self::Apart { head, rest: _ } => head,
        }
    }

    /// Bytes of all of it.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Whole(value) => value.len(),
            Self::Apart { head, rest } => head.len() + rest.length(),
        }
    }

    pub(crate) fn whole(&self) -> Result<Cow<'a, [u8]>, StoreError> {
        match self {
            Self::Whole(value) => Ok(Cow::Borrowed(value)),
            Self::Apart { head, rest } => rest.append_to(head.to_vec()).map(Cow::Owned),
        }
    }
}

/// Sees keys and values in turn.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &Value<'_>) -> Result<Scan, StoreError> + 'a;

/// A consistent view of what is on disk.
pub(crate) trait Tables {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Whether a key is there.
    fn has(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.load(space, key)?.is_some())
    }

    /// Visits keys from `first` to `last`, both included, in ascending order.
    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// The greatest key from `first` to `last`, both included.
    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError>;

    /// Opens what was sealed; `false` if its key is forgotten. Where nothing is sealed, nothing is done.
    fn unseal(&self, _: &Seal, _bytes: &mut [u8]) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Where the keys of slots lie; nowhere, where nothing is sealed.
    fn keys(&self) -> Option<&KeyFile> {
        None
    }
}

/// What a batch wants written.
pub(crate) struct Staged {
    pub(crate) bulk: Writes,
    pub(crate) state: Writes,
    /// Slots that need new keys before anything of this is written.
    pub(crate) fresh: Vec<Slot>,
    /// Slots of which keys are to be forgotten once this is written: all before the number.
    pub(crate) due: BTreeMap<Slot, u64>,
}

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Changes of one space, in the order of their keys: `None` deletes.
pub(crate) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A mailbox whose fixed part is `fixed`, for readers: newer envelopes that the disk has spoilt are not shown.
pub(crate) fn load_mailbox(tables: &impl Tables, fixed: &[u8]) -> Result<Mailbox, StoreError> {
    let mut mailbox = load_written(tables, fixed)?;
    pass_unwritten(tables, &mut mailbox)?;
    Ok(mailbox)
}

/// As `load_mailbox`, as far as its newest envelopes can be read: for whoever asks what it is, not what is in it.
pub(crate) fn load_readable_mailbox(tables: &impl Tables, fixed: &[u8]) -> Result<Mailbox, StoreError> {
    let mut mailbox = load_written(tables, fixed)?;
    spoilt::pass_readable(tables, &mut mailbox)?;
    Ok(mailbox)
}

/// As its moving part was written last.
fn load_written(tables: &impl Tables, fixed: &[u8]) -> Result<Mailbox, StoreError> {
    let born = Mailbox::born_in(fixed)?;
    let moving = tables.load(Space::State, &key::moving(born))?.ok_or(StoreError::Damaged)?;
    Mailbox::decode(fixed, &moving)
}

/// Goes on over the envelopes that were stored since.
fn pass_unwritten(tables: &impl Tables, mailbox: &mut Mailbox) -> Result<(), StoreError> {
    let born = mailbox.born;
    let (first, last) = (key::envelope(born, mailbox.newest.next()), key::envelope(born, Seq::new(u64::MAX)));
    tables.scan(Space::Bulk, &first, &last, &mut |key, value| {
        mailbox.pass(key, value)?;
        Ok(Scan::More)
    })
}

/// The changes of one batch; later changes see earlier ones.
pub(crate) struct Batch<'a, T> {
    tables: &'a T,
    cache: &'a mut Cache,
    dirty_fixed: HashSet<MailboxId>,
    dirty_moving: HashSet<MailboxId>,
    dirty_tickets: HashSet<[u8; 32]>,
    bulk: Writes,
    state: Writes,
    fresh: Vec<Slot>,
    due: BTreeMap<Slot, u64>,
}

impl<'a, T: Tables> Batch<'a, T> {
    pub(crate) fn new(tables: &'a T, cache: &'a mut Cache) -> Self {
        cache.age();
        Self {
            tables,
            cache,
            dirty_fixed: HashSet::new(),
            dirty_moving: HashSet::new(),
            dirty_tickets: HashSet::new(),
            bulk: Writes::new(),
            state: Writes::new(),
            fresh: Vec::new(),
            due: BTreeMap::new(),
        }
    }

    /// All changes.
    pub(crate) fn into_staged(mut self) -> Staged {
        for id in &self.dirty_fixed {
            let value = self.cache.mailboxes.get(id).and_then(Option::as_ref).map(Mailbox::encode_fixed);
            self.state.insert(key::mailbox(id), value);
        }
        for id in &self.dirty_moving {
            // A closed mailbox's moving part was deleted by its rule.
            if let Some(mailbox) = self.cache.mailboxes.get(id).and_then(Option::as_ref) {
                self.state.insert(key::moving(mailbox.born), Some(mailbox.encode_moving()));
            }
        }
        for id in &self.dirty_tickets {
            let value = self.cache.tickets.get(id).and_then(Option::as_ref).map(codec::encode);
            self.state.insert(key::ticket(&PublicKey::from_bytes(*id)), value);
        }
        Staged { bulk: self.bulk, state: self.state, fresh: self.fresh, due: self.due }
    }

    /// What may be sealed before the batch is whole: nothing as long as it waits for new keys.
    pub(crate) fn sealable(&mut self) -> Option<&mut Writes> {
        self.fresh.is_empty().then_some(&mut self.bulk)
    }

    /// A slot that nothing is sealed under.
    pub(crate) fn allocate(&mut self) -> Result<Slot, StoreError> {
        let mut slots = match self.slots() {
            Ok(Some(slots)) => slots,
            Ok(None) | Err(StoreError::Damaged) => Slots { used: self.slots_ever(false)?, free: 0 },
            Err(failure) => return Err(failure),
        };
        let slot = match self.take_free(&mut slots.free, false)? {
            Some(slot) => slot,
            None => self.take_fresh(&mut slots.used, false)?,
        };
        self.put(Space::State, key::SLOTS.to_vec(), slots.encode());
        self.fresh.push(slot);
        Ok(slot)
    }

    /// A slot for an anchor that nothing is sealed under.
    pub(crate) fn allocate_anchor(&mut self) -> Result<Slot, StoreError> {
        let known = self.free_anchor_slots()?;
        let mut free = known;
        let slot = match self.take_free(&mut free, true)? {
            Some(slot) => slot,
            None => {
                let mut used = match self.count(ANCHOR_SLOTS) {
                    Ok(Some(used)) => used,
                    Ok(None) | Err(StoreError::Damaged) => self.slots_ever(true)?,
                    Err(failure) => return Err(failure),
                };
                let slot = self.take_fresh(&mut used, true)?;
                self.put(Space::State, ANCHOR_SLOTS.to_vec(), used.to_be_bytes().to_vec());
                slot
            }
        };
        if free != known {
            self.put(Space::State, FREE_ANCHOR_SLOTS.to_vec(), free.to_be_bytes().to_vec());
        }
        self.fresh.push(slot);
        Ok(slot)
    }

    /// How many slots may be in use where no record says it: as many as were ever made keys for.
    fn slots_ever(&self, is_of_anchors: bool) -> Result<u32, StoreError> {
        self.tables.keys().map_or(Ok(0), |keys| keys.slots(is_of_anchors))
    }

    /// Takes a slot off a stack of free ones, if one of those on top of it can be used. What cannot, because its record or its part of
    /// the key file is damaged, is never used again.
    fn take_free(&mut self, free: &mut u32, is_of_anchor: bool) -> Result<Option<Slot>, StoreError> {
        for _ in 0..MOST_UNUSABLE {
            let Some(top) = free.checked_sub(1) else { return Ok(None) };
            *free = top;
            let name = if is_of_anchor { free_anchor_key(top) } else { key::free(top) };
            let there = match self.load(Space::State, &name) {
                Err(StoreError::Damaged) => None,
                there => there?,
            };
            self.delete(Space::State, name);
            let slot = there.and_then(|there| record::slot_in(&there).ok());
            if let Some(slot) = slot
                && slot.is_of_anchor() == is_of_anchor
                && self.takes(slot)
            {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Takes the next slot that never was anybody's. Where one does not take keys, none of its part of the file does.
    fn take_fresh(&self, used: &mut u32, is_of_anchor: bool) -> Result<Slot, StoreError> {
        let slot = if is_of_anchor { Slot::of_anchor } else { Slot::of_other };
        for _ in 0..MOST_UNUSABLE_UNITS {
            let next = slot(*used).ok_or(StoreError::Damaged)?;
            if self.takes(next) {
                *used = used.saturating_add(1);
                return Ok(next);
            }
            *used = KeyFile::next_unit(next);
        }
        // Nothing was ever written there that could be bad.
        let next = slot(self.slots_ever(is_of_anchor)?.max(*used)).ok_or(StoreError::Damaged)?;
        *used = next.number().saturating_add(1);
        if self.takes(next) { Ok(next) } else { Err(StoreError::Damaged) }
    }

    fn takes(&self, slot: Slot) -> bool {
        self.tables.keys().is_none_or(|keys| keys.takes(slot))
    }

    fn count(&self, name: &[u8]) -> Result<Option<u32>, StoreError> {
        self.load(Space::State, name)?.map(|bytes| record::decode_count(&bytes)).transpose()
    }

    /// The height of the stack; it is not there before it is more than zero. Where nobody knows it, it begins anew, and what was
    /// on it is never used again.
    fn free_anchor_slots(&self) -> Result<u32, StoreError> {
        match self.count(FREE_ANCHOR_SLOTS) {
            Err(StoreError::Damaged) => Ok(0),
            free => Ok(free?.unwrap_or(0)),
        }
    }

    /// The keys of a slot before a number are not needed any more; `u64::MAX` for all of them.
    pub(crate) fn forget_keys(&mut self, slot: Slot, before: u64) {
        self.put(Space::State, key::due(slot), before.to_be_bytes().to_vec());
        self.due.insert(slot, before);
    }

    /// The keys of a slot before a number are gone; whoever has none left is free. Where no record says which are, it is not used
    /// again.
    pub(crate) fn forgot_keys(&mut self, slot: Slot, before: u64) -> Result<(), StoreError> {
        self.delete(Space::State, key::due(slot));
        if before != u64::MAX {
            return Ok(());
        }
        if slot.is_of_anchor() {
            let free = self.free_anchor_slots()?;
            self.put(Space::State, free_anchor_key(free), slot.0.to_be_bytes().to_vec());
            let more = free.saturating_add(1);
            self.put(Space::State, FREE_ANCHOR_SLOTS.to_vec(), more.to_be_bytes().to_vec());
        } else {
            let mut slots = match self.slots() {
                Ok(Some(slots)) => slots,
                Ok(None) | Err(StoreError::Damaged) => return Ok(()),
                Err(failure) => return Err(failure),
            };
            self.put(Space::State, key::free(slots.free), slot.0.to_be_bytes().to_vec());
            slots.free = slots.free.saturating_add(1);
            self.put(Space::State, key::SLOTS.to_vec(), slots.encode());
        }
        Ok(())
    }

    fn slots(&self) -> Result<Option<Slots>, StoreError> {
        self.load(Space::State, key::SLOTS)?.map(|bytes| Slots::decode(&bytes)).transpose()
    }

    pub(crate) fn mailbox(&mut self, id: &MailboxId) -> Result<Option<&mut Mailbox>, StoreError> {
        if self.cache.mailboxes.get_mut(id).is_none() {
            // What is not there is not remembered: strangers could fill the memory with guesses.
            let Some(fixed) = self.tables.load(Space::State, &key::mailbox(id))? else { return Ok(None) };
            let mut found = load_written(self.tables, &fixed)?;
            // Whatever deletes an envelope writes the moving part, so the next one is there if any is. Looking for one key
            // is less than half of a walk.
            let next = key::envelope(found.born, found.newest.next());
            if self.tables.has(Space::Bulk, &next)? {
                pass_unwritten(self.tables, &mut found)?;
            }
            if found.newest == Seq::START {
                self.cache.known.begin(found.born);
            }
            self.cache.mailboxes.insert(*id, Some(found));
        }
        Ok(self.cache.mailboxes.get_mut(id).and_then(Option::as_mut))
    }

    /// As `mailbox`, for a change of what moves.
    pub(crate) fn change_mailbox(&mut self, id: &MailboxId) -> Result<Option<&mut Mailbox>, StoreError> {
        if self.mailbox(id)?.is_some() {
            self.dirty_moving.insert(*id);
        }
        Ok(self.cache.mailboxes.get_mut(id).and_then(Option::as_mut))
    }

    /// An envelope of `length` bytes was appended through `mailbox`; it is found again in the envelope itself.
    pub(crate) fn appended(&mut self, id: &MailboxId, length: u64) {
        if self.cache.mailboxes.get(id).and_then(Option::as_ref).is_some_and(|there| there.is_written(length))
        {
            self.dirty_moving.insert(*id);
        }
    }

    /// Creates a mailbox.
    pub(crate) fn create_mailbox(&mut self, id: MailboxId, mailbox: Mailbox) {
        self.cache.known.begin(mailbox.born);
        self.cache.mailboxes.insert(id, Some(mailbox));
        self.dirty_fixed.insert(id);
        self.dirty_moving.insert(id);
    }

    /// Deletes a mailbox's records.
    pub(crate) fn delete_mailbox(&mut self, id: MailboxId, mailbox: &Mailbox) {
        self.delete(Space::State, key::moving(mailbox.born));
        self.delete(Space::State, key::sink(mailbox.born));
        self.cache.known.end(mailbox.born);
        self.cache.mailboxes.insert(id, None);
        self.dirty_fixed.insert(id);
    }

    /// Makes a mailbox a sink.
    pub(crate) fn sink_mailbox(&mut self, id: MailboxId) -> Result<(), StoreError> {
        let Some(mailbox) = self.mailbox(&id)? else { return Ok(()) };
        mailbox.sink = true;
        let (born, slot, newest) = (mailbox.born, mailbox.slot, mailbox.newest);
        self.forget_keys(slot, newest.next().value());
        self.dirty_fixed.insert(id);
        self.dirty_moving.insert(id);
        self.put(Space::State, key::sink(born), id.as_bytes().to_vec());
        Ok(())
    }

    /// Whether an envelope was certainly never stored.
    pub(crate) fn is_new(&self, born: Born, id: &EnvelopeId) -> bool {
        self.cache.known.lacks(born, id)
    }

    /// Remembers that an envelope is stored.
    pub(crate) fn remember(&mut self, born: Born, id: &EnvelopeId) {
        self.cache.known.insert(born, id);
    }

    pub(crate) fn ticket(&mut self, id: &PublicKey<Access>) -> Result<Option<&mut Ticket>, StoreError> {
        if !self.cache.tickets.contains_key(id.as_bytes()) {
            let Some(bytes) = self.tables.load(Space::State, &key::ticket(id))? else { return Ok(None) };
            self.cache.tickets.insert(*id.as_bytes(), Some(record::decode(&bytes)?));
        }
        Ok(self.cache.tickets.get_mut(id.as_bytes()).and_then(Option::as_mut))
    }

    /// As `ticket`, for a change.
    pub(crate) fn change_ticket(
        &mut self,
        id: &PublicKey<Access>,
    ) -> Result<Option<&mut Ticket>, StoreError> {
        if self.ticket(id)?.is_some() {
            self.dirty_tickets.insert(*id.as_bytes());
        }
        Ok(self.cache.tickets.get_mut(id.as_bytes()).and_then(Option::as_mut))
    }

    pub(crate) fn put_ticket(&mut self, ticket: Ticket) {
        let id = *ticket.key.as_bytes();
        self.cache.tickets.insert(id, Some(ticket));
        self.dirty_tickets.insert(id);
    }

    pub(crate) fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes(space).get(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.tables.load(space, key),
        }
    }

    pub(crate) fn has(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        match self.writes(space).get(key) {
            Some(staged) => Ok(staged.is_some()),
            None => self.tables.has(space, key),
        }
    }

    /// Head and newest number of the mailbox of a birth, or what they were some appends ago; `None` if there is none.
    pub(crate) fn bounds(&self, born: Born) -> Result<Option<(Seq, Seq)>, StoreError> {
        let changed = self.dirty_moving.iter().filter_map(|id| self.cache.mailboxes.get(id)?.as_ref());
        if let Some(mailbox) = changed.into_iter().find(|mailbox| mailbox.born == born) {
            return Ok(Some((mailbox.head, mailbox.newest)));
        }
        self.load(Space::State, &key::moving(born))?.map(|moving| Mailbox::bounds_in(&moving)).transpose()
    }

    pub(crate) fn load_as<R: serde::de::DeserializeOwned>(
        &self,
        space: Space,
        key: &[u8],
    ) -> Result<Option<R>, StoreError> {
        self.load(space, key)?.map(|bytes| record::decode(&bytes)).transpose()
    }

    /// Visits what is on disk in ascending order, then what this batch added, each once and as this batch left it.
    pub(crate) fn scan(
        &self,
        space: Space,
        first: &[u8],
        last: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut next = Scan::More;
        self.scan_written(space, first, last, &mut |key, value| {
            next = visit(key, value)?;
            Ok(next)
        })?;
        if next == Scan::More { self.scan_staged(space, first, last, visit) } else { Ok(()) }
    }

    /// As `scan`, what is on disk and this batch leaves as it is.
    pub(crate) fn scan_written(
        &self,
        space: Space,
        first: &[u8],
        last: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let staged = self.writes(space);
        self.tables.scan(space, first, last, &mut |key, value| {
            if staged.contains_key(key) { Ok(Scan::More) } else { visit(key, value) }
        })
    }

    /// As `scan`, over what the disk has spoilt.
    pub(crate) fn scan_around(
        &self,
        space: Space,
        first: &[u8],
        last: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<Around, StoreError> {
        let mut next = Scan::More;
        let around = self.scan_written_around(space, first, last, &mut |key, value| {
            next = visit(key, value)?;
            Ok(next)
        })?;
        if next == Scan::More {
            self.scan_staged(space, first, last, visit)?;
        }
        Ok(around)
    }

    /// As `scan_around`, what is on disk and this batch leaves as it is.
    pub(crate) fn scan_written_around(
        &self,
        space: Space,
        first: &[u8],
        last: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<Around, StoreError> {
        let staged = self.writes(space);
        damage::scan_around(self.tables, space, first, last, &mut |key, value| {
            if staged.contains_key(key) { Ok(Scan::More) } else { visit(key, value) }
        })
    }

    /// Visits what this batch added, in ascending order.
    pub(crate) fn scan_staged(
        &self,
        space: Space,
        first: &[u8],
        last: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if first > last {
            return Ok(());
        }
        for (key, value) in self.writes(space).range(first.to_vec()..=last.to_vec()) {
            if let Some(value) = value
                && visit(key, &Value::Whole(value))? == Scan::Stop
            {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.writes_mut(space).insert(key, Some(value));
    }

    pub(crate) fn put_as<R: Serialize>(&mut self, space: Space, key: Vec<u8>, value: &R) {
        self.put(space, key, codec::encode(value));
    }

    pub(crate) fn delete(&mut self, space: Space, key: Vec<u8>) {
        self.writes_mut(space).insert(key, None);
    }

    fn writes(&self, space: Space) -> &Writes {
        match space {
            Space::Bulk => &self.bulk,
            Space::State => &self.state,
        }
    }

    fn writes_mut(&mut self, space: Space) -> &mut Writes {
        match space {
            Space::Bulk => &mut self.bulk,
            Space::State => &mut self.state,
        }
    }
}
