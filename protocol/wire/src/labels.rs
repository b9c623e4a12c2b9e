//! Every domain-separation label that relay and client share. Labels end at a NUL byte when they enter a
//! transcript, so none is a prefix of another there.

/// Channel binding exported from the TLS session (RFC 8446 section 7.5).
pub const EXPORTER: &[u8] = b"lapwing/1 channel binding";
/// A mailbox's id is the hash of its admin key.
pub const MAILBOX_ID: &[u8] = b"lapwing/1 mailbox id";
/// A tripwire's id is the hash of its owner key.
pub const TRIPWIRE_ID: &[u8] = b"lapwing/1 tripwire id";
/// An envelope's id is the hash of its bytes.
pub const ENVELOPE_ID: &[u8] = b"lapwing/1 envelope id";
/// A blob's name is the hash of its bytes.
pub const BLOB_HASH: &[u8] = b"lapwing/1 blob";
/// One step of a mailbox's running hash.
pub const RUNNING_HASH: &[u8] = b"lapwing/1 running hash";
/// Proof of a right on this connection.
pub const PROVE: &[u8] = b"lapwing/1 prove";
/// Creation of a mailbox on this connection.
pub const CREATE: &[u8] = b"lapwing/1 create";
/// Permission that a tripwire's action may append one envelope.
pub const ACTION_APPEND: &[u8] = b"lapwing/1 action append";
/// Permission that a tripwire's action may turn one mailbox into a sink.
pub const ACTION_SINK: &[u8] = b"lapwing/1 action sink";
/// Where a token's records are found.
pub const TOKEN_LOOKUP: &[u8] = b"lapwing/1 token lookup";
/// The key that seals a token's record.
pub const TOKEN_RECORD: &[u8] = b"lapwing/1 token record";
/// Associated data of a sealed action list.
pub const ACTION_LIST: &[u8] = b"lapwing/1 action list";
/// Associated data of the status that only a tripwire's owner reads.
pub const TOKEN_STATUS: &[u8] = b"lapwing/1 token status";
/// Permission that a tripwire's action may put random bytes in the place of an anchor's entries.
pub const ACTION_REFRESH: &[u8] = b"lapwing/1 action refresh";
/// What a relay compares a trusted contact's share with.
pub const SHARE_HASH: &[u8] = b"lapwing/1 share hash";
/// An anchor's id is the hash of its owner key.
pub const ANCHOR_ID: &[u8] = b"lapwing/1 anchor id";
/// What a relay compares a proof with.
pub const ANCHOR_VERIFIER: &[u8] = b"lapwing/1 anchor verifier";
/// The key that seals what the relay does for one entry, and its associated data.
pub const ANCHOR_DEED: &[u8] = b"lapwing/1 anchor deed";
/// By which a relay that has a group's key finds the entries of the group.
pub const ANCHOR_BADGE: &[u8] = b"lapwing/1 anchor badge";
/// An outer key's name.
pub const ANCHOR_STAGE: &[u8] = b"lapwing/1 anchor stage";
/// Permission that a tripwire tells when an anchor freezes.
pub const ANCHOR_FROZEN: &[u8] = b"lapwing/1 anchor frozen";
/// Derives an entry's proof from the evaluated passphrase.
pub const ANCHOR_PROOF: &[u8] = b"lapwing/1 anchor proof";
/// Derives the key of an entry's share from the evaluated passphrase, and is its associated data.
pub const ANCHOR_SHARE: &[u8] = b"lapwing/1 anchor share";
/// Derives the key of an entry's serial from the evaluated passphrase, and is its associated data.
pub const ANCHOR_MARK: &[u8] = b"lapwing/1 anchor mark";
/// Checksum of text made of bytes.
pub const ARMOR: &[u8] = b"lapwing/1 armor";
/// A relay is named by the hash of its public key (RFC 7250 SubjectPublicKeyInfo).
pub const RELAY_KEY: &[u8] = b"lapwing/1 relay key";
/// A relay's word for its next key.
pub const SUCCESSION: &[u8] = b"lapwing/1 succession";

/// All of the above, for the uniqueness test here and in crates that add their own.
pub const ALL: &[&[u8]] = &[
    EXPORTER,
    MAILBOX_ID,
    TRIPWIRE_ID,
    ENVELOPE_ID,
    BLOB_HASH,
    RUNNING_HASH,
    PROVE,
    CREATE,
    ACTION_APPEND,
    ACTION_SINK,
    TOKEN_LOOKUP,
    TOKEN_RECORD,
    ACTION_LIST,
    TOKEN_STATUS,
    ACTION_REFRESH,
    SHARE_HASH,
    ANCHOR_ID,
    ANCHOR_VERIFIER,
    ANCHOR_DEED,
    ANCHOR_BADGE,
    ANCHOR_STAGE,
    ANCHOR_FROZEN,
    ANCHOR_PROOF,
    ANCHOR_SHARE,
    ANCHOR_MARK,
    ARMOR,
    RELAY_KEY,
    SUCCESSION,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn labels_are_unique_and_hold_no_nul() {
        let set: BTreeSet<_> = super::ALL.iter().collect();
        assert_eq!(set.len(), super::ALL.len());
        assert!(super::ALL.iter().all(|label| !label.contains(&0)));
    }
}
