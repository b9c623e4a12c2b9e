//! `invite`, `join`, `verify`, `chat`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// Your name for the person; nobody else sees it
    pub name: String,
    /// Show the ticket as a QR code too
    #[arg(long)]
    pub qr: bool,
    /// How long the ticket can be used, up to 30 days
    #[arg(long, default_value = "7d", value_name = "SPAN")]
    pub valid: String,
    /// Receive at this relay [default: the first one]
    #[arg(long, value_name = "RELAY")]
    pub relay: Option<String>,
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The ticket's text, or - to read it from standard input
    #[arg(value_name = "TICKET|-")]
    pub ticket: String,
    /// Your name for the person; nobody else sees it
    #[arg(long)]
    pub name: String,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The chat
    pub chat: String,
    /// Record that the numbers are equal on both sides
    #[arg(long, conflicts_with = "different")]
    pub equal: bool,
    /// Record that they are not, or not compared
    #[arg(long)]
    pub different: bool,
}

/// `chat`.
#[derive(Debug, Subcommand)]
pub enum ChatCommand {
    /// List the chats
    List,
    /// Give a chat another name
    Rename {
        /// The chat
        chat: String,
        /// Its new name
        name: String,
    },
    /// Move a chat to another compartment: messages, keys, name, all of it; the other side stays in touch
    Move {
        /// The chat
        chat: String,
        /// Where to
        #[arg(value_name = "COMPARTMENT")]
        to: String,
        /// Its name there [default: the same]
        #[arg(long)]
        name: Option<String>,
    },
    /// Show or set how long messages are kept once they were read: both sides are told, the shorter time counts
    Timer {
        /// The chat
        chat: String,
        /// From 5m to 365d, or off
        #[arg(value_name = "SPAN|off")]
        span: Option<String>,
    },
    /// Erase messages by their numbers; see: lapwing read CHAT --numbers
    Erase {
        /// The chat
        chat: String,
        /// The numbers
        #[arg(value_name = "NUMBER", required = true, num_args = 1..=500)]
        numbers: Vec<u64>,
    },
    /// Erase all messages of a chat and its draft; the chat stays
    Clear {
        /// The chat
        chat: String,
        /// Only what came longer ago, like 12h, 30d
        #[arg(long, value_name = "SPAN")]
        before: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Delete a chat: messages, keys, names, all of it
    Delete {
        /// The chat
        chat: String,
        /// Leave the group first
        #[arg(long)]
        leave: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// End a contact: nothing is taken or sent any more
    Block {
        /// The chat
        chat: String,
    },
    /// Undo `block`
    Unblock {
        /// The chat
        chat: String,
    },
    /// Fetch the file of a message; see: lapwing read CHAT
    Fetch {
        /// The chat
        chat: String,
        /// The number of the message
        #[arg(value_name = "NUMBER")]
        number: u64,
        /// Where to: a file that is not there yet, or a folder [default: here, under the name that came with it]
        #[arg(long, value_name = "FILE|FOLDER")]
        out: Option<PathBuf>,
        /// Also from a relay that this vault does not use: whoever runs it sees your address
        #[arg(long)]
        other_relay: bool,
    },
    /// Begin the session of a contact anew, after a vault was used in two places
    Renew {
        /// The chat
        #[arg(required_unless_present = "all")]
        chat: Option<String>,
        /// Every contact, of one compartment with --compartment
        #[arg(long, conflicts_with = "chat")]
        all: bool,
    },
}
