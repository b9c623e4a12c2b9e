//! The link or QR code that starts a contact.
//!
//! ```text
//! text    = "lapwing:" base32 ( payload | checksum 4 )                     lapwing_wire::armor
//! payload = version 01 | CBOR array of the nine fields, in this order
//!           relay key 32 | host | port | mailbox 32 | write seed 32 | envelope key 32 | bundle hash 32
//!           | expires, ms since 1970 | reusable (bool)
//! bundle blob = nonce 24 | XChaCha20-Poly1305( bundle | 80 | 00 ... ) | tag 16        always 4 KiB
//!           key = HKDF-SHA256( envelope key, "lapwing/1 key of a ticket's bundle" )
//! ```
//!
//! An array without names keeps the text below 400 characters, so that it fits a QR code; upper case puts the code
//! into its denser alphanumeric mode, and reading accepts both.
//!
//! Invariants: a text is read whole or refused with one of four reasons (TKT-01, TKT-02); a ticket past its time is
//! refused (TKT-03); a bundle is used only if its blob has the ticket's hash, opens under the ticket's key and
//! passes the checks of SES-05 (TKT-04). Known gap: whoever reads a ticket on its way can answer it first. The
//! inviter notices, because the expected person's attempt fails, and safety numbers differ.

use std::fmt;

use hkdf::Hkdf;
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    armor::{self, ArmorError},
    capability::SecretKey,
    codec,
    ids::{BlobHash, MailboxId},
    padding::{self, SizeClass},
    time::Timestamp,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    envelope::{EnvelopeKey, TooLong},
    labels,
    route::Route,
    seal::{self, RawSecret},
    session::{Bundle, BundleIn},
};

const PREFIX: &str = "lapwing";
const VERSION: u8 = 1;
/// Longest payload after its version byte: 200 bytes and a host name of up to 253.
const MAX_PAYLOAD: usize = 600;
/// Length of every sealed bundle: one-time and reusable bundles look alike.
const BUNDLE_BLOB: usize = SizeClass::Medium.sealed_len();

/// Longest bundle that a blob holds.
pub const MAX_SEALED_BUNDLE: usize = BUNDLE_BLOB - seal::OVERHEAD - 1;

/// All that a first contact needs.
///
/// # Security
/// Secret until it is consumed: whoever reads it first can answer it.
pub struct Ticket {
    /// Where the joiner's first message goes.
    pub route: Route,
    /// Names the blob that holds the inviter's bundle, on the same relay.
    pub bundle: BlobHash,
    /// When it stops being valid.
    pub expires: Timestamp,
    /// Whether more than one person may use it.
    pub reusable: bool,
}

/// Why a text is no usable ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// TKT-01: the text does not begin like a ticket.
    #[error("the text is not a ticket")]
    NotATicket,
    /// TKT-01: it begins like one, but a letter is missing or was changed. Copy it again, whole.
    #[error("the ticket is damaged: a letter is missing or was changed")]
    Damaged,
    /// TKT-03: its time is over. Ask for a new one.
    #[error("the ticket has expired")]
    Expired,
    /// TKT-02: made by a newer version of the program. Update.
    #[error("the ticket needs a newer version of this program")]
    Version,
}

/// TKT-04: the blob is not the bundle that the ticket promises. The relay or the ticket's maker is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay's answer is not the bundle that the ticket promises")]
pub struct BadBundle;

#[derive(Serialize, Deserialize)]
struct RawTicket(RelayKey, String, u16, MailboxId, RawSecret, RawSecret, BlobHash, Timestamp, bool);

impl Ticket {
    /// The text to hand over.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self { route, bundle, expires, reusable } = self;
        let raw = RawTicket(
            *route.relay.key(),
            route.relay.host().to_owned(),
            route.relay.port(),
            route.mailbox,
            RawSecret::new(*route.write.expose_seed()),
            route.key.raw(),
            *bundle,
            *expires,
            *reusable,
        );
        let mut payload = Zeroizing::new(vec![VERSION]);
        payload.extend_from_slice(&Zeroizing::new(codec::encode(&raw)));
        armor::encode(PREFIX, &payload)
    }

    /// Reads a text. Spaces, line breaks and case do not matter.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn from_text(text: &str, now: Timestamp) -> Result<Self, TicketError> {
        // TKT-01: the checksum covers every letter.
        let payload = Zeroizing::new(armor::decode(PREFIX, text).map_err(|error| match error {
            ArmorError::WrongKind => TicketError::NotATicket,
            _ => TicketError::Damaged,
        })?);
        // TKT-02: the version comes first, and the rest is read only if it is ours.
        let (version, rest) = payload.split_first().ok_or(TicketError::Damaged)?;
        if *version != VERSION {
            return Err(TicketError::Version);
        }
        let raw: RawTicket = codec::decode(rest, MAX_PAYLOAD).map_err(|_| TicketError::Damaged)?;
        let RawTicket(relay, host, port, mailbox, write, key, bundle, expires, reusable) = raw;
        let relay = RelayAddress::new(relay, &host, port).map_err(|_| TicketError::Damaged)?;
        // TKT-03.
        if now >= expires {
            return Err(TicketError::Expired);
        }
        let write = SecretKey::from_seed(*write.expose());
        let route = Route { relay, mailbox, write, key: EnvelopeKey::from_raw(&key) };
        Ok(Self { route, bundle, expires, reusable })
    }

    /// TKT-04: the inviter's bundle, from the blob that the relay gave out.
    ///
    /// # Errors
    /// [`BadBundle`] for another blob, and for a bundle that fails its own checks.
    pub fn open_bundle(&self, blob: &[u8]) -> Result<Bundle, BadBundle> {
        if BlobHash::of(blob) != self.bundle {
            return Err(BadBundle);
        }
        let bytes = open_bundle(&self.route.key, blob)?;
        BundleIn::decode(&bytes).and_then(BundleIn::verify).map_err(|_| BadBundle)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route: _, bundle: _, expires: _, reusable: _ } = self;
        f.write_str("Ticket(..)")
    }
}

/// The blob that keeps a ticket's bundle from the relay: sealed under a key derived from `key`, the envelope key of
/// the ticket's route, and always of one length.
///
/// # Errors
/// [`TooLong`] above [`MAX_SEALED_BUNDLE`] bytes.
pub fn seal_bundle(
    key: &EnvelopeKey,
    bundle: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, TooLong> {
    let padded = padding::pad(bundle.to_vec(), BUNDLE_BLOB - seal::OVERHEAD).ok_or(TooLong)?;
    Ok(seal::seal(&bundle_key(key), &padded, labels::TICKET_BUNDLE.as_bytes(), rng))
}

/// The bundle in a blob that [`seal_bundle`] made; the bundle itself is not checked. See [`Ticket::open_bundle`].
///
/// # Errors
/// [`BadBundle`].
pub fn open_bundle(key: &EnvelopeKey, blob: &[u8]) -> Result<Vec<u8>, BadBundle> {
    if blob.len() != BUNDLE_BLOB {
        return Err(BadBundle);
    }
    let padded =
        seal::open(&bundle_key(key), blob, labels::TICKET_BUNDLE.as_bytes()).map_err(|_| BadBundle)?;
    padding::unpad(padded.expose().to_vec()).ok_or(BadBundle)
}

fn bundle_key(key: &EnvelopeKey) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "32 bytes are a valid length for HKDF-SHA256")]
    Hkdf::<Sha256>::new(None, key.expose())
        .expand(labels::TICKET_KEY.as_bytes(), out.as_mut())
        .expect("valid length");
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const LATER: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn ticket() -> Ticket {
        Ticket { route: testing::route(1), bundle: BlobHash::of(b"a blob"), expires: LATER, reusable: false }
    }

    #[test]
    fn tkt_01_tickets_round_trip_in_any_case_and_with_line_breaks() {
        let text = ticket().to_text();
        assert!(text.starts_with("lapwing:") && text.len() < 400, "{} characters", text.len());
        let (a, b) = text.split_at(100);
        for form in [text.clone(), text.to_uppercase(), format!(" {a}\n {b}\r\n")] {
            let back = Ticket::from_text(&form, NOW).unwrap();
            assert_eq!(back.to_text(), text);
            assert_eq!((back.expires, back.reusable), (LATER, false));
        }
    }

    #[test]
    fn tkt_01_the_longest_host_is_read_back() {
        let relay = RelayAddress::new(*testing::relay().key(), &"h".repeat(253), 443).unwrap();
        let ticket = Ticket { route: Route { relay, ..testing::route(1) }, ..ticket() };
        assert_eq!(Ticket::from_text(&ticket.to_text(), NOW).unwrap().to_text(), ticket.to_text());
    }

    #[test]
    fn tkt_01_other_texts_are_not_tickets() {
        for text in ["", "hello", "https://example.org", "lapwing-access:aaaa", "relay://x@h:1"] {
            assert_eq!(Ticket::from_text(text, NOW).unwrap_err(), TicketError::NotATicket, "{text}");
        }
        for text in ["lapwing:", "lapwing:aaaaaaaaaaaaaaaa", "lapwing:\u{1b}[2J"] {
            assert_eq!(Ticket::from_text(text, NOW).unwrap_err(), TicketError::Damaged, "{text}");
        }
    }

    #[test]
    fn tkt_01_every_changed_or_missing_letter_is_noticed() {
        let text = ticket().to_text();
        for i in "lapwing:".len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[i] = if changed[i] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(Ticket::from_text(&changed, NOW).unwrap_err(), TicketError::Damaged);
            assert_eq!(Ticket::from_text(&text[..i], NOW).unwrap_err(), TicketError::Damaged);
        }
    }

    #[test]
    fn tkt_02_another_version_is_named() {
        let text = armor::encode(PREFIX, &[2, 1, 2, 3]);
        assert_eq!(Ticket::from_text(&text, NOW).unwrap_err(), TicketError::Version);
        assert_eq!(
            Ticket::from_text(&armor::encode(PREFIX, &[1, 1, 2, 3]), NOW).unwrap_err(),
            TicketError::Damaged
        );
        assert_eq!(Ticket::from_text(&armor::encode(PREFIX, &[]), NOW).unwrap_err(), TicketError::Damaged);
    }

    #[test]
    fn tkt_03_a_ticket_ends_at_its_time() {
        let text = ticket().to_text();
        assert!(Ticket::from_text(&text, Timestamp::from_millis(LATER.as_millis() - 1)).is_ok());
        assert_eq!(Ticket::from_text(&text, LATER).unwrap_err(), TicketError::Expired);
    }

    #[test]
    fn tkt_04_a_bundle_opens_only_for_its_ticket() {
        let mut rng = testing::rng(7);
        let (local, entry) = testing::person(7, "ann");
        let blob = seal_bundle(&ticket().route.key, &entry.bundle, &mut rng).unwrap();
        assert_eq!(blob.len(), 4096);
        let mine = Ticket { bundle: BlobHash::of(&blob), ..ticket() };
        assert_eq!(mine.open_bundle(&blob).unwrap().identity(), local.public());

        assert_eq!(ticket().open_bundle(&blob).unwrap_err(), BadBundle, "another hash");
        let other = Ticket { route: testing::route(2), bundle: BlobHash::of(&blob), ..ticket() };
        assert_eq!(other.open_bundle(&blob).unwrap_err(), BadBundle, "another key");
        let garbage = seal_bundle(&ticket().route.key, b"no bundle", &mut rng).unwrap();
        let lying = Ticket { bundle: BlobHash::of(&garbage), ..ticket() };
        assert_eq!(lying.open_bundle(&garbage).unwrap_err(), BadBundle, "no bundle inside");
        assert_eq!(open_bundle(&ticket().route.key, &blob[..4000]).unwrap_err(), BadBundle);
        assert_eq!(seal_bundle(&ticket().route.key, &[0; MAX_SEALED_BUNDLE + 1], &mut rng), Err(TooLong));
    }

    #[test]
    fn tkt_04_the_bundle_key_is_not_the_envelope_key() {
        assert_ne!(*bundle_key(&EnvelopeKey::from_bytes([1; 32])), [1; 32]);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", ticket()), "Ticket(..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_text_is_refused_without_a_panic(text in "(lapwing:)?[ -~\u{1b}\u{202e}]{0,300}") {
            prop_assert!(Ticket::from_text(&text, NOW).is_err());
        }

        #[test]
        fn any_payload_is_refused_without_a_panic(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Ticket::from_text(&armor::encode(PREFIX, &payload), NOW).is_err());
        }
    }
}
