//! Alerts, and what makes somebody a trusted contact (`trust`).
//!
//! ```text
//! sealed alert = nonce 24 | XChaCha20-Poly1305 under the alert key, of CBOR { "s": statement, "g": signature 64 }
//!                associated data = "lapwing/1 sealed alert"
//! signature    = Ed25519( "lapwing/1 alert statement" 00 | length u32 BE | statement )
//! statement    = CBOR map { "v": 1, "trust": id 16, "id": alert 16, "serial", "tripwire": id 32,
//!                "kind": text, "status": text, "cause": text, "made": ms since 1970, "text": text,
//!                "place": text or null, "instructions": text or null,
//!                "quarantine": [ { "group": id 32, "notice": bytes } ] }
//! ```
//!
//! The owner makes an alert mailbox on the tripwire's relay, agrees on alert key and signer with the trusted contact
//! inside their session, and seals every alert in advance; the caller puts it into an envelope of that mailbox.
//!
//! Invariants: only the owner's signer makes an alert, and nobody without the alert key reads one (ALT-01); the
//! signer and the key belong to one trusted contact, so an alert cannot be passed on as another's (ALT-02); an alert
//! of an unknown kind, status or cause is still an alert and is shown (ALT-03); only an actual alert that a token or a
//! quorum fired may quarantine without asking a person (ALT-04); everything is bounded (ALT-05).
//! Known gap: an alert proves that it was prepared by the owner and set off by its cause, not that the owner is in
//! danger now.
//!
//! Source: the terms are those of OASIS CAP 1.2.

mod trust;
mod voices;

use std::fmt;

use lapwing_wire::{
    capability::{AlertSigner, PublicKey, SecretKey, Signature},
    codec,
    ids::TripwireId,
    time::Timestamp,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use trust::{AlertAck, AlertId, AlertKey, MAX_TRUST_REQUEST, TrustAnswer, TrustId, TrustRequest};
pub(crate) use voices::RawVoices;
pub use voices::{HeldVoice, MAX_HELD_VOICES, MAX_VOICES_LENGTH, PlanVoices, Voices};

use crate::{group::GroupId, labels, seal};

/// Longest alert text, in bytes of UTF-8: a text of a few hundred bytes leaves the alert within 4 KiB.
pub const MAX_ALERT_TEXT: usize = 2_000;
/// Longest description of a place, in bytes of UTF-8.
pub const MAX_PLACE: usize = 500;
/// Longest instructions (lawyer, medicine, whom to call), in bytes of UTF-8.
pub const MAX_INSTRUCTIONS: usize = 4_000;
/// Most groups that one alert asks to re-key without its owner.
pub const MAX_QUARANTINES: usize = 32;
/// Longest quarantine notice in bytes.
pub const MAX_NOTICE: usize = 1_024;
/// Longest sealed alert in bytes: every part at its bound.
pub const MAX_ALERT: usize = 44 << 10;

const VERSION: u8 = 1;

/// A word from a closed list, with room for words of later versions.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "&'static str")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$item_doc])* $item,)+
            /// ALT-03: a word of a newer version. The alert is shown all the same.
            Unknown,
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$item,)+
                    _ => Self::Unknown,
                }
            }
        }

        impl From<$name> for &'static str {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$item => $word,)+
                    $name::Unknown => "unknown",
                }
            }
        }
    };
}

words! {
    /// What an alert is in relation to others (CAP 1.2 `msgType`).
    Kind {
        /// Something has happened.
        Alert = "alert",
        /// Corrects or adds to an earlier one.
        Update = "update",
        /// Takes an earlier one back. Believed only with a fresh verification.
        Cancel = "cancel",
        /// Acknowledges an earlier one.
        Ack = "ack",
    }
}

words! {
    /// Whether it is meant (CAP 1.2 `status`).
    Status {
        /// It is.
        Actual = "actual",
        /// A drill: act as if, and say so.
        Exercise = "exercise",
        /// A technical test.
        Test = "test",
    }
}

words! {
    /// What set it off.
    Cause {
        /// A passphrase was typed that means it.
        Token = "token",
        /// A check-in was missed.
        Deadline = "deadline",
        /// Enough trusted contacts agreed.
        Quorum = "quorum",
        /// Too many wrong passphrases.
        Guesses = "guesses",
    }
}

/// Asks to re-key one group without the alert's owner.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The group.
    pub group: GroupId,
    /// The signed notice for its members, at most [`MAX_NOTICE`] bytes.
    #[serde(with = "serde_bytes")]
    pub notice: Vec<u8>,
}

/// An alert, as its owner makes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Alert {
    /// The relation that it belongs to.
    pub trust: TrustId,
    /// Its name; duplicates by other relays have the same.
    pub id: AlertId,
    /// Grows with every alert that the owner prepares for this relation, so that an old one is recognised.
    pub serial: u64,
    /// The tripwire that carries it.
    pub tripwire: TripwireId,
    /// What it is.
    pub kind: Kind,
    /// Whether it is meant.
    pub status: Status,
    /// What sets it off: the list of the tripwire in which it lies.
    pub cause: Cause,
    /// When it was prepared.
    pub made: Timestamp,
    /// What has happened, in the owner's words, at most [`MAX_ALERT_TEXT`] bytes.
    pub text: String,
    /// Last known place, at most [`MAX_PLACE`] bytes.
    pub place: Option<String>,
    /// What to do, at most [`MAX_INSTRUCTIONS`] bytes.
    pub instructions: Option<String>,
    /// Groups to re-key, at most [`MAX_QUARANTINES`].
    pub quarantine: Vec<Quarantine>,
}

/// An alert whose signature was checked: its owner prepared it.
pub struct VerifiedAlert(Alert);

/// Why an alert cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AlertError {
    /// ALT-05: a part is longer than allowed. Shorten it.
    #[error("a part of the alert is too long")]
    TooLong,
    /// ALT-01: not sealed under this key, or not signed by this signer. Drop it.
    #[error("the alert is not from the expected contact")]
    NotGenuine,
    /// ALT-01, ALT-05: genuine, but not of the expected form. The owner's program is at fault: tell its user that
    /// an alert of unknown content has arrived.
    #[error("the alert is genuine but cannot be read")]
    Malformed,
    /// Genuine, of a later format. Tell the user that an alert has arrived and that an update is needed.
    #[error("the alert is genuine but needs a newer version of this program")]
    NeedsNewerVersion,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    #[serde(with = "serde_bytes")]
    s: Vec<u8>,
    g: Signature,
}

#[derive(Deserialize)]
struct Version {
    v: u8,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    v: u8,
    trust: TrustId,
    id: AlertId,
    serial: u64,
    tripwire: TripwireId,
    kind: Kind,
    status: Status,
    cause: Cause,
    made: Timestamp,
    text: String,
    place: Option<String>,
    instructions: Option<String>,
    quarantine: Vec<Quarantine>,
}

impl Alert {
    /// Signs and seals the alert for the contact that shares `key`.
    ///
    /// # Errors
    /// [`AlertError::TooLong`].
    pub fn seal(
        &self,
        key: &AlertKey,
        signer: &SecretKey<AlertSigner>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Vec<u8>, AlertError> {
        if !self.is_bounded() {
            return Err(AlertError::TooLong);
        }
        let statement = codec::encode(&self.statement());
        let signature = signer.sign(labels::ALERT_STATEMENT.as_bytes(), &[&statement]);
        let signed = Zeroizing::new(codec::encode(&Signed { s: statement, g: signature }));
        Ok(seal::seal(key.expose(), &signed, labels::ALERT.as_bytes(), rng))
    }

    /// Opens an alert with the key and signer of one trusted relation.
    ///
    /// # Errors
    /// [`AlertError`]. Whatever but [`AlertError::NotGenuine`] and [`AlertError::TooLong`] comes from the owner.
    pub fn open(
        bytes: &[u8],
        key: &AlertKey,
        signer: &PublicKey<AlertSigner>,
    ) -> Result<VerifiedAlert, AlertError> {
        if bytes.len() > MAX_ALERT {
            return Err(AlertError::TooLong);
        }
        let signed =
            seal::open(key.expose(), bytes, labels::ALERT.as_bytes()).map_err(|_| AlertError::NotGenuine)?;
        let Signed { s, g } =
            codec::decode(signed.expose(), MAX_ALERT).map_err(|_| AlertError::NotGenuine)?;
        // ALT-01: nothing of the statement is read before its signature holds.
        signer.verify(labels::ALERT_STATEMENT.as_bytes(), &[&s], &g).map_err(|_| AlertError::NotGenuine)?;
        let Version { v } = codec::decode(&s, MAX_ALERT).map_err(|_| AlertError::Malformed)?;
        if v != VERSION {
            return Err(AlertError::NeedsNewerVersion);
        }
        let statement: Statement = codec::decode(&s, MAX_ALERT).map_err(|_| AlertError::Malformed)?;
        let alert = Self::of_statement(statement);
        if alert.is_bounded() { Ok(VerifiedAlert(alert)) } else { Err(AlertError::Malformed) }
    }

    /// ALT-05.
    fn is_bounded(&self) -> bool {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.text.len() <= MAX_ALERT_TEXT
            && length(&self.place) <= MAX_PLACE
            && length(&self.instructions) <= MAX_INSTRUCTIONS
            && self.quarantine.len() <= MAX_QUARANTINES
            && self.quarantine.iter().all(|part| part.notice.len() <= MAX_NOTICE)
    }

    fn statement(&self) -> Statement {
        let Self {
            trust,
            id,
            serial,
            tripwire,
            kind,
            status,
            cause,
            made,
            text,
            place,
            instructions,
            quarantine,
        } = self.clone();
        Statement {
            v: VERSION,
            trust,
            id,
            serial,
            tripwire,
            kind,
            status,
            cause,
            made,
            text,
            place,
            instructions,
            quarantine,
        }
    }

    fn of_statement(statement: Statement) -> Self {
        let Statement {
            v: _,
            trust,
            id,
            serial,
            tripwire,
            kind,
            status,
            cause,
            made,
            text,
            place,
            instructions,
            quarantine,
        } = statement;
        Self { trust, id, serial, tripwire, kind, status, cause, made, text, place, instructions, quarantine }
    }
}

impl fmt::Debug for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alert(..)")
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quarantine(..)")
    }
}

impl VerifiedAlert {
    /// The alert.
    #[must_use]
    pub const fn alert(&self) -> &Alert {
        &self.0
    }

    /// The alert, taken out.
    #[must_use]
    pub fn into_alert(self) -> Alert {
        self.0
    }

    /// ALT-04: whether the named groups may be re-keyed without asking a person. A relay can set off what lies in
    /// the lists for a missed deadline and for guesses by itself, so those never may; drills never may.
    #[must_use]
    pub fn may_quarantine(&self) -> bool {
        let alert = &self.0;
        matches!(alert.cause, Cause::Token | Cause::Quorum)
            && matches!(alert.kind, Kind::Alert | Kind::Update)
            && alert.status == Status::Actual
            && !alert.quarantine.is_empty()
    }
}

impl fmt::Debug for VerifiedAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifiedAlert(..)")
    }
}

#[cfg(test)]
mod tests {
    use lapwing_wire::padding::SizeClass;
    use proptest::prelude::*;

    use super::*;
    use crate::{envelope, testing, vectors};

    fn keys() -> (AlertKey, SecretKey<AlertSigner>) {
        (AlertKey::from_bytes([1; 32]), SecretKey::from_seed([2; 32]))
    }

    #[test]
    fn alt_01_alerts_round_trip_for_their_key_and_signer_only() {
        let (key, signer) = keys();
        let mut rng = testing::rng(1);
        let alert = vectors::alert();
        let sealed = alert.seal(&key, &signer, &mut rng).unwrap();
        assert_eq!(Alert::open(&sealed, &key, &signer.public()).unwrap().alert(), &alert);
        let other: SecretKey<AlertSigner> = SecretKey::from_seed([3; 32]);
        assert_eq!(Alert::open(&sealed, &key, &other.public()).unwrap_err(), AlertError::NotGenuine);
        let other = AlertKey::from_bytes([3; 32]);
        assert_eq!(Alert::open(&sealed, &other, &signer.public()).unwrap_err(), AlertError::NotGenuine);
    }

    #[test]
    fn alt_01_who_knows_the_key_but_not_the_signer_cannot_change_an_alert() {
        let (key, signer) = keys();
        let mut rng = testing::rng(1);
        let statement = codec::encode(&vectors::alert().statement());
        let signature = signer.sign(labels::ALERT_STATEMENT.as_bytes(), &[&statement]);
        for at in 0..statement.len() {
            let mut changed = statement.clone();
            changed[at] ^= 1;
            let bytes = codec::encode(&Signed { s: changed, g: signature });
            let sealed = seal::seal(key.expose(), &bytes, labels::ALERT.as_bytes(), &mut rng);
            assert_eq!(Alert::open(&sealed, &key, &signer.public()).unwrap_err(), AlertError::NotGenuine);
        }
    }

    #[test]
    fn alt_02_an_alert_opens_in_its_own_relation_only() {
        let mut rng = testing::rng(1);
        let relations: Vec<(AlertKey, SecretKey<AlertSigner>)> =
            (0..3).map(|_| (AlertKey::generate(&mut rng), SecretKey::generate(&mut rng))).collect();
        for (of, (key, signer)) in relations.iter().enumerate() {
            let sealed = vectors::alert().seal(key, signer, &mut rng).unwrap();
            for (by, (key, signer)) in relations.iter().enumerate() {
                let opened = Alert::open(&sealed, key, &signer.public());
                assert_eq!(opened.is_ok(), of == by);
            }
        }
        // A contact who seals the owner's alert anew under a key that he shares with another is not believed there.
        let (key, signer) = &relations[0];
        let sealed = vectors::alert().seal(key, signer, &mut rng).unwrap();
        let statement = seal::open(key.expose(), &sealed, labels::ALERT.as_bytes()).unwrap();
        let (key, signer) = &relations[1];
        let passed_on = seal::seal(key.expose(), statement.expose(), labels::ALERT.as_bytes(), &mut rng);
        assert_eq!(Alert::open(&passed_on, key, &signer.public()).unwrap_err(), AlertError::NotGenuine);
    }

    fn signed_as(statement: &[u8]) -> Result<VerifiedAlert, AlertError> {
        let (key, signer) = keys();
        let g = signer.sign(labels::ALERT_STATEMENT.as_bytes(), &[statement]);
        let bytes = codec::encode(&Signed { s: statement.to_vec(), g });
        let sealed = seal::seal(key.expose(), &bytes, labels::ALERT.as_bytes(), &mut testing::rng(1));
        Alert::open(&sealed, &key, &signer.public())
    }

    #[test]
    fn alt_03_words_of_later_versions_are_shown_and_later_versions_are_named() {
        let mut value: ciborium::Value =
            codec::decode(&codec::encode(&vectors::alert().statement()), MAX_ALERT).unwrap();
        let map = value.as_map_mut().unwrap();
        for (name, field) in map.iter_mut() {
            if ["kind", "status", "cause"].contains(&name.as_text().unwrap()) {
                *field = ciborium::Value::Text("of a later version".to_owned());
            }
        }
        let alert = signed_as(&codec::encode(&value)).unwrap();
        assert_eq!(
            (alert.alert().kind, alert.alert().status, alert.alert().cause),
            (Kind::Unknown, Status::Unknown, Cause::Unknown)
        );
        assert!(!alert.may_quarantine());
        for (name, field) in value.as_map_mut().unwrap() {
            if name.as_text() == Some("v") {
                *field = ciborium::Value::from(2);
            }
        }
        assert_eq!(signed_as(&codec::encode(&value)).unwrap_err(), AlertError::NeedsNewerVersion);
        assert_eq!(signed_as(b"\xf6").unwrap_err(), AlertError::Malformed);
    }

    #[test]
    fn alt_04_only_an_actual_alert_by_token_or_quorum_may_quarantine() {
        let causes = [Cause::Token, Cause::Deadline, Cause::Quorum, Cause::Guesses, Cause::Unknown];
        let kinds = [Kind::Alert, Kind::Update, Kind::Cancel, Kind::Ack, Kind::Unknown];
        let states = [Status::Actual, Status::Exercise, Status::Test, Status::Unknown];
        let mut allowed = 0;
        for cause in causes {
            for kind in kinds {
                for status in states {
                    let alert = VerifiedAlert(Alert { cause, kind, status, ..vectors::alert() });
                    let expected = [Cause::Token, Cause::Quorum].contains(&cause)
                        && [Kind::Alert, Kind::Update].contains(&kind)
                        && status == Status::Actual;
                    assert_eq!(alert.may_quarantine(), expected);
                    allowed += usize::from(expected);
                }
            }
        }
        assert_eq!(allowed, 4);
        let none = VerifiedAlert(Alert { quarantine: Vec::new(), ..vectors::alert() });
        assert!(!none.may_quarantine());
    }

    #[test]
    fn alt_05_every_part_is_bounded_both_ways() {
        let good = vectors::alert();
        let notice = |len| Quarantine { group: GroupId::from_bytes([1; 32]), notice: vec![0; len] };
        let (key, signer) = keys();
        let mut rng = testing::rng(1);
        let largest = Alert {
            text: "t".repeat(MAX_ALERT_TEXT),
            place: Some("p".repeat(MAX_PLACE)),
            instructions: Some("i".repeat(MAX_INSTRUCTIONS)),
            quarantine: vec![notice(MAX_NOTICE); MAX_QUARANTINES],
            ..good.clone()
        };
        let sealed = largest.seal(&key, &signer, &mut rng).unwrap();
        assert!(sealed.len() <= MAX_ALERT, "{}", sealed.len());
        assert_eq!(Alert::open(&sealed, &key, &signer.public()).unwrap().into_alert(), largest);
        for bad in [
            Alert { text: "t".repeat(MAX_ALERT_TEXT + 1), ..good.clone() },
            Alert { place: Some("p".repeat(MAX_PLACE + 1)), ..good.clone() },
            Alert { instructions: Some("i".repeat(MAX_INSTRUCTIONS + 1)), ..good.clone() },
            Alert { quarantine: vec![notice(MAX_NOTICE + 1)], ..good.clone() },
            Alert { quarantine: vec![notice(1); MAX_QUARANTINES + 1], ..good },
        ] {
            assert_eq!(bad.seal(&key, &signer, &mut rng), Err(AlertError::TooLong));
            assert_eq!(signed_as(&codec::encode(&bad.statement())).unwrap_err(), AlertError::Malformed);
        }
        assert_eq!(
            Alert::open(&vec![0; MAX_ALERT + 1], &key, &signer.public()).unwrap_err(),
            AlertError::TooLong
        );
    }

    #[test]
    fn a_short_alert_fits_four_kibibytes() {
        let (key, signer) = keys();
        let mut rng = testing::rng(1);
        let alert = Alert { text: "x".repeat(1_000), quarantine: Vec::new(), ..vectors::alert() };
        let sealed = alert.seal(&key, &signer, &mut rng).unwrap();
        let route = testing::route(1);
        let envelope = envelope::seal(&route.key, &route.mailbox, &sealed, &mut rng).unwrap();
        assert_eq!(SizeClass::of_sealed(envelope.len()), Some(SizeClass::Medium));
    }

    #[test]
    fn debug_shows_nothing() {
        let alert = vectors::alert();
        assert_eq!(
            format!("{alert:?} {:?} {:?}", alert.id, alert.trust),
            "Alert(..) AlertId(..) TrustId(..)"
        );
        assert_eq!(format!("{:?}", AlertKey::from_bytes([7; 32])), "AlertKey(..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn changed_alerts_never_open(at: prop::sample::Index, flip in 1u8..) {
            let (key, signer) = keys();
            let mut sealed = vectors::alert().seal(&key, &signer, &mut testing::rng(1)).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert_eq!(Alert::open(&sealed, &key, &signer.public()).unwrap_err(), AlertError::NotGenuine);
        }

        #[test]
        fn genuine_nonsense_never_panics(statement in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(signed_as(&statement).is_err());
        }
    }
}
