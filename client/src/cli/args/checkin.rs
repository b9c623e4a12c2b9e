//! `checkin`.

use clap::{Args, Subcommand};

use super::AlertArgs;

/// `checkin`.
#[derive(Debug, Subcommand)]
pub enum CheckinCommand {
    /// Begin: an alert leaves when nothing is heard of you for so long
    Start(CheckinStartArgs),
    /// Say that you are well: the time begins anew
    Now,
    /// End it: no alert leaves any more
    Stop,
    /// Show what is running, without checking in
    Status,
}

/// Arguments of `checkin start`. What is not given is asked.
#[derive(Debug, Args)]
pub struct CheckinStartArgs {
    /// The silence after which the alert leaves, from 10m to 400d
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    pub every: String,
    /// Whom it goes to, and what it says
    #[command(flatten)]
    pub alert: AlertArgs,
    /// You have read what it does and what it risks
    #[arg(long)]
    pub yes: bool,
}
