//! Files that belong to messages.

use lapwing_wire::{address::RelayAddress, frame::Refusal};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{super::unit::Row, ChatId, Order, chat_and, number, redacted, row};

/// What names and opens the file of a message. It lives and dies with the message: it is sealed under the same key.
#[derive(Clone, Serialize, Deserialize)]
pub struct FileRow {
    /// Nonce and sealed reference.
    pub body: ByteBuf,
    /// It was fetched here.
    #[serde(default)]
    pub fetched: bool,
}
row!(
    0x38,
    FileRow,
    (ChatId, Order),
    |(chat, order)| [chat.as_bytes().as_slice(), &order.to_be_bytes()].concat(),
    |b| chat_and(b, number)
);

/// A file of ours that is on its way to a relay. The message leaves when it is there.
#[derive(Clone, Serialize, Deserialize)]
pub struct UploadRow {
    /// At this relay.
    pub relay: RelayAddress,
    /// Where the file lies on this computer.
    pub path: ByteBuf,
    /// It is sent as it is, with what it says beside its content.
    pub whole: bool,
    /// Bytes of the blob that the relay has, as far as was noted.
    pub done: u64,
    /// What the relay said when it last refused.
    #[serde(default)]
    pub refused: Option<Refusal>,
}
row!(
    0x39,
    UploadRow,
    (ChatId, Order),
    |(chat, order)| [chat.as_bytes().as_slice(), &order.to_be_bytes()].concat(),
    |b| chat_and(b, number)
);

redacted!(FileRow, UploadRow);
