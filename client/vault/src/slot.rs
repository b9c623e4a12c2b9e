//! One slot: a place that one passphrase may open.
//!
//! ```text
//! slot as stored, 4,096 bytes = offline part 512 | outer nonce 24 | outer layer 3,560
//! outer layer                 = inner layer XOR XChaCha20(outer key, outer nonce)
//! inner layer, 3,560 bytes    = nonce 24 | XChaCha20-Poly1305(slot key, payload 3,520) | tag 16
//! ```
//!
//! Invariants: the outer layer has no tag, so a used, an empty and a destroyed slot are all random bytes even
//! to who holds the outer key (VLT-21); the inner layer of another passphrase is carried unchanged from
//! header to header (VLT-24).
//!
//! Known gaps: the offline part is random and renewed with every header write, as no anchor uses it.

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    geometry::SLOT_LEN,
    kdf::SlotKey,
    memory::Secret,
    payload::{PAYLOAD_LEN, Payload, PayloadError},
    sector::{self, NONCE_LEN, Place, SEAL_OVERHEAD},
};

/// Bytes of the part that an anchored container may use while no relay can be reached.
pub(crate) const OFFLINE_LEN: usize = 512;
/// Bytes of the inner layer.
pub(crate) const INNER_LEN: usize = PAYLOAD_LEN + SEAL_OVERHEAD;

const _: () = assert!(OFFLINE_LEN + NONCE_LEN + INNER_LEN == SLOT_LEN);

/// The inner layer of a slot: a sealed payload, or random bytes that nobody can open.
pub(crate) struct Inner(Vec<u8>);

impl Inner {
    /// What an empty or destroyed slot holds.
    pub(crate) fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = vec![0; INNER_LEN];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Seals `payload` for the slot with this index.
    pub(crate) fn seal(
        payload: &Payload,
        slot: u8,
        key: &SlotKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, PayloadError> {
        let plaintext = payload.encode()?;
        Ok(Self(sector::seal(&key.0, Place::single(slot.into()), &plaintext, rng)))
    }

    /// The payload's bytes, if the key is this slot's.
    pub(crate) fn open(&self, slot: u8, key: &SlotKey) -> Option<Zeroizing<Vec<u8>>> {
        sector::open(&key.0, Place::single(slot.into()), &self.0)
    }

    /// Puts the outer layer around it: a whole slot as stored.
    pub(crate) fn wrap(&self, outer: &OuterKey, stored: &mut [u8], rng: &mut dyn CryptoRng) {
        let (offline, rest) = stored.split_at_mut(OFFLINE_LEN);
        let (nonce, body) = rest.split_at_mut(NONCE_LEN);
        rng.fill_bytes(offline);
        let mut fresh = [0; NONCE_LEN];
        rng.fill_bytes(&mut fresh);
        nonce.copy_from_slice(&fresh);
        body.copy_from_slice(&self.0);
        sector::apply_keystream(&outer.0, &fresh, body);
    }

    /// Takes the outer layer off. With a wrong outer key the result is random bytes; nothing tells.
    pub(crate) fn unwrap_stored(stored: &[u8], outer: &OuterKey) -> Self {
        let (nonce, body) = stored[OFFLINE_LEN..].split_at(NONCE_LEN);
        let mut fresh = [0; NONCE_LEN];
        fresh.copy_from_slice(nonce);
        let mut inner = body.to_vec();
        sector::apply_keystream(&outer.0, &fresh, &mut inner);
        Self(inner)
    }
}

/// The key of the outer layer: one for both header copies, drawn anew for every header write.
pub(crate) struct OuterKey(pub(crate) Secret<32>);

/// A set of slot indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SlotSet(u16);

impl SlotSet {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn of(slots: [u8; 2]) -> Self {
        Self::EMPTY.with(slots[0]).with(slots[1])
    }

    pub(crate) fn with(self, slot: u8) -> Self {
        Self(self.0 | 1u16.checked_shl(slot.into()).unwrap_or(0))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn contains(self, slot: u8) -> bool {
        self.0 & 1u16.checked_shl(slot.into()).unwrap_or(0) != 0
    }

    pub(crate) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    #[test]
    fn vlt_21_outer_layer_is_its_own_inverse_and_no_two_wrappings_look_alike() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let outer = OuterKey(Secret::random(&mut rng));
        let inner = Inner::random(&mut rng);
        let (mut one, mut two) = (vec![0; SLOT_LEN], vec![0; SLOT_LEN]);
        inner.wrap(&outer, &mut one, &mut rng);
        inner.wrap(&outer, &mut two, &mut rng);
        assert!(one.chunks(16).zip(two.chunks(16)).all(|(one, two)| one != two));
        assert_eq!(Inner::unwrap_stored(&one, &outer).0, inner.0);
        assert_eq!(Inner::unwrap_stored(&two, &outer).0, inner.0);
    }

    #[test]
    fn slot_sets_add_and_remove() {
        let set = SlotSet::of([3, 15]);
        assert!(set.contains(3) && set.contains(15) && !set.contains(4) && !set.contains(200));
        assert_eq!(set.without(SlotSet::of([3, 4])), SlotSet::EMPTY.with(15));
        assert!(set.intersects(SlotSet::of([15, 0])) && !set.intersects(SlotSet::of([1, 0])));
    }
}
