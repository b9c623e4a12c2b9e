//! For tests only: the keys and seals of the format one by one, for an examiner that opens single blocks.
//!
//! Hidden from the documentation. A session never needs these: it sees blocks through the modules that know when they
//! count. An examiner asks what a block says that does not count any more.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    kdf::{Cost, Passphrase, Root, TrialKeys, subkey},
    labels,
    memory::Secret,
    sector::{self, NONCE_LEN, Place},
};

/// Blocks of 64 bytes that the AEAD takes from the keystream before the text begins.
const AEAD_BLOCKS: usize = 1;

/// What one passphrase tries on every slot of a container with this salt.
#[derive(Clone)]
pub struct Trials {
    /// Opens the box of the outer key, for each slot.
    pub openers: Vec<[u8; 32]>,
    /// Opens the inner layer of each slot.
    pub slots: Vec<[u8; 32]>,
    /// From which all of them come.
    pub root: [u8; 32],
}

/// Derives them. `None` if this cost is impossible.
pub fn trials(passphrase: &[u8], salt: &[u8; 32], cost: Cost) -> Option<Trials> {
    let root = Root::derive(&Passphrase::new(passphrase), salt, cost).ok()?;
    let TrialKeys { openers, slots } = root.trial_keys();
    Some(Trials {
        openers: openers.iter().map(|key| *key.0.expose()).collect(),
        slots: slots.iter().map(|key| *key.0.expose()).collect(),
        root: *root.expose(),
    })
}

/// The keys that come from a header key: of the MAC, the ring, the generation.
pub fn header_keys(header_key: &[u8; 32]) -> [[u8; 32]; 3] {
    all(header_key, [labels::HEADER_MAC, labels::HEADER_RING, labels::HEADER_GENERATION])
}

/// The keys that come from a volume key: of allocation units, key table, superblocks, data units.
pub fn volume_keys(volume_key: &[u8; 32]) -> [[u8; 32]; 4] {
    all(volume_key, [labels::ALLOCATION, labels::KEY_TABLE, labels::SUPERBLOCK, labels::UNITS])
}

fn all<const N: usize>(key: &[u8; 32], names: [&[u8]; N]) -> [[u8; 32]; N] {
    let key = secret(key);
    names.map(|label| *subkey(&key, label).expose())
}

/// Opens what was sealed for this place; `copy` is 255 for what exists once.
pub fn open(key: &[u8; 32], index: u64, copy: u8, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    sector::open(&secret(key), Place { index, copy }, sealed)
}

/// Takes off, or puts on, the tagless outer layer of a slot.
pub fn outer_layer(key: &[u8; 32], nonce: &[u8; NONCE_LEN], bytes: &mut [u8]) {
    sector::apply_keystream(&secret(key), nonce, bytes);
}

/// What the AEAD's cipher makes of `bytes`, whether or not they are whole: what somebody sees who has a key, a piece of
/// what it sealed, and no idea to what it was bound.
pub fn unauthenticated(key: &[u8; 32], nonce: &[u8; NONCE_LEN], bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; AEAD_BLOCKS * 64];
    out.extend_from_slice(bytes);
    sector::apply_keystream(&secret(key), nonce, &mut out);
    out.split_off(AEAD_BLOCKS * 64)
}

/// The MAC over a header copy: `parts` in the order of the format.
pub fn header_mac(key: &[u8; 32], parts: &[&[u8]]) -> Option<[u8; 32]> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac.finalize().into_bytes().into())
}

fn secret(key: &[u8; 32]) -> Secret<32> {
    Secret::filled(|out| *out = *key)
}
