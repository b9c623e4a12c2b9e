//! Tokens, the sealed records that give them a meaning, and action lists.
//!
//! ```text
//! token        32 random bytes
//! lookup       SHA-256( TOKEN_LOOKUP 00 len token )                       where the relay finds its records
//! record       nonce 24 | XChaCha20-Poly1305 under HKDF-SHA256(token, TOKEN_RECORD) of
//!              { tripwire id 32 | meaning 1 | list key 32 | status key 32 }   AAD = lookup
//! action list  nonce 24 | XChaCha20-Poly1305 under the list key of CBOR padded to a multiple of 4 KiB
//!              AAD = ACTION_LIST 00 tripwire id
//! status       nonce 24 | XChaCha20-Poly1305 under the status key of { serial u64 BE | state 1 | zeros 7 }
//! ```
//! Invariants: TRP-01 all records have one size, and without the token none tells what it means; TRP-02 the answer
//! to every token has one size and looks random to everybody but the owner; TRP-03 a relay that never saw a firing
//! token cannot read the actions. Known gap: a relay that records its own state before firing and is later given
//! the token can read them.

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    capability::{Admin, BadSignature, PublicKey, SecretKey, Signature, Write},
    codec,
    ids::{EnvelopeId, MailboxId, TripwireId, labelled_hash},
    labels,
    limits::{MAX_ACTION_LIST, MAX_ACTIONS},
    padding,
};

const NONCE: usize = 24;
const TAG: usize = 16;
const RECORD_PLAIN: usize = 32 + 1 + 32 + 32;
/// Length of every sealed record in bytes.
pub const RECORD_LENGTH: usize = NONCE + RECORD_PLAIN + TAG;
const STATUS_PLAIN: usize = 16;
/// Length of every status in bytes.
pub const STATUS_LENGTH: usize = NONCE + STATUS_PLAIN + TAG;
const LIST_STEP: usize = 4096;

macro_rules! secret_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "serde_bytes")] [u8; 32]);

        impl $name {
            /// New random bytes.
            pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut bytes = [0; 32];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// With these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes, to be stored or sent.
            pub const fn expose(&self) -> &[u8; 32] {
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

secret_bytes! {
    /// What an unlock presents. Drawn once per vault payload and relay, reusable, never rotated.
    ///
    /// Serialised because requests carry it; equality is not secret-dependent for anyone who could time it.
    Token
}
secret_bytes! {
    /// Seals an action list.
    ListKey
}
secret_bytes! {
    /// Seals the status in the answer to the owner's own token.
    StatusKey
}

/// Where a relay finds the records of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lookup(#[serde(with = "serde_bytes")] [u8; 32]);

impl Lookup {
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup(..)")
    }
}

impl Token {
    /// Where this token's records are.
    pub fn lookup(&self) -> Lookup {
        Lookup(labelled_hash(labels::TOKEN_LOOKUP, &[&self.0]))
    }

    fn record_key(&self) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        #[expect(clippy::expect_used, reason = "32 bytes are a valid length for HKDF-SHA256")]
        Hkdf::<Sha256>::new(None, &self.0).expand(labels::TOKEN_RECORD, key.as_mut()).expect("valid length");
        key
    }
}

/// What a token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing: fills up the number of records.
    Nothing,
    /// The owner lives: pushes deadlines back.
    Renew,
    /// Sets off the token list.
    Fire,
}

/// A token's record as the relay reads it once it has the token.
pub struct OpenRecord {
    /// The tripwire it belongs to.
    pub tripwire: TripwireId,
    /// What it does.
    pub meaning: Meaning,
    /// Opens the token list, where the meaning is `Fire`.
    pub list_key: ListKey,
    /// Seals the answer's status; random where nobody reads it.
    pub status_key: StatusKey,
}

impl fmt::Debug for OpenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tripwire: _, meaning: _, list_key: _, status_key: _ } = self;
        f.write_str("OpenRecord(..)")
    }
}

/// A token's sealed record and where it is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Hash of the token.
    pub lookup: Lookup,
    /// Of [`RECORD_LENGTH`] bytes.
    pub sealed: ByteBuf,
}

impl TokenRecord {
    /// TRP-01: seals a record for a token.
    pub fn seal(token: &Token, record: &OpenRecord, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let lookup = token.lookup();
        let mut plain = Zeroizing::new([0u8; RECORD_PLAIN]);
        plain[..32].copy_from_slice(record.tripwire.as_bytes());
        plain[32] = match record.meaning {
            Meaning::Nothing => 0,
            Meaning::Renew => 1,
            Meaning::Fire => 2,
        };
        plain[33..65].copy_from_slice(record.list_key.expose());
        plain[65..].copy_from_slice(record.status_key.expose());
        Self { lookup, sealed: ByteBuf::from(seal(&token.record_key(), plain.as_ref(), &lookup.0, rng)) }
    }

    /// Opens a record with its token. `None` if it was sealed under another.
    pub fn open(&self, token: &Token) -> Option<OpenRecord> {
        if self.sealed.len() != RECORD_LENGTH {
            return None;
        }
        let plain = open(&token.record_key(), &self.sealed, &token.lookup().0)?;
        let plain: &[u8; RECORD_PLAIN] = plain.as_slice().try_into().ok()?;
        let (tripwire, rest) = plain.split_first_chunk::<32>()?;
        let (meaning, rest) = rest.split_first()?;
        let (list_key, status_key) = rest.split_first_chunk::<32>()?;
        Some(OpenRecord {
            tripwire: TripwireId::from_bytes(*tripwire),
            meaning: match meaning {
                0 => Meaning::Nothing,
                1 => Meaning::Renew,
                2 => Meaning::Fire,
                _ => return None,
            },
            list_key: ListKey::from_bytes(*list_key),
            status_key: StatusKey::from_bytes(status_key.try_into().ok()?),
        })
    }
}

/// One step that a relay takes when a tripwire fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Appends an envelope, beyond the ordinary quota.
    Append {
        /// Where to.
        mailbox: MailboxId,
        /// The envelope, sealed in advance.
        envelope: ByteBuf,
        /// By the mailbox's write key, over mailbox and envelope.
        permission: Signature,
    },
    /// From now on the mailbox answers as before and discards.
    Sink {
        /// Which.
        mailbox: MailboxId,
        /// By the mailbox's admin key.
        permission: Signature,
    },
}

impl Action {
    /// An append with the permission that the relay will check when it fires.
    pub fn append(mailbox: MailboxId, envelope: Vec<u8>, key: &SecretKey<Write>) -> Self {
        let id = EnvelopeId::of(&envelope);
        let permission = key.sign(labels::ACTION_APPEND, &[mailbox.as_bytes(), id.as_bytes()]);
        Self::Append { mailbox, envelope: ByteBuf::from(envelope), permission }
    }

    /// A sink with the permission that the relay will check when it fires.
    pub fn sink(mailbox: MailboxId, key: &SecretKey<Admin>) -> Self {
        Self::Sink { mailbox, permission: key.sign(labels::ACTION_SINK, &[mailbox.as_bytes()]) }
    }

    /// Checks the permission of an append with the mailbox's write key.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn check_append(
        key: &PublicKey<Write>,
        mailbox: &MailboxId,
        envelope: &EnvelopeId,
        permission: &Signature,
    ) -> Result<(), BadSignature> {
        key.verify(labels::ACTION_APPEND, &[mailbox.as_bytes(), envelope.as_bytes()], permission)
    }

    /// Checks the permission of a sink with the mailbox's admin key.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn check_sink(
        key: &PublicKey<Admin>,
        mailbox: &MailboxId,
        permission: &Signature,
    ) -> Result<(), BadSignature> {
        key.verify(labels::ACTION_SINK, &[mailbox.as_bytes()], permission)
    }
}

/// TRP-03: an action list that the relay keeps and cannot read until a token brings its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedList(ByteBuf);

/// The actions do not fit into one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the plan sets off more than one tripwire can hold")]
pub struct ListTooLong;

impl SealedList {
    /// Seals actions, padded to a multiple of 4 KiB.
    ///
    /// # Errors
    /// [`ListTooLong`].
    pub fn seal(
        actions: &[Action],
        tripwire: &TripwireId,
        key: &ListKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, ListTooLong> {
        let plain = codec::encode(&actions);
        let total = (plain.len() / LIST_STEP + 1) * LIST_STEP;
        if actions.len() > MAX_ACTIONS || total + NONCE + TAG > MAX_ACTION_LIST {
            return Err(ListTooLong);
        }
        let padded = Zeroizing::new(padding::pad(plain, total).ok_or(ListTooLong)?);
        Ok(Self(ByteBuf::from(seal(key.expose(), &padded, &list_aad(tripwire), rng))))
    }

    /// Opens the list. `None` if it was sealed under another key or for another tripwire.
    pub fn open(&self, tripwire: &TripwireId, key: &ListKey) -> Option<Vec<Action>> {
        if !self.is_acceptable() {
            return None;
        }
        let padded = open(key.expose(), &self.0, &list_aad(tripwire))?;
        let plain = padding::unpad(padded.to_vec())?;
        let actions: Vec<Action> = codec::decode(&plain, MAX_ACTION_LIST).ok()?;
        (actions.len() <= MAX_ACTIONS).then_some(actions)
    }

    /// Whether its length is one that a list can have.
    pub fn is_acceptable(&self) -> bool {
        self.0.len() <= MAX_ACTION_LIST && self.0.len() >= NONCE + TAG + LIST_STEP
    }

    /// The sealed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From stored bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(ByteBuf::from(bytes))
    }
}

/// What the owner learns from the answer to his own token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenStatus {
    /// Serial that is armed.
    pub serial: u64,
    /// Whether the token list was set off.
    pub fired: bool,
}

/// TRP-02: the fixed-size field in the answer to every token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(#[serde(with = "serde_bytes")] [u8; STATUS_LENGTH]);

impl Status {
    /// Bytes that nobody can read.
    pub fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = [0; STATUS_LENGTH];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// A status for the owner.
    pub fn seal(status: OpenStatus, key: &StatusKey, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut plain = [0u8; STATUS_PLAIN];
        plain[..8].copy_from_slice(&status.serial.to_be_bytes());
        plain[8] = u8::from(status.fired);
        let mut bytes = [0; STATUS_LENGTH];
        bytes.copy_from_slice(&seal(key.expose(), &plain, labels::TOKEN_STATUS, rng));
        Self(bytes)
    }

    /// What the relay said. `None` if this key has no status there.
    pub fn open(&self, key: &StatusKey) -> Option<OpenStatus> {
        let plain = open(key.expose(), &self.0, labels::TOKEN_STATUS)?;
        let plain: &[u8; STATUS_PLAIN] = plain.as_slice().try_into().ok()?;
        let (serial, rest) = plain.split_first_chunk::<8>()?;
        Some(OpenStatus { serial: u64::from_be_bytes(*serial), fired: rest.first() == Some(&1) })
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Status(..)")
    }
}

fn list_aad(tripwire: &TripwireId) -> Vec<u8> {
    let mut aad = labels::ACTION_LIST.to_vec();
    aad.push(0);
    aad.extend_from_slice(tripwire.as_bytes());
    aad
}

fn seal(key: &[u8; 32], plain: &[u8], aad: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let cipher = XChaCha20Poly1305::new(key.into());
    #[expect(clippy::expect_used, reason = "the cipher refuses only above 256 GiB")]
    let sealed =
        cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad }).expect("short input");
    let mut out = nonce.to_vec();
    out.extend_from_slice(&sealed);
    out
}

fn open(key: &[u8; 32], sealed: &[u8], aad: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, body) = sealed.split_at_checked(NONCE)?;
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad }).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::TripwireOwner;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([1; 32])
    }

    fn tripwire() -> TripwireId {
        TripwireId::of_owner(&SecretKey::<TripwireOwner>::from_seed([3; 32]).public())
    }

    #[test]
    fn trp_01_records_have_one_size_and_open_with_their_token_only() {
        let mut rng = rng();
        let token = Token::generate(&mut rng);
        for meaning in [Meaning::Nothing, Meaning::Renew, Meaning::Fire] {
            let record = OpenRecord {
                tripwire: tripwire(),
                meaning,
                list_key: ListKey::generate(&mut rng),
                status_key: StatusKey::generate(&mut rng),
            };
            let sealed = TokenRecord::seal(&token, &record, &mut rng);
            assert_eq!(sealed.sealed.len(), RECORD_LENGTH);
            let open = sealed.open(&token).unwrap();
            assert_eq!(open.meaning, meaning);
            assert_eq!(open.list_key, record.list_key);
            assert_eq!(open.status_key, record.status_key);
            assert!(sealed.open(&Token::generate(&mut rng)).is_none());
        }
    }

    #[test]
    fn trp_02_a_status_is_for_its_owner() {
        let mut rng = rng();
        let key = StatusKey::generate(&mut rng);
        let said = OpenStatus { serial: 7, fired: true };
        assert_eq!(Status::seal(said, &key, &mut rng).open(&key), Some(said));
        assert_eq!(Status::random(&mut rng).open(&key), None);
    }

    #[test]
    fn trp_03_a_list_opens_with_its_key_for_its_tripwire_only() {
        let mut rng = rng();
        let key = ListKey::generate(&mut rng);
        let writer = SecretKey::from_seed([4; 32]);
        let mailbox = MailboxId::from_bytes([5; 32]);
        let actions = vec![Action::append(mailbox, vec![6; 1024], &writer)];
        let list = SealedList::seal(&actions, &tripwire(), &key, &mut rng).unwrap();
        assert_eq!((list.as_bytes().len() - NONCE - TAG) % LIST_STEP, 0);
        assert_eq!(list.open(&tripwire(), &key), Some(actions.clone()));
        assert_eq!(list.open(&tripwire(), &ListKey::generate(&mut rng)), None);
        assert_eq!(list.open(&TripwireId::from_bytes([0; 32]), &key), None);
        let Action::Append { mailbox, envelope, permission } = &actions[0] else { panic!("an append") };
        let id = EnvelopeId::of(envelope);
        assert!(Action::check_append(&writer.public(), mailbox, &id, permission).is_ok());
        assert!(Action::check_append(&writer.public(), mailbox, &EnvelopeId::of(b""), permission).is_err());
    }

    #[test]
    fn too_many_actions_are_refused() {
        let mut rng = rng();
        let key = ListKey::generate(&mut rng);
        let writer = SecretKey::from_seed([4; 32]);
        let mailbox = MailboxId::from_bytes([5; 32]);
        let actions: Vec<_> = (0..4).map(|_| Action::append(mailbox, vec![6; 64 << 10], &writer)).collect();
        assert_eq!(SealedList::seal(&actions, &tripwire(), &key, &mut rng), Err(ListTooLong));
    }
}
