//! `init`, `passphrase`.

use clap::{Args, Subcommand};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Size of the vault, fixed for its life: 8MiB to 16GiB
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = crate::cli::size::parse)]
    pub size: u64,
    /// Accept a passphrase that is easy to guess
    #[arg(long)]
    pub weak: bool,
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
