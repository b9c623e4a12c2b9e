//! Changes of anchors and what comes of them.

use lapwing_wire::{
    anchor::Proof,
    capability::{AnchorOwner, PublicKey},
    frame::{
        AddEntry, CreateAnchor, Evaluate, ProveEntry, RaiseThaw, Refusal, Release, SetEntry, Settle, Stage,
    },
    oprf::OprfKey,
};

use super::Charge;

/// One change of an anchor. Whoever asks has checked the rights.
#[derive(Clone, Debug)]
pub enum AnchorChange {
    /// Makes it, under its serial rule.
    Create {
        /// What it holds.
        make: Box<CreateAnchor>,
        /// Whose quota.
        charge: Charge,
    },
    /// Replaces an entry.
    Set(Box<SetEntry>),
    /// Removes it.
    Remove(PublicKey<AnchorOwner>),
    /// ANC-04: counts an evaluation.
    Evaluate(Evaluate),
    /// ANC-05, ANC-06: compares a proof and does what its entry says.
    Prove(ProveEntry),
    /// ANC-08: stages an outer key.
    Stage {
        /// Of the session.
        proof: Proof,
        /// What.
        stage: Box<Stage>,
    },
    /// Commits it.
    Commit {
        /// Of the session.
        proof: Proof,
        /// Which.
        settle: Settle,
    },
    /// Drops it.
    Abort {
        /// Of the session.
        proof: Proof,
        /// Which.
        settle: Settle,
    },
    /// ANC-07: an entry that inherits.
    Add {
        /// Of the session.
        proof: Proof,
        /// What.
        add: Box<AddEntry>,
    },
    /// ANC-10: a voice for going on.
    Thaw(RaiseThaw),
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum AnchorOutcome {
    /// It is so.
    Done,
    /// It is counted, and this key evaluates.
    Evaluate(OprfKey),
    /// The proof is right, and what its entry says is done.
    Released(Box<Release>),
    /// Not done. Other than [`Outcome::Refused`](super::Outcome::Refused), a failure may have been counted, and with
    /// [`Refusal::Busy`] a part of what it sets off is done: the rest is, when it is asked for again.
    Refused(Refusal),
}
