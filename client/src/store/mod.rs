//! Typed records of one compartment, and the unit of work that changes many of them at once or none.
//!
//! | module | what |
//! | --- | --- |
//! | `base` | what a compartment's storage must offer: a vault volume, or memory in tests |
//! | `unit` | reads through to the base, keeps changes until they are committed together |
//! | `rows` | every record's shape |
//! | `tables` | in which table of the database a record lies, and why not all in one |
//! | `measure` | what a record may come to without another word in it |
//! | `doomed` | keys that a commit has doomed |
//! | `record` | reads the bytes of a record, fast |
//!
//! One commit holds the message, the advanced ratchet state and the read cursor (design 4.3): the engine stages all
//! of them in one [`Unit`], and only a committed unit is acknowledged to a relay.

mod base;
mod doomed;
mod measure;
mod record;
mod rows;
mod tables;
mod unit;
mod volume;

pub use base::{Base, BodyKeyName, MemoryBase, Record, StoreError, Visitor};
pub use doomed::destroy_doomed_keys;
pub use rows::{
    AlertRow, AuthorRow, BodyKeyRow, ChainRow, ChatId, ChatKind, ChatRow, ClockRow, ContactRow, ContactState,
    Counter, DeadlineRow, DoomedKeyRow, DraftRow, DueRow, ErasingRow, GroupRow, HeirRow, InvitationRow,
    JoiningRow, KeptEpoch, MailboxRow, MailboxState, MessageRow, MessageState, NameRow, OpId, OpKind, OpRow,
    Order, PeerRow, PlanAction, PlanRow, PlanState, Purpose, RecordsRow, RelayRow, SeenRow, SettingsRow,
    Sink, SpareKeyRow, TakenTicketRow, TimerRow, TripwireRecord, TrustRow, TrustSide, UnsealedRow, Writer,
};
pub use rows::{ArrivalRow, DepartureRow, MoveEnd, MoveId, StagedChat, StagedRow};
pub(crate) use rows::{ContactStanding, SealedText};
pub use rows::{FileRow, UploadRow};
pub use rows::{FormerSession, GivenTicket, MarksRow, RenewalDueRow, RenewalRow, WaitingRenewal};
pub use rows::{HeldVoices, QuorumRecord, RemoteRecord, ToldVoices, VoiceRecord};
pub use unit::{Changes, Row, Unit};
pub use volume::VolumeBase;
