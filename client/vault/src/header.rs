//! The header: sixteen slots, written twice.
//!
//! ```text
//! header copy, 69,632 bytes = head 4,096 | slot 0 .. slot 15, 4,096 each
//! head      0  outer-key field 1,152  box 0 .. box 15, 72 each:
//!                                     nonce 24 | AEAD(opener of the slot, outer key 32) | tag 16
//!        1152  ring 552               nonce 24 | AEAD(ring key, opener 0 .. opener 15, 32 each) | tag 16
//!        1704  generation 48          nonce 24 | AEAD(generation key, generation 1, zeros 7) | tag 16
//!        1752  MAC 32                 HMAC-SHA-256(MAC key, salt block ‖ copy index ‖ head 0..1752 ‖ slots)
//!        1784  random
//! ```
//!
//! Invariants: the outer key never lies open, because then anyone could take the outer layers off both copies
//! and find the same inner layers twice, which random bytes do not have (VLT-20); a copy counts only when its
//! MAC holds (VLT-22); every header write replaces both copies whole, the older first, with a sync after each
//! (VLT-23); foreign inner layers are carried unchanged (VLT-24).
//!
//! Known gaps: with an anchor the relay keeps the outer key and the field holds random bytes.

use hmac::{Hmac, Mac};
use rand_core::CryptoRng;
use sha2::Sha256;

use crate::{
    geometry::{COPY_LEN, SALT_BLOCK_LEN, SLOT_COUNT, SLOT_LEN},
    kdf::{OpenerKey, SlotKey, TrialKeys, subkey},
    labels,
    memory::Secret,
    payload::{HeaderKey, Payload, PayloadError},
    sector::{self, Place, SEAL_OVERHEAD},
    slot::{Inner, OuterKey, SlotSet},
};

const BOX_LEN: usize = 32 + SEAL_OVERHEAD;
const RING_AT: usize = SLOT_COUNT * BOX_LEN;
const RING_PLAIN_LEN: usize = SLOT_COUNT * 32;
const GENERATION_AT: usize = RING_AT + RING_PLAIN_LEN + SEAL_OVERHEAD;
const GENERATION_PLAIN_LEN: usize = 8;
const MAC_AT: usize = GENERATION_AT + GENERATION_PLAIN_LEN + SEAL_OVERHEAD;
const MAC_LEN: usize = 32;
const HEAD_LEN: usize = COPY_LEN - SLOT_COUNT * SLOT_LEN;

const _: () = assert!(MAC_AT + MAC_LEN == 1784);

/// A header copy as it lies on the disk.
pub(crate) struct CopyImage(pub(crate) Vec<u8>);

impl CopyImage {
    fn stored_slot(&self, slot: usize) -> &[u8] {
        &self.0[HEAD_LEN + slot * SLOT_LEN..][..SLOT_LEN]
    }

    fn stored_box(&self, slot: usize) -> &[u8] {
        &self.0[slot * BOX_LEN..][..BOX_LEN]
    }

    /// Tries a passphrase's keys on every slot, with the same steps for each, and never stops early (VLT-11).
    pub(crate) fn try_all(&self, copy: usize, keys: &TrialKeys) -> Trial {
        let mut found = Trial::Nothing;
        for (slot, (opener, slot_key)) in keys.openers.iter().zip(&keys.slots).enumerate() {
            let outer = OuterKey(Secret::filled(|out| {
                let opened = sector::open_into(&opener.0, box_place(slot, copy), self.stored_box(slot), out);
                if !opened {
                    // The same steps follow with a key that opens nothing.
                    out.copy_from_slice(&self.stored_box(slot)[..32]);
                }
            }));
            let inner = Inner::unwrap_stored(self.stored_slot(slot), &outer);
            let index = slot_index(slot);
            if let Some(plaintext) = inner.open(index, slot_key) {
                found = found.or(match Payload::decode(&plaintext) {
                    Ok(payload) if payload.slots.contains(&index) => Trial::Opened(Box::new(payload)),
                    Ok(_) | Err(PayloadError::Malformed) => Trial::Nothing,
                    Err(PayloadError::NewerVersion) => Trial::NewerVersion,
                });
            }
        }
        found
    }
}

/// What a passphrase's keys came to on one header copy.
pub(crate) enum Trial {
    Nothing,
    NewerVersion,
    Opened(Box<Payload>),
}

impl Trial {
    fn or(self, later: Self) -> Self {
        match self {
            Self::Nothing => later,
            found => found,
        }
    }
}

/// The keys that all payloads of a container share.
pub(crate) struct HeaderKeys {
    mac: Secret<32>,
    ring: Secret<32>,
    generation: Secret<32>,
}

impl HeaderKeys {
    pub(crate) fn derive(header_key: &HeaderKey) -> Self {
        Self {
            mac: subkey(&header_key.0, labels::HEADER_MAC),
            ring: subkey(&header_key.0, labels::HEADER_RING),
            generation: subkey(&header_key.0, labels::HEADER_GENERATION),
        }
    }

    fn mac_of(&self, salt_block: &[u8], copy: usize, image: &CopyImage) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.mac.expose()).ok()?;
        mac.update(salt_block);
        mac.update(&[slot_index(copy)]);
        mac.update(&image.0[..MAC_AT]);
        mac.update(&image.0[HEAD_LEN..]);
        Some(mac)
    }
}

/// What a whole header copy holds, without its outer layers.
pub(crate) struct Header {
    pub(crate) generation: u8,
    openers: Vec<OpenerKey>,
    inner: Vec<Inner>,
}

impl Header {
    /// A header of random slots: what a new container starts from. The generation starts anywhere.
    pub(crate) fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut generation = [0; 1];
        rng.fill_bytes(&mut generation);
        Self {
            generation: generation[0],
            openers: (0..SLOT_COUNT).map(|_| OpenerKey(Secret::filled(|out| rng.fill_bytes(out)))).collect(),
            inner: (0..SLOT_COUNT).map(|_| Inner::random(rng)).collect(),
        }
    }

    /// VLT-22: nothing is told about a copy whose MAC does not hold.
    pub(crate) fn open(
        image: &CopyImage,
        copy: usize,
        salt_block: &[u8; SALT_BLOCK_LEN],
        keys: &HeaderKeys,
    ) -> Option<Self> {
        let mac = keys.mac_of(salt_block, copy, image)?;
        mac.verify_slice(&image.0[MAC_AT..MAC_AT + MAC_LEN]).ok()?;
        let place = Place::copy_of(0, copy);
        let generation = sector::open(&keys.generation, place, &image.0[GENERATION_AT..MAC_AT])?;
        let ring = sector::open(&keys.ring, place, &image.0[RING_AT..GENERATION_AT])?;
        let openers: Vec<OpenerKey> = ring
            .chunks_exact(32)
            .map(|opener| OpenerKey(Secret::filled(|out| out.copy_from_slice(opener))))
            .collect();
        let outer = sector::open(&openers.first()?.0, box_place(0, copy), image.stored_box(0))?;
        let outer = OuterKey(Secret::filled(|out| out.copy_from_slice(&outer)));
        let inner =
            (0..SLOT_COUNT).map(|slot| Inner::unwrap_stored(image.stored_slot(slot), &outer)).collect();
        Some(Self { generation: *generation.first()?, openers, inner })
    }

    /// VLT-25: of two whole copies the newer counts, on a tie A. The generation wraps: it is compared as a
    /// signed distance.
    pub(crate) fn newer_copy(one: Option<Self>, other: Option<Self>) -> Option<(usize, Self)> {
        match (one, other) {
            (Some(one), Some(other)) => {
                let distance = i8::from_le_bytes([other.generation.wrapping_sub(one.generation)]);
                Some(if distance > 0 { (1, other) } else { (0, one) })
            }
            (Some(one), None) => Some((0, one)),
            (None, Some(other)) => Some((1, other)),
            (None, None) => None,
        }
    }

    /// The payload in a slot, if the key is the slot's and the payload says that it belongs there.
    pub(crate) fn payload(&self, slot: u8, key: &SlotKey) -> Option<Payload> {
        let plaintext = self.inner.get(usize::from(slot))?.open(slot, key)?;
        let payload = Payload::decode(&plaintext).ok()?;
        payload.slots.contains(&slot).then_some(payload)
    }

    /// Whether the key is the slot's, even if this version cannot read what is in it.
    pub(crate) fn authenticates(&self, slot: u8, key: &SlotKey) -> bool {
        self.inner.get(usize::from(slot)).is_some_and(|inner| inner.open(slot, key).is_some())
    }

    /// VLT-29: makes the slots in `set` unopenable for ever, whatever was in them. The random bytes are drawn for every
    /// slot: what a header write asks of the system's generator must not tell how many slots it destroys.
    pub(crate) fn refresh(&mut self, set: SlotSet, rng: &mut dyn CryptoRng) {
        for slot in 0..SLOT_COUNT {
            let inner = Inner::random(rng);
            let opener = OpenerKey(Secret::filled(|out| rng.fill_bytes(out)));
            if set.contains(slot_index(slot)) {
                self.inner[slot] = inner;
                self.openers[slot] = opener;
            }
        }
    }

    /// Replaces the inner layer of a slot; its opener only when the passphrase is a new one.
    pub(crate) fn set(&mut self, slot: u8, inner: Inner, opener: Option<&OpenerKey>) {
        let slot = usize::from(slot);
        if let Some(place) = self.inner.get_mut(slot) {
            *place = inner;
        }
        if let (Some(place), Some(opener)) = (self.openers.get_mut(slot), opener) {
            *place = OpenerKey(Secret::filled(|out| *out = *opener.0.expose()));
        }
    }

    /// Both copies as they are to be written: one new outer key, fresh nonces everywhere.
    pub(crate) fn compose(
        &self,
        salt_block: &[u8; SALT_BLOCK_LEN],
        keys: &HeaderKeys,
        rng: &mut dyn CryptoRng,
    ) -> Option<[CopyImage; 2]> {
        let outer = OuterKey(Secret::filled(|out| rng.fill_bytes(out)));
        let one = self.compose_copy(0, &outer, salt_block, keys, rng)?;
        let other = self.compose_copy(1, &outer, salt_block, keys, rng)?;
        Some([one, other])
    }

    fn compose_copy(
        &self,
        copy: usize,
        outer: &OuterKey,
        salt_block: &[u8; SALT_BLOCK_LEN],
        keys: &HeaderKeys,
        rng: &mut dyn CryptoRng,
    ) -> Option<CopyImage> {
        let mut image = CopyImage(vec![0; COPY_LEN]);
        let head = &mut image.0[..HEAD_LEN];
        rng.fill_bytes(head);
        let mut ring = zeroize::Zeroizing::new(Vec::with_capacity(RING_PLAIN_LEN));
        for (slot, opener) in self.openers.iter().enumerate() {
            let stored = &mut head[slot * BOX_LEN..][..BOX_LEN];
            if !sector::seal_into(&opener.0, box_place(slot, copy), outer.0.expose(), stored, rng) {
                return None;
            }
            ring.extend_from_slice(opener.0.expose());
        }
        let place = Place::copy_of(0, copy);
        let mut generation = [0; GENERATION_PLAIN_LEN];
        generation[0] = self.generation;
        let sealed = sector::seal_into(&keys.ring, place, &ring, &mut head[RING_AT..GENERATION_AT], rng)
            && sector::seal_into(&keys.generation, place, &generation, &mut head[GENERATION_AT..MAC_AT], rng);
        for (inner, stored) in self.inner.iter().zip(image.0[HEAD_LEN..].chunks_exact_mut(SLOT_LEN)) {
            inner.wrap(outer, stored, rng);
        }
        let mac = keys.mac_of(salt_block, copy, &image)?.finalize().into_bytes();
        image.0[MAC_AT..MAC_AT + MAC_LEN].copy_from_slice(&mac);
        sealed.then_some(image)
    }
}

fn box_place(slot: usize, copy: usize) -> Place {
    Place::copy_of(slot as u64, copy)
}

pub(crate) fn slot_index(slot: usize) -> u8 {
    u8::try_from(slot).unwrap_or(u8::MAX)
}
