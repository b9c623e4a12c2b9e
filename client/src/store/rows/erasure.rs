//! What must not outlive its use: keys of bodies, deadlines, drafts, and what is still to be erased.

use lapwing_wire::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::{
    super::{base::BodyKeyName, unit::Row},
    ChatId, Order, chat_and, id16, number, redacted, row,
};

/// The key that seals what one chat stored on one day. When nothing is left that it seals, it is destroyed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BodyKeyRow {
    /// Its name in the table of keys; never used again after its end.
    #[serde(with = "serde_bytes")]
    pub name: BodyKeyName,
    /// Bodies under it, and under those of `lost`.
    pub bodies: u64,
    /// Names that it had before, for which the table of keys had no answer any more. All end together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<ByteArray<16>>,
}
row!(
    0x20,
    BodyKeyRow,
    (ChatId, u64),
    |(chat, day)| [chat.as_bytes().as_slice(), &day.to_be_bytes()].concat(),
    |b| chat_and(b, number)
);

/// The key for bodies of all chats: used where the table of keys has no room for another day. Made while there is room,
/// and destroyed like every other with the last body under it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpareKeyRow {
    /// Its name in the table of keys; never used again after its end.
    #[serde(with = "serde_bytes")]
    pub name: BodyKeyName,
    /// Bodies under it, and under those of `lost`.
    pub bodies: u64,
    /// Names that it had before, for which the table of keys had no answer any more. All end together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<ByteArray<16>>,
}
row!(0x28, SpareKeyRow, (), |()| vec![], |b| b.is_empty().then_some(()));

/// A key that nothing needs any more. The commit that holds this row decides its end; the row goes when it is destroyed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DoomedKeyRow {}
row!(0x21, DoomedKeyRow, BodyKeyName, |k| k.to_vec(), |b| b.try_into().ok());

/// Messages of a chat that are still to be erased. Too many for one commit: each step erases some, and whichever command
/// comes next goes on where a killed one stopped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErasingRow {
    /// Up to here.
    pub upto: Order,
    /// Only what came into this vault before.
    pub before: Option<Timestamp>,
    /// What was looked at.
    pub after: Order,
    /// The chat itself is gone.
    pub whole: bool,
}
row!(0x22, ErasingRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// When a message is to be erased.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadlineRow {
    /// Then.
    pub at: Timestamp,
    /// It was shown, or is ours: its time runs.
    pub runs: bool,
    /// While the clock is behind: the end that counts again when it passes each time of [`ClockRow::ahead`].
    #[serde(default)]
    pub right: Vec<Timestamp>,
}
row!(
    0x23,
    DeadlineRow,
    (ChatId, Order),
    |(chat, order)| [chat.as_bytes().as_slice(), &order.to_be_bytes()].concat(),
    |b| chat_and(b, number)
);

/// The same, in the order of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DueRow {}
row!(
    0x24,
    DueRow,
    (Timestamp, ChatId, Order),
    |(at, chat, order)| {
        [at.as_millis().to_be_bytes().as_slice(), chat.as_bytes(), &order.to_be_bytes()].concat()
    },
    |b| {
        let (at, rest) = b.split_first_chunk::<8>()?;
        let (chat, order) = chat_and(rest, number)?;
        Some((Timestamp::from_millis(u64::from_be_bytes(*at)), chat, order))
    }
);

/// How long messages of a chat are kept. The shorter wish counts; no wish means for ever.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TimerRow {
    /// Ours, in seconds.
    pub ours: Option<u32>,
    /// Number of our last word on it.
    pub our_number: u64,
    /// The peer's; in a group that of its owner and admins.
    pub theirs: Option<u32>,
    /// Number of the last word of theirs.
    pub their_number: u64,
}
row!(0x25, TimerRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// What this compartment knows of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClockRow {
    /// The latest time at which a deadline was set: an earlier clock was set back.
    pub latest: Timestamp,
    /// When records that have outlived their use were last looked for.
    pub swept: Option<Timestamp>,
    /// Times from which the clock went back and which it has not reached again, the nearest last.
    #[serde(default)]
    pub ahead: Vec<Timestamp>,
}
row!(0x26, ClockRow, (), |()| vec![], |b| b.is_empty().then_some(()));

/// A text that its owner has not sent.
#[derive(Clone, Serialize, Deserialize)]
pub struct DraftRow {
    /// When it was last changed.
    pub stored: Timestamp,
    /// Binds the body to this row; from the counter of messages.
    pub number: Order,
    /// Name of the key that seals it.
    #[serde(with = "serde_bytes")]
    pub key: BodyKeyName,
    /// Nonce and sealed text.
    pub body: ByteBuf,
}
row!(0x27, DraftRow, ChatId, |k| k.as_bytes().to_vec(), id16);

redacted!(DraftRow);
