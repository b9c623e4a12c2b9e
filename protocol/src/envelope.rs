//! What a relay carries: content sealed for one mailbox, in one of four sizes.
//!
//! ```text
//! envelope   = nonce 24 | XChaCha20-Poly1305( padded content ) | tag 16        1, 4, 16 or 64 KiB in all
//! padded     = content | 80 | 00 ...                                           up to the envelope's class
//! associated = "lapwing/1 envelope" 00 | mailbox id 32
//! ```
//!
//! Invariants: an envelope has one of four lengths and is otherwise random bytes (ENV-01, ENV-02); it opens for its
//! mailbox only (ENV-03); whatever is wrong with it, the answer is the same (ENV-04).
//! Known gap: everybody who may write to a mailbox shares its envelope key, so an envelope proves nothing about its
//! author. What lies inside (a session message, a signed alert) does.

use lapwing_wire::{
    ids::MailboxId,
    padding::{self, SizeClass},
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    labels,
    seal::{self, symmetric_key},
    secret::SecretBytes,
};

symmetric_key! {
    /// Seals the envelopes of one mailbox.
    EnvelopeKey
}

/// Most bytes that one envelope holds; longer content is split or sent as an attachment.
pub const MAX_CONTENT: usize = SizeClass::Huge.sealed_len() - seal::OVERHEAD - 1;

/// The content does not fit into the largest envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the content does not fit into one envelope")]
pub struct TooLong;

/// ENV-04: not an envelope of this mailbox under this key: a wrong length, another key, another mailbox, changed
/// bytes or broken padding, all alike. Drop it; the relay or somebody with the write capability is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the envelope cannot be opened")]
pub struct BadEnvelope;

/// Seals `content` for `mailbox`, in the smallest class that holds it.
///
/// # Errors
/// [`TooLong`] above [`MAX_CONTENT`] bytes.
pub fn seal(
    key: &EnvelopeKey,
    mailbox: &MailboxId,
    content: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, TooLong> {
    // ENV-01: the smallest of the four classes.
    let class = SizeClass::fitting(content.len(), seal::OVERHEAD).ok_or(TooLong)?;
    let inner = class.sealed_len() - seal::OVERHEAD;
    let mut copy = Vec::with_capacity(inner);
    copy.extend_from_slice(content);
    let padded = Zeroizing::new(padding::pad(copy, inner).ok_or(TooLong)?);
    Ok(seal::seal(key.expose(), &padded, &associated(mailbox), rng))
}

/// Opens an envelope taken from `mailbox`.
///
/// # Errors
/// [`BadEnvelope`] for every reason alike.
pub fn open(key: &EnvelopeKey, mailbox: &MailboxId, envelope: &[u8]) -> Result<SecretBytes, BadEnvelope> {
    // ENV-02: one of four lengths, before any work.
    SizeClass::of_sealed(envelope.len()).ok_or(BadEnvelope)?;
    let padded = seal::open(key.expose(), envelope, &associated(mailbox)).map_err(|_| BadEnvelope)?;
    let content = padding::unpad(padded.expose().to_vec()).map(SecretBytes::new);
    content.ok_or(BadEnvelope)
}

/// ENV-03: the mailbox is part of what is authenticated.
fn associated(mailbox: &MailboxId) -> Vec<u8> {
    let mut data = labels::ENVELOPE.as_bytes().to_vec();
    data.push(0);
    data.extend_from_slice(mailbox.as_bytes());
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    fn parts() -> (EnvelopeKey, MailboxId, ChaCha20Rng) {
        (EnvelopeKey::from_bytes([1; 32]), MailboxId::from_bytes([2; 32]), ChaCha20Rng::from_seed([3; 32]))
    }

    #[test]
    fn env_01_the_smallest_class_is_taken_and_the_largest_content_fits() {
        let (key, mailbox, mut rng) = parts();
        let overhead = seal::OVERHEAD + 1;
        for (len, total) in [
            (0, 1 << 10),
            ((1 << 10) - overhead, 1 << 10),
            ((1 << 10) - overhead + 1, 4 << 10),
            ((16 << 10) - overhead, 16 << 10),
            (MAX_CONTENT, 64 << 10),
        ] {
            let content = vec![0x80; len];
            let envelope = seal(&key, &mailbox, &content, &mut rng).unwrap();
            assert_eq!(envelope.len(), total);
            assert_eq!(open(&key, &mailbox, &envelope).unwrap().expose(), content);
        }
        assert_eq!(seal(&key, &mailbox, &vec![0; MAX_CONTENT + 1], &mut rng), Err(TooLong));
    }

    #[test]
    fn env_02_other_lengths_are_refused_even_if_sealed_rightly() {
        let (key, mailbox, mut rng) = parts();
        let odd = seal::seal(key.expose(), &[0x80; 500], &associated(&mailbox), &mut rng);
        assert_eq!(open(&key, &mailbox, &odd).unwrap_err(), BadEnvelope);
    }

    #[test]
    fn env_03_an_envelope_opens_for_its_mailbox_and_key_only() {
        let (key, mailbox, mut rng) = parts();
        let envelope = seal(&key, &mailbox, b"content", &mut rng).unwrap();
        assert_eq!(open(&key, &MailboxId::from_bytes([9; 32]), &envelope).unwrap_err(), BadEnvelope);
        assert_eq!(open(&EnvelopeKey::from_bytes([9; 32]), &mailbox, &envelope).unwrap_err(), BadEnvelope);
    }

    #[test]
    fn env_04_content_without_padding_is_refused() {
        let (key, mailbox, mut rng) = parts();
        for padded in [[0; 1024 - seal::OVERHEAD], [7; 1024 - seal::OVERHEAD]] {
            let envelope = seal::seal(key.expose(), &padded, &associated(&mailbox), &mut rng);
            assert_eq!(open(&key, &mailbox, &envelope).unwrap_err(), BadEnvelope);
        }
    }

    #[test]
    fn equal_content_gives_unequal_envelopes() {
        let (key, mailbox, mut rng) = parts();
        let first = seal(&key, &mailbox, b"content", &mut rng).unwrap();
        assert_ne!(first, seal(&key, &mailbox, b"content", &mut rng).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn envelopes_round_trip(content in prop::collection::vec(any::<u8>(), 0..5_000)) {
            let (key, mailbox, mut rng) = parts();
            let envelope = seal(&key, &mailbox, &content, &mut rng).unwrap();
            prop_assert!(SizeClass::of_sealed(envelope.len()).is_some());
            let opened = open(&key, &mailbox, &envelope).unwrap();
            prop_assert_eq!(opened.expose(), &content[..]);
        }

        #[test]
        fn changed_envelopes_never_open(at in 0usize..1024, flip in 1u8..) {
            let (key, mailbox, mut rng) = parts();
            let mut envelope = seal(&key, &mailbox, b"content", &mut rng).unwrap();
            envelope[at] ^= flip;
            prop_assert!(open(&key, &mailbox, &envelope).is_err());
        }
    }
}
