//! What a relay that was ended and started anew tells clients of before: that it knows nothing of their connections (RFC 9000, 10.3).
//!
//! Such a packet ends with a token that the client was given, inside the connection, for that connection's id: HMAC under a key that
//! the relay derives from its own. Nobody else can make one. The packet is shorter than the one that it answers, and fifty a second
//! go out at most. Its other bytes are random, so it lacks the id that the client chose for itself: whoever saw the connection from its
//! beginning can tell what it is.
//!
//! Only packets to ids that this relay's key made are answered: another key, derived from the relay's too, vouches for each in its last
//! bytes. Others, scans of UDP say, get no answer and use nothing of the fifty. Without the key an id is like random bytes.
//!
//! After `rotate-key` both keys are the new ones. Connections that are open go on, because ids that are known are not checked; but
//! once the relay was started again, clients with ids from before the change wait until they time out.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};
use quinn_proto::InvalidCid;
use rand_core::RngCore;
use rustls::crypto::{
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    tls13::{Hkdf, OkmBlock},
};

use crate::key::{KeyError, RelaySecret};

/// Derives the key of tokens from the relay's.
const TOKEN_LABEL: &[u8] = b"lapwing/1 stateless reset";
/// Derives the key that vouches for ids.
const ID_LABEL: &[u8] = b"lapwing/1 connection id";
/// Random bytes of a connection's id. No two ids of a key may be the same, ever: who was given one's token could end the other.
const NONCE: usize = 8;
/// Bytes that vouch for them: of 4,000,000,000 packets with other ids one is answered.
const TAG: usize = 4;
/// Bytes of a connection's id.
const ID: usize = NONCE + TAG;

/// The keys of ids and of their tokens.
pub(super) struct Resets {
    hkdf: &'static dyn Hkdf,
    keys: RwLock<Keys>,
}

/// Wiped when they are dropped.
struct Keys {
    token: OkmBlock,
    id: OkmBlock,
}

impl Keys {
    fn of(hkdf: &dyn Hkdf, secret: &RelaySecret) -> Self {
        let expander = hkdf.extract_from_secret(None, secret.expose());
        Self { token: expander.expand_block(&[TOKEN_LABEL]), id: expander.expand_block(&[ID_LABEL]) }
    }
}

impl Resets {
    /// Of a relay's key.
    pub(super) fn of(secret: &RelaySecret) -> Result<Arc<Self>, KeyError> {
        let hkdf = TLS13_AES_128_GCM_SHA256.tls13().ok_or(KeyError::Refused)?.hkdf_provider;
        Ok(Arc::new(Self { hkdf, keys: RwLock::new(Keys::of(hkdf, secret)) }))
    }

    /// What an endpoint is made with.
    pub(super) fn endpoint(self: &Arc<Self>) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::clone(self) as Arc<dyn HmacKey>);
        let resets = Arc::clone(self);
        config.cid_generator(move || Box::new(Ids(Arc::clone(&resets))));
        config
    }

    /// Makes ids and tokens under another key from now on.
    pub(super) fn set_key(&self, secret: &RelaySecret) {
        let keys = Keys::of(self.hkdf, secret);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tag(&self, nonce: &[u8]) -> [u8; TAG] {
        let tag = self.hkdf.hmac_sign(&self.keys().id, nonce);
        std::array::from_fn(|at| tag.as_ref().get(at).copied().unwrap_or_default())
    }
}

impl HmacKey for Resets {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(self.hkdf.hmac_sign(&self.keys().token, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    /// Nobody gives a relay such a token: it refuses all.
    fn verify(&self, _data: &[u8], _signature: &[u8]) -> Result<(), CryptoError> {
        Err(CryptoError)
    }
}

/// The transport's own are checked against a key of each start, and packets with others dropped without a word. Its check under a
/// lasting key would tell an observer which ids are of one relay: it is no HMAC.
struct Ids(Arc<Resets>);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID];
        let (nonce, tag) = id.split_at_mut(NONCE);
        rand::rng().fill_bytes(nonce);
        tag.copy_from_slice(&self.0.tag(nonce));
        ConnectionId::new(&id)
    }

    /// Asked for packets of no connection only: one HMAC each.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(NONCE) {
            Some((nonce, tag)) if tag == self.0.tag(nonce) => Ok(()),
            _ => Err(InvalidCid),
        }
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
    use std::time::Duration;

    use tokio::net::UdpSocket;

    use super::*;
    use crate::server::{ServerOptions, handshake};

    fn resets(secret: &RelaySecret) -> Arc<Resets> {
        Resets::of(secret).unwrap()
    }

    fn token(resets: &Resets, id: &[u8]) -> [u8; 32] {
        let mut token = [0; 32];
        resets.sign(id, &mut token);
        token
    }

    #[test]
    fn tokens_and_ids_are_known_after_a_start_and_unknown_under_another_key() {
        let [secret, other] = [(); 2].map(|()| RelaySecret::generate(&mut rand::rng()));
        let again = RelaySecret::from_bytes(secret.expose()).unwrap();
        let (first, next, foreign) = (resets(&secret), resets(&again), resets(&other));
        assert_eq!(token(&first, &[1; ID]), token(&next, &[1; ID]));
        assert_ne!(token(&first, &[1; ID]), token(&first, &[2; ID]));
        assert_ne!(token(&first, &[1; ID]), token(&foreign, &[1; ID]));

        let id = Ids(Arc::clone(&first)).generate_cid();
        assert!(Ids(Arc::clone(&next)).validate(&id).is_ok());
        assert!(Ids(Arc::clone(&foreign)).validate(&id).is_err());
        // Of a relay that changed its key while it ran, as of one that was started with it.
        first.set_key(&other);
        assert_eq!(token(&first, &id), token(&foreign, &id));
        assert!(Ids(Arc::clone(&first)).validate(&id).is_err());
        assert!(Ids(foreign).validate(&Ids(first).generate_cid()).is_ok());
    }

    #[test]
    fn every_bit_of_an_id_counts_and_the_keys_are_different() {
        let secret = RelaySecret::generate(&mut rand::rng());
        let resets = resets(&secret);
        let mut ids = Ids(Arc::clone(&resets));
        let id = ids.generate_cid();
        assert_ne!(id[..NONCE], ids.generate_cid()[..NONCE]);
        for bit in 0..8 * ID {
            let mut other = [0; ID];
            other.copy_from_slice(&id);
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(ids.validate(&ConnectionId::new(&other)).is_err(), "bit {bit}");
        }
        for length in 0..ID {
            assert!(ids.validate(&ConnectionId::new(&id[..length])).is_err(), "{length} bytes");
        }
        let keys = resets.keys();
        let bytes = [keys.token.as_ref(), keys.id.as_ref(), secret.expose()];
        assert!(bytes[0] != bytes[1] && bytes[0] != bytes[2] && bytes[1] != bytes[2]);
        for label in [TOKEN_LABEL, ID_LABEL] {
            assert!(!lapwing_wire::labels::ALL.contains(&label));
        }
    }

    /// Answers come in the order of the packets: what is answered first was the first that is answered at all.
    #[tokio::test]
    async fn only_packets_to_ids_of_the_relays_key_are_answered() {
        let secret = RelaySecret::generate(&mut rand::rng());
        let resets = resets(&secret);
        let options = ServerOptions::default();
        let config = handshake(&options, &secret).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint =
            quinn::Endpoint::new(resets.endpoint(), Some(config), socket, Arc::new(quinn::TokioRuntime))
                .unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(endpoint.local_addr().unwrap()).await.unwrap();

        // The bit that says QUIC may be set or not; the first bit is that of long headers.
        for first in [0x00, 0x16, 0x3f, 0x40, 0x7f] {
            for length in [22, 40, 100, 1200] {
                client.send(&vec![first; length]).await.unwrap();
            }
        }
        let id = Ids(Arc::clone(&resets)).generate_cid();
        let packet = [&[0x40], &id[..], &[0x5a; 60]].concat();
        client.send(&packet).await.unwrap();
        let mut answer = [0; 1500];
        let length = tokio::time::timeout(Duration::from_secs(20), client.recv(&mut answer)).await;
        let length = length.expect("an answer").unwrap();
        assert!(length < packet.len());
        assert_eq!(answer[length - 16..length], token(&resets, &id)[..16], "of the first that is answered");
        endpoint.close(0u32.into(), b"");
    }
}
