//! `compartment`.

use clap::Subcommand;

/// `compartment`.
#[derive(Debug, Subcommand)]
pub enum CompartmentCommand {
    /// Make a compartment: chats of its own, which a passphrase may open or not
    Create {
        /// Its name
        name: String,
    },
    /// List the compartments that this passphrase opens
    List,
    /// Delete a compartment with everything in it, for good
    Delete {
        /// The compartment
        #[arg(id = "which", value_name = "COMPARTMENT")]
        compartment: String,
        /// You are sure
        #[arg(long)]
        yes: bool,
    },
    /// Give a compartment another name
    Rename {
        /// The compartment
        #[arg(id = "which", value_name = "COMPARTMENT")]
        compartment: String,
        /// Its new name
        name: String,
    },
}
