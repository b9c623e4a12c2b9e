//! Every domain-separation label of the encrypted messaging layer, versioned.
//!
//! A label never changes its meaning: a new format gets a new label.

/// A domain: what a signature or hash is about, so that bytes made for one purpose mean nothing for another.
///
/// Labels are compile-time constants; a label from outside cannot exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label(&'static str);

impl Label {
    /// A label. Callers keep theirs in this module or in their own list, never inline.
    ///
    /// The text is at most 64 bytes, which the constant evaluation of a longer one refuses.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        assert!(!text.is_empty() && text.len() <= Self::MAX_LEN, "a label has 1 to 64 bytes");
        Self(text)
    }

    /// Longest label, in bytes: its length is framed in one byte, and no label needs more.
    pub const MAX_LEN: usize = 64;

    /// The label's bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'static [u8] {
        self.0.as_bytes()
    }
}

/// What binds a direct message to its two identities and its context (SES-08).
pub const DIRECT_BINDING: Label = Label::new("lapwing/1 direct binding");

/// What binds a sender-key message to its author and its context (SES-08).
pub const GROUP_BINDING: Label = Label::new("lapwing/1 group binding");

/// The name under which libsignal knows a peer.
pub const ADDRESS: Label = Label::new("lapwing/1 session address");

/// The stable identifier inside a safety number (SES-12).
pub const SAFETY_NUMBER: Label = Label::new("lapwing/1 safety number");

/// First bytes of everything an identity key signs as a statement (SES-13).
pub const STATEMENT: Label = Label::new("lapwing/1 statement");

/// Associated data of an envelope, before the mailbox's id (ENV-03).
pub const ENVELOPE: Label = Label::new("lapwing/1 envelope");

/// Derives the key of a ticket's bundle from the envelope key (TKT-04).
pub const TICKET_KEY: Label = Label::new("lapwing/1 key of a ticket's bundle");

/// Associated data of a ticket's sealed bundle (TKT-04).
pub const TICKET_BUNDLE: Label = Label::new("lapwing/1 sealed bundle");

/// Associated data of a sealed alert (ALT-01).
pub const ALERT: Label = Label::new("lapwing/1 sealed alert");

/// What an alert's signer signs (ALT-01).
pub const ALERT_STATEMENT: Label = Label::new("lapwing/1 alert statement");

/// A group's id is the hash of its first commit (GRP-01).
pub const GROUP_ID: Label = Label::new("lapwing/1 group id");

/// A member's id is the hash of the identity (GRP-04).
pub const MEMBER_ID: Label = Label::new("lapwing/1 member id");

/// What the author of a commit signs (GRP-02).
pub const COMMIT: Label = Label::new("lapwing/1 signed commit");

/// Hash of a commit, by which the next one names it (GRP-03).
pub const COMMIT_HASH: Label = Label::new("lapwing/1 hash of a commit");

/// Hash of a roster (GRP-12).
pub const ROSTER: Label = Label::new("lapwing/1 roster");

/// Hash of an epoch's keys, by which commits name them (GRP-11).
pub const EPOCH_KEYS: Label = Label::new("lapwing/1 epoch keys");

/// What a leaving member signs (GRP-10).
pub const LEAVE: Label = Label::new("lapwing/1 leaving");

/// What an invited person signs (GRP-17).
pub const JOIN: Label = Label::new("lapwing/1 joining");

/// Hash of a group message, by which its author's next one names it (GRP-14).
pub const GROUP_MESSAGE: Label = Label::new("lapwing/1 group message");

/// Associated data of a chain that is too long for a welcome (GRP-18).
pub const SEALED_CHAIN: Label = Label::new("lapwing/1 sealed chain");

/// Tag of a refused renewal (RNW-06).
pub const RENEWAL_REFUSED: Label = Label::new("lapwing/1 renewal refused");

/// Derives what is evaluated at an anchor from a vault's root key (ANC-15).
pub const ANCHOR_INPUT: Label = Label::new("lapwing/1 input of an anchor");

/// Derives an anchored slot's key from the slot's own and the share (ANC-15).
pub const ANCHORED_SLOT: Label = Label::new("lapwing/1 anchored slot key");

/// Derives the two keys of a file from its attachment's key (ATT-01).
pub const FILE_KEYS: Label = Label::new("lapwing/1 keys of a file");

/// Associated data of a file's chunks (ATT-01).
pub const FILE_CHUNK: Label = Label::new("lapwing/1 chunk of a file");

/// All labels of this crate, for the uniqueness test and for other crates' uniqueness tests.
pub const ALL: &[Label] = &[
    DIRECT_BINDING,
    GROUP_BINDING,
    ADDRESS,
    SAFETY_NUMBER,
    STATEMENT,
    ENVELOPE,
    TICKET_KEY,
    TICKET_BUNDLE,
    ALERT,
    ALERT_STATEMENT,
    GROUP_ID,
    MEMBER_ID,
    COMMIT,
    COMMIT_HASH,
    ROSTER,
    EPOCH_KEYS,
    LEAVE,
    JOIN,
    GROUP_MESSAGE,
    SEALED_CHAIN,
    RENEWAL_REFUSED,
    ANCHOR_INPUT,
    ANCHORED_SLOT,
    FILE_KEYS,
    FILE_CHUNK,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_another_or_begins_another() {
        for (i, a) in ALL.iter().enumerate() {
            for (j, b) in ALL.iter().enumerate() {
                assert!(i == j || !a.as_bytes().starts_with(b.as_bytes()), "{a:?} begins with {b:?}");
            }
        }
    }
}
