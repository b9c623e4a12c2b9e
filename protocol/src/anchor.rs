//! The client's side of an anchor: what an unlock sends, and what it makes of the answers.
//!
//! ```text
//! input       HKDF-SHA256(no salt, ikm = the vault's root key, info = "lapwing/1 input of an anchor", 32 bytes)
//! slot key    HKDF-SHA256(salt = share, ikm = the slot's own key, info = "lapwing/1 anchored slot key", 32 bytes)
//! ```
//! One unlock, each step a request of [`AnchorRequest`]:
//!
//! 1. [`Attempt::begin`] blinds the input: `evaluate`.
//! 2. [`Attempt::prove`] makes the entry's keys of the answer: `prove`.
//! 3. [`Shown::open`] opens share, serial and outer keys. [`Opened::settle`] ends a stage that a crash left, by the outer key
//!    under which the newest complete copy of the header lies.
//! 4. [`Shown::stage`] names the next outer key: `stage`; the header is written under it; `commit`.
//!
//! Invariants: ANC-13 a relay that shows an older serial than the vault remembers was rolled back; ANC-15 the relay cannot
//! guess passphrases from what it sees: the input depends on the vault's salt, through its root key. Known gap: who has
//! the vault's file and the relay's state guesses as fast as the derivation lets him.

use std::fmt;

use hkdf::Hkdf;
use lapwing_wire::{
    anchor::{Deed, Entry, EntryKeys, OuterKey, StageId, VaultShare},
    capability::{Access, AnchorOwner, PublicKey, SecretKey},
    frame::{AddEntry, AnchorRequest, CreateAnchor, Evaluate, ProveEntry, Release, Settle, Stage, ThawRule},
    ids::AnchorId,
    limits::ANCHOR_ENTRIES,
    oprf::{Blinded, Blinding, Evaluated, NotEvaluable, OprfKey},
};
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::labels;

/// An anchor's answer that opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// The relay answered with what is no evaluation. It is broken, or lies.
    #[error("the relay's answer is not one to this question")]
    Malformed,
    /// The relay released what this passphrase does not open. It is broken, or lies.
    #[error("the relay released what belongs to somebody else")]
    NotOurs,
    /// ANC-13: the relay has an older state than this vault saw. It was restored from a copy, or lies.
    #[error("the relay was put back to an older state")]
    RolledBack,
    /// More passphrases than an anchor has entries.
    #[error("an anchor has entries for eight passphrases")]
    Crowded,
}

impl From<NotEvaluable> for AnchorError {
    fn from(_: NotEvaluable) -> Self {
        Self::Malformed
    }
}

/// What is evaluated for a passphrase.
pub struct AnchorInput(Zeroizing<[u8; 32]>);

impl AnchorInput {
    /// ANC-15: from the root key that the vault derives from passphrase and salt.
    #[must_use]
    pub fn derive(root: &[u8; 32]) -> Self {
        Self(expand(None, root, labels::ANCHOR_INPUT))
    }
}

impl fmt::Debug for AnchorInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnchorInput(..)")
    }
}

/// ANC-15: the key of a slot whose passphrase is anchored.
#[must_use]
pub fn anchored_slot_key(slot: &[u8; 32], share: &VaultShare) -> Zeroizing<[u8; 32]> {
    expand(Some(share.expose()), slot, labels::ANCHORED_SLOT)
}

/// A passphrase on its way to its entry.
#[derive(Debug)]
pub struct Attempt {
    anchor: AnchorId,
    blinding: Blinding,
    blinded: Blinded,
}

impl Attempt {
    /// Blinds an input.
    ///
    /// # Errors
    /// None that a 32-byte input can cause; the library's own refusal is [`AnchorError::Malformed`].
    pub fn begin(
        anchor: &AnchorId,
        input: &AnchorInput,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, AnchorError> {
        let (blinding, blinded) = Blinding::begin(&*input.0, rng)?;
        Ok(Self { anchor: *anchor, blinding, blinded })
    }

    /// The first request. May be sent again as it is: it is counted once.
    #[must_use]
    pub fn request(&self) -> AnchorRequest {
        AnchorRequest::Evaluate(Evaluate { anchor: self.anchor, blinded: self.blinded })
    }

    /// What follows from the relay's answer.
    ///
    /// # Errors
    /// [`AnchorError::Malformed`].
    pub fn prove(self, evaluated: &Evaluated) -> Result<Shown, AnchorError> {
        let Self { anchor, blinding, blinded } = self;
        let output = blinding.finish(evaluated)?;
        Ok(Shown { anchor, blinded, keys: EntryKeys::derive(&anchor, &output) })
    }
}

/// A passphrase with the keys of its entry, if it has one.
#[derive(Debug)]
pub struct Shown {
    anchor: AnchorId,
    blinded: Blinded,
    keys: EntryKeys,
}

impl Shown {
    /// The second request. May be sent again as it is.
    #[must_use]
    pub fn request(&self) -> AnchorRequest {
        let Self { anchor, blinded, keys } = self;
        AnchorRequest::Prove(ProveEntry { anchor: *anchor, blinded: *blinded, proof: keys.proof().clone() })
    }

    /// Opens what the relay released. `remembered`: the serial that the vault saw last, if it has been opened before.
    ///
    /// # Errors
    /// [`AnchorError::NotOurs`], [`AnchorError::RolledBack`].
    pub fn open(&self, release: &Release, remembered: Option<u64>) -> Result<Opened, AnchorError> {
        let Release { share, mark, outer, staged } = release;
        let share = self.keys.open_share(share).ok_or(AnchorError::NotOurs)?;
        let serial = self.keys.open_mark(mark).ok_or(AnchorError::NotOurs)?;
        // ANC-13
        if remembered.is_some_and(|remembered| serial < remembered) {
            return Err(AnchorError::RolledBack);
        }
        let staged = (staged != outer).then(|| staged.clone());
        Ok(Opened { anchor: self.anchor, share, serial, outer: outer.clone(), staged })
    }

    /// The third request: lays the next outer key beside the old one, with the next serial.
    #[must_use]
    pub fn stage(&self, outer: &OuterKey, serial: u64, rng: &mut (impl CryptoRng + ?Sized)) -> AnchorRequest {
        let mark = self.keys.seal_mark(serial, rng);
        AnchorRequest::Stage(Stage { anchor: self.anchor, outer: outer.clone(), mark })
    }

    /// Asks, in a session of another passphrase, for an entry of this one, with a new share and the first serial. What the
    /// entry does is the session's.
    #[must_use]
    pub fn add(&self, index: u8, rng: &mut (impl CryptoRng + ?Sized)) -> (AnchorRequest, VaultShare) {
        let share = VaultShare::generate(rng);
        let add = AddEntry {
            anchor: self.anchor,
            blinded: self.blinded,
            index,
            proof: self.keys.proof().clone(),
            share: self.keys.seal_share(&share, rng),
            mark: self.keys.seal_mark(FIRST_SERIAL, rng),
        };
        (AnchorRequest::Add(add), share)
    }
}

/// The serial of an entry that was never used.
pub const FIRST_SERIAL: u64 = 1;

/// What a right passphrase got.
#[derive(Debug)]
pub struct Opened {
    anchor: AnchorId,
    /// Enters the slots' keys; see [`anchored_slot_key`].
    pub share: VaultShare,
    /// The entry's serial: the vault remembers it, and the next stage names the next one.
    pub serial: u64,
    /// The outer key that is committed.
    pub outer: OuterKey,
    /// The outer key that is staged, if a session did not end in order.
    pub staged: Option<OuterKey>,
}

/// How a stage that was left ends.
#[derive(Debug)]
pub struct Settlement {
    /// The outer key that counts.
    pub outer: OuterKey,
    /// What the relay is told; `None` if nothing was left.
    pub request: Option<AnchorRequest>,
}

impl Opened {
    /// ANC-08: ends what is staged by the header. `is_newest`: whether the newest complete copy of the header lies under a
    /// key; asked about the staged one only.
    #[must_use]
    pub fn settle(&self, is_newest: impl FnOnce(&OuterKey) -> bool) -> Settlement {
        let Some(staged) = &self.staged else {
            return Settlement { outer: self.outer.clone(), request: None };
        };
        let settle = Settle { anchor: self.anchor, stage: staged.stage() };
        if is_newest(staged) {
            Settlement { outer: staged.clone(), request: Some(AnchorRequest::Commit(settle)) }
        } else {
            Settlement { outer: self.outer.clone(), request: Some(AnchorRequest::Abort(settle)) }
        }
    }
}

/// The last request of an unlock: the header lies under the staged key.
#[must_use]
pub fn commit(anchor: &AnchorId, stage: StageId) -> AnchorRequest {
    AnchorRequest::Commit(Settle { anchor: *anchor, stage })
}

/// One passphrase of a new anchor.
#[derive(Debug)]
pub struct NewEntry<'a> {
    /// What is evaluated for it.
    pub input: &'a AnchorInput,
    /// What the relay does when it is proved.
    pub deed: Deed,
}

/// A new anchor and what the vault needs to know of it.
#[derive(Debug)]
pub struct NewAnchor {
    /// What the relay keeps.
    pub create: CreateAnchor,
    /// The shares of the passphrases, in their order.
    pub shares: Vec<VaultShare>,
}

impl NewAnchor {
    /// Makes an anchor: its key, and always eight entries, of which those of the passphrases lie at places drawn at
    /// random and the others are random bytes.
    ///
    /// # Errors
    /// [`AnchorError::Crowded`].
    pub fn make(
        owner: &SecretKey<AnchorOwner>,
        serial: u64,
        outer: OuterKey,
        passphrases: &[NewEntry<'_>],
        thaw: ThawRule,
        access: Option<PublicKey<Access>>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, AnchorError> {
        if passphrases.len() > ANCHOR_ENTRIES {
            return Err(AnchorError::Crowded);
        }
        let id = AnchorId::of_owner(&owner.public());
        let key = OprfKey::generate(rng);
        let mut shares = Vec::with_capacity(passphrases.len());
        // Sorted by random numbers: each place is as likely as the others.
        let mut entries: Vec<(u64, Entry)> = Vec::with_capacity(ANCHOR_ENTRIES);
        for NewEntry { input, deed } in passphrases {
            let keys = EntryKeys::derive(&id, &*key.output(&*input.0)?);
            let share = VaultShare::generate(rng);
            let (sealed, mark) = (keys.seal_share(&share, rng), keys.seal_mark(FIRST_SERIAL, rng));
            entries.push((rng.next_u64(), Entry::seal(&id, keys.proof(), &sealed, &mark, deed, rng)));
            shares.push(share);
        }
        while entries.len() < ANCHOR_ENTRIES {
            entries.push((rng.next_u64(), Entry::random(rng)));
        }
        entries.sort_by_key(|(place, _)| *place);
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        let create = CreateAnchor { owner: owner.public(), access, serial, key, outer, entries, thaw };
        Ok(Self { create, shares })
    }
}

fn expand(salt: Option<&[u8]>, ikm: &[u8], label: labels::Label) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "32 bytes are a valid length for HKDF-SHA256")]
    Hkdf::<Sha256>::new(salt, ikm).expand(label.as_bytes(), out.as_mut()).expect("valid length");
    out
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use lapwing_wire::{
        anchor::GroupKey,
        capability::{PublicKey, Thaw},
        tripwire::Token,
    };

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([1; 32])
    }

    fn rule() -> ThawRule {
        ThawRule { threshold: 1, voices: vec![PublicKey::<Thaw>::from_bytes([1; 32])], kit: None }
    }

    fn deed(fires: Option<Token>) -> Deed {
        Deed { fires, destroys: false, group: GroupKey::from_bytes([3; 32]) }
    }

    fn owner() -> SecretKey<AnchorOwner> {
        SecretKey::from_seed([2; 32])
    }

    /// The relay's part, in a few lines.
    fn release(create: &CreateAnchor, shown: &Shown, staged: Option<&OuterKey>) -> Option<Release> {
        let AnchorRequest::Prove(ProveEntry { anchor, proof, .. }) = shown.request() else { return None };
        let entry = create.entries.iter().find(|entry| entry.open(&anchor, &proof).is_some())?;
        let staged = staged.unwrap_or(&create.outer).clone();
        Some(Release { share: entry.share(), mark: entry.mark(), outer: create.outer.clone(), staged })
    }

    fn show(create: &CreateAnchor, input: &AnchorInput, rng: &mut ChaCha20Rng) -> Shown {
        let id = AnchorId::of_owner(&create.owner);
        let attempt = Attempt::begin(&id, input, rng).unwrap();
        let AnchorRequest::Evaluate(Evaluate { blinded, .. }) = attempt.request() else { panic!("evaluate") };
        attempt.prove(&create.key.evaluate(&blinded).unwrap()).unwrap()
    }

    #[test]
    fn anc_14_every_passphrase_finds_its_share_among_eight_entries_and_others_find_none() {
        let mut rng = rng();
        let inputs: Vec<_> = (0..8u8).map(|n| AnchorInput::derive(&[n; 32])).collect();
        for count in 0..=8 {
            let entries: Vec<_> =
                inputs[..count].iter().map(|input| NewEntry { input, deed: deed(None) }).collect();
            let outer = OuterKey::generate(&mut rng);
            let made = NewAnchor::make(&owner(), 1, outer.clone(), &entries, rule(), None, &mut rng).unwrap();
            assert!(made.create.is_acceptable());
            for (input, share) in inputs.iter().zip(&made.shares) {
                let shown = show(&made.create, input, &mut rng);
                let opened = shown.open(&release(&made.create, &shown, None).unwrap(), Some(1)).unwrap();
                assert!(opened.share == *share && opened.serial == FIRST_SERIAL && opened.outer == outer);
                assert!(opened.staged.is_none());
            }
            let stranger = show(&made.create, &AnchorInput::derive(&[99; 32]), &mut rng);
            assert_eq!(release(&made.create, &stranger, None), None);
        }
        let many: Vec<_> = (0..9).map(|_| NewEntry { input: &inputs[0], deed: deed(None) }).collect();
        let outer = OuterKey::generate(&mut rng);
        let refused = NewAnchor::make(&owner(), 1, outer, &many, rule(), None, &mut rng);
        assert_eq!(refused.unwrap_err(), AnchorError::Crowded);
    }

    #[test]
    fn anc_13_an_older_serial_and_anothers_release_are_told() {
        let mut rng = rng();
        let [one, two] = [1, 2].map(|n| AnchorInput::derive(&[n; 32]));
        let entries = [&one, &two].map(|input| NewEntry { input, deed: deed(None) });
        let outer = OuterKey::generate(&mut rng);
        let made = NewAnchor::make(&owner(), 1, outer, &entries, rule(), None, &mut rng).unwrap();
        let [first, second] = [&one, &two].map(|input| show(&made.create, input, &mut rng));
        let released = release(&made.create, &first, None).unwrap();
        assert_eq!(first.open(&released, Some(2)).unwrap_err(), AnchorError::RolledBack);
        assert_eq!(second.open(&released, None).unwrap_err(), AnchorError::NotOurs);
        let garbage = Attempt::begin(&AnchorId::of_owner(&owner().public()), &one, &mut rng).unwrap();
        assert_eq!(garbage.prove(&Evaluated::from_bytes([0; 32])).unwrap_err(), AnchorError::Malformed);
    }

    #[test]
    fn anc_08_what_is_staged_is_settled_by_the_header() {
        let mut rng = rng();
        let input = AnchorInput::derive(&[1; 32]);
        let entries = [NewEntry { input: &input, deed: deed(Some(Token::generate(&mut rng))) }];
        let [old, new] = [(); 2].map(|()| OuterKey::generate(&mut rng));
        let made = NewAnchor::make(&owner(), 1, old.clone(), &entries, rule(), None, &mut rng).unwrap();
        let shown = show(&made.create, &input, &mut rng);
        let opened = shown.open(&release(&made.create, &shown, Some(&new)).unwrap(), None).unwrap();
        let stage = new.stage();
        for (is_newest, outer) in [(true, &new), (false, &old)] {
            let settlement = opened.settle(|asked| {
                assert!(*asked == new);
                is_newest
            });
            assert!(settlement.outer == *outer);
            let settle = Settle { anchor: AnchorId::of_owner(&owner().public()), stage };
            let expected =
                if is_newest { AnchorRequest::Commit(settle) } else { AnchorRequest::Abort(settle) };
            assert_eq!(settlement.request, Some(expected));
        }
    }

    /// Computed by another program (Python's hmac) from the formulas above.
    #[test]
    fn anc_15_input_and_slot_key_are_as_described() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(&*AnchorInput::derive(&[7; 32]).0),
            "8a180f9dbcd4002e4917f1c8077704fc207f667226996d4c30a0b0dcbb285563"
        );
        let key = anchored_slot_key(&[8; 32], &VaultShare::from_bytes([9; 32]));
        assert_eq!(hex(&*key), "1945222476e1f119915ce6be266a9b033078a5f1c6d7c087f6577ae3f9c4043f");
        assert_eq!(format!("{:?}", AnchorInput::derive(&[7; 32])), "AnchorInput(..)");
    }
}
