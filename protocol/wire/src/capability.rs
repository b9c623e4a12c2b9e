//! Rights on one mailbox (or tripwire, or relay): Ed25519 keys by purpose, proved once per connection.
//!
//! ```text
//! signature = Ed25519( label 00 { length u32 BE | part }* )
//! prove     = parts: channel binding (32) | subject kind (1) | subject (32) | right (1)
//! ```
//! Invariants: a proof holds on one connection only (CAP-03: the binding comes from the TLS exporter); a key of one
//! purpose never signs for another (CAP-02: the right is in the transcript, and types keep the keys apart).
//! Known gap: whoever holds a write key can hand it on; revoking means closing the mailbox.

use std::{fmt, marker::PhantomData};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{ids::MailboxId, labels};

/// What a key is for. Sealed: the list is complete.
pub trait Purpose: sealed::Sealed {
    /// Name shown by `Debug`.
    const NAME: &'static str;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! purpose {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Purpose for $name {
            const NAME: &'static str = stringify!($name);
        }
    )+};
}

purpose! {
    /// Closes a mailbox, and appends to it beyond the ordinary quota.
    Admin,
    /// Reads and acknowledges.
    Read,
    /// Appends.
    Write,
    /// Creates mailboxes, blobs and tripwires on one relay.
    Access,
    /// Arms and disarms one tripwire.
    TripwireOwner,
    /// Makes, changes and removes one anchor.
    AnchorOwner,
    /// A trusted contact's voice in setting off one tripwire.
    Trigger,
    /// A trusted contact's voice, or the recovery kit's, in letting guesses at one anchor go on.
    Thaw,
    /// Is a relay, and names its next key.
    RelayIdentity,
    /// Signs the alerts for one trusted contact; no relay ever sees it.
    AlertSigner,
}

/// The secret half of a capability: a 32-byte Ed25519 seed, wiped when dropped.
pub struct SecretKey<P: Purpose> {
    seed: Zeroizing<[u8; 32]>,
    purpose: PhantomData<fn() -> P>,
}

impl<P: Purpose> SecretKey<P> {
    /// A new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self { seed, purpose: PhantomData }
    }

    /// The key with this seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed: Zeroizing::new(seed), purpose: PhantomData }
    }

    /// The seed, to be stored or handed on. Handing it on hands on the right.
    pub fn expose_seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half, which the relay keeps.
    pub fn public(&self) -> PublicKey<P> {
        let key = SigningKey::from_bytes(&self.seed);
        PublicKey { bytes: key.verifying_key().to_bytes(), purpose: PhantomData }
    }

    /// Signs the parts under a label.
    pub fn sign(&self, label: &[u8], parts: &[&[u8]]) -> Signature {
        let key = SigningKey::from_bytes(&self.seed);
        Signature(key.sign(&transcript(label, parts)).to_bytes())
    }
}

impl<P: Purpose> fmt::Debug for SecretKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed: _, purpose: _ } = self;
        write!(f, "SecretKey<{}>(..)", P::NAME)
    }
}

/// The public half of a capability.
pub struct PublicKey<P: Purpose> {
    bytes: [u8; 32],
    purpose: PhantomData<fn() -> P>,
}

impl<P: Purpose> PublicKey<P> {
    /// The key with these bytes; whether they are a key is found when a signature is checked.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { bytes, purpose: PhantomData }
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Checks a signature over the parts under a label, strictly (no small-order keys, one encoding only).
    ///
    /// # Errors
    /// [`BadSignature`] for every reason alike.
    pub fn verify(&self, label: &[u8], parts: &[&[u8]], signature: &Signature) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.bytes).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&transcript(label, parts), &signature).map_err(|_| BadSignature)
    }
}

impl<P: Purpose> Clone for PublicKey<P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Purpose> Copy for PublicKey<P> {}
impl<P: Purpose> PartialEq for PublicKey<P> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}
impl<P: Purpose> Eq for PublicKey<P> {}
impl<P: Purpose> std::hash::Hash for PublicKey<P> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}
impl<P: Purpose> fmt::Debug for PublicKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey<{}>(..)", P::NAME)
    }
}
impl<P: Purpose> Serialize for PublicKey<P> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::Bytes::new(&self.bytes).serialize(serializer)
    }
}
impl<'de, P: Purpose> Deserialize<'de> for PublicKey<P> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteArray::<32>::deserialize(deserializer)?;
        Ok(Self::from_bytes(bytes.into_array()))
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(#[serde(with = "serde_bytes")] [u8; 64]);

impl Signature {
    /// The signature with these bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// The signature does not belong to the key and the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct BadSignature;

/// What ties proofs to one connection: 32 bytes exported from its TLS session under [`labels::EXPORTER`].
#[derive(Clone, Copy)]
pub struct ChannelBinding([u8; 32]);

impl ChannelBinding {
    /// The binding with these exported bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The exported bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding(..)")
    }
}

/// A right on a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// See [`Read`].
    Read,
    /// See [`Write`].
    Write,
    /// See [`Admin`].
    Admin,
}

/// What a proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A right on a mailbox that exists.
    Mailbox(MailboxId, Right),
    /// An access ticket of this relay.
    Access(PublicKey<Access>),
    /// A tripwire's owner.
    Tripwire(PublicKey<TripwireOwner>),
    /// An anchor's owner.
    Anchor(PublicKey<AnchorOwner>),
    /// A voice in setting off a tripwire.
    Trigger(PublicKey<Trigger>),
    /// A voice in thawing an anchor.
    Thaw(PublicKey<Thaw>),
}

impl Subject {
    fn parts(&self) -> ([u8; 1], [u8; 32], [u8; 1]) {
        match self {
            Self::Mailbox(id, right) => {
                let right = match right {
                    Right::Read => 1,
                    Right::Write => 2,
                    Right::Admin => 3,
                };
                ([1], *id.as_bytes(), [right])
            }
            Self::Access(key) => ([2], *key.as_bytes(), [0]),
            Self::Tripwire(key) => ([3], *key.as_bytes(), [0]),
            Self::Anchor(key) => ([4], *key.as_bytes(), [0]),
            Self::Trigger(key) => ([5], *key.as_bytes(), [0]),
            Self::Thaw(key) => ([6], *key.as_bytes(), [0]),
        }
    }

    /// CAP-03: proves this subject on the connection with that binding.
    pub fn prove<P: Purpose>(&self, key: &SecretKey<P>, binding: &ChannelBinding) -> Signature {
        let (kind, id, right) = self.parts();
        key.sign(labels::PROVE, &[binding.as_bytes(), &kind, &id, &right])
    }

    /// Checks a proof with the key that the relay keeps for the subject.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn check<P: Purpose>(
        &self,
        key: &PublicKey<P>,
        binding: &ChannelBinding,
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        let (kind, id, right) = self.parts();
        key.verify(labels::PROVE, &[binding.as_bytes(), &kind, &id, &right], signature)
    }
}

fn transcript(label: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(label);
    out.push(0);
    for part in parts {
        // Parts are bounded by the frame size, far below 4 GiB.
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(byte: u8) -> ChannelBinding {
        ChannelBinding::from_bytes([byte; 32])
    }

    #[test]
    fn a_proof_holds_on_its_connection_for_its_right_only() {
        let key: SecretKey<Write> = SecretKey::from_seed([1; 32]);
        let mailbox = MailboxId::from_bytes([2; 32]);
        let subject = Subject::Mailbox(mailbox, Right::Write);
        let proof = subject.prove(&key, &binding(3));
        assert!(subject.check(&key.public(), &binding(3), &proof).is_ok());
        assert!(subject.check(&key.public(), &binding(4), &proof).is_err());
        let read = Subject::Mailbox(mailbox, Right::Read);
        assert!(read.check(&key.public(), &binding(3), &proof).is_err());
        let other = Subject::Mailbox(MailboxId::from_bytes([5; 32]), Right::Write);
        assert!(other.check(&key.public(), &binding(3), &proof).is_err());
    }

    #[test]
    fn small_order_keys_verify_nothing() {
        let key: PublicKey<Write> = PublicKey::from_bytes([0; 32]);
        assert!(key.verify(b"l", &[], &Signature::from_bytes([0; 64])).is_err());
    }

    #[test]
    fn debug_shows_no_byte() {
        let key: SecretKey<Read> = SecretKey::from_seed([0xab; 32]);
        assert_eq!(format!("{key:?} {:?}", key.public()), "SecretKey<Read>(..) PublicKey<Read>(..)");
    }
}
