//! What a relay keeps, behind one trait.
//!
//! | module | what |
//! | --- | --- |
//! | `anchor` | changes of anchors |
//! | [`record`] | what is kept, as types and as bytes |
//! | `tables` | ordered keys and values under one batch of changes |
//! | `cache` | what is remembered between batches |
//! | `rules` | what each change does, over any tables |
//! | `reads` | the queries, over any tables |
//! | [`memory`] | the reference |
//! | `engine` | what a store on disk needs from an embedded database |
//! | `error` | what can go wrong, and what to do |
//! | `export` | what of it goes into a backup, and a store made from one |
//! | `group` | a store on disk: group commit over any engine |
//! | `layered` | tables with a group over them that is on its way to the disk |
//! | `inspect` | what can be seen of a store without opening it |
//! | `keys` | what values are sealed under at rest, and how that is forgotten |
//! | `sealing` | values on their way to an engine and back |
//! | `room` | whether a full disk has room again |
//! | `values` | the log that the default engine makes everything durable with |
//! | [`fjall`] | the default engine |
//! | `sled` | the other, with the feature `sled` |
//! | [`conformance`] | the suite that every store passes |

mod anchor;
mod cache;
pub mod conformance;
mod damage;
mod engine;
mod error;
mod export;
pub mod fjall;
mod group;
mod inspect;
mod keys;
mod layered;
pub mod memory;
mod reads;
pub mod record;
mod room;
mod rules;
mod sealing;
#[cfg(feature = "sled")]
pub mod sled;
mod tables;
mod values;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lapwing_wire::{
    capability::{Access, Admin, PublicKey, TripwireOwner},
    frame::{BlobPart, MailboxKind, RaiseTrigger, Refusal, Seq, Stored, Window},
    ids::{BlobHash, EnvelopeId, MailboxId},
    time::Timestamp,
    tripwire::{Causes, OpenStatus, SealedList, StatusKey, Token, TokenRecord},
};

pub use anchor::{AnchorChange, AnchorOutcome};
pub(crate) use damage::tell as tell_damage;
pub use engine::{EngineName, MEMORY, StoreOptions, free_bytes, is_in, is_there};
pub use error::StoreError;
pub use export::{NextRow, Row, TakeRow};
pub use group::GroupCommit;
pub use inspect::{Fault, engine_of, inspect};
pub use keys::ANCHOR_KEYS;
pub use record::{Born, Day, Mailbox, MailboxKeys, Ticket};
pub use rules::Pressure;
pub use values::LOG_KEYS;

/// One change and the circumstances in which its rules judge it.
#[derive(Clone, Debug)]
pub struct Change {
    /// What is to be done.
    pub mutation: Mutation,
    /// Wall clock, for the expiry of access tickets only.
    pub now: Timestamp,
    /// Age stamp for what is stored by this change; see [`Day`].
    pub day: Day,
}

/// Whose quota is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// This access ticket's; refused with `no_access` if it is unknown, revoked, expired or used up.
    Ticket(PublicKey<Access>),
    /// Nobody's: the operator lets everybody create.
    Open,
}

/// Every change that a store knows. Each is atomic: all of it is on disk when its outcome is returned, or none.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// Creates a mailbox. The same keys and kind again are `Done`; others are refused with `conflict`.
    Create {
        /// Its keys; the id is the hash of the admin key.
        keys: MailboxKeys,
        /// Queue or log.
        kind: MailboxKind,
        /// Whose quota.
        charge: Charge,
        /// Random: tells this mailbox from an earlier one of the same id.
        born: Born,
    },
    /// Deletes a mailbox and what it holds. [`Outcome::Withdrawn`], also if it is not there.
    Close {
        /// Which.
        mailbox: MailboxId,
        /// Which of that id.
        born: Born,
    },
    /// Stores an envelope; the same envelope again gets the same [`Outcome::Stored`] while it is there, and, when it was taken, while
    /// its age is below the retention and fewer than 4,096 later ones came. A sink answers and keeps nothing.
    Append {
        /// Where to.
        mailbox: MailboxId,
        /// Which of that id.
        born: Born,
        /// Hash of `envelope`.
        id: EnvelopeId,
        /// Its bytes; shared, so that who waits for them need not read them back.
        envelope: Arc<Vec<u8>>,
        /// The mailbox's bytes may not exceed this with it, nor its access ticket's bytes their quota, else `full`.
        limit: u64,
        /// Bytes of the mailbox that may lie beyond both; 0 unless the administrator appends. What leaves the
        /// mailbox later is counted against them first.
        reserve: u64,
    },
    /// Deletes what was taken from a queue ([`Outcome::Withdrawn`]); changes nothing in a log or a sink (`Done`). The mailbox's
    /// head moves on to what waits first, so that nobody walks over more than `MAX_SELECTIVE_REACH` that are gone.
    Ack {
        /// Which.
        mailbox: MailboxId,
        /// Which of that id.
        born: Born,
        /// Everything to this number.
        upto: Seq,
        /// And these. If one was given and lies more than `MAX_SELECTIVE_REACH` numbers beyond the first envelope that waits
        /// behind `upto`, nothing of the change is done: `too_large`.
        also: Vec<Seq>,
    },
    /// Adds a part to a blob.
    BlobPut {
        /// Which.
        hash: BlobHash,
        /// Length of the whole blob.
        total: u64,
        /// Where the part starts; what lies below the blob's end is taken as a retry.
        offset: u64,
        /// The part.
        bytes: Vec<u8>,
        /// Whose quota; the whole length is charged with the first part.
        charge: Charge,
        /// Bytes of blobs that the ticket may hold with it, else `no_access`.
        limit: u64,
    },
    /// Makes a blob whose parts are all there readable, or drops it.
    BlobFinish {
        /// Which.
        hash: BlobHash,
        /// Whether its bytes have that hash.
        genuine: bool,
    },
    /// TRP-04: replaces a tripwire's records and list at once, under its serial rule.
    Arm {
        /// Whose.
        owner: PublicKey<TripwireOwner>,
        /// Counted up by the owner.
        serial: u64,
        /// Found by a token's lookup.
        records: Vec<TokenRecord>,
        /// What a firing token sets off.
        list: SealedList,
        /// What else sets it off.
        causes: Box<Causes>,
        /// Whose quota.
        charge: Charge,
    },
    /// Removes a tripwire, its records and its list.
    Disarm {
        /// Whose.
        owner: PublicKey<TripwireOwner>,
    },
    /// TRP-05: runs every record of a token. Writes and commits also where there is none.
    Token {
        /// The token.
        token: Token,
        /// Random bytes, for what is written in any case.
        filler: [u8; 32],
    },
    /// TRP-16: takes a trusted contact's voice. Writes and commits also where it means nothing.
    Trigger {
        /// Whose key was proved.
        raise: RaiseTrigger,
        /// Random bytes, for what is written in any case.
        filler: [u8; 32],
    },
    /// TRP-10: moves the running time, and does what deadlines have come.
    Watch {
        /// How long the relay has been running since the last time.
        elapsed: Duration,
        /// Random bytes.
        filler: [u8; 32],
    },
    /// Changes an anchor.
    Anchor {
        /// How.
        change: AnchorChange,
        /// Random bytes.
        filler: [u8; 32],
    },
    /// Adds an access ticket; one that is there is left as it is.
    IssueTicket(Ticket),
    /// Ends an access ticket. What was created with it stays.
    RevokeTicket(PublicKey<Access>),
    /// Moves the retention clock to the day that `now` says, by two days at most.
    Tick,
    /// One bounded step of the retention sweep.
    Sweep {
        /// Where to go on; `None` at the beginning.
        from: Option<SweepCursor>,
        /// Envelopes stored before this day are deleted.
        keep_from: Day,
        /// Complete blobs stored before this day are deleted.
        blobs_from: Day,
        /// Unfinished blobs begun before this day are deleted.
        unfinished_from: Day,
    },
    /// One bounded step of forgetting what retries need no more; answered as a step of a sweep.
    Forget {
        /// Where to go on; `None` at the beginning.
        from: Option<SweepCursor>,
    },
}

/// Where a sweep, or a forgetting, stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepCursor(pub(crate) Vec<u8>);

/// What became of a change.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is so, on disk.
    Done,
    /// It is so, on disk, and what was there before is not to be handed to anybody any more.
    Withdrawn(Withdrawn),
    /// The envelope's place.
    Stored {
        /// Its place; the same for each retry.
        place: Stored,
        /// Whether readers have something new to read.
        is_new: bool,
    },
    /// How much of a blob is on disk.
    Blob {
        /// Bytes on disk.
        stored: u64,
        /// Whether it is checked and readable.
        complete: bool,
    },
    /// What a token did.
    Token {
        /// What its owner may learn, and under which key.
        status: Option<(OpenStatus, StatusKey)>,
        /// Mailboxes that have something new to read.
        appended: Vec<MailboxId>,
        /// What became unreadable.
        withdrawn: Vec<Withdrawn>,
        /// Whether nothing is left to be done with it. Else the rest is, when it is presented again.
        is_whole: bool,
    },
    /// A voice was taken, or meant nothing.
    Triggered {
        /// Mailboxes that have something new to read.
        appended: Vec<MailboxId>,
        /// What became unreadable.
        withdrawn: Vec<Withdrawn>,
        /// Whether nothing is left to be done. Else the rest is, when it is raised again.
        is_whole: bool,
    },
    /// What deadlines set off.
    Watched {
        /// Mailboxes that have something new to read.
        appended: Vec<MailboxId>,
        /// What became unreadable.
        withdrawn: Vec<Withdrawn>,
        /// More may have come: to be asked again at once.
        has_more: bool,
    },
    /// What came of a change of an anchor.
    Anchor {
        /// What.
        outcome: AnchorOutcome,
        /// Mailboxes that have something new to read.
        appended: Vec<MailboxId>,
        /// What became unreadable.
        withdrawn: Vec<Withdrawn>,
    },
    /// The retention clock.
    Day(Day),
    /// A step of the sweep is done.
    Swept {
        /// Where to go on; `None` at the end.
        next: Option<SweepCursor>,
        /// What expired.
        withdrawn: Vec<Withdrawn>,
    },
    /// It was not done; nothing changed.
    Refused(Refusal),
}

impl Outcome {
    /// Envelopes that nobody is to be handed any more because of this change.
    pub(crate) fn withdrawn(&self) -> &[Withdrawn] {
        match self {
            Self::Withdrawn(one) => std::slice::from_ref(one),
            Self::Token { withdrawn, .. }
            | Self::Triggered { withdrawn, .. }
            | Self::Watched { withdrawn, .. }
            | Self::Anchor { withdrawn, .. }
            | Self::Swept { withdrawn, .. } => withdrawn,
            Self::Done | Self::Stored { .. } | Self::Blob { .. } | Self::Day(_) | Self::Refused(_) => &[],
        }
    }
}

/// Envelopes that were taken, destroyed or expired: whoever waits with one of them in its hands drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// Of which mailbox.
    pub mailbox: MailboxId,
    /// Which of that id.
    pub born: Born,
    /// To which number. Some of them may still be there: the store knows.
    pub upto: Seq,
}

impl Withdrawn {
    /// Everything that a mailbox has and will ever have.
    pub(crate) const fn all(mailbox: MailboxId, born: Born) -> Self {
        Self { mailbox, born, upto: Seq::new(u64::MAX) }
    }
}

/// Sums over the whole store, for its operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Mailboxes that exist.
    pub mailboxes: u64,
    /// Bytes of envelopes that wait.
    pub envelope_bytes: u64,
    /// Complete blobs.
    pub blobs: u64,
    /// Bytes of blobs, unfinished ones included.
    pub blob_bytes: u64,
    /// Access tickets that are neither revoked nor expired at the asked time.
    pub tickets: u64,
}

/// A relay's store.
///
/// # Contract
/// 1. `apply` returns after the change and everything it depends on is on stable storage; a crash at any time leaves
///    the state before or after a whole change, never between.
/// 2. Changes take effect one after the other, in the order in which `apply` was first polled by one caller.
/// 3. A query sees every change whose `apply` had returned when it was made, and no change that is not yet durable.
/// 4. A retry of a change gets the answer of the first, as described at each [`Mutation`].
/// 5. After [`StoreError::Disk`] the store takes no more changes; after [`StoreError::Full`] none until there is room
///    again. In both cases what was answered before stays readable; sled may refuse to read until there is room. When
///    there is room the engine is opened anew, and queries wait for that, up to a minute if its index is being sorted.
/// 6. No method panics, and none waits for another caller's query.
///
/// [`conformance`] says where each clause is tried.
#[async_trait]
pub trait MailboxStore: Send + Sync + 'static {
    /// Makes one change durable.
    ///
    /// # Errors
    /// [`StoreError`]; whether the change was made is then unknown, and a retry finds out.
    async fn apply(&self, change: Change) -> Result<Outcome, StoreError>;

    /// A mailbox's record.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StoreError>;

    /// Envelopes after a cursor, at most `count` and `bytes` but at least one if there is one. `None` if this
    /// mailbox is not there.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn window(&self, query: WindowQuery) -> Result<Option<Window>, StoreError>;

    /// The part of a complete blob that starts at `offset`; empty at its end.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn blob_part(&self, hash: BlobHash, offset: u64) -> Result<Option<BlobPart>, StoreError>;

    /// The hash of the parts of a blob that are on disk, whatever it is called.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn blob_digest(&self, hash: BlobHash) -> Result<Option<BlobHash>, StoreError>;

    /// An access ticket.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn ticket(&self, key: PublicKey<Access>) -> Result<Option<Ticket>, StoreError>;

    /// All access tickets, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn tickets(&self) -> Result<Vec<Ticket>, StoreError>;

    /// Sums; walks the whole store's small records.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError>;

    /// Finishes what was begun and closes the files. Later calls get [`StoreError::Closed`].
    async fn close(&self);
}

/// A store that keeps its state on a disk and can be asked about it.
pub trait KeptStore: MailboxStore {
    /// Changes the bytes that stay free on the file system.
    fn set_reserve(&self, reserve: u64);

    /// How it does.
    fn health(&self) -> Health;

    /// Reads what a backup has, as of one moment: no anchors and no tripwires. Blocks its thread, not the store; until it
    /// returns, keys of what is deleted meanwhile are not forgotten.
    ///
    /// # Errors
    /// [`StoreError`], and what `take` returns.
    fn rows(&self, take: &mut TakeRow<'_>) -> Result<(), StoreError>;

    /// Bytes on disk.
    ///
    /// # Errors
    /// [`StoreError`].
    fn disk_bytes(&self) -> Result<u64, StoreError>;
}

/// How a store on disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The disk failed: the store must be opened anew.
    pub has_failed: bool,
    /// The disk is full: nothing new is taken until there is room.
    pub is_full: bool,
    /// How short of room the disk was when it was last looked at: with each commit, the relay's own among them every 15 seconds.
    pub pressure: Pressure,
    /// Commits that took more than half a second since the store was opened. The flush of keys counts: before a commit, and
    /// when they are forgotten.
    pub slow_commits: u64,
    /// The slowest commit since the store was opened.
    pub slowest_commit: Duration,
    /// For how long the commit that runs now, or the flush of keys, has been running.
    pub running_commit: Option<Duration>,
}

/// Which envelopes to read.
#[derive(Clone, Copy, Debug)]
pub struct WindowQuery {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// Which of that id.
    pub born: Born,
    /// The last number that was taken.
    pub after: Seq,
    /// Most envelopes.
    pub count: usize,
    /// Most bytes of envelopes.
    pub bytes: usize,
}

impl Mailbox {
    /// The id, which is the hash of the admin key.
    pub fn id(&self) -> MailboxId {
        mailbox_id(&self.keys.admin)
    }
}

fn mailbox_id(admin: &PublicKey<Admin>) -> MailboxId {
    MailboxId::of_admin(admin)
}
