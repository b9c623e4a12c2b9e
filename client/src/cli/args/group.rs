//! `group`.

use clap::Subcommand;

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
