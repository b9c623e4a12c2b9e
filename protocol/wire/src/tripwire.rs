//! Tokens, the sealed records that give them a meaning, and action lists.
//!
//! ```text
//! token        32 random bytes
//! lookup       SHA-256( TOKEN_LOOKUP 00 len token )                       where the relay finds its records
//! record       nonce 24 | XChaCha20-Poly1305 under HKDF-SHA256(token, TOKEN_RECORD) of
//!              { tripwire id 32 | meaning 1 | list key 32 | status key 32 }   AAD = lookup
//! action list  nonce 24 | XChaCha20-Poly1305 under the list key of CBOR padded to a multiple of 4 KiB
//!              AAD = ACTION_LIST 00 tripwire id
//! status       nonce 24 | XChaCha20-Poly1305 under the status key of { serial u64 BE | token list fired 0 or 1
//!              | other causes that came 1: 1 alerting, 2 destroying, 4 quorum, 8 frozen | zeros 6 }
//! ```
//! Invariants: TRP-01 all records have one size, and without the token none tells what it means; TRP-02 the answer
//! to every token has one size and looks random to everybody but the owner; TRP-03 a relay that never saw a firing
//! token cannot read the actions. Known gap: a relay that records its own state before firing and is later given
//! the token can read them.

mod causes;

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
    anchor::GroupKey,
    capability::{Admin, AnchorOwner, BadSignature, PublicKey, SecretKey, Signature, Write},
    codec,
    ids::{AnchorId, EnvelopeId, MailboxId, TripwireId, labelled_hash},
    labels,
    limits::{MAX_ACTION_LIST, MAX_ACTIONS},
    padding,
};

pub use causes::{BadCauses, Causes, Deadline, Frozen, Quorum, Voice, open_list};

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
    /// Puts random bytes in the place of an anchor's entries, and of its outer key unless a group is spared.
    Refresh {
        /// Which.
        anchor: AnchorId,
        /// Entries of this group stay.
        spare: Option<GroupKey>,
        /// By the anchor's owner.
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

    /// A refreshing of entries, with the permission that the relay will check when it fires.
    pub fn refresh(owner: &SecretKey<AnchorOwner>, spare: Option<GroupKey>) -> Self {
        let anchor = AnchorId::of_owner(&owner.public());
        let permission = owner.sign(labels::ACTION_REFRESH, &refresh_parts(&anchor, spare.as_ref()));
        Self::Refresh { anchor, spare, permission }
    }

    /// Whether something is lost by it.
    pub const fn destroys(&self) -> bool {
        match self {
            Self::Append { .. } => false,
            Self::Sink { .. } | Self::Refresh { .. } => true,
        }
    }

    /// Checks the permission of a refreshing with the anchor's owner key.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn check_refresh(
        owner: &PublicKey<AnchorOwner>,
        spare: Option<&GroupKey>,
        permission: &Signature,
    ) -> Result<(), BadSignature> {
        let anchor = AnchorId::of_owner(owner);
        owner.verify(labels::ACTION_REFRESH, &refresh_parts(&anchor, spare), permission)
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

fn refresh_parts<'a>(anchor: &'a AnchorId, spare: Option<&'a GroupKey>) -> [&'a [u8]; 2] {
    [anchor.as_bytes(), spare.map_or(&[], |group| group.expose())]
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
    /// What else came.
    pub came: Came,
}

/// Which of a tripwire's other causes came since it was armed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// A check-in was missed.
    pub alerting: bool,
    /// It stayed missed.
    pub destroying: bool,
    /// Enough trusted contacts said so.
    pub quorum: bool,
    /// The anchor froze.
    pub frozen: bool,
}

impl Came {
    /// Whether any did.
    pub const fn any(self) -> bool {
        let Self { alerting, destroying, quorum, frozen } = self;
        alerting || destroying || quorum || frozen
    }

    fn bits(self) -> u8 {
        let Self { alerting, destroying, quorum, frozen } = self;
        u8::from(alerting) | u8::from(destroying) << 1 | u8::from(quorum) << 2 | u8::from(frozen) << 3
    }

    const fn of_bits(bits: u8) -> Self {
        Self {
            alerting: bits & 1 != 0,
            destroying: bits & 2 != 0,
            quorum: bits & 4 != 0,
            frozen: bits & 8 != 0,
        }
    }
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
        plain[9] = status.came.bits();
        let mut bytes = [0; STATUS_LENGTH];
        bytes.copy_from_slice(&seal(key.expose(), &plain, labels::TOKEN_STATUS, rng));
        Self(bytes)
    }

    /// What the relay said. `None` if this key has no status there.
    pub fn open(&self, key: &StatusKey) -> Option<OpenStatus> {
        let plain = open(key.expose(), &self.0, labels::TOKEN_STATUS)?;
        let plain: &[u8; STATUS_PLAIN] = plain.as_slice().try_into().ok()?;
        let (serial, rest) = plain.split_first_chunk::<8>()?;
        let (fired, rest) = rest.split_first()?;
        let came = rest.first().map_or(Came::default(), |bits| Came::of_bits(*bits));
        Some(OpenStatus { serial: u64::from_be_bytes(*serial), fired: *fired == 1, came })
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
mod tests;
