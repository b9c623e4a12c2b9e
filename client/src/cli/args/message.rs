//! `send`, `draft`, `read`, `sync`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The chat
    pub chat: String,
    /// The text, or - to read it from standard input
    ///
    /// Standard input leaves no trace in the shell's history: lapwing send anna - ; type the text, then Enter and Ctrl-D
    #[arg(value_name = "-|TEXT", required_unless_present_any = ["draft", "attach"], conflicts_with = "draft")]
    pub text: Option<String>,
    /// Send the draft of this chat
    #[arg(long)]
    pub draft: bool,
    /// Files to send with it.
    #[command(flatten)]
    pub files: AttachArgs,
}

/// Arguments of `send` that are about files.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Send this file, up to 99.9 MiB; may be given ten times
    ///
    /// JPEG, PNG and WebP pictures lose what they say beside the picture (place, time, camera); plain text has nothing
    /// beside it. Leave the file where it is until it is sent.
    #[arg(long, value_name = "FILE", conflicts_with = "draft")]
    pub attach: Vec<PathBuf>,
    /// What the others are told that the file is called [default: file, with the ending of its name]
    #[arg(long, requires = "attach")]
    pub name: Option<String>,
    /// Send files as they are, with all that they say about you
    #[arg(long, requires = "attach")]
    pub keep_metadata: bool,
}

/// Arguments of `draft`.
#[derive(Debug, Args)]
pub struct DraftArgs {
    /// The chat
    pub chat: String,
    /// The text to keep, or - to read it from standard input; without it the draft is shown
    #[arg(value_name = "-|TEXT", conflicts_with = "delete")]
    pub text: Option<String>,
    /// Erase the draft
    #[arg(long)]
    pub delete: bool,
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
    /// Show the number of each message, for `chat erase` and `chat fetch`
    #[arg(long)]
    pub numbers: bool,
}

/// Arguments of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Stay for so many seconds and take what comes as it comes
    #[arg(long, value_name = "SECS")]
    pub wait: Option<u64>,
}
