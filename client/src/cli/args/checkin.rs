//! `checkin`.

use clap::{Args, Subcommand};

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
    /// A trusted contact to alert, by chat; may be given several times
    #[arg(long, value_name = "CHAT")]
    pub alert: Vec<String>,
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
}
