//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// List, rename or block chats
    #[command(subcommand)]
    Chat(ChatCommand),
    /// Send a message
    Send(SendArgs),
    /// Show messages of a chat
    Read(ReadArgs),
    /// Send what waits and fetch what came
    Sync(SyncArgs),
    /// Found, join and change groups
    #[command(subcommand)]
    Group(GroupCommandLine),
    /// Make or list compartments
    #[command(subcommand)]
    Compartment(CompartmentCommand),
    /// Set up duress passphrases
    #[command(subcommand)]
    Sos(SosCommand),
    /// Choose who is alerted, or agree to be
    #[command(subcommand)]
    Trust(TrustCommand),
    /// List or acknowledge alerts of people who trust you
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Change the passphrase
    #[command(subcommand)]
    Passphrase(PassphraseCommand),
    /// Show everything at work: a relay, people, a group, an SOS, an alert
    Demo(DemoArgs),
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Size of the vault, fixed for its life: 8MiB to 16GiB
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = super::size::parse)]
    pub size: u64,
    /// Accept a passphrase that is easy to guess
    #[arg(long)]
    pub weak: bool,
}

/// `relay`.
#[derive(Debug, Subcommand)]
pub enum RelayCommand {
    /// Add a relay by the access ticket that its operator gave you
    Add {
        /// The text that begins with `lapwing-access:`, or - to read it from standard input
        #[arg(value_name = "ACCESS|-")]
        ticket: String,
    },
    /// List the relays
    List,
    /// Remove a relay that no chat uses
    Remove {
        /// Its address, as `relay list` shows it
        relay: String,
    },
}

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
}

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The chat
    pub chat: String,
    /// The text, or - to read it from standard input
    ///
    /// Standard input leaves no trace in the shell's history: echo "at the ford" | lapwing send anna -
    #[arg(value_name = "-|TEXT")]
    pub text: String,
}

/// Arguments of `read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The chat
    pub chat: String,
    /// Stay and show messages as they come, until Ctrl-C or until another command needs the vault
    #[arg(long, short)]
    pub follow: bool,
    /// Show the last N messages [default: all that were not shown yet, at least 10]
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
}

/// Arguments of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Stay for so many seconds and take what comes as it comes
    #[arg(long, value_name = "SECS")]
    pub wait: Option<u64>,
}

/// `group`.
#[derive(Debug, Subcommand)]
pub enum GroupCommandLine {
    /// Found a group
    Create {
        /// Its name, which all members see
        name: String,
        /// Your name in it, which all members see
        #[arg(long = "as", value_name = "NAME")]
        alias: String,
    },
    /// Invite a contact; when they say yes, they are let in
    Invite {
        /// The group
        group: String,
        /// The contact's chat
        chat: String,
    },
    /// Say yes: to an invitation that came, or to somebody who asks to be let in
    Approve {
        /// Name of the group, or of the chat it came through
        what: String,
        /// Your name in the group, which all members see
        #[arg(long = "as", value_name = "NAME", default_value = "member")]
        alias: String,
        /// Your own name for the group [default: its name]
        #[arg(long)]
        name: Option<String>,
    },
    /// Say no to it
    Decline {
        /// Name of the group, or of the chat it came through
        what: String,
    },
    /// List the members
    Members {
        /// The group
        group: String,
    },
    /// Remove a member: new keys at once, nothing from now on is readable to them
    Remove {
        /// The group
        group: String,
        /// Name in the group, or of the chat they were invited through
        member: String,
    },
    /// Leave a group
    Leave {
        /// The group
        group: String,
        /// End it for everybody, if you own it
        #[arg(long)]
        end: bool,
    },
    /// Show a group's state
    Info {
        /// The group; without it, invitations that wait for an answer
        group: Option<String>,
    },
}

/// `compartment`.
#[derive(Debug, Subcommand)]
pub enum CompartmentCommand {
    /// Make a compartment: chats of its own, which a passphrase may open or not
    Create {
        /// Its name
        name: String,
    },
    /// List the compartments that this passphrase opens
    List,
    /// Give a compartment another name
    Rename {
        /// The compartment
        compartment: String,
        /// Its new name
        name: String,
    },
}

/// What becomes of what the duress passphrase does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActionArg {
    /// It stays, unseen
    Hide,
    /// Its keys are destroyed at once
    Destroy,
}

/// `sos`.
#[derive(Debug, Subcommand)]
pub enum SosCommand {
    /// Set up a duress passphrase: what it shows, what it does, whom it alerts
    Add(SosAddArgs),
    /// List what was set up
    List,
    /// Remove one, and its passphrase with it
    Remove {
        /// Its name
        name: String,
    },
}

/// Arguments of `sos add`. What is not given is asked.
#[derive(Debug, Args)]
pub struct SosAddArgs {
    /// A name for it, which only this list shows
    #[arg(long)]
    pub name: Option<String>,
    /// A compartment that stays visible; may be given several times
    #[arg(long, value_name = "COMPARTMENT")]
    pub show: Vec<String>,
    /// What becomes of all others
    #[arg(long = "do", value_name = "ACTION")]
    pub action: Option<ActionArg>,
    /// A trusted contact to alert, by chat; may be given several times
    #[arg(long, value_name = "CHAT")]
    pub alert: Vec<String>,
    /// Alert nobody
    #[arg(long, conflicts_with = "alert")]
    pub no_alert: bool,
    /// What the alert says
    #[arg(long)]
    pub text: Option<String>,
    /// A place to name in it
    #[arg(long)]
    pub place: Option<String>,
    /// What the contacts are asked to do
    #[arg(long)]
    pub instructions: Option<String>,
    /// You have read what it does and what it risks
    #[arg(long)]
    pub yes: bool,
    /// Accept a passphrase that is easy to guess
    #[arg(long)]
    pub weak: bool,
}

/// `trust`.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Ask a contact to receive your alerts
    Add {
        /// The contact's chat
        chat: String,
    },
    /// Agree to receive a contact's alerts
    Accept {
        /// The contact's chat
        chat: String,
    },
    /// List who is alerted, and who alerts you
    List,
    /// End it, in both directions
    Remove {
        /// The contact's chat
        chat: String,
    },
}

/// `alert`.
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// List alerts
    List,
    /// Acknowledge an alert: it stops repeating
    Ack {
        /// The first letters of its id, as `alert list` shows it [default: all]
        id: Option<String>,
    },
}

/// `passphrase`.
#[derive(Debug, Subcommand)]
pub enum PassphraseCommand {
    /// Replace the passphrase that you just used by another
    Change {
        /// Accept a passphrase that is easy to guess
        #[arg(long)]
        weak: bool,
    },
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the folder with the vaults and the relay, and say where it is
    #[arg(long)]
    pub keep: bool,
    /// The relay's program [default: lapwing-relay beside this one]
    #[arg(long, value_name = "PATH")]
    pub relay: Option<PathBuf>,
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
