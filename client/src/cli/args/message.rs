//! `send`, `read`, `sync`.

use clap::Args;

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
