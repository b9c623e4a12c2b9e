//! What an operator may ask of a relay.
//!
//! A running relay answers on a Unix socket (mode 0600, same user only): one JSON line each way, and after the one to
//! `rows` the records of a backup. A relay that does not run is asked through its store. Both give the same answers.
//!
//! | module | what |
//! | --- | --- |
//! | `desk` | who answers |
//! | `control` | the socket |

mod control;
mod desk;

use lapwing_wire::{
    capability::{Access, PublicKey},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::store::Pressure;
pub use control::{Rest, ask, listen, rows, serve, wish_end};
pub use desk::{Desk, Running};

/// Letters of a ticket's name: 64 bits, so that no two of one relay are alike.
const NAME_LETTERS: usize = 13;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// How the relay does.
    Status,
    /// A new access ticket.
    AccessIssue {
        /// Its quota in bytes.
        bytes: u64,
        /// Its quota in mailboxes.
        mailboxes: u64,
        /// When it ends.
        expires: Option<Timestamp>,
    },
    /// All access tickets.
    AccessList,
    /// Ends an access ticket.
    AccessRevoke {
        /// Its name, as listed.
        name: String,
    },
    /// Another key, for which the present one vouches.
    RotateKey,
    /// The records of a backup; they follow the answer.
    Rows,
    /// Ends the relay in order.
    Stop,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// How the relay does.
    Status(Status),
    /// The text of a new access ticket. It is shown once; the relay keeps the public half.
    Issued {
        /// As listed.
        name: String,
        /// To be handed out.
        ticket: String,
    },
    /// All access tickets.
    Tickets(Vec<TicketLine>),
    /// It is done.
    Done,
    /// There is no such ticket, or more than one.
    NoSuchTicket,
    /// The relay's port is not fixed and it does not run: it has no address yet.
    NoAddress,
    /// The relay has another key.
    Rotated {
        /// What to hand out from now on; `None` while its port is not known.
        address: Option<String>,
    },
    /// The records follow.
    Rows,
    /// It could not be done.
    Failed {
        /// Why.
        message: String,
        /// What to do.
        hint: String,
    },
}

/// How a relay does. Sums only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This program's version.
    pub version: String,
    /// What to hand out.
    pub address: Option<String>,
    /// Connections now; `None` if it does not run.
    pub connections: Option<usize>,
    /// Mailboxes.
    pub mailboxes: u64,
    /// Bytes of waiting envelopes.
    pub envelope_bytes: u64,
    /// Complete blobs.
    pub blobs: u64,
    /// Bytes of blobs.
    pub blob_bytes: u64,
    /// Valid access tickets.
    pub tickets: u64,
    /// Bytes of the store on disk.
    pub disk_bytes: u64,
    /// Bytes that are free on its file system.
    pub free_bytes: u64,
    /// Commits slower than half a second since the start.
    pub slow_commits: u64,
    /// The slowest commit since the start, in milliseconds.
    pub slowest_commit_ms: u64,
    /// For how long the commit that runs now has been running, in milliseconds.
    pub running_commit_ms: Option<u64>,
    /// The disk is full and nothing new is taken.
    pub is_full: bool,
    /// How short of room the disk is.
    #[serde(default)]
    pub pressure: Pressure,
    /// Receive buffer that the system granted; `None` if it does not run.
    pub socket_buffer: Option<usize>,
}

/// One access ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketLine {
    /// Made from its public key.
    pub name: String,
    /// Quota and use.
    pub quota_bytes: u64,
    /// In use.
    pub used_bytes: u64,
    /// Quota.
    pub quota_mailboxes: u64,
    /// In use.
    pub used_mailboxes: u64,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// Whether it may be used.
    pub is_valid: bool,
}

/// The name under which a ticket is listed.
pub fn ticket_name(key: &PublicKey<Access>) -> String {
    let mut name = data_encoding::BASE32_NOPAD.encode(key.as_bytes());
    name.truncate(NAME_LETTERS);
    name.make_ascii_lowercase();
    name
}
