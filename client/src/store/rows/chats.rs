//! Chats, contacts, messages.

use lapwing_protocol::{content::MessageId, group::MemberId};
use lapwing_wire::{ids::MailboxId, time::Timestamp};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    super::{record, unit::Row},
    ChatId, Order, chat_and, id16, number, redacted, row,
};

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
    /// When the ticket ends, and with it the use of this row.
    #[serde(default)]
    pub until: Option<Timestamp>,
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
#[derive(Clone, Serialize, Deserialize)]
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

/// What a list of chats shows of a contact.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct ContactStanding {
    /// How far it has come.
    pub(crate) state: ContactState,
    /// The owner compared safety numbers.
    pub(crate) verified: bool,
}

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

/// A message; its text is sealed under a key of the volume's key table.
#[derive(Clone, Serialize, Deserialize)]
pub struct MessageRow {
    /// Chosen by its author.
    pub id: MessageId,
    /// Who wrote it.
    pub writer: Writer,
    /// When its author says he wrote it.
    pub sent: Timestamp,
    /// When it came into this vault.
    pub stored: Timestamp,
    /// Where it is.
    pub state: MessageState,
    /// How long it is kept once it was shown, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lives: Option<u32>,
    /// Name of the key that seals its text: as a rule that of its chat and day.
    #[serde(with = "serde_bytes")]
    pub key: [u8; 16],
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

impl MessageRow {
    /// What seals the text, without reading the rest of the record: for looking through many. `None` where it has
    /// another shape.
    pub(crate) fn sealed(bytes: &[u8]) -> Option<SealedText<'_>> {
        record::read(bytes).ok()
    }
}

/// The sealed text of a message, where the record lies.
#[derive(Deserialize)]
pub(crate) struct SealedText<'a> {
    /// Name of the key.
    #[serde(with = "serde_bytes")]
    pub(crate) key: [u8; 16],
    /// Nonce and sealed text.
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) body: &'a [u8],
}

redacted!(ContactRow, MessageRow);
