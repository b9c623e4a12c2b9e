//! `trust`, `trigger` and `alert`.

use clap::{Args, Subcommand};

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

/// `trigger`.
#[derive(Debug, Args)]
pub struct TriggerArgs {
    /// The contact's chat
    pub chat: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
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
