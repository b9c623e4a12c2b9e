//! Trusts, alerts, plans and their tripwires.

use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    ids::{MailboxId, TripwireId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{super::unit::Row, ChatId, redacted, row};

/// One of the two roles in a trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustSide {
    /// The contact gets our alerts.
    Ours,
    /// We get the contact's alerts.
    Theirs,
}

/// A trust between us and a contact.
#[derive(Clone, Serialize, Deserialize)]
pub struct TrustRow {
    /// Who gets whose alerts.
    pub side: TrustSide,
    /// The chat with the contact.
    pub chat: ChatId,
    /// The contact said yes (ours), or we did (theirs).
    pub accepted: bool,
    /// Mailbox, keys and signer, as the request carried them.
    pub request: ByteBuf,
    /// Seed of the key that signs alerts (ours).
    pub signer: Option<ByteBuf>,
    /// What the contact was last told that he can set off (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<ToldVoices>,
    /// What we can set off (theirs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldVoices>,
}
row!(0x08, TrustRow, [u8; 16], |k| k.to_vec(), |b| b.try_into().ok());

/// What a trusted contact was last told that he can set off.
#[derive(Clone, Serialize, Deserialize)]
pub struct ToldVoices {
    /// The number under which he was told.
    pub number: u64,
    /// Hash of what he was told.
    #[serde(with = "serde_bytes")]
    pub digest: [u8; 32],
}

/// What we can set off for a contact whose trusted contact we are.
#[derive(Clone, Serialize, Deserialize)]
pub struct HeldVoices {
    /// The voices, as they came.
    pub voices: ByteBuf,
    /// Tripwires whose relays took our voice, and when.
    pub given: Vec<(TripwireId, Timestamp)>,
}

/// An alert that reached us.
#[derive(Clone, Serialize, Deserialize)]
pub struct AlertRow {
    /// Through which trust.
    #[serde(with = "serde_bytes")]
    pub trust: [u8; 16],
    /// The chat with the person.
    pub chat: ChatId,
    /// What the trust was when it came: the alert stays readable after the trust has ended.
    pub request: ByteBuf,
    /// The alert as it was signed.
    pub alert: ByteBuf,
    /// When it came.
    pub received: Timestamp,
    /// When we acknowledged it.
    pub acknowledged: Option<Timestamp>,
}
row!(0x09, AlertRow, [u8; 16], |k| k.to_vec(), |b| b.try_into().ok());

/// What becomes of what the cover does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// It stays, unseen.
    Hide,
    /// Its keys die.
    Destroy,
}

/// How far the setting up of a plan has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Begun; the next session that finds it so undoes it.
    Pending,
    /// In force.
    Armed,
}

/// What relays do without us: a plan that a duress passphrase sets off, in a compartment that its cover does not show; or a
/// check-in, which silence sets off.
#[derive(Clone, Serialize, Deserialize)]
pub struct PlanRow {
    /// The owner's name for it. A check-in has none.
    pub name: String,
    /// How far it has come.
    pub state: PlanState,
    /// What becomes of the rest.
    pub action: PlanAction,
    /// Names of the compartments that its cover shows.
    pub shows: Vec<String>,
    /// Trusts whose contacts are alerted.
    pub alerts: Vec<[u8; 16]>,
    /// What the alert says.
    pub text: String,
    /// Last known place.
    pub place: Option<String>,
    /// What the contacts are asked to do.
    pub instructions: Option<String>,
    /// One tripwire per relay.
    pub tripwires: Vec<TripwireRecord>,
    /// Mailboxes of what `destroy` ends: from the firing on they answer as before and discard.
    pub sinks: Vec<Sink>,
    /// Id of the alert, the same at each arming, so that recipients show it once.
    #[serde(with = "serde_bytes")]
    pub alert: [u8; 16],
    /// When it was made.
    pub made: Timestamp,
    /// Of a check-in: the silence, in seconds, after which the alert leaves. It shows nothing and has no passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Of a check-in: when a relay last said that it took our word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Timestamp>,
    /// How its trusted contacts can set it off from afar, together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteRecord>,
}
row!(0x0a, PlanRow, [u8; 16], |k| k.to_vec(), |b| b.try_into().ok());

/// How trusted contacts set a plan off from afar.
#[derive(Clone, Serialize, Deserialize)]
pub struct RemoteRecord {
    /// How many of them suffice.
    pub needed: u8,
    /// Id of the alert that leaves then: another one than that of the passphrase, so that whoever got one is shown the other.
    #[serde(with = "serde_bytes")]
    pub alert: [u8; 16],
}

/// A mailbox that a firing turns into a sink.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Sink {
    /// Its relay.
    pub relay: RelayKey,
    /// Which.
    pub mailbox: MailboxId,
    /// Seed of its admin key.
    pub admin: ByteBuf,
}

/// A tripwire of a plan at one relay.
#[derive(Clone, Serialize, Deserialize)]
pub struct TripwireRecord {
    /// At this relay.
    pub relay: RelayAddress,
    /// Its id.
    pub id: TripwireId,
    /// Seed of the owner key.
    pub owner: ByteBuf,
    /// The token that the cover's unlock sends.
    pub fire: ByteBuf,
    /// The token that our own unlock sends; of a check-in, the one that checks in.
    pub renew: ByteBuf,
    /// Reads the status in the answers to our own token.
    pub status: ByteBuf,
    /// No lower serial is sent from now on.
    pub floor: u64,
    /// Hash of what is to be armed.
    #[serde(with = "serde_bytes")]
    pub wanted: [u8; 32],
    /// Hash of what the relay confirmed.
    pub armed: Option<ByteBuf>,
    /// It was set off: the relay said so, or does not have it any more.
    pub fired: bool,
    /// Its trusted contacts can set it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<QuorumRecord>,
    /// What its relay holds in place of that until it confirms it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<QuorumRecord>,
    /// Its trusted contacts have set it off.
    #[serde(default)]
    pub agreed: bool,
}

/// The key of what trusted contacts set off, and their parts of it.
#[derive(Clone, Serialize, Deserialize)]
pub struct QuorumRecord {
    /// Seals the list; the same for as long as the contacts are the same (TRP-13).
    pub key: ByteBuf,
    /// Who has which part.
    pub voices: Vec<VoiceRecord>,
}

/// A trusted contact's part of a quorum.
#[derive(Clone, Serialize, Deserialize)]
pub struct VoiceRecord {
    /// Through which trust.
    #[serde(with = "serde_bytes")]
    pub trust: [u8; 16],
    /// Seed of the key that he proves.
    pub key: ByteBuf,
    /// His share of the list's key.
    pub share: ByteBuf,
}

redacted!(
    TrustRow,
    ToldVoices,
    HeldVoices,
    AlertRow,
    PlanRow,
    RemoteRecord,
    Sink,
    TripwireRecord,
    QuorumRecord,
    VoiceRecord
);
