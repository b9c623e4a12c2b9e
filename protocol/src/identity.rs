//! The public half of an identity.

use std::fmt;

use libsignal_protocol::PublicKey;
use sha2::{Digest, Sha256};

use crate::labels;

/// A public identity key: X25519 in canonical form, used for key agreement and, through XEdDSA, for signatures.
///
/// A value exists only if the key passed SES-05, so whoever holds one need not check again.
///
/// There is one identity per contact and per group; two of them say nothing about being the same person.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityKey([u8; Self::LENGTH]);

/// The bytes are not a usable public key: low-order, off the curve, or not in canonical form (SES-05).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a usable identity key")]
pub struct InvalidIdentityKey;

impl IdentityKey {
    /// Length in bytes.
    pub const LENGTH: usize = 32;

    /// Checks and takes over a key from outside.
    ///
    /// # Errors
    /// [`InvalidIdentityKey`] for anything but the canonical encoding of a point of the prime-order group.
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Result<Self, InvalidIdentityKey> {
        let key = PublicKey::from_djb_public_key_bytes(&bytes).map_err(|_| InvalidIdentityKey)?;
        if is_usable(&key) { Ok(Self(bytes)) } else { Err(InvalidIdentityKey) }
    }

    /// The key's bytes (u-coordinate, little endian; RFC 7748 section 5).
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    pub(crate) fn from_signal(key: &PublicKey) -> Result<Self, InvalidIdentityKey> {
        Self::from_bytes(raw(key)?)
    }

    pub(crate) fn to_signal(self) -> Result<PublicKey, InvalidIdentityKey> {
        PublicKey::from_djb_public_key_bytes(&self.0).map_err(|_| InvalidIdentityKey)
    }

    /// The name under which libsignal files what belongs to this identity: equal on both sides, without the key.
    pub(crate) fn address_name(&self) -> String {
        let digest = Sha256::new().chain_update(labels::ADDRESS.as_bytes()).chain_update(self.0).finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for IdentityKey {
    /// Prints no byte: who somebody's contacts are does not belong into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(..)")
    }
}

/// SES-05: whether a key from outside may enter a key agreement.
///
/// libsignal checks this for the base key only. A point outside the prime-order group contributes nothing
/// (all-zero agreement) or leaks bits of a private key; a second encoding of one point would be a second name for
/// one identity.
pub(crate) fn is_usable(key: &PublicKey) -> bool {
    key.is_canonical()
}

/// The 32 bytes of a libsignal key.
pub(crate) fn raw(key: &PublicKey) -> Result<[u8; 32], InvalidIdentityKey> {
    key.public_key_bytes().try_into().map_err(|_| InvalidIdentityKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// u-coordinates of low order on Curve25519 and its twist, as listed by D. J. Bernstein
    /// (<https://cr.yp.to/ecdh.html#validate>), with the non-canonical forms of the same points.
    const LOW_ORDER: [&str; 12] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
        "4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
        "d9ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "daffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "dbffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn ses_05_low_order_keys_are_refused() {
        for hex in LOW_ORDER {
            assert_eq!(IdentityKey::from_bytes(bytes(hex)), Err(InvalidIdentityKey), "{hex}");
        }
    }

    #[test]
    fn ses_05_second_encodings_are_refused_and_the_base_point_is_not() {
        let mut key = [0; 32];
        key[0] = 9;
        assert!(IdentityKey::from_bytes(key).is_ok());
        key[31] = 0x80;
        assert_eq!(IdentityKey::from_bytes(key), Err(InvalidIdentityKey));
        // 9 + p, below 2^255: the same point, written with a coordinate that is not reduced.
        let mut unreduced = [0xFF; 32];
        unreduced[0] = 0xF6;
        unreduced[31] = 0x7F;
        assert_eq!(IdentityKey::from_bytes(unreduced), Err(InvalidIdentityKey));
    }

    #[test]
    fn debug_shows_no_byte() {
        let mut key = [0; 32];
        key[0] = 9;
        assert_eq!(format!("{:?}", IdentityKey::from_bytes(key).unwrap()), "IdentityKey(..)");
    }
}
