//! Statements signed by an identity key.
//!
//! ```text
//! signed bytes = STATEMENT label | length of the label, 1 byte | label | statement
//! signature    = XEdDSA over Curve25519, 64 bytes, randomised
//! ```
//!
//! Invariants: a signature made under one label verifies under no other (SES-13); it can never be mistaken for a
//! pre-key's signature, because those cover bytes that begin with a key type (`05`, `08`), ours with a letter.
//!
//! Known gap: a signer can make many signatures of one statement. Compare statements, never signatures: two
//! different signed *statements* for one position are a proof, two signatures of one are not.
//!
//! Source: Signal, "The XEdDSA and VXEdDSA Signature Schemes", section 2; libsignal's implementation.

use std::fmt;

use libsignal_protocol::PrivateKey;
use rand_core::CryptoRng;

use crate::{
    identity::{IdentityKey, InvalidIdentityKey},
    labels::{self, Label},
};

/// Signature of one statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; Self::LENGTH]);

/// The signature does not belong to this key, label and statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct InvalidSignature;

impl Signature {
    /// Length in bytes.
    pub const LENGTH: usize = 64;

    /// A signature from outside, still to be verified.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// The signature's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// Verifies that the owner of `signer` signed `statement` under `label`.
    ///
    /// # Errors
    /// [`InvalidSignature`] if not.
    pub fn verify(
        &self,
        signer: &IdentityKey,
        label: Label,
        statement: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = signer.to_signal().map_err(|InvalidIdentityKey| InvalidSignature)?;
        let head = head(label);
        if key.verify_signature_for_multipart_message(&[&head, statement], &self.0) {
            Ok(())
        } else {
            Err(InvalidSignature)
        }
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// SES-13: signs `statement` under `label`. `None` only if libsignal refuses the key, which a stored identity
/// cannot cause.
pub(crate) fn sign<R: CryptoRng>(
    key: &PrivateKey,
    label: Label,
    statement: &[u8],
    rng: &mut R,
) -> Option<Signature> {
    let signature = key.calculate_signature_for_multipart_message(&[&head(label), statement], rng).ok()?;
    Some(Signature(signature.as_ref().try_into().ok()?))
}

fn head(label: Label) -> Vec<u8> {
    let label = label.as_bytes();
    let len = u8::try_from(label.len()).unwrap_or(u8::MAX);
    [labels::STATEMENT.as_bytes(), &[len], label].concat()
}
