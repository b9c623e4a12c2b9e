//! The door to libsignal: everything that is checked before libsignal sees a byte from outside.
//!
//! ```text
//! session message = type (02 whisper, 03 pre-key, 07 sender key) | libsignal's bytes
//! whisper         = 44 | protobuf { ratchet key, counter, previous counter, ciphertext, pq_ratchet } | MAC 8
//! pre-key         = 44 | protobuf { ids, base key, identity, Kyber ciphertext, whisper }
//! pq_ratchet      = 01 | epoch varint | index varint | type 00..06 | [chunk index varint | chunk 32]
//! ```
//!
//! Invariants: what leaves this module as [`Incoming`] satisfies SES-01 to SES-06 and costs libsignal at most
//! [`MAX_COUNTER_AHEAD`] steps of one chain. Parsing itself runs contained (SES-07).
//!
//! Known gap: the guard cannot tell a forgery from an honest message. A forgery within the bounds costs libsignal the
//! same work: 0.16 ms as a rule, 65 ms at the far end of the counter's range, 16 ms at the far end of the
//! post-quantum index (which libsignal itself bounds at 25,000 cheaper steps), once for each handshake that the
//! session keeps (`benches/session.rs`). Who may deliver bytes to a session at all is the mailbox's matter.

use std::collections::VecDeque;

use libsignal_protocol::{
    KyberPayload, PreKeySignalMessage, PublicKey, SenderKeyMessage, SignalMessage, kem,
};

use super::{contain::contain, error::SessionError};
use crate::identity::{IdentityKey, is_usable, raw};

/// Longest accepted session message, in bytes: the largest envelope. Longer input is refused unread.
pub const MAX_MESSAGE: usize = 64 << 10;

/// SES-04: how far a counter may be ahead of the highest seen for its ratchet key (for a new key: of zero).
///
/// libsignal allows 25,000, which costs it 2 s before the MAC is even checked; 2,000 costs 65 ms and is as many
/// skipped keys as libsignal keeps. A chain that loses more in one piece needs a new handshake.
pub const MAX_COUNTER_AHEAD: u32 = 2_000;

/// Ratchet keys whose counters are remembered. libsignal keeps five chains for each of at most
/// [`MAX_HANDSHAKES`] states; past it the oldest is forgotten, which can only make the guard stricter.
pub(super) const MAX_RATCHETS: usize = 5 * MAX_HANDSHAKES;

/// SES-10: handshakes that one session keeps. Two happen when both sides begin at once. libsignal would keep 41,
/// and try every one of them on each forged message.
pub(super) const MAX_HANDSHAKES: usize = 4;

/// First byte of every message of the one protocol version we speak: PQXDH with the triple ratchet.
const SIGNAL_VERSION: u8 = 0x44;

const TYPE_WHISPER: u8 = 2;
pub(super) const TYPE_PRE_KEY: u8 = 3;
const TYPE_SENDER_KEY: u8 = 7;

/// A message of a pairwise session that passed every check which needs no session.
pub(super) enum Incoming {
    Whisper(SignalMessage),
    PreKey(PreKeySignalMessage),
}

impl Incoming {
    /// SES-01 to SES-03, SES-05: parses the wire form.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SessionError> {
        let (kind, body) = split(bytes)?;
        match kind {
            TYPE_WHISPER => {
                let message = parse_contained(body)?;
                check_whisper(&message)?;
                Ok(Self::Whisper(message))
            }
            TYPE_PRE_KEY => {
                let message: PreKeySignalMessage = parse_contained(body)?;
                check_pre_key(&message)?;
                Ok(Self::PreKey(message))
            }
            _ => Err(SessionError::Malformed),
        }
    }

    fn whisper(&self) -> &SignalMessage {
        match self {
            Self::Whisper(message) => message,
            Self::PreKey(message) => message.message(),
        }
    }
}

/// The wire form of libsignal's bytes.
pub(super) fn wire_form(kind: libsignal_protocol::CiphertextMessageType, body: &[u8]) -> Vec<u8> {
    [&[kind as u8], body].concat()
}

/// SES-01, SES-11: parses a sender-key message.
pub(super) fn parse_sender_key(bytes: &[u8], max_iteration: u32) -> Result<SenderKeyMessage, SessionError> {
    let (TYPE_SENDER_KEY, body) = split(bytes)? else { return Err(SessionError::Malformed) };
    let message: SenderKeyMessage = parse_contained(body)?;
    if message.iteration() >= max_iteration {
        return Err(SessionError::TooFarAhead);
    }
    Ok(message)
}

/// What was seen of a session: the bookkeeping behind SES-04 and SES-10. Stored with the session record.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Ratchet key and highest authenticated counter, oldest key first.
    pub(super) ratchets: VecDeque<([u8; 32], u32)>,
    /// Base keys of the handshakes in the session, ours included.
    pub(super) handshakes: Vec<[u8; 32]>,
}

impl Seen {
    /// SES-04, SES-05, SES-10: checks a parsed message against the session's history.
    pub(super) fn admit(&self, incoming: &Incoming) -> Result<(), SessionError> {
        let whisper = incoming.whisper();
        let ratchet = key_bytes(whisper.sender_ratchet_key())?;
        let highest = self.ratchets.iter().find(|(key, _)| *key == ratchet).map(|(_, highest)| *highest);
        if whisper.counter() > highest.unwrap_or(0).saturating_add(MAX_COUNTER_AHEAD) {
            return Err(SessionError::TooFarAhead);
        }
        // A known key was checked when it was new; the check costs as much as a key agreement.
        if highest.is_none() && !is_usable(whisper.sender_ratchet_key()) {
            return Err(SessionError::WeakKey);
        }
        if let Incoming::PreKey(message) = incoming {
            let base = key_bytes(message.base_key())?;
            if !self.handshakes.contains(&base) && self.handshakes.len() >= MAX_HANDSHAKES {
                return Err(SessionError::TooManyHandshakes);
            }
        }
        Ok(())
    }

    /// Records a message that libsignal authenticated.
    pub(super) fn record(&mut self, incoming: &Incoming) -> Result<(), SessionError> {
        let whisper = incoming.whisper();
        let ratchet = key_bytes(whisper.sender_ratchet_key())?;
        match self.ratchets.iter_mut().find(|(key, _)| *key == ratchet) {
            Some((_, highest)) => *highest = (*highest).max(whisper.counter()),
            None => {
                if self.ratchets.len() >= MAX_RATCHETS {
                    self.ratchets.pop_front();
                }
                self.ratchets.push_back((ratchet, whisper.counter()));
            }
        }
        if let Incoming::PreKey(message) = incoming {
            let base = key_bytes(message.base_key())?;
            if !self.handshakes.contains(&base) {
                self.handshakes.push(base);
            }
        }
        Ok(())
    }
}

/// SES-05 for a key inside a libsignal type.
pub(super) fn checked_identity(key: &PublicKey) -> Result<IdentityKey, SessionError> {
    IdentityKey::from_signal(key).map_err(|_| SessionError::WeakKey)
}

pub(super) fn key_bytes(key: &PublicKey) -> Result<[u8; 32], SessionError> {
    raw(key).map_err(|_| SessionError::Malformed)
}

/// SES-01: a known type, and a size within bounds.
fn split(bytes: &[u8]) -> Result<(u8, &[u8]), SessionError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(SessionError::Malformed);
    }
    let (kind, body) = bytes.split_first().ok_or(SessionError::Malformed)?;
    Ok((*kind, body))
}

fn parse_contained<'a, T>(body: &'a [u8]) -> Result<T, SessionError>
where
    T: TryFrom<&'a [u8]>,
{
    contain(|| T::try_from(body).ok()).map_err(|_| SessionError::Panicked)?.ok_or(SessionError::Malformed)
}

fn check_whisper(message: &SignalMessage) -> Result<(), SessionError> {
    // SES-02.
    if message.serialized().first() != Some(&SIGNAL_VERSION) {
        return Err(SessionError::Malformed);
    }
    check_pq_ratchet(message.pq_ratchet())
}

fn check_pre_key(message: &PreKeySignalMessage) -> Result<(), SessionError> {
    // SES-02: what libsignal parsed must be all there was: it skips unknown fields and bytes after a key, and the
    // outer part of a pre-key message is under no MAC.
    let rebuilt = contain(|| {
        let payload = message
            .kyber_pre_key_id()
            .zip(message.kyber_ciphertext())
            .map(|(id, ciphertext)| KyberPayload::new(id, ciphertext.clone()));
        PreKeySignalMessage::new(
            message.message_version(),
            message.registration_id(),
            message.pre_key_id(),
            message.signed_pre_key_id(),
            payload,
            *message.base_key(),
            *message.identity_key(),
            message.message().clone(),
        )
        .ok()
    })
    .map_err(|_| SessionError::Panicked)?
    .ok_or(SessionError::Malformed)?;
    if rebuilt.serialized() != message.serialized() || message.serialized().first() != Some(&SIGNAL_VERSION) {
        return Err(SessionError::Malformed);
    }
    // SES-02: no handshake without a Kyber ciphertext of the one key type we offer.
    let kyber = message.kyber_ciphertext().ok_or(SessionError::Downgrade)?;
    if kyber.first() != Some(&KYBER_1024) || kyber.len() != KYBER_CIPHERTEXT_LEN {
        return Err(SessionError::Malformed);
    }
    // SES-05.
    if !is_usable(message.base_key()) || !is_usable(message.identity_key().public_key()) {
        return Err(SessionError::WeakKey);
    }
    // SES-03 applies to the message inside as well.
    check_whisper(message.message())
}

/// libsignal's type byte of Kyber-1024 keys and ciphertexts.
const KYBER_1024: u8 = 0x08;
/// Kyber-1024 ciphertext (1568 bytes) with its type byte.
const KYBER_CIPHERTEXT_LEN: usize = 1 + 1568;

/// A Kyber public key of the one type we accept.
pub(super) fn parse_kyber(bytes: &[u8]) -> Result<kem::PublicKey, SessionError> {
    if bytes.first() != Some(&KYBER_1024) {
        return Err(SessionError::Malformed);
    }
    contain(|| kem::PublicKey::deserialize(bytes).ok())
        .map_err(|_| SessionError::Panicked)?
        .ok_or(SessionError::Malformed)
}

/// SES-03: the post-quantum ratchet's field, byte by byte.
///
/// The pinned decoder indexes past the end of `01 01 00`, shifts by more than 63 for long varints and subtracts one
/// from epoch 0. It takes any first byte above 1 as a version to be ignored, which would switch the ratchet off.
fn check_pq_ratchet(field: &[u8]) -> Result<(), SessionError> {
    let (version, rest) = field.split_first().ok_or(SessionError::Downgrade)?;
    if *version != 1 {
        return Err(SessionError::Downgrade);
    }
    let (epoch, rest) = varint(rest, 10)?;
    if epoch == 0 {
        return Err(SessionError::Malformed);
    }
    let (index, rest) = varint(rest, 5)?;
    if index > u64::from(u32::MAX) {
        return Err(SessionError::Malformed);
    }
    let (kind, rest) = rest.split_first().ok_or(SessionError::Malformed)?;
    let rest = match kind {
        // Nothing, and an acknowledgement.
        0 | 4 => rest,
        // Header, key, key with acknowledgement, first and second part of a ciphertext: one chunk each.
        1 | 2 | 3 | 5 | 6 => {
            let (chunk, rest) = varint(rest, 3)?;
            if chunk > u64::from(u16::MAX) {
                return Err(SessionError::Malformed);
            }
            rest.get(32..).ok_or(SessionError::Malformed)?
        }
        _ => return Err(SessionError::Malformed),
    };
    // The decoder would skip what follows; our pinned peers never send any.
    if rest.is_empty() { Ok(()) } else { Err(SessionError::Malformed) }
}

/// One varint of at most `max_len` bytes in its shortest form, and what follows it.
fn varint(bytes: &[u8], max_len: usize) -> Result<(u64, &[u8]), SessionError> {
    let mut value: u64 = 0;
    for (position, byte) in bytes.iter().take(max_len).enumerate() {
        let part = u64::from(byte & 0x7F);
        // Ten bytes carry 70 bits: the last may hold one.
        let shifted = part << (7 * position);
        if shifted >> (7 * position) != part {
            return Err(SessionError::Malformed);
        }
        value |= shifted;
        if byte & 0x80 == 0 {
            if position > 0 && *byte == 0 {
                return Err(SessionError::Malformed);
            }
            let rest = bytes.get(position + 1..).ok_or(SessionError::Malformed)?;
            return Ok((value, rest));
        }
    }
    Err(SessionError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ses_03_well_formed_fields_pass() {
        let chunk = [7; 32];
        assert_eq!(check_pq_ratchet(&[1, 1, 0, 0]), Ok(()));
        assert_eq!(check_pq_ratchet(&[1, 1, 0, 4]), Ok(()));
        for kind in [1, 2, 3, 5, 6] {
            assert_eq!(check_pq_ratchet(&[&[1, 1, 5, kind, 9], &chunk[..]].concat()), Ok(()));
        }
        let largest_epoch = [&[0xFF; 9][..], &[1]].concat();
        assert_eq!(check_pq_ratchet(&[&[1], &largest_epoch[..], &[0, 0]].concat()), Ok(()));
        assert_eq!(check_pq_ratchet(&[1, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0]), Ok(()));
    }

    #[test]
    fn ses_03_missing_or_other_versions_are_a_downgrade() {
        assert_eq!(check_pq_ratchet(&[]), Err(SessionError::Downgrade));
        for version in [0, 2, 3, 0xFF] {
            assert_eq!(check_pq_ratchet(&[version, 1, 0, 0]), Err(SessionError::Downgrade));
        }
    }

    #[test]
    fn ses_03_ill_formed_fields_are_refused() {
        let chunk = [7; 32];
        let bad: [Vec<u8>; 14] = [
            vec![1],
            vec![1, 1],
            vec![1, 1, 0],
            vec![1, 0, 0, 0],
            vec![1, 1, 0, 7],
            vec![1, 1, 0, 0, 0],
            vec![1, 1, 0, 1, 9],
            [&[1, 1, 0, 1, 9][..], &chunk[1..]].concat(),
            [&[1, 1, 0, 1, 0x80, 0x80, 0x04], &chunk[..]].concat(),
            [&[1], &[0x80; 11][..], &[0, 0]].concat(),
            [&[1], &[0xFF; 9][..], &[2, 0, 0]].concat(),
            vec![1, 0x81, 0x00, 0, 0],
            vec![1, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x10, 0],
            vec![1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
        ];
        for field in bad {
            assert_eq!(check_pq_ratchet(&field), Err(SessionError::Malformed), "{field:02x?}");
        }
    }

    fn whisper(ratchet: PublicKey, counter: u32) -> Incoming {
        let identity = libsignal_protocol::IdentityKey::new(ratchet);
        let message =
            SignalMessage::new(4, &[0; 32], ratchet, counter, 0, b"c", &identity, &identity, &[1, 1, 0, 0]);
        Incoming::Whisper(message.unwrap())
    }

    fn ratchet_key() -> PublicKey {
        libsignal_protocol::KeyPair::generate(&mut rand::rng()).public_key
    }

    #[test]
    fn ses_04_the_bound_moves_with_the_highest_counter_of_the_same_ratchet_key() {
        let (key, other) = (ratchet_key(), ratchet_key());
        let mut seen = Seen::default();
        assert_eq!(seen.admit(&whisper(key, MAX_COUNTER_AHEAD)), Ok(()));
        assert_eq!(seen.admit(&whisper(key, MAX_COUNTER_AHEAD + 1)), Err(SessionError::TooFarAhead));
        seen.record(&whisper(key, 1_500)).unwrap();
        seen.record(&whisper(key, 3)).unwrap();
        assert_eq!(seen.admit(&whisper(key, 1_500 + MAX_COUNTER_AHEAD)), Ok(()));
        assert_eq!(seen.admit(&whisper(key, 1_501 + MAX_COUNTER_AHEAD)), Err(SessionError::TooFarAhead));
        assert_eq!(seen.admit(&whisper(other, MAX_COUNTER_AHEAD + 1)), Err(SessionError::TooFarAhead));
        assert_eq!(seen.admit(&whisper(key, 0)), Ok(()));
    }

    #[test]
    fn ses_04_the_memory_of_ratchet_keys_is_bounded() {
        let mut seen = Seen::default();
        for counter in 0..100 {
            seen.record(&whisper(ratchet_key(), counter)).unwrap();
        }
        assert_eq!(seen.ratchets.len(), MAX_RATCHETS);
        assert_eq!(seen.ratchets.back().unwrap().1, 99);
    }

    #[test]
    fn ses_05_a_new_low_order_ratchet_key_is_refused() {
        let zero = PublicKey::from_djb_public_key_bytes(&[0; 32]).unwrap();
        assert_eq!(Seen::default().admit(&whisper(zero, 0)), Err(SessionError::WeakKey));
    }
}
