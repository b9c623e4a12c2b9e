//! Our own half: an identity's private keys and the pre-keys of the bundles it has given out.
//!
//! Stored form: CBOR map, at most [`MAX_LOCAL_STATE`] bytes, all of it secret:
//!
//! ```text
//! "v"     1
//! "key"   private identity key, 32 bytes
//! "reg"   registration id
//! "sets"  [ { "id", "once" (bool), "signed", "kyber", "one" (libsignal's records; the last may be null),
//!             "seen" (base keys of handshakes, 32 bytes each) } ]
//! ```

use std::fmt;

use libsignal_protocol::{
    GenericSignedPreKey, IdentityKey as SignalIdentity, IdentityKeyPair, KeyPair, KyberPreKeyRecord,
    PreKeyRecord, PreKeySignalMessage, PrivateKey, SignedPreKeyRecord, Timestamp, kem,
};
use rand::Rng;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use std::time::{Duration, SystemTime};
use zeroize::Zeroize;

use super::{
    contain::contain,
    error::SessionError,
    guard::{self, key_bytes},
    prekeys::{Bundle, MAX_REGISTRATION_ID, MAX_SET_ID, Parts},
    store::{KyberPreKey, OneTimePreKey, SignedPreKey, UnitOfWork},
};
use crate::{
    codec,
    identity::IdentityKey,
    labels::Label,
    secret::SecretBytes,
    signing::{self, Signature},
};

/// Longest exported identity, in bytes: all bundles open, one of them with all its uses.
pub const MAX_LOCAL_STATE: usize = 512 << 10;

/// Bundles that one identity keeps open. An identity belongs to one contact or group, so a few suffice.
pub const MAX_OPEN_BUNDLES: usize = 8;

/// Handshakes that one reusable bundle accepts: a group of 500 members, each twice. Past it the bundle answers
/// [`SessionError::NoPreKeys`] and a new one has to be given out.
pub const MAX_BUNDLE_USES: usize = 1_024;

const VERSION: u8 = 1;

/// How often a bundle may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleUse {
    /// One handshake, for a ticket. All its private keys are destroyed with it (SES-09).
    Once,
    /// Up to [`MAX_BUNDLE_USES`] handshakes by different peers, for a group. Replays are refused by their base
    /// key. Forward secrecy of the first flight begins when the bundle is retired, so retire it.
    Many,
}

/// One of our identities, with its private keys.
pub struct LocalIdentity {
    key: SecretBytes,
    public: IdentityKey,
    registration_id: u32,
    sets: Vec<PreKeySet>,
}

/// The private side of one bundle.
struct PreKeySet {
    id: u32,
    once: bool,
    signed: SecretBytes,
    kyber: SecretBytes,
    one_time: Option<SecretBytes>,
    seen: Vec<[u8; 32]>,
}

impl LocalIdentity {
    /// A new identity without bundles.
    ///
    /// # Errors
    /// [`SessionError::WeakKey`] if the generator made an unusable key: replace the generator.
    pub fn generate<R: CryptoRng>(rng: &mut R) -> Result<Self, SessionError> {
        let pair = KeyPair::generate(rng);
        Ok(Self {
            key: SecretBytes::new(pair.private_key.serialize()),
            public: guard::checked_identity(&pair.public_key)?,
            registration_id: rng.random_range(1..=MAX_REGISTRATION_ID),
            sets: Vec::new(),
        })
    }

    /// The public identity.
    #[must_use]
    pub const fn public(&self) -> &IdentityKey {
        &self.public
    }

    /// Makes pre-keys and the bundle that offers them. `now` is kept in libsignal's records, inside the vault.
    ///
    /// # Errors
    /// [`SessionError::TooManyBundles`] at [`MAX_OPEN_BUNDLES`].
    pub fn new_bundle<R: CryptoRng>(
        &mut self,
        uses: BundleUse,
        now: SystemTime,
        rng: &mut R,
    ) -> Result<Bundle, SessionError> {
        if self.sets.len() >= MAX_OPEN_BUNDLES {
            return Err(SessionError::TooManyBundles);
        }
        let id = loop {
            let id = rng.random_range(1..=MAX_SET_ID);
            if self.sets.iter().all(|set| set.id != id) {
                break id;
            }
        };
        let identity = self.private_key()?;
        let made = timestamp(now);
        let signed = KeyPair::generate(rng);
        let signed_signature = signature(&identity, &signed.public_key.serialize(), rng)?;
        let kyber = kem::KeyPair::generate(kem::KeyType::Kyber1024, rng);
        let kyber_signature = signature(&identity, &kyber.public_key.serialize(), rng)?;
        // A reusable bundle has no one-time key: the second peer would find it gone.
        let one_time = (uses == BundleUse::Once).then(|| KeyPair::generate(rng));

        let bundle = Bundle::own(
            self.public,
            Parts {
                registration_id: self.registration_id,
                set: id,
                signed: key_bytes(&signed.public_key)?,
                signed_signature,
                kyber: kyber.public_key.serialize().into_vec(),
                kyber_signature,
                one_time: one_time.as_ref().map(|pair| key_bytes(&pair.public_key)).transpose()?,
            },
        );
        self.sets.push(PreKeySet {
            id,
            once: uses == BundleUse::Once,
            signed: SecretBytes::new(
                SignedPreKeyRecord::new(id.into(), made, &signed, &signed_signature).serialize()?,
            ),
            kyber: SecretBytes::new(
                KyberPreKeyRecord::new(id.into(), made, &kyber, &kyber_signature).serialize()?,
            ),
            one_time: one_time
                .map(|pair| PreKeyRecord::new(id.into(), &pair).serialize().map(SecretBytes::new))
                .transpose()?,
            seen: Vec::new(),
        });
        Ok(bundle)
    }

    /// Destroys the private keys of `bundle`. Handshakes made for it are refused from now on; sessions stay.
    /// Answers whether the bundle was open.
    pub fn retire_bundle(&mut self, bundle: &Bundle) -> bool {
        self.retire_set(bundle.set())
    }

    /// As [`LocalIdentity::retire_bundle`], by the bundle's [`Bundle::set`].
    pub fn retire_set(&mut self, set: u32) -> bool {
        let before = self.sets.len();
        self.sets.retain(|kept| kept.id != set);
        self.sets.len() < before
    }

    /// Destroys the private keys of all bundles.
    pub fn retire_all_bundles(&mut self) {
        self.sets.clear();
    }

    /// Number of open bundles.
    #[must_use]
    pub fn open_bundles(&self) -> usize {
        self.sets.len()
    }

    /// SES-13: signs `statement` under `label`. See [`Signature::verify`].
    ///
    /// # Errors
    /// [`SessionError::DamagedRecord`] if the stored key cannot be used.
    pub fn sign<R: CryptoRng>(
        &self,
        label: Label,
        statement: &[u8],
        rng: &mut R,
    ) -> Result<Signature, SessionError> {
        signing::sign(&self.private_key()?, label, statement, rng).ok_or(SessionError::DamagedRecord)
    }

    /// All of the identity, to be sealed and stored.
    ///
    /// # Errors
    /// Never for a value of this type; the encoder's signature carries an error.
    pub fn export(&self) -> Result<SecretBytes, SessionError> {
        let Self { key, public: _, registration_id, sets } = self;
        let mut stored = Stored {
            v: VERSION,
            key: ByteBuf::from(key.expose()),
            reg: *registration_id,
            sets: sets.iter().map(StoredSet::of).collect(),
        };
        let capacity = 128 + sets.iter().map(PreKeySet::encoded_len).sum::<usize>();
        let bytes = codec::encode(&stored, capacity);
        stored.wipe();
        bytes
            .map(|mut bytes| SecretBytes::new(std::mem::take(&mut *bytes)))
            .map_err(|_| SessionError::DamagedRecord)
    }

    /// Reads what [`LocalIdentity::export`] wrote.
    ///
    /// # Errors
    /// [`SessionError::DamagedRecord`] for other bytes, other versions, other sizes.
    pub fn import(bytes: &[u8]) -> Result<Self, SessionError> {
        let mut stored: Stored =
            codec::decode(bytes, MAX_LOCAL_STATE).map_err(|_| SessionError::DamagedRecord)?;
        let local = Self::from_stored(&mut stored);
        stored.wipe();
        local
    }

    fn from_stored(stored: &mut Stored) -> Result<Self, SessionError> {
        let Stored { v, key, reg, sets } = stored;
        let ids_differ =
            sets.iter().enumerate().all(|(i, set)| sets.iter().skip(i + 1).all(|b| b.id != set.id));
        if *v != VERSION
            || !(1..=MAX_REGISTRATION_ID).contains(reg)
            || sets.len() > MAX_OPEN_BUNDLES
            || !ids_differ
        {
            return Err(SessionError::DamagedRecord);
        }
        let private = PrivateKey::deserialize(key).map_err(|_| SessionError::DamagedRecord)?;
        let public = private.public_key().map_err(|_| SessionError::DamagedRecord)?;
        Ok(Self {
            key: SecretBytes::new(std::mem::take(key).into_vec()),
            public: guard::checked_identity(&public).map_err(|_| SessionError::DamagedRecord)?,
            registration_id: *reg,
            sets: sets.iter_mut().map(StoredSet::take).collect::<Result<_, _>>()?,
        })
    }

    /// The key pair and registration id that libsignal asks for.
    pub(super) fn own(&self) -> Result<(IdentityKeyPair, u32), SessionError> {
        let public = self.public.to_signal().map_err(|_| SessionError::DamagedRecord)?;
        Ok((IdentityKeyPair::new(SignalIdentity::new(public), self.private_key()?), self.registration_id))
    }

    /// SES-09: lays the pre-keys that `message` names into `unit`. Refuses what no bundle of ours explains, and a
    /// handshake that was seen before.
    pub(super) fn lend(
        &self,
        message: &PreKeySignalMessage,
        unit: &mut UnitOfWork,
    ) -> Result<(), SessionError> {
        let set = self.set_of(message)?;
        if set.seen.contains(&key_bytes(message.base_key())?) {
            return Err(SessionError::Duplicate);
        }
        if set.seen.len() >= MAX_BUNDLE_USES {
            return Err(SessionError::NoPreKeys);
        }
        let records = contain(|| {
            let signed = SignedPreKeyRecord::deserialize(set.signed.expose())?;
            let kyber = KyberPreKeyRecord::deserialize(set.kyber.expose())?;
            let one_time =
                set.one_time.as_ref().map(|r| PreKeyRecord::deserialize(r.expose())).transpose()?;
            Ok::<_, SessionError>((signed, kyber, one_time))
        });
        let (signed, kyber, one_time) = records.map_err(|_| SessionError::Panicked)??;
        unit.signed = SignedPreKey(Some(signed));
        unit.kyber = KyberPreKey { record: Some(kyber), used: None };
        unit.one_time = OneTimePreKey(one_time);
        Ok(())
    }

    /// SES-09: settles the pre-keys that an accepted handshake has used. Called after the last check.
    pub(super) fn settle(&mut self, message: &PreKeySignalMessage) -> Result<(), SessionError> {
        let id = u32::from(message.signed_pre_key_id());
        let base = key_bytes(message.base_key())?;
        match self.sets.iter_mut().find(|set| set.id == id) {
            Some(set) if !set.once => set.seen.push(base),
            _ => self.sets.retain(|set| set.id != id),
        }
        Ok(())
    }

    /// The set whose bundle `message` was made with: all of its keys, and no other.
    fn set_of(&self, message: &PreKeySignalMessage) -> Result<&PreKeySet, SessionError> {
        let id = u32::from(message.signed_pre_key_id());
        let set = self.sets.iter().find(|set| set.id == id).ok_or(SessionError::NoPreKeys)?;
        let kyber = message.kyber_pre_key_id().map(u32::from);
        let one_time = message.pre_key_id().map(u32::from);
        let whole = kyber == Some(id) && one_time == set.one_time.as_ref().map(|_| id);
        if whole { Ok(set) } else { Err(SessionError::NoPreKeys) }
    }

    fn private_key(&self) -> Result<PrivateKey, SessionError> {
        PrivateKey::deserialize(self.key.expose()).map_err(|_| SessionError::DamagedRecord)
    }
}

impl fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key: _, public: _, registration_id: _, sets: _ } = self;
        f.write_str("LocalIdentity(..)")
    }
}

impl PreKeySet {
    fn encoded_len(&self) -> usize {
        let Self { id: _, once: _, signed, kyber, one_time, seen } = self;
        let one_time = one_time.as_ref().map_or(0, |record| record.expose().len());
        128 + signed.expose().len() + kyber.expose().len() + one_time + 34 * seen.len()
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u8,
    key: ByteBuf,
    reg: u32,
    sets: Vec<StoredSet>,
}

#[derive(Serialize, Deserialize)]
struct StoredSet {
    id: u32,
    once: bool,
    signed: ByteBuf,
    kyber: ByteBuf,
    one: Option<ByteBuf>,
    seen: Vec<ByteArray<32>>,
}

impl Stored {
    fn wipe(&mut self) {
        let Self { v: _, key, reg: _, sets } = self;
        key.as_mut_slice().zeroize();
        for set in sets {
            let StoredSet { id: _, once: _, signed, kyber, one, seen: _ } = set;
            signed.as_mut_slice().zeroize();
            kyber.as_mut_slice().zeroize();
            if let Some(one) = one {
                one.as_mut_slice().zeroize();
            }
        }
    }
}

impl StoredSet {
    fn of(set: &PreKeySet) -> Self {
        let PreKeySet { id, once, signed, kyber, one_time, seen } = set;
        Self {
            id: *id,
            once: *once,
            signed: ByteBuf::from(signed.expose()),
            kyber: ByteBuf::from(kyber.expose()),
            one: one_time.as_ref().map(|record| ByteBuf::from(record.expose())),
            seen: seen.iter().map(|base| ByteArray::new(*base)).collect(),
        }
    }

    fn take(&mut self) -> Result<PreKeySet, SessionError> {
        let Self { id, once, signed, kyber, one, seen } = self;
        if !(1..=MAX_SET_ID).contains(id) || seen.len() > MAX_BUNDLE_USES {
            return Err(SessionError::DamagedRecord);
        }
        Ok(PreKeySet {
            id: *id,
            once: *once,
            signed: SecretBytes::new(std::mem::take(signed).into_vec()),
            kyber: SecretBytes::new(std::mem::take(kyber).into_vec()),
            one_time: one.take().map(|record| SecretBytes::new(record.into_vec())),
            seen: seen.iter().map(|base| **base).collect(),
        })
    }
}

fn signature<R: CryptoRng>(key: &PrivateKey, bytes: &[u8], rng: &mut R) -> Result<[u8; 64], SessionError> {
    let signature = key.calculate_signature(bytes, rng).map_err(|_| SessionError::DamagedRecord)?;
    signature.as_ref().try_into().map_err(|_| SessionError::DamagedRecord)
}

fn timestamp(now: SystemTime) -> Timestamp {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_epoch_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
