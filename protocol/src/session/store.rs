//! The records of one operation: libsignal's stores, in memory, each answering for exactly one peer.
//!
//! libsignal writes several stores in sequence and promises no atomicity. So every operation gets copies, and the
//! caller takes over what changed only after the last check; on an error or a panic the copies are dropped (SES-07).
//!
//! The stores are separate fields because libsignal borrows several of them mutably in one call. They answer at
//! once, so a libsignal future is complete at its first poll: see [`complete`].

use std::future::Future;

use async_trait::async_trait;
use futures_util::FutureExt;
use libsignal_protocol::{
    DeviceId, Direction, GenericSignedPreKey, IdentityChange, IdentityKey as SignalIdentity, IdentityKeyPair,
    IdentityKeyStore, KyberPreKeyId, KyberPreKeyRecord, KyberPreKeyStore, PreKeyId, PreKeyRecord,
    PreKeyStore, ProtocolAddress, PublicKey, SenderKeyRecord, SenderKeyStore, SessionRecord, SessionStore,
    SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, SignedPreKeyStore,
};
use uuid::Uuid;

use super::error::SessionError;
use crate::identity::IdentityKey;

type Result<T> = std::result::Result<T, SignalProtocolError>;

/// There is one device per identity.
const DEVICE: u8 = 1;

/// The address under which libsignal knows `identity`.
pub(super) fn address(identity: &IdentityKey) -> std::result::Result<ProtocolAddress, SessionError> {
    let device = DeviceId::new(DEVICE).map_err(|_| SessionError::DamagedRecord)?;
    Ok(ProtocolAddress::new(identity.address_name(), device))
}

/// The result of a libsignal future over these stores.
///
/// libsignal awaits store calls only, and these stores are always ready; a pending future would be a change in
/// libsignal, reported as an error rather than waited for.
pub(super) fn complete<T>(future: impl Future<Output = Result<T>>) -> std::result::Result<T, SessionError> {
    match future.now_or_never() {
        Some(result) => result.map_err(SessionError::from),
        None => Err(SessionError::DamagedRecord),
    }
}

/// All records of one pairwise operation.
pub(super) struct UnitOfWork {
    pub(super) session: OneSession,
    pub(super) identity: Pinned,
    pub(super) one_time: OneTimePreKey,
    pub(super) signed: SignedPreKey,
    pub(super) kyber: KyberPreKey,
}

impl UnitOfWork {
    /// A unit of work without pre-keys: everything but accepting a handshake.
    pub(super) fn new(
        session: Option<SessionRecord>,
        own: Option<(IdentityKeyPair, u32)>,
        pinned: SignalIdentity,
    ) -> Self {
        Self {
            session: OneSession(session),
            identity: Pinned { own, pinned },
            one_time: OneTimePreKey(None),
            signed: SignedPreKey(None),
            kyber: KyberPreKey { record: None, used: None },
        }
    }
}

/// The session with the one peer.
pub(super) struct OneSession(pub(super) Option<SessionRecord>);

#[async_trait(?Send)]
impl SessionStore for OneSession {
    async fn load_session(&self, _address: &ProtocolAddress) -> Result<Option<SessionRecord>> {
        Ok(self.0.clone())
    }

    async fn store_session(&mut self, _address: &ProtocolAddress, record: &SessionRecord) -> Result<()> {
        self.0 = Some(record.clone());
        Ok(())
    }
}

/// Our own identity, where the operation needs it, and the one peer identity that is trusted (SES-06).
pub(super) struct Pinned {
    own: Option<(IdentityKeyPair, u32)>,
    pinned: SignalIdentity,
}

impl Pinned {
    fn own(&self) -> Result<&(IdentityKeyPair, u32)> {
        self.own.as_ref().ok_or_else(|| {
            SignalProtocolError::InvalidState("own identity", "not part of this unit of work".to_owned())
        })
    }
}

#[async_trait(?Send)]
impl IdentityKeyStore for Pinned {
    async fn get_identity_key_pair(&self) -> Result<IdentityKeyPair> {
        Ok(self.own()?.0)
    }

    async fn get_local_registration_id(&self) -> Result<u32> {
        Ok(self.own()?.1)
    }

    async fn save_identity(
        &mut self,
        address: &ProtocolAddress,
        identity: &SignalIdentity,
    ) -> Result<IdentityChange> {
        // libsignal saves only what it was told to trust; anything else is refused, never learned.
        if *identity == self.pinned {
            Ok(IdentityChange::NewOrUnchanged)
        } else {
            Err(SignalProtocolError::UntrustedIdentity(address.clone()))
        }
    }

    async fn is_trusted_identity(
        &self,
        _address: &ProtocolAddress,
        identity: &SignalIdentity,
        _direction: Direction,
    ) -> Result<bool> {
        Ok(*identity == self.pinned)
    }

    async fn get_identity(&self, _address: &ProtocolAddress) -> Result<Option<SignalIdentity>> {
        Ok(Some(self.pinned))
    }
}

/// The one-time X25519 pre-key of the bundle in use.
pub(super) struct OneTimePreKey(pub(super) Option<PreKeyRecord>);

#[async_trait(?Send)]
impl PreKeyStore for OneTimePreKey {
    async fn get_pre_key(&self, id: PreKeyId) -> Result<PreKeyRecord> {
        let record = self.0.as_ref().ok_or(SignalProtocolError::InvalidPreKeyId)?;
        if record.id()? == id { Ok(record.clone()) } else { Err(SignalProtocolError::InvalidPreKeyId) }
    }

    async fn save_pre_key(&mut self, _id: PreKeyId, record: &PreKeyRecord) -> Result<()> {
        self.0 = Some(record.clone());
        Ok(())
    }

    async fn remove_pre_key(&mut self, _id: PreKeyId) -> Result<()> {
        self.0 = None;
        Ok(())
    }
}

/// The signed X25519 pre-key of the bundle in use.
pub(super) struct SignedPreKey(pub(super) Option<SignedPreKeyRecord>);

#[async_trait(?Send)]
impl SignedPreKeyStore for SignedPreKey {
    async fn get_signed_pre_key(&self, id: SignedPreKeyId) -> Result<SignedPreKeyRecord> {
        let record = self.0.as_ref().ok_or(SignalProtocolError::InvalidSignedPreKeyId)?;
        if record.id()? == id { Ok(record.clone()) } else { Err(SignalProtocolError::InvalidSignedPreKeyId) }
    }

    async fn save_signed_pre_key(&mut self, _id: SignedPreKeyId, record: &SignedPreKeyRecord) -> Result<()> {
        self.0 = Some(record.clone());
        Ok(())
    }
}

/// The Kyber pre-key of the bundle in use.
pub(super) struct KyberPreKey {
    pub(super) record: Option<KyberPreKeyRecord>,
    /// Set once libsignal has authenticated a new handshake: its base key (SES-09).
    pub(super) used: Option<PublicKey>,
}

#[async_trait(?Send)]
impl KyberPreKeyStore for KyberPreKey {
    async fn get_kyber_pre_key(&self, id: KyberPreKeyId) -> Result<KyberPreKeyRecord> {
        let record = self.record.as_ref().ok_or(SignalProtocolError::InvalidKyberPreKeyId)?;
        if record.id()? == id { Ok(record.clone()) } else { Err(SignalProtocolError::InvalidKyberPreKeyId) }
    }

    async fn save_kyber_pre_key(&mut self, _id: KyberPreKeyId, record: &KyberPreKeyRecord) -> Result<()> {
        self.record = Some(record.clone());
        Ok(())
    }

    async fn mark_kyber_pre_key_used(
        &mut self,
        _id: KyberPreKeyId,
        _signed_id: SignedPreKeyId,
        base_key: &PublicKey,
    ) -> Result<()> {
        // Whether this base key was seen before is decided before libsignal is called: see `local.rs`.
        self.used = Some(*base_key);
        Ok(())
    }
}

/// One sender key: of one author, under one distribution id.
pub(super) struct OneSenderKey(pub(super) Option<SenderKeyRecord>);

#[async_trait(?Send)]
impl SenderKeyStore for OneSenderKey {
    async fn store_sender_key(
        &mut self,
        _sender: &ProtocolAddress,
        _distribution_id: Uuid,
        record: &SenderKeyRecord,
    ) -> Result<()> {
        self.0 = Some(record.clone());
        Ok(())
    }

    async fn load_sender_key(
        &mut self,
        _sender: &ProtocolAddress,
        _distribution_id: Uuid,
    ) -> Result<Option<SenderKeyRecord>> {
        Ok(self.0.clone())
    }
}
