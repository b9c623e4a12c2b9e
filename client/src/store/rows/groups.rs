//! Groups: what a member holds.

use lapwing_protocol::{content::MessageId, group::MemberId};
use lapwing_wire::{ids::MailboxId, time::Timestamp};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{super::unit::Row, ChatId, Order, chat_and, id16, number, redacted, row};

/// A group as this member holds it.
#[derive(Clone, Serialize, Deserialize)]
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
#[derive(Clone, Serialize, Deserialize)]
pub struct ChainRow {
    /// As the protocol exports it.
    pub state: ByteBuf,
}
row!(0x10, ChainRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// Keys of one epoch of a group.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeptEpoch {
    /// As the protocol encodes them.
    pub keys: ByteBuf,
    /// The log's mailbox.
    pub mailbox: MailboxId,
    /// When it was left, for older ones.
    pub left: Option<Timestamp>,
}

/// Our pairwise session with a member of a group.
#[derive(Clone, Serialize, Deserialize)]
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
#[derive(Clone, Serialize, Deserialize)]
pub struct AuthorRow {
    /// His sender keys, newest last.
    pub keys: Vec<ByteBuf>,
    /// His last number and hash.
    pub track: ByteBuf,
    /// When the newest of his keys came, where there is an older one.
    #[serde(default)]
    pub renewed: Option<Timestamp>,
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
#[derive(Clone, Serialize, Deserialize)]
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
    /// No message of a person: the group's timer, as it is when this is sealed.
    #[serde(default)]
    pub timer: bool,
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
    /// The day it came: no more than its own end needs.
    pub at: Timestamp,
}
row!(
    0x12,
    SeenRow,
    (ChatId, MessageId),
    |(chat, message)| [chat.as_bytes().as_slice(), message.as_bytes()].concat(),
    |b| chat_and(b, |m| m.try_into().ok().map(MessageId::from_bytes))
);

redacted!(GroupRow, ChainRow, KeptEpoch, PeerRow, AuthorRow, InvitationRow);
