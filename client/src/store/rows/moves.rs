//! Chats on their way from one compartment to another.

use lapwing_wire::ids::MailboxId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    super::unit::Row, AlertRow, ChatId, ChatRow, ContactRow, DraftRow, MailboxRow, OpRow, RenewalRow,
    TakenTicketRow, TimerRow, chat_and, id16, number, redacted, row,
};

/// Names one moving of one chat, at both of its ends.
pub type MoveId = [u8; 16];

/// What tells for one moving whether an open compartment is its other end, and tells nothing where that is not open.
pub type MoveEnd = [u8; 16];

/// A chat that is coming from another compartment, by its id here. It goes when all of the chat lies where it is used.
#[derive(Clone, Serialize, Deserialize)]
pub struct ArrivalRow {
    /// Which moving.
    #[serde(with = "serde_bytes")]
    pub id: MoveId,
    /// The chat's id at the other end.
    pub from: ChatId,
    /// The other end.
    #[serde(with = "serde_bytes")]
    pub source: MoveEnd,
    /// The other end has let go of it, and it is shown here.
    pub live: bool,
}
row!(0x33, ArrivalRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// A chat went to another compartment, until that one has it. Which chat and where to, it does not say.
#[derive(Clone, Serialize, Deserialize)]
pub struct DepartureRow {
    /// The other end.
    #[serde(with = "serde_bytes")]
    pub target: MoveEnd,
}
row!(0x34, DepartureRow, MoveId, |k| k.to_vec(), |b| b.try_into().ok());

/// What is here of a chat that is coming, beside its messages, and is not used yet: under number 0 the chat, under others
/// what waits for relays, in its order.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct StagedRow {
    /// The chat itself.
    pub chat: Option<Box<StagedChat>>,
    /// What waits for a relay.
    pub op: Option<Box<OpRow>>,
}
row!(
    0x35,
    StagedRow,
    (ChatId, u64),
    |(chat, number)| [chat.as_bytes().as_slice(), &number.to_be_bytes()].concat(),
    |b| chat_and(b, number)
);

/// The records of a chat that is coming, as they will lie here.
#[derive(Clone, Serialize, Deserialize)]
pub struct StagedChat {
    /// The chat.
    pub shown: ChatRow,
    /// Its contact.
    pub contact: ContactRow,
    /// What a renewal needs.
    pub renewal: Option<RenewalRow>,
    /// How long messages are kept.
    pub timer: Option<TimerRow>,
    /// What was not sent; sealed already under a key of this compartment.
    pub draft: Option<DraftRow>,
    /// Its mailboxes.
    pub mailboxes: Vec<(MailboxId, MailboxRow)>,
    /// Tickets that were taken for it.
    pub tickets: Vec<(MailboxId, TakenTicketRow)>,
    /// Alerts that came through it.
    pub alerts: Vec<(ByteBuf, AlertRow)>,
}

redacted!(ArrivalRow, DepartureRow, StagedRow, StagedChat);
