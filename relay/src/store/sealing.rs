//! Values on their way to an engine and back.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::RngCore;

use super::{
    StoreError,
    cache::Generations,
    damage::{MAX_LOOKS, scan_around},
    keys::{Chain, KeyFile, Slot},
    record::{
        self, ALONE, ANCHOR_SLOTS, ANCHORS, Anchor, Blob, Mailbox, Seal, UNSEALED, decode_count, decode_due,
        free_anchor_keys, key, set_nonce, slot_in,
    },
    tables::{Entry, Scan, Space, Tables, Visit, Writes},
};

/// The writer's keys.
pub(super) struct Sealer {
    /// The keys of the last number that was sealed in a slot.
    ready: Generations<Slot, Chain>,
}

impl Sealer {
    /// Keeps the keys of so many slots in a generation, of which there are two.
    pub(super) fn new(generation: usize) -> Self {
        Self { ready: Generations::new(generation) }
    }

    /// After a commit that failed its numbers come again.
    pub(super) fn reset(&mut self) {
        self.ready.clear();
    }

    /// Makes keys for new slots; durable when it returns.
    pub(super) fn begin(&mut self, keys: &KeyFile, fresh: &[Slot]) -> Result<(), StoreError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let mut rng = rand::rng();
        let chains: BTreeMap<Slot, Chain> =
            fresh.iter().map(|slot| (*slot, Chain::random(&mut rng))).collect();
        keys.add(&chains)?;
        // Whoever makes a mailbox means to use it; whoever fills a store from a backup makes all of them first.
        self.ready.age();
        for (slot, chain) in chains {
            self.ready.insert(slot, chain);
        }
        Ok(())
    }

    /// Seals the values of a batch in place that are not sealed yet, each under a nonce of its own: the same numbers may
    /// come again.
    pub(super) fn seal(&mut self, keys: &KeyFile, bulk: &mut Writes) -> Result<(), StoreError> {
        self.ready.age();
        let mut rng = rand::rng();
        for (name, value) in bulk {
            let Some(value) = value else { continue };
            let Seal { slot, number, nonce, head } = Seal::of(name, value)?;
            if nonce != UNSEALED {
                continue;
            }
            let mut nonce = UNSEALED;
            while nonce == UNSEALED {
                rng.fill_bytes(&mut nonce);
            }
            set_nonce(value, &nonce)?;
            let chain = self.ready(keys, slot, number)?;
            chain.apply(&nonce, value.get_mut(head..).ok_or(StoreError::Damaged)?);
        }
        Ok(())
    }

    fn ready(&mut self, keys: &KeyFile, slot: Slot, number: u64) -> Result<&mut Chain, StoreError> {
        if self.ready.get_mut(&slot).is_none() {
            self.ready.insert(slot, keys.load(slot)?.ok_or(StoreError::Damaged)?);
        }
        let chain = self.ready.get_mut(&slot).ok_or(StoreError::Damaged)?;
        if chain.advance(number) { Ok(chain) } else { Err(StoreError::Damaged) }
    }

    /// Forgets keys: all of a slot that come before a number, or all. Returns the slots that still have them, because the disk cannot
    /// read them.
    pub(super) fn forget(
        &mut self,
        keys: &KeyFile,
        due: &BTreeMap<Slot, u64>,
    ) -> Result<BTreeSet<Slot>, StoreError> {
        for (slot, _) in due.iter().filter(|(_, before)| **before == u64::MAX) {
            self.ready.remove(slot);
        }
        keys.forget(due)
    }
}

/// A view together with the keys for what it shows.
pub(super) struct Opened<V> {
    view: V,
    keys: Arc<KeyFile>,
    /// The keys that were used last: windows go up.
    last: RefCell<Option<(Slot, Chain)>>,
}

impl<V> Opened<V> {
    pub(super) fn new(view: V, keys: Arc<KeyFile>) -> Self {
        Self { view, keys, last: RefCell::new(None) }
    }
}

impl<V: Tables> Tables for Opened<V> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.view.load(space, key)
    }

    fn has(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        self.view.has(space, key)
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.view.scan(space, first, last, visit)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.view.last(space, first, last)
    }

    fn keys(&self) -> Option<&KeyFile> {
        Some(&self.keys)
    }

    fn unseal(&self, seal: &Seal, bytes: &mut [u8]) -> Result<bool, StoreError> {
        let Seal { slot, number, nonce, head: _ } = *seal;
        let mut last = self.last.borrow_mut();
        let ready = last.take().filter(|(of, chain)| *of == slot && chain.at() <= number);
        let chain = match ready {
            Some((_, chain)) => Some(chain),
            None => self.keys.load(slot)?,
        };
        let Some(mut chain) = chain.filter(|chain| chain.at() <= number) else { return Ok(false) };
        chain.advance(number);
        chain.apply(&nonce, bytes);
        *last = Some((slot, chain));
        Ok(true)
    }
}

/// What is to be forgotten, as the tables say it.
pub(super) struct Still {
    pub(super) due: BTreeMap<Slot, u64>,
    /// Whether these are, cannot be read now.
    pub(super) unknown: BTreeMap<Slot, u64>,
}

/// Of what is to be forgotten, what the tables still say is. A forgetting may be durable although the disk said that it failed: then
/// its slots are free, or somebody's. So nothing goes of which the tables cannot tell.
pub(super) fn due_still(tables: &impl Tables, due: &BTreeMap<Slot, u64>) -> Result<Still, StoreError> {
    let mut still = Still { due: BTreeMap::new(), unknown: BTreeMap::new() };
    for (slot, before) in due {
        match tables.load(Space::State, &key::due(*slot)) {
            Err(StoreError::Damaged) => {
                still.unknown.insert(*slot, *before);
            }
            said => {
                let said = said?.map(|said| decode_due(&said).unwrap_or(*before));
                still.due.extend(said.map(|before| (*slot, before)));
            }
        }
    }
    Ok(still)
}

/// ANC-11: overwrites keys of slots that no anchor has. They are of anchors whose commit never came to be, and what was sealed
/// under them may be somewhere in the engine's files. Where a record of free slots is damaged nothing is overwritten: the store
/// opens for everybody else.
///
/// Where a record of what is to be forgotten is damaged, so are those of slots that nobody has: it may have named them.
pub(super) fn forget_unused(tables: &impl Tables, keys: &KeyFile) -> Result<(), StoreError> {
    forget_held(keys, unused(tables, keys))?;
    let (_, is_damaged) = dues(tables)?;
    if is_damaged {
        forget_held(keys, unowned(tables, keys))?;
    }
    Ok(())
}

/// Overwrites keys of slots, which stay as free, or as lost, as they are.
fn forget_held(keys: &KeyFile, slots: Result<BTreeSet<Slot>, StoreError>) -> Result<(), StoreError> {
    match slots {
        Ok(slots) => {
            keys.forget(&keys.held(&slots).into_iter().map(|slot| (slot, u64::MAX)).collect()).map(drop)
        }
        Err(StoreError::Damaged) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// The slots, of anchors too, in which nothing lies that the tables know of; damaged where they may know more.
fn unowned(tables: &impl Tables, keys: &KeyFile) -> Result<BTreeSet<Slot>, StoreError> {
    let mut slots: BTreeSet<Slot> = (0..keys.slots(false)?).filter_map(Slot::of_other).collect();
    slots.extend((0..keys.slots(true)?).filter_map(Slot::of_anchor));
    let mut each = |space, kind, slot_of: &dyn Fn(&[u8]) -> Result<Slot, StoreError>| {
        let (first, last) = key::all(kind);
        tables.scan(space, &first, &last, &mut |_, value| {
            let slot = match space {
                Space::Bulk => slot_of(value.head())?,
                Space::State => slot_of(&value.whole()?)?,
            };
            slots.remove(&slot);
            Ok(Scan::More)
        })
    };
    each(Space::State, key::MAILBOXES, &|fixed| Ok(Mailbox::of_fixed(fixed)?.slot))?;
    each(Space::State, key::BLOBS, &|blob| Ok(record::decode::<Blob>(blob)?.slot))?;
    each(Space::State, ANCHORS, &|anchor| Ok(record::decode::<Anchor>(anchor)?.slot))?;
    for kind in ALONE {
        each(Space::Bulk, kind, &slot_in)?;
    }
    Ok(slots)
}

/// The slots of the file of anchors that no anchor has.
fn unused(tables: &impl Tables, keys: &KeyFile) -> Result<BTreeSet<Slot>, StoreError> {
    let used = tables.load(Space::State, ANCHOR_SLOTS)?.map_or(Ok(0), |bytes| decode_count(&bytes))?;
    let mut unused: BTreeSet<Slot> = (used..keys.slots(true)?).filter_map(Slot::of_anchor).collect();
    let (first, last) = free_anchor_keys();
    tables.scan(Space::State, &first, &last, &mut |_, value| {
        let slot = slot_in(&value.whole()?)?;
        if !slot.is_of_anchor() {
            return Err(StoreError::Damaged);
        }
        unused.insert(slot);
        Ok(Scan::More)
    })?;
    Ok(unused)
}

/// What is still to be forgotten, from before the store was opened.
///
/// Of a damaged record it is known whose keys, and not up to where: all of them may be more than is to go, so they stay until something of
/// the same slot is forgotten again, or nobody has the slot. Nobody else is kept from opening the store.
pub(super) fn still_due(tables: &impl Tables) -> Result<BTreeMap<Slot, u64>, StoreError> {
    let (due, is_damaged) = dues(tables)?;
    if is_damaged {
        tracing::error!(
            "what says which keys are to be overwritten is damaged: some of deleted envelopes stay"
        );
    }
    Ok(due)
}

/// What is to be forgotten, and whether any of it is damaged.
fn dues(tables: &impl Tables) -> Result<(BTreeMap<Slot, u64>, bool), StoreError> {
    let mut due = BTreeMap::new();
    let mut is_damaged = false;
    let (mut start, last) = key::all(key::DUE);
    for _ in 0..MAX_LOOKS {
        let around = scan_around(tables, Space::State, &start, &last, &mut |name, value| {
            match (key::slot_in(name), decode_due(&value.whole()?)) {
                (Some(slot), Ok(before)) => {
                    due.insert(slot, before);
                }
                _ => is_damaged = true,
            }
            Ok(Scan::More)
        })?;
        is_damaged |= around.is_damaged;
        match around.next {
            Some(next) => start = next,
            None => break,
        }
    }
    Ok((due, is_damaged))
}

#[cfg(test)]
mod tests {
    use lapwing_wire::{
        frame::Seq,
        ids::{AnchorId, BlobHash, RunningHash},
    };

    use super::{
        super::record::{Born, Day},
        *,
    };

    /// A store that is filled from a backup makes the keys of all its mailboxes before it seals anything.
    #[test]
    fn keys_that_are_made_ready_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyFile::open(dir.path()).unwrap();
        let mut sealer = Sealer::new(16);
        for n in 0..200 {
            sealer.begin(&keys, &[Slot(n)]).unwrap();
        }
        let ready = (0..200).filter(|n| sealer.ready.get(&Slot(*n)).is_some()).count();
        assert!(ready <= 2 * 17, "{ready} are held");
    }

    /// After a commit that failed, and after a crash, the engine's files may hold a number's first value beside its second.
    /// Under one key stream the two would tell what they differ in, and who knows one (its sender) would have the other,
    /// though its key is forgotten.
    #[test]
    fn a_number_that_comes_again_is_sealed_under_another_key_stream() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyFile::open(dir.path()).unwrap();
        let (mine, anchors) = (Slot(0), Slot::of_anchor(0).unwrap());
        Sealer::new(16).begin(&keys, &[mine, anchors]).unwrap();
        let hash = RunningHash::START;
        let envelope = |byte| record::encode_envelope(mine, Day::new(1), &hash, &[byte; 64]);
        let part = |byte| record::encode_part(mine, &[byte; 64]);
        let secrets = |byte| record::encode_part(anchors, &[byte; 64]);
        let blob = BlobHash::from_bytes([1; 32]);
        let values: [(Vec<u8>, [Vec<u8>; 2]); 3] = [
            (key::envelope(Born::new(1), Seq::new(300)), [envelope(1), envelope(2)]),
            (key::part(&blob, 0), [part(1), part(2)]),
            (record::secrets_key(&AnchorId::from_bytes([1; 32]), 7), [secrets(1), secrets(2)]),
        ];
        for (name, [first, second]) in values {
            let mut sealer = Sealer::new(16);
            let mut sealed = Vec::new();
            // The same value again, another, and after the process was killed.
            for (value, is_killed) in [(&first, false), (&first, false), (&second, false), (&second, true)] {
                if is_killed {
                    sealer = Sealer::new(16);
                }
                sealer.reset();
                let mut bulk = Writes::from([(name.clone(), Some(value.clone()))]);
                sealer.seal(&keys, &mut bulk).unwrap();
                let value = bulk.remove(&name).flatten().unwrap();
                let seal = Seal::of(&name, &value).unwrap();
                let mut opened = value[seal.head..].to_vec();
                let mut chain = keys.load(seal.slot).unwrap().unwrap();
                assert!(chain.advance(seal.number));
                chain.apply(&seal.nonce, &mut opened);
                assert!(opened == [1; 64] || opened == [2; 64], "it opens");
                sealed.push((value[seal.head..].to_vec(), opened));
            }
            for (n, (one, plain)) in sealed.iter().enumerate() {
                for (other, other_plain) in &sealed[n + 1..] {
                    let stream = |sealed: &[u8], plain: &[u8]| -> Vec<u8> {
                        sealed.iter().zip(plain).map(|(sealed, plain)| sealed ^ plain).collect()
                    };
                    assert_ne!(stream(one, plain), stream(other, other_plain), "a key stream came twice");
                }
            }
        }
    }
}
