//! Chats on their way from one compartment to another.

use serde::{Deserialize, Serialize};

use super::{super::unit::Row, ChatId, id16, redacted, row};

/// Names one moving of one chat, at both of its ends.
pub type MoveId = [u8; 16];

/// A chat that came, or is coming, from another compartment. It goes when the other one does not have the chat any more.
#[derive(Clone, Serialize, Deserialize)]
pub struct ArrivalRow {
    /// Which moving.
    #[serde(with = "serde_bytes")]
    pub id: MoveId,
    /// The chat's id at the other end.
    pub from: ChatId,
    /// All of it is here, and it is this compartment's; otherwise what is here goes again.
    pub whole: bool,
}
row!(0x33, ArrivalRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// A chat that went to another compartment, until that one knows it. Which chat, it does not say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DepartureRow {}
row!(0x34, DepartureRow, MoveId, |k| k.to_vec(), |b| b.try_into().ok());

redacted!(ArrivalRow);
