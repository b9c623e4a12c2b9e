//! A list key among n voices, of which k suffice: Shamir's sharing over GF(256).
//!
//! ```text
//! share        x 1 | y 32        x = 1, 2, ... n; byte i of y = polynomial of degree k - 1 with byte i of the key at 0
//!                                the field is that of AES: x^8 + x^4 + x^3 + x + 1
//! share hash   H("lapwing/1 share hash"; tripwire, share)
//! ```
//! Invariants: TRP-13 fewer than k shares tell nothing of the key. Known gap: whoever makes the shares must be honest;
//! only the owner does, and the relay finds a share that was changed by its hash.

use std::fmt;

use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use vsss_rs::Gf256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    ids::{TripwireId, labelled_hash},
    labels,
    limits::MAX_VOICES,
    random::Adapted,
    tripwire::ListKey,
};

/// Length of a share in bytes.
pub const SHARE_LENGTH: usize = 33;

/// One voice's part of a key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Share([u8; SHARE_LENGTH]);

impl Share {
    /// With these bytes.
    pub const fn from_bytes(bytes: [u8; SHARE_LENGTH]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be handed to a trusted contact or to a relay.
    pub const fn expose(&self) -> &[u8; SHARE_LENGTH] {
        &self.0
    }

    /// What a relay compares it with.
    pub fn hash(&self, tripwire: &TripwireId) -> ShareHash {
        ShareHash(labelled_hash(labels::SHARE_HASH, &[tripwire.as_bytes(), &self.0]))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::Bytes::new(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteArray::<SHARE_LENGTH>::deserialize(deserializer)?;
        Ok(Self(bytes.into_array()))
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share(..)")
    }
}

/// The hash of a share: tells the right one, and nothing of it.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShareHash(#[serde(with = "serde_bytes")] [u8; 32]);

impl PartialEq for ShareHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for ShareHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareHash(..)")
    }
}

/// There is no such sharing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is shared among 1 to 8 voices, of which at least one has to suffice and not more than all")]
pub struct BadSharing;

/// Shares a key among `voices`, of which any `threshold` suffice.
///
/// # Errors
/// [`BadSharing`] unless `1 <= threshold <= voices <= 8`.
pub fn split(
    key: &ListKey,
    threshold: usize,
    voices: usize,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<Share>, BadSharing> {
    if threshold < 1 || threshold > voices || voices > MAX_VOICES {
        return Err(BadSharing);
    }
    if threshold == 1 {
        // A polynomial of degree 0.
        let share = |x: usize| {
            let mut share = [0; SHARE_LENGTH];
            share[0] = u8::try_from(x).map_err(|_| BadSharing)?;
            share[1..].copy_from_slice(key.expose());
            Ok(Share(share))
        };
        return (1..=voices).map(share).collect();
    }
    let shares = Gf256::split_array(threshold, voices, key.expose(), Adapted(rng)).map_err(|_| BadSharing)?;
    let shares = shares.into_iter().map(Zeroizing::new);
    shares.map(|share| share.as_slice().try_into().map(Share).map_err(|_| BadSharing)).collect()
}

/// The key of `threshold` or more shares. With wrong shares another key: whoever uses it finds out.
///
/// # Errors
/// [`BadSharing`] for fewer than `threshold` shares, or two of one voice.
pub fn combine(shares: &[&Share], threshold: usize) -> Result<ListKey, BadSharing> {
    let mut voices: Vec<u8> = shares.iter().map(|share| share.0[0]).collect();
    voices.sort_unstable();
    voices.dedup();
    if threshold < 1 || voices.len() != shares.len() || voices.len() < threshold || voices.contains(&0) {
        return Err(BadSharing);
    }
    let used = shares.get(..threshold).ok_or(BadSharing)?;
    if let [only] = used {
        let (_, key) = only.0.split_first_chunk::<1>().ok_or(BadSharing)?;
        return key.try_into().map(ListKey::from_bytes).map_err(|_| BadSharing);
    }
    let mut bytes: Vec<Vec<u8>> = used.iter().map(|share| share.0.to_vec()).collect();
    let key = Gf256::combine_array(&bytes).map(Zeroizing::new).map_err(|_| BadSharing);
    bytes.iter_mut().for_each(Zeroize::zeroize);
    key?.as_slice().try_into().map(ListKey::from_bytes).map_err(|_| BadSharing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    #[test]
    fn trp_13_any_k_of_n_shares_are_the_key_and_fewer_are_nothing() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = ListKey::generate(&mut rng);
        for voices in 1..=MAX_VOICES {
            for threshold in 1..=voices {
                let shares = split(&key, threshold, voices, &mut rng).unwrap();
                assert_eq!(shares.len(), voices);
                for chosen in 0u32..1 << voices {
                    let some: Vec<&Share> = shares
                        .iter()
                        .enumerate()
                        .filter(|(n, _)| chosen >> n & 1 == 1)
                        .map(|(_, s)| s)
                        .collect();
                    let found = combine(&some, threshold);
                    if some.len() < threshold {
                        assert_eq!(found, Err(BadSharing));
                        // Not even by who ignores the number.
                        if threshold > 1 && !some.is_empty() {
                            assert_ne!(combine(&some, some.len()).unwrap(), key);
                        }
                    } else {
                        assert_eq!(found.unwrap(), key);
                    }
                }
            }
        }
        assert_eq!(split(&key, 0, 3, &mut rng), Err(BadSharing));
        assert_eq!(split(&key, 4, 3, &mut rng), Err(BadSharing));
        assert_eq!(split(&key, 2, 9, &mut rng), Err(BadSharing));
    }

    #[test]
    fn trp_13_two_shares_of_one_voice_are_one() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let key = ListKey::generate(&mut rng);
        let shares = split(&key, 2, 3, &mut rng).unwrap();
        assert_eq!(combine(&[&shares[0], &shares[0]], 2), Err(BadSharing));
        let mut changed = shares[1].clone();
        changed.0[5] ^= 1;
        assert_ne!(combine(&[&shares[0], &changed], 2).unwrap(), key);
        let tripwire = TripwireId::from_bytes([3; 32]);
        assert_ne!(changed.hash(&tripwire), shares[1].hash(&tripwire));
        assert_eq!(format!("{:?}", shares[0]), "Share(..)");
    }

    /// Computed from the byte table alone: f(x) = 0x53 + 0xca x in the field of AES, where 0x53 times 0xca is 1.
    #[test]
    fn trp_13_the_field_is_that_of_aes() {
        let share = |x: u8, y: u8| {
            let mut bytes = [y; SHARE_LENGTH];
            bytes[0] = x;
            Share(bytes)
        };
        // At 1: 0x53 + 0xca = 0x99. At 2: 0x53 + 2 * 0xca = 0x53 + 0x8f = 0xdc. At 0x53: 0x53 + 1 = 0x52.
        for pair in [[share(1, 0x99), share(2, 0xdc)], [share(2, 0xdc), share(0x53, 0x52)]] {
            assert_eq!(combine(&[&pair[0], &pair[1]], 2).unwrap(), ListKey::from_bytes([0x53; 32]));
        }
    }
}
