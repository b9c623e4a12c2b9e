//! `relay`.

use clap::Subcommand;

/// `relay`.
#[derive(Debug, Subcommand)]
pub enum RelayCommand {
    /// Add a relay by the access ticket that its operator gave you
    Add {
        /// The text that begins with `lapwing-access:`, or - to read it from standard input
        #[arg(value_name = "ACCESS|-")]
        ticket: String,
    },
    /// List the relays
    List,
    /// Remove a relay that no chat uses
    Remove {
        /// Its address, as `relay list` shows it
        relay: String,
    },
}
