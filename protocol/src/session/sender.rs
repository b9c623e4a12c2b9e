//! Sender keys: one ciphertext for all members of a group.
//!
//! An author makes a sender key, hands its distribution to every member through their pairwise sessions, and then
//! encrypts each message once. Sender keys are libsignal's: a symmetric chain, and a signature by a key that
//! belongs to the chain. They have no post-quantum part and no healing of their own: both come from the pairwise
//! sessions that carry the distributions, so an author rotates often (SES-11).
//!
//! ```text
//! message      = 07 | 33 | protobuf { distribution id, chain id, iteration, ciphertext } | signature 64
//! distribution = 33 | protobuf { distribution id, chain id, iteration, chain key, signing key }      secret
//! ```
//!
//! Stored forms: CBOR maps, at most [`MAX_SENDER_STATE`] bytes, secret: `{ "v": 1, "author": 32 bytes,
//! "dist": 16 bytes, "rec": libsignal's record }`, for an own key with `"sent": number`.
//!
//! Invariant: a distribution makes a key only once. Who accepts a distribution again after messages were decrypted
//! would accept those messages again; [`PeerSenderKey::distribution_id`] tells which keys are already there.

use std::fmt;

use libsignal_protocol::{
    CiphertextMessageType, SenderKeyDistributionMessage, SenderKeyRecord,
    create_sender_key_distribution_message, group_decrypt, group_encrypt,
    process_sender_key_distribution_message,
};
use rand::Rng;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use uuid::{Builder, Uuid};
use zeroize::Zeroize;

use super::{
    binding::{Binding, Context},
    contain::contain,
    error::SessionError,
    guard,
    pairwise::{Ciphertext, MAX_PLAINTEXT},
    store::{OneSenderKey, address, complete},
};
use crate::{codec, identity::IdentityKey, secret::SecretBytes};

/// SES-11: messages that one sender key may encrypt. libsignal lets a receiver jump 25,000 ahead; with this bound
/// no signed message costs a receiver more than 2,000 steps, and whoever lost all of them can still catch up.
pub const MAX_SENDER_KEY_MESSAGES: u32 = 2_000;

/// Longest distribution, in bytes: 96 are needed.
pub const MAX_DISTRIBUTION: usize = 256;

/// Longest exported sender key, in bytes: 2,000 skipped messages take 45 bytes each.
pub const MAX_SENDER_STATE: usize = 128 << 10;

const VERSION: u8 = 1;

/// First byte of a distribution: the one version of sender keys.
const SENDER_KEY_VERSION: u8 = 0x33;

/// Which sender key: random, new with every rotation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DistributionId([u8; 16]);

impl DistributionId {
    /// The id's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    const fn uuid(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }
}

impl fmt::Debug for DistributionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DistributionId(..)")
    }
}

/// Which sender key a message needs, without decrypting it.
///
/// # Errors
/// As [`PeerSenderKey::decrypt`] for malformed input.
pub fn distribution_of(message: &[u8]) -> Result<DistributionId, SessionError> {
    let message = guard::parse_sender_key(message, MAX_SENDER_KEY_MESSAGES)?;
    Ok(DistributionId(message.distribution_id().into_bytes()))
}

/// A sender key of our own.
pub struct OwnSenderKey {
    author: IdentityKey,
    distribution: DistributionId,
    sent: u32,
    record: SecretBytes,
}

impl OwnSenderKey {
    /// A new sender key of `author` under a new distribution id. Rotation is the same: make a new one, distribute
    /// it, drop the old one.
    ///
    /// # Errors
    /// [`SessionError::Panicked`] or [`SessionError::DamagedRecord`] if libsignal fails, which no input can cause.
    pub fn generate<R: CryptoRng>(author: &IdentityKey, rng: &mut R) -> Result<Self, SessionError> {
        let distribution = DistributionId(Builder::from_random_bytes(rng.random()).into_uuid().into_bytes());
        let address = address(author)?;
        let record = contain(|| {
            let mut store = OneSenderKey(None);
            complete(create_sender_key_distribution_message(&address, distribution.uuid(), &mut store, rng))?;
            stored(store)
        })
        .map_err(|_| SessionError::Panicked)??;
        Ok(Self { author: *author, distribution, sent: 0, record })
    }

    /// Which sender key this is.
    #[must_use]
    pub const fn distribution_id(&self) -> DistributionId {
        self.distribution
    }

    /// Messages encrypted so far: the group rotates by this number.
    #[must_use]
    pub const fn sent(&self) -> u32 {
        self.sent
    }

    /// What a member needs to decrypt from the next message on; earlier ones stay closed to it.
    ///
    /// # Errors
    /// [`SessionError::DamagedRecord`] if the stored record cannot be read.
    ///
    /// # Security
    /// Secret: it goes through pairwise sessions only.
    pub fn distribution<R: CryptoRng>(&self, rng: &mut R) -> Result<SecretBytes, SessionError> {
        let address = address(&self.author)?;
        contain(|| {
            let mut store = OneSenderKey(Some(loaded(&self.record)?));
            let message = complete(create_sender_key_distribution_message(
                &address,
                self.distribution.uuid(),
                &mut store,
                rng,
            ))?;
            Ok(SecretBytes::copy_of(message.serialized()))
        })
        .map_err(|_| SessionError::Panicked)?
    }

    /// Encrypts one message for all holders of the distribution, bound to author and `context` (SES-08).
    ///
    /// # Errors
    /// [`SessionError::SenderKeyUsedUp`] after [`MAX_SENDER_KEY_MESSAGES`], [`SessionError::TooLong`] above
    /// [`MAX_PLAINTEXT`].
    ///
    /// # Security
    /// Store key and ciphertext in one transaction before sending (SES-14).
    pub fn encrypt<R: CryptoRng>(
        &mut self,
        plaintext: &[u8],
        context: Context<'_>,
        rng: &mut R,
    ) -> Result<Ciphertext, SessionError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(SessionError::TooLong);
        }
        if self.sent >= MAX_SENDER_KEY_MESSAGES {
            return Err(SessionError::SenderKeyUsedUp);
        }
        let framed = Binding::group(&self.author, context).frame(plaintext);
        let address = address(&self.author)?;
        let (record, message) = contain(|| {
            let mut store = OneSenderKey(Some(loaded(&self.record)?));
            let id = self.distribution.uuid();
            let message = complete(group_encrypt(&mut store, &address, id, framed.expose(), rng))?;
            Ok::<_, SessionError>((stored(store)?, message))
        })
        .map_err(|_| SessionError::Panicked)??;
        self.record = record;
        self.sent += 1;
        Ok(Ciphertext::new(guard::wire_form(CiphertextMessageType::SenderKey, message.serialized())))
    }

    /// All of the key, to be sealed and stored.
    ///
    /// # Errors
    /// Never for a value of this type; the encoder's signature carries an error.
    pub fn export(&self) -> Result<SecretBytes, SessionError> {
        let Self { author, distribution, sent, record } = self;
        export(author, *distribution, Some(*sent), record)
    }

    /// Reads what [`OwnSenderKey::export`] wrote.
    ///
    /// # Errors
    /// [`SessionError::DamagedRecord`] for anything else.
    pub fn import(bytes: &[u8]) -> Result<Self, SessionError> {
        let (author, distribution, sent, record) = import(bytes)?;
        let sent = sent.filter(|sent| *sent <= MAX_SENDER_KEY_MESSAGES).ok_or(SessionError::DamagedRecord)?;
        Ok(Self { author, distribution, sent, record })
    }
}

/// A sender key of another member.
pub struct PeerSenderKey {
    author: IdentityKey,
    distribution: DistributionId,
    record: SecretBytes,
}

impl PeerSenderKey {
    /// Takes over a distribution that `author` sent through the pairwise session.
    ///
    /// # Errors
    /// [`SessionError::Malformed`] for other bytes, [`SessionError::WeakKey`] for an unusable signing key,
    /// [`SessionError::TooFarAhead`] for a chain that may not encrypt any more.
    pub fn accept(author: &IdentityKey, distribution: &[u8]) -> Result<Self, SessionError> {
        let message = parse_distribution(distribution)?;
        let id = message.distribution_id()?;
        let address = address(author)?;
        let record = contain(|| {
            let mut store = OneSenderKey(None);
            complete(process_sender_key_distribution_message(&address, &message, &mut store))?;
            stored(store)
        })
        .map_err(|_| SessionError::Panicked)??;
        Ok(Self { author: *author, distribution: DistributionId(id.into_bytes()), record })
    }

    /// Whose key this is.
    #[must_use]
    pub const fn author(&self) -> &IdentityKey {
        &self.author
    }

    /// Which sender key this is.
    #[must_use]
    pub const fn distribution_id(&self) -> DistributionId {
        self.distribution
    }

    /// Decrypts one message of the author.
    ///
    /// # Errors
    /// [`SessionError::Undecryptable`] for a message under another sender key, [`SessionError::BadSignature`] for
    /// one the author did not make; otherwise one variant per rule. The key is unchanged then.
    pub fn decrypt(&mut self, message: &[u8], context: Context<'_>) -> Result<SecretBytes, SessionError> {
        let parsed = guard::parse_sender_key(message, MAX_SENDER_KEY_MESSAGES)?;
        if parsed.distribution_id() != self.distribution.uuid() {
            return Err(SessionError::Undecryptable);
        }
        let address = address(&self.author)?;
        let (record, framed) = contain(|| {
            let mut store = OneSenderKey(Some(loaded(&self.record)?));
            let framed = complete(group_decrypt(parsed.serialized(), &mut store, &address))?;
            Ok::<_, SessionError>((stored(store)?, SecretBytes::new(framed)))
        })
        .map_err(|_| SessionError::Panicked)??;
        let plaintext = Binding::group(&self.author, context).open(framed)?;
        self.record = record;
        Ok(plaintext)
    }

    /// All of the key, to be sealed and stored.
    ///
    /// # Errors
    /// Never for a value of this type; the encoder's signature carries an error.
    pub fn export(&self) -> Result<SecretBytes, SessionError> {
        let Self { author, distribution, record } = self;
        export(author, *distribution, None, record)
    }

    /// Reads what [`PeerSenderKey::export`] wrote.
    ///
    /// # Errors
    /// [`SessionError::DamagedRecord`] for anything else.
    pub fn import(bytes: &[u8]) -> Result<Self, SessionError> {
        let (author, distribution, sent, record) = import(bytes)?;
        if sent.is_some() {
            return Err(SessionError::DamagedRecord);
        }
        Ok(Self { author, distribution, record })
    }
}

impl fmt::Debug for OwnSenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { author: _, distribution: _, sent: _, record: _ } = self;
        f.write_str("OwnSenderKey(..)")
    }
}

impl fmt::Debug for PeerSenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { author: _, distribution: _, record: _ } = self;
        f.write_str("PeerSenderKey(..)")
    }
}

/// SES-01, SES-05, SES-11 for a distribution.
fn parse_distribution(bytes: &[u8]) -> Result<SenderKeyDistributionMessage, SessionError> {
    if bytes.len() > MAX_DISTRIBUTION || bytes.first() != Some(&SENDER_KEY_VERSION) {
        return Err(SessionError::Malformed);
    }
    let message = contain(|| SenderKeyDistributionMessage::try_from(bytes).ok())
        .map_err(|_| SessionError::Panicked)?
        .ok_or(SessionError::Malformed)?;
    guard::checked_identity(message.signing_key()?)?;
    if message.iteration()? > MAX_SENDER_KEY_MESSAGES {
        return Err(SessionError::TooFarAhead);
    }
    Ok(message)
}

fn loaded(record: &SecretBytes) -> Result<SenderKeyRecord, SessionError> {
    SenderKeyRecord::deserialize(record.expose()).map_err(|_| SessionError::DamagedRecord)
}

fn stored(store: OneSenderKey) -> Result<SecretBytes, SessionError> {
    let record = store.0.ok_or(SessionError::DamagedRecord)?;
    Ok(SecretBytes::new(record.serialize()?))
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u8,
    author: ByteArray<32>,
    dist: ByteArray<16>,
    sent: Option<u32>,
    rec: ByteBuf,
}

fn export(
    author: &IdentityKey,
    distribution: DistributionId,
    sent: Option<u32>,
    record: &SecretBytes,
) -> Result<SecretBytes, SessionError> {
    let mut stored = Stored {
        v: VERSION,
        author: ByteArray::new(*author.as_bytes()),
        dist: ByteArray::new(distribution.0),
        sent,
        rec: ByteBuf::from(record.expose()),
    };
    let bytes = codec::encode(&stored, record.expose().len() + 128);
    stored.rec.as_mut_slice().zeroize();
    bytes
        .map(|mut bytes| SecretBytes::new(std::mem::take(&mut *bytes)))
        .map_err(|_| SessionError::DamagedRecord)
}

type Imported = (IdentityKey, DistributionId, Option<u32>, SecretBytes);

fn import(bytes: &[u8]) -> Result<Imported, SessionError> {
    let stored: Stored = codec::decode(bytes, MAX_SENDER_STATE).map_err(|_| SessionError::DamagedRecord)?;
    let Stored { v, author, dist, sent, rec } = stored;
    let record = SecretBytes::new(rec.into_vec());
    if v != VERSION {
        return Err(SessionError::DamagedRecord);
    }
    contain(|| loaded(&record).map(|_| ())).map_err(|_| SessionError::DamagedRecord)??;
    let author = IdentityKey::from_bytes(*author).map_err(|_| SessionError::DamagedRecord)?;
    Ok((author, DistributionId(*dist), sent, record))
}
