//! Keys that are forgotten: what an envelope is sealed under at rest.
//!
//! The engines keep old bytes for long: in journals, in tables that were not compacted yet. So envelopes and parts of blobs
//! lie in them sealed, and the keys lie in a file of their own that is rewritten in place (`file`).
//!
//! A mailbox has one slot in that file. Its keys follow from each other one way only: who has the key of an envelope has those of
//! all later ones, and none of the earlier. When what was taken, expired or destroyed lies before the mailbox's head, the
//! slot is moved there and what it was before is overwritten: then nobody can open the earlier ones, whatever the engine's
//! files still hold.
//!
//! ```text
//! chain key of n           -> ChaCha20 key stream of 64 bytes -> chain key of n + 1 | envelope key of n
//! page key of p            -> the same                        -> page key of p + 1  | chain key of its first envelope
//! sealed envelope          =  envelope xor ChaCha20(envelope key of its number), nonce: random, in the value's head
//! sealed part of a blob    =  part xor ChaCha20(envelope key of 0 in the blob's own slot), nonce: as above
//! sealed list or record    =  the same, of a tripwire, in a slot of its own
//! ```
//! A page is 256 numbers: it makes the way from the head to a late envelope short.
//!
//! The nonce is random and not counted, because a number comes again: after a commit that failed, and after a crash, the engine's
//! files may still hold what was sealed first. 96 random bits under one key for at most 6,400 parts of a blob, a few of anything
//! else, do not meet.
//!
//! There is no tag, on purpose. Envelopes, parts and records are authenticated by those who made them, the engine's blocks have
//! sums against decay, and whoever can write the engine's files can write the key file beside them: a tag would stop nobody. This
//! layer only makes values forgettable.
//!
//! Secrets of anchors are sealed in the same way, under the key of their version in a slot of a second file.
//!
//! Known gap: an envelope that was acknowledged out of order is forgotten when the head has passed it, not before.

mod file;

use std::fmt;

use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use file::ANCHOR_KEYS;
pub(super) use file::{KeyFile, NAME as KEYS};

/// Numbers of a page.
const PAGE: u64 = 256;
const KEY: usize = 32;

/// A place in the key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    /// Slots of anchors lie in a file of their own.
    const ANCHOR: u32 = 1 << 31;

    /// The slot of an anchor with this number; `None` beyond two thousand millions.
    pub(crate) fn of_anchor(number: u32) -> Option<Self> {
        (number < Self::ANCHOR).then_some(Self(number | Self::ANCHOR))
    }

    /// The slot of anything else with this number; `None` where the slots of anchors begin.
    pub(crate) fn of_other(number: u32) -> Option<Self> {
        (number < Self::ANCHOR).then_some(Self(number))
    }

    /// Whether it is an anchor's.
    pub(crate) const fn is_of_anchor(self) -> bool {
        self.0 & Self::ANCHOR != 0
    }

    /// Its number in its file.
    pub(crate) const fn number(self) -> u32 {
        self.0 & !Self::ANCHOR
    }
}

/// The keys of a slot from a number on.
///
/// # Security
/// They lie in one place from when they are made or read until they are wiped there: maps and batches move this, and would leave
/// a copy behind with each move.
#[cfg_attr(test, derive(Clone, PartialEq, Eq))]
pub(super) struct Chain {
    at: u64,
    keys: Box<Keys>,
}

const _: () = assert!(size_of::<Chain>() < KEY, "what is moved has no key in it");

#[derive(Zeroize, ZeroizeOnDrop)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq))]
struct Keys {
    chain: [u8; KEY],
    /// Of the page after the one of the chain.
    page: [u8; KEY],
    /// What follows from `chain`: the chain key of the next number, and the envelope key of this one.
    ahead: [[u8; KEY]; 2],
    /// Whether that was needed yet.
    is_ahead: bool,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain(..)")
    }
}

impl Chain {
    /// From number 0 on, with random keys.
    pub(super) fn random(rng: &mut impl CryptoRng) -> Self {
        let mut begun = Self::at_number(0, &[0; KEY], &[0; KEY]);
        rng.fill_bytes(&mut begun.keys.chain);
        rng.fill_bytes(&mut begun.keys.page);
        begun
    }

    /// From a number on, with the keys that lead there.
    fn at_number(at: u64, chain: &[u8; KEY], page: &[u8; KEY]) -> Self {
        let keys = Keys { chain: [0; KEY], page: [0; KEY], ahead: [[0; KEY]; 2], is_ahead: false };
        let mut keys = Box::new(keys);
        keys.chain.copy_from_slice(chain);
        keys.page.copy_from_slice(page);
        Self { at, keys }
    }

    /// What must be nowhere once it is forgotten.
    #[cfg(test)]
    pub(super) fn secrets(&self) -> Vec<[u8; KEY]> {
        let mut ahead = self.clone();
        ahead.keys.look_ahead();
        vec![self.keys.chain, self.keys.page, ahead.keys.ahead[1]]
    }

    /// The first number whose key it has.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Goes on to a number; `false` if that lies behind, whose keys are forgotten.
    pub(super) fn advance(&mut self, to: u64) -> bool {
        if to < self.at {
            return false;
        }
        let target = to / PAGE;
        let mut page = self.at / PAGE;
        while page < target {
            self.keys.turn_page();
            page += 1;
            self.at = page * PAGE;
        }
        while self.at < to {
            self.keys.step();
            self.at += 1;
        }
        true
    }

    /// Seals or opens the envelope at the number where it is.
    pub(super) fn apply(&mut self, nonce: &[u8; 12], bytes: &mut [u8]) {
        self.keys.look_ahead();
        let [_, envelope] = &self.keys.ahead;
        ChaCha20::new(envelope.into(), nonce.into()).apply_keystream(bytes);
    }
}

impl Keys {
    /// Sealing one number after the other derives once for each.
    fn look_ahead(&mut self) {
        if !self.is_ahead {
            stretch(&self.chain, &mut self.ahead);
            self.is_ahead = true;
        }
    }

    /// To the next number.
    fn step(&mut self) {
        self.look_ahead();
        let [next, _] = &self.ahead;
        self.chain.copy_from_slice(next);
        self.drop_ahead();
    }

    /// To the first number of the next page.
    fn turn_page(&mut self) {
        stretch(&self.page, &mut self.ahead);
        let [next, first] = &self.ahead;
        self.page.copy_from_slice(next);
        self.chain.copy_from_slice(first);
        self.drop_ahead();
    }

    fn drop_ahead(&mut self) {
        self.ahead.zeroize();
        self.is_ahead = false;
    }
}

/// Two keys that follow from one, put in the place of whatever is there.
fn stretch(key: &[u8; KEY], both: &mut [[u8; KEY]; 2]) {
    #[cfg(test)]
    tests::STRETCHES.set(tests::STRETCHES.get() + 1);
    let both = both.as_flattened_mut();
    both.fill(0);
    ChaCha20::new(key.into(), &[0; 12].into()).apply_keystream(both);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        Chain::at_number(0, &[1; KEY], &[2; KEY])
    }

    thread_local! {
        /// Derivations of this thread.
        pub(super) static STRETCHES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    fn sealed(chain: &Chain) -> Vec<u8> {
        let mut bytes = vec![0; 100];
        chain.clone().apply(&[0; 12], &mut bytes);
        bytes
    }

    /// What an append pays: one derivation, and the key stream over the envelope itself.
    #[test]
    fn sealing_one_number_after_the_other_derives_once_for_each() {
        let mut chain = chain();
        let mut bytes = [0; 16];
        let before = STRETCHES.get();
        for number in 1..PAGE {
            assert!(chain.advance(number));
            chain.apply(&[0; 12], &mut bytes);
            chain.apply(&[1; 12], &mut bytes);
        }
        // And the one that led away from number 0.
        assert_eq!(STRETCHES.get() - before, usize::try_from(PAGE).unwrap());
        assert!(chain.advance(200 * PAGE));
        assert!(STRETCHES.get() - before <= usize::try_from(PAGE).unwrap() + 200, "pages are passed over");
    }

    #[test]
    fn every_way_to_a_number_leads_to_one_key_and_none_leads_back() {
        let mut slowly = chain();
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..3 * PAGE {
            assert!(slowly.advance(number));
            let mut at_once = chain();
            assert!(at_once.advance(number));
            assert!(at_once == slowly, "{number}");
            assert!(seen.insert(sealed(&slowly)), "each number has a key of its own");
            assert!(number == 0 || !slowly.advance(number - 1));
        }
    }

    #[test]
    fn a_chain_that_is_moved_takes_its_keys_nowhere_and_random_ones_differ() {
        let mut rng = rand::rng();
        let chains: Vec<Chain> = (0..3).map(|_| Chain::random(&mut rng)).collect();
        let places: Vec<_> = chains.iter().map(|chain| std::ptr::from_ref(&*chain.keys)).collect();
        let moved: std::collections::BTreeMap<_, _> = (0..).zip(chains).collect();
        let after: Vec<_> = moved.values().map(|chain| std::ptr::from_ref(&*chain.keys)).collect();
        assert_eq!(places, after);
        let keys: std::collections::BTreeSet<_> = moved.values().flat_map(Chain::secrets).collect();
        assert_eq!(keys.len(), 9);
        assert!(!keys.contains(&[0; KEY]));
    }

    #[test]
    fn opening_undoes_sealing_under_the_same_nonce_only() {
        let mut bytes = *b"an envelope";
        chain().apply(&[7; 12], &mut bytes);
        assert_ne!(&bytes, b"an envelope");
        let mut other = bytes;
        chain().apply(&[8; 12], &mut other);
        assert_ne!(&other, b"an envelope");
        chain().apply(&[7; 12], &mut bytes);
        assert_eq!(&bytes, b"an envelope");
        assert_eq!(format!("{:?}", chain()), "Chain(..)");
    }

    /// Frozen, and computed by another implementation: a store that was written by this version must open for ever.
    #[test]
    fn the_first_keys_are_these() {
        let mut late = chain();
        assert!(late.advance(1000));
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!(hex(&sealed(&chain())[..16]), "c7cff0490740cd0ca7f01f09a3d0a273");
        assert_eq!(hex(&sealed(&late)[..16]), "ac82df449afbefe09251e2711b925fda");
    }
}
