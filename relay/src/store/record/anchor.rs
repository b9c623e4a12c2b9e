//! Anchors as they are kept.
//!
//! What must be forgotten lies in the bulk space, sealed under a key of its version in the anchor's slot; every change is a
//! new version, and what leads to the older ones is overwritten (`keys`). The slots of anchors lie in a file of their own;
//! one that is free again gets new keys, so versions may begin anew.

use lapwing_wire::{
    anchor::{Entry, Mark, OuterKey, Proof},
    capability::{Access, AnchorOwner, PublicKey, Thaw},
    frame::ThawRule,
    ids::AnchorId,
    oprf::{Blinded, OprfKey},
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

use super::{Day, Slot};

/// State of anchors: `x` anchor 32.
pub(crate) const ANCHORS: u8 = b'x';
/// Secrets of anchors: `k` anchor 32 | version u64.
const SECRETS: u8 = b'k';
/// How many slots of anchors were used.
pub(crate) const ANCHOR_SLOTS: &[u8] = b"y";
/// How many of them are free again.
pub(crate) const FREE_ANCHOR_SLOTS: &[u8] = b"yn";
/// A free one: `yf` place u32.
const FREE: &[u8] = b"yf";
/// Of an anchor: `yt` anchor 32.
const UNTOLD: &[u8] = b"yt";

/// What everybody who has the store's files may read of an anchor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Anchor {
    pub(crate) owner: PublicKey<AnchorOwner>,
    pub(crate) serial: u64,
    #[serde(with = "serde_bytes")]
    pub(crate) digest: [u8; 32],
    pub(crate) slot: Slot,
    /// Of the secrets.
    pub(crate) version: u64,
    /// Evaluations that were not proved and not forgotten.
    pub(crate) failures: u8,
    /// Since when one of them a day is forgotten.
    pub(crate) since: Day,
    pub(crate) is_frozen: bool,
    pub(crate) evaluations: Vec<Evaluation>,
    pub(crate) thaw: ThawRule,
    /// Who wants it thawed.
    pub(crate) raised: Vec<PublicKey<Thaw>>,
    pub(crate) charged: u64,
    pub(crate) access: Option<PublicKey<Access>>,
}

/// An evaluation that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AnyEvaluation")]
pub(crate) struct Evaluation {
    /// Hash of the blinded element.
    #[serde(with = "serde_bytes")]
    pub(crate) id: [u8; 32],
    /// What was shown for it: there is one try.
    pub(crate) shown: Option<Shown>,
    /// Whether it is among the failures.
    pub(crate) is_counted: bool,
}

/// ANC-05: tells whether the same proof comes again for the same evaluation, and nothing else.
///
/// # Security
/// It lies in the open, and a proof is the same whenever a passphrase is. So the blinded element goes into the hash, random and kept
/// nowhere: who has the relay's folder and the vault cannot try passphrases at it, nor tell whether two evaluations were of one
/// passphrase, before a destruction and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Shown(#[serde(with = "serde_bytes")] [u8; 32]);

impl Shown {
    /// No proof is like it.
    const LOST: Self = Self([0; 32]);

    pub(crate) fn of(blinded: &Blinded, proof: &Proof) -> Self {
        let hash = Sha256::new().chain_update(blinded.as_bytes()).chain_update(proof.expose());
        Self(hash.finalize().into())
    }
}

/// An evaluation as any format has it.
#[derive(Deserialize)]
struct AnyEvaluation {
    #[serde(with = "serde_bytes")]
    id: [u8; 32],
    #[serde(default)]
    shown: Option<Shown>,
    /// Formats before 9 had the hash of the proof alone. All that is taken of it is that the try was made.
    #[serde(default)]
    proof: Option<IgnoredAny>,
    is_counted: bool,
}

impl From<AnyEvaluation> for Evaluation {
    fn from(found: AnyEvaluation) -> Self {
        let AnyEvaluation { id, shown, proof, is_counted } = found;
        Self { id, shown: shown.or(proof.map(|_| Shown::LOST)), is_counted }
    }
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Secrets {
    pub(crate) key: OprfKey,
    pub(crate) outer: OuterKey,
    pub(crate) staged: Option<Staged>,
    pub(crate) entries: Vec<Entry>,
}

/// An outer key that is to come.
#[derive(Serialize, Deserialize)]
pub(crate) struct Staged {
    pub(crate) outer: OuterKey,
    pub(crate) mark: Mark,
    /// The entry that staged it, with the mark that it is to get; random, like the mark, once the entry is gone.
    pub(crate) by: Entry,
}

/// The key of an anchor's state.
pub(crate) fn anchor_key(id: &AnchorId) -> Vec<u8> {
    [&[ANCHORS][..], id.as_bytes()].concat()
}

/// The key of an anchor's secrets.
pub(crate) fn secrets_key(id: &AnchorId, version: u64) -> Vec<u8> {
    [&[SECRETS][..], id.as_bytes(), &version.to_be_bytes()].concat()
}

/// What says that an anchor froze and not every tripwire that is to tell it has.
pub(crate) fn untold_key(id: &AnchorId) -> Vec<u8> {
    [UNTOLD, id.as_bytes()].concat()
}

/// The key of a free slot of an anchor.
pub(crate) fn free_anchor_key(place: u32) -> Vec<u8> {
    [FREE, &place.to_be_bytes()].concat()
}

/// First and last possible key of free slots of anchors.
pub(crate) fn free_anchor_keys() -> (Vec<u8>, Vec<u8>) {
    (free_anchor_key(0), free_anchor_key(u32::MAX))
}

/// The version in the key of secrets; `None` for the key of anything else in the bulk space.
pub(crate) fn version_in(key: &[u8]) -> Option<u64> {
    let version = key.strip_prefix(&[SECRETS])?.get(32..)?;
    version.try_into().ok().map(u64::from_be_bytes)
}

/// ANC-12: whether a record belongs to an anchor and is in no backup. True for the kinds `x`, `y` and `o` of the state space
/// and `k` of the bulk space; the keys of anchors lie in a file of their own, [`ANCHOR_KEYS`](super::super::ANCHOR_KEYS),
/// which is in no backup either. A tripwire that tells of an anchor loses that link with it and is armed anew by its owner.
pub fn is_of_an_anchor(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(ANCHORS | SECRETS | b'y' | b'o')))
}
