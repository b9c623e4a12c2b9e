//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), fast enough for reading a whole volume.
//!
//! ```text
//! key of one nonce = HChaCha20(key, nonce 0..16)
//! sealed           = ChaCha20-Poly1305 of RFC 8439 under that key, with the nonce 0 0 0 0 | nonce 16..24
//! ```
//! The second line is AWS-LC's, which the transport links anyway: twice as fast as portable code. That both lines together
//! are the usual construction is tested against another implementation of it.
//!
//! Invariants: nothing is handed out before the tag is verified.
//!
//! Known gaps: the key of one nonce may stay on the stack; it opens what was sealed with that nonce, and nothing else.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::{cipher::consts::U10, hchacha};
use zeroize::Zeroize;

/// Bytes of a nonce: enough to draw them at random for ever.
pub const NONCE_LEN: usize = 24;
/// Bytes of a tag.
pub const TAG_LEN: usize = 16;

/// Seals and opens under one key, which it borrows.
#[derive(Clone, Copy)]
pub struct XChaCha<'a>(&'a [u8; 32]);

impl<'a> XChaCha<'a> {
    /// Under this key.
    #[must_use]
    pub fn new(key: &'a [u8; 32]) -> Self {
        Self(key)
    }

    /// Encrypts `text` in place and answers its tag; `None`, with `text` as it was or overwritten, beyond the length that
    /// RFC 8439 allows (256 GiB).
    ///
    /// # Security
    ///
    /// A nonce must never be used twice under one key.
    #[must_use]
    pub fn seal(self, nonce: &[u8; NONCE_LEN], bound: &[u8], text: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        let (key, nonce) = self.of(nonce)?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(bound), text).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Opens `sealed` into `out`, which must be as long. On failure `out` holds zeros.
    #[must_use]
    pub fn open(
        self,
        nonce: &[u8; NONCE_LEN],
        bound: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> bool {
        let opened = self.of(nonce).is_some_and(|(key, nonce)| {
            key.open_separate_gather(nonce, Aad::from(bound), sealed, tag, out).is_ok()
        });
        if !opened {
            out.fill(0);
        }
        opened
    }

    /// Key and nonce of the inner construction.
    fn of(self, nonce: &[u8; NONCE_LEN]) -> Option<(LessSafeKey, Nonce)> {
        let (first, last) = nonce.split_first_chunk::<16>()?;
        let mut inner = [0; 12];
        inner.get_mut(4..)?.copy_from_slice(last);
        let mut key = hchacha::<U10>(self.0.into(), first.into());
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, &key);
        key.as_mut_slice().zeroize();
        Some((LessSafeKey::new(unbound.ok()?), Nonce::assume_unique_for_key(inner)))
    }
}

impl std::fmt::Debug for XChaCha<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("XChaCha(..)")
    }
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::{AeadInPlace, KeyInit, XChaCha20Poly1305};
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_draft_s_own_example_is_met() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1.
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + u8::try_from(i).unwrap());
        let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + u8::try_from(i).unwrap());
        let bound = HEXLOWER.decode(b"50515253c0c1c2c3c4c5c6c7").unwrap();
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let mut sealed = text.to_vec();
        let tag = XChaCha::new(&key).seal(&nonce, &bound, &mut sealed).unwrap();
        assert_eq!(HEXLOWER.encode(&sealed[..16]), "bd6d179d3e83d43b9576579493c0e939");
        assert_eq!(HEXLOWER.encode(&tag), "c0875924c1c7987947deafd8780acf49");
        let mut out = vec![0; sealed.len()];
        assert!(XChaCha::new(&key).open(&nonce, &bound, &sealed, &tag, &mut out));
        assert_eq!(out, text);
    }

    #[test]
    fn another_length_of_the_output_is_refused() {
        let (key, nonce) = ([1; 32], [2; 24]);
        let mut sealed = *b"hello";
        let tag = XChaCha::new(&key).seal(&nonce, b"", &mut sealed).unwrap();
        for length in [0, 4, 6] {
            assert!(!XChaCha::new(&key).open(&nonce, b"", &sealed, &tag, &mut vec![9; length]));
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", XChaCha::new(&[7; 32])), "XChaCha(..)");
    }

    proptest! {
        #[test]
        fn it_is_what_another_implementation_makes(
            key: [u8; 32],
            nonce: [u8; 24],
            bound in prop::collection::vec(any::<u8>(), 0..80),
            text in prop::collection::vec(any::<u8>(), 0..5_000),
            flipped: prop::sample::Index,
        ) {
            let mut sealed = text.clone();
            let tag = XChaCha::new(&key).seal(&nonce, &bound, &mut sealed).unwrap();
            let mut theirs = text.clone();
            let cipher = XChaCha20Poly1305::new(&key.into());
            let their_tag = cipher.encrypt_in_place_detached(&nonce.into(), &bound, &mut theirs).unwrap();
            prop_assert_eq!(&sealed, &theirs);
            prop_assert_eq!(tag.as_slice(), their_tag.as_slice());

            let mut out = vec![9; text.len()];
            prop_assert!(XChaCha::new(&key).open(&nonce, &bound, &sealed, &tag, &mut out));
            prop_assert_eq!(&out, &text);

            let mut all = [sealed.as_slice(), tag.as_slice(), nonce.as_slice(), bound.as_slice()].concat();
            let bit = flipped.index(all.len() * 8);
            all[bit / 8] ^= 1 << (bit % 8);
            let (damaged, rest) = all.split_at(text.len());
            let (tag, rest) = rest.split_first_chunk::<TAG_LEN>().unwrap();
            let (nonce, bound) = rest.split_first_chunk::<NONCE_LEN>().unwrap();
            prop_assert!(!XChaCha::new(&key).open(nonce, bound, damaged, tag, &mut out));
            prop_assert!(out.iter().all(|byte| *byte == 0));
        }
    }
}
