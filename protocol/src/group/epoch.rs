//! What members hold of an epoch: its log, the rights to it, and the key of its envelopes.
//!
//! ```text
//! epoch keys = CBOR map { "e": epoch, "r": relay address, "m": log 32, "d": read seed 32, "w": write seed 32, "k": key 32 }
//! keys hash  = SHA-256( "lapwing/1 epoch keys" 00 | { length u32 BE | part }* )
//!              parts: epoch u64 BE, relay key 32, host, port u16 BE, log 32, read seed 32, write seed 32, key 32
//! ```
//!
//! Invariants: the commit that begins an epoch names the hash of its keys, so that whoever hands them out hands the
//! same to everybody, or is noticed (GRP-11). Known gap: a member can pass the keys on; removal and a new epoch are
//! the answer. The log's admin capability is no part of them: who made the log keeps it.

use std::fmt;

use lapwing_wire::{
    address::RelayAddress,
    capability::{Read, SecretKey, Write},
    codec,
    ids::{MailboxId, labelled_hash},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use super::{error::GroupError, id::KeysHash};
use crate::{
    envelope::{self, BadEnvelope, EnvelopeKey, TooLong},
    labels,
    seal::RawSecret,
    secret::SecretBytes,
};

/// Longest encoded epoch keys in bytes: four keys, and a host name of 253.
pub const MAX_EPOCH_KEYS: usize = 512;

/// What members hold of an epoch.
///
/// # Security
/// Secret among the members of the epoch.
pub struct EpochKeys {
    /// Which epoch.
    pub epoch: u64,
    /// The relay that holds the log.
    pub relay: RelayAddress,
    /// The log.
    pub mailbox: MailboxId,
    /// The right to read it.
    pub read: SecretKey<Read>,
    /// The right to append to it.
    pub write: SecretKey<Write>,
    /// Seals its envelopes.
    pub key: EnvelopeKey,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawEpochKeys {
    e: u64,
    r: RelayAddress,
    m: MailboxId,
    d: RawSecret,
    w: RawSecret,
    k: RawSecret,
}

impl EpochKeys {
    /// GRP-11: the hash by which a commit names these keys.
    #[must_use]
    pub fn hash(&self) -> KeysHash {
        let Self { epoch, relay, mailbox, read, write, key } = self;
        KeysHash::from_bytes(labelled_hash(
            labels::EPOCH_KEYS.as_bytes(),
            &[
                &epoch.to_be_bytes(),
                relay.key().as_bytes(),
                relay.host().as_bytes(),
                &relay.port().to_be_bytes(),
                mailbox.as_bytes(),
                read.expose_seed(),
                write.expose_seed(),
                key.expose(),
            ],
        ))
    }

    /// A second copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_raw(self.raw())
    }

    /// Seals an entry for the epoch's log.
    ///
    /// # Errors
    /// [`TooLong`] above [`MAX_CONTENT`](crate::envelope::MAX_CONTENT) bytes.
    pub fn seal(&self, entry: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Result<Vec<u8>, TooLong> {
        envelope::seal(&self.key, &self.mailbox, entry, rng)
    }

    /// Opens an envelope of the epoch's log.
    ///
    /// # Errors
    /// [`BadEnvelope`].
    pub fn open(&self, envelope: &[u8]) -> Result<SecretBytes, BadEnvelope> {
        envelope::open(&self.key, &self.mailbox, envelope)
    }

    /// All of them, to be sealed and stored.
    #[must_use]
    pub fn export(&self) -> SecretBytes {
        SecretBytes::new(codec::encode(&self.raw()))
    }

    /// Reads what [`EpochKeys::export`] wrote.
    ///
    /// # Errors
    /// [`GroupError::Malformed`] for other bytes.
    pub fn import(bytes: &[u8]) -> Result<Self, GroupError> {
        codec::decode(bytes, MAX_EPOCH_KEYS).map(Self::from_raw).map_err(|_| GroupError::Malformed)
    }

    pub(crate) fn raw(&self) -> RawEpochKeys {
        let Self { epoch, relay, mailbox, read, write, key } = self;
        RawEpochKeys {
            e: *epoch,
            r: relay.clone(),
            m: *mailbox,
            d: RawSecret::new(*read.expose_seed()),
            w: RawSecret::new(*write.expose_seed()),
            k: key.raw(),
        }
    }

    pub(crate) fn from_raw(raw: RawEpochKeys) -> Self {
        let RawEpochKeys { e, r, m, d, w, k } = raw;
        Self {
            epoch: e,
            relay: r,
            mailbox: m,
            read: SecretKey::from_seed(*d.expose()),
            write: SecretKey::from_seed(*w.expose()),
            key: EnvelopeKey::from_raw(&k),
        }
    }
}

impl fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch: _, relay: _, mailbox: _, read: _, write: _, key: _ } = self;
        f.write_str("EpochKeys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, epoch_keys};

    #[test]
    fn keys_round_trip_and_open_what_they_seal() {
        let keys = epoch_keys(3, 1);
        let back = EpochKeys::import(keys.export().expose()).unwrap();
        assert_eq!(back.hash(), keys.hash());
        let sealed = keys.seal(b"entry", &mut testing::rng(1)).unwrap();
        assert_eq!(back.duplicate().open(&sealed).unwrap().expose(), b"entry");
        assert_eq!(epoch_keys(3, 2).open(&sealed).unwrap_err(), BadEnvelope);
        assert_eq!(EpochKeys::import(b"\xa0").unwrap_err(), GroupError::Malformed);
        assert_eq!(format!("{keys:?}"), "EpochKeys(..)");
    }

    #[test]
    fn grp_11_the_hash_covers_every_part() {
        let base = || epoch_keys(3, 1);
        let other = || epoch_keys(4, 2);
        let moved = RelayAddress::new(*base().relay.key(), "example.net", 443).unwrap();
        let port = RelayAddress::new(*base().relay.key(), "example.org", 444).unwrap();
        let changed = [
            EpochKeys { epoch: 4, ..base() },
            EpochKeys { relay: moved, ..base() },
            EpochKeys { relay: port, ..base() },
            EpochKeys { mailbox: other().mailbox, ..base() },
            EpochKeys { read: other().read, ..base() },
            EpochKeys { write: other().write, ..base() },
            EpochKeys { key: other().key, ..base() },
        ];
        for keys in changed {
            assert_ne!(keys.hash(), base().hash());
        }
    }
}
