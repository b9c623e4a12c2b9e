//! The records of a compartment. Numbers of tables and names of fields are part of the vault's format.
//!
//! Secrets lie here as bytes: the volume underneath is sealed, and the program's allocator wipes what it frees.

use lapwing_protocol::{content::MessageId, group::MemberId};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    frame::{Refusal, Seq},
    ids::{BlobHash, MailboxId, RunningHash, TripwireId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

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
}
row!(0x01, SettingsRow, (), |()| vec![], |b| b.is_empty().then_some(()));

/// A relay that this compartment uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// One person or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    /// One other person.
    Direct,
    /// A group.
    Group,
}

/// A chat as its owner sees it in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChatRow {
    /// Chosen here; the peer never sees it.
    pub name: String,
    /// One person or many.
    pub kind: ChatKind,
    /// When it was begun.
    pub created: Timestamp,
    /// Nothing is taken or sent any more.
    pub blocked: bool,
    /// The last message that was shown.
    pub read_to: Order,
    /// Messages of others after it.
    #[serde(default)]
    pub unread: u64,
    /// Messages of ours that no relay has yet.
    #[serde(default)]
    pub waiting: u64,
    /// When the last message came into this vault.
    #[serde(default)]
    pub last: Option<Timestamp>,
}
row!(0x03, ChatRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// Which chat has a name: names are found without reading every chat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NameRow {
    /// The chat.
    pub chat: ChatId,
}
row!(0x13, NameRow, String, |k| k.as_bytes().to_vec(), |b| String::from_utf8(b.to_vec()).ok());

/// A joining that is not answered yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoiningRow {
    /// From then on no answer is expected any more.
    pub until: Timestamp,
}
row!(0x14, JoiningRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// A ticket that was taken here, by the mailbox it names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TakenTicketRow {
    /// The chat that was begun with it.
    pub chat: ChatId,
}
row!(0x15, TakenTicketRow, MailboxId, |k| k.as_bytes().to_vec(), |b| b
    .try_into()
    .ok()
    .map(MailboxId::from_bytes));

/// How far a contact has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactState {
    /// A ticket was given out; nobody used it yet.
    Invited,
    /// A ticket was taken; the bundle it names is not here yet.
    Joining,
    /// The first message is on its way; the answer is not here yet.
    Joined,
    /// Both sides know each other's mailboxes.
    Established,
    /// The ticket turned out to be used or withdrawn.
    Failed,
}

/// The cryptographic side of a direct chat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContactRow {
    /// How far it has come.
    pub state: ContactState,
    /// Our identity in this chat.
    pub local: ByteBuf,
    /// The session, once there is one.
    pub session: Option<ByteBuf>,
    /// How to send to the peer.
    pub route: Option<ByteBuf>,
    /// Our mailbox for this chat, once the ticket's is not it.
    pub inbox: Option<MailboxId>,
    /// The mailbox of the ticket that we gave out, until it is closed.
    pub ticket_mailbox: Option<MailboxId>,
    /// The ticket that we took, until the peer answered.
    pub ticket: Option<ByteBuf>,
    /// The owner compared safety numbers.
    pub verified: bool,
}
row!(0x04, ContactRow, ChatId, |k| k.as_bytes().to_vec(), id16);

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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
}

/// An operation and what became of its last try.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// The owner of this vault.
    Me,
    /// The other person of a direct chat.
    Peer,
    /// A member of a group.
    Member(MemberId),
    /// The program itself: somebody joined, was removed, ...
    Program,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// It came from somebody else.
    Received,
    /// The relay does not have it yet.
    Waiting,
    /// It is on the relay's disk.
    Sent,
    /// It will not be delivered.
    Failed,
}

/// A message; its text is sealed under the key of its chat and day.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageRow {
    /// Chosen by its author.
    pub id: MessageId,
    /// Who wrote it.
    pub writer: Writer,
    /// When its author says he wrote it.
    pub sent: Timestamp,
    /// When it came into this vault; names the day of its key.
    pub stored: Timestamp,
    /// Where it is.
    pub state: MessageState,
    /// Nonce and sealed text.
    pub body: ByteBuf,
}
row!(
    0x07,
    MessageRow,
    (ChatId, Order),
    |(chat, order)| [chat.as_bytes().as_slice(), &order.to_be_bytes()].concat(),
    |b| chat_and(b, number)
);

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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
}
row!(0x08, TrustRow, [u8; 16], |k| k.to_vec(), |b| b.try_into().ok());

/// An alert that reached us.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// A plan that a duress passphrase sets off. Lies in a compartment that its cover does not show.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanRow {
    /// The owner's name for it.
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
}
row!(0x0a, PlanRow, [u8; 16], |k| k.to_vec(), |b| b.try_into().ok());

/// A mailbox that a firing turns into a sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sink {
    /// Its relay.
    pub relay: RelayKey,
    /// Which.
    pub mailbox: MailboxId,
    /// Seed of its admin key.
    pub admin: ByteBuf,
}

/// A tripwire of a plan at one relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TripwireRecord {
    /// At this relay.
    pub relay: RelayAddress,
    /// Its id.
    pub id: TripwireId,
    /// Seed of the owner key.
    pub owner: ByteBuf,
    /// The token that the cover's unlock sends.
    pub fire: ByteBuf,
    /// The token that our own unlock sends.
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
    /// The relay said that it was set off.
    pub fired: bool,
}

/// Tokens of this payload that a relay has not answered yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingToken {
    /// When the unlock was.
    pub since: Timestamp,
}
row!(0x0b, PendingToken, [u8; 32], |k| k.to_vec(), |b| b.try_into().ok());

/// A group as this member holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupRow {
    /// Our identity in the group.
    pub local: ByteBuf,
    /// The bundle that the roster shows of us.
    pub bundle: ByteBuf,
    /// The epoch we write to.
    pub epoch: Option<KeptEpoch>,
    /// Epochs that we still read.
    pub older: Vec<KeptEpoch>,
    /// Our sender key in this epoch, and who has it.
    pub sender: Option<ByteBuf>,
    /// Who has our sender key.
    pub given_to: Vec<MemberId>,
    /// When it was made.
    #[serde(default)]
    pub sender_made: Option<Timestamp>,
    /// Number of our last message.
    pub counter: u64,
    /// Hash of our last message.
    #[serde(with = "serde_bytes")]
    pub previous: [u8; 32],
    /// Keys of a coming epoch, whose commit is not here yet.
    pub coming: Option<ByteBuf>,
    /// A welcome whose history is being fetched.
    pub welcome: Option<ByteBuf>,
    /// We left or were removed, or the group ended.
    pub ended: bool,
}
row!(0x0c, GroupRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// The verified chain of a group's commits. Its own record: it is long and changes rarely.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChainRow {
    /// As the protocol exports it.
    pub state: ByteBuf,
}
row!(0x10, ChainRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// Keys of one epoch of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptEpoch {
    /// As the protocol encodes them.
    pub keys: ByteBuf,
    /// The log's mailbox.
    pub mailbox: MailboxId,
    /// When it was left, for older ones.
    pub left: Option<Timestamp>,
}

/// Our pairwise session with a member of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerRow {
    /// The session.
    pub session: ByteBuf,
}
row!(
    0x0d,
    PeerRow,
    (ChatId, MemberId),
    |(chat, member)| [chat.as_bytes().as_slice(), member.as_bytes()].concat(),
    |b| chat_and(b, |m| m.try_into().ok().map(MemberId::from_bytes))
);

/// What we hold of a member who writes in a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthorRow {
    /// His sender keys, newest last.
    pub keys: Vec<ByteBuf>,
    /// His last number and hash.
    pub track: ByteBuf,
    /// The epoch of his last message.
    #[serde(default)]
    pub epoch: u64,
}
row!(
    0x0e,
    AuthorRow,
    (ChatId, MemberId),
    |(chat, member)| [chat.as_bytes().as_slice(), member.as_bytes()].concat(),
    |b| chat_and(b, |m| m.try_into().ok().map(MemberId::from_bytes))
);

/// An invitation to a group, given or received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InvitationRow {
    /// The direct chat it went through.
    pub through: ChatId,
    /// The group's id.
    #[serde(with = "serde_bytes")]
    pub group: [u8; 32],
    /// The group's chat: always for ours, for received ones once we said yes.
    pub chat: Option<ChatId>,
    /// The name it was given under.
    pub name: String,
    /// We invited (true) or were invited (false).
    pub ours: bool,
    /// An answer that waits for an admin's approval.
    pub request: Option<ByteBuf>,
    /// Who the contact is in the group, once he is in it.
    pub member: Option<MemberId>,
    /// When.
    pub made: Timestamp,
}
row!(0x0f, InvitationRow, [u8; 16], |k| k.to_vec(), |b| b.try_into().ok());

/// A message to a group that is not sealed yet: it waits until the log was read to its end, so that nobody who was
/// removed there can read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnsealedRow {
    /// When it was written.
    pub since: Timestamp,
}
row!(
    0x11,
    UnsealedRow,
    (ChatId, Order),
    |(chat, order)| [chat.as_bytes().as_slice(), &order.to_be_bytes()].concat(),
    |b| chat_and(b, number)
);

/// A message of a group that was shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeenRow {
    /// When it came.
    pub at: Timestamp,
}
row!(
    0x12,
    SeenRow,
    (ChatId, MessageId),
    |(chat, message)| [chat.as_bytes().as_slice(), message.as_bytes()].concat(),
    |b| chat_and(b, |m| m.try_into().ok().map(MessageId::from_bytes))
);
