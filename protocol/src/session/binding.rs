//! What a plaintext is bound to (SES-08).
//!
//! ```text
//! framed plaintext = version 01 | binding 32 | body
//! direct binding   = SHA-256(DIRECT_BINDING | sender 32 | recipient 32 | context)
//! group binding    = SHA-256(GROUP_BINDING | author 32 | context)
//! ```
//!
//! The pinned libsignal authenticates identity keys but no addresses and no conversation. The binding is made and
//! checked inside encrypt and decrypt, so that no caller can forget it. It lies inside the authenticated
//! ciphertext: its purpose is to fail when honest parties disagree about where a message belongs.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::SessionError;
use crate::{identity::IdentityKey, labels, secret::SecretBytes};

/// Version of the frame. Another one is a newer format, refused as malformed.
const VERSION: u8 = 1;

/// Bytes before the body.
pub(super) const FRAME_LEN: usize = 1 + 32;

/// The conversation a message belongs to: bytes on which both sides agree, such as a purpose and a group's id.
#[derive(Clone, Copy)]
pub struct Context<'a>(&'a [u8]);

impl<'a> Context<'a> {
    /// A context. Any length; it is hashed, not sent.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context(..)")
    }
}

/// A binding: whom and what a plaintext was made for.
pub(super) struct Binding([u8; 32]);

impl Binding {
    pub(super) fn direct(sender: &IdentityKey, recipient: &IdentityKey, context: Context<'_>) -> Self {
        Self::hash(labels::DIRECT_BINDING, &[sender.as_bytes(), recipient.as_bytes()], context)
    }

    pub(super) fn group(author: &IdentityKey, context: Context<'_>) -> Self {
        Self::hash(labels::GROUP_BINDING, &[author.as_bytes()], context)
    }

    fn hash(label: labels::Label, parties: &[&[u8; 32]], context: Context<'_>) -> Self {
        let mut hash = Sha256::new_with_prefix(label.as_bytes());
        for party in parties {
            hash.update(party);
        }
        // The parties have fixed lengths and the context comes last: the encoding is unambiguous.
        hash.update(context.0);
        Self(hash.finalize().into())
    }

    /// The framed plaintext.
    pub(super) fn frame(&self, body: &[u8]) -> SecretBytes {
        let mut framed = Vec::with_capacity(FRAME_LEN + body.len());
        framed.push(VERSION);
        framed.extend_from_slice(&self.0);
        framed.extend_from_slice(body);
        SecretBytes::new(framed)
    }

    /// The body of a framed plaintext made for this binding.
    pub(super) fn open(&self, mut framed: SecretBytes) -> Result<SecretBytes, SessionError> {
        match framed.expose().split_first_chunk::<FRAME_LEN>() {
            Some((head, _)) if head[0] == VERSION => {
                if !bool::from(head[1..].ct_eq(&self.0)) {
                    return Err(SessionError::WrongContext);
                }
            }
            _ => return Err(SessionError::Malformed),
        }
        framed.drop_front(FRAME_LEN);
        Ok(framed)
    }
}
