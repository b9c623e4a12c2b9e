//! Evaluating a passphrase that the relay does not see: the OPRF of RFC 9497, mode OPRF(ristretto255, SHA-512).
//!
//! ```text
//! blinded     group element 32       the client's, random whatever the input is
//! evaluated   group element 32       the relay's: blinded times its key
//! output      64                     the client's: Finalize(input, blind, evaluated)
//! key         DeriveKeyPair(seed 32, info empty)
//! ```
//! Invariants: ANC-01 the relay learns nothing of the input, and neither output nor key follow from what is sent; without
//! the key nobody computes an output. Known gap: a client cannot tell which key a relay used; with another one its
//! proof is wrong, which is a relay that refuses.

use std::fmt;

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use voprf::{BlindedElement, EvaluationElement, OprfClient, OprfServer, Ristretto255};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::random::Adapted;

/// Length of an output in bytes.
pub const OUTPUT_LENGTH: usize = 64;

/// The bytes are no group element, or the input has no length that the function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this cannot be evaluated")]
pub struct NotEvaluable;

macro_rules! element {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "serde_bytes")] [u8; 32]);

        impl $name {
            /// With these bytes; whether they are an element is found when they are used.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

element! {
    /// What the client sends.
    Blinded
}
element! {
    /// What the relay answers.
    Evaluated
}

impl Blinded {
    /// Whether it can be evaluated.
    pub fn is_element(&self) -> bool {
        BlindedElement::<Ristretto255>::deserialize(&self.0).is_ok()
    }
}

/// The relay's key, as the seed that it is derived from.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OprfKey(#[serde(with = "serde_bytes")] [u8; 32]);

impl OprfKey {
    /// A new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Self(seed)
    }

    /// The key with this seed.
    pub const fn from_bytes(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The seed, to be sent once or stored.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The relay's step.
    ///
    /// # Errors
    /// [`NotEvaluable`] for bytes that are no element.
    pub fn evaluate(&self, blinded: &Blinded) -> Result<Evaluated, NotEvaluable> {
        let blinded = BlindedElement::<Ristretto255>::deserialize(&blinded.0).map_err(|_| NotEvaluable)?;
        let evaluated = self.server()?.blind_evaluate(&blinded).serialize();
        Ok(Evaluated(evaluated.into()))
    }

    /// The output for an input, for whoever has the key: while an anchor is made.
    ///
    /// # Errors
    /// [`NotEvaluable`] for an empty or too long input.
    pub fn output(&self, input: &[u8]) -> Result<Zeroizing<[u8; OUTPUT_LENGTH]>, NotEvaluable> {
        let output = self.server()?.evaluate(input).map_err(|_| NotEvaluable)?;
        Ok(Zeroizing::new(output.into()))
    }

    fn server(&self) -> Result<OprfServer<Ristretto255>, NotEvaluable> {
        OprfServer::new_from_seed(&self.0, b"").map_err(|_| NotEvaluable)
    }
}

impl fmt::Debug for OprfKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OprfKey(..)")
    }
}

/// What the client keeps between its two steps.
pub struct Blinding {
    client: OprfClient<Ristretto255>,
    input: Zeroizing<Vec<u8>>,
}

impl Blinding {
    /// The client's first step.
    ///
    /// # Errors
    /// [`NotEvaluable`] for an empty or too long input.
    pub fn begin(input: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Result<(Self, Blinded), NotEvaluable> {
        let begun = OprfClient::<Ristretto255>::blind(input, &mut Adapted(rng)).map_err(|_| NotEvaluable)?;
        let blinded = Blinded(begun.message.serialize().into());
        Ok((Self { client: begun.state, input: Zeroizing::new(input.to_vec()) }, blinded))
    }

    /// The client's last step.
    ///
    /// # Errors
    /// [`NotEvaluable`] for an answer that is no element.
    pub fn finish(self, evaluated: &Evaluated) -> Result<Zeroizing<[u8; OUTPUT_LENGTH]>, NotEvaluable> {
        let evaluated =
            EvaluationElement::<Ristretto255>::deserialize(&evaluated.0).map_err(|_| NotEvaluable)?;
        let output = self.client.finalize(&self.input, &evaluated).map_err(|_| NotEvaluable)?;
        Ok(Zeroizing::new(output.into()))
    }
}

impl fmt::Debug for Blinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blinding(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn anc_01_both_ways_lead_to_one_output_and_every_blinding_looks_new() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = OprfKey::generate(&mut rng);
        let output = key.output(b"input").unwrap();
        let mut sent = Vec::new();
        for _ in 0..2 {
            let (blinding, blinded) = Blinding::begin(b"input", &mut rng).unwrap();
            sent.push(blinded);
            assert_eq!(blinding.finish(&key.evaluate(&blinded).unwrap()).unwrap(), output);
        }
        assert_ne!(sent[0], sent[1]);
        assert_ne!(key.output(b"other").unwrap(), output);
        assert_ne!(OprfKey::generate(&mut rng).output(b"input").unwrap(), output);
    }

    /// RFC 9497, appendix A.1.1, with its key derived as in this module but for the info string: so the evaluation of
    /// its blinded elements is checked through `voprf` with its own key, and ours for the shape.
    #[test]
    fn anc_01_the_published_vectors_hold_for_the_library() {
        let server = OprfServer::<Ristretto255>::new_from_seed(&[0xa3; 32], b"test key").unwrap();
        assert_eq!(
            HEXLOWER.encode(&server.serialize()),
            "5ebcea5ee37023ccb9fc2d2019f9d7737be85591ae8652ffa9ef0f4d37063b0e"
        );
        for (input, blinded, evaluated, output) in [
            (
                vec![0x00],
                "609a0ae68c15a3cf6903766461307e5c8bb2f95e7e6550e1ffa2dc99e412803c",
                "7ec6578ae5120958eb2db1745758ff379e77cb64fe77b0b2d8cc917ea0869c7e",
                "527759c3d9366f277d8c6020418d96bb393ba2afb20ff90df23fb7708264e2f3ab9135e3bd69955851de4b1f9fe8a0973396719b7912ba9ee8aa7d0b5e24bcf6",
            ),
            (
                vec![0x5a; 17],
                "da27ef466870f5f15296299850aa088629945a17d1f5b7f5ff043f76b3c06418",
                "b4cbf5a4f1eeda5a63ce7b77c7d23f461db3fcab0dd28e4e17cecb5c90d02c25",
                "f4a74c9c592497375e796aa837e907b1a045d34306a749db9f34221f7e750cb4f2a6413a6bf6fa5e19ba6348eb673934a722a7ede2e7621306d18951e7cf2c73",
            ),
        ] {
            let blinded = BlindedElement::<Ristretto255>::deserialize(&bytes::<32>(blinded)).unwrap();
            assert_eq!(HEXLOWER.encode(&server.blind_evaluate(&blinded).serialize()), evaluated);
            assert_eq!(HEXLOWER.encode(&server.evaluate(&input).unwrap()), output);
        }
    }

    #[test]
    fn what_is_no_element_is_refused() {
        let key = OprfKey::from_bytes([7; 32]);
        for bad in [[0; 32], [0xff; 32]] {
            assert_eq!(key.evaluate(&Blinded::from_bytes(bad)), Err(NotEvaluable));
            let (blinding, _) = Blinding::begin(b"x", &mut ChaCha20Rng::from_seed([2; 32])).unwrap();
            assert_eq!(blinding.finish(&Evaluated::from_bytes(bad)), Err(NotEvaluable));
        }
        assert_eq!(format!("{key:?} {:?}", Blinded::from_bytes([1; 32])), "OprfKey(..) Blinded(..)");
    }
}
