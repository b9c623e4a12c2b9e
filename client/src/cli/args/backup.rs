//! `backup`.

use std::path::PathBuf;

use clap::Subcommand;

/// `backup`.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Write what this passphrase opens to a new file, under a passphrase of its own
    #[command(
        long_about = "Write what this passphrase opens to a new file, under a passphrase of its own\n\nOne compartment with \
                      --compartment. It holds history, identities and what begins sessions anew; no session, no plan, \
                      no group key, nothing that disappears by a timer."
    )]
    Create {
        /// The file; it must not exist
        file: PathBuf,
        /// Accept a passphrase that is easy to guess
        #[arg(long)]
        weak: bool,
    },
    /// Make a new vault of a backup, and begin the session with every contact anew
    #[command(
        long_about = "Make a new vault of a backup, and begin the session with every contact anew\n\nThe passphrase is \
                      the backup's, the new passphrase the vault's. Use a backup once: a second vault of it is refused by \
                      the contacts."
    )]
    Restore {
        /// The backup
        file: PathBuf,
        /// Size of the vault, fixed for its life: 8MiB to 16GiB
        #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = crate::cli::size::parse)]
        size: u64,
        /// Accept a passphrase that is easy to guess
        #[arg(long)]
        weak: bool,
    },
}
