//! How two people who know each other begin a session anew: after a restored backup, a copied vault, a moved chat.
//!
//! ```text
//! "renewal_ticket"   { "s": secret 32, "b": bundle }                    kept by the peer until it is needed
//! "renewal"          route of the mailbox that is read from now on      the first content of the new session
//! "successor"        { "id": identity 32, "m": first message of the successor's session }   inside the old session
//! refusal            = 10 | base key 32 | tag 32
//!                    tag = HKDF-SHA256( secret of the ticket, "lapwing/1 renewal refused" | base key )
//! ```
//!
//! Invariants: a ticket is good for one handshake (RNW-03) and only for the identity that it was given to (RNW-02); a
//! refusal says nothing to who does not hold the ticket, and is believed only with its tag (RNW-06). The tag is
//! symmetric, so that a refusal proves nothing to a third person. Known gap: whoever steals a backup *and* its
//! passphrase holds identity and ticket, and can renew in its owner's name before the owner does.

use std::fmt;

use hkdf::Hkdf;
use lapwing_wire::codec::{self, DecodeError};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    identity::IdentityKey,
    labels,
    seal::{RawSecret, symmetric_key},
    secret::SecretBytes,
    session::{Bundle, BundleIn, MAX_BUNDLE, MAX_MESSAGE},
};

/// Longest encoded renewal ticket in bytes.
pub const MAX_RENEWAL_TICKET: usize = MAX_BUNDLE + 128;

/// Longest first message inside a `successor`: what fits an envelope with room to spare. A usual one has 2,200 bytes.
pub const MAX_SUCCESSOR: usize = 16 << 10;

/// First byte of a refusal, where a session message has its type.
const REFUSAL: u8 = 0x10;
const REFUSAL_LEN: usize = 1 + 32 + 32;

symmetric_key! {
    /// What the two ends of a renewal ticket share: says that a refusal is genuine.
    TicketSecret
}

/// The ticket or first message is not what its sender should have made. Drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the renewal is malformed or belongs to somebody else")]
pub struct BadRenewal;

/// One handshake in advance: given inside a session, used when that session is gone.
///
/// # Security
/// Secret between the two. It opens nothing by itself: whoever uses it must also hold the identity it was given to.
pub struct RenewalTicket {
    /// Says that a refusal is genuine.
    pub secret: TicketSecret,
    /// The giver's bundle.
    bundle: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawTicket {
    s: RawSecret,
    b: ByteBuf,
}

impl RenewalTicket {
    /// The ticket that gives `bundle`.
    ///
    /// # Errors
    /// [`BadRenewal`] if the bundle has no encoding, which no bundle of ours lacks.
    pub fn new(bundle: &Bundle, rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, BadRenewal> {
        let bundle = bundle.encode().map_err(|_| BadRenewal)?;
        Ok(Self { secret: TicketSecret::generate(rng), bundle })
    }

    /// RNW-02: the bundle, if it is the peer's own.
    ///
    /// # Errors
    /// [`BadRenewal`] for a bundle that fails its checks or belongs to another identity.
    pub fn bundle_of(&self, peer: &IdentityKey) -> Result<Bundle, BadRenewal> {
        let bundle = BundleIn::decode(&self.bundle).and_then(BundleIn::verify).map_err(|_| BadRenewal)?;
        if bundle.identity() == peer { Ok(bundle) } else { Err(BadRenewal) }
    }

    /// The ticket's bytes, to be sealed and stored.
    #[must_use]
    pub fn export(&self) -> SecretBytes {
        SecretBytes::new(codec::encode(&self.raw()))
    }

    /// Reads what [`RenewalTicket::export`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn import(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<RawTicket>(bytes, MAX_RENEWAL_TICKET).and_then(Self::from_raw)
    }

    pub(crate) fn raw(&self) -> RawTicket {
        let Self { secret, bundle } = self;
        RawTicket { s: secret.raw(), b: ByteBuf::from(bundle.as_slice()) }
    }

    pub(crate) fn from_raw(raw: RawTicket) -> Result<Self, DecodeError> {
        let RawTicket { s, b } = raw;
        if b.len() > MAX_BUNDLE {
            return Err(DecodeError::TooLong);
        }
        Ok(Self { secret: TicketSecret::from_raw(&s), bundle: b.into_vec() })
    }
}

impl fmt::Debug for RenewalTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret: _, bundle: _ } = self;
        f.write_str("RenewalTicket(..)")
    }
}

/// Says inside a session which identity goes on with the chat, and carries the first message of its session.
pub struct Successor {
    /// The identity that takes over.
    pub identity: IdentityKey,
    /// The first message of the new session, which carries the `renewal`.
    pub first: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawSuccessor {
    id: ByteArray<32>,
    m: ByteBuf,
}

impl Successor {
    pub(crate) fn raw(&self) -> RawSuccessor {
        let Self { identity, first } = self;
        RawSuccessor { id: ByteArray::new(*identity.as_bytes()), m: ByteBuf::from(first.as_slice()) }
    }

    pub(crate) fn from_raw(raw: RawSuccessor) -> Result<Self, BadRenewal> {
        let RawSuccessor { id, m } = raw;
        if m.len() > MAX_SUCCESSOR.min(MAX_MESSAGE) {
            return Err(BadRenewal);
        }
        Ok(Self { identity: IdentityKey::from_bytes(*id).map_err(|_| BadRenewal)?, first: m.into_vec() })
    }
}

impl fmt::Debug for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity: _, first: _ } = self;
        f.write_str("Successor(..)")
    }
}

/// The answer to a handshake with a ticket that is used up, as it came: nothing is known of it but its shape.
///
/// [`RefusalIn::is_genuine`] is the only thing to ask of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalIn {
    base: [u8; 32],
    tag: [u8; 32],
}

impl RefusalIn {
    /// Reads the content of an envelope, if it is a refusal by its shape; session messages are not.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REFUSAL_LEN] = bytes.try_into().ok()?;
        let (kind, rest) = bytes.split_first()?;
        let (base, tag) = rest.split_first_chunk::<32>()?;
        (*kind == REFUSAL).then_some(Self { base: *base, tag: tag.try_into().ok()? })
    }

    /// The handshake that is refused, by its base key.
    #[must_use]
    pub const fn base(&self) -> &[u8; 32] {
        &self.base
    }

    /// RNW-06: whether the other end of this ticket made it.
    #[must_use]
    pub fn is_genuine(&self, secret: &TicketSecret) -> bool {
        tag(secret, &self.base).ct_eq(&self.tag).into()
    }
}

/// RNW-06: refuses the handshake with this base key, which used a ticket that is used up.
#[must_use]
pub fn refuse(secret: &TicketSecret, base: &[u8; 32]) -> Vec<u8> {
    [&[REFUSAL], base.as_slice(), tag(secret, base).as_slice()].concat()
}

fn tag(secret: &TicketSecret, base: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "32 bytes are a valid length for HKDF-SHA256")]
    Hkdf::<Sha256>::new(None, secret.expose())
        .expand_multi_info(&[labels::RENEWAL_REFUSED.as_bytes(), base], out.as_mut())
        .expect("valid length");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{session::LocalIdentity, testing};

    fn bundle(local: &mut LocalIdentity) -> Bundle {
        testing::one_time_bundle(local, &mut testing::rng(9))
    }

    #[test]
    fn rnw_02_a_ticket_gives_the_bundle_of_its_own_peer_only() {
        let (mut ann, _) = testing::person(1, "ann");
        let (bob, _) = testing::person(2, "bob");
        let ticket = RenewalTicket::new(&bundle(&mut ann), &mut testing::rng(3)).unwrap();
        let back = RenewalTicket::import(ticket.export().expose()).unwrap();
        assert_eq!(back.bundle_of(ann.public()).unwrap().identity(), ann.public());
        assert_eq!(back.bundle_of(bob.public()).unwrap_err(), BadRenewal);
        let garbage = RenewalTicket { secret: back.secret.duplicate(), bundle: vec![1, 2, 3] };
        assert_eq!(garbage.bundle_of(ann.public()).unwrap_err(), BadRenewal);
        assert!(RenewalTicket::import(&[0xa0]).is_err());
    }

    #[test]
    fn rnw_06_a_refusal_is_believed_with_its_tickets_tag_only() {
        let (one, other) = (TicketSecret::from_bytes([1; 32]), TicketSecret::from_bytes([2; 32]));
        let bytes = refuse(&one, &[7; 32]);
        let refusal = RefusalIn::parse(&bytes).unwrap();
        assert_eq!(refusal.base(), &[7; 32]);
        assert!(refusal.is_genuine(&one) && !refusal.is_genuine(&other));
        for at in 1..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(!RefusalIn::parse(&changed).unwrap().is_genuine(&one), "byte {at}");
        }
        for kind in [0, 2, 3, 7, 0x11] {
            let mut changed = bytes.clone();
            changed[0] = kind;
            assert_eq!(RefusalIn::parse(&changed), None);
        }
        for len in 0..bytes.len() {
            assert_eq!(RefusalIn::parse(&bytes[..len]), None);
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let (mut ann, _) = testing::person(1, "ann");
        let ticket = RenewalTicket::new(&bundle(&mut ann), &mut testing::rng(3)).unwrap();
        let successor = Successor { identity: *ann.public(), first: vec![1] };
        assert_eq!(
            format!("{ticket:?} {:?} {successor:?}", ticket.secret),
            "RenewalTicket(..) TicketSecret(..) Successor(..)"
        );
    }
}
