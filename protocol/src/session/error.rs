//! What can go wrong with a session, by what the caller can do about it.

use libsignal_protocol::SignalProtocolError;

/// Why a session operation was refused. Nothing changed: neither the session nor the local identity.
///
/// The texts name no key, counter or peer, so they may be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// SES-01, SES-02: the bytes are not a message, bundle or record of a known format and size. The sender or
    /// the relay is at fault; drop the input.
    #[error("malformed input")]
    Malformed,
    /// SES-03: the message carries no post-quantum ratchet. Never accepted, whoever sent it.
    #[error("the message lacks the post-quantum ratchet")]
    Downgrade,
    /// SES-04: the counter is further ahead than any honest loss explains. Drop the input.
    #[error("the message is too far ahead")]
    TooFarAhead,
    /// SES-05: a public key is low-order or not in canonical form. Drop the input.
    #[error("a public key is unusable")]
    WeakKey,
    /// SES-07: this message was decrypted before, or its key was given up. Acknowledge and drop it.
    #[error("the message was already seen")]
    Duplicate,
    /// Not made for this session, or altered on the way. Drop the input; many in a row call for a new handshake.
    #[error("the message cannot be decrypted by this session")]
    Undecryptable,
    /// SES-06: another identity than the pinned one, or our own.
    #[error("the message comes from another identity")]
    UntrustedIdentity,
    /// SES-09: the pre-keys it was made for are used up, retired or were never ours. The peer needs a new ticket.
    #[error("the pre-keys of this message are not available")]
    NoPreKeys,
    /// SES-10: this peer has begun as many handshakes as one session keeps. Replace the session.
    #[error("too many handshakes in one session")]
    TooManyHandshakes,
    /// SES-08: decrypted, but made for other identities or another context. The sender is at fault.
    #[error("the message is bound to another conversation")]
    WrongContext,
    /// The plaintext exceeds [`MAX_PLAINTEXT`](super::MAX_PLAINTEXT). Split it, or send it as an attachment.
    #[error("the message is too long")]
    TooLong,
    /// A bundle's signature does not fit its identity. The source of the bundle is at fault.
    #[error("a signature is not valid")]
    BadSignature,
    /// No answer for 30 days to a session we began. Begin a new one with a fresh bundle.
    #[error("the peer never answered; the session has expired")]
    Expired,
    /// SES-11: a sender key has encrypted as much as it may. Rotate it.
    #[error("the sender key is used up")]
    SenderKeyUsedUp,
    /// The identity keeps as many bundles as it may. Retire one first.
    #[error("too many open bundles")]
    TooManyBundles,
    /// A stored record cannot be read. The vault's authentication excludes this; restore or begin a new session.
    #[error("a stored session record is damaged")]
    DamagedRecord,
    /// SES-07: libsignal panicked; the unit of work was thrown away. Report the input, then drop it.
    #[error("the session library failed on this input")]
    Panicked,
}

impl From<SignalProtocolError> for SessionError {
    /// Sorts libsignal's errors by remedy. Input was parsed before, so what is structurally wrong afterwards is a
    /// stored record.
    fn from(error: SignalProtocolError) -> Self {
        use SignalProtocolError as E;
        match error {
            E::DuplicatedMessage(..) => Self::Duplicate,
            E::UntrustedIdentity(..) => Self::UntrustedIdentity,
            E::InvalidPreKeyId | E::InvalidSignedPreKeyId | E::InvalidKyberPreKeyId => Self::NoPreKeys,
            E::SessionNotFound(..) => Self::Expired,
            E::SignatureValidationFailed => Self::BadSignature,
            E::InvalidState(..)
            | E::InvalidSessionStructure(..)
            | E::InvalidSenderKeySession { .. }
            | E::InvalidMacKeyLength(..)
            | E::InvalidProtobufEncoding => Self::DamagedRecord,
            E::BadKEMCiphertextLength(..) | E::BadKEMKeyLength(..) | E::BadKEMKeyType(..) => Self::Malformed,
            _ => Self::Undecryptable,
        }
    }
}
