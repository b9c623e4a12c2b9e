//! The records of a compartment. Numbers of tables and names of fields are part of the vault's format.
//!
//! | module | what |
//! | --- | --- |
//! | here | ids, settings, relays, mailboxes, operations |
//! | `chats` | chats, contacts, messages |
//! | `groups` | what a member holds of a group |
//! | `files` | files that belong to messages |
//! | `erasure` | keys of bodies, deadlines, drafts, what is still to be erased |
//! | `plans` | trusts, alerts, plans |
//! | `renewals` | beginning a session anew |
//! | `moves` | chats on their way to another compartment |
//!
//! Secrets lie here as bytes: the volume underneath is sealed, and the program's allocator wipes what it frees.

use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    frame::{Refusal, Seq},
    ids::{BlobHash, MailboxId, RunningHash, TripwireId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

mod chats;
mod erasure;
mod files;
mod groups;
mod moves;
mod plans;
mod renewals;

pub use chats::{
    ChatKind, ChatRow, ContactRow, ContactState, JoiningRow, MessageRow, MessageState, NameRow,
    TakenTicketRow, Writer,
};
pub(crate) use chats::{ContactStanding, SealedText};
pub use erasure::{
    BodyKeyRow, ClockRow, DeadlineRow, DoomedKeyRow, DraftRow, DueRow, ErasingRow, SpareKeyRow, TimerRow,
};
pub use files::{FileRow, UploadRow};
pub use groups::{AuthorRow, ChainRow, GroupRow, InvitationRow, KeptEpoch, PeerRow, SeenRow, UnsealedRow};
pub use moves::{ArrivalRow, DepartureRow, MoveEnd, MoveId, StagedChat, StagedRow};
pub use plans::{
    AlertRow, HeldVoices, PlanAction, PlanRow, PlanState, QuorumRecord, RemoteRecord, Sink, ToldVoices,
    TripwireRecord, TrustRow, TrustSide, VoiceRecord,
};
pub use renewals::{FormerSession, GivenTicket, MarksRow, RenewalDueRow, RenewalRow, WaitingRenewal};

use super::unit::Row;

macro_rules! local_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "serde_bytes")] [u8; 16]);

        impl $name {
            /// The id with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

local_id! {
    /// A chat, known on this device only.
    ChatId
}

impl ChatId {
    /// The chat of operations whose own chat was deleted. No chat has this id: ids are drawn at random.
    pub const NOBODY: Self = Self([0; 16]);
}

/// Place of a message in its chat: 1, 2, 3, ... in the order of arrival here, which no peer chooses.
pub type Order = u64;

/// Number of an operation that a relay has still to carry out.
pub type OpId = u64;

/// What is counted up in one compartment.
#[derive(Clone, Copy, Debug)]
pub enum Counter {
    /// Operations.
    Op,
    /// Messages.
    Order,
}

impl Counter {
    pub(super) fn key(self) -> Vec<u8> {
        match self {
            Self::Op => vec![0x00, 1],
            Self::Order => vec![0x00, 2],
        }
    }
}

macro_rules! row {
    ($table:literal, $row:ty, $key:ty, $to:expr, $from:expr) => {
        impl Row for $row {
            const TABLE: u8 = $table;
            type Key = $key;
            fn key_bytes(key: &Self::Key) -> Vec<u8> {
                let to: fn(&$key) -> Vec<u8> = $to;
                to(key)
            }
            fn key_from(bytes: &[u8]) -> Option<Self::Key> {
                let from: fn(&[u8]) -> Option<$key> = $from;
                from(bytes)
            }
        }
    };
}

/// Records hold keys and texts: `Debug` shows which, and nothing of it.
macro_rules! redacted {
    ($($name:ident),+ $(,)?) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )+};
}

use {redacted, row};

fn id16(bytes: &[u8]) -> Option<ChatId> {
    bytes.try_into().ok().map(ChatId::from_bytes)
}

fn chat_and<T>(bytes: &[u8], rest: fn(&[u8]) -> Option<T>) -> Option<(ChatId, T)> {
    let (chat, tail) = bytes.split_first_chunk::<16>()?;
    Some((ChatId::from_bytes(*chat), rest(tail)?))
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// What a compartment says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SettingsRow {
    /// Its name, chosen by its owner.
    pub name: String,
    /// It is to be deleted: everything in it was left, and the next session that finds it finishes that.
    #[serde(default)]
    pub leaving: bool,
}
row!(0x01, SettingsRow, (), |()| vec![], |b| b.is_empty().then_some(()));

/// What the compartment has kept of what lies outside it: old blocks of a disk may hold it for ever.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsRow {
    /// Volumes whose keys were recorded beside it.
    pub led: Vec<ByteBuf>,
    /// Keys of passphrases were recorded beside it, or a plan in it.
    pub held: bool,
}
row!(0x16, RecordsRow, (), |()| vec![], |b| b.is_empty().then_some(()));
redacted!(RecordsRow);

/// A relay that this compartment uses.
#[derive(Clone, Serialize, Deserialize)]
pub struct RelayRow {
    /// Where it is.
    pub address: RelayAddress,
    /// Seed of the access ticket.
    pub access: ByteBuf,
    /// What the relay said when it last refused the ticket.
    pub refused: Option<Refusal>,
    /// When it last turned out to have forgotten something, and was told everything anew.
    #[serde(default)]
    pub retold: Option<Timestamp>,
}
row!(0x02, RelayRow, [u8; 32], |k| k.to_vec(), |b| b.try_into().ok());

/// The key that a relay has now, where it has changed it since it was named here; see SUC-02.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeirRow {
    /// The hash of the key.
    pub key: RelayKey,
}
row!(0x17, HeirRow, [u8; 32], |k| k.to_vec(), |b| b.try_into().ok());

/// What a mailbox is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// First messages of who holds our ticket.
    Ticket(ChatId),
    /// Messages of one contact.
    Direct(ChatId),
    /// Entries of a group's log.
    Group(ChatId),
    /// Alerts of one person whose trusted contact we are.
    Alert(#[serde(with = "serde_bytes")] [u8; 16]),
    /// Alerts that we may have sent: made for a trusted contact, read by him.
    AlertOutbox(#[serde(with = "serde_bytes")] [u8; 16]),
    /// A mailbox that only shows that this compartment lives at the relay.
    Home,
}

/// Where a mailbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailboxState {
    /// The relay has not confirmed that it exists.
    Creating,
    /// In use.
    Open,
}

/// A mailbox that we own or read.
#[derive(Clone, Serialize, Deserialize)]
pub struct MailboxRow {
    /// At this relay.
    pub relay: RelayAddress,
    /// What for.
    pub purpose: Purpose,
    /// Where in its life.
    pub state: MailboxState,
    /// Queue or log.
    pub kind: lapwing_wire::frame::MailboxKind,
    /// Seed of the admin key, where it is ours.
    pub admin: Option<ByteBuf>,
    /// Seed of the read key.
    pub read: Option<ByteBuf>,
    /// Seed of the write key.
    pub write: Option<ByteBuf>,
    /// Seals its envelopes.
    pub key: ByteBuf,
    /// The last number that was taken.
    pub cursor: Seq,
    /// Running hash at the cursor, where it is known.
    pub hash: Option<RunningHash>,
    /// The relay contradicted itself: it lost or changed what it had stored.
    pub inconsistent: bool,
    /// From when on it is closed, as soon as all that came is taken.
    pub closes: Option<Timestamp>,
}
row!(0x05, MailboxRow, MailboxId, |k| k.as_bytes().to_vec(), |b| b
    .try_into()
    .ok()
    .map(MailboxId::from_bytes));

/// What a relay has still to do for us.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// Create a mailbox of ours.
    Create {
        /// Whose row has the keys.
        mailbox: MailboxId,
    },
    /// Close a mailbox of ours.
    Close {
        /// Which.
        mailbox: MailboxId,
        /// Seed of its admin key: the row may be gone.
        admin: ByteBuf,
    },
    /// Append an envelope.
    Append {
        /// Where to.
        mailbox: MailboxId,
        /// Seed of the write key.
        write: ByteBuf,
        /// Seals envelopes of that mailbox; needed if the peer moves before this one left.
        key: ByteBuf,
        /// The envelope.
        envelope: ByteBuf,
        /// The chat it belongs to.
        chat: ChatId,
        /// The message it carries, where it carries one that a person wrote.
        order: Option<Order>,
    },
    /// Store a blob.
    PutBlob {
        /// Its name.
        hash: BlobHash,
        /// Its bytes.
        bytes: ByteBuf,
        /// How much of it the relay has.
        offset: u64,
    },
    /// Fetch the bundle that a ticket names.
    GetBundle {
        /// Its name.
        hash: BlobHash,
        /// The chat that was begun with the ticket.
        chat: ChatId,
    },
    /// Fetch the history of a group that we were let into.
    GetChain {
        /// Its name.
        hash: BlobHash,
        /// The group's chat.
        chat: ChatId,
        /// What is here of it.
        got: ByteBuf,
    },
    /// Arm the tripwire of a plan as it is now.
    Arm {
        /// Which plan.
        plan: [u8; 16],
    },
    /// Remove a tripwire.
    Disarm {
        /// Seed of the owner key.
        owner: ByteBuf,
    },
    /// Raise our voice as a trusted contact.
    Trigger {
        /// Through which trust we have it.
        trust: [u8; 16],
        /// For what.
        tripwire: TripwireId,
    },
}

/// An operation and what became of its last try.
#[derive(Clone, Serialize, Deserialize)]
pub struct OpRow {
    /// At this relay.
    pub relay: RelayAddress,
    /// What.
    pub kind: OpKind,
    /// A mailbox of ours that has to exist first.
    pub after: Option<MailboxId>,
    /// What the relay said when it last refused.
    pub refused: Option<Refusal>,
}
row!(0x06, OpRow, OpId, |k| k.to_be_bytes().to_vec(), number);

redacted!(RelayRow, HeirRow, MailboxRow, OpKind, OpRow);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_show_nothing_of_what_they_hold() {
        let secret = ByteBuf::from(b"a secret of thirty-two bytes ...".to_vec());
        let row = PeerRow { session: secret.clone() };
        assert_eq!(format!("{row:?}"), "PeerRow(..)");
        let kind = OpKind::Disarm { owner: secret.clone() };
        assert_eq!(format!("{kind:?}"), "OpKind(..)");
        let key = RelayKey::of_spki(b"a relay");
        let relay = RelayAddress::new(key, "relay.example", 443).unwrap();
        let row = OpRow { relay: relay.clone(), kind, after: None, refused: None };
        assert_eq!(format!("{row:?}"), "OpRow(..)");
        let row = RelayRow { address: relay, access: secret, refused: None, retold: None };
        assert_eq!(format!("{row:?}"), "RelayRow(..)");
    }
}
