//! The relay-held part of a vault's keys.
//!
//! ```text
//! input      32 bytes that the client derives from passphrase and vault; the relay sees it blinded (`oprf`)
//! output     64 bytes, OPRF(key of the anchor, input)
//! proof      HKDF-SHA256(no salt, ikm = output, info = "lapwing/1 anchor proof" 00 anchor, 32 bytes)       the relay sees it
//! share key  the same with "lapwing/1 anchor share";  mark key  with "lapwing/1 anchor mark"               the relay does not
//! entry      verifier 32 | share 72 | deed 105 | badge 64 | mark 56                                        329 bytes
//! verifier   H("lapwing/1 anchor verifier"; anchor, proof)
//! share      nonce 24 | XChaCha20-Poly1305(share key, AAD = "lapwing/1 anchor share" 00 anchor) of 32 bytes
//! deed       nonce 24 | XChaCha20-Poly1305(HKDF-SHA256(ikm = proof, info = "lapwing/1 anchor deed"),
//!            AAD = "lapwing/1 anchor deed" 00 anchor) of flags 1 (1 fires, 2 destroys) | token 32 | group key 32
//! badge      salt 32 | H("lapwing/1 anchor badge"; group key, salt)
//! mark       nonce 24 | XChaCha20-Poly1305(mark key, AAD = "lapwing/1 anchor mark" 00 anchor) of serial u64 | zeros 8
//! stage      H("lapwing/1 anchor stage"; outer key)                                                        names an outer key
//! ```
//! Invariants: ANC-02 an entry looks like random bytes to who lacks its proof, and an unused or destroyed one is; ANC-03
//! a relay that has a proof learns what to do and which entries belong together, never share, serial or input; ANC-13 an older
//! mark gives away a relay that was put back; ANC-15 the input depends on the vault's salt. Known gap:
//! a relay that recorded its state before a destruction, and is given a passphrase and the vault, can open what was
//! destroyed.

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    ids::{AnchorId, labelled_hash},
    labels,
    oprf::OUTPUT_LENGTH,
    tripwire::Token,
};

const NONCE: usize = 24;
const TAG: usize = 16;
const VERIFIER: usize = 32;
/// Length of a sealed share in bytes.
pub const SHARE_LENGTH: usize = NONCE + 32 + TAG;
const DEED_PLAIN: usize = 1 + 32 + 32;
const DEED: usize = NONCE + DEED_PLAIN + TAG;
const SALT: usize = 32;
const BADGE: usize = SALT + 32;
/// Length of a mark in bytes.
pub const MARK_LENGTH: usize = NONCE + 16 + TAG;
/// Length of an entry in bytes.
pub const ENTRY_LENGTH: usize = VERIFIER + SHARE_LENGTH + DEED + BADGE + MARK_LENGTH;

const FIRES: u8 = 1;
const DESTROYS: u8 = 2;

macro_rules! secret_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "serde_bytes")] [u8; 32]);

        impl $name {
            /// New random bytes.
            pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut bytes = [0; 32];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// With these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes, to be stored or sent.
            pub const fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

secret_bytes! {
    /// What an unlock shows to get its entry's share.
    Proof
}
secret_bytes! {
    /// Marks the entries that belong together.
    GroupKey
}
secret_bytes! {
    /// The outer key of a vault's header.
    OuterKey
}
secret_bytes! {
    /// What enters the slot keys of an entry's passphrase.
    VaultShare
}

impl Proof {
    fn verifier(&self, anchor: &AnchorId) -> [u8; VERIFIER] {
        labelled_hash(labels::ANCHOR_VERIFIER, &[anchor.as_bytes(), &self.0])
    }

    fn deed_key(&self) -> Zeroizing<[u8; 32]> {
        expand(&self.0, labels::ANCHOR_DEED, &[])
    }
}

/// Names an outer key to whoever has it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageId(#[serde(with = "serde_bytes")] [u8; 32]);

impl OuterKey {
    /// The key's name.
    pub fn stage(&self) -> StageId {
        StageId(labelled_hash(labels::ANCHOR_STAGE, &[&self.0]))
    }
}

impl fmt::Debug for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StageId(..)")
    }
}

macro_rules! sealed_bytes {
    ($(#[$doc:meta])* $name:ident, $length:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name([u8; $length]);

        impl $name {
            /// With these bytes.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// Bytes that nobody can open.
            pub fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut bytes = [0; $length];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde_bytes::Bytes::new(&self.0).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = serde_bytes::ByteArray::<$length>::deserialize(deserializer)?;
                Ok(Self(bytes.into_array()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

sealed_bytes! {
    /// A share that only its passphrase opens.
    SealedShare, SHARE_LENGTH
}
sealed_bytes! {
    /// An entry's serial, which only its passphrase reads and makes.
    Mark, MARK_LENGTH
}
sealed_bytes! {
    /// ANC-02: one entry, used or not.
    Entry, ENTRY_LENGTH
}

/// What the relay does when an entry is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// A token that it presents to itself.
    pub fires: Option<Token>,
    /// Whether it puts random bytes in the place of all entries of other groups.
    pub destroys: bool,
    /// The entry's group.
    pub group: GroupKey,
}

/// The secrets of one entry, which follow from the evaluated passphrase.
pub struct EntryKeys {
    anchor: AnchorId,
    proof: Proof,
    share: Zeroizing<[u8; 32]>,
    mark: Zeroizing<[u8; 32]>,
}

impl EntryKeys {
    /// From the output of the evaluation.
    pub fn derive(anchor: &AnchorId, output: &[u8; OUTPUT_LENGTH]) -> Self {
        let key = |label| expand(output, label, anchor.as_bytes());
        Self {
            anchor: *anchor,
            proof: Proof(*key(labels::ANCHOR_PROOF)),
            share: key(labels::ANCHOR_SHARE),
            mark: key(labels::ANCHOR_MARK),
        }
    }

    /// What the relay compares.
    pub const fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Seals a share for the relay to keep.
    pub fn seal_share(&self, share: &VaultShare, rng: &mut (impl CryptoRng + ?Sized)) -> SealedShare {
        SealedShare(seal(&self.share, share.expose(), labels::ANCHOR_SHARE, &self.anchor, rng))
    }

    /// Opens a share. `None` if it is not this entry's.
    pub fn open_share(&self, sealed: &SealedShare) -> Option<VaultShare> {
        let plain = open(&self.share, &sealed.0, labels::ANCHOR_SHARE, &self.anchor)?;
        plain.as_slice().try_into().ok().map(VaultShare)
    }

    /// Seals a serial for the relay to keep.
    pub fn seal_mark(&self, serial: u64, rng: &mut (impl CryptoRng + ?Sized)) -> Mark {
        let mut plain = [0u8; 16];
        plain[..8].copy_from_slice(&serial.to_be_bytes());
        Mark(seal(&self.mark, &plain, labels::ANCHOR_MARK, &self.anchor, rng))
    }

    /// Reads a serial. `None` if it is not this entry's.
    pub fn open_mark(&self, mark: &Mark) -> Option<u64> {
        let plain = open(&self.mark, &mark.0, labels::ANCHOR_MARK, &self.anchor)?;
        plain.first_chunk::<8>().map(|serial| u64::from_be_bytes(*serial))
    }
}

impl fmt::Debug for EntryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { anchor: _, proof: _, share: _, mark: _ } = self;
        f.write_str("EntryKeys(..)")
    }
}

impl Entry {
    /// An entry for a proof.
    pub fn seal(
        anchor: &AnchorId,
        proof: &Proof,
        share: &SealedShare,
        mark: &Mark,
        deed: &Deed,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let Deed { fires, destroys, group } = deed;
        let mut plain = Zeroizing::new([0u8; DEED_PLAIN]);
        // A token's place is never empty: nobody but the relay that opens it knows whether it is one.
        let token = fires.clone().unwrap_or_else(|| Token::generate(rng));
        plain[0] = if fires.is_some() { FIRES } else { 0 } | if *destroys { DESTROYS } else { 0 };
        plain[1..33].copy_from_slice(token.expose());
        plain[33..].copy_from_slice(group.expose());
        let deed: [u8; DEED] = seal(&proof.deed_key(), plain.as_ref(), labels::ANCHOR_DEED, anchor, rng);
        let mut salt = [0; SALT];
        rng.fill_bytes(&mut salt);
        let mut bytes = Vec::with_capacity(ENTRY_LENGTH);
        bytes.extend_from_slice(&proof.verifier(anchor));
        bytes.extend_from_slice(&share.0);
        bytes.extend_from_slice(&deed);
        bytes.extend_from_slice(&salt);
        bytes.extend_from_slice(&badge(group, &salt));
        bytes.extend_from_slice(&mark.0);
        let mut entry = [0; ENTRY_LENGTH];
        entry.copy_from_slice(&bytes);
        Self(entry)
    }

    /// ANC-05: what is to be done if the proof is this entry's. Works alike whether it is or not.
    pub fn open(&self, anchor: &AnchorId, proof: &Proof) -> Option<Deed> {
        let is_own = self.part::<VERIFIER>(0).ct_eq(&proof.verifier(anchor));
        let sealed = self.part::<DEED>(VERIFIER + SHARE_LENGTH);
        let plain = open(&proof.deed_key(), &sealed, labels::ANCHOR_DEED, anchor);
        let (flags, rest) = plain.as_ref().filter(|_| bool::from(is_own))?.split_first()?;
        let (token, group) = rest.split_first_chunk::<32>()?;
        Some(Deed {
            fires: (flags & FIRES != 0).then(|| Token::from_bytes(*token)),
            destroys: flags & DESTROYS != 0,
            group: GroupKey(group.try_into().ok()?),
        })
    }

    /// Whether it belongs to a group.
    pub fn is_of(&self, group: &GroupKey) -> bool {
        let at = VERIFIER + SHARE_LENGTH + DEED;
        let salt = self.part::<SALT>(at);
        self.part::<32>(at + SALT).ct_eq(&badge(group, &salt)).into()
    }

    /// The share, sealed.
    pub fn share(&self) -> SealedShare {
        SealedShare(self.part(VERIFIER))
    }

    /// The mark.
    pub fn mark(&self) -> Mark {
        Mark(self.part(ENTRY_LENGTH - MARK_LENGTH))
    }

    /// The same entry with another mark.
    #[must_use]
    pub fn with_mark(mut self, mark: &Mark) -> Self {
        if let Some(place) = self.0.last_chunk_mut::<MARK_LENGTH>() {
            *place = mark.0;
        }
        self
    }

    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut part = [0; N];
        part.copy_from_slice(&self.0[at..at + N]);
        part
    }
}

fn badge(group: &GroupKey, salt: &[u8; SALT]) -> [u8; 32] {
    labelled_hash(labels::ANCHOR_BADGE, &[&group.0, salt])
}

fn expand(ikm: &[u8], label: &[u8], more: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut info = label.to_vec();
    if !more.is_empty() {
        info.push(0);
        info.extend_from_slice(more);
    }
    let mut key = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "32 bytes are a valid length for HKDF-SHA256")]
    Hkdf::<Sha256>::new(None, ikm).expand(&info, key.as_mut()).expect("valid length");
    key
}

fn aad(label: &[u8], anchor: &AnchorId) -> Vec<u8> {
    [label, &[0], anchor.as_bytes()].concat()
}

fn seal<const N: usize>(
    key: &[u8; 32],
    plain: &[u8],
    label: &[u8],
    anchor: &AnchorId,
    rng: &mut (impl CryptoRng + ?Sized),
) -> [u8; N] {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let aad = aad(label, anchor);
    #[expect(clippy::expect_used, reason = "the cipher refuses only above 256 GiB")]
    let body = XChaCha20Poly1305::new(key.into())
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: &aad })
        .expect("short input");
    let mut out = [0; N];
    out[..NONCE].copy_from_slice(&nonce);
    out[NONCE..].copy_from_slice(&body);
    out
}

fn open(key: &[u8; 32], sealed: &[u8], label: &[u8], anchor: &AnchorId) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, body) = sealed.split_at_checked(NONCE)?;
    let aad = aad(label, anchor);
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad: &aad }).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests;
