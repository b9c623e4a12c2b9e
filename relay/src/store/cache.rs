//! What the writers remember between groups. Nothing of it is needed: it saves searches.
//!
//! Bounded: what was not used for long is dropped a generation at a time (`Generations`), and which envelopes are certainly
//! new is kept in some bits for each (`Known`), up to sixteen million of them; beyond, all of that begins anew.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use lapwing_wire::ids::{EnvelopeId, MailboxId};

use super::{Born, Mailbox, Ticket};

/// Mailbox records of one generation, of which there are two: 300 bytes each, 40 MiB in all.
const MAILBOXES: usize = 65_536;
/// Access tickets that are remembered; at it all are forgotten.
const TICKETS: usize = 65_536;

/// Records that every append needs. Holds only what is staged or on disk: a group that fails forgets all of it.
pub(crate) struct Cache {
    pub(super) mailboxes: Generations<MailboxId, Option<Mailbox>>,
    pub(super) tickets: HashMap<[u8; 32], Option<Ticket>>,
    pub(super) known: Known,
}

impl Default for Cache {
    fn default() -> Self {
        Self { mailboxes: Generations::new(MAILBOXES), tickets: HashMap::new(), known: Known::new(LAYER) }
    }
}

impl Cache {
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

/// Envelopes of one layer of `Known`.
const LAYER: usize = 1 << 20;
/// Layers: 1.5 MiB each. Beyond 16 million envelopes all is forgotten, and begins anew with new mailboxes.
const LAYERS: usize = 16;
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
    /// Envelopes of a layer.
    limit: usize,
}

struct Layer {
    blocks: Vec<[u64; BLOCK]>,
    count: usize,
}

impl Known {
    fn new(limit: usize) -> Self {
        Self { complete: HashSet::new(), layers: Vec::new(), limit }
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
        let (block, bits) = self.place(born, id);
        if self.layers.last().is_none_or(|layer| layer.count >= self.limit) {
            self.layers.push(Layer { blocks: vec![[0; BLOCK]; self.blocks()], count: 0 });
        }
        if let Some(layer) = self.layers.last_mut()
            && let Some(block) = layer.blocks.get_mut(block)
        {
            layer.count += 1;
            for (word, bits) in block.iter_mut().zip(bits) {
                *word |= bits;
            }
        }
    }

    /// Whether it was certainly never stored.
    pub(super) fn lacks(&self, born: Born, id: &EnvelopeId) -> bool {
        let (block, bits) = self.place(born, id);
        let has = |layer: &Layer| {
            layer
                .blocks
                .get(block)
                .is_some_and(|block| block.iter().zip(bits).all(|(word, bits)| word & bits == bits))
        };
        self.complete.contains(&born) && !self.layers.iter().any(has)
    }

    fn age(&mut self) {
        if self.layers.len() > LAYERS || self.complete.len() > COMPLETE {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.complete.clear();
        self.layers.clear();
    }

    fn blocks(&self) -> usize {
        self.limit * BITS / (BLOCK * 64)
    }

    /// The block and the bits in it. Ids of envelopes are hashes already.
    fn place(&self, born: Born, id: &EnvelopeId) -> (usize, [u64; BLOCK]) {
        let word = |from: usize| {
            let bytes = id.as_bytes().get(from..from + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_be_bytes(bytes.unwrap_or_default())
        };
        let block = (u128::from(word(0) ^ born.value().wrapping_mul(SPREAD)) * self.blocks() as u128) >> 64;
        let mut bits = [0; BLOCK];
        for turn in 0..6 {
            let bit = word(8) >> (9 * turn);
            let at = usize::try_from(bit % BLOCK as u64).unwrap_or(0);
            if let Some(word) = bits.get_mut(at) {
                *word |= 1 << ((bit >> 3) % 64);
            }
        }
        (usize::try_from(block).unwrap_or(0), bits)
    }
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
    fn what_was_stored_is_never_said_to_be_new_and_hardly_anything_new_to_be_stored() {
        const LIMIT: usize = 1 << 12;
        let id = |n: u64| EnvelopeId::of(&n.to_be_bytes());
        let (mine, other) = (Born::new(1), Born::new(2));
        let mut known = Known::new(LIMIT);
        assert!(!known.lacks(mine, &id(0)), "nothing is known of a mailbox that was there before");
        known.begin(mine);
        // Into a second layer.
        let stored = LIMIT as u64 + 100;
        for n in 0..stored {
            known.insert(mine, &id(n));
        }
        known.insert(other, &id(7));
        known.begin(other);
        let taken_for_mine = (0..stored).filter(|n| !known.lacks(other, &id(*n))).count();
        assert!(taken_for_mine < 100, "{taken_for_mine} of {stored} of another mailbox");
        assert!((0..stored).all(|n| !known.lacks(mine, &id(n))));
        let mistaken = (stored..stored + 5_000).filter(|n| !known.lacks(mine, &id(*n))).count();
        assert!(mistaken < 100, "{mistaken} of 5,000");
        known.end(mine);
        assert!(!known.lacks(mine, &id(stored)));
        // At the bound all is forgotten, also what is complete.
        for n in 0..LIMIT * LAYERS {
            known.insert(other, &id(n as u64 % 64));
        }
        known.age();
        assert!(known.layers.is_empty() && !known.lacks(other, &id(stored)));
    }
}
