//! The relay's Ed25519 key, which is its name, and the TLS configuration that shows it.
//!
//! The file holds the 32-byte seed (RFC 8032), mode 0600. Clients know the hash of the SubjectPublicKeyInfo
//! (RFC 7250) and accept nothing else; there is no certificate, no name and no date to expire.

use std::{fmt, sync::Arc};

use lapwing_wire::{
    address::RelayKey,
    capability::{RelayIdentity, SecretKey},
    succession::Succession,
};
use rand_core::CryptoRng;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage},
    sign::{CertifiedKey, SigningKey},
};
use zeroize::Zeroizing;

/// PKCS #8 (RFC 8410) of an Ed25519 key, up to its seed.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A seed that is no key, or a configuration that the TLS library refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key file does not hold 32 bytes.
    #[error("the relay's key file is damaged")]
    Damaged,
    /// The TLS library refused the key or the configuration: a defect of this program.
    #[error("the TLS library refused the relay's key")]
    Refused,
}

/// The relay's secret key.
pub struct RelaySecret {
    seed: Zeroizing<[u8; 32]>,
}

impl RelaySecret {
    /// A new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self { seed }
    }

    /// From the bytes of a key file.
    ///
    /// # Errors
    /// [`KeyError::Damaged`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let seed: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Damaged)?;
        Ok(Self { seed: Zeroizing::new(seed) })
    }

    /// The bytes of its file.
    pub fn expose(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The name under which clients know the relay.
    ///
    /// # Errors
    /// [`KeyError::Refused`].
    pub fn public(&self) -> Result<RelayKey, KeyError> {
        let key = self.signing_key()?;
        let spki = key.public_key().ok_or(KeyError::Refused)?;
        Ok(RelayKey::of_spki(&spki))
    }

    /// SUC-01: this key's word for the next one.
    ///
    /// # Errors
    /// [`KeyError::Refused`].
    pub fn name_successor(&self, next: &Self) -> Result<Succession, KeyError> {
        let by = SecretKey::<RelayIdentity>::from_seed(*self.seed);
        Ok(Succession::signed(&by, next.public()?))
    }

    /// TLS 1.3 with X25519MLKEM768 only, this key as a raw public key, no resumption, no early data.
    ///
    /// # Errors
    /// [`KeyError::Refused`].
    pub fn tls(&self, alpn: &[u8]) -> Result<ServerConfig, KeyError> {
        let key = self.signing_key()?;
        let spki = key.public_key().ok_or(KeyError::Refused)?;
        let shown = CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], key);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| KeyError::Refused)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(shown))));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn signing_key(&self) -> Result<Arc<dyn SigningKey>, KeyError> {
        let mut der = Zeroizing::new(PKCS8_HEAD.to_vec());
        der.extend_from_slice(self.seed.as_ref());
        let der = PrivatePkcs8KeyDer::from(der.as_slice());
        aws_lc_rs::sign::any_eddsa_type(&der).map_err(|_| KeyError::Refused)
    }
}

impl fmt::Debug for RelaySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed: _ } = self;
        f.write_str("RelaySecret(..)")
    }
}

/// A quantum computer of the future must not open what is recorded today: no classical key exchange is offered.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    Arc::new(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let secret = RelaySecret::generate(&mut rand::rng());
        let again = RelaySecret::from_bytes(secret.expose()).unwrap();
        assert_eq!(secret.public().unwrap(), again.public().unwrap());
        assert_eq!(RelaySecret::from_bytes(&[1; 31]).unwrap_err(), KeyError::Damaged);
        assert_eq!(format!("{secret:?}"), "RelaySecret(..)");
    }

    #[test]
    fn suc_01_the_word_of_a_key_is_of_the_key_that_tls_shows() {
        let [old, new] = [(); 2].map(|()| RelaySecret::generate(&mut rand::rng()));
        let word = old.name_successor(&new).unwrap();
        assert_eq!(word.claimed_by(), old.public().unwrap());
        assert!(lapwing_wire::succession::leads(&[word], &old.public().unwrap(), &new.public().unwrap()));
    }
}
