//! Names: each a 32-byte hash or random string, each of its own type.
//!
//! # Security
//! `Debug` prints the type's name only: an id in a log links a user to a relay's records.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    capability::{Admin, AnchorOwner, PublicKey, TripwireOwner},
    labels,
};

/// SHA-256 over a label, a NUL byte and the parts, each part preceded by its length as 32 bits big-endian.
pub fn labelled_hash(label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(label);
    hash.update([0]);
    for part in parts {
        // A part longer than 4 GiB cannot occur: frames and blobs are bounded far below.
        hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "serde_bytes")] [u8; 32]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = 32;

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

id! {
    /// A mailbox: the hash of its admin key, so that creation is idempotent and needs no registry (CAP-01).
    MailboxId
}
id! {
    /// An envelope: the hash of its bytes, so that a retry is recognised (FRM-06).
    EnvelopeId
}
id! {
    /// A blob: the hash of all its bytes.
    BlobHash
}
id! {
    /// A tripwire: the hash of its owner's key.
    TripwireId
}
id! {
    /// An anchor: the hash of its owner's key.
    AnchorId
}
id! {
    /// State of a mailbox's running hash after some envelope.
    RunningHash
}

impl MailboxId {
    /// CAP-01: the id that belongs to an admin key.
    pub fn of_admin(key: &PublicKey<Admin>) -> Self {
        Self(labelled_hash(labels::MAILBOX_ID, &[key.as_bytes()]))
    }
}

impl TripwireId {
    /// The id that belongs to an owner's key.
    pub fn of_owner(key: &PublicKey<TripwireOwner>) -> Self {
        Self(labelled_hash(labels::TRIPWIRE_ID, &[key.as_bytes()]))
    }
}

impl AnchorId {
    /// The id that belongs to an owner's key.
    pub fn of_owner(key: &PublicKey<AnchorOwner>) -> Self {
        Self(labelled_hash(labels::ANCHOR_ID, &[key.as_bytes()]))
    }
}

impl EnvelopeId {
    /// The id of an envelope with these bytes.
    pub fn of(envelope: &[u8]) -> Self {
        Self(labelled_hash(labels::ENVELOPE_ID, &[envelope]))
    }
}

impl BlobHash {
    /// The name of a blob with these bytes.
    pub fn of(blob: &[u8]) -> Self {
        Self(labelled_hash(labels::BLOB_HASH, &[blob]))
    }
}

/// Computes a [`BlobHash`] from parts, for blobs that nobody holds in memory as a whole.
///
/// ```
/// use lapwing_wire::ids::{BlobHash, BlobHasher};
/// let mut hasher = BlobHasher::new(5);
/// hasher.update(b"he");
/// hasher.update(b"llo");
/// assert_eq!(hasher.finish(), BlobHash::of(b"hello"));
/// ```
pub struct BlobHasher(Sha256);

impl BlobHasher {
    /// For a blob of `total` bytes; the parts must add up to it, else the hash is that of no blob.
    pub fn new(total: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(labels::BLOB_HASH);
        hash.update([0]);
        hash.update(u32::try_from(total).unwrap_or(u32::MAX).to_be_bytes());
        Self(hash)
    }

    /// The next part.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// The name of a blob of all these parts.
    pub fn finish(self) -> BlobHash {
        BlobHash(self.0.finalize().into())
    }
}

impl std::fmt::Debug for BlobHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobHasher(..)")
    }
}

impl RunningHash {
    /// Where every mailbox starts.
    pub const START: Self = Self([0; 32]);

    /// FRM-07: the hash after envelope `id` was stored as number `seq`.
    #[must_use]
    pub fn next(&self, seq: u64, id: &EnvelopeId) -> Self {
        Self(labelled_hash(labels::RUNNING_HASH, &[&self.0, &seq.to_be_bytes(), id.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", MailboxId::from_bytes([0xab; 32])), "MailboxId(..)");
    }

    #[test]
    fn parts_cannot_be_shifted() {
        assert_ne!(labelled_hash(b"l", &[b"ab", b"c"]), labelled_hash(b"l", &[b"a", b"bc"]));
    }
}
