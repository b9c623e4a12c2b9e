//! What is asked of an anchor.

use serde::{Deserialize, Serialize};

use crate::{
    anchor::{Entry, Mark, OuterKey, Proof, SealedShare, StageId},
    capability::{Access, AnchorOwner, PublicKey, Thaw},
    ids::AnchorId,
    limits::{ANCHOR_ENTRIES, MAX_VOICES},
    oprf::{Blinded, Evaluated, OprfKey},
};

/// One request about an anchor.
///
/// `create`, `set` and `remove` need the owner's proof; `stage`, `commit`, `abort` and `add` that the entry was proved on
/// this connection; `thaw` the proof of its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AnchorRequest {
    /// Makes an anchor, or another in its place. Needs an access proof too. Answer: `done`.
    Create(CreateAnchor),
    /// Replaces one entry. Answer: `done`.
    Set(SetEntry),
    /// Removes an anchor for ever. Answer: `done`, whether it was there or not.
    Remove(RemoveAnchor),
    /// Evaluates a blinded passphrase; counted as a failure until it is proved. Answer: `evaluated`.
    Evaluate(Evaluate),
    /// Proves an entry. Answer: `released`, after the entry's deed is done.
    Prove(ProveEntry),
    /// Lays a new outer key beside the old one. Refused with `conflict` while another is there. Answer: `done`.
    Stage(Stage),
    /// Puts the staged outer key in the old one's place. Answer: `done`, also again.
    Commit(Settle),
    /// Drops the staged outer key. Answer: `done`, also again.
    Abort(Settle),
    /// Puts an entry for another passphrase in some place; it inherits deed and group. Answer: `done`.
    Add(AddEntry),
    /// Raises a voice to let guesses go on. Answer: `done`, whether or not it was needed.
    Thaw(RaiseThaw),
}

/// A new anchor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAnchor {
    /// Its owner, who proved the key on this connection; the id is the hash of it.
    pub owner: PublicKey<AnchorOwner>,
    /// The access ticket, proved on this connection, whose quota is charged.
    pub access: Option<PublicKey<Access>>,
    /// Counted up by the owner each time it is made anew; a lower or equal one is refused unless all else is equal.
    pub serial: u64,
    /// Evaluates.
    pub key: OprfKey,
    /// The outer key of the vault's header.
    pub outer: OuterKey,
    /// Always [`ANCHOR_ENTRIES`], most of them random.
    pub entries: Vec<Entry>,
    /// Who may let guesses go on.
    pub thaw: ThawRule,
}

/// Who may let guesses at a frozen anchor go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThawRule {
    /// How many of the voices suffice.
    pub threshold: u8,
    /// Trusted contacts, at most [`MAX_VOICES`].
    pub voices: Vec<PublicKey<Thaw>>,
    /// A key on paper, which suffices alone.
    pub kit: Option<PublicKey<Thaw>>,
}

impl ThawRule {
    /// Whether it can be fulfilled: not more voices needed than there are, none twice, and somebody at all.
    pub fn is_acceptable(&self) -> bool {
        let Self { threshold, voices, kit } = self;
        let is_twice = voices.iter().enumerate().any(|(n, key)| voices.iter().skip(n + 1).any(|k| k == key));
        let is_possible = *threshold >= 1 && usize::from(*threshold) <= voices.len();
        voices.len() <= MAX_VOICES && !is_twice && (is_possible || (voices.is_empty() && kit.is_some()))
    }
}

impl CreateAnchor {
    /// Whether it has all entries and a rule that can be fulfilled.
    pub fn is_acceptable(&self) -> bool {
        self.entries.len() == ANCHOR_ENTRIES && self.thaw.is_acceptable()
    }
}

/// One entry by its owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetEntry {
    /// The owner, who proved the key on this connection.
    pub owner: PublicKey<AnchorOwner>,
    /// Its place, below [`ANCHOR_ENTRIES`].
    pub index: u8,
    /// What comes there.
    pub entry: Entry,
}

/// Names the anchor to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveAnchor {
    /// The owner, who proved the key on this connection.
    pub owner: PublicKey<AnchorOwner>,
}

/// A blinded passphrase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// At which anchor.
    pub anchor: AnchorId,
    /// The passphrase. The same again is the same evaluation and is counted once.
    pub blinded: Blinded,
}

/// A proof, for one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProveEntry {
    /// At which anchor.
    pub anchor: AnchorId,
    /// Which evaluation it belongs to: a right proof takes back the counting of this one only.
    pub blinded: Blinded,
    /// The proof.
    pub proof: Proof,
}

/// A new outer key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// At which anchor.
    pub anchor: AnchorId,
    /// The key.
    pub outer: OuterKey,
    /// The mark that the proved entry gets with the commit.
    pub mark: Mark,
}

/// Names a staged outer key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// At which anchor.
    pub anchor: AnchorId,
    /// The key's name.
    pub stage: StageId,
}

/// An entry for another passphrase, from a session of one that was proved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddEntry {
    /// At which anchor.
    pub anchor: AnchorId,
    /// The evaluation of the other passphrase, whose counting is taken back.
    pub blinded: Blinded,
    /// Its place, below [`ANCHOR_ENTRIES`].
    pub index: u8,
    /// The other passphrase's proof.
    pub proof: Proof,
    /// Its share.
    pub share: SealedShare,
    /// Its mark.
    pub mark: Mark,
}

/// A voice in thawing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaiseThaw {
    /// Which anchor.
    pub anchor: AnchorId,
    /// Whose voice; proved on this connection.
    pub key: PublicKey<Thaw>,
}

/// What a relay answers about an anchor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorAnswer {
    /// The evaluation.
    Evaluated(Evaluated),
    /// What belongs to the proved entry.
    Released(Release),
}

/// What a right proof gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The entry's share.
    pub share: SealedShare,
    /// The entry's mark.
    pub mark: Mark,
    /// The outer key.
    pub outer: OuterKey,
    /// The staged outer key; equal to `outer` if none is staged.
    pub staged: OuterKey,
}
