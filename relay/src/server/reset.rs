//! What a relay that was ended and started anew tells clients of before: that it knows nothing of their connections (RFC 9000, 10.3).
//!
//! Such a packet ends with a token that the client was given, inside the connection, for that connection's id: HMAC under a key that
//! the relay derives from its own. Nobody else can make one. To whoever watches it looks like any other packet; it is shorter than
//! the one that it answers, and fifty a second go out at most. After `rotate-key` and a start, clients of before wait until they time out.

use std::sync::Arc;

use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};
use rand_core::RngCore;
use rustls::crypto::{
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    tls13::{Hkdf, OkmBlock},
};

use crate::key::{KeyError, RelaySecret};

/// Derives the key from the relay's.
const LABEL: &[u8] = b"lapwing/1 stateless reset";
/// Bytes of a connection's id.
const ID: usize = 8;

/// What an endpoint is made with.
pub(super) fn endpoint(secret: &RelaySecret) -> Result<EndpointConfig, KeyError> {
    let mut config = EndpointConfig::new(Arc::new(ResetKey::of(secret)?));
    config.cid_generator(|| Box::new(RandomIds));
    Ok(config)
}

struct ResetKey {
    hkdf: &'static dyn Hkdf,
    /// Wiped when it is dropped.
    key: OkmBlock,
}

impl ResetKey {
    fn of(secret: &RelaySecret) -> Result<Self, KeyError> {
        let hkdf = TLS13_AES_128_GCM_SHA256.tls13().ok_or(KeyError::Refused)?.hkdf_provider;
        let key = hkdf.extract_from_secret(None, secret.expose()).expand_block(&[LABEL]);
        Ok(Self { hkdf, key })
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(self.hkdf.hmac_sign(&self.key, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    /// Nobody gives a relay such a token: it refuses all.
    fn verify(&self, _data: &[u8], _signature: &[u8]) -> Result<(), CryptoError> {
        Err(CryptoError)
    }
}

/// The transport's own ids are checked against a key of each start, and packets with others dropped without a word.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID];
        rand::rng().fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_same_after_a_start_and_others_under_another_key() {
        let secret = RelaySecret::generate(&mut rand::rng());
        let of = |secret: &RelaySecret, id: u8| {
            let mut token = [0; 32];
            ResetKey::of(secret).unwrap().sign(&[id; ID], &mut token);
            token
        };
        let again = RelaySecret::from_bytes(secret.expose()).unwrap();
        assert_eq!(of(&secret, 1), of(&again, 1));
        assert_ne!(of(&secret, 1), of(&secret, 2));
        assert_ne!(of(&secret, 1), of(&RelaySecret::generate(&mut rand::rng()), 1));
        assert!(ResetKey::of(&secret).unwrap().key.as_ref() != secret.expose());
        assert!(!lapwing_wire::labels::ALL.contains(&LABEL));
    }
}
