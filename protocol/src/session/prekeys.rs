//! Pre-key bundles: what somebody needs to begin a session with us (SES-01, SES-05, SES-09).
//!
//! libsignal has no encoding for bundles; this is ours. CBOR map, at most [`MAX_BUNDLE`] bytes, unknown fields
//! ignored:
//!
//! ```text
//! "v"    1
//! "id"   identity key, 32 bytes
//! "reg"  registration id, 1..=16383
//! "set"  id of the pre-key set, 1..=16777215: the id of all its keys
//! "spk"  signed X25519 pre-key, 32 bytes        "sps"  its signature, 64 bytes
//! "kpk"  Kyber-1024 pre-key, 08 and 1568 bytes  "kps"  its signature, 64 bytes
//! "opk"  one-time X25519 pre-key, 32 bytes, or null
//! ```
//!
//! Signatures are libsignal's: XEdDSA by the identity over type byte and key. The ids and the one-time key are
//! under no signature: a bundle travels under a hash that a ticket or a signed commit carries.

use std::fmt;

use libsignal_protocol::{DeviceId, IdentityKey as SignalIdentity, PreKeyBundle, PublicKey};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::{error::SessionError, guard};
use crate::{codec, identity::IdentityKey};

/// Longest encoded bundle, in bytes: 1,865 are needed; the rest is room for fields of later versions.
pub const MAX_BUNDLE: usize = 4096;

const VERSION: u8 = 1;
/// Registration ids have 14 bits, as in Signal.
pub(super) const MAX_REGISTRATION_ID: u32 = 0x3FFF;
/// Pre-key ids have 24 bits, as in Signal.
pub(super) const MAX_SET_ID: u32 = 0x00FF_FFFF;

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u8,
    id: ByteArray<32>,
    reg: u32,
    set: u32,
    spk: ByteArray<32>,
    sps: ByteArray<64>,
    kpk: ByteBuf,
    kps: ByteArray<64>,
    opk: Option<ByteArray<32>>,
}

/// A bundle as decoded from outside: nothing is known of it but its size and shape.
///
/// [`BundleIn::verify`] is the only way to a [`Bundle`].
pub struct BundleIn(Wire);

/// A bundle whose keys are usable and whose signatures belong to its identity.
///
/// That the identity is the expected one is the caller's to establish: by the ticket's hash, or a pinned identity.
pub struct Bundle {
    identity: IdentityKey,
    wire: Wire,
}

impl BundleIn {
    /// Decodes a bundle.
    ///
    /// # Errors
    /// [`SessionError::Malformed`] for other bytes, other versions and more than [`MAX_BUNDLE`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SessionError> {
        let wire: Wire = codec::decode(bytes, MAX_BUNDLE).map_err(|_| SessionError::Malformed)?;
        let known = wire.v == VERSION
            && (1..=MAX_REGISTRATION_ID).contains(&wire.reg)
            && (1..=MAX_SET_ID).contains(&wire.set);
        if known { Ok(Self(wire)) } else { Err(SessionError::Malformed) }
    }

    /// Checks keys and signatures.
    ///
    /// # Errors
    /// [`SessionError::WeakKey`] for a low-order or non-canonical key, [`SessionError::BadSignature`] for a
    /// signature by another identity, [`SessionError::Malformed`] for a Kyber key of another type or length.
    pub fn verify(self) -> Result<Bundle, SessionError> {
        let Self(wire) = self;
        let identity = IdentityKey::from_bytes(*wire.id).map_err(|_| SessionError::WeakKey)?;
        let bundle = Bundle { identity, wire };
        let signed = usable(&bundle.wire.spk)?;
        if let Some(one_time) = &bundle.wire.opk {
            usable(one_time)?;
        }
        let kyber = guard::parse_kyber(&bundle.wire.kpk)?;
        let signer = identity.to_signal().map_err(|_| SessionError::WeakKey)?;
        let genuine = signer.verify_signature(&signed.serialize(), &*bundle.wire.sps)
            && signer.verify_signature(&kyber.serialize(), &*bundle.wire.kps);
        if genuine { Ok(bundle) } else { Err(SessionError::BadSignature) }
    }
}

impl Bundle {
    /// The identity that answers to this bundle.
    #[must_use]
    pub const fn identity(&self) -> &IdentityKey {
        &self.identity
    }

    /// The bundle's bytes.
    ///
    /// # Errors
    /// Never for a value of this type; the encoder's signature carries an error.
    pub fn encode(&self) -> Result<Vec<u8>, SessionError> {
        let mut bytes = codec::encode(&self.wire, MAX_BUNDLE).map_err(|_| SessionError::Malformed)?;
        Ok(std::mem::take(&mut *bytes))
    }

    /// The id of the pre-key set behind this bundle: what a handshake names, and [`retire_set`] takes.
    ///
    /// [`retire_set`]: super::LocalIdentity::retire_set
    #[must_use]
    pub const fn set(&self) -> u32 {
        self.wire.set
    }

    /// Puts together a bundle of our own.
    pub(super) fn own(identity: IdentityKey, parts: Parts) -> Self {
        let Parts { registration_id, set, signed, signed_signature, kyber, kyber_signature, one_time } =
            parts;
        let wire = Wire {
            v: VERSION,
            id: ByteArray::new(*identity.as_bytes()),
            reg: registration_id,
            set,
            spk: ByteArray::new(signed),
            sps: ByteArray::new(signed_signature),
            kpk: ByteBuf::from(kyber),
            kps: ByteArray::new(kyber_signature),
            opk: one_time.map(ByteArray::new),
        };
        Self { identity, wire }
    }

    /// The same bundle as libsignal's type.
    pub(super) fn to_signal(&self) -> Result<PreKeyBundle, SessionError> {
        let Wire { v: _, id: _, reg, set, spk, sps, kpk, kps, opk } = &self.wire;
        let one_time = opk.as_ref().map(|key| usable(key)).transpose()?;
        let identity = self.identity.to_signal().map_err(|_| SessionError::WeakKey)?;
        let device = DeviceId::new(1).map_err(|_| SessionError::Malformed)?;
        Ok(PreKeyBundle::new(
            *reg,
            device,
            one_time.map(|key| ((*set).into(), key)),
            (*set).into(),
            usable(spk)?,
            sps.to_vec(),
            (*set).into(),
            guard::parse_kyber(kpk)?,
            kps.to_vec(),
            SignalIdentity::new(identity),
        )?)
    }
}

impl fmt::Debug for BundleIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BundleIn(..)")
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundle(..)")
    }
}

/// The public parts of a pre-key set.
pub(super) struct Parts {
    pub(super) registration_id: u32,
    pub(super) set: u32,
    pub(super) signed: [u8; 32],
    pub(super) signed_signature: [u8; 64],
    pub(super) kyber: Vec<u8>,
    pub(super) kyber_signature: [u8; 64],
    pub(super) one_time: Option<[u8; 32]>,
}

/// SES-05 for a key of a bundle.
fn usable(bytes: &[u8; 32]) -> Result<PublicKey, SessionError> {
    IdentityKey::from_bytes(*bytes).and_then(IdentityKey::to_signal).map_err(|_| SessionError::WeakKey)
}
