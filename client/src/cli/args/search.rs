//! `search`.

use clap::Args;

/// Arguments of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// The text, or - to read it from standard input
    ///
    /// Upper and lower case are taken for equal. Standard input leaves no trace in the shell's history: lapwing search - ;
    /// type the text, then Enter and Ctrl-D
    #[arg(value_name = "-|TEXT")]
    pub text: String,
    /// Look in this chat only
    #[arg(long, value_name = "CHAT")]
    pub chat: Option<String>,
    /// Show the newest N that match
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub last: u32,
}
