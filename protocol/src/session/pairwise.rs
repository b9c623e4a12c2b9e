//! Sessions between two identities: PQXDH and the triple ratchet, one whole operation at a time.
//!
//! Every operation works on a copy of the record and takes it over after the last check. On any error, a panic of
//! libsignal included, the session and the local identity are byte for byte what they were (SES-07).
//!
//! What an operation leaves to the caller: to store session, identity, and plaintext or ciphertext in one
//! transaction, and to send or acknowledge only after it (SES-14). A message encrypted but not stored, followed by
//! another from the stored state, would be two plaintexts under one key.

use std::{fmt, time::SystemTime};

use libsignal_protocol::{
    CiphertextMessage, IdentityKey as SignalIdentity, PreKeySignalMessage, SessionRecord,
    message_decrypt_prekey, message_decrypt_signal, message_encrypt, process_prekey_bundle,
};
use rand_core::CryptoRng;

use super::{
    binding::{Binding, Context},
    contain::contain,
    error::SessionError,
    guard::{self, Incoming, Seen, checked_identity, key_bytes},
    local::LocalIdentity,
    prekeys::Bundle,
    state::MAX_SESSION_RECORD,
    store::{UnitOfWork, address, complete},
};
use crate::{identity::IdentityKey, secret::SecretBytes};

/// Longest plaintext of one message, in bytes: with the largest overhead (a first message) it still fits the
/// largest envelope.
pub const MAX_PLAINTEXT: usize = 60 << 10;

/// The libsignal session version that all of our sessions have: PQXDH.
const PQXDH: u32 = 4;

/// An encrypted message in its wire form, ready to be padded and sealed into an envelope.
#[derive(Clone, PartialEq, Eq)]
pub struct Ciphertext(Vec<u8>);

impl Ciphertext {
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes. They show counters and ratchet keys, so they leave the device only inside an envelope.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ciphertext(..)")
    }
}

/// An encrypted session with one peer identity.
///
/// ```
/// use lapwing_protocol::session::{BundleIn, BundleUse, Context, LocalIdentity, Session, accept_first};
/// # fn main() -> Result<(), lapwing_protocol::session::SessionError> {
/// # let (mut rng, now) = (rand::rng(), std::time::SystemTime::UNIX_EPOCH);
/// let context = Context::new(b"example");
/// let mut inviter = LocalIdentity::generate(&mut rng)?;
/// let bundle = inviter.new_bundle(BundleUse::Once, now, &mut rng)?.encode()?;
///
/// let joiner = LocalIdentity::generate(&mut rng)?;
/// let bundle = BundleIn::decode(&bundle)?.verify()?;
/// let mut session = Session::initiate(&joiner, &bundle, now, &mut rng)?;
/// let first = session.encrypt(b"hello", context, now, &mut rng)?;
///
/// let accepted = accept_first(&mut inviter, None, first.as_bytes(), context, &mut rng)?;
/// assert_eq!(accepted.plaintext.expose(), b"hello");
/// assert_eq!(accepted.session.peer(), joiner.public());
/// # Ok(())
/// # }
/// ```
pub struct Session {
    pub(super) own: IdentityKey,
    pub(super) peer: IdentityKey,
    pub(super) seen: Seen,
    pub(super) record: SecretBytes,
}

/// A handshake that a peer began, accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The new session; its [`peer`](Session::peer) proved to hold that identity's private key.
    pub session: Session,
    /// The first message.
    pub plaintext: SecretBytes,
}

/// What a message says of the handshake that it begins. All of it is *claimed* until a session has decrypted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// Who begins it.
    pub sender: IdentityKey,
    /// The [`Bundle::set`] that it uses.
    pub set: u32,
    /// Its base key, which no other handshake has.
    pub base: [u8; 32],
}

/// Whose handshake a message begins, without decrypting it: to find the session it belongs to.
///
/// `None` for a well-formed message that begins none. The identity is *claimed* until a session has decrypted it.
///
/// # Errors
/// As [`Session::decrypt`] for malformed input.
pub fn claimed_sender(message: &[u8]) -> Result<Option<IdentityKey>, SessionError> {
    claimed_handshake(message).map(|handshake| handshake.map(|handshake| handshake.sender))
}

/// Whether a message looks as if it carried a handshake. Cheap, and nothing of it is checked.
#[must_use]
pub fn carries_handshake(message: &[u8]) -> bool {
    message.first() == Some(&guard::TYPE_PRE_KEY)
}

/// As [`claimed_sender`], with all that the handshake names.
///
/// # Errors
/// As [`Session::decrypt`] for malformed input.
pub fn claimed_handshake(message: &[u8]) -> Result<Option<Handshake>, SessionError> {
    match Incoming::parse(message)? {
        Incoming::Whisper(_) => Ok(None),
        Incoming::PreKey(message) => Ok(Some(Handshake {
            sender: checked_identity(message.identity_key().public_key())?,
            set: message.signed_pre_key_id().into(),
            base: key_bytes(message.base_key())?,
        })),
    }
}

/// Accepts the first message of a peer who holds one of our bundles.
///
/// `expected` is the peer's identity where it is already pinned; with `None` any identity but our own is accepted
/// and pinned from now on.
///
/// # Errors
/// [`SessionError::NoPreKeys`] if the bundle is used up or not ours, [`SessionError::Duplicate`] for a replay,
/// [`SessionError::UntrustedIdentity`] for another identity than `expected`; otherwise as [`Session::decrypt`].
/// Nothing has changed then.
pub fn accept_first<R: CryptoRng>(
    local: &mut LocalIdentity,
    expected: Option<&IdentityKey>,
    message: &[u8],
    context: Context<'_>,
    rng: &mut R,
) -> Result<Accepted, SessionError> {
    let incoming = Incoming::parse(message)?;
    let Incoming::PreKey(first) = &incoming else { return Err(SessionError::Undecryptable) };
    let peer = checked_identity(first.identity_key().public_key())?;
    if expected.is_some_and(|expected| *expected != peer) {
        return Err(SessionError::UntrustedIdentity);
    }
    let seen = Seen::default();
    let staged = Staged::decrypt_pre_key(local, &peer, None, &seen, &incoming, first, context, rng)?;
    let Staged { record, seen, plaintext } = staged;
    let session = Session { own: *local.public(), peer, seen, record };
    local.settle(first)?;
    Ok(Accepted { session, plaintext })
}

impl Session {
    /// Begins a session with the owner of `bundle`. Nothing is sent: the first message carries the handshake, and
    /// so does every other until the peer has answered.
    ///
    /// # Errors
    /// [`SessionError::UntrustedIdentity`] for a bundle of our own identity.
    pub fn initiate<R: CryptoRng>(
        local: &LocalIdentity,
        bundle: &Bundle,
        now: SystemTime,
        rng: &mut R,
    ) -> Result<Self, SessionError> {
        let peer = *bundle.identity();
        refuse_own(local.public(), &peer)?;
        let address = address(&peer)?;
        let own = local.own()?;
        let pinned = pinned(&peer)?;
        let bundle = bundle.to_signal()?;
        let (record, base) = contain(|| {
            let mut unit = UnitOfWork::new(None, Some(own), pinned);
            complete(process_prekey_bundle(
                &address,
                &mut unit.session,
                &mut unit.identity,
                &bundle,
                now,
                rng,
            ))?;
            let base = unit.session.0.as_ref().ok_or(SessionError::DamagedRecord)?.alice_base_key()?.to_vec();
            Ok::<_, SessionError>((stored(unit.session.0)?, base))
        })
        .map_err(|_| SessionError::Panicked)??;
        // libsignal's form: a type byte, then the key.
        let base = base.get(1..).and_then(|key| key.try_into().ok()).ok_or(SessionError::DamagedRecord)?;
        let seen = Seen { handshakes: vec![base], ..Seen::default() };
        Ok(Self { own: *local.public(), peer, seen, record })
    }

    /// Our identity in this session.
    #[must_use]
    pub const fn own(&self) -> &IdentityKey {
        &self.own
    }

    /// The peer's identity, pinned for the life of the session.
    #[must_use]
    pub const fn peer(&self) -> &IdentityKey {
        &self.peer
    }

    /// Encrypts one message, bound to both identities and `context` (SES-08).
    ///
    /// # Errors
    /// [`SessionError::TooLong`] above [`MAX_PLAINTEXT`], [`SessionError::Expired`] for a session whose peer has
    /// not answered for 30 days.
    ///
    /// # Security
    /// Store session and ciphertext in one transaction before sending; resend the stored bytes, never encrypt the
    /// message again from an older state (SES-14).
    pub fn encrypt<R: CryptoRng>(
        &mut self,
        plaintext: &[u8],
        context: Context<'_>,
        now: SystemTime,
        rng: &mut R,
    ) -> Result<Ciphertext, SessionError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(SessionError::TooLong);
        }
        let framed = Binding::direct(&self.own, &self.peer, context).frame(plaintext);
        let address = address(&self.peer)?;
        let pinned = pinned(&self.peer)?;
        let (record, message) = contain(|| {
            let mut unit = UnitOfWork::new(Some(loaded(&self.record)?), None, pinned);
            let message = complete(message_encrypt(
                framed.expose(),
                &address,
                &mut unit.session,
                &mut unit.identity,
                now,
                rng,
            ))?;
            Ok::<_, SessionError>((stored(unit.session.0)?, message))
        })
        .map_err(|_| SessionError::Panicked)??;
        // What we send obeys the rule we hold others to.
        let whisper = match &message {
            CiphertextMessage::SignalMessage(message) => message,
            CiphertextMessage::PreKeySignalMessage(message) => message.message(),
            _ => return Err(SessionError::DamagedRecord),
        };
        if whisper.pq_ratchet().is_empty() {
            return Err(SessionError::Downgrade);
        }
        let wire = guard::wire_form(message.message_type(), message.serialize());
        self.record = record;
        Ok(Ciphertext::new(wire))
    }

    /// Decrypts one message of the peer. `local` is the identity that the session belongs to; its pre-keys are
    /// needed, and used up, when the peer begins a handshake of its own within the session.
    ///
    /// # Errors
    /// One variant of [`SessionError`] per rule; nothing has changed then.
    ///
    /// # Security
    /// Store session, identity and plaintext in one transaction, then acknowledge (SES-14).
    pub fn decrypt<R: CryptoRng>(
        &mut self,
        local: &mut LocalIdentity,
        message: &[u8],
        context: Context<'_>,
        rng: &mut R,
    ) -> Result<SecretBytes, SessionError> {
        if *local.public() != self.own {
            return Err(SessionError::UntrustedIdentity);
        }
        let incoming = Incoming::parse(message)?;
        let staged = match &incoming {
            Incoming::Whisper(_) => self.stage_whisper(&incoming, context, rng)?,
            Incoming::PreKey(first) => {
                let record = Some(&self.record);
                Staged::decrypt_pre_key(
                    local, &self.peer, record, &self.seen, &incoming, first, context, rng,
                )?
            }
        };
        if let Incoming::PreKey(first) = &incoming
            && !self.seen.handshakes.contains(&key_bytes(first.base_key())?)
        {
            local.settle(first)?;
        }
        let Staged { record, seen, plaintext } = staged;
        self.record = record;
        self.seen = seen;
        Ok(plaintext)
    }

    /// The base key of the handshake that the session began with.
    #[must_use]
    pub fn first_handshake(&self) -> Option<&[u8; 32]> {
        self.seen.handshakes.first()
    }

    /// Whether the handshake with this base key belongs to the session.
    #[must_use]
    pub fn knows_handshake(&self, base: &[u8; 32]) -> bool {
        self.seen.handshakes.contains(base)
    }

    fn stage_whisper<R: CryptoRng>(
        &self,
        incoming: &Incoming,
        context: Context<'_>,
        rng: &mut R,
    ) -> Result<Staged, SessionError> {
        let Incoming::Whisper(message) = incoming else { return Err(SessionError::Malformed) };
        self.seen.admit(incoming)?;
        let address = address(&self.peer)?;
        let pinned = pinned(&self.peer)?;
        let (record, framed) = contain(|| {
            let mut unit = UnitOfWork::new(Some(loaded(&self.record)?), None, pinned);
            let plaintext = SecretBytes::new(complete(message_decrypt_signal(
                message,
                &address,
                &mut unit.session,
                &mut unit.identity,
                rng,
            ))?);
            Ok::<_, SessionError>((stored(unit.session.0)?, plaintext))
        })
        .map_err(|_| SessionError::Panicked)??;
        let binding = Binding::direct(&self.peer, &self.own, context);
        Staged::finish(record, &self.seen, incoming, framed, &binding)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own: _, peer: _, seen: _, record: _ } = self;
        f.write_str("Session(..)")
    }
}

/// What a decryption will change, once every check has passed.
#[must_use]
struct Staged {
    record: SecretBytes,
    seen: Seen,
    plaintext: SecretBytes,
}

impl Staged {
    #[expect(
        clippy::too_many_arguments,
        reason = "one internal door with two callers; a struct would hide who owns what"
    )]
    fn decrypt_pre_key<R: CryptoRng>(
        local: &LocalIdentity,
        peer: &IdentityKey,
        record: Option<&SecretBytes>,
        seen: &Seen,
        incoming: &Incoming,
        message: &PreKeySignalMessage,
        context: Context<'_>,
        rng: &mut R,
    ) -> Result<Self, SessionError> {
        // SES-06: before any work is done for a stranger. libsignal would lift its limits for our own identity.
        refuse_own(local.public(), peer)?;
        if checked_identity(message.identity_key().public_key())? != *peer {
            return Err(SessionError::UntrustedIdentity);
        }
        seen.admit(incoming)?;
        let address = address(peer)?;
        let pinned = pinned(peer)?;
        let known = seen.handshakes.contains(&key_bytes(message.base_key())?);
        let own = local.own()?;
        let session = record.map(|record| contain(|| loaded(record))).transpose();
        let session = session.map_err(|_| SessionError::Panicked)?.transpose()?;
        let mut unit = UnitOfWork::new(session, Some(own), pinned);
        if !known {
            local.lend(message, &mut unit)?;
        }
        let (record, used, framed) = contain(move || {
            let plaintext = SecretBytes::new(complete(message_decrypt_prekey(
                message,
                &address,
                &mut unit.session,
                &mut unit.identity,
                &mut unit.one_time,
                &unit.signed,
                &mut unit.kyber,
                rng,
            ))?);
            Ok::<_, SessionError>((stored(unit.session.0)?, unit.kyber.used, plaintext))
        })
        .map_err(|_| SessionError::Panicked)??;
        // SES-09: libsignal used pre-keys exactly when the handshake is new to us.
        if used.is_some() == known {
            return Err(SessionError::DamagedRecord);
        }
        let binding = Binding::direct(peer, local.public(), context);
        Self::finish(record, seen, incoming, framed, &binding)
    }

    fn finish(
        record: SecretBytes,
        seen: &Seen,
        incoming: &Incoming,
        framed: SecretBytes,
        binding: &Binding,
    ) -> Result<Self, SessionError> {
        let plaintext = binding.open(framed)?;
        let mut seen = seen.clone();
        seen.record(incoming)?;
        Ok(Self { record, seen, plaintext })
    }
}

/// SES-06: a session with ourselves is no session.
fn refuse_own(own: &IdentityKey, peer: &IdentityKey) -> Result<(), SessionError> {
    if own == peer { Err(SessionError::UntrustedIdentity) } else { Ok(()) }
}

fn pinned(peer: &IdentityKey) -> Result<SignalIdentity, SessionError> {
    peer.to_signal().map(SignalIdentity::new).map_err(|_| SessionError::DamagedRecord)
}

pub(super) fn loaded(record: &SecretBytes) -> Result<SessionRecord, SessionError> {
    SessionRecord::deserialize(record.expose()).map_err(|_| SessionError::DamagedRecord)
}

/// SES-03: the record to be kept, if it still has its post-quantum ratchet and the one session version.
fn stored(record: Option<SessionRecord>) -> Result<SecretBytes, SessionError> {
    let record = record.ok_or(SessionError::DamagedRecord)?;
    let post_quantum = record.current_pq_state().is_some_and(|state| !state.is_empty());
    if !post_quantum || record.session_version()? != PQXDH {
        return Err(SessionError::Downgrade);
    }
    let bytes = SecretBytes::new(record.serialize()?);
    // A record that grew past its bound could not be read again.
    if bytes.expose().len() > MAX_SESSION_RECORD { Err(SessionError::TooFarAhead) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ses_03_a_record_without_a_post_quantum_state_is_not_kept() {
        assert_eq!(stored(Some(SessionRecord::new_fresh())).err(), Some(SessionError::Downgrade));
        assert_eq!(stored(None).err(), Some(SessionError::DamagedRecord));
    }
}
