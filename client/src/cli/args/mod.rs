//! The command line: what applies to every command here, the arguments of each group of verbs in a module of its own.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod alert;
mod backup;
mod checkin;
mod compartment;
mod contact;
mod demo;
mod group;
mod message;
mod relay;
mod search;
mod sos;
mod vault;

pub use alert::{AlertCommand, TriggerArgs, TrustCommand};
pub use backup::BackupCommand;
pub use checkin::{CheckinCommand, CheckinStartArgs};
pub use compartment::CompartmentCommand;
pub use contact::{ChatCommand, InviteArgs, JoinArgs, VerifyArgs};
pub use demo::DemoArgs;
pub use group::GroupCommandLine;
pub use message::{AttachArgs, DraftArgs, ReadArgs, SendArgs, SyncArgs};
pub use relay::RelayCommand;
pub use search::SearchArgs;
pub use sos::{ActionArg, AlertArgs, SosAddArgs, SosCommand};
pub use vault::{GrowArgs, InitArgs, NewPassphraseArgs, PassphraseCommand};

use crate::error::Error;

/// End-to-end encrypted coordination messenger with duress features.
///
/// Everything lies in one file, the vault. Each command asks for a passphrase, does its work and locks the vault again.
/// Where a vault has several passphrases, each opens its own compartments.
#[derive(Debug, Parser)]
#[command(
    name = "lapwing",
    version,
    after_help = "First steps: lapwing init, lapwing relay add -, lapwing invite NAME. A tour of everything: lapwing demo"
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: CommandLine,
}

/// What applies to every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The vault's file; any name does [default: lapwing/vault in the user's data folder]
    #[arg(long, global = true, value_name = "PATH")]
    pub vault: Option<PathBuf>,
    /// Write results as JSON Lines, for scripts
    #[arg(long, global = true)]
    pub json: bool,
    /// Read the passphrase from this file descriptor, one line; with 0 and -, what follows the line is the input
    #[arg(long, global = true, value_name = "N")]
    pub passphrase_fd: Option<u32>,
    /// Read a passphrase that is to be set from this file descriptor, one line
    #[arg(long, global = true, value_name = "N")]
    pub new_passphrase_fd: Option<u32>,
    /// Work in this compartment [default: the first, or the one that holds the chat]
    #[arg(long, global = true, value_name = "NAME")]
    pub compartment: Option<String>,
    /// Neither send nor fetch anything but what every unlock sends
    #[arg(long, global = true)]
    pub offline: bool,
    /// Say nothing but results, warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum CommandLine {
    /// Make a vault
    Init(InitArgs),
    /// Carry everything over to a larger vault
    Grow(GrowArgs),
    /// Show relays, chats, what waits, and the space that is left
    Status,
    /// Look for what is unsafe about this computer and this vault
    Doctor,
    /// Add, list or remove relays
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Make a ticket for one person, and the chat that it opens
    Invite(InviteArgs),
    /// Take a ticket that somebody gave you
    Join(JoinArgs),
    /// Show the safety number of a chat, or record that you compared it
    Verify(VerifyArgs),
    /// List, rename, move, block, clear or delete chats, or set how long they keep messages
    #[command(subcommand)]
    Chat(ChatCommand),
    /// Send a message
    Send(SendArgs),
    /// Keep a text for later, show it, or erase it
    Draft(DraftArgs),
    /// Show messages of a chat
    Read(ReadArgs),
    /// Find messages that contain a text
    Search(SearchArgs),
    /// Send what waits and fetch what came
    Sync(SyncArgs),
    /// Found, join and change groups
    #[command(subcommand)]
    Group(GroupCommandLine),
    /// Make, list, rename or delete compartments
    #[command(subcommand)]
    Compartment(CompartmentCommand),
    /// Set up duress passphrases
    #[command(subcommand)]
    Sos(SosCommand),
    /// Alert people you trust if nothing is heard of you
    #[command(subcommand)]
    Checkin(CheckinCommand),
    /// Choose who is alerted, or agree to be
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Give your voice to set off what a contact prepared, from afar
    Trigger(TriggerArgs),
    /// List or acknowledge alerts of people who trust you
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Change, add, list, remove or draw passphrases
    #[command(subcommand)]
    Passphrase(PassphraseCommand),
    /// Write a backup, or restore one into a new vault
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Show everything at work: a relay, people, a group, an SOS, an alert
    Demo(DemoArgs),
}

/// What is wrong with a command line, for a script that asked for `--json`: the first line of what a person is told.
#[must_use]
pub fn misused(error: &clap::Error) -> Error {
    let text = error.to_string();
    let told = text.lines().next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':');
    let message = if told.is_empty() { "the command line cannot be understood" } else { told };
    Error::usage(message.to_owned(), "see: lapwing --help")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_misused_command_line_is_told_in_one_line() {
        let told = |words: &[&str]| {
            let error = misused(&Cli::try_parse_from(words).unwrap_err());
            assert_eq!((error.code(), error.hint()), ("usage", "see: lapwing --help"));
            error.message().to_owned()
        };
        assert_eq!(told(&["lapwing", "frobnicate"]), "unrecognized subcommand 'frobnicate'");
        let missing = told(&["lapwing", "send"]);
        assert!(missing.starts_with("the following required arguments were not provided"), "{missing}");
        assert!(!missing.contains('\n') && !told(&["lapwing", "init", "--size", "a lot"]).is_empty());
    }
}
