//! Symmetric keys by purpose, and the one way this crate seals bytes outside libsignal.
//!
//! ```text
//! sealed = nonce 24 | XChaCha20-Poly1305 ciphertext | tag 16
//! ```
//!
//! Invariants: nonces are random (192 bits: no counter to lose in a crash); the associated data begin with a label,
//! so that bytes sealed for one purpose open for no other. Known gap: a key holder can seal in anybody's name;
//! authorship is what libsignal or a signature inside proves.
//!
//! Source: draft-irtf-cfrg-xchacha-03, on RFC 8439.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::secret::SecretBytes;

/// Bytes of nonce and tag.
pub(crate) const OVERHEAD: usize = 24 + 16;
const NONCE: usize = 24;

/// Defines a 32-byte symmetric key of one purpose.
macro_rules! symmetric_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Wiped when dropped; no `Clone`, no serde. Copies are explicit: [`Self::duplicate`].
        pub struct $name(zeroize::Zeroizing<[u8; 32]>);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = 32;

            /// A new random key.
            pub fn generate(rng: &mut (impl rand_core::CryptoRng + ?Sized)) -> Self {
                let mut bytes = zeroize::Zeroizing::new([0; 32]);
                rng.fill_bytes(bytes.as_mut());
                Self(bytes)
            }

            /// The key with these bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(zeroize::Zeroizing::new(bytes))
            }

            /// The key's bytes, to be stored or handed on. Handing them on hands on what the key opens.
            #[must_use]
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }

            /// A second copy of the same key.
            #[must_use]
            pub fn duplicate(&self) -> Self {
                Self(self.0.clone())
            }

            pub(crate) fn raw(&self) -> crate::seal::RawSecret {
                crate::seal::RawSecret::new(*self.0)
            }

            pub(crate) fn from_raw(raw: &crate::seal::RawSecret) -> Self {
                Self::from_bytes(*raw.expose())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}
pub(crate) use symmetric_key;

/// 32 secret bytes on their way into or out of an encoding; lives only inside raw structs.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub(crate) struct RawSecret(#[serde(with = "serde_bytes")] [u8; 32]);

impl RawSecret {
    pub(crate) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The bytes were not sealed under this key and these associated data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotSealed;

/// Seals `plain`. Longer by [`OVERHEAD`].
pub(crate) fn seal(key: &[u8; 32], plain: &[u8], aad: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let cipher = XChaCha20Poly1305::new(key.into());
    #[expect(
        clippy::expect_used,
        reason = "the cipher refuses only above 256 GiB, and every caller is bounded"
    )]
    let body =
        cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad }).expect("a short plaintext");
    let mut out = Vec::with_capacity(NONCE + body.len());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    out
}

/// Opens what [`seal`] made.
pub(crate) fn open(key: &[u8; 32], sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, NotSealed> {
    let (nonce, body) = sealed.split_at_checked(NONCE).ok_or(NotSealed)?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let plain =
        cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad }).map_err(|_| NotSealed)?;
    Ok(SecretBytes::new(plain))
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::envelope::EnvelopeKey;

    #[test]
    fn sealed_bytes_open_under_their_key_and_data_only() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = EnvelopeKey::generate(&mut rng);
        let sealed = seal(key.expose(), b"plain", b"aad", &mut rng);
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        assert_eq!(open(key.expose(), &sealed, b"aad").unwrap().expose(), b"plain");
        assert!(open(key.expose(), &sealed, b"other").is_err());
        assert!(open(&[0; 32], &sealed, b"aad").is_err());
        for len in 0..sealed.len() {
            assert!(open(key.expose(), &sealed[..len], b"aad").is_err());
        }
    }

    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1: the cipher behind `open` is the published one.
    #[test]
    fn the_published_vector_opens() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
        };
        let key: [u8; 32] =
            hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f").try_into().unwrap();
        let aad = hex("50515253c0c1c2c3c4c5c6c7");
        let sealed = hex(concat!(
            "404142434445464748494a4b4c4d4e4f5051525354555657",
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39",
            "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9",
            "21f9664c97637da9768812f615c68b13b52e",
            "c0875924c1c7987947deafd8780acf49",
        ));
        let plain = open(&key, &sealed, &aad).unwrap();
        assert!(plain.expose().starts_with(b"Ladies and Gentlemen of the class of '99"));
    }

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", EnvelopeKey::from_bytes([0xA5; 32])), "EnvelopeKey(..)");
    }
}
