//! From a passphrase to keys.
//!
//! ```text
//! root      = Argon2id(passphrase, salt = first 32 bytes of the salt block, cost, 32 bytes)     RFC 9106
//! slot key  = HKDF-SHA-256(root, label ‖ slot index)                                            RFC 5869
//! ```
//!
//! Invariants: one derivation per unlock, whatever the passphrase opens (VLT-10); the cost is part of the
//! format and stored nowhere, because a stored cost would be a byte that is not random.
//!
//! Known gaps: the passphrase is not normalised here (NFC is the caller's job).

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::{error::DerivationError, geometry::SLOT_COUNT, labels, memory::Secret, work};

/// Bytes of salt at the start of the salt block.
pub(crate) const SALT_LEN: usize = 32;

/// A passphrase, wiped on drop.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes the bytes over. Text should be normalised to Unicode NFC first, so that the same characters
    /// typed on another keyboard are the same passphrase.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What one guess costs: the parameters of Argon2id. Part of the container format: a container made with
/// one cost opens with no other, and nothing in it says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes, computed in parallel where there are cores.
    pub lanes: u32,
}

impl Cost {
    /// The cost of format 1: 256 MiB, 3 passes, 4 lanes; about half a second on two cores.
    pub const FORMAT_1: Self = Self { memory_kib: 256 * 1024, passes: 3, lanes: 4 };
}

/// What a passphrase comes to, for one container.
pub(crate) struct Root(Secret<32>);

impl Root {
    /// The one expensive step.
    pub(crate) fn derive(
        passphrase: &Passphrase,
        salt: &[u8; SALT_LEN],
        cost: Cost,
    ) -> Result<Self, DerivationError> {
        work::derived();
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
            .map_err(|_| DerivationError::Cost)?;
        let mut blocks: Vec<Block> = Vec::new();
        blocks.try_reserve_exact(params.block_count()).map_err(|_| DerivationError::OutOfMemory)?;
        blocks.resize(params.block_count(), Block::new());
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut done = Ok(());
        let root = Secret::guarded(|out| {
            done = argon2.hash_password_into_with_memory(&passphrase.0, salt, out, &mut blocks);
        });
        blocks.iter_mut().for_each(Zeroize::zeroize);
        done.map_err(|_| DerivationError::Cost)?;
        Ok(Self(root))
    }

    /// For frozen vectors.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// The keys with which this passphrase tries every slot.
    pub(crate) fn trial_keys(&self) -> TrialKeys {
        TrialKeys {
            openers: std::array::from_fn(|slot| OpenerKey(indexed(&self.0, labels::OPENER, slot))),
            slots: std::array::from_fn(|slot| SlotKey(indexed(&self.0, labels::SLOT, slot))),
        }
    }
}

/// A key from a passphrase, for a file of its own beside containers: as expensive to guess as a container.
///
/// `salt` is random and new for each file; `purpose` is a domain-separation label.
///
/// # Errors
/// [`DerivationError`].
pub fn stretch(
    passphrase: &Passphrase,
    salt: &[u8; SALT_LEN],
    cost: Cost,
    purpose: &[u8],
) -> Result<Secret<32>, DerivationError> {
    Ok(expand(&Root::derive(passphrase, salt, cost)?.0, &[purpose]))
}

/// The keys one passphrase tries on every slot, used slots and empty ones alike (VLT-11).
pub(crate) struct TrialKeys {
    pub(crate) openers: [OpenerKey; SLOT_COUNT],
    pub(crate) slots: [SlotKey; SLOT_COUNT],
}

/// Opens the box in which a header copy keeps its outer key for one slot.
pub(crate) struct OpenerKey(pub(crate) Secret<32>);

/// Opens the inner layer of one slot.
pub(crate) struct SlotKey(pub(crate) Secret<32>);

/// A key derived from a key, with a purpose.
pub(crate) fn subkey(key: &Secret<32>, label: &[u8]) -> Secret<32> {
    expand(key, &[label])
}

fn indexed(key: &Secret<32>, label: &[u8], slot: usize) -> Secret<32> {
    let index = u8::try_from(slot).unwrap_or(u8::MAX);
    expand(key, &[label, &[index]])
}

fn expand<const N: usize>(key: &Secret<32>, info: &[&[u8]]) -> Secret<N> {
    let hkdf = Hkdf::<Sha256>::new(None, key.expose());
    Secret::filled(|out| {
        // HKDF-SHA-256 fails only past 8,160 bytes; zeros instead of a key would be a silent weakness, so a
        // longer N does not compile.
        const { assert!(N <= 255 * 32) };
        let expanded = hkdf.expand_multi_info(info, out);
        debug_assert!(expanded.is_ok());
    })
}

/// A number that says where the key of this name is looked for first in a key table.
pub(crate) fn key_place(table_key: &Secret<32>, name: &[u8]) -> u64 {
    u64::from_le_bytes(*expand::<8>(table_key, &[labels::KEY_PLACE, name]).expose())
}

/// The public name of a volume key: sixteen bytes that say nothing about the key.
pub(crate) fn volume_id(key: &Secret<32>) -> [u8; 16] {
    *expand::<16>(key, &[labels::VOLUME_ID]).expose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    #[test]
    fn vlt_10_root_depends_on_the_passphrase_and_on_nothing_hidden() {
        let salt = [1; SALT_LEN];
        let one = Root::derive(&Passphrase::new("one"), &salt, TINY).unwrap();
        let same = Root::derive(&Passphrase::new("one"), &salt, TINY).unwrap();
        let other = Root::derive(&Passphrase::new("two"), &salt, TINY).unwrap();
        assert!(one.0.equals(&same.0));
        assert!(!one.0.equals(&other.0));
    }

    #[test]
    fn a_key_for_another_file_is_none_of_a_containers() {
        let (one, salt) = (Passphrase::new("one"), [2; SALT_LEN]);
        let key = stretch(&one, &salt, TINY, b"a purpose").unwrap();
        assert!(!key.equals(&stretch(&one, &salt, TINY, b"another").unwrap()));
        assert!(!key.equals(&stretch(&one, &[3; SALT_LEN], TINY, b"a purpose").unwrap()));
        let root = Root::derive(&one, &salt, TINY).unwrap();
        assert!(root.trial_keys().slots.iter().all(|slot| !key.equals(&slot.0)) && !key.equals(&root.0));
    }

    #[test]
    fn every_trial_key_differs() {
        let root = Root::derive(&Passphrase::new("one"), &[2; SALT_LEN], TINY).unwrap();
        let keys = root.trial_keys();
        let mut all: Vec<[u8; 32]> = keys.openers.iter().map(|key| *key.0.expose()).collect();
        all.extend(keys.slots.iter().map(|key| *key.0.expose()));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * SLOT_COUNT);
    }

    #[test]
    fn impossible_cost_is_refused() {
        let cost = Cost { memory_kib: 0, passes: 0, lanes: 0 };
        assert!(matches!(
            Root::derive(&Passphrase::new("x"), &[0; SALT_LEN], cost),
            Err(DerivationError::Cost)
        ));
    }

    #[test]
    fn debug_prints_no_passphrase() {
        assert_eq!(format!("{:?}", Passphrase::new("secret words")), "Passphrase(..)");
    }
}
