//! A session's stored form.
//!
//! CBOR map, at most [`MAX_SESSION_STATE`] bytes, all of it secret:
//!
//! ```text
//! "v"     1
//! "own"   our identity, 32 bytes        "peer"  the peer's identity, 32 bytes
//! "rec"   libsignal's session record
//! "seen"  [ [ ratchet key 32, highest counter ] ]   oldest first
//! "hand"  [ base key 32 ]
//! ```

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use zeroize::Zeroize;

use super::{
    contain::contain,
    error::SessionError,
    guard::{MAX_HANDSHAKES, MAX_RATCHETS, Seen},
    pairwise::{Session, loaded},
};
use crate::{codec, identity::IdentityKey, secret::SecretBytes};

/// Longest libsignal record, in bytes. Usual are 5 KiB; each skipped message adds 80 bytes, and 2,000 for each of
/// five chains are 800 KiB. A message that would make the record longer is refused.
pub(super) const MAX_SESSION_RECORD: usize = 2 << 20;

/// Longest exported session, in bytes.
pub const MAX_SESSION_STATE: usize = MAX_SESSION_RECORD + (4 << 10);

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u8,
    own: ByteArray<32>,
    peer: ByteArray<32>,
    rec: ByteBuf,
    seen: Vec<(ByteArray<32>, u32)>,
    hand: Vec<ByteArray<32>>,
}

impl Session {
    /// All of the session, to be sealed and stored.
    ///
    /// # Errors
    /// Never for a value of this type; the encoder's signature carries an error.
    pub fn export(&self) -> Result<SecretBytes, SessionError> {
        let Self { own, peer, seen: Seen { ratchets, handshakes }, record } = self;
        let mut stored = Stored {
            v: VERSION,
            own: ByteArray::new(*own.as_bytes()),
            peer: ByteArray::new(*peer.as_bytes()),
            rec: ByteBuf::from(record.expose()),
            seen: ratchets.iter().map(|(key, highest)| (ByteArray::new(*key), *highest)).collect(),
            hand: handshakes.iter().map(|base| ByteArray::new(*base)).collect(),
        };
        let bytes = codec::encode(&stored, record.expose().len() + (4 << 10));
        stored.rec.as_mut_slice().zeroize();
        bytes
            .map(|mut bytes| SecretBytes::new(std::mem::take(&mut *bytes)))
            .map_err(|_| SessionError::DamagedRecord)
    }

    /// Reads what [`Session::export`] wrote.
    ///
    /// # Errors
    /// [`SessionError::DamagedRecord`] for other bytes, other versions, other sizes, and a record of other
    /// identities than the stored ones or without a post-quantum ratchet.
    pub fn import(bytes: &[u8]) -> Result<Self, SessionError> {
        let stored: Stored =
            codec::decode(bytes, MAX_SESSION_STATE).map_err(|_| SessionError::DamagedRecord)?;
        let Stored { v, own, peer, rec, seen, hand } = stored;
        let record = SecretBytes::new(rec.into_vec());
        let bounded = v == VERSION
            && record.expose().len() <= MAX_SESSION_RECORD
            && seen.len() <= MAX_RATCHETS
            && hand.len() <= MAX_HANDSHAKES;
        if !bounded {
            return Err(SessionError::DamagedRecord);
        }
        let session = Self {
            own: identity(&own)?,
            peer: identity(&peer)?,
            seen: Seen {
                ratchets: seen.into_iter().map(|(key, highest)| (*key, highest)).collect(),
                handshakes: hand.into_iter().map(|base| *base).collect(),
            },
            record,
        };
        contain(|| session.check_record()).map_err(|_| SessionError::DamagedRecord)??;
        Ok(session)
    }

    fn check_record(&self) -> Result<(), SessionError> {
        let record = loaded(&self.record)?;
        // libsignal's form of a key: a type byte, then the key.
        let is = |bytes: &[u8], key: &IdentityKey| bytes.get(1..) == Some(&key.as_bytes()[..]);
        let own = record.local_identity_key_bytes().map_err(|_| SessionError::DamagedRecord)?;
        let peer = record.remote_identity_key_bytes().map_err(|_| SessionError::DamagedRecord)?;
        let post_quantum = record.current_pq_state().is_some_and(|state| !state.is_empty());
        if post_quantum && is(&own, &self.own) && peer.is_some_and(|peer| is(&peer, &self.peer)) {
            Ok(())
        } else {
            Err(SessionError::DamagedRecord)
        }
    }
}

fn identity(bytes: &[u8; 32]) -> Result<IdentityKey, SessionError> {
    IdentityKey::from_bytes(*bytes).map_err(|_| SessionError::DamagedRecord)
}
