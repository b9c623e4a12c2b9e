//! What lets trusted contacts set off, together and from afar, what an owner prepared.
//!
//! ```text
//! "voices"   { "trust": id 16, "number": u64, "plans": [ PLAN ] }                            owner to contact
//! PLAN       { "needed": 1 to 8, "of": needed to 8, "voices": [ VOICE ] }      at least one; 64 in all plans together
//! VOICE      { "relay": address, "tripwire": id 32, "key": seed 32, "share": 33 }
//! ```
//!
//! It travels inside the session of the two as a kind of [`Body`](crate::content::Body). A voice is the key that its holder
//! proves to the relay, and his share of the key of the list that the tripwire holds for its quorum (TRP-13, TRP-16).
//!
//! Invariants: bounded both ways (ALT-06); each is all that the contact holds through this trust, and takes the place of
//! the one before, which has a lower number (ALT-07).
//! Known gap: whoever has the voices of enough contacts is believed; they can be handed on, and only the owner ends them.

use std::fmt;

use lapwing_wire::{
    address::RelayAddress,
    capability::{SecretKey, Trigger},
    codec::{self, DecodeError},
    ids::TripwireId,
    limits::MAX_VOICES,
    sharing::Share,
};
use serde::{Deserialize, Serialize};

use super::TrustId;
use crate::{content::ContentError, seal::RawSecret, secret::SecretBytes};

/// Most voices that one contact holds through one trust: with the longest names of relays they fit one message.
pub const MAX_HELD_VOICES: usize = 64;

/// Longest stored [`Voices`] in bytes: the largest number of voices, each at its bound.
pub const MAX_VOICES_LENGTH: usize = 36 << 10;

/// All that a trusted contact can set off for an owner.
///
/// # Security
/// Secret between the two: with the voices of enough contacts it destroys what the owner prepared to be destroyed.
pub struct Voices {
    /// The relation.
    pub trust: TrustId,
    /// ALT-07: higher than that of all before it.
    pub number: u64,
    /// What each of the owner's plans needs; empty when there is none any more.
    pub plans: Vec<PlanVoices>,
}

/// A contact's voices for one plan: one at each relay that keeps a part of it.
pub struct PlanVoices {
    /// How many contacts suffice.
    pub needed: u8,
    /// How many there are.
    pub of: u8,
    /// One for each relay.
    pub voices: Vec<HeldVoice>,
}

/// A contact's voice at one relay.
pub struct HeldVoice {
    /// Where it is raised.
    pub relay: RelayAddress,
    /// For what.
    pub tripwire: TripwireId,
    /// Proved by whoever raises it.
    pub key: SecretKey<Trigger>,
    /// Its part of the list's key.
    pub share: Share,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawVoices {
    trust: TrustId,
    number: u64,
    plans: Vec<RawPlan>,
}

#[derive(Serialize, Deserialize)]
struct RawPlan {
    needed: u8,
    of: u8,
    voices: Vec<RawVoice>,
}

#[derive(Serialize, Deserialize)]
struct RawVoice {
    relay: RelayAddress,
    tripwire: TripwireId,
    key: RawSecret,
    share: Share,
}

impl Voices {
    /// All of it, to be sealed and stored.
    #[must_use]
    pub fn export(&self) -> SecretBytes {
        SecretBytes::new(codec::encode(&self.as_raw()))
    }

    /// Reads what [`Voices::export`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn import(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw = codec::decode(bytes, MAX_VOICES_LENGTH)?;
        Self::from_raw(raw).map_err(|_| DecodeError::Malformed)
    }

    /// ALT-06.
    fn is_bounded(&self) -> bool {
        let all: usize = self.plans.iter().map(|plan| plan.voices.len()).sum();
        all <= MAX_HELD_VOICES
            && self.plans.iter().all(|PlanVoices { needed, of, voices }| {
                (1..=*of).contains(needed) && usize::from(*of) <= MAX_VOICES && !voices.is_empty()
            })
    }

    pub(crate) fn raw(&self) -> Result<RawVoices, ContentError> {
        if self.is_bounded() { Ok(self.as_raw()) } else { Err(ContentError::TooLong) }
    }

    fn as_raw(&self) -> RawVoices {
        let Self { trust, number, plans } = self;
        let voice = |HeldVoice { relay, tripwire, key, share }: &HeldVoice| RawVoice {
            relay: relay.clone(),
            tripwire: *tripwire,
            key: RawSecret::new(*key.expose_seed()),
            share: share.clone(),
        };
        let plan = |PlanVoices { needed, of, voices }: &PlanVoices| RawPlan {
            needed: *needed,
            of: *of,
            voices: voices.iter().map(voice).collect(),
        };
        RawVoices { trust: *trust, number: *number, plans: plans.iter().map(plan).collect() }
    }

    pub(crate) fn from_raw(raw: RawVoices) -> Result<Self, ContentError> {
        let RawVoices { trust, number, plans } = raw;
        let voice = |RawVoice { relay, tripwire, key, share }: RawVoice| HeldVoice {
            relay,
            tripwire,
            key: SecretKey::from_seed(*key.expose()),
            share,
        };
        let plan = |RawPlan { needed, of, voices }: RawPlan| PlanVoices {
            needed,
            of,
            voices: voices.into_iter().map(voice).collect(),
        };
        let voices = Self { trust, number, plans: plans.into_iter().map(plan).collect() };
        if voices.is_bounded() { Ok(voices) } else { Err(ContentError::Malformed) }
    }
}

impl fmt::Debug for Voices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Voices(..)")
    }
}

impl fmt::Debug for PlanVoices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlanVoices(..)")
    }
}

impl fmt::Debug for HeldVoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldVoice(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        content::{Body, Content, MessageId},
        testing::{self, NOW},
        vectors,
    };

    fn voice(relay: &RelayAddress) -> HeldVoice {
        HeldVoice {
            relay: relay.clone(),
            tripwire: TripwireId::from_bytes([0xff; 32]),
            key: SecretKey::from_seed([0xff; 32]),
            share: Share::from_bytes([0xff; 33]),
        }
    }

    fn plan(needed: u8, of: u8, voices: usize) -> PlanVoices {
        let relay = RelayAddress::new(*testing::relay().key(), &"h".repeat(253), 65_535).unwrap();
        PlanVoices { needed, of, voices: (0..voices).map(|_| voice(&relay)).collect() }
    }

    fn all(plans: Vec<PlanVoices>) -> Voices {
        Voices { trust: TrustId::from_bytes([1; 16]), number: u64::MAX, plans }
    }

    fn content(voices: Voices) -> Content {
        Content { id: MessageId::from_bytes([7; 16]), sent: NOW, body: Body::Voices(voices) }
    }

    #[test]
    fn alt_06_as_many_voices_as_one_contact_holds_fit_one_message_and_no_more() {
        let largest = || all((0..8).map(|_| plan(8, 8, 8)).collect());
        let bytes = content(largest()).encode().unwrap();
        let Body::Voices(back) = Content::decode(bytes.expose()).unwrap().body else {
            panic!("another kind")
        };
        assert_eq!(back.export().expose(), largest().export().expose());
        assert!(largest().export().expose().len() <= MAX_VOICES_LENGTH);
        assert_eq!(Voices::import(largest().export().expose()).unwrap().number, u64::MAX);
        for bad in [
            vec![plan(8, 8, 65)],
            (0..9).map(|_| plan(8, 8, 8)).collect(),
            vec![plan(0, 1, 1)],
            vec![plan(3, 2, 1)],
            vec![plan(2, 9, 1)],
            vec![plan(1, 1, 0)],
        ] {
            let bad = all(bad);
            let bytes = bad.export();
            assert!(Voices::import(bytes.expose()).is_err());
            assert_eq!(content(bad).encode().unwrap_err(), ContentError::TooLong);
        }
        assert!(content(all(Vec::new())).encode().is_ok(), "none any more");
    }

    #[test]
    fn debug_shows_nothing() {
        let voices = vectors::voices();
        let (plan, one) = (&voices.plans[0], &voices.plans[0].voices[0]);
        assert_eq!(format!("{voices:?} {plan:?} {one:?}"), "Voices(..) PlanVoices(..) HeldVoice(..)");
    }
}
