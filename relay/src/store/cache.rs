//! What the writers remember between groups. Nothing of it is needed: it saves searches.
//!
//! Bounded: what was not used for long is dropped a generation at a time (`Generations`), and which envelopes are certainly
//! new is kept in some bits for each (`Known`), in as much memory as the rest at most; beyond, all of that begins anew.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use lapwing_wire::ids::{EnvelopeId, MailboxId};

use super::{Born, Mailbox, Ticket};

/// Bytes of memory that a mailbox in use takes: some 300 for its record here, 200 for its keys (`sealing`).
const MAILBOX: usize = 512;
/// Mailboxes in use that are remembered in any case.
const LEAST: usize = 1024;
/// Access tickets that are remembered; at it all are forgotten.
const TICKETS: usize = 65_536;

/// Records that every append needs. Holds only what is staged or on disk: a group that fails forgets all of it.
pub(crate) struct Cache {
    pub(super) mailboxes: Generations<MailboxId, Option<Mailbox>>,
    pub(super) tickets: HashMap<[u8; 32], Option<Ticket>>,
    pub(super) known: Known,
}

/// Mailboxes of one generation, of which there are two, for a store that may use so many bytes of memory, half of them for these.
pub(super) fn generation(memory: u64) -> usize {
    (usize::try_from(memory).unwrap_or(usize::MAX) / 2 / MAILBOX / 2).max(LEAST)
}

impl Cache {
    /// With so many mailboxes in a generation.
    pub(crate) fn new(generation: usize) -> Self {
        // As much memory as mailboxes have.
        let most = generation.saturating_mul(2 * 8 * MAILBOX / BITS);
        Self {
            mailboxes: Generations::new(generation),
            tickets: HashMap::new(),
            known: Known::new(LAYER, most),
        }
    }

    pub(crate) fn forget(&mut self) {
        self.mailboxes.clear();
        self.tickets.clear();
        self.known.forget();
    }

    /// To be called between groups: what a group has used stays until it is done.
    pub(super) fn age(&mut self) {
        self.mailboxes.age();
        if self.tickets.len() > TICKETS {
            self.tickets.clear();
        }
        self.known.age();
    }
}

/// A map that drops what was used longest ago, half of it at a time.
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Entries of a generation.
    limit: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), limit }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Uses it.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key)
            && let Some((key, value)) = self.old.remove_entry(key)
        {
            self.young.insert(key, value);
        }
        self.young.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.old.remove(key);
        self.young.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Begins another generation if this one is full.
    pub(super) fn age(&mut self) {
        if self.young.len() >= self.limit {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
    }
}

/// Envelopes of the first layer of `Known`: 1.5 MiB of memory. Each further one has as many as those before it and one million
/// more, so that there are few to look at.
const LAYER: usize = 1 << 20;
/// Mailboxes whose envelopes are all known; beyond, the same.
const COMPLETE: usize = 1 << 20;
/// Words of 64 bits that one envelope's bits lie in: a line of the processor's cache.
const BLOCK: usize = 8;
/// Bits for each envelope, of which it sets six: one in some hundred new ones looks known.
const BITS: usize = 12;
/// Spreads what differs in a few bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which envelopes were stored, of mailboxes of which all are known: those that were created or empty since the store was
/// opened. What it does not know was never stored, which saves a search in the index for nearly every new envelope.
pub(super) struct Known {
    complete: HashSet<Born>,
    layers: Vec<Layer>,
    /// Envelopes of the first layer.
    first: usize,
    /// Most envelopes of all layers.
    most: usize,
}

struct Layer {
    blocks: Vec<[u64; BLOCK]>,
    count: usize,
    limit: usize,
}

impl Layer {
    fn new(limit: usize) -> Self {
        Self { blocks: vec![[0; BLOCK]; (limit * BITS).div_ceil(BLOCK * 64)], count: 0, limit }
    }

    /// Where a number that looks like chance leads.
    fn block(&self, chance: u64) -> usize {
        usize::try_from((u128::from(chance) * self.blocks.len() as u128) >> 64).unwrap_or(0)
    }
}

impl Known {
    fn new(first: usize, most: usize) -> Self {
        Self { complete: HashSet::new(), layers: Vec::new(), first, most }
    }

    /// A mailbox that has stored nothing yet.
    pub(super) fn begin(&mut self, born: Born) {
        self.complete.insert(born);
    }

    /// A mailbox that is gone.
    pub(super) fn end(&mut self, born: Born) {
        self.complete.remove(&born);
    }

    pub(super) fn insert(&mut self, born: Born, id: &EnvelopeId) {
        if !self.complete.contains(&born) {
            return;
        }
        let (chance, bits) = place(born, id);
        // Beyond the bound, until the group ends, the last takes more than it is made for: then more looks known.
        if self.is_full() && self.may_grow() {
            self.layers.push(Layer::new(self.limit() + self.first));
        }
        if let Some(layer) = self.layers.last_mut() {
            layer.count += 1;
            let block = layer.block(chance);
            let Some(block) = layer.blocks.get_mut(block) else { return };
            for (word, bits) in block.iter_mut().zip(bits) {
                *word |= bits;
            }
        }
    }

    /// Whether it was certainly never stored.
    pub(super) fn lacks(&self, born: Born, id: &EnvelopeId) -> bool {
        let (chance, bits) = place(born, id);
        let has = |layer: &Layer| {
            let block = layer.blocks.get(layer.block(chance));
            block.is_some_and(|block| block.iter().zip(bits).all(|(word, bits)| word & bits == bits))
        };
        self.complete.contains(&born) && !self.layers.iter().any(has)
    }

    fn age(&mut self) {
        if (self.is_full() && !self.may_grow()) || self.complete.len() > COMPLETE {
            self.forget();
        }
    }

    fn is_full(&self) -> bool {
        self.layers.last().is_none_or(|layer| layer.count >= layer.limit)
    }

    fn may_grow(&self) -> bool {
        self.layers.is_empty() || 2 * self.limit() + self.first <= self.most
    }

    fn forget(&mut self) {
        self.complete.clear();
        self.layers.clear();
    }

    /// Envelopes of all layers that there are, when they are full.
    fn limit(&self) -> usize {
        self.layers.iter().map(|layer| layer.limit).sum()
    }
}

/// A number that says which block, and the bits in it. Ids of envelopes are hashes already.
fn place(born: Born, id: &EnvelopeId) -> (u64, [u64; BLOCK]) {
    let word = |from: usize| {
        let bytes = id.as_bytes().get(from..from + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_be_bytes(bytes.unwrap_or_default())
    };
    let mut bits = [0; BLOCK];
    for turn in 0..6 {
        let bit = word(8) >> (9 * turn);
        let at = usize::try_from(bit % BLOCK as u64).unwrap_or(0);
        if let Some(word) = bits.get_mut(at) {
            *word |= 1 << ((bit >> 3) % 64);
        }
    }
    (word(0) ^ born.value().wrapping_mul(SPREAD), bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_lately_stays_and_no_more_than_two_generations_do() {
        let mut map = Generations::new(100);
        for n in 0..2_000 {
            map.age();
            map.insert(n, n);
            assert_eq!(map.get_mut(&0), Some(&mut 0), "what is used stays");
            assert!(map.young.len() + map.old.len() <= 200);
        }
        assert_eq!(map.get(&1_950), Some(&1_950));
        assert_eq!(map.get(&1_000), None);
        map.insert(1_950, 1);
        assert_eq!(map.get(&1_950), Some(&1));
        map.remove(&1_950);
        assert_eq!(map.get(&1_950), None);
    }

    #[test]
    fn half_of_the_memory_is_for_mailboxes() {
        let bytes = |memory: u64| (2 * generation(memory) * MAILBOX) as u64;
        for memory in [16 << 20, crate::store::MEMORY, 1 << 30] {
            assert_eq!(bytes(memory), memory / 2);
        }
        assert!(generation(0) > 0);
    }

    #[test]
    fn what_was_stored_is_never_said_to_be_new_and_hardly_anything_new_to_be_stored() {
        const FIRST: usize = 1 << 12;
        const MOST: usize = 16 * FIRST;
        let id = |n: u64| EnvelopeId::of(&n.to_be_bytes());
        let (mine, other) = (Born::new(1), Born::new(2));
        let mut known = Known::new(FIRST, MOST);
        assert!(!known.lacks(mine, &id(0)), "nothing is known of a mailbox that was there before");
        known.begin(mine);
        // Into a third layer: of one, two and four times as many.
        let stored = 3 * FIRST as u64 + 100;
        for n in 0..stored {
            known.age();
            known.insert(mine, &id(n));
        }
        assert_eq!(
            known.layers.iter().map(|layer| layer.limit).collect::<Vec<_>>(),
            [FIRST, 2 * FIRST, 4 * FIRST]
        );
        known.insert(other, &id(7));
        known.begin(other);
        let taken_for_mine = (0..stored).filter(|n| !known.lacks(other, &id(*n))).count() as u64;
        assert!(taken_for_mine < stored / 40, "{taken_for_mine} of {stored} of another mailbox");
        assert!((0..stored).all(|n| !known.lacks(mine, &id(n))));
        let mistaken = (stored..stored + 5_000).filter(|n| !known.lacks(mine, &id(*n))).count();
        assert!(mistaken < 125, "{mistaken} of 5,000");
        known.end(mine);
        assert!(!known.lacks(mine, &id(stored)));
        // A group may fill a layer before it ends: there is no age in it.
        for n in 0..4 * MOST {
            if n % 1000 == 0 {
                known.age();
                known.begin(other);
            }
            known.insert(other, &id(n as u64 % 64));
            assert!(known.limit() <= MOST, "{} are remembered, after {n}", known.limit());
            assert!(!known.lacks(other, &id(n as u64 % 64)));
        }
        // At the bound all is forgotten, also what is complete.
        known.forget();
        known.begin(other);
        let mut held = 0;
        for n in 0..MOST {
            known.insert(other, &id(n as u64 % 64));
            known.age();
            if known.layers.is_empty() {
                break;
            }
            held = known.limit();
        }
        assert!(known.layers.is_empty() && !known.lacks(other, &id(stored)));
        assert_eq!(held, 15 * FIRST, "no more than is allowed, and more than half of it");
    }
}
