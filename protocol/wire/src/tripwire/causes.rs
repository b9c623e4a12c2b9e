//! What sets a tripwire off besides its token: missed deadlines, a quorum of trusted contacts, a frozen anchor.
//!
//! ```text
//! causes    { "alerting": DEADLINE?, "destroying": DEADLINE?, "quorum": QUORUM?, "frozen": FROZEN? }
//! DEADLINE  { "after_s": u64, "actions": [ACTION] }                                 read by the relay
//! QUORUM    { "threshold": 1 to 8, "voices": [{ "key": 32, "share": share hash 32 }], "list": sealed list }
//! FROZEN    { "anchor": 32, "permission": signature 64, "actions": [ACTION] }       read by the relay
//! ```
//! Invariants: TRP-11 a missed deadline alerts, and only a second one, which its owner wanted, destroys; TRP-14 one voice
//! never destroys anything. Known gap: a relay that is seized reads the lists of deadlines and of a frozen anchor: to
//! which mailboxes they append, and what they destroy.

use std::{collections::BTreeSet, time::Duration};

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use super::{Action, ListKey, ListTooLong, SealedList};
use crate::{
    capability::{AnchorOwner, BadSignature, PublicKey, SecretKey, Signature, Trigger},
    codec,
    ids::{AnchorId, TripwireId},
    labels,
    limits::{MAX_ACTION_LIST, MAX_ACTIONS, MAX_DEADLINE, MAX_VOICES, MIN_DEADLINE, MIN_DESTROYING_VOICES},
    sharing::{self, BadSharing, Share, ShareHash},
};

/// What sets a tripwire off besides its token. Each happens once for each arming.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Causes {
    /// A check-in is missed: alerts only.
    pub alerting: Option<Deadline>,
    /// It stays missed: may destroy. Later than the first, and only together with it.
    pub destroying: Option<Deadline>,
    /// Trusted contacts together.
    pub quorum: Option<Quorum>,
    /// Too many wrong guesses at an anchor: alerts only.
    pub frozen: Option<Frozen>,
}

/// What is done when the owner's token did not come for some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// Seconds of the relay's running time since arming or since the owner's token came last.
    pub after_s: u64,
    /// What is done then.
    pub actions: Vec<Action>,
}

/// What is done when enough trusted contacts say so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// How many of the voices suffice.
    pub threshold: u8,
    /// The trusted contacts.
    pub voices: Vec<Voice>,
    /// Sealed under the key that their shares are parts of.
    pub list: SealedList,
}

/// One trusted contact of a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voice {
    /// Proved by whoever raises it.
    pub key: PublicKey<Trigger>,
    /// Of the share that it carries.
    pub share: ShareHash,
}

/// What is done when an anchor freezes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// Which anchor.
    pub anchor: AnchorId,
    /// By the anchor's owner, over anchor and tripwire.
    pub permission: Signature,
    /// What is done then.
    pub actions: Vec<Action>,
}

/// A tripwire that a relay does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCauses {
    /// A deadline is shorter than 10 minutes or longer than 400 days, or the second is not 10 minutes after the first.
    #[error("a deadline is too short, too long, or too near to the other")]
    Deadline,
    /// A list that may only alert would destroy, or the second deadline stands alone.
    #[error("only a second deadline after an alerting one, and two trusted contacts or more, may destroy")]
    Destroys,
    /// No voices, too many, twice the same, or more needed than there are.
    #[error("a quorum has 1 to 8 different voices, of which not more than all suffice")]
    Voices,
    /// A list is too long.
    #[error("the plan sets off more than one tripwire can hold")]
    Long,
}

impl From<ListTooLong> for BadCauses {
    fn from(_: ListTooLong) -> Self {
        Self::Long
    }
}

impl From<BadSharing> for BadCauses {
    fn from(_: BadSharing) -> Self {
        Self::Voices
    }
}

impl Causes {
    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        let Self { alerting, destroying, quorum, frozen } = self;
        alerting.is_none() && destroying.is_none() && quorum.is_none() && frozen.is_none()
    }

    /// TRP-11, TRP-14: checks what a relay can see of them.
    ///
    /// # Errors
    /// [`BadCauses`].
    pub fn check(&self) -> Result<(), BadCauses> {
        let Self { alerting, destroying, quorum, frozen } = self;
        if let Some(alerting) = alerting {
            check_span(alerting.span())?;
            only_alerts(&alerting.actions)?;
        }
        if let Some(destroying) = destroying {
            let first = alerting.as_ref().ok_or(BadCauses::Destroys)?.span();
            check_span(destroying.span())?;
            if destroying.span() < first.saturating_add(MIN_DEADLINE) {
                return Err(BadCauses::Deadline);
            }
            check_length(&destroying.actions)?;
        }
        if let Some(quorum) = quorum {
            quorum.check()?;
        }
        frozen.as_ref().map_or(Ok(()), |frozen| only_alerts(&frozen.actions))
    }
}

impl Deadline {
    /// How long the owner's token may stay away.
    pub const fn span(&self) -> Duration {
        Duration::from_secs(self.after_s)
    }
}

impl Quorum {
    /// Seals actions for a quorum whose key was shared before; each voice with its share.
    ///
    /// # Errors
    /// [`BadCauses`]; TRP-14: actions that destroy need two voices.
    pub fn seal(
        tripwire: &TripwireId,
        key: &ListKey,
        threshold: u8,
        voices: &[(PublicKey<Trigger>, Share)],
        actions: &[Action],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, BadCauses> {
        if threshold < MIN_DESTROYING_VOICES && actions.iter().any(Action::destroys) {
            return Err(BadCauses::Destroys);
        }
        let list = SealedList::seal(actions, tripwire, key, rng)?;
        let voices = voices.iter().map(|(key, share)| Voice { key: *key, share: share.hash(tripwire) });
        let quorum = Self { threshold, voices: voices.collect(), list };
        quorum.check().map(|()| quorum)
    }

    /// What the list says, with the shares of enough voices. `None` if they are not of this list.
    pub fn open(&self, tripwire: &TripwireId, shares: &[&Share]) -> Option<Vec<Action>> {
        open_list(&self.list, self.threshold, tripwire, shares)
    }

    fn check(&self) -> Result<(), BadCauses> {
        let Self { threshold, voices, list } = self;
        let keys: BTreeSet<_> = voices.iter().map(|voice| *voice.key.as_bytes()).collect();
        let hashes: Vec<_> = voices.iter().map(|voice| voice.share).collect();
        let is_twice =
            hashes.iter().enumerate().any(|(n, hash)| hashes.iter().skip(n + 1).any(|h| h == hash));
        if *threshold < 1
            || usize::from(*threshold) > voices.len()
            || voices.len() > MAX_VOICES
            || keys.len() != voices.len()
            || is_twice
        {
            return Err(BadCauses::Voices);
        }
        if list.is_acceptable() { Ok(()) } else { Err(BadCauses::Long) }
    }
}

/// TRP-14: what a quorum's list says, with the shares of enough voices; without what destroys if one voice suffices.
pub fn open_list(
    list: &SealedList,
    threshold: u8,
    tripwire: &TripwireId,
    shares: &[&Share],
) -> Option<Vec<Action>> {
    let key = sharing::combine(shares, usize::from(threshold)).ok()?;
    let mut actions = list.open(tripwire, &key)?;
    if threshold < MIN_DESTROYING_VOICES {
        actions.retain(|action| !action.destroys());
    }
    Some(actions)
}

impl Frozen {
    /// What a tripwire does when an anchor freezes.
    pub fn new(owner: &SecretKey<AnchorOwner>, tripwire: &TripwireId, actions: Vec<Action>) -> Self {
        let anchor = AnchorId::of_owner(&owner.public());
        let permission = owner.sign(labels::ANCHOR_FROZEN, &[anchor.as_bytes(), tripwire.as_bytes()]);
        Self { anchor, permission, actions }
    }

    /// Checks that the anchor's owner wants it.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn check(
        owner: &PublicKey<AnchorOwner>,
        tripwire: &TripwireId,
        permission: &Signature,
    ) -> Result<(), BadSignature> {
        let anchor = AnchorId::of_owner(owner);
        owner.verify(labels::ANCHOR_FROZEN, &[anchor.as_bytes(), tripwire.as_bytes()], permission)
    }
}

fn check_span(span: Duration) -> Result<(), BadCauses> {
    if (MIN_DEADLINE..=MAX_DEADLINE).contains(&span) { Ok(()) } else { Err(BadCauses::Deadline) }
}

fn only_alerts(actions: &[Action]) -> Result<(), BadCauses> {
    if actions.iter().any(Action::destroys) {
        return Err(BadCauses::Destroys);
    }
    check_length(actions)
}

fn check_length(actions: &[Action]) -> Result<(), BadCauses> {
    if actions.len() > MAX_ACTIONS || codec::encode(&actions).len() > MAX_ACTION_LIST {
        return Err(BadCauses::Long);
    }
    Ok(())
}
