//! `sos`.

use clap::{Args, Subcommand, ValueEnum};

use super::NewPassphraseArgs;

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

/// An alert that is prepared now.
#[derive(Debug, Args)]
pub struct AlertArgs {
    /// A trusted contact to alert, by chat; may be given several times
    #[arg(long = "alert", value_name = "CHAT", id = "alert")]
    pub to: Vec<String>,
    /// What the alert says
    #[arg(long)]
    pub text: Option<String>,
    /// A place to name in it
    #[arg(long)]
    pub place: Option<String>,
    /// What the contacts are asked to do
    #[arg(long)]
    pub instructions: Option<String>,
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
    /// So many of those contacts, together, can set off at the relay what it does there: `lapwing trigger`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8), requires = "alert")]
    pub remote: Option<u8>,
    /// Alert nobody
    #[arg(long, conflicts_with = "alert")]
    pub no_alert: bool,
    /// Whom the alert goes to, and what it says
    #[command(flatten)]
    pub alert: AlertArgs,
    /// You have read what it does and what it risks
    #[arg(long)]
    pub yes: bool,
    /// What applies to every new passphrase
    #[command(flatten)]
    pub new: NewPassphraseArgs,
}
