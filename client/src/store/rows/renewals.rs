//! What it takes to begin a session anew, and what tells that a vault was used in two places.

use lapwing_wire::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{super::unit::Row, ChatId, id16, redacted, row};

/// What a direct chat keeps for the day on which its session is gone. Its own record: it is large and rarely changes.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct RenewalRow {
    /// Our identity of this chat with the pre-keys of the tickets that we gave.
    pub keys: ByteBuf,
    /// Tickets that we gave to the peer, oldest first.
    pub given: Vec<GivenTicket>,
    /// The newest ticket that the peer gave us.
    pub ticket: Option<ByteBuf>,
    /// Secrets of tickets that we used, oldest first: their other end may refuse somebody else who uses them.
    pub spent: Vec<ByteBuf>,
    /// A handshake of ours that is not answered yet.
    pub waiting: Option<WaitingRenewal>,
    /// Base keys of the handshakes that we began last, oldest first.
    pub begun: Vec<ByteBuf>,
    /// The session before, which is only read.
    pub former: Option<FormerSession>,
    /// Where the peer read before he began anew.
    pub old_route: Option<ByteBuf>,
    /// The peer's identity, where there is no session to name it.
    pub peer: Option<ByteBuf>,
    /// When the session was last begun anew, by either side.
    pub renewed: Option<Timestamp>,
    /// Base keys of handshakes that were refused, ours or the peer's: each is told once.
    pub refused: Vec<ByteBuf>,
    /// When the record is next looked at; see [`RenewalDueRow`].
    pub due: Option<Timestamp>,
    /// The chat was moved: another identity of ours is to go on with it, as soon as there is a ticket for that.
    #[serde(default)]
    pub succeeds: bool,
    /// Safety numbers were compared, and an identity was succeeded since: the number is another one now.
    #[serde(default)]
    pub carried: bool,
}
row!(0x30, RenewalRow, ChatId, |k| k.as_bytes().to_vec(), id16);

/// A ticket that we gave.
#[derive(Clone, Serialize, Deserialize)]
pub struct GivenTicket {
    /// The pre-key set behind it.
    pub set: u32,
    /// Shared with the peer.
    pub secret: ByteBuf,
    /// When it was given.
    pub made: Timestamp,
    /// Its pre-keys are there: it can be used.
    pub open: bool,
}

/// A handshake of ours that is not answered yet.
#[derive(Clone, Serialize, Deserialize)]
pub struct WaitingRenewal {
    /// When it began.
    pub since: Timestamp,
    /// When it was last sent.
    pub told: Timestamp,
    /// Its base key.
    pub base: ByteBuf,
    /// The first message of a new identity's session, which the session before carries.
    pub first: Option<ByteBuf>,
}

/// A session that was replaced.
#[derive(Clone, Serialize, Deserialize)]
pub struct FormerSession {
    /// It.
    pub session: ByteBuf,
    /// Our identity in it, where that was replaced too.
    pub local: Option<ByteBuf>,
    /// We began it and nobody had answered: an answer brings it back.
    pub unanswered: bool,
    /// Until then it is kept.
    pub until: Timestamp,
}

/// When a renewal record is next looked at: found without reading every record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewalDueRow {}
row!(
    0x31,
    RenewalDueRow,
    (Timestamp, ChatId),
    |(at, chat)| [at.as_millis().to_be_bytes().as_slice(), chat.as_bytes()].concat(),
    |b| {
        let (at, chat) = b.split_first_chunk::<8>()?;
        Some((Timestamp::from_millis(u64::from_be_bytes(*at)), id16(chat)?))
    }
);

/// Marks of this vault in the mailboxes that only it writes to.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct MarksRow {
    /// The highest number that was seen, ours or another copy's.
    pub number: u64,
    /// Our own, oldest first.
    pub own: Vec<(u64, ByteBuf)>,
    /// When the last one was left.
    pub left: Option<Timestamp>,
    /// When another copy's was found.
    pub copied: Option<Timestamp>,
}
row!(0x32, MarksRow, (), |()| vec![], |b| b.is_empty().then_some(()));

redacted!(MarksRow, RenewalRow, GivenTicket, WaitingRenewal, FormerSession);
