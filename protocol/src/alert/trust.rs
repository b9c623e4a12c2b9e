//! What makes somebody a trusted contact.
//!
//! ```text
//! "trust_request"                 { "trust": id 16, "relay": address, "mailbox": id 32, "read": seed 32, "key": 32,
//!                                   "seal": 32, "signer": 32 }                             owner to contact
//! "trust_accept" "trust_remove"   { "trust": id 16 }
//! "alert_ack"                     { "trust": id 16, "alert": id 16 }                         contact to owner
//! ```
//!
//! They travel inside the session of the two as kinds of [`Body`](crate::content::Body).

use std::fmt;

use lapwing_wire::{
    address::RelayAddress,
    capability::{AlertSigner, PublicKey, Read, SecretKey},
    codec::{self, DecodeError},
    ids::MailboxId,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::EnvelopeKey,
    seal::{RawSecret, symmetric_key},
    secret::SecretBytes,
};

/// Longest stored trust request in bytes: three keys, and a host name of 253.
pub const MAX_TRUST_REQUEST: usize = 1_024;

symmetric_key! {
    /// Seals the alerts for one trusted contact.
    AlertKey
}

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "serde_bytes")] [u8; 16]);

        impl $name {
            /// A new random id.
            pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// The id with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

id16! {
    /// One relation between an owner and a trusted contact.
    TrustId
}
id16! {
    /// One alert; alerts of one event to several contacts, or by several relays, share it.
    AlertId
}

/// Asks a peer to be a trusted contact: where its alerts will arrive, and what opens them.
///
/// # Security
/// Secret between the two: it opens every alert that will ever be sent to this contact.
pub struct TrustRequest {
    /// Names the relation.
    pub trust: TrustId,
    /// The tripwire's relay, where the owner made the alert mailbox.
    pub relay: RelayAddress,
    /// The alert mailbox.
    pub mailbox: MailboxId,
    /// The right to read it.
    pub read: SecretKey<Read>,
    /// Opens its envelopes.
    pub key: EnvelopeKey,
    /// Opens the alerts inside.
    pub seal: AlertKey,
    /// Signs the alerts.
    pub signer: PublicKey<AlertSigner>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawTrustRequest {
    trust: TrustId,
    relay: RelayAddress,
    mailbox: MailboxId,
    read: RawSecret,
    key: RawSecret,
    seal: RawSecret,
    signer: PublicKey<AlertSigner>,
}

impl TrustRequest {
    /// A second copy, for storing what is also sent.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_raw(self.raw())
    }

    /// All of it, to be sealed and stored.
    #[must_use]
    pub fn export(&self) -> SecretBytes {
        SecretBytes::new(codec::encode(&self.raw()))
    }

    /// Reads what [`TrustRequest::export`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn import(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, MAX_TRUST_REQUEST).map(Self::from_raw)
    }

    pub(crate) fn raw(&self) -> RawTrustRequest {
        let Self { trust, relay, mailbox, read, key, seal, signer } = self;
        RawTrustRequest {
            trust: *trust,
            relay: relay.clone(),
            mailbox: *mailbox,
            read: RawSecret::new(*read.expose_seed()),
            key: key.raw(),
            seal: seal.raw(),
            signer: *signer,
        }
    }

    pub(crate) fn from_raw(raw: RawTrustRequest) -> Self {
        let RawTrustRequest { trust, relay, mailbox, read, key, seal, signer } = raw;
        Self {
            trust,
            relay,
            mailbox,
            read: SecretKey::from_seed(*read.expose()),
            key: EnvelopeKey::from_raw(&key),
            seal: AlertKey::from_raw(&seal),
            signer,
        }
    }
}

impl fmt::Debug for TrustRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrustRequest(..)")
    }
}

/// Accepts or ends a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// Which.
    pub trust: TrustId,
}

/// A trusted contact has seen an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertAck {
    /// In which relation.
    pub trust: TrustId,
    /// Which alert.
    pub alert: AlertId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{testing, vectors};

    #[test]
    fn trust_requests_round_trip_and_fit_with_the_longest_host() {
        let relay = RelayAddress::new(*testing::relay().key(), &"h".repeat(253), 65_535).unwrap();
        for request in [vectors::trust_request(), TrustRequest { relay, ..vectors::trust_request() }] {
            let bytes = request.export();
            assert!(bytes.expose().len() <= MAX_TRUST_REQUEST);
            let back = TrustRequest::import(bytes.expose()).unwrap();
            assert_eq!(back.export().expose(), bytes.expose());
            assert_eq!(back.duplicate().export().expose(), bytes.expose());
        }
        assert_eq!(TrustRequest::import(b"").unwrap_err(), DecodeError::Malformed);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", vectors::trust_request()), "TrustRequest(..)");
        assert_eq!(format!("{:?}", AlertKey::from_bytes([7; 32])), "AlertKey(..)");
        assert_eq!(format!("{:?}", TrustId::from_bytes([7; 16])), "TrustId(..)");
    }
}
